# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences in Blender's layouts, whose labels do not wrap."""

from __future__ import annotations

import bpy

SIDEBAR_CHARS = 46
"""Characters that fit into the sidebar at its default width."""


def draw_text(
    layout: bpy.types.UILayout, text: str, icon: str = "NONE", width: int = SIDEBAR_CHARS
) -> None:
    """A sentence over as many lines as it needs; Blender's labels do not wrap."""
    column = layout.column(align=True)
    for number, line in enumerate(wrapped(text, width)):
        column.label(text=line, icon=icon if number == 0 else "BLANK1" if icon != "NONE" else icon)


def wrapped(text: str, width: int = SIDEBAR_CHARS) -> list[str]:
    """``text`` in lines of about ``width`` characters; at most eight."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines[:8]
