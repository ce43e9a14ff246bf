"""Style enhancement (SE) of the paper, on the explicit texture: the exemplar's line and palette.

The paper only says that the texture is "further enhanced in an explicit manner" (3.3.2, figure 7
f). Here lines get the exemplar's sharpness by a coherence-enhancing shock filter (Weickert 2003),
which moves blurred edges together without ringing, gated by how strong the edge is so that skin
keeps its tone; and colours take a mean-shift step (Comaniciu & Meer 2002) towards the exemplar's
palette. The first fades out towards the charts' borders, where it would see the fill beyond; the
second depends on a texel's own colour alone and must not fade: both sides of a seam move alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Float32Array
from .bake import TextureImage

BoolArray = npt.NDArray[np.bool_]
# All lengths are in texels of a 2048 texture, where the face has about 4 texels per millimetre.
REFERENCE = 2048
FADE = 10.0
# Weickert's integration and inner scales, and how often edges move by one texel.
STRUCTURE, INNER, ROUNDS = 5, 3, 3
# CIELAB gradient (L per texel, after a blur of one texel) from which an edge is a line.
EDGE_LOW, EDGE_HIGH = 1.0, 4.0
# Spread of the mean shift in CIELAB, its reach, and how far a full step goes.
SPREAD, PULL = 9.0, 0.5
PALETTE = 24
TILE, HALO = 2048, 48
CHUNK = 1 << 17
# A background of the exemplar is one colour at most of its border.
BORDER_TOLERANCE = 6.0


@dataclass(frozen=True)
class StyleTarget:
    """What is taken from the exemplar.

    Attributes:
        palette: ``(K, 3)`` CIELAB, L 0..100.
        sharpness: How fast its lines change, relative to their contrast, 0 to 1.
    """

    palette: Float32Array
    sharpness: float


def style_target(exemplar: ByteImage) -> StyleTarget:
    """Palette and line sharpness of an exemplar ``(H, W, 3)``."""
    lab = to_lab(exemplar)
    inside = _foreground(lab)
    colors = lab[inside]
    step = max(1, len(colors) // 20_000)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.1)
    cv2.setRNGSeed(0)
    count = min(PALETTE, len(np.unique(colors[::step].round(), axis=0)))
    samples = np.ascontiguousarray(colors[::step])
    _, _, centers = cv2.kmeans(samples, count, np.empty(0), criteria, 2, cv2.KMEANS_PP_CENTERS)
    return StyleTarget(np.asarray(centers, np.float32), _sharpness(lab[..., 0]))


def enhance(
    albedo: TextureImage, covered: BoolArray, target: StyleTarget, strength: float
) -> TextureImage:
    """The albedo ``(S, S, 3)`` with the exemplar's line and palette, same type.

    Args:
        albedo: Filled outside the charts (dilated).
        covered: Texels ``(S, S)`` of the charts.
        target: From :func:`style_target`.
        strength: 0 changes nothing, 1 is a full step.
    """
    if strength <= 0:
        return albedo
    scale = albedo.shape[0] / REFERENCE
    out = albedo.copy()
    top = float(np.iinfo(albedo.dtype).max)
    weight = _away_from_seams(covered, FADE * max(scale, 0.25))
    size = albedo.shape[0]
    for y in range(0, size, TILE):
        for x in range(0, size, TILE):
            rows = slice(max(0, y - HALO), min(size, y + TILE + HALO))
            columns = slice(max(0, x - HALO), min(size, x + TILE + HALO))
            if not covered[rows, columns].any():
                continue  # between the charts there is nothing to enhance
            before = albedo[rows, columns].astype(np.float32) / top
            lines = weight[rows, columns] * target.sharpness
            after = _enhanced(before, lines, target.palette, min(strength, 1.0), scale)
            mixed = np.round(top * np.clip(after, 0, 1))
            inner = (
                slice(y - rows.start, y - rows.start + TILE),
                slice(x - columns.start, x - columns.start + TILE),
            )
            kept = mixed[inner].astype(albedo.dtype)
            out[y : y + kept.shape[0], x : x + kept.shape[1]] = kept
    return out


def to_lab(image: npt.NDArray[np.generic]) -> Float32Array:
    """CIELAB (L 0..100) of sRGB bytes or of values in 0..1."""
    values = image.astype(np.float32)
    values = values / 255.0 if image.dtype == np.uint8 else values
    return np.asarray(cv2.cvtColor(values, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _enhanced(
    rgb: Float32Array, lines: Float32Array, palette: Float32Array, strength: float, scale: float
) -> Float32Array:
    sharp = rgb
    for _ in range(max(1, round(ROUNDS * scale))):
        sharp = _shock(sharp)
    lab, crisp = to_lab(rgb), to_lab(sharp)
    line = _line_weight(lab[..., 0]) * strength * lines
    mixed = lab + line[..., None] * (crisp - lab)
    mixed = mixed + strength * PULL * _mean_shift(mixed, palette)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), dtype=np.float32)


def _shock(rgb: Float32Array) -> Float32Array:
    """One step of the coherence-enhancing shock filter: edges move towards each other."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    eigen = cv2.cornerEigenValsAndVecs(gray, STRUCTURE, 3)
    x, y = eigen[..., 2], eigen[..., 3]  # the stronger direction: across the edge
    smooth = cv2.GaussianBlur(gray, (0, 0), 1.0)
    second = x * x * cv2.Sobel(smooth, cv2.CV_32F, 2, 0, ksize=INNER)
    second += 2 * x * y * cv2.Sobel(smooth, cv2.CV_32F, 1, 1, ksize=INNER)
    second += y * y * cv2.Sobel(smooth, cv2.CV_32F, 0, 2, ksize=INNER)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    valley = (second > 0)[..., None]
    moved = np.where(valley, cv2.erode(rgb, cross), cv2.dilate(rgb, cross))
    return np.asarray(0.5 * rgb + 0.5 * moved, dtype=np.float32)


