"""Even triangles: a decimated mesh remeshed to a length that fits the surface everywhere.

Split long edges, collapse short ones, flip for the better angle, slide vertices along the surface
and put them back onto it (Botsch & Kobbelt 2004), towards an edge length that follows curvature
(Dunyach et al. 2013) and the part of the head. Quadric decimation alone leaves slivers and
triangles of any size side by side, which neither subdivide nor deform well. The rim of a cut
stays an edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..meshes import edge_adjacency
from ..progress import Progress
from ..raycast import MeshQuery, interpolate
from ..scene import FloatArray
from .follow import Person, aligned, sharpest, turn
from .mesh import check_mesh, vertex_normals
from .topology import Edges, apart, apart_on_mesh, face_normals, split_edges

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ROUNDS = 6
# Edges longer and shorter than this, relative to the length wanted, are split and collapsed.
LONGEST, SHORTEST = 4.0 / 3.0, 0.8
# Least and greatest length relative to that of the median curvature.
FINEST, COARSEST = 0.35, 1.4
# Rounds of smoothing of the normals that curvature is taken from, and of the length itself.
CALM_NORMALS, CALM_LENGTH = 3, 8
# A collapse or flip must not turn a face by more than about 70 degrees, nor leave one so thin.
TURNED, THIN = 0.35, 0.05
# Cosine between the faces of an edge that may be flipped.
FLAT = 0.7
# Faces by which the count may miss its target before the last collapses.
TRIM_ROUNDS = 12
# Rounds before which lengths are corrected by the error, errors relative to the mean that ask for
# it, and by how much at most.
REFINED, OFF, FINER = (2, 3, 4), 3.0, 0.6
# Rounds of lifting vertices at the end.
FIT_ROUNDS = 4
# Most of it in one round, relative to the edges: in a sharp hollow no lift makes faces fit.
MOST_LIFT = 0.01


@dataclass(frozen=True)
class Surface:
    """What is remeshed onto.

    Attributes:
        vertices: ``(V, 3)`` of the full-resolution surface.
        faces: ``(F, 3)``.
        normals: ``(V, 3)``.
        length: ``(V,)`` edge length wanted, up to a common factor.
        query: Closest points.
    """

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray
    length: FloatArray
    query: MeshQuery

    @classmethod
    def of(cls, vertices: FloatArray, faces: IntArray, share: FloatArray) -> Surface:
        """A surface with lengths from its curvature.

        Args:
            vertices: ``(V, 3)``.
            faces: ``(F, 3)``.
            share: ``(V,)`` factor on the length: 0.5 for edges half as long.
        """
        normals = vertex_normals(vertices, faces)
        length = wanted_length(vertices, faces, normals, share)
        return cls(vertices, faces, normals, length, MeshQuery(vertices, faces))

    def nearest(self, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Closest points ``(N, 3)``, normals there and lengths ``(N,)``."""
        hits = self.query.closest(points)
        values = np.concatenate([self.vertices, self.normals, self.length[:, None]], axis=1)
        found = interpolate(values, self.faces, hits)
        return found[:, :3], found[:, 3:6], found[:, 6]

    def refined(self, points: FloatArray, away: FloatArray) -> Surface:
        """Shorter lengths where places ``(N, 3)`` of the mesh are far off, by ``away (N,)``."""
        factor = np.sqrt(OFF * away.mean() / np.maximum(away, 1e-12))
        _, nearest = cKDTree(points).query(self.vertices)
        return replace(self, length=self.length * np.clip(factor, FINER, 1.0)[nearest])

    def scale_for(self, target: int) -> float:
        """Factor on the length that gives about ``target`` faces."""
        area = 0.5 * np.linalg.norm(face_normals(self.vertices, self.faces), axis=1)
        one = np.sqrt(3.0) / 4.0 * self.length[self.faces].mean(axis=1) ** 2
        return float(np.sqrt((area / one).sum() / target))


