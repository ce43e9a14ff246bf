"""Drives a real Blender window from a timer; the host takes the pictures and clicks."""

import json
import os
import sys
import time
import traceback
from pathlib import Path

import bpy

OUT = Path(os.environ["GUI_OUT"])
MODULE = "bl_ext.user_default.toonify3d"
bpy.context.preferences.view.show_splash = False
report = {}


def picture(name):
    """Ask the host for a screenshot and wait for it."""
    (OUT / f"{name}.want").write_text("")
    while not (OUT / f"{name}.png").exists():
        yield 0.1


def steps():
    """What the artist does, with the seconds to wait in between."""
    yield 1.0
    window = bpy.context.window_manager.windows[0]
    view = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    view.spaces[0].show_region_ui = True
    yield 0.7
    sidebar = next(region for region in view.regions if region.type == "UI")
    sidebar.active_panel_category = "Toonify"
    session = sys.modules[f"{MODULE}.session"]
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    bpy.context.preferences.addons[MODULE].preferences.python = os.environ["GUI_PYTHON"]
    settings = bpy.context.scene.toonify3d
    settings.capture, settings.exemplar = str(OUT / "capture.mp4"), str(OUT / "exemplar.png")
    settings.output = str(OUT / "jobs")
    view.tag_redraw()
    yield 0.5
    yield from picture("1-ready")
    deadline = time.monotonic() + 15
    while session.queue.current is None and time.monotonic() < deadline:
        yield 0.1
    report["clicked"] = session.queue.current is not None
    job, fractions = session.queue.current, set()
    while not (job.status and job.status.fraction > 0.35):
        fractions.add(job.status.fraction if job.status else None)
        yield 0.05
    report["fractions"] = len(fractions)
    yield from picture("2-running")
    start = time.monotonic()
    with bpy.context.temp_override(window=window, area=view):
        bpy.ops.toonify3d.cancel("INVOKE_DEFAULT")
    while not job.state.finished:
        yield 0.05
    report["cancelled"] = [job.state.name, time.monotonic() - start]
    yield 0.3
    yield from picture("3-cancelled")
    with bpy.context.temp_override(window=window, area=view):
        bpy.ops.toonify3d.resume("INVOKE_DEFAULT")
    job = session.queue.current
    while not job.state.finished or job.active:
        yield 0.1
    report["end"] = job.state.name
    yield 0.5
    space = view.spaces[0]
    space.shading.type, space.shading.color_type = "SOLID", "TEXTURE"
    region = next(item for item in view.regions if item.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=view, region=region):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_selected()
    yield 2.0
    yield from picture("4-imported")
    report["objects"] = [item.name for item in bpy.data.objects]


def tick():
    """One step; at the end write the report and leave."""
    try:
        return next(running)
    except StopIteration:
        (OUT / "report.json").write_text(json.dumps(report))
    except Exception:  # noqa: BLE001 - reported on stderr, which the test reads
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(0)


running = steps()
bpy.app.timers.register(tick, first_interval=1.0)
