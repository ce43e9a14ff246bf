"""What artists do beside the main path: undo, save, other files, moved folders, renamed objects."""

import shutil
import time
from pathlib import Path

from prelude import ARGS, MODULE, bpy, draw, finish, install, part, texts

FOLDER = Path(ARGS["folder"])
install()
session, panels, lookup, homes = (part(n) for n in ("session", "panels", "lookup", "homes"))
addon = bpy.context.preferences.addons[MODULE].preferences
out = {}


def panel(cls):
    """The sentences of a panel as it is now, and its operators."""
    lookup.forget()
    return texts(draw(cls))


def main():
    return panel(panels.TOONIFY3D_PT_main)


def wait(until, seconds=60):
    """Tick like the timer until something is true."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, (session.queue.jobs, until)
        session.tick()
        time.sleep(0.01)


def idle():
    return not session.queue.busy


def avatars():
    return sorted(item.name for item in bpy.context.scene.objects if "toonify3d_result" in item)


def fresh(name):
    """Another .blend, saved; its scene's settings."""
    path = FOLDER / f"{name}.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)
    return path


def choose(scene):
    """The inputs of a job in this scene."""
    settings = scene.toonify3d
    settings.capture, settings.exemplar = str(FOLDER / "my film.mp4"), str(FOLDER / "toon.png")
    settings.output, settings.check_capture = str(FOLDER / "jobs"), False
    return settings


# -- the panel: what comes first, names, what is not there, where jobs go --
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)
other = fresh("other")
out["first"] = main()
addon.python = ARGS["python"]
settings = choose(bpy.context.scene)
settings.output = ""
out["unsaved"] = main()[0]
bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "mine.blend"))
out["saved"] = main()[0]
settings.exemplar, settings.capture = str(FOLDER / "none.png"), str(FOLDER / "none.mp4")
out["missing"] = main()[0]
settings = choose(bpy.context.scene)
out["own_output"] = main()[0]

# -- features: changed, and back --
out["reset_poll"] = [bpy.ops.toonify3d.reset_features.poll()]
settings.eyes, settings.jaw = 1.5, 0.0
out["changed"] = main()[0]
out["reset_poll"].append(bpy.ops.toonify3d.reset_features.poll())
bpy.ops.toonify3d.reset_features()
out["reset"] = [round(settings.eyes, 3), round(settings.jaw, 3), "changed)" in main()[0]]
out["start"] = [round(part("estimates").default(f"stylize.{n}_weight"), 3) for n in ("eyes", "jaw")]

# -- undo while a job runs: it runs on, and its scene still knows it --
bpy.ops.ed.undo_push(message="chosen")
bpy.ops.toonify3d.stylize()
first = session.queue.current
out["restyle_busy"] = [bpy.ops.toonify3d.restyle.poll(), main()[0]]
settings.strength = 0.3
bpy.ops.ed.undo_push(message="strength")
bpy.ops.ed.undo()
settings = bpy.context.scene.toonify3d
out["after_undo"] = [settings.job == str(first.folder), round(settings.strength, 2)]

# -- save and open again while it runs: the avatar comes all the same --
bpy.ops.wm.save_mainfile()
bpy.ops.wm.open_mainfile(filepath=str(FOLDER / "mine.blend"))
wait(idle)
out["reopened"] = [first.state.name, len(avatars())]
bpy.ops.ed.undo_push(message="end")
out["restyle_free"] = bpy.ops.toonify3d.restyle.poll()

# -- two jobs one after the other; the second is saved under another name meanwhile --
bpy.ops.toonify3d.stylize()
bpy.ops.toonify3d.stylize()
second, third = session.queue.jobs[-2:]
bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "mine two.blend"))
bpy.ops.wm.open_mainfile(filepath=str(FOLDER / "mine two.blend"))
wait(idle)
out["two"] = [second.state.name, third.state.name, len(avatars())]
bpy.ops.wm.save_mainfile()

# -- another file is open when it ends: nothing comes by itself, the button brings it --
bpy.ops.toonify3d.stylize()
fourth = session.queue.current
bpy.ops.wm.open_mainfile(filepath=str(other))
wait(idle)
out["elsewhere"] = [fourth.state.name, len(avatars()), panel(panels.TOONIFY3D_PT_job)]
importer = part("scene.importer")
out["seen"] = [importer.is_imported(bpy.context.scene, fourth.result)]
bpy.ops.toonify3d.import_result()
out["brought"] = len(avatars())
out["seen"] += [importer.is_imported(bpy.context.scene, job.result) for job in (fourth, third)]

