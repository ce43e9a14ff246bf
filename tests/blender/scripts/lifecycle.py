"""Enabled, used in two scenes, saved, upgraded, disabled with a job running, enabled, removed."""

import time
from pathlib import Path

from prelude import ARGS, MODULE, bpy, finish, install, part

OWNERS = ("Scene", "Object", "WindowManager", "Mesh", "Material", "Collection", "Image", "Screen")
FOLDER = Path(ARGS["folder"])


def names():
    """All that an add-on could leave behind: properties, types, operators, handlers, timers."""
    found = {f"{owner}.{name}" for owner in OWNERS for name in dir(getattr(bpy.types, owner))}
    found |= {f"types.{name}" for name in dir(bpy.types)}
    found |= {f"ops.{name}" for name in dir(bpy.ops)}
    for kind in dir(bpy.app.handlers):
        callbacks = getattr(bpy.app.handlers, kind)
        if isinstance(callbacks, list):
            found |= {f"{kind}.{callback.__module__}" for callback in callbacks}
    return found


def preferences():
    return bpy.context.preferences.addons[MODULE].preferences


out = {}
before = names()
install()
folder_of_extension = Path(part("process").__file__).parent
out["version"] = part("report").addon_version()

# -- two scenes, each with its own inputs; what comes in goes into the one that is open --
first = bpy.context.scene
second = bpy.data.scenes.new("second")
first.toonify3d.capture, second.toonify3d.capture = "/one.mp4", "/two.mp4"
first.toonify3d.strength, second.toonify3d.strength = 0.25, 0.75
with bpy.context.temp_override(scene=second, view_layer=second.view_layers[0]):
    bpy.ops.toonify3d.import_result("EXEC_DEFAULT", True, folder=ARGS["result"])
out["in_scenes"] = [
    [item.name for item in scene.objects if "toon" in item.name] for scene in (first, second)
]
out["transforms"] = [first.view_settings.view_transform, second.view_settings.view_transform]

# -- saved and opened again --
blend = FOLDER / "Ünï çødé 空間.blend"
bpy.ops.wm.save_as_mainfile(filepath=str(blend))
bpy.ops.wm.read_homefile(use_empty=True)
bpy.ops.wm.open_mainfile(filepath=str(blend))
out["reopened"] = {
    scene.name: [scene.toonify3d.capture, round(scene.toonify3d.strength, 3)]
    for scene in bpy.data.scenes
}

# -- upgraded by a newer zip: preferences and scenes keep their values --
preferences().python, preferences().keep_running = ARGS["python"], True
install(ARGS["newer"])
out["upgraded"] = part("report").addon_version()
out["kept"] = [preferences().python == ARGS["python"], preferences().keep_running]
out["kept_scene"] = bpy.data.scenes["second"].toonify3d.capture

# -- disabled while a job runs: the worker ends, nothing is left --
preferences().keep_running = False
session, job_module = part("session"), part("job")
job = job_module.Job(FOLDER / "job", {"command": "stylize", "manner": "slow"}, ARGS["python"])
session.queue.submit(job)
deadline = time.monotonic() + 30
while job.status is None and time.monotonic() < deadline:
    session.tick()
    time.sleep(0.02)
out["ran"] = job.state.name
session.ensure_timer()
timer = session._on_timer
bpy.ops.preferences.addon_disable(module=MODULE)
out["worker_exit"] = job._child.wait(timeout=20)
out["timer_left"] = bpy.app.timers.is_registered(timer)
out["left"] = sorted(names() - before)

# -- a file of the add-on's opens without it; enabled again, the values are there --
bpy.ops.wm.open_mainfile(filepath=str(blend))
bpy.ops.preferences.addon_enable(module=MODULE)
out["again"] = bpy.data.scenes["second"].toonify3d.capture

# -- removed: the extension's folder goes, jobs stay --
repos = bpy.context.preferences.extensions.repos
index = next(number for number, repo in enumerate(repos) if repo.module == "user_default")
bpy.ops.extensions.package_uninstall(pkg_id="toonify3d", repo_index=index)
out["removed"] = [folder_of_extension.exists(), (FOLDER / "job" / "request.json").exists()]
out["left_after_removal"] = sorted(names() - before)
finish(**out)
