# SPDX-License-Identifier: GPL-3.0-or-later
"""A running job in the viewport: the mesh so far, the recovered cameras, the points they saw.

All of it lies in one collection of its own and is removed with it.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import bpy
import numpy as np

from .. import compat
from .mesh import fill_triangles

COLLECTION = "3DToonify Live"
MESH, CAMERAS, POINTS = "Reconstruction", "Recovered Cameras", "Recovered Points"
MAX_TRIANGLES = 300_000
"""A finer mesh is shown as points only: it would hold up the viewport."""

MAX_POINTS = 200_000
_CAMERA_SIZE = 0.05  # metres from the camera's centre to its drawn picture
_STAMP = "toonify3d_live"


def update(
    scene: bpy.types.Scene, job: Path | None, *, mesh: bool = False, cameras: bool = False
) -> None:
    """Show what the job has made so far, and remove what is not wanted (any more).

    Args:
        scene: Where to show it.
        job: The job folder, None to remove everything.
        mesh: Show the reconstructed mesh.
        cameras: Show cameras and points.
    """
    folder = job or Path()
    wanted = {
        MESH: (mesh, folder / "prior" / "mesh.npz", _read_mesh),
        CAMERAS: (cameras, folder / "capture" / "cameras.json", _read_cameras),
        POINTS: (cameras, folder / "capture" / "sparse.ply", _read_points),
    }
    for name, (shown, path, read) in wanted.items():
        stamp = _stamp(path) if shown and job is not None else ""
        present = _find(scene, name)
        if present is not None and present.get(_STAMP) == stamp:
            continue
        data = read(path) if stamp else None
        if present is not None:
            _remove_object(present)
        if data is not None:
            data.name = name
            _link(scene, name, data, stamp)
    _remove_if_empty(scene)


def _stamp(path: Path) -> str:
    """What tells one version of a file from another; empty when it is not there."""
    try:
        return f"{path}|{path.stat().st_mtime_ns}"
    except OSError:
        return ""


def _collection(scene: bpy.types.Scene) -> bpy.types.Collection | None:
    return next((c for c in scene.collection.children if c.get(_STAMP)), None)


def _find(scene: bpy.types.Scene, name: str) -> bpy.types.Object | None:
    holder = _collection(scene)
    found = holder.objects if holder is not None else ()
    return next((item for item in found if item.name.startswith(name)), None)


def _link(scene: bpy.types.Scene, name: str, data: bpy.types.Mesh, stamp: str) -> None:
    holder = _collection(scene)
    if holder is None:
        holder = bpy.data.collections.new(COLLECTION)
        holder[_STAMP] = True
        holder.hide_render = True
        scene.collection.children.link(holder)
    item = bpy.data.objects.new(name, data)
    item[_STAMP] = stamp
    item.hide_select = name != MESH
    holder.objects.link(item)


def _remove_object(item: bpy.types.Object) -> None:
    data = item.data
    materials = [slot for slot in data.materials if slot is not None]
    bpy.data.objects.remove(item)
    bpy.data.meshes.remove(data)
    for material in materials:
        if not material.users:
            bpy.data.materials.remove(material)


def _remove_if_empty(scene: bpy.types.Scene) -> None:
    holder = _collection(scene)
    if holder is not None and not holder.objects:
        bpy.data.collections.remove(holder)


# -- files of the job folder to meshes; a file that cannot be read (yet) shows nothing ---------


def _read_mesh(path: Path) -> bpy.types.Mesh | None:
    try:
        with np.load(path, allow_pickle=False) as data:
            vertices = np.ascontiguousarray(data["vertices"], np.float32)
            faces = np.ascontiguousarray(data["faces"], np.int32)
            colors = data["colors"] if "colors" in data.files else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        return None
    mesh = bpy.data.meshes.new(MESH)
    if len(faces) > MAX_TRIANGLES:
        every = -(-len(vertices) // MAX_POINTS)
        vertices, faces = vertices[::every], faces[:0]
        colors = None if colors is None else colors[::every]
    fill_triangles(mesh, vertices, faces)
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    if colors is not None and colors.shape == (len(vertices), 3):
        _paint(mesh, colors)
    return mesh


def _paint(mesh: bpy.types.Mesh, colors: np.ndarray) -> None:
    """Colours per vertex, shown in Material Preview and by Solid mode's Attribute colours."""
    layer = mesh.color_attributes.new("Color", "BYTE_COLOR", "POINT")
    rgba = np.ones((len(colors), 4), np.float32)
    rgba[:, :3] = colors.astype(np.float32) / 255
    layer.data.foreach_set("color_srgb", rgba.ravel())
    mesh.color_attributes.active_color = layer
    material = bpy.data.materials.new(MESH)
    tree = compat.enable_nodes(material)
    tree.nodes.clear()
    color = tree.nodes.new("ShaderNodeVertexColor")
    color.layer_name = "Color"
    surface = tree.nodes.new("ShaderNodeBsdfPrincipled")
    surface.inputs["Roughness"].default_value = 0.8
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(color.outputs["Color"], surface.inputs["Base Color"])
    tree.links.new(surface.outputs[0], output.inputs["Surface"])
    mesh.materials.append(material)


def _read_cameras(path: Path) -> bpy.types.Mesh | None:
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        corners = np.stack([_pyramid(frame) for frame in frames])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not np.isfinite(corners).all():
        return None
    mesh = bpy.data.meshes.new(CAMERAS)
    edges = np.array([(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)], np.int32)
    pairs = (edges[None] + 5 * np.arange(len(corners), dtype=np.int32)[:, None, None]).ravel()
    mesh.vertices.add(5 * len(corners))
    mesh.vertices.foreach_set("co", corners.astype(np.float32).ravel())
    mesh.edges.add(len(pairs) // 2)
    mesh.edges.foreach_set("vertices", pairs)
    mesh.update()
    return mesh


def _pyramid(frame: dict[str, object]) -> np.ndarray:
    """Centre and picture corners ``(5, 3)`` of one camera, OpenCV axes, in the world."""
    k, c2w = np.array(frame["K"], float), np.array(frame["c2w"], float)
    width, height = float(str(frame["width"])), float(str(frame["height"]))
    pixels = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], float)
    rays = pixels @ np.linalg.inv(k).T * _CAMERA_SIZE
    return np.concatenate([np.zeros((1, 3)), rays]) @ c2w[:3, :3].T + c2w[:3, 3]


def _orbit(path: Path) -> float:
    """How far from the head the cameras were: what lies behind them is the room."""
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        places = np.array([frame["c2w"] for frame in frames], float)[:, :3, 3]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return math.inf
    return 1.1 * float(np.median(np.linalg.norm(places, axis=1)))


def _read_points(path: Path) -> bpy.types.Mesh | None:
    """The cloud that ``capture`` writes: binary PLY, three floats and three bytes a point."""
    kind = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    try:
        data = path.read_bytes()
        head, _, body = data.partition(b"end_header\n")
        if b"format binary_little_endian" not in head:
            return None
        count = int(head.split(b"element vertex ")[1].split()[0])
        points = np.frombuffer(body, kind, count)["xyz"]
    except (OSError, ValueError, IndexError):
        return None
    points = points[np.isfinite(points).all(axis=1)]
    points = points[np.linalg.norm(points, axis=1) < _orbit(path.with_name("cameras.json"))]
    points = points[:MAX_POINTS]
    mesh = bpy.data.meshes.new(POINTS)
    mesh.vertices.add(len(points))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(points).ravel())
    mesh.update()
    return mesh
