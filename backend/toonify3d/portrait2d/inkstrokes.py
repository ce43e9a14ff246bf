"""Lines of an ink drawing as strokes on the surface: traced along its creases, drawn in any frame.

As a draughtsman does: every crease is one stroke along its darkest points, the boldest first, none
beside another, of a width that belongs to the surface and not to a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from ..scene import Float32Array, FloatArray
from .colorspace import sample, smoothstep

IntArray = npt.NDArray[np.int64]
STEP = 0.01
"""Eye distances between the points of a stroke."""
_SMOOTH = 0.06
"""Eye distances over which a stroke's path is evened."""
_NEAR = 0.05
"""Eye distances round a path from which its place across the crease is taken."""
_THIN, _ENDS = 0.3, 0.35
"""Width of a stroke's ends against its middle, and the share of its length over which each runs
out."""
_SAMPLES, _REACH = 3, 0.15
"""Samples of a pixel across and down, and the most surface in a pixel, eye distances, that is
looked at for strokes."""
_BORDER_STEPS = 4
"""Points of a border in each triangle."""


@dataclass(frozen=True)
class Strokes:
    """Lines on the surface as dense points.

    Attributes:
        points: ``(N, 3)`` face frame.
        half: ``(N,)`` half the line's width there, eye distances.
    """

    points: FloatArray
    half: FloatArray


@dataclass(frozen=True)
class Rules:
    """What is a crease worth a stroke.

    Attributes:
        clear: CIELAB that it must reach somewhere.
        faint: CIELAB down to which it runs on (hysteresis: Canny 1986).
        shortest: Its least length, eye distances.
        apart: Eye distances within which no stroke lies beside another.
        most: Creases that are looked at, at most.
    """

    clear: float = 1.7
    faint: float = 0.7
    shortest: float = 0.2
    apart: float = 0.09
    most: int = 40


def trace(
    places: FloatArray,
    edges: sparse.csr_matrix,
    dark: FloatArray,
    rules: Rules,
    wanted: Callable[[FloatArray], FloatArray | None] | None = None,
) -> list[FloatArray]:
    """Strokes ``(N, 3)`` along the darkest creases, the boldest first.

    Args:
        places: ``(V, 3)`` vertices, face frame.
        edges: ``(V, V)`` which are neighbours (:func:`~toonify3d.meshes.edge_adjacency`).
        dark: ``(V,)`` CIELAB, see :func:`.creases.crease_darkness`.
        rules: What is drawn.
        wanted: Called with each stroke found, gives what is drawn of it, or None; either way
            nothing more is looked for beside what was found.
    """
    free = np.flatnonzero(dark > rules.faint)
    out: list[FloatArray] = []
    for _ in range(rules.most):
        if not len(free):
            break
        _, part = csgraph.connected_components(edges[free][:, free], directed=False)
        free, part = _worth(places[free], dark[free], part, free, rules)
        if not len(free):
            break
        bold = int(np.bincount(part, dark[free]).argmax())
        own = free[part == bold]
        path = own[_spine(places[own], edges[own][:, own], dark[own])]
        curve = _evened(places[path], places[own], dark[own])
        drawn = curve if wanted is None else wanted(curve)
        if drawn is not None and _length(drawn) > rules.shortest:
            out.append(drawn)
        far, _ = cKDTree(np.concatenate([curve, places[path]])).query(places[free])
        free = free[far > rules.apart]
    return out


def _worth(
    places: FloatArray, dark: FloatArray, part: IntArray, free: IntArray, rules: Rules
) -> tuple[IntArray, IntArray]:
    """The vertices and parts that reach far enough and are clear somewhere."""
    count = int(part.max()) + 1
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, part, places)
    np.maximum.at(high, part, places)
    clear = np.bincount(part, dark > rules.clear, count) > 3
    keep = (clear & (np.linalg.norm(high - low, axis=1) > rules.shortest))[part]
    return free[keep], np.unique(part[keep], return_inverse=True)[1]


def _spine(places: FloatArray, edges: sparse.csr_matrix, dark: FloatArray) -> IntArray:
    """Vertices along one connected crease between its farthest ends, by its darkest points."""
    ends = edges.tocoo()
    length = np.linalg.norm(places[ends.row] - places[ends.col], axis=1)
    plain = sparse.csr_matrix((length, (ends.row, ends.col)), edges.shape)
    one = int(csgraph.dijkstra(plain, indices=int(dark.argmax())).argmax())
    two = int(csgraph.dijkstra(plain, indices=one).argmax())
    # The lighter the dearer: the path keeps to the middle and cuts no bend.
    light = 1.0 / (0.1 + np.minimum(dark / np.quantile(dark, 0.9), 1.0)) ** 2
    cost = length * (light[ends.row] + light[ends.col])
    weighed = sparse.csr_matrix((cost, (ends.row, ends.col)), edges.shape)
    _, before = csgraph.dijkstra(weighed, indices=one, return_predecessors=True)
    path = [two]
    while path[-1] != one:
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def _evened(path: FloatArray, places: FloatArray, dark: FloatArray) -> FloatArray:
    """A path moved onto the middle of its crease, smooth, with points :data:`STEP` apart."""
    curve = resampled(path, STEP)
    weights = dark**2
    for row, near in enumerate(cKDTree(places).query_ball_point(curve, _NEAR)):
        if near:
            curve[row] = weights[near] @ places[near] / weights[near].sum()
    sigma = _SMOOTH / STEP
    pad = min(int(3 * sigma), len(curve) - 1)
    if pad < 1:
        return curve
    # Turned round its ends, so that they stay where they are.
    before, after = 2 * curve[0] - curve[pad:0:-1], 2 * curve[-1] - curve[-2 : -pad - 2 : -1]
    smooth = gaussian_filter1d(np.concatenate([before, curve, after]), sigma, axis=0)
    return resampled(smooth[pad : pad + len(curve)], STEP)


