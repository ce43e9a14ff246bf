# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays to a Blender mesh."""

from __future__ import annotations

import bpy
import numpy as np

from .result import AvatarData

UV_NAME = "UVMap"
BASIS_KEY = "Person"
STYLE_KEY = "Style"
STYLE_PROPERTY = "style"


def build_mesh(name: str, data: AvatarData) -> bpy.types.Mesh:
    """A mesh with welded vertices, UVs per corner and smooth normals.

    Direct ``foreach_set`` keeps vertex order and space as they are, unlike the importers, which
    leave a rotation on the object and split vertices at seams.
    """
    mesh = bpy.data.meshes.new(name)
    triangles = len(data.faces)
    fill_triangles(mesh, data.vertices, data.faces)
    if data.uvs is not None:
        layer = mesh.uv_layers.new(name=UV_NAME, do_init=False)
        layer.uv.foreach_set("vector", data.uvs.ravel())
    mesh.update(calc_edges=True)
    # Removes what would crash Blender later (degenerate faces); our own files have none.
    mesh.validate()
    mesh.shade_smooth()
    if data.normals is not None and len(mesh.polygons) == triangles:
        mesh.normals_split_custom_set_from_vertices(data.normals)
    return mesh


def fill_triangles(mesh: bpy.types.Mesh, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Put ``(V, 3)`` float32 vertices and ``(F, 3)`` int32 triangles into an empty mesh."""
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", vertices.ravel())
    mesh.loops.add(3 * len(faces))
    mesh.loops.foreach_set("vertex_index", faces.ravel())
    mesh.polygons.add(len(faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, 3 * len(faces), 3, dtype=np.int32))


def add_style_key(target: bpy.types.Object, data: AvatarData) -> bool:
    """Shape key ``Style``: 0 the real person, 1 the stylized head, driven by ``["style"]``.

    Returns:
        False when the result does not say where its vertices are on the real person.
    """
    if data.prior_vertices is None or len(target.data.vertices) != len(data.prior_vertices):
        return False
    target.shape_key_add(name=BASIS_KEY, from_mix=False)
    key = target.shape_key_add(name=STYLE_KEY, from_mix=False)
    keys = target.data.shape_keys
    keys.key_blocks[BASIS_KEY].points.foreach_set("co", data.prior_vertices.ravel())
    key.points.foreach_set("co", data.vertices.ravel())
    key.slider_max = 1.5
    target.active_shape_key_index = 1  # what Edit Mode and Sculpt Mode show and change
    target.data.vertices.foreach_set("co", data.prior_vertices.ravel())
    add_style_property(target)
    drive_by_style(key, "value", target)
    target.data.update()
    return True


def add_style_property(target: bpy.types.Object) -> None:
    """The one slider, on the object, that drives shape and colours."""
    if STYLE_PROPERTY in target:
        return
    target[STYLE_PROPERTY] = 1.0
    manager = target.id_properties_ui(STYLE_PROPERTY)
    manager.update(
        min=0.0,
        max=1.5,
        soft_min=0.0,
        soft_max=1.0,
        description="0 is the real person, 1 the stylized head",
    )


def drive_by_style(
    owner: bpy.types.bpy_struct, path: str, target: bpy.types.Object, *, inverted: bool = False
) -> None:
    """Let ``owner.path`` follow the object's ``["style"]``, or 1 minus it."""
    driver = owner.driver_add(path).driver
    driver.type = "AVERAGE"
    variable = driver.variables.new()
    variable.name = STYLE_PROPERTY
    variable.targets[0].id = target
    variable.targets[0].data_path = f'["{STYLE_PROPERTY}"]'
    if inverted:
        driver.type = "SCRIPTED"
        # As simple as this, it needs no permission to run scripts.
        driver.expression = f"1 - {STYLE_PROPERTY}"
