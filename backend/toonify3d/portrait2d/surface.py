"""The prior surface as the stylizer sees it: dense vertices, and colours all views agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..meshes import edge_adjacency
from ..progress import Progress
from ..raycast import MeshQuery
from ..scene import Camera, Float32Array, FloatArray, Frame, Scene, SurfaceMesh
from .colorspace import blur, clean_foreground, sample, to_lab

IntArray = npt.NDArray[np.int64]
_VISIBLE_SLACK = 0.006
"""Metres by which a point may lie behind the first hit and still count as seen."""


@dataclass(frozen=True)
class Observations:
    """What the capture shows of each vertex.

    Attributes:
        lab: ``(V, 3)`` median CIELAB colour over the frames that see the vertex.
        texture: ``(V,)`` median local contrast of L (hair is busier than skin).
        seen: ``(V,)`` number of frames.
    """

    lab: Float32Array
    texture: Float32Array
    seen: npt.NDArray[np.int64]


def densify(mesh: SurfaceMesh, edge: float, max_faces: int = 400_000) -> SurfaceMesh:
    """Split every triangle in four until the median edge is at most ``edge`` metres.

    Splitting all triangles alike keeps the mesh free of cracks.
    """
    vertices, faces, colors = mesh.vertices, mesh.faces, mesh.colors
    while len(faces) * 4 <= max_faces:
        length = np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1)
        if np.median(length) <= edge:
            break
        pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        middle = len(vertices) + inverse.reshape(-1, 3)
        a, b, c = faces.T
        ab, bc, ca = middle.T
        faces = np.concatenate(
            [np.stack(t, 1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
        )
        vertices = np.concatenate([vertices, vertices[unique].mean(1)])
        if colors is not None:
            colors = np.concatenate([colors, colors[unique].mean(1).astype(np.uint8)])
    return SurfaceMesh(vertices, faces, colors)


def is_closed(faces: IntArray) -> bool:
    """Whether every edge of the triangles ``(F, 3)`` has two sides: the surface has no border."""
    ends = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    keys = np.sort(ends[:, 0] * (int(faces.max(initial=0)) + 1) + ends[:, 1])
    if len(keys) % 2:
        return False
    return bool((keys[::2] == keys[1::2]).all())


def vertex_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Area-weighted unit normals ``(V, 3)``."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    face_normals = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            out[:, axis] += np.bincount(
                faces[:, corner], weights=face_normals[:, axis], minlength=len(vertices)
            )
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12))


def visible(
    camera: Camera, depth: Float32Array, points: FloatArray, slack: float = _VISIBLE_SLACK
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Image points ``(N, 2)`` and whether each world point is the first hit of its ray."""
    image_points, z = camera.project(points)
    inside = (z > 0) & (image_points >= 0.5).all(1)
    inside &= (image_points[:, 0] < camera.width - 0.5) & (image_points[:, 1] < camera.height - 0.5)
    column = np.clip(image_points[:, 0].astype(int), 0, camera.width - 1)
    row = np.clip(image_points[:, 1].astype(int), 0, camera.height - 1)
    first = depth[row, column]
    return image_points, inside & (first > 0) & (z < first + slack)


def observe(
    scene: Scene,
    frames: Sequence[Frame],
    mesh: SurfaceMesh,
    caster: MeshQuery,
    progress: Progress,
) -> Observations:
    """Gather every vertex' colour from all ``frames`` that see it from less than 70 degrees."""
    normals = vertex_normals(mesh.vertices, mesh.faces)
    count = len(mesh.vertices)
    stack = np.full((len(frames), count, 4), np.nan, np.float32)
    for row, frame in enumerate(frames):
        progress.update(row / len(frames), "looking at the surface from all sides")
        depth = caster.depth(frame.camera)
        points, seen = visible(frame.camera, depth, mesh.vertices)
        view = frame.camera.center - mesh.vertices
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        seen &= (normals * view).sum(1) > 0.34
        photo = clean_foreground(scene.image(frame), scene.mask(frame))
        values = _features(to_lab(photo))
        stack[row, seen] = sample(values, points[seen])
    return _combine(stack, mesh)


def _features(lab: Float32Array) -> Float32Array:
    detail = lab[..., 0] - blur(lab[..., 0], 2.0)
    contrast = np.sqrt(blur(detail**2, 2.5))
    return np.concatenate([lab, contrast[..., None]], axis=2)


def _combine(stack: Float32Array, mesh: SurfaceMesh) -> Observations:
    seen = np.isfinite(stack[..., 0]).sum(0)
    order = np.sort(stack, axis=0)  # NaN last
    middle = np.maximum(seen - 1, 0) // 2
    median = order[middle, np.arange(len(seen))]
    unseen = seen == 0
    if unseen.any():
        median[unseen] = _unseen_colors(median, unseen, mesh)
    return Observations(median[:, :3], median[:, 3], seen.astype(np.int64))


def _unseen_colors(
    median: Float32Array, unseen: npt.NDArray[np.bool_], mesh: SurfaceMesh
) -> Float32Array:
    """The prior's own colour if it has one, else the neighbours', ring by ring."""
    values = np.where(unseen[:, None], 0.0, median)
    matrix = edge_adjacency(mesh.faces, len(mesh.vertices))
    known = (~unseen).astype(np.float64)
    for _ in range(200):
        total = matrix @ known
        grow = (known == 0) & (total > 0)
        if not grow.any():
            break
        values[grow] = ((matrix @ (values * known[:, None])) / np.maximum(total, 1)[:, None])[grow]
        known[grow] = 1.0
    if mesh.colors is not None:
        values[unseen, :3] = to_lab(mesh.colors[unseen])
    return np.asarray(values[unseen], np.float32)
