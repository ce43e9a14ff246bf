"""Volume rendering of a trained field along any camera path (paper eq. 5, 6; NeuS eq. 13).

The surface is known when a style is finished, so no ray is searched: a ray cast on the extracted
mesh gives the distance, a Newton step on the field makes it exact, and the few sections that are
left lie where the density is. The opacity of a ray follows from the logistic CDF at the sections'
ends alone (its product telescopes), so few sections give the same opacity as hundreds; colours are
sampled where the weights are. Three kinds of sections make the picture of all samples along the
whole ray: round the hit; round the edge of something nearer that the ray just misses (soft
silhouettes); and behind, where a ray is not used up yet.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.special import expit, logit

from ..raycast import MeshQuery, interpolate
from ..scene import ByteImage, Camera, FloatArray, Normalization, SurfaceMesh
from ..snr.rendering import accumulate_weights, opacity
from .levelset import ClippedField
from .mesh import vertex_normals
from .render import BACKGROUND, SHADINGS, over_background, render_strips, shade

IntArray = npt.NDArray[np.int64]
# Sections reach from 5 to -8 standard widths of the logistic density: opacity 0.007 to 0.9997.
BEFORE, BEHIND = 5.0, 8.0
# Radius of the roundest parts of a head in unit space: how long a grazing ray stays near it.
ROUND = 0.6
# A ray that has less than this left is used up.
USED_UP = 0.004
LAYERS = 3
# Depth range (unit space) of neighbouring rays that see one smooth piece of surface.
SMOOTH, FAR = 0.02, 1e6
# Stretches longer than this many standard widths belong to rays that graze: twice the sections.
GRAZING = (0.0, 26.0, 60.0, math.inf)


@dataclass
class FieldView:
    """A field ready for volume rendering.

    Attributes:
        field: Distance and colour in unit space, cut as the mesh was.
        mesh: The field's surface in world metres, not farther from it than about ``0.3 / inv_s``.
        normalization: World to unit space.
        inv_s: Sharpness of the density, as trained.
        sections: Sections round a hit.
        colors: Colour samples per stretch of sections; neighbouring rays take them at other shares
            of the weights, so that a pixel of 2 x 2 rays sees twice as many.
        device: Warp device for the ray casts.
    """

    field: ClippedField
    mesh: SurfaceMesh
    normalization: Normalization
    inv_s: float
    sections: int = 3
    colors: int = 1
    device: str = "cpu"
    query: MeshQuery = dataclasses.field(init=False)
    normals: FloatArray = dataclasses.field(init=False)

    @property
    def longest(self) -> float:
        """Half of the stretch of a grazing ray in which the density shows, unit space."""
        return math.sqrt(2.0 * ROUND * BEFORE / self.inv_s)

    def __post_init__(self) -> None:
        """Build the search tree."""
        unit = self.normalization.to_unit(self.mesh.vertices)
        self.query = MeshQuery(unit, self.mesh.faces, self.device)
        self.normals = vertex_normals(unit, self.mesh.faces)


def render_field(
    view: FieldView,
    camera: Camera,
    shading: str = "flat",
    antialias: int = 2,
    background: tuple[int, int, int] = BACKGROUND,
) -> tuple[ByteImage, ByteImage]:
    """Volume-render a view.

    Args:
        view: What to render.
        camera: Any pin-hole camera, world metres.
        shading: ``flat`` (the accumulated albedo, as the paper renders it), ``soft`` (lit),
            ``clay`` (lit, uncoloured) or ``normal`` (camera-space normals as colours).
        antialias: Rays per pixel along each side.
        background: RGB behind the head.

    Returns:
        RGB ``(H, W, 3)`` and coverage (eq. 6) ``(H, W)`` in 0..255.

    Raises:
        ValueError: Unknown shading.
    """
    if shading not in SHADINGS:
        raise ValueError(f"unknown shading {shading!r}")
    reach = _reach(view, camera, antialias)
    margin = math.ceil(reach / antialias)
    picture = render_strips(
        camera, antialias, lambda fine: _march(view, fine, shading, reach, antialias == 2), margin
    )
    return over_background(picture, background)


def _reach(view: FieldView, camera: Camera, antialias: int) -> int:
    """How many (fine) pixels beyond a silhouette the density still shows."""
    low, high = view.mesh.vertices.min(axis=0), view.mesh.vertices.max(axis=0)
    distance = float(np.linalg.norm((low + high) / 2 - camera.center))
    pixel = distance / (antialias * float(camera.K[0, 0])) / view.normalization.radius
    return int(np.clip(math.ceil(BEFORE / view.inv_s / pixel), 1, 24))


@dataclass
class _Rays:
    """Unit-space rays and what they have gathered.

    ``shift`` is 0.25 and 0.75 in turns, row by row; ``through`` is the share that goes on.
    """

    origins: FloatArray
    directions: FloatArray
    shift: FloatArray
    through: FloatArray
    color: FloatArray
    normal: FloatArray

    def points(self, rows: IntArray, distance: FloatArray) -> FloatArray:
        """``(R * K, 3)`` at ``distance (R, K)`` along the rays ``rows``."""
        along = self.directions[rows, None] * distance[..., None]
        return np.asarray((self.origins[rows, None] + along).reshape(-1, 3))


def _march(view: FieldView, camera: Camera, shading: str, reach: int, pairs: bool) -> FloatArray:
    """Colour over black and coverage ``(H * W, 4)``.

    With ``pairs`` the pixels come in blocks of 2 x 2 rays, and where nothing but smooth surface is
    seen the two rays of a diagonal stand for the block.
    """
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, directions = camera.rays(np.stack([x, y], axis=-1).reshape(-1, 2))
    count = len(origins)
    rays = _Rays(
        view.normalization.to_unit(origins),
        directions,
        0.25 + 0.5 * (np.floor(y).reshape(-1) % 2),
        np.ones(count),
        np.zeros((count, 3)),
        np.zeros((count, 3)),
    )
    want = (shading in ("flat", "soft"), shading != "flat")
    met = view.query.cast(rays.origins, rays.directions)
    distance = np.where(met.face >= 0, met.distance, np.inf).reshape(x.shape)
    spared = _spared(distance) if pairs else np.zeros(count, dtype=bool)
    hit, first, last = _hits(view, rays, np.flatnonzero(~spared), np.zeros(int((~spared).sum())))
    _graze(view, rays, distance, hit, first, spared, reach, want)
    for layer in range(LAYERS):
        length = (last - first) * view.inv_s
        for factor, (least, most) in enumerate(itertools.pairwise(GRAZING)):
            part = (length >= least) & (length < most)
            edges = _even(first[part], last[part], view.sections * 2**factor)
            _gather(view, rays, hit[part], edges, want)
        thinned = rays.through[hit] > USED_UP
        if layer + 1 == LAYERS or not thinned.any():
            break
        hit, first, last = _hits(view, rays, hit[thinned], last[thinned])
    picture = _colored(rays, camera, shading)
    spare = np.flatnonzero(spared)
    picture[spare] = picture[spare ^ 1]  # the other ray of the block's row
    return picture


def _spared(distance: FloatArray) -> npt.NDArray[np.bool_]:
    """Every other ray ``(H * W,)``, like a chessboard, where the surface is smooth all round it."""
    finite = np.where(np.isfinite(distance), distance, FAR)
    spread = maximum_filter(finite, size=3) - minimum_filter(finite, size=3)
    y, x = np.indices(distance.shape)
    return np.asarray((spread < SMOOTH) & (finite < FAR) & ((x + y) % 2 == 1)).reshape(-1)


def _hits(
    view: FieldView, rays: _Rays, rows: IntArray, start: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Which of ``rows`` meet the front of the surface beyond ``start``, and from where to where."""
    origins = rays.origins[rows] + rays.directions[rows] * start[:, None]
    hits = view.query.cast(origins, rays.directions[rows])
    kept = np.flatnonzero(hits.face >= 0)
    rows, start = rows[kept], start[kept]
    normals = interpolate(view.normals, view.mesh.faces, hits)[kept]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    facing = -(normals * rays.directions[rows]).sum(axis=1)
    slope = np.maximum(facing, 0.3)
    distance = start + hits.distance[kept]
    value = view.field.sdf(rays.points(rows, distance[:, None]))
    distance += np.clip(value / slope, -0.01, 0.01)  # Newton: the mesh is a little off the field
    slope = np.maximum(facing, 0.05)
    first = np.maximum(distance - np.minimum(BEFORE / view.inv_s / slope, view.longest), start)
    last = distance + np.minimum(BEHIND / view.inv_s / slope, view.longest)
    return rows, first, np.maximum(last, first)


