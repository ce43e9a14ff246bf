"""Portraits exported, painted and used by the real backend: refused, mended, in the avatar."""

import time
from pathlib import Path

import numpy as np
from prelude import ARGS, MODULE, bpy, draw, finish, install, part, texts

FOLDER, JOB = Path(ARGS["folder"]), Path(ARGS["job"])
install()
session, panels, lookup = part("session"), part("panels"), part("lookup")
bpy.context.preferences.addons[MODULE].preferences.python = ARGS["python"]
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)
settings = bpy.context.scene.toonify3d
settings.exemplar = ARGS["exemplar"]
out = {}


def panel(cls):
    """The sentences of a panel as it is now, and its operators."""
    lookup.forget()
    return texts(draw(cls))


def wait(seconds=240):
    """Tick like the timer until nothing runs."""
    deadline = time.monotonic() + seconds
    while session.queue.busy or session.portrait_export.running:
        assert time.monotonic() < deadline, session.queue.jobs
        session.tick()
        time.sleep(0.05)


def refused(operator):
    """What an operator reports when it does nothing."""
    try:
        return [*getattr(bpy.ops.toonify3d, operator)()]
    except RuntimeError as error:
        return str(error)


def paint(path, size=1):
    """Red for blue and blue for red, over the whole picture; perhaps at another size."""
    image = bpy.data.images.load(str(path))
    pixels = np.array(image.pixels[:], np.float32).reshape(-1, 4)
    image.pixels[:] = pixels[:, [2, 1, 0, 3]].ravel()
    image.scale(*(side * size for side in image.size))
    image.save()
    bpy.data.images.remove(image)


def problem():
    """How the job ended, and what the panel says of it."""
    job = session.queue.current
    said = job.problem and [job.problem.code, job.problem.message]
    return [job.state.name, said, *panel(panels.TOONIFY3D_PT_job)]


# -- exported and painted: one stays a photo, one is larger, one is not wanted --
bpy.ops.toonify3d.attach(directory=str(JOB))
wait()
lookup.forget()
painted = FOLDER / "gemalt Ü"
bpy.ops.toonify3d.export_portraits(directory=str(painted))
wait()
names = sorted(path.name for path in painted.iterdir())
out["exported"] = names
photo, larger, unwanted = (ARGS[kind] for kind in ("photo", "larger", "unwanted"))
(painted / unwanted).unlink()
for name in names:
    if name not in (photo, unwanted):
        paint(painted / name, 2 if name == larger else 1)
bytes_of = {path: path.read_bytes() for path in painted.iterdir()}

# -- names of another film: said in the panel, and Restyle starts nothing --
wrong = FOLDER / "wrong"
wrong.mkdir()
(wrong / "0001.png").write_bytes((painted / photo).read_bytes())
bpy.ops.toonify3d.choose_portraits(directory=str(wrong))
before = [session.queue.current, (JOB / "job.json").read_bytes()]
out["wrong"] = [*panel(panels.TOONIFY3D_PT_main), refused("restyle")]
out["wrong_left"] = [session.queue.current, (JOB / "job.json").read_bytes()] == before
bpy.ops.toonify3d.choose_portraits(directory=str(painted))
out["chosen"] = panel(panels.TOONIFY3D_PT_main)[0]

# -- they go while the backend starts: it says so, and Resume asks again --
for what in ("names", "missing"):
    bpy.ops.toonify3d.restyle()
    for path in bytes_of:
        path.rename(FOLDER / path.name if what == "missing" else path.with_name(f"9{path.name}"))
    wait()
    out[what] = problem()
    out[f"{what}_job"] = (JOB / "job.json").read_bytes() == before[1]
    out[f"{what}_again"] = refused("resume")
    for path in list(painted.iterdir()):
        path.unlink()
    for path, data in bytes_of.items():
        path.write_bytes(data)
bpy.ops.toonify3d.resume()
wait()
out["end"] = problem()
out["kept"] = {path: path.read_bytes() for path in painted.iterdir()} == bytes_of

# -- in the avatar: the colours of the texture where it looks forward, back and aside --
job = session.queue.current
out["result"] = str(job.result)
avatar = bpy.context.view_layer.objects.active
out["objects"] = [item.name for item in bpy.context.scene.objects if "toonify3d_result" in item]
image = avatar.data.materials[0].node_tree.nodes["Stylized Albedo"].image
width, height = image.size
texels = np.array(image.pixels[:], np.float32).reshape(height, width, 4)
mesh = avatar.data
uvs = np.array([loop.uv[:] for loop in mesh.uv_layers.active.data])
normals = np.array([polygon.normal[:] for polygon in mesh.polygons])
middles = np.array([polygon.center[:] for polygon in mesh.polygons])
spots = np.array([uvs[list(polygon.loop_indices)].mean(0) for polygon in mesh.polygons])
columns = np.clip((spots[:, 0] * width).astype(int), 0, width - 1)
rows = np.clip((spots[:, 1] * height).astype(int), 0, height - 1)
colors = 255 * texels[rows, columns, :3]
level = np.abs(middles[:, 2] - np.median(middles[:, 2])) < 0.03  # metres: face and hair, no dress
for name, way in {"front": (0, -1), "back": (0, 1), "side": (1, 0)}.items():
    chosen = level & (normals[:, :2] @ np.array(way) > 0.9)
    out[name] = [int(chosen.sum()), *np.median(colors[chosen], 0).round().tolist()]
finish(**out)
