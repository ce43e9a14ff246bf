"""Both faces in one mesh: every stylized vertex knows its place on the real person."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..raycast import MeshQuery
from ..scene import FloatArray, SurfaceMesh

IntArray = npt.NDArray[np.int64]
# The name of the morph target (GLB) and of the shape key (Blender): 0 is the style, 1 the person.
PHOTOREAL = "Photoreal"
# Positions of the slider at which triangles are looked at, both ends included.
POSITIONS = 11


def morph_figures(
    style: FloatArray, person: FloatArray, faces: IntArray, prior: SurfaceMesh
) -> dict[str, Any]:
    """How good the slider is: the person's end against the prior's surface, and its way there.

    Args:
        style: ``(V, 3)`` world metres, slider at 0.
        person: ``(V, 3)``, slider at 1.
        faces: ``(F, 3)``.
        prior: The real person's surface.

    Returns:
        ``surface_median, surface_p95, surface_max``: distance of vertices and face centres to the
        prior's surface in percent of the diagonal of its bounding box; ``flipped_faces`` on the
        way, looked at in ``positions`` places; ``travel_max`` in percent.
    """
    diagonal = float(np.linalg.norm(np.ptp(prior.vertices, axis=0)))
    points = np.concatenate([person, person[faces].mean(axis=1)])
    distance = 100.0 * MeshQuery(prior.vertices, prior.faces).closest(points).distance / diagonal
    return {
        "surface_median": float(np.median(distance)),
        "surface_p95": float(np.percentile(distance, 95)),
        "surface_max": float(distance.max()),
        "flipped_faces": int(flipped_faces(style, person, faces).sum()),
        "positions": POSITIONS,
        "travel_max": 100.0 * float(np.linalg.norm(person - style, axis=1).max()) / diagonal,
    }


def flipped_faces(
    start: FloatArray, end: FloatArray, faces: IntArray, positions: int = POSITIONS
) -> npt.NDArray[np.bool_]:
    """Triangles ``(F,)`` that turn by more than a right angle on the straight way to ``end``."""
    first = _areas(start, faces)
    flipped = np.zeros(len(faces), dtype=bool)
    for t in np.linspace(0.0, 1.0, positions)[1:]:
        normal = _areas((1 - t) * start + t * end, faces)
        flipped |= np.einsum("ij,ij->i", first, normal) <= 0
    return flipped


def _areas(vertices: FloatArray, faces: IntArray) -> FloatArray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.asarray(np.cross(b - a, c - a))
