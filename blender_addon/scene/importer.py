# SPDX-License-Identifier: GPL-3.0-or-later
"""A result folder becomes an object in its own collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy
from mathutils import Vector

from .. import compat
from .material import build_material, drive_style_mix, load_texture
from .mesh import UV_NAME, add_style_key, add_style_property, build_mesh
from .result import AvatarData, load_avatar

RESULT_PROPERTY = "toonify3d_result"

TRUE_COLORS = "Standard"
"""The view transform that shows an albedo's colors as they are."""


@dataclass(frozen=True)
class ImportOptions:
    """How a result comes into the scene."""

    name: str = "Avatar"
    """Name of object and collection."""
    standard_view: bool = True
    """Set the Standard view transform, so that colours match the exemplar."""
    pack: bool = False
    """Store textures inside the .blend."""


def import_result(
    scene: bpy.types.Scene, folder: Path, options: ImportOptions | None = None
) -> bpy.types.Object:
    """Build mesh, material and collection of a finished result.

    Raises:
        ResultError: The folder holds no usable avatar; the scene is unchanged then.
    """
    options = options or ImportOptions()
    data = load_avatar(folder)
    avatar = bpy.data.objects.new(options.name, build_mesh(options.name, data))
    avatar[RESULT_PROPERTY] = str(folder)
    avatar.location.x = _free_place(scene, folder, data)
    collection = bpy.data.collections.new(options.name)
    collection.objects.link(avatar)
    scene.collection.children.link(collection)
    _add_material(avatar, data, options)
    if options.standard_view:
        compat.set_view_transform(scene, TRUE_COLORS)
    return avatar


def _free_place(scene: bpy.types.Scene, folder: Path, data: AvatarData) -> float:
    """0, or the place to the right of the job's other styles, so that they can be compared."""
    right = [
        item.location.x + max(corner[0] for corner in item.bound_box)
        for item in scene.objects
        if is_avatar(item)
        and Path(item[RESULT_PROPERTY]).parent.parent == folder.parent.parent
        and Path(item[RESULT_PROPERTY]) != folder
    ]
    if not right:
        return 0.0
    low, high = float(data.vertices[:, 0].min()), float(data.vertices[:, 0].max())
    return max(right) - low + 0.1 * (high - low)


def _add_material(avatar: bpy.types.Object, data: AvatarData, options: ImportOptions) -> None:
    paths = {"albedo": data.albedo, "normal": data.normal_map, "photo_albedo": data.photo_albedo}
    material = _textured(options.name, paths, UV_NAME, pack=options.pack)
    avatar.data.materials.append(material)
    add_style_key(avatar, data)
    if data.photo_albedo is not None:
        add_style_property(avatar)
        drive_style_mix(material, avatar)


def _textured(
    name: str, paths: dict[str, Path | None], uv_name: str, *, pack: bool
) -> bpy.types.Material:
    def texture(kind: str) -> bpy.types.Image | None:
        path = paths[kind]
        return None if path is None else load_texture(path, color=kind != "normal", pack=pack)

    return build_material(
        name, texture("albedo"), texture("normal"), texture("photo_albedo"), uv_name
    )


def apply_textures(target: bpy.types.Object, folder: Path, *, pack: bool = False) -> None:
    """Give a mesh the material of the textures in ``folder``, as an imported avatar has it.

    Materials that it had stay in its slots behind the new one.

    Raises:
        RuntimeError: There is no albedo, or a texture cannot be read.
    """
    kinds = ("albedo", "normal", "photo_albedo")
    files = {kind: folder / f"{kind}.png" for kind in kinds}
    paths = {kind: path if path.is_file() else None for kind, path in files.items()}
    if paths["albedo"] is None:
        raise RuntimeError(f"there is no albedo.png in {folder}")
    mesh = target.data
    uv_name = mesh.uv_layers.active.name if mesh.uv_layers.active else UV_NAME
    material = _textured(f"{target.name} Baked", paths, uv_name, pack=pack)
    earlier = list(mesh.materials)
    mesh.materials.clear()
    for item in (material, *earlier):
        mesh.materials.append(item)
    mesh.polygons.foreach_set("material_index", [0] * len(mesh.polygons))
    if paths["photo_albedo"] is not None:
        add_style_property(target)
        drive_style_mix(material, target)
    mesh.update()


def is_avatar(target: bpy.types.Object | None) -> bool:
    """True for an object that this add-on has imported."""
    return target is not None and target.type == "MESH" and RESULT_PROPERTY in target


def is_imported(scene: bpy.types.Scene, result: Path) -> bool:
    """True when an avatar of this result folder is in the scene."""
    return any(is_avatar(o) and Path(o[RESULT_PROPERTY]) == result for o in scene.objects)


def follow_moved(scene: bpy.types.Scene, job: Path) -> list[str]:
    """Point avatars whose job is gone from its place, and their textures, to the job's new one.

    Args:
        scene: Whose avatars.
        job: Folder of the moved (and perhaps renamed) job.

    Returns:
        Names of the avatars found again.
    """
    found = []
    for item in scene.objects:
        if not is_avatar(item):
            continue
        old = Path(bpy.path.abspath(item[RESULT_PROPERTY]))
        new = job / "styles" / old.parent.name / "result"
        if old.exists() or not new.is_dir():
            continue
        item[RESULT_PROPERTY] = str(new)
        for image in _textures_of(item):
            file = new / Path(bpy.path.abspath(image.filepath)).name
            if image.packed_file is None and file.is_file():
                image.filepath = compat.blend_relative(file)
                image.reload()
        found.append(item.name)
    return found


def _textures_of(target: bpy.types.Object) -> set[bpy.types.Image]:
    trees = [slot.material.node_tree for slot in target.material_slots if slot.material]
    nodes = [node for tree in trees if tree is not None for node in tree.nodes]
    return {node.image for node in nodes if node.type == "TEX_IMAGE" and node.image is not None}


def find_avatar(context: bpy.types.Context) -> bpy.types.Object | None:
    """The avatar an operator should act on: the active object, else the scene's newest."""
    active = getattr(context, "active_object", None)
    if is_avatar(active):
        return active
    found = [item for item in context.scene.objects if is_avatar(item)]
    return found[-1] if found else None


def nearest_avatar(scene: bpy.types.Scene, target: bpy.types.Object) -> bpy.types.Object | None:
    """The avatar that stands where ``target`` is."""

    def middle(item: bpy.types.Object) -> Vector:
        corners = [item.matrix_world @ Vector(corner) for corner in item.bound_box]
        return sum(corners, Vector()) / len(corners)

    place = middle(target)
    found = [item for item in scene.objects if is_avatar(item)]
    return min(found, key=lambda item: (middle(item) - place).length, default=None)
