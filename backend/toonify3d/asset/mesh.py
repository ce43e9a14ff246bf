"""From a raw level set to one closed manifold mesh with a chosen number of triangles."""

from __future__ import annotations

from dataclasses import dataclass

import fast_simplification
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..errors import TrainingError
from ..progress import Progress
from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
REPAIR_ROUNDS = 8


@dataclass(frozen=True)
class MeshCheck:
    """What is true of a mesh.

    Attributes:
        watertight: Every edge has exactly two triangles that run through it in opposite ways.
        manifold: Watertight, and round every vertex the triangles form a single fan.
        components: Pieces connected through edges.
        euler: Vertices - edges + faces; 2 for one closed piece without handles.
        open_edges: Edges with one triangle.
        crowded_edges: Edges with more than two triangles.
    """

    watertight: bool
    manifold: bool
    components: int
    euler: int
    open_edges: int
    crowded_edges: int


def check_mesh(vertices: FloatArray, faces: IntArray) -> MeshCheck:
    """Examine ``vertices (V, 3)`` and ``faces (F, 3)``; geometry plays no part."""
    edges, _, forward = _half_edges(faces)
    _, inverse, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    balance = np.bincount(inverse.reshape(-1), weights=np.where(forward, 1.0, -1.0))
    paired = bool((counts == 2).all()) and bool((balance == 0).all()) and len(faces) > 0
    used = np.unique(faces)
    single = len(fans(faces)[1]) == len(used)
    return MeshCheck(
        watertight=paired,
        manifold=paired and single,
        components=int(face_components(faces)[0]),
        euler=len(used) - len(counts) + len(faces),
        open_edges=int((counts == 1).sum()),
        crowded_edges=int((counts > 2).sum()),
    )


def face_components(faces: IntArray) -> tuple[int, IntArray]:
    """Number of pieces connected through edges, and the piece ``(F,)`` of each face."""
    a, b = adjacent_faces(faces)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(faces), len(faces)))
    count, label = connected_components(graph, directed=False)
    return int(count), label.astype(np.int64)


def signed_volume(vertices: FloatArray, faces: IntArray) -> npt.NDArray[np.float64]:
    """Six times the signed volume ``(F,)`` between each face and the origin."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.asarray(np.einsum("ij,ij->i", a, np.cross(b, c)))


def largest_component(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray, int]:
    """Keep the piece that encloses the most; its faces turn outward.

    Inner surfaces and floaters are pieces of their own, so they go with the rest.

    Returns:
        Vertices, faces, and how many pieces were dropped.

    Raises:
        TrainingError: There is no face at all.
    """
    if not len(faces):
        raise TrainingError("The trained shape is empty, so no mesh can be made: train it again.")
    count, label = face_components(faces)
    volume = np.bincount(label, weights=signed_volume(vertices, faces), minlength=count)
    best = int(np.argmax(np.abs(volume)))
    kept = faces[label == best]
    if volume[best] < 0:
        kept = kept[:, ::-1]
    vertices, kept = compact(vertices, kept)
    return vertices, kept, count - 1


def open_bottom(
    vertices: FloatArray, faces: IntArray, height: float, tolerance: float
) -> IntArray | None:
    """The faces without the flat cap at the bottom; None when there is no cap to take away.

    Args:
        vertices: ``(V, 3)``, Z up.
        faces: ``(F, 3)`` of a closed mesh.
        height: Of the cut.
        tolerance: By how much the cap's vertices may be off it.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    down = -cross[:, 2] > 0.7 * np.linalg.norm(cross, axis=1)
    flat = (np.abs(vertices[faces][..., 2] - height) < tolerance).all(axis=1)
    cap = down & flat
    if not cap.any():
        return None
    first, second = adjacent_faces(faces)
    both = cap[first] & cap[second]
    count = len(faces)
    graph = coo_matrix((np.ones(int(both.sum())), (first[both], second[both])), (count, count))
    _, label = connected_components(graph, directed=False)
    cap &= label == np.argmax(np.bincount(label, cap))
    return np.asarray(faces[~cap])


