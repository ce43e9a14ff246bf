"""Warp kernels of the guide grid: visual hull carving and ray tracing in a sampled distance field.

See :class:`toonify3d.snr.guide.Guide`, which owns the arrays.
"""

# mypy: disable-error-code="untyped-decorator,valid-type,misc,no-any-return"
# ruff: noqa: UP018, RUF046 (Warp: a variable that a loop changes is declared by its type's call)
from __future__ import annotations

from typing import Any

import torch
import warp as wp

from .warp_grid import scope_of, view_of, warp_device


@wp.kernel(enable_backward=False)
def _carve(
    projections: wp.array(dtype=wp.mat44),
    shapes: wp.array(dtype=wp.vec3i),
    masks: wp.array(dtype=wp.uint8),
    side: int,
    allowed_misses: int,
    least_views: int,
    lowest: float,
    occupied: wp.array3d(dtype=wp.uint8),
) -> None:
    i, j, k = wp.tid()
    cell = 2.0 / float(side - 1)
    x = wp.vec3(float(i) * cell - 1.0, float(j) * cell - 1.0, float(k) * cell - 1.0)
    misses = int(0)
    seen = int(0)
    inside = wp.uint8(0)
    if wp.length(x) < 1.0 and x[2] > lowest:
        for v in range(projections.shape[0]):
            p = projections[v] * wp.vec4(x[0], x[1], x[2], 1.0)
            if p[2] > 1.0e-6:
                column = int(wp.floor(p[0] / p[2]))
                row = int(wp.floor(p[1] / p[2]))
                width = shapes[v][0]
                if column >= 0 and row >= 0 and column < width and row < shapes[v][1]:
                    seen += 1
                    if masks[shapes[v][2] + row * width + column] == wp.uint8(0):
                        misses += 1
                        if misses > allowed_misses:
                            break
        if misses <= allowed_misses and seen >= least_views:
            inside = wp.uint8(1)
    occupied[i, j, k] = inside


@wp.func
def _lookup(values: wp.array3d(dtype=float), p: wp.vec3) -> float:
    side = values.shape[0]
    scale = 0.5 * float(side - 1)
    top = float(side - 1)
    sx = wp.clamp((p[0] + 1.0) * scale, 0.0, top)
    sy = wp.clamp((p[1] + 1.0) * scale, 0.0, top)
    sz = wp.clamp((p[2] + 1.0) * scale, 0.0, top)
    x = wp.min(int(sx), side - 2)
    y = wp.min(int(sy), side - 2)
    z = wp.min(int(sz), side - 2)
    fx = sx - float(x)
    fy = sy - float(y)
    fz = sz - float(z)
    c00 = wp.lerp(values[x, y, z], values[x + 1, y, z], fx)
    c10 = wp.lerp(values[x, y + 1, z], values[x + 1, y + 1, z], fx)
    c01 = wp.lerp(values[x, y, z + 1], values[x + 1, y, z + 1], fx)
    c11 = wp.lerp(values[x, y + 1, z + 1], values[x + 1, y + 1, z + 1], fx)
    return wp.lerp(wp.lerp(c00, c10, fy), wp.lerp(c01, c11, fy), fz)


@wp.kernel(enable_backward=False)
def _interpolate(
    values: wp.array3d(dtype=float), points: wp.array(dtype=wp.vec3), out: wp.array(dtype=float)
) -> None:
    n = wp.tid()
    out[n] = _lookup(values, points[n])


@wp.kernel(enable_backward=False)
def _trace(
    values: wp.array3d(dtype=float),
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    steps: int,
    result: wp.array(dtype=wp.vec3),
) -> None:
    n = wp.tid()
    o = origins[n]
    d = directions[n]
    cell = 2.0 / float(values.shape[0] - 1)
    middle = -wp.dot(o, d)
    half = 1.0 - (wp.dot(o, o) - middle * middle)
    if half <= 0.0:
        result[n] = wp.vec3(wp.max(middle, 1.0e-3), 1.0e3, 0.0)
        return
    half = wp.sqrt(half)
    t = wp.max(middle - half, 0.0)
    far = middle + half
    previous = float(1.0e3)
    t_previous = t
    best = float(1.0e3)
    t_best = t
    for _ in range(steps):
        if t > far:
            break
        value = _lookup(values, o + d * t)
        if value < best:
            best = value
            t_best = t
        if value <= 0.0:
            if previous < 1.0e3:
                # The crossing lies between the last two samples: regula falsi, twice.
                outside = previous
                inside = value
                a = t_previous
                b = t
                for _k in range(2):
                    t_best = a + (b - a) * outside / wp.max(outside - inside, 1.0e-9)
                    best = _lookup(values, o + d * t_best)
                    if best > 0.0:
                        a = t_best
                        outside = best
                    else:
                        b = t_best
                        inside = best
                best = wp.min(best, 0.0)
            break
        previous = value
        t_previous = t
        t = t + wp.max(0.8 * value, 0.25 * cell)
    ahead = _lookup(values, o + d * (t_best + 0.5 * cell))
    behind = _lookup(values, o + d * (t_best - 0.5 * cell))
    result[n] = wp.vec3(t_best, best, (ahead - behind) / cell)


