# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh of the scene as a Wavefront OBJ in the avatar's space, for the backend's bake."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix


def write_obj(path: Path, target: bpy.types.Object, space: Matrix) -> None:
    """Write the object as it looks now (modifiers, keys), Z up, in the coordinates of ``space``.

    The exporters would turn axes and write the avatar's place in the scene; the backend wants the
    avatar's own space.

    Args:
        path: The OBJ file.
        target: A mesh object.
        space: World matrix of the avatar.

    Raises:
        OSError: The file cannot be written.
    """
    graph = bpy.context.evaluated_depsgraph_get()
    evaluated = target.evaluated_get(graph)
    mesh = evaluated.to_mesh()
    try:
        lines = _lines(mesh, space.inverted() @ target.matrix_world)
    finally:
        evaluated.to_mesh_clear()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(mesh: bpy.types.Mesh, place: Matrix) -> list[str]:
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    matrix = np.array(place, float)
    moved = points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in moved.tolist()]
    layer = mesh.uv_layers.active
    if layer is not None:
        flat = np.empty(2 * len(mesh.loops), np.float32)
        layer.uv.foreach_get("vector", flat)
        lines += [f"vt {u:.7g} {v:.7g}" for u, v in flat.reshape(-1, 2).tolist()]
    index = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", index)
    corners = [
        f"{vertex}/{loop}" if layer is not None else str(vertex)
        for loop, vertex in enumerate((index + 1).tolist(), 1)
    ]
    starts = np.empty(len(mesh.polygons), np.int32)
    totals = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    mesh.polygons.foreach_get("loop_total", totals)
    order = zip(starts.tolist(), totals.tolist(), strict=True)
    return lines + ["f " + " ".join(corners[start : start + total]) for start, total in order]