def wanted_length(
    vertices: FloatArray, faces: IntArray, normals: FloatArray, share: FloatArray
) -> FloatArray:
    """Relative edge length ``(V,)``: one over the root of the curvature, within limits."""
    matrix = edge_adjacency(faces, len(vertices))
    degree = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    for _ in range(CALM_NORMALS):
        normals = normals + (matrix @ normals) / degree[:, None]
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    pairs = matrix.tocoo()
    a, b = pairs.row, pairs.col
    turn = np.linalg.norm(normals[a] - normals[b], axis=1)
    step = np.linalg.norm(vertices[a] - vertices[b], axis=1)
    bend = np.bincount(a, turn, len(vertices)) / np.maximum(np.bincount(a, step), 1e-12)
    usual = max(float(np.median(bend)), 1e-9)
    length = np.sqrt(usual / np.maximum(bend, 0.1 * usual))
    length = np.clip(length, FINEST, COARSEST) * share
    for _ in range(CALM_LENGTH):
        length = 0.5 * length + 0.5 * (matrix @ length) / degree
    return np.asarray(length)


def remesh(
    vertices: FloatArray,
    faces: IntArray,
    labels: IntArray,
    surface: Surface,
    target: int,
    to_rim: Callable[[FloatArray], FloatArray],
    progress: Progress,
    person: Person | None = None,
) -> tuple[FloatArray, IntArray]:
    """Even out a closed manifold mesh; as it is (with a note) when that would break it.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        labels: ``(F,)`` parts between which the rim runs.
        surface: What the mesh approximates.
        target: Faces wanted; at most that many are made, or the next even number.
        to_rim: Puts points ``(N, 3)`` onto the rim.
        progress: Told how far it is.
        person: Another surface that the same triangles have to follow.
    """
    mesh = _Mesh(vertices, faces, labels, surface, to_rim, person)
    scale = surface.scale_for(target)
    for number in range(ROUNDS):
        progress.update(number / ROUNDS, "evening out the triangles")
        if number in REFINED:
            mesh.refine()
        mesh.measure(scale)
        mesh.split()
        mesh.collapse(SHORTEST)
        mesh.flip()
        mesh.slide()
        # Thin parts and limits take more than the area says: steer to the count.
        scale *= float(np.clip(np.sqrt(len(mesh.faces) / (1.01 * target)), 0.9, 1.1))
    mesh.grow(target)
    mesh.trim(target)
    mesh.flip()
    mesh.slide()
    mesh.align()
    mesh.fit()
    check = check_mesh(mesh.vertices, mesh.faces)
    before = check_mesh(vertices, faces)
    if not check.manifold or (check.euler, check.components) != (before.euler, before.components):
        progress.warn("The triangles could not be evened out without tearing the mesh.")
        return vertices, faces
    return mesh.vertices, mesh.faces


