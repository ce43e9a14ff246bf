"""A surface laid on the true one by its shape, whatever the cameras say.

Aligned by their centres, cameras that all look a little too high put the head too low. No picture
shows that, nobody who gets the head sees it, and on a ring round a head it is 1.5 mm (captures/lps)
where the shape itself is within 0.4 mm.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from ..raycast import MeshQuery
from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
ROUNDS = 12
# Distances above this share of the diagonal count less and less (Cauchy).
ROBUST = 1e-3


def fit_to_points(
    vertices: FloatArray, faces: IntArray, points: FloatArray, diagonal: float
) -> FloatArray:
    """The rigid ``(4, 4)`` motion that lays a mesh on points of the true surface.

    Robust point-to-plane iterations (Chen and Medioni 1992), from where the mesh is. The size stays
    as the cameras give it: fitted too, it would hide a surface that is swollen as a whole.

    Args:
        vertices: ``(V, 3)``, already near.
        faces: ``(F, 3)``.
        points: ``(P, 3)`` of the true surface.
        diagonal: Of the true mesh, the unit of :data:`ROBUST`.
    """
    total = np.eye(4)
    middle = points.mean(axis=0)
    for _ in range(ROUNDS):
        moved = vertices @ total[:3, :3].T + total[:3, 3]
        found = MeshQuery(moved, faces).closest(points)
        corner = moved[faces[found.face]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
        near = np.einsum("nk,nkc->nc", found.weights, corner)
        off = ((points - near) * normal).sum(axis=1)
        rows = np.concatenate([normal, np.cross(near - middle, normal)], axis=1)
        weighted = rows / (1.0 + np.square(off / (ROBUST * diagonal)))[:, None]
        step = np.linalg.lstsq(weighted.T @ rows, weighted.T @ off, rcond=None)[0]
        total = _about(middle, step) @ total
    return total


def _about(middle: FloatArray, step: FloatArray) -> FloatArray:
    """The motion of a shift and a rotation vector ``(6,)`` about a point."""
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(step[3:]).as_matrix()
    out[:3, 3] = middle + step[:3] - out[:3, :3] @ middle
    return out


def motion(rigid: FloatArray, middle: FloatArray) -> dict[str, float]:
    """How far ``middle (3,)`` moves, and the turn in degrees."""
    moved = rigid[:3, :3] @ middle + rigid[:3, 3] - middle
    turn = Rotation.from_matrix(rigid[:3, :3]).magnitude()
    return {"shift": float(np.linalg.norm(moved)), "turn_deg": float(np.degrees(turn))}