def _graze(
    view: FieldView,
    rays: _Rays,
    distance: FloatArray,
    hit: IntArray,
    first: FloatArray,
    spared: npt.NDArray[np.bool_],
    reach: int,
    want: tuple[bool, bool],
) -> None:
    """Gather from what rays pass close by before they hit anything themselves.

    Args:
        view: See :class:`FieldView`.
        rays: All rays of the picture.
        distance: Of the hits ``(H, W)``, ``inf`` for none.
        hit: Rays that hit something.
        first: Where their sections begin.
        spared: Rays that are not followed ``(H * W,)``.
        reach: Fine pixels beyond an edge in which the density still shows.
        want: Whether colours and normals are needed.
    """
    edge = minimum_filter(distance, size=2 * reach + 1, mode="nearest").reshape(-1)
    end = np.full(len(edge), np.inf)
    end[hit] = first
    far = maximum_filter(
        np.where(np.isfinite(distance), distance, -np.inf), size=2 * reach + 1, mode="nearest"
    ).reshape(-1)
    low, high = np.maximum(edge - view.longest, 0.0), np.minimum(far + view.longest, end)
    # What lies just before the own surface is that surface, seen aslant.
    apart = 2.0 * BEFORE / view.inv_s
    rows = np.flatnonzero(~spared & np.isfinite(edge) & (edge < end - apart) & (low + 1e-6 < high))
    # Where along it a ray comes closest is not known: a coarse look, then a finer one there.
    edges = _even(low[rows], high[rows], 16)
    value = view.field.sdf(rays.points(rows, edges)).reshape(edges.shape)
    near = np.flatnonzero(value.min(axis=1) < BEFORE / view.inv_s + 0.02)
    middle = value[near].argmin(axis=1)
    before = edges[near, np.maximum(middle - 1, 0)]
    behind = edges[near, np.minimum(middle + 1, 16)]
    _gather(view, rays, rows[near], _even(before, behind, 8), want)


