"""Warp kernels of the multi-resolution grid: features and their spatial Jacobian in one pass.

One source serves CPU and CUDA. Both outputs are linear in the table, so one scatter kernel is the
whole backward pass and the SDF normal needs no double backward (``research/method_anchors`` A2).
The float64 oracle is :mod:`toonify3d.snr.reference_grid`.

A level of resolution ``r`` has ``r`` cells per axis over the cube ``[-1, 1]^3``. Its vertices are
stored densely when they fit into the table, else hashed as in Instant-NGP (Mueller et al. 2022).
Positions outside the cube are clamped to it; the Jacobian along a clamped axis is zero.
"""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
import warp as wp

from ..warp_start import start_warp

PRIME_Y = wp.constant(wp.uint32(2654435761))
PRIME_Z = wp.constant(wp.uint32(805459861))


@wp.func
def _vertex(x: int, y: int, z: int, resolution: int, size: int, offset: int) -> int:
    side = resolution + 1
    if side * side * side <= size:
        return offset + x + side * (y + side * z)
    key = wp.uint32(x) ^ (wp.uint32(y) * PRIME_Y) ^ (wp.uint32(z) * PRIME_Z)
    return offset + int(key & wp.uint32(size - 1))


@wp.func
def _scaled(x: float, resolution: int) -> float:
    return wp.clamp(0.5 * (x + 1.0), 0.0, 1.0) * float(resolution)


@wp.func
def _cell(scaled: float, resolution: int) -> int:
    return wp.min(int(scaled), resolution - 1)


@wp.func
def _slope(x: float, resolution: int) -> float:
    if x < -1.0 or x > 1.0:
        return 0.0
    return 0.5 * float(resolution)


@wp.kernel(enable_backward=False)
def _encode(
    positions: wp.array(dtype=wp.vec3),
    table: wp.array(dtype=Any),
    levels: wp.array(dtype=wp.vec3i),
    first_level: int,
    with_jacobian: int,
    features: wp.array2d(dtype=Any),
    jacobian: wp.array3d(dtype=Any),
) -> None:
    i, n = wp.tid()
    level = first_level + i
    resolution = levels[level][0]
    size = levels[level][1]
    offset = levels[level][2]
    p = positions[n]
    sx = _scaled(p[0], resolution)
    sy = _scaled(p[1], resolution)
    sz = _scaled(p[2], resolution)
    x = _cell(sx, resolution)
    y = _cell(sy, resolution)
    z = _cell(sz, resolution)
    fx = sx - float(x)
    fy = sy - float(y)
    fz = sz - float(z)
    v000 = table[_vertex(x, y, z, resolution, size, offset)]
    v010 = table[_vertex(x, y + 1, z, resolution, size, offset)]
    v001 = table[_vertex(x, y, z + 1, resolution, size, offset)]
    v011 = table[_vertex(x, y + 1, z + 1, resolution, size, offset)]
    dx00 = table[_vertex(x + 1, y, z, resolution, size, offset)] - v000
    dx10 = table[_vertex(x + 1, y + 1, z, resolution, size, offset)] - v010
    dx01 = table[_vertex(x + 1, y, z + 1, resolution, size, offset)] - v001
    dx11 = table[_vertex(x + 1, y + 1, z + 1, resolution, size, offset)] - v011
    a00 = v000 + dx00 * fx
    a01 = v001 + dx01 * fx
    dy0 = v010 + dx10 * fx - a00
    dy1 = v011 + dx11 * fx - a01
    b0 = a00 + dy0 * fy
    dz = a01 + dy1 * fy - b0
    features[n, level] = b0 + dz * fz
    if with_jacobian != 0:
        dx0 = dx00 + (dx10 - dx00) * fy
        dx1 = dx01 + (dx11 - dx01) * fy
        jacobian[n, 0, level] = (dx0 + (dx1 - dx0) * fz) * _slope(p[0], resolution)
        jacobian[n, 1, level] = (dy0 + (dy1 - dy0) * fz) * _slope(p[1], resolution)
        jacobian[n, 2, level] = dz * _slope(p[2], resolution)


