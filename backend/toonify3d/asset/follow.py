"""The slider's other end: one mesh that has to lie on two surfaces, the style's and the person's.

Its triangles are made for the style. Where the person has a sharp hollow (under the chin, where
hair meets the neck) edges run across it and cut the corner. Three things help, in this order:
shorter edges there (:meth:`.remesh.Surface.refined` is told the distance to the person too), edges
turned to run along the hollow (:func:`aligned`), and vertices of the person's end placed so that
the surface runs through the triangles instead of through their corners (:func:`fit_person`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ..raycast import MeshQuery, interpolate
from ..scene import FloatArray, Normalization, SurfaceMesh
from .topology import Edges, apart, face_normals

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Places in a triangle at which its distance to a surface is looked at, barycentric: corners,
# middles and thirds of the sides, and the middle.
_SIDE = [(0, 0, 1), (0, 1, 1), (0, 1, 2), (0, 2, 1)]
_TURNS = [tuple(np.roll(place, turn) for turn in range(3)) for place in _SIDE]
SAMPLES = np.array([place for turns in _TURNS for place in turns] + [(1, 1, 1)], dtype=np.float64)
SAMPLES /= SAMPLES.sum(axis=1, keepdims=True)
# Positions of the slider at which triangles are looked at, both ends included.
POSITIONS = 11
# An edge is turned when that takes this share off its distance, and the distance is worth it: as a
# share of the surface's diagonal, and of the edge's length (or it is no more than a coarse mesh's
# chord).
GAIN, WORTH, BENT = 0.3, 5e-4, 0.06
# Cosine of the sharpest angle (about 18 degrees) and of the turn of a face that a flip may make.
SHARPEST, TURNED = 0.95, 0.3
FLIP_ROUNDS = 4
# Person's end: rounds, share of the diagonal from which a triangle takes part, and how dear it is
# to move a vertex (relative to a sample that is off by as much).
FIT_ROUNDS, WORTH_MOVING, DEAR = 5, 4e-4, 1.0
# Weight of samples that are not off at all (or they would become so) and of those far off.
LOW, HIGH = 0.5, 8.0
# Share of a Gauss-Newton step that is made, and rounds of taking back what turns a triangle over.
DAMPED, BACK_ROUNDS = 0.6, 8


@dataclass(frozen=True)
class Person:
    """The real person's surface and the way there, both in unit space.

    Attributes:
        mesh: The surface, unit space.
        query: Closest points of it.
        diagonal: Of its bounding box.
        way: Style's places ``(N, 3)`` to the person's.
    """

    mesh: SurfaceMesh
    query: MeshQuery
    diagonal: float
    way: Callable[[FloatArray], FloatArray]

    @classmethod
    def of(
        cls,
        mesh: SurfaceMesh,
        normalization: Normalization,
        way: Callable[[FloatArray], FloatArray],
    ) -> Person:
        """From the person's mesh in world metres."""
        unit = SurfaceMesh(normalization.to_unit(mesh.vertices), mesh.faces)
        diagonal = float(np.linalg.norm(np.ptp(unit.vertices, axis=0)))
        return cls(unit, MeshQuery(unit.vertices, unit.faces), diagonal, way)

    def closest(self, points: FloatArray) -> FloatArray:
        """The surface's places ``(N, 3)`` nearest to ``points (N, 3)``."""
        return interpolate(self.mesh.vertices, self.mesh.faces, self.query.closest(points))

    def away(self, vertices: FloatArray, faces: IntArray, labels: IntArray) -> FloatArray:
        """Distance ``(F,)`` of faces of a mesh in the style's place, 0 on its cut (label not 0)."""
        wall = labels == 0
        out = np.zeros(len(faces))
        out[wall] = surface_distance(self.query, self.way(vertices), faces[wall])
        return out


