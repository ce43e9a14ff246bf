"""Cutting the mesh into a few large discs that flatten with little stretch.

Region growing from seeds on the dual graph (a geodesic Voronoi diagram, so every chart is in one
piece), with crossing a crease made expensive so that borders fall into creases. Automatic
charting libraries cut a scanned head into hundreds of charts, which artists cannot paint on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from ..scene import FloatArray
from .flatten import cut_open, flatten, is_disc, stretch
from .mesh import adjacent_faces, fans
from .raster import overlapping_texels

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CREASE_COST = 4.0
START_CHARTS = 7
# Triangles whose linear scale is this far from the chart's median count as badly stretched, and
# a chart may have this share of them.
STRETCH_LIMIT = 2.0
STRETCHED_SHARE = 0.04
FACE_STRETCHED_SHARE = 0.2
MIN_FACES_TO_SPLIT = 64
SMOOTHING_ROUNDS = 6
# Pieces with a smaller share of the triangles are not charts of their own.
CRUMB_SHARE = 0.004


@dataclass(frozen=True)
class Chart:
    """One flattened piece.

    Attributes:
        faces: Indices ``(M,)`` of its triangles in the mesh.
        vertices: Mesh vertex ``(N,)`` behind each chart vertex.
        triangles: ``(M, 3)`` chart vertices.
        uv: ``(N, 2)`` in units of the mesh.
        face_region: Whether it is the chart of the face.
    """

    faces: IntArray
    vertices: IntArray
    triangles: IntArray
    uv: FloatArray
    face_region: bool


def cut_charts(
    vertices: FloatArray, faces: IntArray, face_region: BoolArray | None = None
) -> list[Chart]:
    """Cut a closed mesh into flattened discs without overlaps.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        face_region: ``(F,)`` triangles wanted in one chart of their own, or None.
    """
    graph = _dual_graph(vertices, faces)
    waiting: list[tuple[IntArray, bool]] = []
    rest = np.arange(len(faces))
    if face_region is not None and face_region.any():
        region = _one_piece(graph, face_region)
        waiting.append((np.flatnonzero(region), True))
        rest = np.flatnonzero(~region)
    centers = vertices[faces].mean(axis=1)
    label = _grow(graph, rest, _start_seeds(graph, centers, rest))
    label = _smoothed(graph, label, rest)
    for piece in _pieces(graph, label, rest):
        waiting.append((piece, False))
    charts: list[Chart] = []
    while waiting:
        piece, is_face = waiting.pop()
        chart, worst = _try_chart(vertices, faces, piece, is_face)
        if chart is not None:
            charts.append(chart)
        else:
            # A face that does not flatten in one piece falls apart like any other region, but
            # its parts keep the face's texel density.
            waiting.extend((part, is_face) for part in _split(graph, piece, worst))
    return sorted(charts, key=lambda chart: -len(chart.faces))


def _try_chart(
    vertices: FloatArray, faces: IntArray, piece: IntArray, is_face: bool
) -> tuple[Chart | None, int]:
    """Flatten one piece; None and the triangle to split at when it is not good enough."""
    # Where the border pinches, two fans meet in one vertex; taken apart they form a disc.
    fan, used = fans(faces[piece])
    triangles = fan.reshape(-1, 3)
    if not is_disc(triangles):
        triangles, source = cut_open(triangles)
        used = used[source]
    local = vertices[used]
    uv = flatten(local, triangles)
    small = len(piece) < MIN_FACES_TO_SPLIT
    if uv is None:
        return (None, 0) if len(piece) > 1 else (_single(faces, piece, vertices, is_face), 0)
    scale = stretch(local, triangles, uv)
    relative = np.abs(np.log(np.maximum(scale, 1e-9) / np.median(scale)))
    bad = relative > np.log(STRETCH_LIMIT)
    allowed = FACE_STRETCHED_SHARE if is_face else STRETCHED_SHARE
    if bad.mean() > allowed and not small:
        return None, int(np.argmax(relative))
    if len(piece) > 1 and _overlaps(uv, triangles):
        return None, int(np.argmax(relative))
    # Equal texel density for all charts: areas as in space.
    uv = uv / np.median(scale)
    return Chart(piece, used, triangles, uv, is_face), 0


def _single(faces: IntArray, piece: IntArray, vertices: FloatArray, is_face: bool) -> Chart:
    """A sliver that cannot be laid flat gets a tiny triangle of its own."""
    corner = faces[piece[0]]
    size = max(float(np.ptp(vertices[corner], axis=0).max()), 1e-6)
    uv = np.array([[0.0, 0.0], [size, 0.0], [0.0, size]])
    return Chart(piece, corner, np.array([[0, 1, 2]]), uv, is_face)


def _overlaps(uv: FloatArray, triangles: IntArray) -> bool:
    low, high = uv.min(axis=0), uv.max(axis=0)
    size = 512
    return (
        overlapping_texels((uv - low) / max(float((high - low).max()), 1e-12), triangles, size) > 0
    )


def _dual_graph(vertices: FloatArray, faces: IntArray) -> csr_matrix:
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    centers = corners.mean(axis=1)
    a, b = adjacent_faces(faces)
    distance = np.linalg.norm(centers[a] - centers[b], axis=1)
    bend = 1.0 - np.einsum("ij,ij->i", normal[a], normal[b])
    cost = np.maximum(distance * (1.0 + CREASE_COST * bend), 1e-12)
    graph = coo_matrix((cost, (a, b)), shape=(len(faces), len(faces))).tocsr()
    return graph.maximum(graph.T).tocsr()


def _one_piece(graph: csr_matrix, wanted: BoolArray) -> BoolArray:
    """The largest piece of ``wanted`` with its islands filled."""
    region = np.zeros(len(wanted), dtype=bool)
    inside = np.flatnonzero(wanted)
    _, label = connected_components(graph[inside][:, inside], directed=False)
    region[inside[label == np.bincount(label).argmax()]] = True
    outside = np.flatnonzero(~region)
    if len(outside):
        _, label = connected_components(graph[outside][:, outside], directed=False)
        region[outside[label != np.bincount(label).argmax()]] = True
    return region


def _start_seeds(graph: csr_matrix, centers: FloatArray, rest: IntArray) -> IntArray:
    """Seeds on the left and the right (so that their border runs down the back), then far ones."""
    x = centers[rest, 0]
    height = centers[rest, 2]
    upper = height > np.quantile(height, 0.4)
    pool = rest[upper]
    seeds = [pool[np.argmax(x[upper])], pool[np.argmin(x[upper])]]
    sub = graph[rest][:, rest]
    position = {int(face): k for k, face in enumerate(rest)}
    chosen = [position[int(seed)] for seed in seeds]
    while len(chosen) < min(START_CHARTS, len(rest)):
        distance = dijkstra(sub, directed=False, indices=chosen, min_only=True)
        chosen.append(int(np.argmax(np.where(np.isfinite(distance), distance, 1e30))))
    return np.asarray(rest[np.unique(chosen)])


def _grow(graph: csr_matrix, rest: IntArray, seeds: IntArray) -> IntArray:
    """Label ``(F,)`` of the nearest seed for the faces in ``rest``, -1 elsewhere."""
    sub = graph[rest][:, rest]
    where = np.searchsorted(rest, seeds)
    _, _, source = dijkstra(
        sub, directed=False, indices=where, min_only=True, return_predecessors=True
    )
    label = np.full(graph.shape[0], -1, dtype=np.int64)
    label[rest] = source
    return label


def _smoothed(graph: csr_matrix, label: IntArray, rest: IntArray) -> IntArray:
    """Straighten ragged borders: a triangle joins two neighbours that agree."""
    coo = graph.tocoo()
    for _ in range(SMOOTHING_ROUNDS):
        order = np.lexsort((label[coo.col], coo.row))
        row, other = coo.row[order], label[coo.col[order]]
        twice = (row[1:] == row[:-1]) & (other[1:] == other[:-1]) & (other[1:] >= 0)
        change = label.copy()
        change[row[1:][twice]] = other[1:][twice]
        change[label < 0] = -1
        if (change == label).all():
            break
        label = change
    return label


def _pieces(graph: csr_matrix, label: IntArray, rest: IntArray) -> list[IntArray]:
    """Connected pieces of equal label among ``rest``; crumbs join their largest neighbour."""
    label = label.copy()
    smallest = max(2, int(CRUMB_SHARE * len(rest)))
    for _ in range(8):
        pieces = _connected(graph, label, rest)
        for number, piece in enumerate(pieces):
            label[piece] = number
        crumbs = [piece for piece in pieces if len(piece) < smallest]
        if not crumbs or len(crumbs) == len(pieces):
            break
        size = np.array([len(piece) for piece in pieces])
        for piece in crumbs:
            around = label[graph[piece].indices]
            around = around[(around >= 0) & (around != label[piece[0]])]
            if len(around):
                label[piece] = around[np.argmax(size[around])]
    return _connected(graph, label, rest)


def _connected(graph: csr_matrix, label: IntArray, rest: IntArray) -> list[IntArray]:
    coo = graph.tocoo()
    same = (label[coo.row] == label[coo.col]) & (label[coo.row] >= 0)
    joined = coo_matrix((np.ones(same.sum()), (coo.row[same], coo.col[same])), shape=graph.shape)
    _, piece = connected_components(joined, directed=False)
    ordered = rest[np.argsort(piece[rest], kind="stable")]
    cuts = np.flatnonzero(np.diff(piece[ordered])) + 1
    return [np.sort(part) for part in np.split(ordered, cuts)]


def _split(graph: csr_matrix, piece: IntArray, worst: int) -> list[IntArray]:
    """Two (or more) smaller pieces: one grows from the worst triangle, one from far away."""
    sub = graph[piece][:, piece]
    first = worst
    if worst == 0:
        reached = dijkstra(sub, directed=False, indices=0)
        first = int(np.argmax(np.where(np.isfinite(reached), reached, -1.0)))
    distance = dijkstra(sub, directed=False, indices=first)
    second = int(np.argmax(np.where(np.isfinite(distance), distance, 1e30)))
    seeds = np.unique(piece[[first, second]])
    raw = _grow(graph, piece, seeds)
    parts = _pieces(graph, _smoothed(graph, raw, piece), piece)
    # Smoothing or the crumb rule may swallow the smaller part; a split must split.
    return parts if len(parts) > 1 else _connected(graph, raw, piece)
