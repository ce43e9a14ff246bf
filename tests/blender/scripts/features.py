"""What stands round the main job: capture check, several exemplars, live view, bake, drops."""

import json
import struct
import time
from pathlib import Path

import numpy as np
from prelude import ARGS, MODULE, bpy, draw, finish, install, part, texts

FOLDER = Path(ARGS["folder"])
install()
session, panels, pictures = part("session"), part("panels"), part("pictures")
addon = bpy.context.preferences.addons[MODULE].preferences
addon.python = ARGS["python"]
scene = bpy.context.scene
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)
settings = scene.toonify3d
settings.output = str(FOLDER / "jobs")
exemplars = [FOLDER / f"{name}.png" for name in ("toon", "ink", "clay")]
settings.exemplar = str(exemplars[0])
out = {}


def wait(until, seconds=60):
    """Tick like the timer until something is true; the longest tick in ms (no import in it)."""
    longest, deadline = 0.0, time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, (session.queue.jobs, session.capture_check.problem)
        ready = [j for j in session.queue.jobs if j.state.name == "DONE" and not j.imported]
        before = time.thread_time()
        session.tick()
        if not ready:
            longest = max(longest, time.thread_time() - before)
        time.sleep(0.01)
    return 1000 * longest


def idle():
    """True when nothing runs."""
    return not (session.queue.busy or session.checking() or session.bake.running)


# -- the capture check: what stops, what warns, what goes on by itself --
for name in ("bad", "soft", "hint", "broken"):
    film = FOLDER / f"{name} film.mp4"
    film.write_bytes(b"film")
    settings.capture = str(film)
    assert bpy.ops.toonify3d.stylize() == {"FINISHED"}
    busy = texts(draw(panels.TOONIFY3D_PT_main))
    refused = not bpy.ops.toonify3d.stylize.poll()
    before = len(session.queue.jobs)
    check_ms = wait(lambda: not session.checking())
    session.tick()
    shown, operators = texts(draw(panels.TOONIFY3D_PT_main))
    started = len(session.queue.jobs) > before
    if name in ("bad", "soft"):
        bpy.ops.toonify3d.stylize()  # asked again: still not, and no second check
        assert not session.checking() and len(session.queue.jobs) == before
    anyway = [item for item in draw(panels.TOONIFY3D_PT_main) if "Start Anyway" in str(item)]
    out[f"check_{name}"] = [started, bool(anyway), shown, busy[0], refused, check_ms]
    sheet = session.capture_check.sheet
    out[f"sheet_{name}"] = bool(sheet and sheet.is_file())
    wait(idle)
settings.capture = str(FOLDER / "soft film.mp4")
bpy.ops.toonify3d.check_capture()  # the button: looks, starts nothing
before = len(session.queue.jobs)
wait(lambda: not session.checking())
session.tick()
out["button_starts_nothing"] = len(session.queue.jobs) == before
assert bpy.ops.toonify3d.stylize(anyway=True) == {"FINISHED"}
out["anyway"] = len(session.queue.jobs) == before + 1
wait(idle)
film.write_bytes(b"another film")  # changed on disk: the answer is about another file
out["stale"] = session.capture_check.answers(film)
bpy.ops.toonify3d.check_capture()
bpy.ops.toonify3d.stop_check()
out["stopped"] = [session.capture_check.running, session.capture_check.capture]

# -- several exemplars and moved sliders: one job, its styles one after the other --
for job in list(session.queue.jobs):
    session.queue.remove(job)
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)
settings.check_capture = False
settings.capture = str(FOLDER / "good film.mp4")
Path(settings.capture).write_bytes(b"film")
bpy.ops.toonify3d.add_exemplars(
    directory=str(FOLDER), files=[{"name": path.name} for path in exemplars]
)
out["more"] = [Path(item.path).name for item in settings.more_exemplars]
log = draw(panels.TOONIFY3D_PT_main)
out["button_text"] = [k["text"] for n, a, k in log if n == "operator" and "stylize'" in a[0]]
out["icons"] = [int(k["icon_value"]) for n, _, k in log if n == "template_icon"]
settings.eyes, settings.jaw, settings.head = 1.5, 0.0, 0.5
settings.expression, settings.symmetric, settings.look = 0.4, False, "ink"
bpy.ops.toonify3d.stylize()
out["queue"] = [[j.name, j.state.name] for j in session.queue.jobs]
folders = {str(j.folder) for j in session.queue.jobs}
requests, states = {}, []
while not idle():
    session.tick()
    running = [j for j in session.queue.jobs if j.active]
    states.append(len(running))
    for job in running:
        request = part("jobfolder").read_request(job.folder)
        if request:
            requests[job.name] = request
    time.sleep(0.01)
