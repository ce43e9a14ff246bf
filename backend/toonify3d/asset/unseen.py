"""What no frame shows: cut off flat where it is the bottom of the bust, coloured calmly elsewhere.

Nothing supervises the fields where no camera looks. Under a bust that is the whole bottom, which
comes out lumpy and with dark patches; the crown may have one too. Behind ears and in nostrils it is
small and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from ..meshes import edge_adjacency
from ..raycast import MeshQuery
from ..scene import Camera, FloatArray, Scene, SurfaceMesh
from .mesh import vertex_normals

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
CAMERAS = 32
# A point counts as seen from a camera when it looks at it by less than about 80 degrees.
LEAST_COSINE = 0.17
# Metres by which a point may lie behind the first hit.
SLACK = 0.004
# The bottom is an unseen piece of at least this share of the surface. Smaller pieces keep their
# colours below the second one: the crown of a head filmed at eye level has half a percent, nostrils
# and hollows of ears a hundredth.
LEAST_SHARE, LEAST_CALM = 0.01, 0.002
# The bottom is looked for in the lowest part of the head's height.
BOTTOM = 0.3
# Colours run from seen to calm over this many rings of triangles.
FADE_RINGS = 3


@dataclass(frozen=True)
class Calm:
    """Colours for what no frame shows.

    Attributes:
        weight: ``(V,)`` 0 for the field's own colour, 1 for :attr:`colors`.
        colors: ``(V, C)``, spread smoothly from what is seen.
        inner: ``(V,)`` what no frame shows.
    """

    weight: FloatArray
    colors: FloatArray
    inner: BoolArray


def watching_cameras(scene: Scene) -> list[Camera]:
    """Up to :data:`CAMERAS` of the capture's, evenly spread."""
    count = len(scene.frames)
    rows = sorted({round(i) for i in np.linspace(0, count - 1, min(count, CAMERAS))})
    return [scene.frames[row].camera for row in rows] if count else []


def seen_points(
    points: FloatArray, normals: FloatArray, surface: MeshQuery, cameras: Sequence[Camera]
) -> IntArray:
    """How many cameras see each point ``(N, 3)`` of ``surface``, world metres."""
    seen = np.zeros(len(points), dtype=np.int64)
    for camera in cameras:
        away = points - camera.center
        distance = np.linalg.norm(away, axis=1)
        away /= np.maximum(distance, 1e-12)[:, None]
        pixel, depth = camera.project(points)
        asked = (depth > 0) & (np.einsum("ij,ij->i", away, normals) < -LEAST_COSINE)
        asked &= (pixel >= 0).all(axis=1) & (pixel < [camera.width, camera.height]).all(axis=1)
        rows = np.flatnonzero(asked)
        origins = np.broadcast_to(camera.center, (len(rows), 3)).copy()
        hits = surface.cast(origins, away[rows])
        first = np.where(hits.face >= 0, hits.distance, np.inf)
        seen[rows] += distance[rows] < first + SLACK
    return seen


def flat_bottom(mesh: SurfaceMesh, cameras: Sequence[Camera]) -> float | None:
    """Height (world) at which the bust is cut flat because no camera sees what is below.

    The median height of the rim of the largest unseen piece that looks down at the bottom; None
    when there is no such piece.
    """
    if not cameras:
        return None
    normals = vertex_normals(mesh.vertices, mesh.faces)
    surface = MeshQuery(mesh.vertices, mesh.faces)
    seen = seen_points(mesh.vertices, normals, surface, cameras) > 0
    height = mesh.vertices[:, 2]
    low = height < height.min() + BOTTOM * np.ptp(height)
    unseen = _largest_piece(mesh.vertices, mesh.faces, ~seen & low)
    if unseen is None:
        return None
    inside = unseen[mesh.faces].all(axis=1)
    if _areas(mesh.vertices, mesh.faces)[inside] @ (_down(mesh, inside) - 0.3) <= 0:
        return None
    rim = mesh.faces[unseen[mesh.faces].any(axis=1) & ~inside]
    return float(np.median(height[np.unique(rim)])) if len(rim) else None


def calm_colors(
    vertices: FloatArray, faces: IntArray, seen: BoolArray, colors: FloatArray
) -> Calm | None:
    """Spread the colours of what is seen over large unseen pieces (a harmonic function on them).

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        seen: ``(V,)``.
        colors: ``(V, C)`` of the field.
    """
    total = float(_areas(vertices, faces).sum())
    inner = _unseen_pieces(vertices, faces, ~seen, LEAST_CALM * total)
    if not inner.any() or inner.all():
        return None
    out = spread(faces, inner, colors)
    matrix = edge_adjacency(faces, len(vertices))
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    weight = inner.astype(np.float64)
    for _ in range(FADE_RINGS):
        weight = np.where(
            inner, 1.0, 0.5 * weight + 0.5 * (matrix @ weight) / np.maximum(degree, 1)
        )
    return Calm(weight, out, inner)


def spread(faces: IntArray, inner: BoolArray, values: FloatArray) -> FloatArray:
    """``values (V, C)`` with those of the ``inner`` vertices harmonic: as smooth as can be."""
    matrix = edge_adjacency(faces, len(inner))
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    laplacian = (sparse.diags(degree) - matrix).tocsr()
    out = np.asarray(values, np.float64).copy()
    right = -laplacian[inner][:, ~inner] @ out[~inner]
    out[inner] = spsolve(laplacian[inner][:, inner].tocsc(), right).reshape(-1, out.shape[1])
    return out


def _unseen_pieces(
    vertices: FloatArray, faces: IntArray, unseen: BoolArray, least: float
) -> BoolArray:
    """Vertices of unseen pieces of at least that area."""
    label, area = _pieces(vertices, faces, unseen)
    return unseen & (area[label] >= least)


def _largest_piece(vertices: FloatArray, faces: IntArray, chosen: BoolArray) -> BoolArray | None:
    if not chosen.any():
        return None
    label, area = _pieces(vertices, faces, chosen)
    piece: BoolArray = chosen & (label == np.argmax(area))
    return piece if area.max() >= LEAST_SHARE * _areas(vertices, faces).sum() else None


def _pieces(
    vertices: FloatArray, faces: IntArray, chosen: BoolArray
) -> tuple[IntArray, FloatArray]:
    """Piece ``(V,)`` of every vertex among the chosen ones, and the area of every piece."""
    matrix = edge_adjacency(faces, len(vertices))
    keep = sparse.diags(chosen.astype(np.float64))
    count, label = connected_components(keep @ matrix @ keep, directed=False)
    whole = chosen[faces].all(axis=1)
    areas = _areas(vertices, faces)[whole]
    area = np.bincount(label[faces[whole, 0]], weights=areas, minlength=count)
    return np.asarray(label, dtype=np.int64), np.asarray(area)


def _areas(vertices: FloatArray, faces: IntArray) -> FloatArray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.asarray(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1))


def _down(mesh: SurfaceMesh, rows: BoolArray) -> FloatArray:
    """How far the chosen faces look down, -1 to 1."""
    a, b, c = (mesh.vertices[mesh.faces[rows, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    return np.asarray(-cross[:, 2] / np.maximum(np.linalg.norm(cross, axis=1), 1e-30))