def _even(first: FloatArray, last: FloatArray, count: int) -> FloatArray:
    """Ends ``(R, count + 1)`` of even sections."""
    return first[:, None] + (last - first)[:, None] * np.linspace(0.0, 1.0, count + 1)


def _gather(
    view: FieldView, rays: _Rays, rows: IntArray, edges: FloatArray, want: tuple[bool, bool]
) -> None:
    """Add what the sections between ``edges (R, K + 1)`` of the rays ``rows`` give."""
    if not len(rows):
        return
    value = view.field.sdf(rays.points(rows, edges)).reshape(edges.shape)
    sdf = torch.from_numpy(value.astype(np.float64))
    alpha = opacity(sdf[:, :-1], sdf[:, 1:], view.inv_s)
    # A ray comes from where the density is nothing: what lies before the first end is its too.
    fresh = (sdf[:, 0] > 0) & (sdf[:, 1] < sdf[:, 0])
    alpha[fresh, 0] = 1.0 - torch.sigmoid(sdf[fresh, 1] * view.inv_s)
    weights = accumulate_weights(alpha).numpy()
    total = np.clip(weights.sum(axis=1), 0.0, 1.0)
    seen = np.flatnonzero(total > 1.0 / 1024.0)
    if not len(seen):
        return
    rows, total = rows[seen], total[seen]
    parts = _Sections(edges[seen], value[seen].astype(np.float64), weights[seen])
    share = (rays.through[rows] * total)[:, None]
    if want[0]:
        places = parts.places(rays.shift[rows], view.colors, view.inv_s)
        color = view.field.color(rays.points(rows, places)).reshape(len(rows), -1, 3)
        rays.color[rows] += share * color.mean(axis=1)
    if want[1]:
        places = parts.places(np.full(len(rows), 0.5), 1, view.inv_s)
        rays.normal[rows] += share * _normals(view.field, rays.points(rows, places))
    rays.through[rows] *= 1.0 - total