out["folders"] = len(folders)
out["requests"] = list(requests.values())
out["most_running"] = max(states)
out["ends"] = [j.state.name for j in session.queue.jobs]
avatars = [item for item in bpy.data.objects if "toonify3d_result" in item]
out["avatars"] = sorted(Path(item["toonify3d_result"]).parent.name for item in avatars)
out["places"] = sorted(round(item.location.x, 3) for item in avatars)
log = draw(panels.TOONIFY3D_PT_main)
out["choices_drawn"] = [a[1].strip("'") for n, a, _ in log if n == "prop"]
out["changed"] = texts(log)[0]
bpy.ops.toonify3d.reset_features()
out["reset"] = part("requests").build_request(bpy.context, "stylize")["overrides"]
settings.look = "auto"
out["reset_all"] = part("requests").build_request(bpy.context, "stylize").get("overrides")
queue_log = draw(panels.TOONIFY3D_PT_job)
out["queue_drawn"] = sum("show_job" in str(item) for item in queue_log)
out["estimate"] = texts(draw(panels.TOONIFY3D_PT_main))[0]

# A style whose reconstruction fails takes those that wait for it along.
settings.capture = str(FOLDER / "failing film.mp4")
Path(settings.capture).write_bytes(b"film")
settings.more_exemplars.remove(1)
operators = part("operators.job")
plain = operators.build_request
operators.build_request = lambda *a: {**plain(*a), "manner": "fail"}
bpy.ops.toonify3d.stylize()
operators.build_request = plain
wait(idle)
out["failed"] = [[j.state.name, j.problem.code] for j in session.queue.jobs[-2:]]
bpy.ops.toonify3d.remove_exemplar(index=0)

# -- two scenes: the avatar comes into the one that its job was started in --
settings.capture = str(FOLDER / "good film.mp4")
bpy.ops.toonify3d.stylize()
away = bpy.data.scenes.new("Elsewhere")
before = {item.name for item in scene.objects}
window = bpy.context.window_manager.windows[0]
window.scene = away
out["away"] = bpy.context.scene.name
wait(idle)
window.scene = scene
out["came_into"] = [len({o.name for o in scene.objects} - before), len(away.objects)]
bpy.data.scenes.remove(away)

# -- refine --
bpy.ops.toonify3d.show_job(index=0)
done = session.queue.current
bpy.ops.toonify3d.refine()
out["refine"] = part("jobfolder").read_request(done.folder)
wait(idle)

# -- what is shown of a running job --
live = part("scene.live")
folder = FOLDER / "live"
(folder / "capture").mkdir(parents=True)
(folder / "prior").mkdir()
vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0, 0.1], [0, 0.1, 0]], np.float64)
faces = np.array([[0, 1, 2], [0, 2, 3]], np.int64)
np.savez(folder / "prior" / "mesh.npz", vertices=vertices, faces=faces,
         colors=np.full((4, 3), 200, np.uint8))  # fmt: skip
c2w = np.eye(4)
c2w[:3, 3] = (0, -1, 0)
frame = {"K": [[600, 0, 210], [0, 600, 280], [0, 0, 1]], "c2w": c2w.tolist(),
         "width": 420, "height": 560}  # fmt: skip
(folder / "capture" / "cameras.json").write_text(json.dumps({"frames": [frame] * 3}))
head = "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nend_header\n"
body = b"".join(struct.pack("<3f3B", x, 0.0, 0.5, 1, 2, 3) for x in (0.25, 0.5, 7.0))
(folder / "capture" / "sparse.ply").write_bytes(head.encode() + body)


def census():
    """What is in the file."""
    kinds = ("objects", "meshes", "materials", "collections")
    return [len(getattr(bpy.data, kind)) for kind in kinds]