def resampled(curve: FloatArray, step: float) -> FloatArray:
    """Points ``(N, 3)`` along a curve about ``step`` apart."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.linspace(0.0, along[-1], max(2, round(along[-1] / step) + 1))
    return np.stack([np.interp(at, along, curve[:, i]) for i in range(3)], axis=1)


def _length(curve: FloatArray) -> float:
    return float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum())


def with_width(
    curve: FloatArray, width: float, thin: float = _THIN, ends: float = _ENDS
) -> Strokes:
    """A stroke ``(N, 3)`` that is ``width`` eye distances wide and runs out at its ends."""
    place = np.linspace(0.0, 1.0, len(curve))
    full = smoothstep(np.minimum(place, 1 - place), 0.0, ends)
    return Strokes(curve, 0.5 * width * (thin + (1 - thin) * full))


def border(places: FloatArray, faces: IntArray, label: FloatArray, width: float) -> Strokes:
    """The line along which a label of the vertices changes its sign.

    Args:
        places: ``(V, 3)`` vertices, face frame.
        faces: ``(F, 3)`` triangles that are asked.
        label: ``(V,)``.
        width: Of the line, eye distances.
    """
    above = (label > 0)[faces]
    cut = above.any(1) & ~above.all(1)
    faces, above = faces[cut], above[cut]
    # The corner that is alone on its side first: the line crosses both edges that meet there.
    alone = np.where(above.sum(1) == 1, above.argmax(1), above.argmin(1))
    tip, one, two = np.take_along_axis(faces, (alone[:, None] + np.arange(3)) % 3, axis=1).T
    first, last = (
        places[tip] + (places[to] - places[tip]) * (label[tip] / (label[tip] - label[to]))[:, None]
        for to in (one, two)
    )
    steps = np.linspace(0.0, 1.0, _BORDER_STEPS)[:, None, None]
    points = (first + (last - first) * steps).reshape(-1, 3)
    return Strokes(points, np.full(len(points), 0.5 * width))


def together(strokes: Sequence[Strokes]) -> Strokes:
    """All strokes as one."""
    if not strokes:
        return Strokes(np.zeros((0, 3)), np.zeros(0))
    return Strokes(
        np.concatenate([item.points for item in strokes]),
        np.concatenate([item.half for item in strokes]),
    )


def drawn_strokes(
    strokes: Strokes, local: Float32Array, asked: npt.NDArray[np.bool_], unit: float
) -> Float32Array:
    """Share of each pixel ``(H, W)`` that strokes cover.

    Args:
        strokes: The strokes.
        local: ``(H, W, 3)`` the surface in the face frame.
        asked: ``(H, W)`` where lines are drawn.
        unit: Pixels between the eyes.
    """
    out = np.zeros(asked.shape, np.float32)
    if not len(strokes.points) or not asked.any():
        return out
    tree, pixel = cKDTree(strokes.points), 1.0 / unit
    footprint = _footprint(local)[asked]
    far, _ = tree.query(local[asked], distance_upper_bound=float(strokes.half.max()) + _REACH)
    near = asked.copy()
    near[asked] = far < strokes.half.max() + np.maximum(footprint, pixel)
    if not near.any():
        return out
    rows, columns = np.nonzero(near)
    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    for down in steps:
        for across in steps:
            at = np.stack([columns + across, rows + down], axis=1)
            out[near] += _inside(
                strokes, tree, sample(local, at).astype(np.float64), pixel / _SAMPLES
            )
    return out / np.float32(_SAMPLES**2)


def _inside(strokes: Strokes, tree: cKDTree, places: FloatArray, soft: float) -> Float32Array:
    """0..1 ``(N,)`` whether places lie in a stroke."""
    reach = float(strokes.half.max()) + soft
    far, index = tree.query(places, distance_upper_bound=reach)
    half = np.append(strokes.half, -1.0)[index]
    return smoothstep(np.minimum(far, reach) - half, 0.5 * soft, -0.5 * soft)


def _footprint(local: Float32Array) -> Float32Array:
    """Eye distances of surface ``(H, W)`` that lie in one pixel: many where it is seen edge on."""
    across, down = (cv2.Sobel(local, cv2.CV_32F, *axis) / 8 for axis in ((1, 0), (0, 1)))
    length = [np.linalg.norm(change, axis=2) for change in (across, down)]
    return np.asarray(np.minimum(np.maximum(*length), _REACH), np.float32)
