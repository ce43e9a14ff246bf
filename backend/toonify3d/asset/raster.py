"""Rasterizing UV triangles: which triangle, and where in it, lies under each texel centre."""

# Warp compiles the kernels from their text; its Python stubs do not describe what they may use.
# mypy: disable-error-code="untyped-decorator,misc,attr-defined,index,no-any-return"
# mypy: disable-error-code="var-annotated,valid-type"

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import warp as wp

from ..scene import Float32Array, FloatArray
from ..warp_start import start_warp

IntArray = npt.NDArray[np.int64]
# Two triangles overlap when a texel centre lies deeper than this (in texels) inside both; shared
# edges come nearer than that only by rounding.
OVERLAP_MARGIN = 0.02


@wp.func
def _edge(a: wp.vec2d, b: wp.vec2d, p: wp.vec2d) -> wp.float64:
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])


@wp.kernel
def _cover(
    corners: wp.array(dtype=wp.vec2d, ndim=2),
    first_row: int,
    rows: int,
    width: int,
    margin: wp.float64,
    owner: wp.array(dtype=int, ndim=2),
    count: wp.array(dtype=int, ndim=2),
) -> None:
    face = wp.tid()
    a = corners[face, 0]
    b = corners[face, 1]
    c = corners[face, 2]
    area = _edge(a, b, c)
    if wp.abs(area) > wp.float64(1.0e-12):
        if area < wp.float64(0.0):
            b = corners[face, 2]
            c = corners[face, 1]
        half = wp.float64(0.5)
        x0 = wp.max(int(wp.floor(wp.min(a[0], wp.min(b[0], c[0])) - half)), 0)
        x1 = wp.min(int(wp.ceil(wp.max(a[0], wp.max(b[0], c[0])))), width - 1)
        y0 = wp.max(int(wp.floor(wp.min(a[1], wp.min(b[1], c[1])) - half)), first_row)
        y1 = wp.min(int(wp.ceil(wp.max(a[1], wp.max(b[1], c[1])))), first_row + rows - 1)
        ab = margin * wp.length(b - a)
        bc = margin * wp.length(c - b)
        ca = margin * wp.length(a - c)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                p = wp.vec2d(wp.float64(x) + half, wp.float64(y) + half)
                if _edge(a, b, p) >= ab and _edge(b, c, p) >= bc and _edge(c, a, p) >= ca:
                    # The largest index wins, so that the result does not depend on the order.
                    wp.atomic_max(owner, y - first_row, x, face)
                    wp.atomic_add(count, y - first_row, x, 1)


def _run(
    corners: FloatArray, width: int, first_row: int, rows: int, margin: float, device: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    start_warp()
    owner: Any = wp.full((rows, width), -1, dtype=int, device=device)
    count: Any = wp.zeros((rows, width), dtype=int, device=device)
    points = wp.array(np.ascontiguousarray(corners), dtype=wp.vec2d, device=device)
    wp.launch(
        _cover,
        dim=len(corners),
        inputs=[points, first_row, rows, width, wp.float64(margin), owner, count],
        device=device,
    )
    return owner.numpy(), count.numpy()


def texel_corners(uv: FloatArray, triangles: IntArray, width: int, height: int) -> FloatArray:
    """UV triangles ``(F, 3, 2)`` in texels, row 0 at the top (``v = 1``)."""
    return np.asarray(
        np.stack([uv[:, 0] * width, (1.0 - uv[:, 1]) * height], axis=-1)[triangles],
        dtype=np.float64,
    )


def overlapping_texels(uv: FloatArray, triangles: IntArray, size: int) -> int:
    """How many texels of a ``size`` square lie well inside more than one triangle."""
    corners = texel_corners(uv, triangles, size, size)
    total = 0
    for start in range(0, size, 1024):
        rows = min(1024, size - start)
        total += int((_run(corners, size, start, rows, OVERLAP_MARGIN, "cpu")[1] > 1).sum())
    return total


def overlapping_faces(uv: FloatArray, triangles: IntArray, size: int) -> IntArray:
    """Pairs ``(P, 2)`` of triangles that lie over one another at a texel of a ``size`` square."""
    corners = texel_corners(uv, triangles, size, size)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for start in range(0, size, 1024):
        rows = min(1024, size - start)
        last, count = _run(corners, size, start, rows, OVERLAP_MARGIN, "cpu")
        if (count > 1).any():
            # The largest index wins, so turning the order round finds the smallest one.
            first, _ = _run(corners[::-1], size, start, rows, OVERLAP_MARGIN, "cpu")
            crowded = count > 1
            found.append(
                np.stack([len(corners) - 1 - first[crowded], last[crowded]], axis=1).astype(
                    np.int64
                )
            )
    return np.unique(np.concatenate(found), axis=0)


def rasterize(
    uv: FloatArray,
    triangles: IntArray,
    width: int,
    height: int,
    first_row: int = 0,
    rows: int | None = None,
    device: str = "cpu",
) -> tuple[npt.NDArray[np.int32], Float32Array]:
    """The triangle under each texel centre, and barycentric coordinates there.

    Args:
        uv: ``(N, 2)``, origin at the lower left as in glTF's inverse and OBJ.
        triangles: ``(F, 3)``.
        width: Of the whole texture.
        height: Of the whole texture.
        first_row: First texel row wanted (row 0 is ``v = 1``).
        rows: Texel rows wanted; None for all below ``first_row``.
        device: Warp device.

    Returns:
        ``(rows, width)`` triangle or -1, and ``(rows, width, 3)`` barycentric coordinates.
    """
    rows = height - first_row if rows is None else rows
    corners = texel_corners(uv, triangles, width, height)
    owner, _ = _run(corners, width, first_row, rows, -1e-9, device)
    inside = owner >= 0
    out = np.zeros((rows, width, 3), dtype=np.float32)
    y, x = np.nonzero(inside)
    a, b, c = np.moveaxis(corners[owner[inside]], 1, 0)
    p = np.stack([x + 0.5, y + first_row + 0.5], axis=1)
    area = _cross(b - a, c - a)
    wb, wc = _cross(p - a, c - a) / area, _cross(b - a, p - a) / area
    weights = np.clip(np.stack([1.0 - wb - wc, wb, wc], axis=1), 0.0, 1.0)
    out[inside] = weights / weights.sum(axis=1, keepdims=True)
    return owner, out


def _cross(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