@wp.kernel(enable_backward=False)
def _scatter(
    positions: wp.array(dtype=wp.vec3),
    levels: wp.array(dtype=wp.vec3i),
    first_level: int,
    with_jacobian: int,
    grad_features: wp.array2d(dtype=Any),
    grad_jacobian: wp.array3d(dtype=Any),
    grad_table: wp.array(dtype=Any),
) -> None:
    # The transpose of _encode, lerp by lerp from the last to the first.
    i, n = wp.tid()
    level = first_level + i
    resolution = levels[level][0]
    size = levels[level][1]
    offset = levels[level][2]
    p = positions[n]
    sx = _scaled(p[0], resolution)
    sy = _scaled(p[1], resolution)
    sz = _scaled(p[2], resolution)
    x = _cell(sx, resolution)
    y = _cell(sy, resolution)
    z = _cell(sz, resolution)
    fx = sx - float(x)
    fy = sy - float(y)
    fz = sz - float(z)
    g = grad_features[n, level]
    gx = g * 0.0
    gy = g * 0.0
    gz = g * 0.0
    if with_jacobian != 0:
        gx = grad_jacobian[n, 0, level] * _slope(p[0], resolution)
        gy = grad_jacobian[n, 1, level] * _slope(p[1], resolution)
        gz = grad_jacobian[n, 2, level] * _slope(p[2], resolution)
    b1 = g * fz + gz
    b0 = g - b1
    y1 = b1 * fy + gy * fz
    y0 = b0 * fy + gy * (1.0 - fz)
    x01 = b1 - y1
    x00 = b0 - y0
    gx1 = gx * fz
    gx0 = gx - gx1
    x111 = y1 * fx + gx1 * fy
    x110 = y0 * fx + gx0 * fy
    x101 = x01 * fx + gx1 * (1.0 - fy)
    x100 = x00 * fx + gx0 * (1.0 - fy)
    wp.atomic_add(grad_table, _vertex(x, y, z, resolution, size, offset), x00 - x100)
    wp.atomic_add(grad_table, _vertex(x + 1, y, z, resolution, size, offset), x100)
    wp.atomic_add(grad_table, _vertex(x, y + 1, z, resolution, size, offset), y0 - x110)
    wp.atomic_add(grad_table, _vertex(x + 1, y + 1, z, resolution, size, offset), x110)
    wp.atomic_add(grad_table, _vertex(x, y, z + 1, resolution, size, offset), x01 - x101)
    wp.atomic_add(grad_table, _vertex(x + 1, y, z + 1, resolution, size, offset), x101)
    wp.atomic_add(grad_table, _vertex(x, y + 1, z + 1, resolution, size, offset), y1 - x111)
    wp.atomic_add(grad_table, _vertex(x + 1, y + 1, z + 1, resolution, size, offset), x111)


@cache
def _vector(width: int) -> Any:
    return wp.types.vector(length=width, dtype=wp.float32)


_loaded: set[tuple[str, int]] = set()


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1)), thread_name_prefix="grid")


def _launch(
    kernel: wp.Kernel, active: int, count: int, device: Any, arguments: Callable[[int], list[Any]]
) -> None:
    """Launch over ``active`` levels x ``count`` points; ``arguments`` takes the first level.

    Warp runs CPU kernels on one thread but releases the GIL, so the levels are dealt to threads.
    Levels own disjoint parts of every output: the scatter needs no atomics between threads.
    """
    threads = min(torch.get_num_threads(), active)
    width = getattr(arguments(0)[-1].dtype, "_length_", 0)
    first_time = (kernel.key, width) not in _loaded
    # The first launch compiles and loads the module, which must happen on one thread only.
    _loaded.add((kernel.key, width))
    if not device.is_cpu or threads < 2 or count * active < 4096 or first_time:
        wp.launch(kernel, dim=(active, count), inputs=arguments(0), device=device)
        return
    bounds = [active * k // threads for k in range(threads + 1)]
    jobs = [
        _workers().submit(
            wp.launch, kernel, dim=(stop - start, count), inputs=arguments(start), device=device
        )
        for start, stop in itertools.pairwise(bounds[1:])
    ]
    wp.launch(kernel, dim=(bounds[1], count), inputs=arguments(0), device=device)
    for job in jobs:
        job.result()


def warp_device(x: torch.Tensor) -> Any:
    """Warp's name for the device of ``x``; starts Warp."""
    start_warp()
    return wp.device_from_torch(x.device)


def view_of(tensor: torch.Tensor, dtype: Any) -> Any:
    """A Warp array on the memory of ``tensor`` (of a copy, if it is not contiguous)."""
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype, requires_grad=False)


