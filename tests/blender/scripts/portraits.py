"""Painted portraits: handed out, chosen, refused, used; what the backend gets."""

import json
import time
from pathlib import Path

from prelude import ARGS, MODULE, bpy, draw, finish, install, part, texts

FOLDER = Path(ARGS["folder"])
install()
session, panels, jobfolder = part("session"), part("panels"), part("jobfolder")
lookup = part("lookup")
bpy.context.preferences.addons[MODULE].preferences.python = ARGS["python"]
settings = bpy.context.scene.toonify3d
settings.capture, settings.exemplar = str(FOLDER / "good film.mp4"), str(FOLDER / "faceless.png")
Path(settings.capture).write_bytes(b"film")
settings.output = str(FOLDER / "jobs")
out = {}


def main_panel():
    """The sentences of the main panel as it is now, and its operators."""
    lookup.forget()
    return texts(draw(panels.TOONIFY3D_PT_main))


def wait(seconds=60):
    """Tick like the timer until nothing runs; the longest tick in ms."""
    longest, deadline = 0.0, time.monotonic() + seconds
    while session.queue.busy or session.checking() or session.portrait_export.running:
        assert time.monotonic() < deadline, session.queue.jobs
        before = time.thread_time()
        session.tick()
        longest = max(longest, time.thread_time() - before)
        time.sleep(0.01)
    return 1000 * longest


def refused(operator, **options):
    """What an operator reports when it does nothing."""
    try:
        return [*getattr(bpy.ops.toonify3d, operator)(**options)]
    except RuntimeError as error:
        return str(error)


# -- handing out: needs a film that was read; writes nothing over; Blender goes on meanwhile --
export = bpy.ops.toonify3d.export_portraits
out["poll"] = [export.poll()]
job = FOLDER / "jobs" / "good.film-001"
(job / "capture").mkdir(parents=True)
(job / "job.json").write_text("{}")
bpy.ops.toonify3d.attach(directory=str(job))
wait()
out["poll"].append(export.poll())
(job / "capture" / "step.json").write_text("{}")
lookup.forget()
out["poll"].append(export.poll())
fresh = FOLDER / "to paint Ü"
export(directory=str(fresh))
out["running"] = [session.portrait_export.running, export.poll(), *main_panel()]
out["tick_ms"] = wait()
out["exported"] = main_panel()
out["fresh"] = sorted(path.name for path in fresh.iterdir())
(fresh / "0003.png").write_bytes(b"painted")
export(directory=str(fresh))  # is not empty: a folder of its own in it
wait()
out["second"] = str(session.portrait_export.folder.relative_to(fresh))
out["untouched"] = (fresh / "0003.png").read_bytes() == b"painted"
out["no_style"] = refused("export_portraits", directory=str(FOLDER / "a"), stylized=True)
(job / "styles" / "clay" / "portraits2d").mkdir(parents=True)
(job / "styles" / "clay" / "portraits2d" / "step.json").write_text("{}")
export(directory=str(FOLDER / "b"), stylized=True)
wait()
out["style"] = json.loads((FOLDER / "b" / "arguments.json").read_text())
dark = FOLDER / "jobs" / "dark-001"
(dark / "capture").mkdir(parents=True)
for name in ("job.json", "capture/step.json"):
    (dark / name).write_text("{}")
bpy.ops.toonify3d.attach(directory=str(dark))
wait()
lookup.forget()
export(directory=str(FOLDER / "c"))
wait()
out["failed"] = main_panel()
(FOLDER / "file").write_text("")
out["unwritable"] = refused("export_portraits", directory=str(FOLDER / "file" / "x"))
wait()
out["cancelled"] = [session.portrait_export.running, session.portrait_export.problem]

# -- choosing: what cannot be used is said, with a button, and starts nothing --
empty = FOLDER / "empty"
empty.mkdir()
(empty / "notes.txt").write_text("")
(empty / "0007_mask.png").write_bytes(b"")
settings.check_capture = False
bpy.ops.toonify3d.choose_portraits(directory=str(empty))
jobs = len(session.queue.jobs)
out["empty"] = [
    *main_panel(),
    refused("stylize"),
    refused("restyle"),
    len(session.queue.jobs) - jobs,
]
settings.portraits = str(FOLDER / "gone")
out["gone"] = [*main_panel(), refused("stylize"), len(session.queue.jobs) - jobs]
bpy.ops.toonify3d.clear_portraits()
out["cleared"] = [settings.portraits, *main_panel()]

# -- using them: no face is looked for in the exemplar, the backend gets the folder --
settings.check_capture = True
bpy.ops.toonify3d.choose_portraits(directory=str(fresh))
out["used"] = main_panel()
bpy.ops.toonify3d.stylize()
out["searched"] = session.face_check.running
wait()
made = session.queue.current
request = jobfolder.read_request(made.folder)
out["request"] = {name: request.get(name) for name in ("stylizer", "portraits", "command")}
out["state"] = made.state.name

# -- refused late, as the names do not fit: mended, and asked again with what is there now --
wrong = FOLDER / "wrong names"
wrong.mkdir()
(wrong / "head 5.png").write_bytes(b"painted")
bpy.ops.toonify3d.choose_portraits(directory=str(wrong))
bpy.ops.toonify3d.restyle()
wait()
log = draw(panels.TOONIFY3D_PT_job)
out["late"] = [session.queue.current.problem.code, str(log)]
bpy.ops.toonify3d.choose_portraits(directory=str(fresh))
bpy.ops.toonify3d.resume()
wait()
again = session.queue.current
out["resumed"] = [again.state.name, again.request["command"], again.request["portraits"]]

# -- saved and opened again; an older file has the defaults --
blend = FOLDER / "portraits.blend"
bpy.ops.wm.save_as_mainfile(filepath=str(blend))
bpy.ops.wm.open_mainfile(filepath=str(blend))
settings = bpy.context.scene.toonify3d
out["opened"] = str(part("portraits").chosen(settings))
settings.strength, settings.eyes, settings.look = 0.25, 1.5, "paint"
for name in ("look", "expression", "symmetric", "portraits"):  # as a file of before has them
    settings.property_unset(name)
bpy.ops.wm.save_as_mainfile(filepath=str(blend))
bpy.ops.wm.open_mainfile(filepath=str(blend))
request = part("requests").build_request(bpy.context, "stylize")
out["old"] = [request["strength"], request["overrides"], "portraits" in request]
bpy.ops.preferences.addon_disable(module=MODULE)
out["left"] = [name for name in dir(bpy.types) if "toonify" in name.lower()]
finish(**out)
