# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences in Blender's layouts, whose labels do not wrap."""

from __future__ import annotations

from collections.abc import Callable

import bpy

SIDEBAR_CHARS = 46
"""Line length where no region tells its width (background, tests)."""

MAX_LINES = 8
_CHROME = 64  # pixels of tabs, panel and box borders beside the text, at interface scale 1
_ICON = 20


def draw_text(
    layout: bpy.types.UILayout, text: str, icon: str = "NONE", width: int | None = None
) -> None:
    """A sentence over as many lines as it needs.

    Args:
        layout: Where to draw.
        text: The sentence.
        icon: Before its first line.
        width: Characters in a line; by default what fits into the region that is drawn.
    """
    column = layout.column(align=True)
    rows = _fitted(text, icon != "NONE") if width is None else wrapped(text, width)
    for number, line in enumerate(rows):
        column.label(text=line, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else icon)


def _fitted(text: str, has_icon: bool) -> list[str]:
    """Lines that fit into the region being drawn, measured with the interface's font."""
    region, preferences = bpy.context.region, bpy.context.preferences
    scale = preferences.system.ui_scale
    if region is None or region.width < 2 or scale <= 0:
        return wrapped(text)
    import blf  # needs a window's fonts

    room = region.width - scale * (_CHROME + (_ICON if has_icon else 0))
    blf.size(0, preferences.ui_styles[0].widget.points * scale)
    return fill(text, lambda line: blf.dimensions(0, line)[0] <= room)


def wrapped(text: str, width: int = SIDEBAR_CHARS) -> list[str]:
    """``text`` in lines of at most ``width`` characters, longer words on lines of their own."""
    return fill(text, lambda line: len(line) <= width)


def fill(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The words of ``text`` in lines as long as ``fits`` allows; at most :data:`MAX_LINES`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and not fits(longer):
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1]} ..."]
    return lines
