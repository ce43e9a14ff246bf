"""Helpers of scripts that drive a real Blender window from a timer.

A script is a generator of the seconds to wait; the host (``test_window.serve``) takes the pictures
that it asks for and presses the mouse where it has put the pointer.
"""

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


def click(operator, upwards=False, across=0.45):
    """Find an operator's button as a person does, with the pointer, and have it clicked.

    Blender tells which operator lies under the pointer (Copy Python Command), so no place in the
    panel is fixed here; ``across`` (of the sidebar's width) is where to look first.
    """
    window = bpy.context.window_manager.windows[0]
    view = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    sidebar = next(region for region in view.regions if region.type == "UI")
    wanted = f"bpy.ops.{operator}("
    start = time.monotonic()
    top, bottom = sidebar.y + sidebar.height - 20, sidebar.y + 10
    for fraction, step in ((across, 17), (0.45, 9), (0.2, 13), (0.7, 13)):
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


def open_tab():
    """Show the sidebar with our tab; window, view and the add-on's session."""
    window = bpy.context.window_manager.windows[0]
    view = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    view.spaces[0].show_region_ui = True
    view.spaces[0].overlay.show_overlays = False  # drawn by software here, at every redraw
    yield 0.7
    sidebar = next(region for region in view.regions if region.type == "UI")
    sidebar.active_panel_category = "Toonify"
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    bpy.context.preferences.addons[MODULE].preferences.python = os.environ["GUI_PYTHON"]
    return window, view, sys.modules[f"{MODULE}.session"]


def show_textures(window, view):
    """The avatar from the front, with its textures and no lighting."""
    space = view.spaces[0]
    space.shading.type, space.shading.color_type, space.shading.light = "SOLID", "TEXTURE", "FLAT"
    region = next(item for item in view.regions if item.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=view, region=region):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_selected()


def drive(steps):
    """Run a generator of waiting times from a timer; at the end write the report and leave."""

    def tick():
        try:
            return next(steps)
        except StopIteration:
            pass
        except Exception:  # noqa: BLE001 - reported to the test
            report["error"] = traceback.format_exc()
        (OUT / "report.json").write_text(json.dumps(report))
        sys.stderr.flush()
        os._exit(0)

    bpy.app.timers.register(tick, first_interval=1.0)