class _Mesh:
    """The mesh while it is changed."""

    def __init__(
        self,
        vertices: FloatArray,
        faces: IntArray,
        labels: IntArray,
        surface: Surface,
        to_rim: Callable[[FloatArray], FloatArray],
        person: Person | None,
    ) -> None:
        self.vertices, self.faces, self.labels = vertices.copy(), faces, labels
        self.surface, self.to_rim, self.person = surface, to_rim, person
        self.normals = self.length = np.zeros(0)
        self.scale = 1.0

    def measure(self, scale: float) -> None:
        """Take normals and wanted lengths from the surface."""
        self.scale = scale
        _, self.normals, length = self.surface.nearest(self.vertices)
        self.length = scale * length

    def refine(self) -> None:
        """Ask for shorter edges where the faces do not follow the surface, or the person's."""
        points = self.vertices[self.faces].mean(axis=1)
        away = self.surface.query.closest(points).distance
        if self.person is not None:
            away = np.maximum(away, self.person.away(self.vertices, self.faces, self.labels))
        self.surface = self.surface.refined(points, away)

    def align(self) -> None:
        """Turn edges that cut the corner of a hollow or ridge."""
        ends = [(self.vertices, self.surface.query)]
        if self.person is not None:
            ends.append((self.person.way(self.vertices), self.person.query))
        diagonal = float(np.linalg.norm(np.ptp(self.surface.vertices, axis=0)))
        self.faces = aligned(self.faces, self.labels, ends, diagonal)

    def split(self) -> None:
        """Put a vertex into every edge that is too long."""
        edges = Edges.of(self.faces)
        self._split(edges, self._relative(edges) > LONGEST)

    def grow(self, target: int) -> None:
        """Split the relatively longest edges until there are ``target`` faces, or one fewer."""
        missing = (target - len(self.faces)) // 2
        if missing <= 0:
            return
        edges = Edges.of(self.faces)
        ratio = np.where(edges.inner & ~self._rim(edges), self._relative(edges), 0.0)
        chosen = np.zeros(len(ratio), dtype=bool)
        chosen[np.argsort(-ratio, kind="stable")[:missing]] = True
        self._split(edges, chosen)

    def _split(self, edges: Edges, chosen: BoolArray) -> None:
        middle = self.vertices[edges.ends[chosen]].mean(axis=1)
        rim = self._rim(edges)[chosen]
        middle[rim] = self.to_rim(middle[rim])
        middle[~rim] = self._onto_surface(middle[~rim])
        self.faces, owner = split_edges(self.faces, edges, chosen, len(self.vertices))
        self.labels = self.labels[owner]
        self.vertices = np.concatenate([self.vertices, middle])
        self.measure(self.scale)

    def collapse(self, shortest: float, most: int | None = None) -> None:
        """Take away edges that are too short, at most ``most`` of them."""
        for _ in range(8):
            edges = Edges.of(self.faces)
            ratio = self._relative(edges)
            rows = np.flatnonzero((ratio < shortest) & self._linked(edges))
            rows = rows[self._keeps_rim(edges, rows)]
            rows = apart_on_mesh(rows, ratio[rows], edges, len(self.vertices))
            if most is not None:
                rows = rows[np.argsort(ratio[rows], kind="stable")][: 4 * most]
            places = self._collapsed_places(edges, rows)
            fine = np.flatnonzero(self._harmless(edges.ends[rows], places))[:most]
            if not len(fine):
                return
            self._merge(edges.ends[rows[fine]], places[fine])
            most = None if most is None else most - len(fine)
            if most == 0:
                return

    def flip(self) -> None:
        """Turn edges in their quadrilateral where that makes the smallest angle larger."""
        for _ in range(6):
            edges = Edges.of(self.faces)
            a, b = edges.ends.T
            c, d = edges.opposite.T
            known = a * len(self.vertices) + b
            wanted = np.minimum(c, d) * len(self.vertices) + np.maximum(c, d)
            free = edges.inner & (self.labels[edges.sides[:, 0]] == self.labels[edges.sides[:, 1]])
            rows = np.flatnonzero(free & ~np.isin(wanted, known))
            quads = np.stack([a, b, c, d], axis=1)[rows]
            gain = self._flip_gain(quads)
            better = gain > 0.02
            rows, quads, gain = rows[better], quads[better], gain[better]
            taken = apart(np.arange(len(rows)), -gain, quads, len(self.vertices))
            if not len(taken):
                return
            self._turn(edges.sides[rows[taken]], quads[taken])

    def slide(self) -> None:
        """Move vertices towards the middle of their neighbours, along the surface."""
        edges = Edges.of(self.faces)
        held = np.zeros(len(self.vertices), dtype=bool)
        held[edges.ends[self._rim(edges) | ~edges.inner]] = True
        for _ in range(2):
            # Faces pull with their area relative to the one wanted, so that lengths even out.
            normal = face_normals(self.vertices, self.faces)
            pull = np.linalg.norm(normal, axis=1) / self.length[self.faces].mean(axis=1) ** 2
            center = self.vertices[self.faces].mean(axis=1) * pull[:, None]
            corner, count = self.faces.reshape(-1), len(self.vertices)
            total = np.bincount(corner, np.repeat(pull, 3), count)
            mean = (
                np.stack(
                    [np.bincount(corner, np.repeat(center[:, k], 3), count) for k in range(3)],
                    axis=1,
                )
                / np.maximum(total, 1e-30)[:, None]
            )
            step = mean - self.vertices
            step -= (step * self.normals).sum(axis=1, keepdims=True) * self.normals
            step[held] = 0.0
            self._move(self.vertices + 0.7 * step, ~held)

    def fit(self) -> None:
        """Lift vertices so that the surface runs through the faces, not through their corners."""
        edges = Edges.of(self.faces)
        held = np.zeros(len(self.vertices), dtype=bool)
        held[edges.ends[self._rim(edges) | ~edges.inner]] = True
        count = len(self.vertices)
        owners = np.concatenate(
            [np.arange(count), edges.ends.T.reshape(-1), self.faces.T.reshape(-1)]
        )
        ends, corners = len(edges.ends), len(self.faces)
        sample = np.concatenate(
            [
                np.arange(count),
                np.tile(count + np.arange(ends), 2),
                np.tile(count + ends + np.arange(corners), 3),
            ]
        )
        times = np.bincount(owners, minlength=count)
        for _ in range(FIT_ROUNDS):
            places = [self.vertices, self.vertices[edges.ends].mean(axis=1)]
            points = np.concatenate([*places, self.vertices[self.faces].mean(axis=1)])
            found, normal, _ = self.surface.nearest(points)
            lift = ((found - points) * normal).sum(axis=1)
            lift = np.bincount(owners, lift[sample], count) / times
            lift = np.clip(lift, -MOST_LIFT * self.length, MOST_LIFT * self.length)
            moved = self.vertices + np.where(held, 0.0, lift)[:, None] * self.normals
            self.vertices = self._unturned(moved)

    def trim(self, target: int) -> None:
        """Collapse the relatively shortest edges until no more than ``target`` faces are left."""
        for _ in range(TRIM_ROUNDS):
            spare = (len(self.faces) - target + 1) // 2
            if spare <= 0:
                return
            self.collapse(np.inf, most=spare)

    # -- helpers ------------------------------------------------------------------------------

    def _relative(self, edges: Edges) -> FloatArray:
        step = self.vertices[edges.ends[:, 0]] - self.vertices[edges.ends[:, 1]]
        return np.asarray(np.linalg.norm(step, axis=1) / self.length[edges.ends].mean(axis=1))

    def _rim(self, edges: Edges) -> BoolArray:
        first, second = edges.sides.T
        return np.asarray((second >= 0) & (self.labels[first] != self.labels[second]))

    def _linked(self, edges: Edges) -> BoolArray:
        """Edges whose ends have no other common neighbours than the two third corners."""
        matrix = edge_adjacency(self.faces, len(self.vertices))
        common = matrix.multiply(matrix @ matrix).tocsr()
        shared = np.asarray(common[edges.ends[:, 0], edges.ends[:, 1]]).ravel()
        return np.asarray(shared == 2)

    def _on_rim(self, edges: Edges, rows: IntArray) -> BoolArray:
        """Which ends of the edges ``rows`` lie on the rim or a border, ``(N, 2)``."""
        on_rim = np.zeros(len(self.vertices), dtype=bool)
        on_rim[edges.ends[self._rim(edges) | ~edges.inner]] = True
        return np.asarray(on_rim[edges.ends[rows]])

    def _keeps_rim(self, edges: Edges, rows: IntArray) -> BoolArray:
        """Edges that do not run from one place of the rim across a part to another."""
        return np.asarray(~self._on_rim(edges, rows).all(axis=1) | self._rim(edges)[rows])

    def _collapsed_places(self, edges: Edges, rows: IntArray) -> FloatArray:
        """Where the vertex goes that stays of each edge ``rows``: rims draw others to them."""
        held = self._on_rim(edges, rows)
        ends = self.vertices[edges.ends[rows]]
        place = ends.mean(axis=1)
        one = held.sum(axis=1) == 1
        place[one] = ends[one, held[one].argmax(axis=1)]
        free, both = ~held.any(axis=1), held.all(axis=1)
        place[free] = self._onto_surface(place[free])
        place[both] = self.to_rim(place[both])
        return np.asarray(place)

    def _harmless(self, ends: IntArray, places: FloatArray) -> BoolArray:
        """Collapses ``(N,)`` that turn no face over and leave no edge too long."""
        owner = np.full(len(self.vertices), -1)
        owner[ends[:, 0]] = owner[ends[:, 1]] = np.arange(len(ends))
        touched = np.flatnonzero((owner[self.faces] >= 0).any(axis=1))
        own = owner[self.faces[touched]]
        gone = (own >= 0).sum(axis=1) == 2
        touched, own = touched[~gone], own[~gone]
        moved = self.vertices.copy()
        moved[ends[:, 0]] = moved[ends[:, 1]] = places
        before = face_normals(self.vertices, self.faces[touched])
        after = face_normals(moved, self.faces[touched])
        # What is thin already says nothing with its normal, and may well become rounder.
        old = _roundness(self.vertices, self.faces[touched], before)
        new = _roundness(moved, self.faces[touched], after)
        bad = (_turned(before, after) & (old > THIN)) | (new < np.minimum(old, THIN))
        corners = moved[self.faces[touched]]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
        bad |= longest > 1.5 * LONGEST * self.length[self.faces[touched]].mean(axis=1)
        fine = np.ones(len(ends), dtype=bool)
        fine[own.max(axis=1)[bad]] = False
        return np.asarray(fine)

    def _merge(self, ends: IntArray, places: FloatArray) -> None:
        self.vertices[ends[:, 0]] = places
        target = np.arange(len(self.vertices))
        target[ends[:, 1]] = ends[:, 0]
        faces = target[self.faces]
        a, b, c = faces.T
        whole = (a != b) & (b != c) & (c != a)
        used, inverse = np.unique(faces[whole], return_inverse=True)
        self.faces, self.labels = inverse.reshape(-1, 3).astype(np.int64), self.labels[whole]
        self.vertices = self.vertices[used]
        self.normals, self.length = self.normals[used], self.length[used]

    def _flip_gain(self, quads: IntArray) -> FloatArray:
        """By how much the smallest angle of both faces grows (as a cosine); less when not allowed.

        ``quads (N, 4)``: the ends of the edge, then the two corners it would join.
        """
        a, b, c, d = (self.vertices[quads[:, k]] for k in range(4))
        old = np.maximum(sharpest(a, b, c), sharpest(a, b, d))
        gain = old - np.maximum(sharpest(a, d, c), sharpest(d, b, c))
        one, two = np.cross(b - a, c - a), np.cross(d - a, b - a)
        for new in (np.cross(d - a, c - a), np.cross(b - d, c - d)):
            gain[_turned(one + two, new)] = -1.0
        # Flat quadrilaterals only: a ridge must not become a notch.
        gain[_turned(one, two, FLAT)] = -1.0
        return np.asarray(gain)

    def _turn(self, sides: IntArray, quads: IntArray) -> None:
        """Replace faces ``a b c`` and ``b a d`` by ``a d c`` and ``d b c``, wound as they were."""
        self.faces = self.faces.copy()
        turn(self.faces, sides, quads)

    def _move(self, places: FloatArray, free: BoolArray) -> None:
        """Put the ``free`` vertices onto the surface near ``places``, unless a face turns over."""
        moved = self.vertices.copy()
        found, normal, length = self.surface.nearest(places[free])
        same = (normal * self.normals[free]).sum(axis=1) > 0.3
        rows = np.flatnonzero(free)[same]
        moved[rows] = found[same]
        self.vertices = self._unturned(moved)
        self.normals[rows], self.length[rows] = normal[same], self.scale * length[same]

    def _unturned(self, moved: FloatArray) -> FloatArray:
        """``moved (V, 3)`` without what turns a face over."""
        before = face_normals(self.vertices, self.faces)
        for _ in range(3):
            bad = _turned(before, face_normals(moved, self.faces))
            keep = np.unique(self.faces[bad])
            moved[keep] = self.vertices[keep]
        return moved

    def _onto_surface(self, points: FloatArray) -> FloatArray:
        return self.surface.nearest(points)[0] if len(points) else points


def _turned(before: FloatArray, after: FloatArray, least: float = TURNED) -> BoolArray:
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.asarray((before * after).sum(axis=1) < least * lengths)


def _roundness(vertices: FloatArray, faces: IntArray, normals: FloatArray) -> FloatArray:
    """1 for equilateral triangles, 0 for degenerate ones ``(F,)``."""
    corners = vertices[faces]
    squared = ((corners - np.roll(corners, 1, axis=1)) ** 2).sum(axis=(1, 2))
    return np.asarray(
        2 * np.sqrt(3.0) * np.linalg.norm(normals, axis=1) / np.maximum(squared, 1e-30)
    )