def _line_weight(lightness: Float32Array) -> Float32Array:
    """1 at lines, 0 in shading and on noise."""
    smooth = cv2.GaussianBlur(lightness, (0, 0), 1.0)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    t = np.clip((np.hypot(dx, dy) - EDGE_LOW) / (EDGE_HIGH - EDGE_LOW), 0, 1)
    weight = (t * t * (3 - 2 * t)).astype(np.float32)
    # The flanks of a line move with it.
    return np.asarray(cv2.GaussianBlur(cv2.dilate(weight, np.ones((5, 5))), (0, 0), 1.5))


def _mean_shift(lab: Float32Array, palette: Float32Array) -> Float32Array:
    """Towards the weighted mean of the palette's near colours; nothing where none is near."""
    # Lightness carries the modelling of the face: it is judged, and moved, less than the hue.
    metric = np.array([0.5, 1.0, 1.0], np.float32)
    centers = palette * metric
    flat = lab.reshape(-1, 3)
    step = np.empty_like(flat)
    for start in range(0, len(flat), CHUNK):
        colors = flat[start : start + CHUNK]
        seen = colors * metric
        away = (seen**2).sum(axis=1)[:, None] - 2 * seen @ centers.T + (centers**2).sum(axis=1)
        near = np.exp(-away / (2 * SPREAD**2))
        total = near.sum(axis=1)[:, None]
        mean = near @ palette / np.maximum(total, 1e-6)
        step[start : start + CHUNK] = (mean - colors) * metric * np.minimum(total, 1.0)
    return np.asarray(step.reshape(lab.shape), dtype=np.float32)


def _away_from_seams(covered: BoolArray, fade: float) -> Float32Array:
    """0 at the charts' borders, 1 from ``fade`` texels on."""
    distance = cv2.distanceTransform(covered.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.clip((distance - 1.5) / fade, 0, 1), dtype=np.float32)


def _sharpness(lightness: Float32Array) -> float:
    """How much of its lines' contrast an exemplar spends within a texel or two, 0 to 1."""
    size = max(lightness.shape)
    small = cv2.resize(lightness, None, fx=512 / size, fy=512 / size, interpolation=cv2.INTER_AREA)
    step = np.hypot(*(cv2.Sobel(small, cv2.CV_32F, *d, ksize=3, scale=0.125) for d in _AXES))
    strong = step > max(float(np.percentile(step, 97)), 1.0)
    if not strong.any():
        return 0.0
    swing = cv2.dilate(small, np.ones((9, 9))) - cv2.erode(small, np.ones((9, 9)))
    share = float(np.median(step[strong] / np.maximum(swing[strong], 1e-3)))
    # A step edge resolved by this picture reaches a third of its swing per pixel.
    return float(np.clip(share / 0.3, 0.0, 1.0))


_AXES = ((1, 0), (0, 1))


def _foreground(lab: Float32Array) -> BoolArray:
    """Everything but a flat background: the colour of most of the border."""
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    back = np.median(border, axis=0)
    flat = np.linalg.norm(border - back, axis=1) < BORDER_TOLERANCE
    inside = np.ones(lab.shape[:2], dtype=bool)
    if flat.mean() > 0.6:
        inside = np.linalg.norm(lab - back, axis=2) >= BORDER_TOLERANCE
    return inside if inside.mean() > 0.05 else np.ones_like(inside)