@wp.kernel(enable_backward=False)
def _fuse(
    projections: wp.array(dtype=wp.mat44),
    shapes: wp.array(dtype=wp.vec3i),
    depths: wp.array(dtype=float),
    weights: wp.array(dtype=float),
    truncation: float,
    fused: wp.array3d(dtype=float),
    total: wp.array3d(dtype=float),
) -> None:
    i, j, k = wp.tid()
    cell = 2.0 / float(fused.shape[0] - 1)
    x = wp.vec4(float(i) * cell - 1.0, float(j) * cell - 1.0, float(k) * cell - 1.0, 1.0)
    distance = float(0.0)
    weight = float(0.0)
    for v in range(projections.shape[0]):
        p = projections[v] * x
        if p[2] > 1.0e-6:
            column = int(wp.floor(p[0] / p[2]))
            row = int(wp.floor(p[1] / p[2]))
            width = shapes[v][0]
            if column >= 0 and row >= 0 and column < width and row < shapes[v][1]:
                pixel = shapes[v][2] + row * width + column
                before = depths[pixel] - p[2]
                # What lies far behind the seen surface is hidden, not measured.
                if depths[pixel] > 0.0 and before > -truncation:
                    distance += weights[pixel] * wp.min(before, truncation)
                    weight += weights[pixel]
    fused[i, j, k] = distance / wp.max(weight, 1.0e-6)
    total[i, j, k] = weight


def fuse_depth(
    projections: torch.Tensor,
    shapes: torch.Tensor,
    depths: torch.Tensor,
    weights: torch.Tensor,
    truncation: float,
    side: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Truncated signed distance of depth maps (Curless and Levoy 1996) on a grid.

    Args:
        projections: ``(V, 4, 4)`` unit space to homogeneous pixels, third row giving the depth
            in unit-space lengths.
        shapes: ``(V, 3)`` int32 rows (width, height, first pixel in ``depths``).
        depths: All depth maps, flattened, in unit-space lengths; 0 is none.
        weights: Confidence of each.
        truncation: Distance at which a measurement stops saying anything.
        side: Vertices per axis over ``[-1, 1]``.

    Returns:
        Mean signed distance (positive in front) and total weight, both ``(side, side, side)``.
    """
    device = warp_device(depths)
    fused = torch.empty((side, side, side), device=depths.device)
    total = torch.empty_like(fused)
    inputs: list[Any] = [
        view_of(projections, wp.mat44),
        view_of(shapes, wp.vec3i),
        view_of(depths, wp.float32),
        view_of(weights, wp.float32),
        truncation,
        view_of(fused, wp.float32),
        view_of(total, wp.float32),
    ]
    with scope_of(device, depths):
        wp.launch(_fuse, dim=(side, side, side), inputs=inputs, device=device)
    return fused, total


def carve(
    projections: torch.Tensor,
    shapes: torch.Tensor,
    masks: torch.Tensor,
    side: int,
    allowed_misses: int,
    least_views: int,
    lowest: float,
) -> torch.Tensor:
    """Occupancy ``(side, side, side)`` uint8 of the visual hull in the unit ball.

    Args:
        projections: ``(V, 4, 4)`` unit space to homogeneous pixels (last row unused).
        shapes: ``(V, 3)`` int32 rows (width, height, first byte in ``masks``).
        masks: All masks, flattened and concatenated, uint8; 0 is background.
        side: Vertices per axis over ``[-1, 1]``.
        allowed_misses: Views that may contradict a point before it is carved away.
        least_views: Views that must see a point; a point outside an image is unknown there.
        lowest: Unit-space height below which everything is empty.
    """
    device = warp_device(masks)
    occupied = torch.empty((side, side, side), dtype=torch.uint8, device=masks.device)
    inputs = [
        view_of(projections, wp.mat44),
        view_of(shapes, wp.vec3i),
        view_of(masks, wp.uint8),
        side,
        allowed_misses,
        least_views,
        lowest,
        view_of(occupied, wp.uint8),
    ]
    with scope_of(device, masks):
        wp.launch(_carve, dim=(side, side, side), inputs=inputs, device=device)
    return occupied


def interpolate(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Trilinear values ``(N,)`` of a grid over ``[-1, 1]^3`` at points ``(N, 3)``, clamped."""
    device = warp_device(values)
    out = torch.empty(len(points), device=points.device)
    if len(points):
        inputs: list[Any] = [
            view_of(values, wp.float32),
            view_of(points, wp.vec3),
            view_of(out, wp.float32),
        ]
        with scope_of(device, values):
            wp.launch(_interpolate, dim=len(points), inputs=inputs, device=device)
    return out


def trace_grid(
    values: torch.Tensor, origins: torch.Tensor, directions: torch.Tensor, steps: int = 192
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First crossing of rays ``(R, 3)`` with the zero level of a sampled distance field.

    Returns:
        Distance along the ray of the crossing, or of the closest approach where there is none,
        ``(R,)``; the grid's value there ``(R,)``, at most 0 for a crossing; the slope of the
        grid along the ray there ``(R,)``.
    """
    device = warp_device(values)
    result = torch.empty((len(origins), 3), device=origins.device)
    if len(origins):
        inputs: list[Any] = [
            view_of(values, wp.float32),
            view_of(origins, wp.vec3),
            view_of(directions, wp.vec3),
            steps,
            view_of(result, wp.vec3),
        ]
        with scope_of(device, values):
            wp.launch(_trace, dim=len(origins), inputs=inputs, device=device)
    return result[:, 0].contiguous(), result[:, 1].contiguous(), result[:, 2].contiguous()
