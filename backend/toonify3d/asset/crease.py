"""Sharp rims: where a surface is cut by a plane or ball, marching cubes leaves a chamfer.

A cell of the level set that holds both surfaces gets one triangle across the corner between them,
so the rim of a bust's flat bottom is off by up to a cell (millimetres) and ragged. As in extended
marching cubes (Kobbelt et al. 2001) new vertices are put onto the rim; which of both surfaces a
vertex belongs to is known here, so no normals have to be clustered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..scene import FloatArray
from .intersect import crossing_faces
from .levelset import ClippedField
from .topology import Edges, face_normals, split_edges

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Function = Callable[[FloatArray], FloatArray]
NEWTON_STEPS = 4
# Vertices this many cells from the rim can be off because of it.
REACH = 2.0
# Cosine between both surfaces above which there is no rim to speak of (about 25 degrees).
TANGENT = 0.9
# Rounds in which the rim's vertices spread along it, and are taken back where faces cross.
FAIR_ROUNDS, UNCROSS_ROUNDS = 8, 3


def sharpen_rim(
    field: ClippedField, vertices: FloatArray, faces: IntArray, cell: float
) -> tuple[FloatArray, IntArray]:
    """Put vertices near the cut onto their own surface, and an edge along the rim.

    Args:
        field: What was cut; its closing solid is the cut.
        vertices: ``(V, 3)`` of its level set, unit space.
        faces: ``(F, 3)``.
        cell: Of the level set.
    """
    clip = field.clip(vertices)
    rows = np.flatnonzero(np.abs(clip) < REACH * cell)
    inner = np.full(len(vertices), np.inf)
    inner[rows] = field.inner(vertices[rows])
    cut = clip > inner
    edges = Edges.of(faces)
    mixed = cut[edges.ends[:, 0]] != cut[edges.ends[:, 1]]
    if not mixed.any():
        return vertices, faces
    faces, _ = split_edges(faces, edges, mixed, len(vertices))
    plain = np.concatenate([vertices, vertices[edges.ends[mixed]].mean(axis=1)])
    out = plain.copy()
    near = np.abs(inner) < REACH * cell
    for rows, function in ((cut & near, field.clip), (~cut & near, field.inner)):
        out[: len(vertices)][rows] = _onto([function], vertices[rows], cell)
    rim = onto_rim(field, out[edges.ends[mixed]].mean(axis=1), cell)
    out[len(vertices) :] = _faired(field, rim, faces, len(vertices), cell)
    return _uncrossed(out, plain, faces), faces


def _faired(
    field: ClippedField, rim: FloatArray, faces: IntArray, first: int, cell: float
) -> FloatArray:
    """Rim vertices (from ``first`` on) spread along the rim, so that it nowhere turns back."""
    pairs = Edges.of(faces).ends
    along = pairs[(pairs >= first).all(axis=1)] - first
    half = sparse.coo_matrix((np.ones(len(along)), along.T), (len(rim), len(rim)))
    matrix = (half + half.T).tocsr()
    degree = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)[:, None]
    for _ in range(FAIR_ROUNDS):
        rim = onto_rim(field, 0.5 * rim + 0.5 * (matrix @ rim) / degree, cell)
    return rim


def _uncrossed(moved: FloatArray, plain: FloatArray, faces: IntArray) -> FloatArray:
    """``moved (V, 3)``, but as in ``plain`` where faces would run through one another."""
    touched = np.flatnonzero((moved != plain).any(axis=1)[faces].any(axis=1))
    used, inverse = np.unique(faces[touched], return_inverse=True)
    local = inverse.reshape(-1, 3)
    out = moved.copy()
    for _ in range(UNCROSS_ROUNDS):
        back = used[np.unique(local[crossing_faces(out[used], local)])]
        if not len(back):
            break
        out[back] = plain[back]
    return out


def onto_rim(field: ClippedField, points: FloatArray, cell: float) -> FloatArray:
    """The nearest places ``(N, 3)`` of the rim, at most a cell away.

    Where both surfaces run into one another without a rim, the nearest places of the whole; what
    is farther than a cell from either stays.
    """

    def whole(x: FloatArray) -> FloatArray:
        return np.asarray(np.maximum(field.inner(x), field.clip(x)))

    out = _onto([field.inner, field.clip], points, cell)
    left = (out == points).all(axis=1)
    out[left] = _onto([whole], points[left], cell)
    return out


def settle(
    field: ClippedField, vertices: FloatArray, faces: IntArray, cut: BoolArray, cell: float
) -> FloatArray:
    """Vertices of a decimated mesh near the rim exactly on the surfaces they belong to.

    Args:
        field: What was cut.
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        cut: Faces ``(F,)`` of the cut.
        cell: Of the level set; nothing moves farther than one.
    """
    of_cut, of_wall = np.zeros((2, len(vertices)), dtype=bool)
    of_cut[faces[cut]] = True
    of_wall[faces[~cut]] = True
    near = np.abs(field.clip(vertices)) < REACH * cell
    out = vertices.copy()
    for rows, function in (
        (of_cut & ~of_wall & near, field.clip),
        (of_wall & ~of_cut & near, field.inner),
    ):
        out[rows] = _onto([function], vertices[rows], cell)
    rim = of_wall & of_cut
    out[rim] = onto_rim(field, vertices[rim], cell)
    touched = (out != vertices).any(axis=1)[faces].any(axis=1)
    before, after = face_normals(vertices, faces[touched]), face_normals(out, faces[touched])
    turned = np.unique(faces[touched][(before * after).sum(axis=1) <= 0])
    out[turned] = vertices[turned]
    return out


def cut_faces(field: ClippedField, vertices: FloatArray, faces: IntArray) -> BoolArray:
    """Faces ``(F,)`` that belong to the cut, not to the field's own surface."""
    center = vertices[faces].mean(axis=1)
    clip = field.clip(center)
    edge = float(np.linalg.norm(vertices[faces[:, 0]] - vertices[faces[:, 1]], axis=1).max())
    rows = np.flatnonzero(np.abs(clip) < edge)
    out = np.zeros(len(faces), dtype=bool)
    out[rows] = clip[rows] > field.inner(center[rows])
    return out