def sampled(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Places ``(F, S, 3)`` of every face, see :data:`SAMPLES`."""
    return np.asarray(np.einsum("sk,fkc->fsc", SAMPLES, vertices[faces]))


def surface_distance(query: MeshQuery, vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Largest distance ``(F,)`` of every face to a surface, looked at in :data:`SAMPLES`."""
    places = sampled(vertices, faces)
    distance = query.closest(places.reshape(-1, 3)).distance
    return np.asarray(distance.reshape(places.shape[:2]).max(axis=1))


def flipped_faces(
    start: FloatArray, end: FloatArray, faces: IntArray, positions: int = POSITIONS
) -> BoolArray:
    """Triangles ``(F,)`` that turn by more than a right angle on the straight way to ``end``."""
    first = face_normals(start, faces)
    flipped = np.zeros(len(faces), dtype=bool)
    for t in np.linspace(0.0, 1.0, positions)[1:]:
        normal = face_normals((1 - t) * start + t * end, faces)
        flipped |= np.einsum("ij,ij->i", first, normal) <= 0
    return flipped


# -- edges along the hollows --------------------------------------------------------------------


def aligned(
    faces: IntArray, labels: IntArray, ends: list[tuple[FloatArray, MeshQuery]], diagonal: float
) -> IntArray:
    """Faces with edges turned where those cut a corner of one of the surfaces.

    Args:
        faces: ``(F, 3)`` of a mesh in which every edge has at most two faces.
        labels: ``(F,)`` 0 for the surfaces' own faces; edges of others (the flat cut) stay.
        ends: Vertices ``(V, 3)`` on each surface, and the surface.
        diagonal: Of the surfaces.
    """
    faces = faces.copy()
    count = len(ends[0][0])
    for _ in range(FLIP_ROUNDS):
        edges = Edges.of(faces)
        a, b = edges.ends.T
        c, d = edges.opposite.T
        free = edges.inner & (labels[edges.sides] == 0).all(axis=1)
        free &= ~np.isin(np.minimum(c, d) * count + np.maximum(c, d), a * count + b)
        rows = np.flatnonzero(free)
        now = _edge_distance(ends, edges.ends[rows])
        step = ends[0][0][edges.ends[rows, 0]] - ends[0][0][edges.ends[rows, 1]]
        off = now > np.maximum(WORTH * diagonal, BENT * np.linalg.norm(step, axis=1))
        rows, now = rows[off], now[off]
        after = _edge_distance(ends, edges.opposite[rows])
        gain = now - after
        quads = np.stack([a, b, c, d], axis=1)[rows]
        good = (gain > GAIN * now) & _may_turn(ends, quads)
        rows, quads, gain = rows[good], quads[good], gain[good]
        taken = apart(np.arange(len(rows)), -gain, quads, count)
        if not len(taken):
            break
        turn(faces, edges.sides[rows[taken]], quads[taken])
    return faces


def turn(faces: IntArray, sides: IntArray, quads: IntArray) -> None:
    """Replace faces ``a b c`` and ``b a d`` by ``a d c`` and ``d b c`` in place, wound as before.

    ``sides (N, 2)`` are the faces on both sides of the edges ``a b`` of ``quads (N, 4)``.
    """
    a, b, c, d = quads.T
    first = faces[sides[:, 0]]
    # Does the first face run from a to b?
    ahead = ((first == a[:, None]) & (np.roll(first, -1, axis=1) == b[:, None])).any(axis=1)
    one = np.where(ahead[:, None], np.stack([a, d, c], 1), np.stack([a, c, d], 1))
    two = np.where(ahead[:, None], np.stack([d, b, c], 1), np.stack([d, c, b], 1))
    faces[sides[:, 0]], faces[sides[:, 1]] = one, two


def _edge_distance(ends: list[tuple[FloatArray, MeshQuery]], pairs: IntArray) -> FloatArray:
    """Largest distance ``(N,)`` of the middles of edges to their surface."""
    middles = [query.closest(places[pairs].mean(axis=1)).distance for places, query in ends]
    return np.asarray(np.max(middles, axis=0)) if len(pairs) else np.zeros(0)


def _may_turn(ends: list[tuple[FloatArray, MeshQuery]], quads: IntArray) -> BoolArray:
    """Quadrilaterals ``(N, 4)`` whose other diagonal makes no sliver and turns nothing over."""
    good = np.ones(len(quads), dtype=bool)
    for places, _ in ends:
        a, b, c, d = (places[quads[:, k]] for k in range(4))
        one, two = np.cross(b - a, c - a), np.cross(d - a, b - a)
        for new in ((a, d, c), (d, b, c)):
            normal = np.cross(new[1] - new[0], new[2] - new[0])
            for old in (one, two):
                lengths = np.linalg.norm(normal, axis=1) * np.linalg.norm(old, axis=1)
                good &= (normal * old).sum(axis=1) > TURNED * lengths
            good &= sharpest(*new) < SHARPEST
    return good


def sharpest(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Cosine ``(N,)`` of the smallest angle of triangles."""
    out = np.full(len(a), -1.0)
    for p, q, r in ((a, b, c), (b, c, a), (c, a, b)):
        u, v = q - p, r - p
        lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        out = np.maximum(out, (u * v).sum(axis=1) / np.maximum(lengths, 1e-30))
    return out


# -- the person's end ---------------------------------------------------------------------------


def fit_person(
    style: FloatArray,
    places: FloatArray,
    faces: IntArray,
    wall: BoolArray,
    person: Person,
) -> FloatArray:
    """Vertices of the person's end moved so that the triangles keep to the person's surface.

    Gauss-Newton on the distances of the samples, with weights that grow with the distance, so that
    the largest ones come down first. Only vertices near a triangle that is off take part; the
    others stay exactly where the field says.

    Args:
        style: ``(V, 3)`` unit space, the slider's first end.
        places: ``(V, 3)`` where the field puts them on the person.
        faces: ``(F, 3)``.
        wall: Faces ``(F,)`` that belong to the person's surface, not to the flat cut.
        person: Their surface.
    """
    least = WORTH_MOVING * person.diagonal
    rows = np.flatnonzero(wall)
    off = surface_distance(person.query, places, faces[rows]) > least
    if not off.any():
        return places
    free = np.unique(faces[rows[off]])
    mine = faces[rows[np.isin(faces[rows], free).any(axis=1)]]
    safe = moved = places.copy()
    best, lowest = places, np.inf
    for _ in range(FIT_ROUNDS + 1):
        safe = moved = _unflipped(style, safe, moved, faces)
        residual, direction = _residuals(person, moved, mine)
        if float(residual.max()) < lowest:
            best, lowest = moved.copy(), float(residual.max())
        moved = safe.copy()
        moved[free] += DAMPED * _step(residual, direction, mine, free, moved - places, least)
    return best


def _residuals(
    person: Person, places: FloatArray, faces: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Distances ``(F, S)`` of the samples, and directions ``(F, S, 3)`` in which they grow."""
    points = sampled(places, faces)
    flat = points.reshape(-1, 3)
    away = flat - person.closest(flat)
    distance = np.linalg.norm(away, axis=1)
    direction = away / np.maximum(distance, 1e-9)[:, None]
    return distance.reshape(points.shape[:2]), direction.reshape(points.shape)


def _step(
    residual: FloatArray,
    direction: FloatArray,
    faces: IntArray,
    free: IntArray,
    moved: FloatArray,
    least: float,
) -> FloatArray:
    """How the vertices ``free (N,)`` should move ``(N, 3)``."""
    index = np.full(len(moved), -1)
    index[free] = np.arange(len(free))
    heavy = np.clip(residual / least, LOW, HIGH)
    weight = SAMPLES[None] * heavy[..., None]
    columns = 3 * index[faces][:, None, :, None] + np.arange(3)
    values = weight[..., None] * direction[:, :, None, :]
    columns = np.broadcast_to(columns, values.shape)
    rows = np.broadcast_to(np.arange(residual.size).reshape(*residual.shape, 1, 1), values.shape)
    known = columns >= 0
    shape = (residual.size, 3 * len(free))
    matrix = sparse.csr_matrix((values[known], (rows[known], columns[known])), shape)
    right = -(residual * heavy).reshape(-1)
    normal = (matrix.T @ matrix + DEAR * sparse.identity(shape[1])).tocsc()
    pull = matrix.T @ right - DEAR * moved[free].reshape(-1)
    return np.asarray(spsolve(normal, pull)).reshape(-1, 3)


def _unflipped(
    style: FloatArray, safe: FloatArray, moved: FloatArray, faces: IntArray
) -> FloatArray:
    """``moved (V, 3)``, nearer to ``safe`` where a triangle would turn over on the way."""
    out = moved.copy()
    for number in range(BACK_ROUNDS):
        back = np.unique(faces[flipped_faces(style, out, faces)])
        if not len(back):
            return out
        share = 0.5 if number < BACK_ROUNDS // 2 else 0.0
        out[back] = share * out[back] + (1.0 - share) * safe[back]
    return safe
