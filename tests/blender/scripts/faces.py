"""Marking a face: the editor with made-up events, what is kept, what the backend gets."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from prelude import ARGS, MODULE, bpy, draw, finish, install, part, texts

FOLDER = Path(ARGS["folder"])
FACE = {name: tuple(at) for name, at in ARGS["face"].items()}
install()
session, panels, editors = part("session"), part("panels"), part("face_editor")
faces, marking, jobfolder = part("faces"), part("marking"), part("jobfolder")
bpy.context.preferences.addons[MODULE].preferences.python = ARGS["python"]
scene = bpy.context.scene
settings = scene.toonify3d
settings.output = str(FOLDER / "jobs")
window = bpy.context.window_manager.windows[0]
view = next(area for area in window.screen.areas if area.type == "VIEW_3D")
region = next(item for item in view.regions if item.type == "WINDOW")
settings.capture = str(FOLDER / "good film.mp4")
Path(settings.capture).write_bytes(b"film")
plain, faceless = str(FOLDER / "toon.png"), str(FOLDER / "faceless Ünï.png")
out = {}

# Modal operators never get events in background mode: keep the instance, and hand them over.
operator = part("operators.mark_face").ToonifyOtMarkFace
live = []
execute = operator.execute


def remembering(self, context):
    live.append(self)
    return execute(self, context)


operator.execute = remembering


def open_editor(exemplar=""):
    live.clear()
    with bpy.context.temp_override(window=window, area=view, region=region):
        answer = bpy.ops.toonify3d.mark_face("INVOKE_DEFAULT", exemplar=exemplar)
    if editors.current is not None:  # windows of the module have no size
        editors.current._free = lambda: marking.Rect(0, 0, 800, 600)
        editors.current.marking.view.resize(marking.Rect(0, 0, 800, 600))
    return answer


def send(kind, value="PRESS", at=None, **held):
    """An event with the pointer over a picture point."""
    current = editors.current
    x, y = current.marking.view.to_region(at) if at else current.marking.pointer
    event = SimpleNamespace(type=kind, value=value, ctrl=False, oskey=False,
                            mouse_x=x + region.x, mouse_y=y + region.y,
                            mouse_prev_x=x + region.x - 10, mouse_prev_y=y + region.y)  # fmt: skip
    event.__dict__.update(held)
    return next(iter(live[0].modal(bpy.context, event)))


def click_all(points):
    for at in points.values():
        send("LEFTMOUSE", at=at)
        send("LEFTMOUSE", "RELEASE", at=at)


def rounded(points):
    return {name: [round(value, 2) for value in at] for name, at in points.items()}


def idle():
    return not (session.queue.busy or session.checking())


def wait(until=idle, seconds=60):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, (session.queue.jobs, session.face_check.problem)
        session.tick()
        time.sleep(0.01)
    session.tick()


def refused(exemplar):
    try:
        return next(iter(open_editor(exemplar)))
    except RuntimeError as error:
        return str(error)


# -- the operator: clicks, keys, what is kept --
settings.exemplar = plain
images = len(bpy.data.images)
out["poll"] = [bpy.ops.toonify3d.mark_face.poll()]
out["opened"] = sorted(open_editor())
out["poll"].append(bpy.ops.toonify3d.mark_face.poll())
out["passed"] = [send("TIMER"), send("TIMER_REPORT"), send("G"), send("WINDOW_DEACTIVATE")]
click_all(FACE)
out["too_early"] = bool(faces.points(settings, plain))
out["done"] = send("RET")
out["marked"] = rounded(faces.points(settings, plain))
out["entry"] = [list(settings.faces[0].size), settings.faces[0].file_bytes, len(settings.faces)]
out["images_left"] = len(bpy.data.images) - images
out["closed"] = editors.current is None

# Changed and given up: nothing is lost. Then changed and kept.
open_editor()
send("LEFTMOUSE", at=FACE["nose"])
send("MOUSEMOVE", "NOTHING", at=(100.0, 100.0))
send("LEFTMOUSE", "RELEASE", at=(100.0, 100.0))
out["given_up"] = send("RIGHTMOUSE")
out["kept"] = rounded(faces.points(settings, plain)) == out["marked"]
open_editor()
send("BACK_SPACE")
send("LEFTMOUSE", at=(520.0, 655.0))
send("TRACKPADPAN", "PRESS")
send("TRACKPADZOOM", "PRESS")
send("LEFTMOUSE", "RELEASE")
send("NUMPAD_ENTER")
out["changed"] = rounded(faces.points(settings, plain))["mouth_left"]
out["one_entry"] = len(settings.faces)

# Ended by Blender, by the add-on, by the viewport becoming another editor.
open_editor()
live[0].cancel(bpy.context)
out["ended"] = [editors.current is None]
open_editor()
editors.close()
out["ended"].append(next(iter(live[0].modal(bpy.context, SimpleNamespace(type="A")))))
open_editor()
view.type = "CONSOLE"
out["ended"].append(send("A"))
view.type = "VIEW_3D"
region = next(item for item in view.regions if item.type == "WINDOW")
out["refused"] = [refused(str(FOLDER / name)) for name in ("none.png", "text.png")]

# -- the pixels that are shown are those that the backend reads --
shown = {}
for name in ARGS["pictures"]:
    picture = part("exemplar_picture").load_picture(FOLDER / name)
    np.save(FOLDER / f"{name}.npy", picture.pixels)
    shown[name] = list(picture.size)
out["shown"] = shown

# -- before the start: the check finds no face, one fix or the other lets it go on --
settings.exemplar = faceless
bpy.ops.toonify3d.stylize()
out["searching"] = texts(draw(panels.TOONIFY3D_PT_main))[0]
wait()
out["stopped"] = [len(session.queue.jobs), *texts(draw(panels.TOONIFY3D_PT_main))]
bpy.ops.toonify3d.stylize()
out["still_stopped"] = [len(session.queue.jobs), session.face_check.running]
open_editor()
click_all(FACE)
send("RET")
log = draw(panels.TOONIFY3D_PT_main)
out["mended"] = [
    *texts(log),
    [str(k) for n, a, k in log if n == "operator" and "mark_face" in a[0]],
]
bpy.ops.toonify3d.stylize()
wait()
job = session.queue.current
request = jobfolder.read_request(job.folder)
out["job"] = [job.state.name, job.problem and job.problem.code]
out["handed"] = json.loads(Path(request["exemplar_landmarks"]).read_text("utf-8"))
out["handed_in"] = str(Path(request["exemplar_landmarks"]).relative_to(job.folder))
out["handed_file"] = request["exemplar_landmarks"]
bpy.ops.toonify3d.colors_only(exemplar=faceless)
out["colors"] = part("requests").build_request(bpy.context, "stylize")["overrides"]
out["colors_panel"] = texts(draw(panels.TOONIFY3D_PT_main))[0]
out["marks_stay"] = bool(faces.points(settings, faceless))
bpy.ops.toonify3d.clear_face()
out["cleared"] = [faces.settled(settings, faceless), len(settings.faces)]
out["asked_again"] = texts(draw(panels.TOONIFY3D_PT_main))[0]

# -- a look for all: colors need no face, and what was said of one exemplar comes first --
settings.look = "colour"
out["look_colors"] = [
    faces.settled(settings, faceless),
    part("requests").build_request(bpy.context, "stylize")["overrides"],
    texts(draw(panels.TOONIFY3D_PT_main)),
]
settings.look = "ink"
bpy.ops.toonify3d.colors_only(exemplar=faceless)
out["look_of_one"] = part("requests").build_request(bpy.context, "stylize")["overrides"]
bpy.ops.toonify3d.clear_face()
out["look_of_all"] = part("requests").build_request(bpy.context, "stylize")["overrides"]
settings.look = "auto"

# -- a queue of several: each has its own --
for name in ("toon.png", "faceless Zwei.png"):
    settings.more_exemplars.add().path = str(FOLDER / name)
bpy.ops.toonify3d.stylize()
wait()
log = draw(panels.TOONIFY3D_PT_main)
out["two_refused"] = [str(k) for n, _, k in log if n == "label" and "No face" in str(k)]
out["cells"] = [
    k["text"] for n, a, k in log if n == "operator" and "mark_face" in a[0] and "text" in k
]
bpy.ops.toonify3d.colors_only(exemplar=str(FOLDER / "faceless Zwei.png"))
open_editor()
click_all(FACE)
send("RET")
seen = {}
operators = part("operators.job")
submit = operators._submit


def noting(context, folder, request, after=None):
    seen[Path(request["exemplar"]).stem] = request
    return submit(context, folder, request, after)


operators._submit = noting
bpy.ops.toonify3d.stylize()
wait()
out["queue"] = [
    job.state.name for job in session.queue.jobs if job.folder == session.queue.current.folder
]
out["queue_landmarks"] = {name: "exemplar_landmarks" in item for name, item in seen.items()}
out["queue_overrides"] = {name: item.get("overrides") for name, item in seen.items()}

# -- without the check: the job's own error has the same fixes, Resume asks again --
settings.check_capture = False
settings.more_exemplars.clear()
bpy.ops.toonify3d.clear_face()
part("session").face_check.close()
settings.look = "ink"  # which the fix takes out again
bpy.ops.toonify3d.stylize()
settings.look = "auto"
wait()
job = session.queue.current
out["failed"] = [job.state.name, job.problem.code, *texts(draw(panels.TOONIFY3D_PT_job))]
bpy.ops.toonify3d.colors_only(exemplar=faceless)
out["failed_mended"] = texts(draw(panels.TOONIFY3D_PT_job))[0]
bpy.ops.toonify3d.resume()
wait()
again = session.queue.current
out["resumed"] = [again.state.name, again.folder == job.folder, again.request["overrides"]]
# A restyle that is refused is asked again too, not the style before it.
settings.exemplar = str(FOLDER / "faceless Zwei.png")
bpy.ops.toonify3d.clear_face()
bpy.ops.toonify3d.restyle()
wait()
out["restyle_failed"] = session.queue.current.problem.code
open_editor()
click_all(FACE)
send("RET")
bpy.ops.toonify3d.resume()
wait()
last = session.queue.current
out["restyle_resumed"] = [
    last.state.name,
    last.request["command"],
    Path(last.request["exemplar"]).stem,
]

# -- a check that cannot run keeps nothing from starting --
settings.check_capture = True
settings.exemplar = str(FOLDER / "unchecked.png")
before = len(session.queue.jobs)
bpy.ops.toonify3d.stylize()
wait()
out["unchecked"] = [session.queue.current.state.name, texts(draw(panels.TOONIFY3D_PT_main))[0]]

# -- another picture under the same name; saved and opened again --
settings.exemplar = faceless
bpy.ops.toonify3d.clear_face()
open_editor()
click_all(FACE)
send("RET")
blend = FOLDER / "faces.blend"
bpy.ops.wm.save_as_mainfile(filepath=str(blend))
bpy.ops.wm.open_mainfile(filepath=str(blend))
settings = bpy.context.scene.toonify3d
out["opened_again"] = rounded(faces.points(settings, "//" + Path(faceless).name))
picture = Path(faceless).read_bytes()
Path(faceless).write_bytes(picture + b"\0")  # another length, the same size in pixels
out["same_size"] = "exemplar_landmarks" in part("requests").build_request(bpy.context, "stylize")
Path(faceless).write_bytes((FOLDER / "small.png").read_bytes())
try:
    bpy.ops.toonify3d.stylize()
except RuntimeError as error:
    out["other_picture"] = str(error)
bpy.ops.preferences.addon_disable(module=MODULE)
out["left"] = [name for name in dir(bpy.types) if "toonify" in name.lower()]
finish(**out)