def _onto(functions: Sequence[Function], points: FloatArray, reach: float) -> FloatArray:
    """Newton's method to where all ``functions`` vanish, by the shortest steps.

    Points that would move farther than ``reach``, or for which two surfaces are nearly parallel,
    stay where they are.
    """
    out = points.copy()
    good = np.ones(len(points), dtype=bool)
    for _ in range(NEWTON_STEPS):
        value = np.stack([function(out) for function in functions], axis=1)
        slope = np.stack([_gradient(function, out, 0.02 * reach) for function in functions], axis=1)
        slope_length = np.linalg.norm(slope, axis=2)
        good &= (slope_length > 1e-3).all(axis=1)
        if len(functions) == 2:
            cosine = (slope[:, 0] * slope[:, 1]).sum(axis=1)
            good &= np.abs(cosine) < TANGENT * slope_length.prod(axis=1)
        rows = np.flatnonzero(good)
        steep = slope[rows]
        share = np.linalg.solve(steep @ steep.transpose(0, 2, 1), value[rows, :, None])
        out[rows] -= (steep.transpose(0, 2, 1) @ share)[..., 0]
        good &= np.linalg.norm(out - points, axis=1) < reach
    return np.where(good[:, None], out, points)


def _gradient(function: Function, points: FloatArray, step: float) -> FloatArray:
    """Central differences ``(N, 3)``: a field's own gradient jumps at every cell of its grid."""
    shifts = step * np.concatenate([np.eye(3), -np.eye(3)])
    values = function((points + shifts[:, None]).reshape(-1, 3)).reshape(6, -1)
    return np.asarray((values[:3] - values[3:]).T / (2 * step), dtype=np.float64)