def scope_of(device: Any, x: torch.Tensor) -> Any:
    """Context in which Warp launches on torch's current stream.

    All arrays are torch's, so there is nothing of Warp's own stream to wait for; while a CUDA graph
    is recorded, waiting for another stream would even be an error.
    """
    stream = None if device.is_cpu else wp.stream_from_torch(torch.cuda.current_stream(x.device))
    return wp.ScopedStream(stream, sync_enter=False)


def encode(
    x: torch.Tensor,
    table: torch.Tensor,
    levels: torch.Tensor,
    active: int,
    with_jacobian: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and Jacobian, without autograd.

    Args:
        x: ``(N, 3)`` float32 positions.
        table: ``(entries, F)`` float32.
        levels: ``(L, 3)`` int32 rows (resolution, table size, first entry).
        active: Levels from this one on give zero.
        with_jacobian: Whether the Jacobian is wanted.

    Returns:
        Features ``(N, L, F)`` and Jacobian ``(N, 3, L, F)`` (empty when not wanted).
    """
    count, depth, width = len(x), len(levels), table.shape[1]
    make = torch.empty if active == depth else torch.zeros
    features = make((count, depth, width), device=x.device)
    jacobian = make((count if with_jacobian else 0, 3, depth, width), device=x.device)
    device = warp_device(x)
    vector = _vector(width)
    inputs = [
        view_of(x, wp.vec3),
        view_of(table, vector),
        view_of(levels, wp.vec3i),
    ]
    outputs = [view_of(features, vector), view_of(jacobian, vector)]
    if count and active:
        with scope_of(device, x):
            _launch(
                _encode,
                active,
                count,
                device,
                lambda first: [*inputs, first, int(with_jacobian), *outputs],
            )
    return features, jacobian


def scatter(
    x: torch.Tensor,
    levels: torch.Tensor,
    active: int,
    grad_features: torch.Tensor,
    grad_jacobian: torch.Tensor | None,
    entries: int,
) -> torch.Tensor:
    """Gradient of the table, ``(entries, F)``, from those of :func:`encode`'s outputs.

    ``grad_jacobian`` None: nothing depends on the Jacobian.
    """
    used = grad_jacobian is not None
    if grad_jacobian is None:
        grad_jacobian = grad_features.new_empty((0, 3, *grad_features.shape[1:]))
    width = grad_features.shape[-1]
    grad_table = torch.zeros((entries, width), device=x.device)
    device = warp_device(x)
    vector = _vector(width)
    inputs = [view_of(x, wp.vec3), view_of(levels, wp.vec3i)]
    gradients = [
        view_of(grad_features, vector),
        view_of(grad_jacobian, vector),
        view_of(grad_table, vector),
    ]
    if len(x) and active:
        with scope_of(device, x):
            _launch(
                _scatter,
                active,
                len(x),
                device,
                lambda first: [*inputs, first, int(used), *gradients],
            )
    return grad_table


class GridFunction(torch.autograd.Function):
    """Autograd of :func:`encode` w.r.t. the positions (through the features) and the table.

    The Jacobian's own derivative by the position (the mixed second derivatives of a trilinear
    cell) is not propagated: stage II treats the normal as constant under the deformation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        table: torch.Tensor,
        levels: torch.Tensor,
        active: int,
        with_jacobian: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :func:`encode`; without the Jacobian, ``x`` gets no gradient either."""
        features, jacobian = encode(x, table, levels, active, with_jacobian)
        if not ctx.needs_input_grad[1] or not with_jacobian:
            # Only the table's gradient asks for the Jacobian's: a frozen field computes neither.
            ctx.mark_non_differentiable(jacobian)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, levels, jacobian if ctx.needs_input_grad[0] else x[:0])
        ctx.active, ctx.entries, ctx.with_jacobian = active, len(table), with_jacobian
        return features, jacobian

    @staticmethod
    def backward(
        ctx: Any, grad_features: torch.Tensor | None, grad_jacobian: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """See :func:`scatter`."""
        x, levels, jacobian = ctx.saved_tensors
        grad_x = grad_table = None
        if ctx.needs_input_grad[0] and ctx.with_jacobian and grad_features is not None:
            grad_x = (jacobian.flatten(2) * grad_features.flatten(1)[:, None]).sum(-1)
        if ctx.needs_input_grad[1]:
            if grad_features is None:
                assert grad_jacobian is not None  # one of them is why this is called
                grad_features = torch.zeros_like(grad_jacobian[:, 0])
            grad_table = scatter(x, levels, ctx.active, grad_features, grad_jacobian, ctx.entries)
        return grad_x, grad_table, None, None, None
