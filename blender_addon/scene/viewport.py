# SPDX-License-Identifier: GPL-3.0-or-later
"""What a 3D viewport shows of an avatar: its colors, and where it looks."""

from __future__ import annotations

import math

import bpy
from mathutils import Euler, Vector

_SENSOR_MM = 72.0
"""Width of a viewport's sensor: Blender draws with twice the 36 mm of its cameras."""

_AIR = 1.15


def shows_colors(space: bpy.types.SpaceView3D) -> bool:
    """True when this viewport draws textures."""
    shading = space.shading
    textured = shading.type == "SOLID" and shading.color_type == "TEXTURE"
    return textured or shading.type in {"MATERIAL", "RENDERED"}


def show_colors(space: bpy.types.SpaceView3D) -> None:
    """Change to Material Preview, which has the toon shading, where no colors are drawn."""
    if not shows_colors(space):
        space.shading.type = "MATERIAL"


def look_at_front(
    space: bpy.types.SpaceView3D, target: bpy.types.Object, width: int, height: int, free: int
) -> None:
    """See all of ``target`` from the front (it faces -Y).

    Args:
        space: The viewport.
        target: What to look at.
        width: Of the viewport, pixels.
        height: Of the viewport, pixels.
        free: Pixels of the width, round the middle, that no sidebar covers.
    """
    corners = [target.matrix_world @ Vector(corner) for corner in target.bound_box]
    low = Vector([min(corner[axis] for corner in corners) for axis in range(3)])
    high = Vector([max(corner[axis] for corner in corners) for axis in range(3)])
    size = high - low
    # In units of the region's longer side, which the lens is about.
    longer = max(width, height, 1)
    extent = longer * max(size.x / max(free, 1), size.z / max(height, 1))
    view = space.region_3d
    if view.view_perspective == "CAMERA":
        view.view_perspective = "PERSP"
    view.view_rotation = Euler((math.pi / 2, 0.0, 0.0)).to_quaternion()
    view.view_location = (low + high) / 2
    view.view_distance = _AIR * extent * space.lens / _SENSOR_MM + size.y / 2