@dataclass
class _Sections:
    """Sections of rays: ends ``edges``, distances there ``sdf (R, K + 1)``, ``weights (R, K)``."""

    edges: FloatArray
    sdf: FloatArray
    weights: FloatArray

    def places(self, shift: FloatArray, count: int, inv_s: float) -> FloatArray:
        """Distances ``(R, count)`` in equal shares of the weights, ``shift (R,)`` within each.

        Within a section the distance is taken as linear, so the share follows the logistic CDF.
        """
        cdf = np.cumsum(self.weights, axis=1) / self.weights.sum(axis=1, keepdims=True)
        out = np.empty((len(self.edges), count))
        row = np.arange(len(self.edges))
        for index in range(count):
            level = (index + shift) / count
            section = np.minimum((cdf < level[:, None]).sum(axis=1), self.weights.shape[1] - 1)
            below = np.where(section > 0, cdf[row, np.maximum(section - 1, 0)], 0.0)
            part = (level - below) / np.maximum(cdf[row, section] - below, 1e-9)
            entry, leave = self.sdf[row, section], self.sdf[row, section + 1]
            before, after = expit(entry * inv_s), expit(leave * inv_s)
            value = before + np.clip(part, 0.0, 1.0) * (after - before)
            there = logit(np.clip(value, 1e-12, 1.0 - 1e-12)) / inv_s
            along = np.clip((entry - there) / np.maximum(entry - leave, 1e-9), 0.0, 1.0)
            begin, end = self.edges[row, section], self.edges[row, section + 1]
            out[:, index] = begin + along * (end - begin)
        return out


def _normals(field: ClippedField, points: FloatArray) -> FloatArray:
    """Unit normals ``(N, 3)``: the field's, or those of what cuts it where that is nearer."""
    inner: Any = field.field
    x = torch.as_tensor(points, dtype=torch.float32, device=inner.device)
    out = inner.sdf_gradient(x).detach().cpu().numpy().astype(np.float64)
    clip = field.clip(points)
    cut = np.flatnonzero(clip > -0.02)
    if len(cut):
        with torch.no_grad():
            value = inner.sdf(x[cut]).cpu().numpy()
        cut = cut[clip[cut] > value]
        step = 1e-4 * np.eye(3)
        p = points[cut]
        sides = [field.clip(p + s) - field.clip(p - s) for s in step]
        out[cut] = np.stack(sides, axis=1)
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9))


def _colored(rays: _Rays, camera: Camera, shading: str) -> FloatArray:
    """Light what was gathered: colour over black and coverage ``(N, 4)``."""
    coverage = 1.0 - rays.through
    out = np.zeros((len(coverage), 4))
    seen = np.flatnonzero(coverage > 1.0 / 1024.0)
    albedo = rays.color[seen] / coverage[seen, None]
    normals = rays.normal[seen] @ camera.c2w[:3, :3]
    out[seen, :3] = shade(albedo, normals, shading) * coverage[seen, None]
    out[seen, 3] = coverage[seen]
    return out
