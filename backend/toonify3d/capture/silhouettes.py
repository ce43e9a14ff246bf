"""Outlines to a fraction of a pixel: of a picture's own field, and of a signed distance grid.

A mask that is a third of a pixel too wide makes stage I's surface as much too fat (pixels of a head
that fills the frame are 0.2 % of its size), so the outlines that the views agree on are neither
counted in whole pixels nor in whole steps of a tracer.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from ..scene import Camera, Float32Array, FloatArray
from .hull import cube_interval, interpolate, one_thread, rays_in_cube, silhouette_distance

_COARSE = 4
"""Pixels between the rays that find where the outline is."""
_FAR = 50.0
"""Pixels inside the outline beyond which a distance says no more."""


def subpixel_distance(field: Float32Array) -> Float32Array:
    """Signed distance ``(H, W)`` in pixels to a field's zero crossing, positive outside.

    Args:
        field: ``(H, W)`` in any unit, positive outside. It only has to be smooth across the
            crossing: there the distance is first order, value over slope.
    """
    whole = silhouette_distance(field < 0)
    across = cv2.Sobel(field, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(field, cv2.CV_32F, 0, 1, scale=1 / 8)
    slope = np.maximum(np.hypot(across, down), 1e-6)
    near = np.clip(field / slope, -1.0, 1.0)
    return np.where(np.abs(whole) < 1.0, near, whole).astype(np.float32)


def silhouette(
    sdf: torch.Tensor, center: FloatArray, half: float, camera: Camera, width: int, height: int
) -> Float32Array:
    """Signed distance ``(height, width)`` in pixels to the outline of a signed distance grid.

    A ray's least distance to the surface, seen from the camera, is how far its pixel lies outside
    the outline: exact where rays graze the surface, which is where tracers are not. Coarse rays
    find the outline, fine ones are sent near it.

    Args:
        sdf: ``(n, n, n)`` in the unit of the world, axes x, y, z, corners of the cube included.
        center: Centre of the cube.
        half: Half its side.
        camera: Any camera; its image is thought resized to ``width`` x ``height``.
        width: Columns of the answer.
        height: Rows of the answer.
    """
    grid = sdf / half
    small = camera.resized(width, height)
    columns, rows = -(-width // _COARSE), -(-height // _COARSE)
    x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    coarse = _closest(grid, center, half, small, _COARSE * np.stack([x.ravel(), y.ravel()], 1))
    coarse = coarse.reshape(rows, columns)
    reach = np.ones((3, 3), np.uint8)
    close = (cv2.erode(coarse, reach) < 1.5 * _COARSE) & (cv2.dilate(coarse, reach) > 0.0)
    size = (columns * _COARSE, rows * _COARSE)
    full = np.asarray(cv2.resize(coarse, size), np.float32)[:height, :width]
    fine = cv2.resize(close.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    v, u = np.nonzero(fine[:height, :width])
    if len(v):
        full[v, u] = _closest(grid, center, half, small, np.stack([u + 0.5, v + 0.5], 1))
    whole = silhouette_distance(full < 0)
    near = (np.abs(whole) < 2.5) & (np.abs(full) < 2.0)
    return np.where(near, full, whole).astype(np.float32)


def _closest(
    grid: torch.Tensor,
    center: FloatArray,
    half: float,
    camera: Camera,
    pixels: FloatArray,
    steps: int = 48,
) -> Float32Array:
    """Least distance in pixels ``(R,)`` of the rays through image points ``(R, 2)``."""
    device = grid.device
    origin, direction, along_z = rays_in_cube(camera, pixels, center, half, device)
    focal = float(np.sqrt(camera.K[0, 0] * camera.K[1, 1]))
    scale = torch.as_tensor(focal / along_z, dtype=torch.float32, device=device)
    near, far = cube_interval(origin, direction)
    cell = 2.0 / (grid.shape[0] - 1)
    out = torch.full((len(direction),), float(max(camera.width, camera.height)), device=device)
    active = torch.nonzero(far > near).squeeze(1)
    t = near[active] + 1e-4
    with one_thread():
        for _ in range(steps):
            value = interpolate(grid, origin + t[:, None] * direction[active])
            out[active] = torch.minimum(out[active], value / t * scale[active])
            # Half cells pass the least distance at most a quarter of a cell beside it, where it is
            # flat; two cells deep a ray is inside whatever follows.
            t = t + (0.95 * value.abs()).clamp_min(0.5 * cell)
            going = (t < far[active]) & (value > -2.0 * cell)
            active, t = active[going], t[going]
            if len(active) == 0:
                break
    return np.asarray(out.clamp_min(-_FAR).cpu().numpy(), np.float32)
