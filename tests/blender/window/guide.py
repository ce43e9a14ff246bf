"""The pictures of docs/guide.md: a real job in a real window, on the bundled demo."""

import contextlib
import os
import sys
from pathlib import Path

import bpy

sys.path.insert(0, os.environ["GUI_OUT"])
from driver import MODULE, OUT, ask, click, drive, open_tab, report, show_textures, wait_until

SMALL = {"preset": "tiny", "overrides": ["prior.steps=400", "capture.max_frames=60"]}
"""The job that is photographed while it runs: the demo with fewer frames and steps."""

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

    bpy.ops.toonify3d.attach(directory=os.environ["GUI_JOB"])
    settings.job = os.environ["GUI_JOB"]
    window_override = bpy.context.temp_override(window=window, area=view)
    with window_override:
        bpy.ops.toonify3d.import_result(
            "EXEC_DEFAULT", True, folder=str(session.queue.current.result)
        )
    show_textures(window, view)
    view.spaces[0].shading.light = "STUDIO"
    view.spaces[0].shading.show_specular_highlight = False
    yield 2.0
    yield from ask("guide-result")

    yield from preferences_in(window, view)
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    session.queue.remove(session.queue.current)

    operators = sys.modules[f"{MODULE}.operators.job"]
    plain = operators.build_request
    operators.build_request = lambda *inputs: {**plain(*inputs), **SMALL}
    yield from click("toonify3d.stylize")
    yield from wait_until(lambda: session.queue.current is not None, 300)
    job = session.queue.current

    def preview_of_the_head():
        return job.state.finished or (
            job.preview is not None
            and job.status.stage == "prior"
            and job.status.step_fraction > 0.2
        )

    with contextlib.suppress(TimeoutError):  # a slow machine: photographed as far as it is
        yield from wait_until(preview_of_the_head, float(os.environ["GUI_PATIENCE"]))
    report["problem"] = job.problem and job.problem.message
    yield 1.0
    yield from ask("guide-running")
    job.cancel()
    yield from wait_until(lambda: job.state.finished and not job.active, 120)


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
