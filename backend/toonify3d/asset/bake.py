"""Baking fields into textures.

Every texel is carried from the decimated mesh to the full-resolution level set (closest point on
the marching-cubes surface, whose error is far below a texel). There the albedo is
accumulated along the surface normal front to back with NeuS weights, as the paper reads F_tex:
since the field is a distance, the opacity along the normal only depends on the depth, so the
weights are the same for all texels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..progress import Progress
from ..raycast import Hits, MeshQuery, interpolate
from ..scene import ByteImage, Float32Array, FloatArray
from .levelset import ClippedField
from .mesh import corner_angles, vertex_normals
from .raster import rasterize
from .unseen import Calm
from .uv import Atlas

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
TextureImage = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
# Rows of (super)texels handled at a time, so that an 8k texture needs little memory.
BAND_TEXELS = 1 << 20
# Side of the grid of (super)texels for which albedo is accumulated along the normal. Finer ones
# read the field once and take the rest, a smooth half of a gray level, from that grid: it is what
# a large texture's time would go into.
VOLUME_TEXELS = 2048
# Ripples of a trained field that no normal map should show: their extent in unit space (about
# 2 mm on a head) and their steepness (0.2 is 11 degrees; lips and nostrils are steeper).
RIPPLE_RADIUS = 0.008
RIPPLE_EDGE = 0.2


@dataclass(frozen=True)
class DenseSurface:
    """The full-resolution level set in unit space, with the normals to bake.

    Attributes:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        normals: ``(V, 3)`` unit.
    """

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray

    @classmethod
    def of_mesh(cls, vertices: FloatArray, faces: IntArray) -> DenseSurface:
        """Normals of the level set itself, without the ripples of the field's grid.

        Not the field's gradient: a field that interpolates features in a grid has a gradient that
        jumps at every cell of every level, which a normal map would show as terraces.
        """
        normals = vertex_normals(vertices, faces)
        return cls(vertices, faces, denoise_normals(vertices, faces, normals))


def denoise_normals(
    vertices: FloatArray,
    faces: IntArray,
    normals: FloatArray,
    radius: float = RIPPLE_RADIUS,
    edge: float = RIPPLE_EDGE,
) -> FloatArray:
    """Bilateral filter of unit normals ``(V, 3)``, which keeps creases (Zheng et al. 2011).

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        normals: What to filter.
        radius: Standard deviation along the surface; meshes that are coarser are left alone.
        edge: Normals that differ by this (chord length, about radians) hardly mix.
    """
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    key = np.unique(pairs[:, 0] * len(vertices) + pairs[:, 1])
    a, b = key // len(vertices), key % len(vertices)
    length = float(np.sqrt(((vertices[a] - vertices[b]) ** 2).sum(axis=1).mean()))
    # A mean over a vertex and its six neighbours has 3/7 of the squared edge as variance per axis.
    for _ in range(min(12, round(7 / 3 * (radius / length) ** 2))):
        near = np.exp(-((normals[a] - normals[b]) ** 2).sum(axis=1) / (2 * edge**2))
        total = normals.copy()
        for axis in range(3):
            total[:, axis] += np.bincount(a, near * normals[b, axis], minlength=len(vertices))
            total[:, axis] += np.bincount(b, near * normals[a, axis], minlength=len(vertices))
        normals = _unit(total)
    return normals


@dataclass(frozen=True)
class Bake:
    """Finished textures.

    Attributes:
        albedo: sRGB ``(S, S, 3)``, uint8 or uint16 as asked for.
        photo: The real person's colours in the same layout, or None when the field does not know.
        normal: Tangent-space normals ``(S, S, 3)``, +Y up (OpenGL, glTF), or None.
        covered: Texels ``(S, S)`` that belong to a chart.
        distance: From the mesh to the level set ``(S, S)`` in unit space, NaN outside the charts;
            None unless asked for.
        coverage: Share of the chart texels that got a finite albedo from the field; 1.0.
        on_surface: Share of the chart texels that reached the level set.
        utilization: Share of all texels that belong to a chart.
    """

    albedo: TextureImage
    photo: TextureImage | None
    normal: ByteImage | None
    covered: BoolArray
    distance: Float32Array | None
    coverage: float
    on_surface: float
    utilization: float


def to_bytes(image: TextureImage) -> ByteImage:
    """8 bits per channel of 8 or 16."""
    if image.dtype == np.uint8:
        return np.asarray(image, dtype=np.uint8)
    return np.asarray((image.astype(np.uint32) + 128) // 257, dtype=np.uint8)


@dataclass(frozen=True)
class BakeOptions:
    """How textures are baked.

    Attributes:
        supersample: Samples per texel along each side.
        volume: Samples along the normal, and half the length they span in unit space.
        normals: Whether to bake the normal map.
        bits: 8 or 16 per channel of the colours.
        reach: How far (unit space) the mesh may lie from the level set; None for a mesh decimated
            from it. With a reach the level set is looked for along the mesh's normals, as for an
            artist's mesh, and the distance is recorded.
        device: Warp device for the queries.
    """

    supersample: int = 1
    volume: tuple[int, float] = (3, 0.004)
    normals: bool = True
    bits: int = 8
    reach: float | None = None
    device: str = "cpu"


def bake(
    field: ClippedField,
    dense: DenseSurface,
    vertices: FloatArray,
    faces: IntArray,
    atlas: Atlas,
    size: int,
    progress: Progress,
    options: BakeOptions = BakeOptions(),
    calm: Calm | None = None,
) -> Bake:
    """Bake albedo and normals of ``field`` onto a mesh with UVs.

    Args:
        field: The closed field.
        dense: Its full-resolution surface.
        vertices: ``(V, 3)`` of the mesh in unit space.
        faces: ``(F, 3)``.
        atlas: Its texture atlas.
        size: Side of the textures.
        progress: Told how far it is.
        options: See there.
        calm: Colours for what no frame shows, per vertex of the mesh.
    """
    supersample = options.supersample
    baker = _Baker(field, dense, vertices, faces, atlas, size * supersample, options, calm)
    # Integers at once, band by band: floats would take gigabytes at 8k.
    kind, top = (np.uint16, 65535) if options.bits == 16 else (np.uint8, 255)
    colors: npt.NDArray[Any] = np.zeros((size, size, baker.channels), dtype=kind)
    normals = np.zeros((size, size, 3), dtype=np.uint8)
    covered = np.zeros((size, size), dtype=bool)
    distance = np.full((size, size), np.nan, np.float32) if options.reach is not None else None
    rows = max(1, BAND_TEXELS // (size * supersample * supersample))
    for start in range(0, size, rows):
        stop = min(size, start + rows)
        band = baker.band(start * supersample, (stop - start) * supersample)
        color, normal, away, weight = (_shrink(values, supersample) for values in band)
        inside = weight > 0
        mean = np.clip(color / np.maximum(weight, 1e-6)[..., None], 0, 1)
        covered[start:stop] = inside
        colors[start:stop] = np.round(mean * top)
        normals[start:stop] = _encode(normal, inside)
        if distance is not None:
            distance[start:stop][inside] = away[inside] / weight[inside]
        progress.update(0.95 * stop / size, "baking textures")
    colors = dilate(colors, covered)
    progress.update(1.0, "textures baked")
    return Bake(
        albedo=np.ascontiguousarray(colors[..., :3]),
        photo=np.ascontiguousarray(colors[..., 3:]) if field.paired else None,
        normal=dilate(normals, covered) if options.normals else None,
        covered=covered,
        distance=distance,
        coverage=baker.finite / max(baker.texels, 1),
        on_surface=baker.reached / max(baker.texels, 1),
        utilization=float(covered.mean()),
    )


def dilate(image: npt.NDArray[Any], covered: BoolArray) -> npt.NDArray[Any]:
    """Give every texel ``(H, W, C)`` outside the charts the value of the nearest one inside."""
    if covered.all() or not covered.any():
        return image
    empty = np.where(covered, np.uint8(0), np.uint8(255))
    label = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[
        1
    ]
    # Band by band, and 32-bit indices: at 8k every whole array of them is half a gigabyte.
    table = np.zeros(int(label.max()) + 1, dtype=np.int32)
    width = covered.shape[1]
    bands = range(0, len(covered), max(1, BAND_TEXELS // width))
    for start in bands:
        inside = covered[start : start + bands.step]
        places = (np.flatnonzero(inside) + start * width).astype(np.int32)
        table[label[start : start + bands.step][inside]] = places
    out = image.copy()
    texels = image.reshape(-1, image.shape[2])
    for start in bands:
        gaps = ~covered[start : start + bands.step]
        out[start : start + bands.step][gaps] = texels[
            table[label[start : start + bands.step][gaps]]
        ]
    return out


def normal_weights(samples: int) -> tuple[FloatArray, FloatArray]:
    """Where along the normal (in -1..1, outside first) albedo is read, and with which weight.

    NeuS's discrete opacity ``max((Phi(f_i) - Phi(f_i+1)) / Phi(f_i), 0)`` for ``f = depth``, with
    the logistic's spread a quarter of the half length.
    """
    if samples == 1:
        return np.zeros(1), np.ones(1)
    edges = np.linspace(1.0, -1.0, samples + 1)
    phi = 1.0 / (1.0 + np.exp(-4.0 * edges))
    alpha = np.clip((phi[:-1] - phi[1:]) / phi[:-1], 0.0, 1.0)
    through = np.concatenate([[1.0], np.cumprod(1.0 - alpha)[:-1]])
    weights = through * alpha
    return (edges[:-1] + edges[1:]) / 2, weights / weights.sum()


class _Baker:
    """Bakes bands of rows; keeps the counts for the report."""

    def __init__(
        self,
        field: ClippedField,
        dense: DenseSurface,
        vertices: FloatArray,
        faces: IntArray,
        atlas: Atlas,
        size: int,
        options: BakeOptions,
        calm: Calm | None,
    ) -> None:
        self.calm = calm
        self.field, self.dense, self.atlas, self.size = field, dense, atlas, size
        self.channels = 6 if field.paired else 3
        self.device, self.reach = options.device, options.reach
        self.query = MeshQuery(dense.vertices, dense.faces, options.device)
        self.low = vertices[atlas.source]
        self.normals = vertex_normals(vertices, faces)[atlas.source]
        self.tangents, self.signs = tangent_frames(self.low, self.normals, atlas)
        # Farther than this from the decimated mesh the closest point belongs to something else.
        edge = np.linalg.norm(self.low[atlas.faces[:, 0]] - self.low[atlas.faces[:, 1]], axis=1)
        self.limit = float(np.median(edge))
        self.offsets, self.weights = normal_weights(options.volume[0])
        self.half_length = options.volume[1]
        self.stride = max(1, size // VOLUME_TEXELS)
        self.texels = self.finite = self.reached = 0

    def band(self, first_row: int, rows: int) -> tuple[Float32Array, ...]:
        """Colours, normal, distance and weight of ``rows`` rows of (super)texels."""
        owner, weights = rasterize(
            self.atlas.uv, self.atlas.faces, self.size, self.size, first_row, rows, self.device
        )
        inside = owner >= 0
        colors = np.zeros((rows, self.size, self.channels), dtype=np.float32)
        normal = np.zeros((rows, self.size, 3), dtype=np.float32)
        filled = np.zeros((rows, self.size), dtype=np.float32)
        away = np.zeros((rows, self.size), dtype=np.float32)
        if inside.any():
            corners = self.atlas.faces[owner[inside]]
            bary = weights[inside].astype(np.float64)
            place, direction, distance = self._on_surface(corners, bary)
            color = self._calmed(self._accumulated(place, direction, inside), corners, bary)
            good = np.isfinite(color).all(axis=1)
            self.texels += len(good)
            self.finite += int(good.sum())
            colors[inside] = np.where(good[:, None], color, 0.0)
            filled[inside], away[inside] = good, np.where(good, distance, 0.0)
            normal[inside] = self._tangent_space(corners, bary, direction)
        return colors, normal, away, filled

    def _on_surface(
        self, corners: IntArray, bary: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Points ``(N, 3)`` of the level set over the mesh, normals there, and how far they are."""
        start = np.einsum("nk,nkc->nc", bary, self.low[corners])
        smooth = np.einsum("nk,nkc->nc", bary, self.normals[corners])
        hits = self.query.closest(start)
        place, direction = self._at(hits)
        facing = np.einsum("ij,ij->i", direction, smooth) > 0
        if self.reach is None:
            good = facing & (hits.distance < self.limit)
        else:
            place, direction, facing = self._along(start, _unit(smooth), place, direction, facing)
            good = facing & (hits.distance < self.reach)
        self.reached += int(good.sum())
        # An artist's mesh takes the nearest colour however far it is; the report says how far.
        keep = (good if self.reach is None else facing)[:, None]
        out = np.where(keep, place, start), np.where(keep, direction, _unit(smooth))
        return *out, hits.distance

    def _at(self, hits: Hits) -> tuple[FloatArray, FloatArray]:
        place = interpolate(self.dense.vertices, self.dense.faces, hits)
        return place, _unit(interpolate(self.dense.normals, self.dense.faces, hits))

    def _along(
        self,
        start: FloatArray,
        normal: FloatArray,
        place: FloatArray,
        direction: FloatArray,
        facing: BoolArray,
    ) -> tuple[FloatArray, FloatArray, BoolArray]:
        """The level set straight above or below where it is within reach, else as given.

        Along the normal neighbouring texels get neighbouring places; closest points of a coarse
        mesh in a hollow bunch up.
        """
        assert self.reach is not None
        best = np.full(len(start), self.reach)
        place, direction, facing = place.copy(), direction.copy(), facing.copy()
        for side in (1.0, -1.0):
            hits = self.query.cast(start, side * normal, self.reach)
            found, turned = self._at(hits)
            good = (hits.face >= 0) & (hits.distance < best)
            good &= np.einsum("ij,ij->i", turned, normal) > 0.3
            place[good], direction[good], best[good] = (
                found[good],
                turned[good],
                hits.distance[good],
            )
            facing |= good
        return place, direction, facing

    def _accumulated(
        self, place: FloatArray, direction: FloatArray, inside: BoolArray
    ) -> FloatArray:
        """Colours ``(N, C)`` accumulated along the normal at the ``inside (H, W)`` texels."""
        if self.stride == 1 or len(self.offsets) == 1:
            return self._colors(place, direction)
        step = self.stride
        chosen = np.zeros_like(inside)
        chosen[step // 2 :: step, step // 2 :: step] = True
        chosen &= inside
        rows = chosen[inside]
        color = np.asarray(self._read(place), dtype=np.float64)
        rest = np.zeros((*inside.shape, self.channels + 1), dtype=np.float32)
        rest[chosen, :-1] = np.nan_to_num(self._colors(place[rows], direction[rows]) - color[rows])
        rest[chosen, -1] = 1.0
        # Blocks without a place of their own take their neighbours' share, or none.
        size = inside.shape[1], inside.shape[0]
        spread = [
            cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)[inside]
            for plane in np.moveaxis(rest[step // 2 :: step, step // 2 :: step], 2, 0)
        ]
        share = np.maximum(spread.pop(), 1e-3)
        color += np.stack(spread, axis=1) / share[:, None]
        return color

    def _read(self, place: FloatArray) -> Float32Array:
        return (self.field.color_pair if self.field.paired else self.field.color)(place)

    def _colors(self, place: FloatArray, direction: FloatArray) -> FloatArray:
        out = np.zeros((len(place), self.channels))
        for offset, weight in zip(self.offsets, self.weights, strict=True):
            out += weight * self._read(place + offset * self.half_length * direction)
        return out

    def _calmed(self, color: FloatArray, corners: IntArray, bary: FloatArray) -> FloatArray:
        if self.calm is None:
            return color
        vertex = self.atlas.source[corners]
        weight = np.einsum("nk,nk->n", bary, self.calm.weight[vertex])[:, None]
        smooth = np.einsum("nk,nkc->nc", bary, self.calm.colors[vertex])
        # A field may have no colour at all inside the head.
        return np.where(weight > 0.999, smooth, (1 - weight) * color + weight * smooth)

    def _tangent_space(
        self, corners: IntArray, bary: FloatArray, direction: FloatArray
    ) -> FloatArray:
        # MikkTSpace: interpolated normal and tangent are used as they are, not renormalized.
        normal = np.einsum("nk,nkc->nc", bary, self.normals[corners])
        tangent = np.einsum("nk,nkc->nc", bary, self.tangents[corners])
        bitangent = self.signs[corners[:, 0], None] * np.cross(normal, tangent)
        frame = np.stack([tangent, bitangent, normal], axis=2)
        determinant = np.linalg.det(frame)
        safe = np.abs(determinant) > 1e-6
        frame[~safe] = np.eye(3)
        local = np.linalg.solve(frame, direction[..., None])[..., 0]
        return np.where(safe[:, None], _unit(local), [0.0, 0.0, 1.0])


def tangent_frames(
    vertices: FloatArray, normals: FloatArray, atlas: Atlas
) -> tuple[FloatArray, FloatArray]:
    """Tangents ``(N, 3)`` of the atlas vertices and the sign ``(N,)`` of their bitangents.

    Mikkelsen 2008 (MikkTSpace): face tangents projected into the vertex plane, weighted by the
    corner angle, summed over the faces that share position, normal and UV.
    """
    faces = atlas.faces
    corner, uv = vertices[faces], atlas.uv[faces]
    p1, p2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    t1, t2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = t1[:, 0] * t2[:, 1] - t1[:, 1] * t2[:, 0]
    sign = np.where(area >= 0, 1.0, -1.0)
    raw = sign[:, None] * (t2[:, 1:2] * p1 - t1[:, 1:2] * p2)
    angles = corner_angles(corner)
    total = np.zeros_like(vertices)
    signs = np.ones(len(vertices))
    for k in range(3):
        n = normals[faces[:, k]]
        flat = _unit(raw - np.einsum("ij,ij->i", raw, n)[:, None] * n)
        for axis in range(3):
            weights = angles[:, k] * flat[:, axis]
            total[:, axis] += np.bincount(faces[:, k], weights, minlength=len(vertices))
        signs[faces[:, k]] = sign
    return _unit(total), signs


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def _shrink(values: Float32Array, factor: int) -> Float32Array:
    """Sum over ``factor`` x ``factor`` blocks."""
    if factor == 1:
        return values
    h, w = values.shape[:2]
    blocks = values.reshape(h // factor, factor, w // factor, factor, *values.shape[2:])
    return np.asarray(blocks.sum(axis=(1, 3)), dtype=np.float32)


def _encode(normal: Float32Array, covered: npt.NDArray[np.bool_]) -> ByteImage:
    unit = np.where(covered[..., None], normal, np.array([0.0, 0.0, 1.0], dtype=np.float32))
    unit = unit / np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), 1e-12)
    return np.asarray(np.round((unit * 0.5 + 0.5) * 255), dtype=np.uint8)
