"""Packing flattened charts into a square with xatlas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xatlas

from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
PACK_ROUNDS = 5
# How far (in texels) xatlas may leave a vertex from where moving the chart rigidly puts it.
RIGID_TOLERANCE = 0.05


def pack_square(
    charts: list[FloatArray], triangles: list[IntArray], size: int, padding: int
) -> list[FloatArray]:
    """Move and turn charts so that they fill a square without touching.

    Args:
        charts: ``(N, 2)`` per chart; one common scale is chosen, relative sizes are kept.
        triangles: ``(M, 3)`` per chart.
        size: Side of the square in texels.
        padding: Texels between charts.

    Returns:
        ``(N, 2)`` in 0..1 per chart.
    """
    area = sum(float(planar_areas(uv[t]).sum()) for uv, t in zip(charts, triangles, strict=True))
    texels = size * np.sqrt(0.72 / max(area, 1e-30))
    best: tuple[float, list[FloatArray]] | None = None
    low, high = 0.0, np.inf
    rounds = 0
    while rounds < PACK_ROUNDS or best is None:
        placed, extent = _pack(charts, triangles, texels, padding)
        if extent <= size:
            low = texels
            if best is None or texels > best[0]:
                best = (texels, placed)
        else:
            high = texels
        if 0 < low and high < np.inf:
            texels = 0.5 * (low + high)
        else:
            texels *= 0.985 * size / extent if extent > size else min(1.3, 1.01 * size / extent)
        rounds += 1
    return [uv / size for uv in best[1]]


def packs_rigidly(uv: FloatArray, triangles: IntArray) -> bool:
    """Whether xatlas keeps the chart in one piece.

    It breaks charts with needle-thin triangles up and leaves vertices behind.
    """
    low = uv.min(axis=0)
    scale = 500.0 / max(float((uv - low).max()), 1e-12)
    try:
        _pack([uv], [triangles], scale, 4)
    except _BrokenChartError:
        return False
    return True


def planar_areas(corners: FloatArray) -> FloatArray:
    """Signed areas ``(F,)`` of planar triangles ``(F, 3, 2)``."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]))


class _BrokenChartError(Exception):
    """xatlas took a chart apart."""


def _pack(
    charts: list[FloatArray], triangles: list[IntArray], texels: float, padding: int
) -> tuple[list[FloatArray], float]:
    """Pack at a fixed scale: positions in texels, and the side of the square that they need."""
    atlas = xatlas.Atlas()
    local = [(uv - uv.min(axis=0)) * texels for uv in charts]
    for uv, faces in zip(local, triangles, strict=True):
        atlas.add_uv_mesh(uv.astype(np.float32), faces.astype(np.uint32))
    options = xatlas.PackOptions()
    options.padding = padding
    options.texels_per_unit = 1.0
    options.rotate_charts_to_axis = False
    atlas.generate(xatlas.ChartOptions(), options)
    placed = []
    for index, uv in enumerate(local):
        source, _, packed = atlas[index]
        target = np.asarray(packed, dtype=np.float64) * [atlas.width, atlas.height]
        placed.append(_move_rigidly(uv, uv[source], target))
    margin = padding / 2
    low = np.min([uv.min(axis=0) for uv in placed], axis=0)
    placed = [uv - low + margin for uv in placed]
    high = np.max([uv.max(axis=0) for uv in placed], axis=0) + margin
    return placed, float(high.max())


def _move_rigidly(uv: FloatArray, source: FloatArray, target: FloatArray) -> FloatArray:
    """Apply to ``uv`` the motion (mirroring allowed) that takes ``source`` to ``target``.

    Raises:
        _BrokenChartError: No single motion does.
    """
    if not len(source):
        raise _BrokenChartError
    center, goal = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((source - center).T @ (target - goal))
    turn = u @ vt
    off = np.linalg.norm((source - center) @ turn + goal - target, axis=1).max()
    if off > RIGID_TOLERANCE:
        raise _BrokenChartError
    return np.asarray((uv - center) @ turn + goal)
