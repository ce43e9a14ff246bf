"""Self-intersections of a mesh: finding the triangles that cross, and smoothing them apart."""

# Warp compiles the kernels from their text; its Python stubs do not describe what they may use.
# mypy: disable-error-code="untyped-decorator,misc,attr-defined,index,no-any-return"
# mypy: disable-error-code="var-annotated,valid-type,operator,arg-type"

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import warp as wp

from ..meshes import edge_adjacency
from ..scene import FloatArray
from ..warp_start import start_warp

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ROUNDS = 12
# Sine below which a segment and a triangle count as parallel.
PARALLEL = 1e-7


@wp.kernel
def _cross(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    exact: wp.array(dtype=wp.vec3d),
    triangles: wp.array(dtype=int, ndim=2),
    edges: wp.array(dtype=int, ndim=2),
    sides: wp.array(dtype=int, ndim=2),
    parallel: wp.float64,
    hit: wp.array(dtype=int),
) -> None:
    i = wp.tid()
    p = edges[i, 0]
    q = edges[i, 1]
    query = wp.mesh_query_aabb(mesh, wp.min(points[p], points[q]), wp.max(points[p], points[q]))
    for f in query:
        a = triangles[f, 0]
        b = triangles[f, 1]
        c = triangles[f, 2]
        if a != p and a != q and b != p and b != q and c != p and c != q:
            # Moeller & Trumbore 1997 on the segment, in double precision.
            d = exact[q] - exact[p]
            u = exact[b] - exact[a]
            v = exact[c] - exact[a]
            h = wp.cross(d, v)
            det = wp.dot(u, h)
            # Parallel up to rounding: where the segment meets the plane would be chance.
            if wp.abs(det) > parallel * wp.length(d) * wp.length(u) * wp.length(v):
                s = exact[p] - exact[a]
                x = wp.dot(s, h) / det
                k = wp.cross(s, u)
                y = wp.dot(d, k) / det
                t = wp.dot(v, k) / det
                zero = wp.float64(0.0)
                one = wp.float64(1.0)
                if x >= zero and y >= zero and x + y <= one and t >= zero and t <= one:
                    hit[f] = 1
                    hit[sides[i, 0]] = 1
                    hit[sides[i, 1]] = 1


def crossing_faces(vertices: FloatArray, faces: IntArray) -> BoolArray:
    """Triangles ``(F,)`` that another triangle without a common vertex runs through.

    Two triangles cross exactly when an edge of one of them crosses the other.
    """
    start_warp()
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    scale = 2.0 / max(float(np.ptp(vertices, axis=0).max()), 1e-30)
    exact = (vertices - center) * scale
    points: Any = wp.array(exact.astype(np.float32), dtype=wp.vec3, device="cpu")
    triangles = faces.astype(np.int32)
    indices: Any = wp.array(triangles.reshape(-1), dtype=int, device="cpu")
    mesh: Any = wp.Mesh(points=points, indices=indices)
    edges, sides = _edges(faces)
    hit: Any = wp.zeros(len(faces), dtype=int, device="cpu")
    inputs = [
        mesh.id,
        points,
        wp.array(np.ascontiguousarray(exact), dtype=wp.vec3d, device="cpu"),
        wp.array(triangles, dtype=int, device="cpu"),
        wp.array(edges.astype(np.int32), dtype=int, device="cpu"),
        wp.array(sides.astype(np.int32), dtype=int, device="cpu"),
        wp.float64(PARALLEL),
        hit,
    ]
    wp.launch(_cross, dim=len(edges), inputs=inputs, device="cpu")
    return np.asarray(hit.numpy() > 0)


def untangle(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, int, int]:
    """Smooth crossing triangles apart.

    Returns:
        Vertices, and how many faces crossed before and after.
    """
    crossing = crossing_faces(vertices, faces)
    before = int(crossing.sum())
    matrix = edge_adjacency(faces, len(vertices))
    degree = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    best, left = vertices, before
    moved = vertices.copy()
    for _ in range(ROUNDS):
        if not crossing.any():
            break
        near = np.zeros(len(vertices))
        near[np.unique(faces[crossing])] = 1.0
        near = np.minimum(1.0, near + (matrix @ near > 0))
        mean = (matrix @ moved) / degree[:, None]
        moved = moved + 0.5 * near[:, None] * (mean - moved)
        crossing = crossing_faces(moved, faces)
        if int(crossing.sum()) < left:
            best, left = moved.copy(), int(crossing.sum())
    return best, before, left


def _edges(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Unique edges ``(E, 2)`` and two faces (the same one twice at a border) of each."""
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    owner = np.repeat(np.arange(len(faces)), 3)
    edges, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    last = np.zeros(len(edges), dtype=np.int64)
    last[inverse.reshape(-1)] = owner
    return edges, np.stack([owner[first], last], axis=1)
