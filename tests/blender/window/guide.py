"""The pictures of docs/guide.md: a real job in a real window, on the bundled demo.

The job that is photographed while it runs is the finished one, whose last steps are done again.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import bpy

sys.path.insert(0, os.environ["GUI_OUT"])
from driver import MODULE, OUT, ask, click, drive, open_tab, report, wait_until

DEMO = Path(os.environ["GUI_DEMO"])


def steps():
    """Inputs, capture check, the job running, the finished avatar, the preferences."""
    yield 1.0
    window, view, session = yield from open_tab()
    settings = bpy.context.scene.toonify3d
    settings.capture = str(DEMO / "capture.mp4")
    settings.exemplar = str(DEMO / "exemplar_glossy.png")
    settings.output = str(OUT / "jobs")
    bpy.ops.toonify3d.check_backend()
    yield from wait_until(lambda: not session.check.running, 120)
    bpy.ops.toonify3d.check_capture()
    yield from wait_until(lambda: not session.capture_check.running, 300)
    yield 0.5
    yield from ask("guide-inputs")

    finished = Path(os.environ["GUI_JOB"])
    bpy.ops.toonify3d.attach(directory=str(finished))
    with bpy.context.temp_override(window=window, area=view):
        bpy.ops.toonify3d.import_result("EXEC_DEFAULT", True)
    session.capture_check.clear()  # what it said would push the avatar's sliders out of the picture
    view.tag_redraw()
    yield 2.0
    yield from click("toonify3d.show_avatar", upwards=True)
    yield float(os.environ["GUI_SHADERS"])  # Blender does not tell when it has built them
    yield from ask("guide-result")

    yield from preferences_in(window, view)
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    session.queue.remove(session.queue.current)

    unfinish(finished)
    bpy.ops.toonify3d.attach(directory=str(finished))
    yield from click("toonify3d.resume", upwards=True)
    yield from wait_until(lambda: session.queue.current.started_at > 0, 20)
    job = session.queue.current

    def head_is_shown():
        status = job.status  # its preview, and not what an earlier run has left
        return job.state.finished or (status is not None and status.preview is not None)

    with contextlib.suppress(TimeoutError):  # a slow machine: photographed as far as it is
        yield from wait_until(head_is_shown, float(os.environ["GUI_PATIENCE"]))
    report["problem"] = job.problem and job.problem.message
    yield 1.0
    yield from ask("guide-running")
    job.cancel()
    yield from wait_until(lambda: job.state.finished and not job.active, 120)


def unfinish(job):
    """Take the colors and all that comes after them away, as if the job had been stopped there."""
    for style in (job / "styles").iterdir():
        for name in ("texture", "result"):
            shutil.rmtree(style / name, ignore_errors=True)
    (job / "status.json").unlink(missing_ok=True)


def preferences_in(window, area):
    """The preferences in place of the viewport: their own window is small without a manager."""
    bpy.context.preferences.active_section = "ADDONS"
    bpy.context.window_manager.addon_search = "3DToonify"
    area.type = "PREFERENCES"
    with bpy.context.temp_override(window=window, area=area):
        bpy.ops.preferences.addon_expand(module=MODULE)
    yield 2.0
    yield from ask("guide-preferences")
    area.type = "VIEW_3D"
    yield 0.5


drive(steps())