def compact(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Drop the vertices that no face uses."""
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3).astype(np.int64)


def vertex_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Unit normals ``(V, 3)``, weighted by the angle of each corner (Thürmer & Wüthrich 1998)."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    out = np.zeros_like(vertices, dtype=np.float64)
    angles = corner_angles(corners)
    for axis in range(3):
        weights = (angles * normal[:, axis : axis + 1]).reshape(-1)
        out[:, axis] = np.bincount(faces.reshape(-1), weights=weights, minlength=len(vertices))
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 1e-12, out / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])


def corner_angles(corners: FloatArray) -> FloatArray:
    """Angles ``(F, 3)`` in radians at the corners of triangles ``(F, 3, 3)``."""
    out = np.zeros(corners.shape[:2])
    for k in range(3):
        u = corners[:, (k + 1) % 3] - corners[:, k]
        v = corners[:, (k + 2) % 3] - corners[:, k]
        cross = np.linalg.norm(np.cross(u, v), axis=1)
        out[:, k] = np.arctan2(cross, np.einsum("ij,ij->i", u, v))
    return out


def repair(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Make a nearly manifold closed mesh manifold and closed.

    Triangles at crowded edges are cut out, vertices where fans merely touch are split, the holes
    are closed by fans round their centres, and only the largest piece is kept. The caller checks
    the result: a mesh that is open by nature, or tangled, may stay so.
    """
    for _ in range(REPAIR_ROUNDS):
        faces = _without_degenerate(faces)
        faces = faces[~_at_crowded_edges(faces)]
        if not len(faces):
            break
        vertices, faces = split_fans(vertices, faces)
        vertices, faces = _fill_holes(vertices, faces)
        vertices, faces, _ = largest_component(vertices, faces)
        if check_mesh(vertices, faces).manifold:
            break
    return vertices, faces


def decimate(
    vertices: FloatArray,
    faces: IntArray,
    target: int,
    progress: Progress,
    focus: tuple[FloatArray, float, float] | None = None,
) -> tuple[FloatArray, IntArray]:
    """Quadric decimation to about ``target`` faces that stays one closed manifold piece.

    Garland & Heckbert 1997 by fast-simplification, which may fold a mesh onto itself; the result
    is repaired, tried again more carefully, and given up (with a note) when nothing helps.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)`` of a closed manifold mesh.
        target: Faces wanted; 0 keeps all.
        progress: Gets a note when decimation had to be given up.
        focus: Centre ``(3,)``, radius and magnification of a ball that deserves more faces.
    """
    if target <= 0 or len(faces) <= target:
        return vertices, faces
    lens = None if focus is None else Lens(*focus)
    source = vertices if lens is None else lens.magnify(vertices)
    for aggression in (5.0, 3.0, 1.5):
        points, triangles = fast_simplification.simplify(
            source.astype(np.float32),
            faces.astype(np.int32),
            target_count=target,
            agg=aggression,
        )
        points = points.astype(np.float64)
        points = points if lens is None else lens.shrink(points)
        points, triangles = compact(points, triangles.astype(np.int64))
        if not check_mesh(points, triangles).manifold:
            points, triangles = repair(points, triangles)
        check = check_mesh(points, triangles)
        if check.manifold and check.components == 1 and len(triangles) > 0.7 * target:
            return points, triangles
    progress.warn(
        f"The mesh could not be decimated to {target} triangles without tearing it; "
        f"all {len(faces)} triangles were kept."
    )
    return vertices, faces


class Lens:
    """A smooth, invertible magnification of space round a centre.

    Decimation errors are measured in magnified space, so the ball keeps more triangles. With
    ``r`` the distance to the centre in radii, ``r -> r (1 + (m - 1) / (1 + r^4)^(1/2))``:
    ``m`` in the middle, fading to 1 outside, monotonous for ``m <= 3``.

    Args:
        center: ``(3,)``.
        radius: Where the magnification has mostly faded.
        magnification: ``m``, from 1 to 3.
    """

    def __init__(self, center: FloatArray, radius: float, magnification: float) -> None:
        self.center, self.radius, self.magnification = center, radius, magnification
        self._table = np.linspace(0.0, 400.0, 400_001) ** 2 / 400.0
        self._image = self._table * self._factor(self._table)

    def magnify(self, points: FloatArray) -> FloatArray:
        """Points ``(N, 3)`` to magnified space."""
        offset = (points - self.center) / self.radius
        r = np.linalg.norm(offset, axis=1, keepdims=True)
        return np.asarray(self.center + offset * self._factor(r) * self.radius)

    def shrink(self, points: FloatArray) -> FloatArray:
        """The inverse of :meth:`magnify`."""
        offset = (points - self.center) / self.radius
        image = np.linalg.norm(offset, axis=1, keepdims=True)
        r = np.interp(image, self._image, self._table)
        return np.asarray(self.center + offset * (r / np.maximum(image, 1e-12)) * self.radius)

    def _factor(self, r: FloatArray) -> FloatArray:
        return np.asarray(1.0 + (self.magnification - 1.0) / np.sqrt(1.0 + r**4))


def _half_edges(
    faces: IntArray,
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    face_of = np.repeat(np.arange(len(faces)), 3)
    return np.sort(directed, axis=1), face_of, directed[:, 0] < directed[:, 1]


def _sorted_edges(faces: IntArray) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """Half-edge order that brings twins together, edge keys in that order, and which repeat."""
    edges, _, _ = _half_edges(faces)
    key = edges[:, 0] * (int(faces.max(initial=0)) + 1) + edges[:, 1]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    return order, ordered, ordered[1:] == ordered[:-1]


def adjacent_faces(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Both faces ``(P,)`` of every pair that shares an edge."""
    order, _, twin = _sorted_edges(faces)
    return order[:-1][twin] // 3, order[1:][twin] // 3


def half_edge_twins(faces: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Both half-edges ``(P,)`` of every shared edge, and its end points ``(P, 2)``.

    Half-edge ``3 f + k`` runs from corner ``k`` of face ``f`` to the next one.
    """
    order, _, twin = _sorted_edges(faces)
    first, second = order[:-1][twin], order[1:][twin]
    after = first // 3 * 3 + (first + 1) % 3
    flat = faces.reshape(-1)
    return first, second, np.stack([flat[first], flat[after]], axis=1)


def fans(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Fan ``(3F,)`` of every face corner, and the vertex of every fan.

    Corners are joined when their faces share an edge at that vertex.
    """
    order, _, twin = _sorted_edges(faces)
    first, second = order[:-1][twin], order[1:][twin]
    flat = faces.reshape(-1)
    # Half-edge h of a face runs from corner h to the next one.
    after = np.arange(len(flat)) // 3 * 3 + (np.arange(len(flat)) + 1) % 3
    rows, columns = [], []
    for end in (first, after[first]):
        same = flat[end] == flat[second]
        rows.append(end)
        columns.append(np.where(same, second, after[second]))
    a, b = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(flat), len(flat)))
    count, fan = connected_components(graph, directed=False)
    vertex = np.zeros(count, dtype=np.int64)
    vertex[fan] = flat
    return fan.astype(np.int64), vertex


def split_fans(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Give every fan of triangles a vertex of its own."""
    fan, vertex = fans(faces)
    return vertices[vertex], fan.reshape(-1, 3)


def _without_degenerate(faces: IntArray) -> IntArray:
    """Drop faces with a repeated vertex, and pairs of faces over the same three vertices."""
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    _, inverse, counts = np.unique(
        np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return np.asarray(faces[counts[inverse.reshape(-1)] == 1])


def _at_crowded_edges(faces: IntArray) -> npt.NDArray[np.bool_]:
    edges, face_of, forward = _half_edges(faces)
    _, inverse, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    balance = np.bincount(inverse, weights=np.where(forward, 1.0, -1.0))
    bad = (counts > 2) | ((counts == 2) & (balance != 0))
    out = np.zeros(len(faces), dtype=bool)
    out[face_of[bad[inverse]]] = True
    return out


def _fill_holes(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Close every hole with a fan round its centre (three-sided holes with one triangle)."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges, _, _ = _half_edges(faces)
    _, inverse, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    border = directed[counts[inverse.reshape(-1)] == 1]
    # After the fans are split every border vertex starts exactly one border edge.
    following = dict(zip(border[:, 0].tolist(), border[:, 1].tolist(), strict=True))
    added_faces: list[tuple[int, int, int]] = []
    added_points: list[FloatArray] = []
    while following:
        start, step = next(iter(following.items()))
        loop = [start]
        del following[start]
        while step != start and step in following:
            loop.append(step)
            step = following.pop(step)
        if len(loop) == 3:
            added_faces.append((loop[2], loop[1], loop[0]))
        elif len(loop) > 3:
            middle = len(vertices) + len(added_points)
            added_points.append(vertices[loop].mean(axis=0))
            pairs = zip(loop, [*loop[1:], loop[0]], strict=True)
            added_faces.extend((b, a, middle) for a, b in pairs)
    if not added_faces:
        return vertices, faces
    points = np.concatenate([vertices, *[p[None] for p in added_points]])
    return points, np.concatenate([faces, np.array(added_faces, dtype=np.int64)])
