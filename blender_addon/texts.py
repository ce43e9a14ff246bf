# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences in Blender's layouts, whose labels do not wrap."""

from __future__ import annotations

import re
from collections.abc import Callable

import bpy

Fits = Callable[[str], bool]

SIDEBAR_CHARS = 46
"""Line length where no region tells its width (background, tests)."""

MAX_LINES = 8
NARROW = 250
"""Pixels of a region, at interface scale 1, below which two buttons do not stand side by side."""

_CHROME = 80  # pixels of tabs, panel and box borders beside the text, at interface scale 1
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


def draw_name(layout: bpy.types.UILayout, name: str, icon: str) -> None:
    """A file's name on one line; of one that is too long the middle is left out."""
    layout.label(text=fitting(name), icon=icon)


def fitting(name: str) -> str:
    """As much of a name as fits behind an icon."""
    return shortened(name, _fits(has_icon=True) or _fits_chars(SIDEBAR_CHARS))


def beside(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """A row for two buttons, or a column where the region is too narrow for both."""
    region, scale = bpy.context.region, bpy.context.preferences.system.ui_scale
    narrow = region is not None and 2 <= region.width < NARROW * scale
    return layout.column(align=True) if narrow else layout.row(align=True)


def _fitted(text: str, has_icon: bool) -> list[str]:
    """Lines that fit into the region being drawn, measured with the interface's font."""
    fits = _fits(has_icon)
    return wrapped(text) if fits is None else fill(text, fits)


def _fits(has_icon: bool) -> Fits | None:
    """Whether a line fits into the region being drawn; None where no region tells its width."""
    region, preferences = bpy.context.region, bpy.context.preferences
    scale = preferences.system.ui_scale
    if region is None or region.width < 2 or scale <= 0:
        return None
    import blf  # needs a window's fonts

    room = region.width - scale * (_CHROME + (_ICON if has_icon else 0))
    blf.size(0, preferences.ui_styles[0].widget.points * scale)
    return lambda line: blf.dimensions(0, line)[0] <= room


def _fits_chars(width: int) -> Fits:
    return lambda line: len(line) <= width


def shortened(text: str, fits: Fits) -> str:
    """``text``, without its middle when it does not fit: a file's start and end tell it apart."""
    if fits(text):
        return text
    for kept in range(len(text) - 1, 1, -1):
        tail = kept // 2
        line = f"{text[: kept - tail]}...{text[len(text) - tail :]}"
        if fits(line):
            return line
    return text


def wrapped(text: str, width: int = SIDEBAR_CHARS) -> list[str]:
    """``text`` in lines of at most ``width`` characters, longer words on lines of their own."""
    return fill(text, _fits_chars(width))


def fill(text: str, fits: Fits) -> list[str]:
    """The words of ``text`` in lines as long as ``fits`` allows; at most :data:`MAX_LINES`.

    Paths are words that may be broken after a separator.
    """
    lines = [""]
    for word in text.split():
        for number, piece in enumerate(_pieces(word, fits)):
            gap = " " if lines[-1] and number == 0 else ""
            longer = f"{lines[-1]}{gap}{piece}"
            if lines[-1] and not fits(longer):
                lines.append(piece)
            else:
                lines[-1] = longer
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1]} ..."]
    return lines


def _pieces(word: str, fits: Fits) -> list[str]:
    """A word, or the steps of a path that is too long for a line."""
    return [word] if fits(word) else re.findall(r"[/\\]*[^/\\]+[/\\]*", word)
