"""Flattening a disc of triangles without folding it.

Tutte's embedding on a circle (Tutte 1963; Floater 1997, mean-value weights 2003) is injective for
certain; as-rigid-as-possible iterations (Liu et al. 2008, "A local/global approach to mesh
parameterization") then undo its stretch, each step shortened until no triangle turns over.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csc_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.sparse.linalg import splu

from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
STEPS = (1.0, 0.7, 0.4, 0.2, 0.1, 0.05)


def boundary_loop(faces: IntArray) -> IntArray | None:
    """The vertices round a disc in order, or None when the border is not one simple loop."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    size = int(faces.max()) + 1
    key = directed[:, 0] * size + directed[:, 1]
    border = directed[~np.isin(key, directed[:, 1] * size + directed[:, 0])]
    following = dict(zip(border[:, 0].tolist(), border[:, 1].tolist(), strict=True))
    if not following or len(following) != len(border):
        return None
    start = int(border[0, 0])
    loop, step = [start], following[start]
    while step != start and step in following and len(loop) <= len(border):
        loop.append(step)
        step = following[step]
    closed = step == start and len(loop) == len(border)
    return np.array(loop) if closed else None


def is_disc(faces: IntArray) -> bool:
    """Whether the connected ``faces`` (compact vertex numbers) form a topological disc."""
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    return int(faces.max()) + 1 - len(edges) + len(faces) == 1 and boundary_loop(faces) is not None