clean = census()
running = part("job").Job(folder)
running.state = part("job").JobState.RUNNING
session.queue.jobs.append(running)
session.queue.current = running
settings.live_mesh = True
out["live_mesh"] = [o.name for o in bpy.data.collections[live.COLLECTION].objects]
settings.live_cameras = True
shown = {o.name: o for o in bpy.data.collections[live.COLLECTION].objects}
out["live_all"] = sorted(shown)
cameras, points = shown[live.CAMERAS].data, shown[live.POINTS].data
out["live_counts"] = [len(cameras.vertices), len(cameras.edges), len(points.vertices)]
tip = cameras.vertices[1].co
out["live_camera"] = [list(cameras.vertices[0].co), tip.z - cameras.vertices[0].co.z]
out["live_point"] = list(points.vertices[1].co)
out["live_color"] = [
    round(255 * value) for value in shown[live.MESH].data.color_attributes[0].data[0].color_srgb
]
kept = shown[live.MESH].data.name
live.update(scene, folder, mesh=True, cameras=True)  # nothing new: nothing is rebuilt
out["live_same"] = shown[live.MESH].data.name == kept
(folder / "prior" / "mesh.npz").write_bytes(b"half a file")
live.update(scene, folder, mesh=True, cameras=True)  # unreadable: gone, no error
out["live_broken"] = [o.name for o in bpy.data.collections[live.COLLECTION].objects]
settings.live_mesh = settings.live_cameras = False
out["live_clean"] = census() == clean
session.queue.jobs.remove(running)
session.queue.current = None

# -- bake onto the artist's own mesh --
avatar = next(item for item in avatars if "clay" in item["toonify3d_result"])
(Path(avatar["toonify3d_result"]).parents[2] / "job.json").write_text("{}")
mesh = bpy.data.meshes.new("Retopo")
mesh.from_pydata([(0, 0, 0), (0.1, 0, 0), (0.1, 0, 0.1), (0, 0, 0.1)], [], [(0, 1, 2, 3)])
own = bpy.data.objects.new("Retopo Ü", mesh)
own.location = (avatar.location.x + 0.01, 0.02, 0.0)
scene.collection.objects.link(own)
bpy.context.view_layer.objects.active = avatar
out["bake_poll"] = [bpy.ops.toonify3d.bake.poll()]
bpy.context.view_layer.objects.active = own
bpy.context.view_layer.update()
out["bake_poll"].append(bpy.ops.toonify3d.bake.poll())
try:
    bpy.ops.toonify3d.bake()
except RuntimeError as error:
    out["bake_no_uvs"] = str(error)
mesh.uv_layers.new(name="Mine")
mesh.materials.append(bpy.data.materials.new("Clay"))
bpy.ops.toonify3d.bake()
out["bake_panel"] = texts(draw(panels.TOONIFY3D_PT_export))[0]
obj = (session.bake.output / "retopo.obj").read_text("utf-8").split("\n")
out["bake_obj"] = [row for row in obj if row.startswith(("v ", "f "))]
wait(idle)
out["bake_problem"] = session.bake.problem
out["bake_arguments"] = json.loads((session.bake.output / "bake_report.json").read_text())
out["bake_materials"] = [item.name for item in mesh.materials]
out["bake_style"] = own["style"]
nodes = mesh.materials[0].node_tree.nodes
out["bake_uv"] = nodes["Stylized Albedo"].inputs["Vector"].links[0].from_node.uv_map
mesh.clear_geometry()
mesh.uv_layers.new(name="Mine")
bpy.ops.toonify3d.bake()
wait(idle)
out["bake_refused"] = session.bake.problem
out["bake_refused_shown"] = texts(draw(panels.TOONIFY3D_PT_export))[0]

# -- drops --
bpy.ops.toonify3d.drop(
    directory=str(FOLDER), files=[{"name": "new.MOV"}, {"name": "a.png"}, {"name": "b.jpg"}]
)
out["dropped"] = [
    Path(p).name for p in (settings.capture, settings.exemplar, settings.more_exemplars[-1].path)
]
try:
    bpy.ops.toonify3d.drop(filepath=str(FOLDER / "notes.txt"))
except RuntimeError as error:
    out["drop_refused"] = str(error)

rna = settings.bl_rna.properties
wanted = {"look": "stylize.look", "strength": "stylize.strength", **part("properties").FEATURES}
out["tooltips"] = {setting: rna[name].description for name, setting in wanted.items()}
out["limits"] = {
    setting: [rna[name].hard_min, rna[name].hard_max]
    for name, setting in wanted.items()
    if rna[name].type == "FLOAT"
}
out["defaults"] = {setting: rna[name].default for name, setting in wanted.items()}
out["looks"] = {item.identifier: item.value for item in rna["look"].enum_items}
bpy.ops.preferences.addon_disable(module=MODULE)
out["left"] = [name for name in dir(bpy.types) if "toonify" in name.lower()]
finish(**out)
