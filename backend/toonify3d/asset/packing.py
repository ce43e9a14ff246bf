"""Packing flattened charts into a square: first fit on a bitmap, largest chart first.

xatlas was tried and given up: it cuts a scanned head of 30,000 triangles into more than 400
charts, and as a mere packer (``add_uv_mesh``) it takes charts with thin triangles apart, so that
they overlap. Here all free places of a chart come from one correlation of two bitmaps.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2

from ..scene import FloatArray
from .raster import rasterize

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Cells along each side of the packing bitmap, and samples per cell and side when drawing charts.
GRID = 256
FINE = 4
PACK_ROUNDS = 6


def pack_square(
    charts: list[FloatArray], triangles: list[IntArray], size: int, padding: int
) -> list[FloatArray]:
    """Move and turn charts so that they fill a square without touching.

    Args:
        charts: ``(N, 2)`` per chart; one common scale is chosen, relative sizes are kept.
        triangles: ``(M, 3)`` per chart.
        size: Side of the square in texels.
        padding: Texels between charts, at least.

    Returns:
        ``(N, 2)`` in 0..1 per chart.
    """
    upright = [_upright(uv) for uv in charts]
    areas = [float(planar_areas(uv[t]).sum()) for uv, t in zip(upright, triangles, strict=True)]
    order = np.argsort([-area for area in areas])
    gap = padding * GRID / size
    # Scale in cells per unit; the upper bound would need a perfectly full square.
    high = GRID / np.sqrt(max(sum(areas), 1e-30))
    low, best, scale = 0.0, None, 0.85 * high
    rounds = 0
    while best is None or rounds < PACK_ROUNDS:
        placed = _pack(upright, triangles, order, scale, gap)
        if placed is None:
            high = scale
        else:
            low, best = scale, placed
        scale = 0.5 * (low + high) if best is not None else 0.88 * scale
        rounds += 1
    return [uv / GRID for uv in best]


def planar_areas(corners: FloatArray) -> FloatArray:
    """Signed areas ``(F,)`` of planar triangles ``(F, 3, 2)``."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]))


def _upright(uv: FloatArray) -> FloatArray:
    """Turn a chart so that its smallest bounding rectangle has upright sides."""
    (_, _, angle) = cv2.minAreaRect(uv.astype(np.float32))
    turn = np.deg2rad(-angle)
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(uv @ np.array([[c, s], [-s, c]]))


def _pack(
    charts: list[FloatArray],
    triangles: list[IntArray],
    order: IntArray,
    scale: float,
    gap: float,
) -> list[FloatArray] | None:
    """Positions in cells, or None when not everything fits."""
    occupied = np.zeros((GRID, GRID), dtype=bool)
    spectrum = rfft2(occupied.astype(np.float32), (2 * GRID, 2 * GRID))
    placed: list[FloatArray] = [np.zeros((0, 2))] * len(charts)
    reach = int(np.ceil(gap))
    for index in order:
        choice: tuple[int, int, int, FloatArray, BoolArray] | None = None
        for quarter in (0, 1):
            local = _quarter_turn(charts[index], quarter) * scale
            # Half a gap stays free at the border of the square.
            local = local - local.min(axis=0) + gap / 2
            mask = _bitmap(local, triangles[index], gap / 2)
            if mask is None:
                continue
            spot = _first_fit(spectrum, _grown(mask, reach), reach)
            if spot is not None and (choice is None or spot[0] < choice[0]):
                choice = (*spot, local, mask)
        if choice is None:
            return None
        _, y, x, local, mask = choice
        h, w = mask.shape
        occupied[y : y + h, x : x + w] |= mask
        spectrum = rfft2(occupied.astype(np.float32), (2 * GRID, 2 * GRID))
        placed[index] = local + np.array([x, y])
    return placed


def _quarter_turn(uv: FloatArray, quarter: int) -> FloatArray:
    return uv if quarter == 0 else np.stack([-uv[:, 1], uv[:, 0]], axis=1)


def _bitmap(local: FloatArray, triangles: IntArray, border: float) -> BoolArray | None:
    """Cells ``(h, w)`` that a chart touches; None when it is larger than the square."""
    width, height = np.ceil(local.max(axis=0) + border).astype(int)
    if width > GRID or height > GRID:
        return None
    uv = np.stack([local[:, 0] / width, 1.0 - local[:, 1] / height], axis=1)
    owner, _ = rasterize(uv, triangles, width * FINE, height * FINE)
    mask = (owner >= 0).reshape(height, FINE, width, FINE).any(axis=(1, 3))
    # Triangles thinner than the samples are apart: vertices and edge middles count, too.
    corners = local[triangles]
    points = np.concatenate([local, *[(corners[:, k] + corners[:, k - 1]) / 2 for k in range(3)]])
    cell = np.minimum(points.astype(int), [width - 1, height - 1])
    mask[cell[:, 1], cell[:, 0]] = True
    return np.asarray(mask)


def _grown(mask: BoolArray, reach: int) -> BoolArray:
    padded = np.pad(mask.astype(np.uint8), reach)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    return np.asarray(cv2.dilate(padded, kernel) > 0)


def _first_fit(
    spectrum: npt.NDArray[np.complex64], grown: BoolArray, reach: int
) -> tuple[int, int, int] | None:
    """The free place nearest to the corner: its cost, row and column of the ungrown bitmap."""
    shape = (2 * GRID, 2 * GRID)
    kernel = np.conj(rfft2(grown.astype(np.float32), shape))
    clash = irfft2(spectrum * kernel, shape) > 0.5
    h, w = grown.shape[0] - 2 * reach, grown.shape[1] - 2 * reach
    # Shifts of the grown bitmap may be negative: its margin hangs over the border.
    rows, columns = np.arange(GRID - h + 1), np.arange(GRID - w + 1)
    free = ~clash[np.ix_((rows - reach) % shape[0], (columns - reach) % shape[1])]
    if not free.any():
        return None
    cost = np.maximum(rows[:, None] + h, columns[None] + w) * GRID + rows[:, None] + columns[None]
    best = int(np.argmin(np.where(free, cost, np.iinfo(np.int64).max)))
    y, x = divmod(best, len(columns))
    return int(cost[y, x]), y, x
