# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of the avatar alone, with the settings that other programs expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bpy

SUFFIXES = {"GLB": ".glb", "FBX": ".fbx", "USD": ".usdc", "OBJ": ".obj", "STL": ".stl"}


class ExportError(Exception):
    """An export cannot be done: one sentence for the user."""


def export_avatar(context: bpy.types.Context, avatar: bpy.types.Object, path: Path) -> None:
    """Write the avatar to ``path``; the format is that of its suffix.

    Raises:
        ExportError: Unknown suffix, the exporter is switched off, or it failed.
    """
    export = _EXPORTERS.get(path.suffix.lower())
    if export is None:
        raise ExportError(f"there is no exporter for {path.suffix or 'a name without suffix'}")
    if avatar.name not in context.view_layer.objects:
        raise ExportError("the avatar is not in the current view layer")
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_selected(context, avatar):
        try:
            export(str(path))
        except AttributeError as error:
            raise ExportError(f"Blender's exporter is switched off ({error})") from error
        except RuntimeError as error:
            raise ExportError(str(error).strip()) from error


@contextmanager
def only_selected(context: bpy.types.Context, target: bpy.types.Object) -> Iterator[None]:
    """Select ``target`` alone, and afterwards what was selected before."""
    layer = context.view_layer
    before = [item for item in layer.objects if item.select_get(view_layer=layer)]
    active = layer.objects.active
    try:
        for item in before:
            item.select_set(False, view_layer=layer)
        target.select_set(True, view_layer=layer)
        layer.objects.active = target
        yield
    finally:
        target.select_set(False, view_layer=layer)
        for item in before:
            item.select_set(True, view_layer=layer)
        layer.objects.active = active


def _glb(path: str) -> None:
    bpy.ops.export_scene.gltf(
        filepath=path, export_format="GLB", use_selection=True, export_yup=True
    )


def _fbx(path: str) -> None:
    bpy.ops.export_scene.fbx(
        filepath=path,
        use_selection=True,
        object_types={"MESH"},
        # Units and axes as Unity, Unreal and Maya read them without a scaled root.
        apply_scale_options="FBX_SCALE_ALL",
        mesh_smooth_type="FACE",
        path_mode="COPY",
        embed_textures=True,
    )


def _usd(path: str) -> None:
    bpy.ops.wm.usd_export(filepath=path, selected_objects_only=True, export_materials=True)


def _obj(path: str) -> None:
    bpy.ops.wm.obj_export(
        filepath=path,
        export_selected_objects=True,
        forward_axis="NEGATIVE_Z",
        up_axis="Y",
        path_mode="COPY",
        export_pbr_extensions=True,
    )


def _stl(path: str) -> None:
    # Printers count in millimetres.
    bpy.ops.wm.stl_export(filepath=path, export_selected_objects=True, global_scale=1000.0)


_EXPORTERS: dict[str, Callable[[str], None]] = {
    ".glb": _glb,
    ".fbx": _fbx,
    ".usd": _usd,
    ".usda": _usd,
    ".usdc": _usd,
    ".obj": _obj,
    ".stl": _stl,
}
