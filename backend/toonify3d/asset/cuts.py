"""Where a head is cut for its texture: round the face, round the base, and up the back.

A closed piece without handles becomes disks: the face (it gets more texels), the flat base under
the bust, and the rest, cut open behind the head from the base over the crown to the face.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra

from ..scene import FloatArray
from .flatten import border_loop
from .mesh import adjacent_faces, face_components, half_edge_twins

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FACE, BASE, REST = 0, 1, 2
# The base: faces that look down at least this steeply, in the lowest part of the mesh.
BASE_SLOPE, BASE_HEIGHT = 0.5, 0.25
# A base smaller than this share of the surface stays with the rest.
BASE_LEAST = 0.01
# How much a seam dislikes to leave the plane of symmetry (per relative distance from it).
SEAM_STRAY = 40.0
# Rounds of diffusion that blunt the edge of a region.
BLUNT_ROUNDS = 30


def label_regions(
    vertices: FloatArray, faces: IntArray, face_region: BoolArray | None
) -> npt.NDArray[np.int64]:
    """``FACE``, ``BASE`` or ``REST`` ``(F,)``; the first two are disks where they can be.

    Args:
        vertices: ``(V, 3)``, Z up, the face along -Y.
        faces: ``(F, 3)``.
        face_region: Triangles of the face, or None.
    """
    labels = np.full(len(faces), REST, dtype=np.int64)
    # Something with handles is cut by xatlas, which needs no help.
    base = _base(vertices, faces) if is_simple(faces) and _euler(faces) == 2 else None
    if base is not None:
        labels[base] = BASE
    if face_region is not None and face_region.any():
        labels[disk_of(faces, face_region)] = FACE
    return labels


def is_simple(faces: IntArray) -> bool:
    """Whether a mesh is one piece without handles, closed or with one hole."""
    return _euler(faces) in (1, 2) and face_components(faces)[0] == 1


def _euler(faces: IntArray) -> int:
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    return len(np.unique(faces)) - len(edges) + len(faces)


def disk_of(faces: IntArray, region: BoolArray) -> BoolArray:
    """The largest piece of ``region (F,)`` with its holes filled and its ragged edge smoothed."""
    pairs = adjacent_faces(faces)
    region = _largest(pairs, _blunt(pairs, region), len(faces))
    return ~_largest(pairs, ~region, len(faces))


def seam_path(vertices: FloatArray, faces: IntArray, labels: IntArray) -> IntArray:
    """Edges ``(E, 2)`` of the seam: from the base up the back over the crown to the face.

    It starts at the hole of an open mesh, without a base or hole at the lowest vertex; without a
    face it ends at the crown. It runs near the plane of symmetry, never in front below the crown.
    """
    rest = np.unique(faces[labels == REST])
    if not len(rest) or not is_simple(faces):
        return np.zeros((0, 2), dtype=np.int64)
    points = vertices[rest]
    middle, size = _middle(vertices, faces, labels), np.ptp(vertices, axis=0)
    low, high = vertices[:, 2].min(), vertices[:, 2].max()
    # The neck's back, half way up, is the way point that keeps the seam behind.
    behind = np.abs(points[:, 0] - middle) < 0.1 * size[0]
    level = np.abs(points[:, 2] - (low + 0.5 * (high - low)))
    way = rest[np.argmin(level + np.where(behind, 0.0, size[2]) - 0.5 * points[:, 1])]
    graph = _edge_graph(vertices, faces[labels == REST], middle, float(size.max()))
    base, face = _shared(faces, labels, BASE), _shared(faces, labels, FACE)
    hole = border_loop(faces)
    start = base if len(base) else np.array([rest[np.argmin(points[:, 2])]])
    start = start if hole is None else hole
    crown = rest[np.argmax(points[:, 2] - 4.0 * np.abs(points[:, 0] - middle))]
    first = _walk(graph, int(way), start)
    second = _walk(graph, int(way), np.array([crown]))
    legs = [first, second]
    if len(face):
        ends = face[vertices[face, 2] > np.median(vertices[face, 2])]
        legs.append(_walk(graph, int(crown), ends))
    path = _single(legs, len(vertices), int(legs[0][0]), int(legs[-1][0]))
    return np.stack([path[:-1], path[1:]], axis=1)


def split_at(faces: IntArray, labels: IntArray, seam: IntArray) -> tuple[IntArray, IntArray]:
    """Take a mesh apart between different ``labels (F,)`` and along ``seam (E, 2)``.

    Returns:
        New vertex ``(F, 3)`` of every corner, and the old vertex behind each new one ``(N,)``.
    """
    first, second, ends = half_edge_twins(faces)
    size = int(faces.max(initial=0)) + 1
    pairs = np.sort(ends, axis=1)
    seam_key = seam.min(axis=1) * size + seam.max(axis=1)
    apart = labels[first // 3] != labels[second // 3]
    apart |= np.isin(pairs[:, 0] * size + pairs[:, 1], seam_key)
    first, second = first[~apart], second[~apart]
    flat = faces.reshape(-1)
    after = np.arange(len(flat)) // 3 * 3 + (np.arange(len(flat)) + 1) % 3
    # Twins run in opposite directions: the start of one is the end of the other.
    rows = np.concatenate([first, after[first]])
    columns = np.concatenate([after[second], second])
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (len(flat), len(flat)))
    count, corner = connected_components(graph, directed=False)
    source = np.zeros(count, dtype=np.int64)
    source[corner] = flat
    return corner.astype(np.int64).reshape(-1, 3), source


def pieces(corners: IntArray) -> list[IntArray]:
    """Faces of every piece that hangs together through edges, the largest first."""
    count, label = face_components(corners)
    order = np.argsort(-np.bincount(label, minlength=count), kind="stable")
    return [np.flatnonzero(label == number) for number in order]


def _base(vertices: FloatArray, faces: IntArray) -> BoolArray | None:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    down = -cross[:, 2] / np.maximum(area, 1e-30)
    height = (a + b + c)[:, 2] / 3 - vertices[:, 2].min()
    region = (down > BASE_SLOPE) & (height < BASE_HEIGHT * np.ptp(vertices[:, 2]))
    if not region.any():
        return None
    region = disk_of(faces, region)
    share = area[region].sum() / area.sum()
    return region if BASE_LEAST < share < 0.5 else None


def _blunt(pairs: tuple[IntArray, IntArray], region: BoolArray) -> BoolArray:
    """Let the region diffuse a few triangles wide and cut it at a half: no teeth, no tongues."""
    a, b = pairs
    count = len(region)
    degree = 1.0 + np.bincount(a, minlength=count) + np.bincount(b, minlength=count)
    value = region.astype(np.float64)
    for _ in range(BLUNT_ROUNDS):
        value = (value + np.bincount(a, value[b], count) + np.bincount(b, value[a], count)) / degree
    return np.asarray(value > 0.5)


def _single(legs: list[IntArray], count: int, start: int, end: int) -> IntArray:
    """One simple way through all ``legs``: where they touch, loops and dead ends drop out."""
    edges = np.concatenate([np.stack([leg[:-1], leg[1:]], axis=1) for leg in legs])
    half = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    graph = (half + half.T).tocsr()
    graph.data[:] = 1.0
    return _walk(graph, end, np.array([start]))


def _largest(pairs: tuple[IntArray, IntArray], region: BoolArray, count: int) -> BoolArray:
    a, b = pairs
    kept: BoolArray = region[a] & region[b]
    graph = sparse.coo_matrix((np.ones(int(kept.sum())), (a[kept], b[kept])), (count, count))
    number, label = connected_components(graph, directed=False)
    return np.asarray(label == np.argmax(np.bincount(label, region, number))) & region


def _middle(vertices: FloatArray, faces: IntArray, labels: IntArray) -> float:
    """The plane of symmetry: the middle of the face, else of everything."""
    chosen = vertices[faces[labels == FACE].reshape(-1)] if (labels == FACE).any() else vertices
    return float((chosen[:, 0].min() + chosen[:, 0].max()) / 2)


def _edge_graph(
    vertices: FloatArray, faces: IntArray, middle: float, size: float
) -> sparse.csr_matrix:
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    a, b = vertices[edges[:, 0]], vertices[edges[:, 1]]
    center = (a + b) / 2
    stray = np.abs(center[:, 0] - middle) / size
    cost = np.linalg.norm(a - b, axis=1) * (1.0 + SEAM_STRAY * stray)
    count = len(vertices)
    half = sparse.coo_matrix((np.maximum(cost, 1e-9), (edges[:, 0], edges[:, 1])), (count, count))
    return (half + half.T).tocsr()


def _shared(faces: IntArray, labels: IntArray, label: int) -> IntArray:
    """Vertices at which ``label`` meets the rest."""
    return np.asarray(np.intersect1d(faces[labels == label], faces[labels == REST]))


def _walk(graph: sparse.csr_matrix, start: int, ends: IntArray) -> IntArray:
    """Vertices of the shortest way from ``start`` to the nearest of ``ends``."""
    distance, previous = dijkstra(graph, indices=start, return_predecessors=True)
    at = int(ends[np.argmin(distance[ends])])
    way = [at]
    while at != start and previous[at] >= 0:
        at = int(previous[at])
        way.append(at)
    return np.array(way, dtype=np.int64)
