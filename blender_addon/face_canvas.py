# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the picture with its markers over a 3D viewport (needs a window's GPU)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import blf
import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from .marking import BAR_HEIGHT, Marking, Rect
from .places import PLACES, Point

Color = tuple[float, float, float, float]

_BACKDROP: Color = (0.11, 0.11, 0.12, 1.0)
_BAR: Color = (0.0, 0.0, 0.0, 0.94)
_TEXT: Color = (1.0, 1.0, 1.0, 1.0)
_FAINT: Color = (0.75, 0.75, 0.75, 1.0)
_WARNING: Color = (1.0, 0.72, 0.25, 1.0)
_HALO: Color = (0.0, 0.0, 0.0, 0.85)
_SET: Color = (0.25, 0.95, 0.55, 1.0)
_HELD: Color = (1.0, 0.85, 0.2, 1.0)
_BUTTON: Color = (0.28, 0.28, 0.3, 0.95)
_BUTTON_UNDER: Color = (0.28, 0.45, 0.75, 1.0)
_KEYS = "Drag: correct    Backspace: undo    Wheel: zoom    Middle button: move    Esc: cancel"


def make_texture(pixels: np.ndarray) -> gpu.types.GPUTexture:
    """A texture of ``(h, w, 3)`` sRGB values, the top row first."""
    height, width = pixels.shape[:2]
    full = np.ones((height, width, 4), np.float32)
    # A viewport's framebuffer makes sRGB of what shaders write, so textures are linear.
    full[..., :3] = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    data = gpu.types.Buffer("FLOAT", full.size, full.reshape(-1))
    return gpu.types.GPUTexture((width, height), format="RGBA16F", data=data)


def draw(marking: Marking, texture: gpu.types.GPUTexture, region: bpy.types.Region) -> None:
    """Draw everything.

    Args:
        marking: What is marked.
        texture: The picture.
        region: The viewport's.
    """
    scale = bpy.context.preferences.system.ui_scale
    _fill(Rect(0, 0, region.width, region.height), _BACKDROP)
    _draw_picture(marking, texture)
    for place in PLACES:
        if place.name in marking.points:
            held = marking.dragged or marking.nearest(*marking.pointer)
            at = marking.view.to_region(marking.points[place.name])
            _draw_marker(at, place.label, _HELD if place.name == held else _SET, scale)
    _draw_bar(marking, scale)
    _draw_buttons(marking, scale)
    gpu.state.blend_set("NONE")


def _draw_picture(marking: Marking, texture: gpu.types.GPUTexture) -> None:
    view = marking.view
    left, top = view.to_region((0, 0))
    right, bottom = view.to_region((float(view.picture[0]), float(view.picture[1])))
    shader = gpu.shader.from_builtin("IMAGE")
    corners = {
        "pos": ((left, bottom), (right, bottom), (right, top), (left, top)),
        "texCoord": ((0, 1), (1, 1), (1, 0), (0, 0)),
    }
    batch = batch_for_shader(shader, "TRI_FAN", corners)
    shader.bind()
    shader.uniform_sampler("image", texture)
    batch.draw(shader)


def _draw_marker(at: Point, label: str, color: Color, scale: float) -> None:
    """A ring that leaves its middle free to look at, with a name."""
    for radius, width, tint in ((7.0, 4.5, _HALO), (7.0, 2.0, color)):
        _line(_circle(at, radius * scale), width * scale, tint)
    _fill_circle(at, 1.8 * scale, _HALO)
    _fill_circle(at, 1.2 * scale, color)
    size = 12 * scale
    blf.size(0, size)
    left, bottom = at[0] + 13 * scale, at[1] + 5 * scale
    width = blf.dimensions(0, label)[0]
    _fill(Rect(left - 4 * scale, bottom - 5 * scale, width + 8 * scale, 18 * scale), _BAR)
    _text(label, left, bottom, size, color)


def _draw_bar(marking: Marking, scale: float) -> None:
    """What to do now, above the picture."""
    free = marking.view.free
    height = BAR_HEIGHT * scale
    top = free.y + free.height + height
    _fill(Rect(free.x, top - height, free.width, height), _BAR)
    tint = _WARNING if marking.note else _TEXT
    _fitted(marking.note or marking.prompt, free, top - 25 * scale, 17 * scale, tint)
    _fitted(_KEYS, free, top - 46 * scale, 11 * scale, _FAINT)


def _draw_buttons(marking: Marking, scale: float) -> None:
    for _, text, rect in marking.buttons():
        under = rect.holds(*marking.pointer)
        _fill(rect, _BUTTON_UNDER if under else _BUTTON)
        size = 12 * scale
        blf.size(0, size)
        width = blf.dimensions(0, text)[0]
        middle = rect.x + (rect.width - width) / 2
        _text(text, middle, rect.y + rect.height / 2 - 0.36 * size, size, _TEXT)


def _fitted(text: str, free: Rect, y: float, size: float, color: Color) -> None:
    """A line in the middle of the free part, smaller where it would not fit."""
    blf.size(0, size)
    width = blf.dimensions(0, text)[0]
    room = max(free.width - size, 1.0)
    if width > room:
        size, width = size * room / width, room
    _text(text, free.x + (free.width - width) / 2, y, size, color)


def _text(text: str, x: float, y: float, size: float, color: Color) -> None:
    blf.size(0, size)
    blf.color(0, *color)
    blf.position(0, x, y, 0)
    blf.draw(0, text)


def _circle(middle: Point, radius: float) -> list[Point]:
    turns = [math.tau * step / 32 for step in range(33)]
    return [(middle[0] + radius * math.cos(t), middle[1] + radius * math.sin(t)) for t in turns]


def _line(points: Sequence[Point], width: float, color: Color) -> None:
    shader = gpu.shader.from_builtin("POLYLINE_UNIFORM_COLOR")
    batch = batch_for_shader(shader, "LINE_STRIP", {"pos": [(x, y, 0.0) for x, y in points]})
    gpu.state.blend_set("ALPHA")
    shader.bind()
    _, _, across, down = gpu.state.viewport_get()
    shader.uniform_float("viewportSize", (across, down))
    shader.uniform_float("lineWidth", width)
    shader.uniform_float("color", color)
    batch.draw(shader)


def _fill_circle(middle: Point, radius: float, color: Color) -> None:
    _polygon([middle, *_circle(middle, radius)], color)


def _fill(rect: Rect, color: Color) -> None:
    right, top = rect.x + rect.width, rect.y + rect.height
    _polygon([(rect.x, rect.y), (right, rect.y), (right, top), (rect.x, top)], color)


def _polygon(points: Sequence[Point], color: Color) -> None:
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    batch = batch_for_shader(shader, "TRI_FAN", {"pos": points})
    gpu.state.blend_set("ALPHA")  # every text that is drawn sets it back
    shader.bind()
    shader.uniform_float("color", color)
    batch.draw(shader)
