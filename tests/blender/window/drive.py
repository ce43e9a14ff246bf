"""Drives a real Blender window from a timer; the host takes the pictures and clicks the mouse."""

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
report = {"clicked": []}


def ask(name, suffix=".want", answer=".png"):
    """Ask the host for something by a file, and wait until it has been done."""
    (OUT / f"{name}{suffix}").write_text("")
    while (OUT / f"{name}{suffix}").exists() or not (OUT / f"{name}{answer}").exists():
        yield 0.1


def wait_until(condition, seconds):
    """Wait for a condition; what does not come in time is an error with the condition's name."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of it in {seconds} s: {condition.__name__}")
        yield 0.05


def click(operator, upwards=False):
    """Find an operator's button as a person does, with the pointer, and have it clicked.

    Blender tells which operator lies under the pointer (Copy Python Command), so no place in the
    panel is fixed here.
    """
    window = bpy.context.window_manager.windows[0]
    view = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    sidebar = next(region for region in view.regions if region.type == "UI")
    wanted = f"bpy.ops.{operator}("
    start = time.monotonic()
    top, bottom = sidebar.y + sidebar.height - 20, sidebar.y + 10
    for fraction, step in ((0.45, 17), (0.45, 9), (0.2, 13), (0.7, 13)):
        rows = range(top, bottom, -step)
        for y in reversed(rows) if upwards else rows:
            window.cursor_warp(sidebar.x + int(fraction * sidebar.width), y)
            yield 0.03
            bpy.context.window_manager.clipboard = ""
            try:
                with bpy.context.temp_override(window=window, area=view, region=sidebar):
                    bpy.ops.ui.copy_python_command_button()
            except RuntimeError:
                continue  # no button here
            if bpy.context.window_manager.clipboard.startswith(wanted):
                yield from ask(operator, ".click", ".clicked")
                report["clicked"].append(operator)
                report.setdefault("found_s", []).append(time.monotonic() - start)
                return
    raise LookupError(f"no button for {operator} in the sidebar")


def steps():
    """What the artist does, with the seconds to wait in between."""
    yield 1.0
    window = bpy.context.window_manager.windows[0]
    view = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    view.spaces[0].show_region_ui = True
    view.spaces[0].overlay.show_overlays = False  # drawn by software here, at every redraw
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
    yield from ask("1-ready")

    yield from click("toonify3d.stylize")
    yield from wait_until(lambda: session.queue.current is not None, 20)
    job, fractions = session.queue.current, set()

    def quarter_done():
        fractions.add(job.status.fraction if job.status else None)
        return job.status is not None and job.status.fraction > 0.25

    yield from wait_until(quarter_done, 60)
    report["fractions"] = len(fractions)
    yield from ask("2-running")
    yield 1.0
    yield from ask("3-running-later")

    yield from click("toonify3d.cancel", upwards=True)
    start = time.monotonic()
    yield from wait_until(lambda: job.state.finished, 20)
    report["cancelled"] = [job.state.name, time.monotonic() - start]
    yield 0.3
    yield from ask("4-cancelled")

    (OUT / "pace").write_text("0.03")
    yield from click("toonify3d.resume", upwards=True)
    yield from wait_until(lambda: session.queue.current is not job, 20)
    job = session.queue.current
    yield from wait_until(lambda: job.state.finished and not job.active, 60)
    report["end"] = job.state.name
    yield 0.5
    show_textures(window, view)
    yield 2.0
    yield from ask("5-imported")
    report["objects"] = [item.name for item in bpy.data.objects]


def show_textures(window, view):
    """The avatar from the front, with its textures and no lighting."""
    space = view.spaces[0]
    space.shading.type, space.shading.color_type, space.shading.light = "SOLID", "TEXTURE", "FLAT"
    region = next(item for item in view.regions if item.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=view, region=region):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_selected()


def tick():
    """One step; at the end write the report and leave."""
    try:
        return next(running)
    except StopIteration:
        pass
    except Exception:  # noqa: BLE001 - reported to the test
        report["error"] = traceback.format_exc()
    (OUT / "report.json").write_text(json.dumps(report))
    sys.stderr.flush()
    os._exit(0)


running = steps()
bpy.app.timers.register(tick, first_interval=1.0)
