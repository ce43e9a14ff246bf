# SPDX-License-Identifier: GPL-3.0-or-later
"""Every difference between Blender versions (4.2 and newer) that this add-on depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

VERSION = tuple(bpy.app.version)


def eevee_engine(scene: bpy.types.Scene) -> str:
    """EEVEE's identifier: ``BLENDER_EEVEE_NEXT`` in 4.2 to 4.5, ``BLENDER_EEVEE`` in 5.0+."""
    items = scene.render.bl_rna.properties["engine"].enum_items.keys()
    return next((name for name in items if "EEVEE" in name), "BLENDER_EEVEE")


def enable_nodes(material: bpy.types.Material) -> bpy.types.NodeTree:
    """The material's node tree; 5.0+ materials always have one and deprecate the switch."""
    if VERSION < (5, 0, 0):
        material.use_nodes = True
    return material.node_tree


def enable_world_nodes(world: bpy.types.World) -> bpy.types.NodeTree:
    """The world's node tree; see :func:`enable_nodes`."""
    if VERSION < (5, 0, 0):
        world.use_nodes = True
    return world.node_tree


def path_options() -> set[str]:
    """Options of a path property that may start with ``//`` (the flag exists from 4.5 on)."""
    return {"PATH_SUPPORTS_BLEND_RELATIVE"} if VERSION >= (4, 5, 0) else set()


def set_png(settings: Any, *, transparent: bool) -> None:
    """Image settings for a PNG sequence; 5.0+ wants the media type first."""
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format = "PNG"
    settings.color_mode = "RGBA" if transparent else "RGB"
    settings.color_depth = "8"


def set_mp4(render: bpy.types.RenderSettings) -> None:
    """H.264 in MP4; 5.0+ wants the media type first."""
    settings = render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    settings.color_mode = "RGB"
    render.ffmpeg.format = "MPEG4"
    render.ffmpeg.codec = "H264"
    render.ffmpeg.constant_rate_factor = "HIGH"


def set_view_transform(scene: bpy.types.Scene, name: str) -> bool:
    """Choose a view transform; False when the colour configuration lacks it."""
    try:
        scene.view_settings.view_transform = name
        scene.view_settings.look = "None"
    except TypeError:
        return False
    return True


def blend_relative(path: Path) -> str:
    """``path`` relative to the saved .blend, absolute when unsaved or on another drive."""
    if not bpy.data.filepath:
        return str(path)
    try:
        return str(bpy.path.relpath(str(path)))
    except ValueError:
        return str(path)