def cut_open(faces: IntArray) -> tuple[IntArray, IntArray]:
    """Slit a connected piece with holes or handles until it is a disc.

    A spanning tree of the triangles is glued together, all other edges are slits, and slits that
    lead nowhere are sewn up again (Gu et al. 2002, "Geometry images", initial cut).

    Returns:
        Triangles ``(F, 3)`` over new vertices, and the old vertex behind each new one.
    """
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, edge_of, counts = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    edge_of = edge_of.reshape(-1)
    order = np.argsort(edge_of, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    inner = np.flatnonzero(counts == 2)
    a, b = order[first[inner]], order[first[inner] + 1]
    graph = coo_matrix((np.ones(len(inner)), (a // 3, b // 3)), shape=(len(faces),) * 2).tocsr()
    _, parent = breadth_first_order(graph, 0, directed=False)
    glued = (parent[a // 3] == b // 3) | (parent[b // 3] == a // 3)
    slit = np.ones(len(counts), dtype=bool)
    slit[inner[glued]] = False
    _sew(edges[order[first]], slit)
    keep = ~slit[inner]
    return _glue(faces, a[keep], b[keep])


def _sew(edges: IntArray, slit: npt.NDArray[np.bool_]) -> None:
    """Clear ``slit`` along dead ends (border edges form loops and stay)."""
    at: dict[int, set[int]] = {}
    for edge in np.flatnonzero(slit).tolist():
        for vertex in edges[edge].tolist():
            at.setdefault(vertex, set()).add(edge)
    ends = [vertex for vertex, around in at.items() if len(around) == 1]
    while ends:
        vertex = ends.pop()
        if len(at[vertex]) != 1:
            continue
        edge = at[vertex].pop()
        slit[edge] = False
        other = int(edges[edge].sum()) - vertex
        at[other].discard(edge)
        if len(at[other]) == 1:
            ends.append(other)


def _glue(faces: IntArray, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    """Join face corners across the given half-edge pairs only."""
    flat = faces.reshape(-1)
    index = np.arange(len(flat))
    after = index // 3 * 3 + (index + 1) % 3
    # Twin half-edges run in opposite directions.
    rows = np.concatenate([first, after[first]])
    columns = np.concatenate([after[second], second])
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(flat),) * 2)
    count, label = connected_components(graph, directed=False)
    source = np.zeros(count, dtype=np.int64)
    source[label] = flat
    return label.reshape(-1, 3).astype(np.int64), source


def flatten(vertices: FloatArray, faces: IntArray, iterations: int = 12) -> FloatArray | None:
    """Flatten a disc with little stretch and no triangle turned over.

    Args:
        vertices: ``(V, 3)``, all used.
        faces: ``(F, 3)``.
        iterations: Local/global iterations.

    Returns:
        ``(V, 2)`` in the units of ``vertices``, counter-clockwise triangles; None when even the
        start degenerates numerically (slivers).
    """
    loop = boundary_loop(faces)
    if loop is None:
        return None
    local = _local_frames(vertices[faces])
    uv = _tutte(vertices, faces, loop)
    area_3d = _areas(local).sum()
    # The circle has radius 1; the same total area is a better start.
    uv *= np.sqrt(area_3d / max(_areas(uv[faces]).sum(), 1e-30))
    if not (_areas(uv[faces]) > 0).all():
        return None
    return _as_rigid_as_possible(uv, faces, local, iterations)


def stretch(vertices: FloatArray, faces: IntArray, uv: FloatArray) -> FloatArray:
    """Linear scale ``(F,)`` of each triangle from space to the plane."""
    space = _areas(_local_frames(vertices[faces]))
    return np.asarray(np.sqrt(np.maximum(_areas(uv[faces]), 0.0) / np.maximum(space, 1e-30)))


def _areas(corners: FloatArray) -> FloatArray:
    """Signed areas of planar triangles ``(F, 3, 2)``."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]))


def _local_frames(corners: FloatArray) -> FloatArray:
    """Triangles ``(F, 3, 3)`` laid into the plane, ``(F, 3, 2)``."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = np.maximum(np.linalg.norm(u, axis=1), 1e-12)
    x = np.einsum("ij,ij->i", u, v) / length
    y = np.linalg.norm(np.cross(u, v), axis=1) / length
    out = np.zeros((len(corners), 3, 2))
    out[:, 1, 0], out[:, 2, 0], out[:, 2, 1] = length, x, y
    return out


def _tutte(vertices: FloatArray, faces: IntArray, loop: IntArray) -> FloatArray:
    steps = np.linalg.norm(vertices[loop] - vertices[np.roll(loop, -1)], axis=1)
    angle = 2 * np.pi * np.concatenate([[0.0], np.cumsum(steps)[:-1]]) / max(steps.sum(), 1e-30)
    uv = np.zeros((len(vertices), 2))
    uv[loop] = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner = np.setdiff1d(np.arange(len(vertices)), loop)
    if not len(inner):
        return uv
    weights = _mean_value_weights(vertices, faces)
    rows = weights[inner]
    system = csc_matrix(_diagonal(np.asarray(rows.sum(axis=1)).ravel()) - rows[:, inner])
    uv[inner] = splu(system).solve(np.asarray(rows[:, loop] @ uv[loop]))
    return uv


def _mean_value_weights(vertices: FloatArray, faces: IntArray) -> csc_matrix:
    """Floater's weights; always positive, so the embedding is injective."""
    rows, columns, values = [], [], []
    corners = vertices[faces]
    for k in range(3):
        i, j, m = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, v = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        nu, nv = np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)
        cross = np.linalg.norm(np.cross(u, v), axis=1)
        half = np.arctan2(cross, np.einsum("ij,ij->i", u, v)) / 2
        tangent = np.clip(np.tan(half), 1e-4, 1e4)
        for other, length in ((j, nu), (m, nv)):
            rows.append(i)
            columns.append(other)
            values.append(tangent / np.maximum(length, 1e-9))
    n = len(vertices)
    data = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return coo_matrix(data, shape=(n, n)).tocsr()


def _as_rigid_as_possible(
    uv: FloatArray, faces: IntArray, local: FloatArray, iterations: int
) -> FloatArray:
    cotangents = _cotangents(local)
    n = len(uv)
    laplacian = _laplacian(faces, cotangents, n)
    # One vertex is pinned through a tiny weight: the system is otherwise free to translate.
    pin = coo_matrix(([1e-9 + laplacian.diagonal().max() * 1e-6], ([0], [0])), shape=(n, n))
    solver = splu(csc_matrix(laplacian + pin))
    for _ in range(iterations):
        target = solver.solve(_right_side(uv, faces, local, cotangents))
        uv, moved = _line_search(uv, target, faces)
        if not moved:
            break
    return uv


def _line_search(uv: FloatArray, target: FloatArray, faces: IntArray) -> tuple[FloatArray, bool]:
    shift = (target - uv).mean(axis=0)
    floor = 1e-3 * np.maximum(_areas(uv[faces]), 0.0)
    for step in STEPS:
        trial = uv + step * (target - shift - uv)
        if (_areas(trial[faces]) > floor).all():
            return trial, True
    return uv, False


def _cotangents(local: FloatArray) -> FloatArray:
    out = np.zeros(local.shape[:2])
    for k in range(3):
        u, v = local[:, (k + 1) % 3] - local[:, k], local[:, (k + 2) % 3] - local[:, k]
        cross = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
        out[:, k] = np.einsum("ij,ij->i", u, v) / np.maximum(cross, 1e-14)
    # Negative weights (obtuse triangles) make the iterations fold; slivers would dominate.
    return np.clip(out, 0.02, 20.0)


def _laplacian(faces: IntArray, cotangents: FloatArray, n: int) -> csc_matrix:
    rows = np.concatenate([faces[:, (k + 1) % 3] for k in range(3)])
    columns = np.concatenate([faces[:, (k + 2) % 3] for k in range(3)])
    values = cotangents.T.reshape(-1)
    half = coo_matrix((values, (rows, columns)), shape=(n, n)).tocsr()
    weights = half + half.T
    return _diagonal(np.asarray(weights.sum(axis=1)).ravel()) - weights


def _right_side(
    uv: FloatArray, faces: IntArray, local: FloatArray, cotangents: FloatArray
) -> FloatArray:
    out = np.zeros_like(uv)
    planar = uv[faces]
    covariance = np.zeros((len(faces), 2, 2))
    for k in range(3):
        a, b = (k + 1) % 3, (k + 2) % 3
        edge, image = local[:, a] - local[:, b], planar[:, a] - planar[:, b]
        covariance += cotangents[:, k, None, None] * image[:, :, None] * edge[:, None, :]
    cosine, sine = (
        covariance[:, 0, 0] + covariance[:, 1, 1],
        covariance[:, 1, 0] - covariance[:, 0, 1],
    )
    length = np.maximum(np.hypot(cosine, sine), 1e-30)
    cosine, sine = cosine / length, sine / length
    for k in range(3):
        a, b = (k + 1) % 3, (k + 2) % 3
        edge = local[:, a] - local[:, b]
        turned = np.stack(
            [cosine * edge[:, 0] - sine * edge[:, 1], sine * edge[:, 0] + cosine * edge[:, 1]], 1
        )
        pull = cotangents[:, k : k + 1] * turned
        for axis in range(2):
            out[:, axis] += np.bincount(faces[:, a], pull[:, axis], minlength=len(uv))
            out[:, axis] -= np.bincount(faces[:, b], pull[:, axis], minlength=len(uv))
    return out


def _diagonal(values: FloatArray) -> csc_matrix:
    index = np.arange(len(values))
    return coo_matrix((values, (index, index)), shape=(len(values),) * 2).tocsr()