# -- the avatar gets another name: its sliders stay --
bpy.ops.wm.open_mainfile(filepath=str(FOLDER / "mine two.blend"))
scene = bpy.context.scene
avatar = next(o for o in scene.objects if str(first.folder) in o.get("toonify3d_result", ""))
avatar.name = avatar.data.name = "Großmutter"
bpy.context.view_layer.objects.active = avatar
out["renamed"] = importer.find_avatar(bpy.context).name

# -- found in the viewport, in its colors --
area = next(a for a in bpy.context.window_manager.windows[0].screen.areas if a.type == "VIEW_3D")
avatar.location = (3.0, 2.0, 1.0)
bpy.context.view_layer.update()
space = area.spaces.active
space.region_3d.view_perspective = "CAMERA"
space.shading.type = "SOLID"
out["shown_poll"] = [bpy.ops.toonify3d.show_avatar.poll()]
with bpy.context.temp_override(area=area):
    out["shown_poll"].append(bpy.ops.toonify3d.show_avatar.poll())
    out["gray"] = panel(panels.TOONIFY3D_PT_avatar)
    bpy.ops.toonify3d.show_avatar()
    out["shown_panel"] = panel(panels.TOONIFY3D_PT_avatar)
view = space.region_3d
turned = view.view_rotation.to_matrix()
out["shown"] = [
    space.shading.type, view.view_perspective, list(view.view_location), view.view_distance,
    [round(value, 5) for value in turned.col[2]], [round(value, 5) for value in turned.col[1]],
]  # fmt: skip
space.shading.type, space.shading.color_type = "SOLID", "TEXTURE"
with bpy.context.temp_override(area=area):
    bpy.ops.toonify3d.show_avatar()
out["kept_shading"] = space.shading.type
space.shading.color_type = "MATERIAL"
avatar.location = (0.0, 0.0, 0.0)

# -- the colors: another view transform is offered back --
scene.view_settings.view_transform = "AgX"
out["agx"] = panel(panels.TOONIFY3D_PT_avatar)
bpy.ops.toonify3d.true_colors()
out["standard"] = [scene.view_settings.view_transform, panel(panels.TOONIFY3D_PT_avatar)]

# -- the job's folder is moved, found again from inside it, then deleted --
(first.folder / "job.json").write_text("{}")
for job in list(session.queue.jobs):
    session.queue.remove(job)
bpy.ops.toonify3d.attach(directory=str(first.folder))
moved = FOLDER / "anderswo 空間" / "renamed"
moved.parent.mkdir()
shutil.move(first.folder, moved)
out["gone"] = panel(panels.TOONIFY3D_PT_job)
out["gone_restyle"] = [bpy.ops.toonify3d.restyle.poll(), main()[0]]
bpy.ops.toonify3d.remove_job(index=0)
out["gone_last"] = panel(panels.TOONIFY3D_PT_job)
try:
    bpy.ops.toonify3d.attach(directory=str(FOLDER))
except RuntimeError as error:
    out["no_job"] = str(error)
bpy.ops.toonify3d.attach(directory=str(moved / "styles" / "toon" / "result"))
image = avatar.data.materials[0].node_tree.nodes["Stylized Albedo"].image
out["found"] = [
    str(session.queue.current.folder) == str(moved),
    avatar["toonify3d_result"] == str(moved / "styles" / "toon" / "result"),
    Path(bpy.path.abspath(image.filepath)).is_file(),
    image.filepath.startswith("//"),
]
others = [o for o in scene.objects if o != avatar and "toonify3d_result" in o]
out["others"] = [str(moved) in o["toonify3d_result"] for o in others]

bpy.ops.preferences.addon_disable(module=MODULE)
listeners = ("load_post", "save_post", "undo_post", "redo_post")
out["left"] = [
    item.__module__
    for name in listeners
    for item in getattr(bpy.app.handlers, name)
    if "toonify3d" in (item.__module__ or "")
]
finish(**out)
