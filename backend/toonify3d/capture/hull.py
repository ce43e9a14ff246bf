"""The visual hull of the person masks, robust to some wrong masks, as a signed distance grid.

A place belongs to the hull when (nearly) every view that sees it calls it person. Views whose
image does not contain the place say nothing, so shoulders may leave the frame. Kept as a signed
distance (largest signed distance to a silhouette cone, Laurentini 1994) the surface lies between
the cells of the grid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..files import write_atomic
from ..scene import ByteImage, Camera, Float32Array, FloatArray, Normalization

UNSEEN = -1.0e3
"""Signed distance reported by a view that does not see a place: never the largest."""


def silhouette_distance(mask: npt.NDArray[np.bool_]) -> Float32Array:
    """Signed distance ``(H, W)`` in pixels to the outline, positive in the background.

    Where the mask touches the image border nothing is known beyond, so the border is no outline.
    """
    foreground = mask.astype(np.uint8)
    if not foreground.any():
        return np.full(mask.shape, float(max(mask.shape)), np.float32)
    if foreground.all():
        return np.full(mask.shape, -float(max(mask.shape)), np.float32)
    outside = cv2.distanceTransform(1 - foreground, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(foreground, cv2.DIST_L2, 5)
    # distanceTransform measures to pixel centres; the outline runs half a pixel before them.
    return np.where(mask, 0.5 - inside, outside - 0.5).astype(np.float32)


def grid_points(center: FloatArray, half: float, count: int) -> Float32Array:
    """Corners ``(count ** 3, 3)`` of a cube of half side ``half``, x slowest."""
    axis = np.linspace(-half, half, count, dtype=np.float32)
    mesh = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(mesh + center.astype(np.float32), np.float32)


def view_distances(
    points: Float32Array, fields: Sequence[Float32Array], cameras: Sequence[Camera]
) -> tuple[Float32Array, npt.NDArray[np.uint16]]:
    """What every view says about points ``(N, 3)``.

    Args:
        points: World points.
        fields: Per view a signed distance image ``(h, w)`` in its pixels, positive background; of
            any size that keeps the camera's field of view.
        cameras: Their cameras, same unit of length as the points.

    Returns:
        Distances ``(views, N)`` in the unit of the points (:data:`UNSEEN` outside the image) and
        the number of views that see each point ``(N,)``.
    """
    out = np.empty((len(fields), len(points)), np.float32)
    seen = np.zeros(len(points), np.uint16)
    for row, (image, camera) in enumerate(zip(fields, cameras, strict=True)):
        u, v, depth, focal = _project(points, camera, image.shape[1], image.shape[0])
        inside = (depth > 0) & (u > -0.5) & (v > -0.5)
        inside &= (u < image.shape[1] - 0.5) & (v < image.shape[0] - 0.5)
        value = _sample(image, u, v)
        out[row] = np.where(inside, value * depth / focal, UNSEEN)
        seen += inside
    return out, seen


def _project(
    points: Float32Array, camera: Camera, width: int, height: int
) -> tuple[Float32Array, Float32Array, Float32Array, float]:
    """Pixel coordinates with centres at integers, depth, mean focal length."""
    small = camera.resized(width, height)
    matrix = (small.K @ small.w2c[:3]).astype(np.float32)
    image = matrix[:, :3] @ points.T + matrix[:, 3:]
    depth = image[2]
    safe = np.where(depth > 1e-6, depth, 1e-6)
    focal = float(np.sqrt(small.K[0, 0] * small.K[1, 1]))
    return image[0] / safe - 0.5, image[1] / safe - 0.5, depth, focal


def _sample(image: Float32Array, u: Float32Array, v: Float32Array) -> Float32Array:
    rows = 4096  # cv2.remap takes maps of at most 32767 a side
    pad = -len(u) % rows
    maps = [np.pad(np.clip(m, -9.0, 30000.0), (0, pad)).reshape(-1, rows) for m in (u, v)]
    value = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(value.reshape(-1)[: len(u)], np.float32)


def vote(
    points: Float32Array,
    fields: Sequence[Float32Array],
    cameras: Sequence[Camera],
    outvoted: float,
    min_seen: float = 0.2,
) -> Float32Array:
    """Robust signed distance ``(N,)`` to the hull, negative inside.

    Args:
        points: World points ``(N, 3)``.
        fields: See :func:`view_distances`.
        cameras: Cameras of the fields.
        outvoted: Share of the views that see a point which may wrongly call it background.
        min_seen: A point seen by a smaller share of the views is background.
    """
    out = np.empty(len(points), np.float32)
    chunk = max(1, 24_000_000 // len(fields))
    for start in range(0, len(points), chunk):
        part = slice(start, start + chunk)
        distances, seen = view_distances(points[part], fields, cameras)
        distances = -np.sort(-distances, axis=0)
        rank = np.minimum((outvoted * seen).astype(np.int64), len(fields) - 1)
        value = np.take_along_axis(distances, rank[None], axis=0)[0]
        rare = seen < max(2.0, min_seen * len(fields))
        out[part] = np.where(rare, np.maximum(value, -UNSEEN), value)
    return out


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one CPU thread: its workers burn more time waiting than small tensors take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trace(
    sdf: torch.Tensor,
    center: FloatArray,
    half: float,
    camera: Camera,
    width: int,
    height: int,
    steps: int = 28,
) -> Float32Array:
    """Depth along z ``(height, width)`` of the first surface of a signed distance grid, 0 = none.

    Sphere tracing (Hart 1996) between the entry into and the exit from the cube of the grid.

    Args:
        sdf: ``(n, n, n)`` in the unit of the world, axes x, y, z, corners of the cube included.
        center: Centre of the cube.
        half: Half its side.
        camera: Any camera; its image is thought resized to ``width`` x ``height``.
        width: Columns of the answer.
        height: Rows of the answer.
        steps: Most steps along a ray.
    """
    device = sdf.device
    small = camera.resized(width, height)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    origins, rays = small.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    along_z = rays @ small.c2w[:3, 2]
    origin = torch.as_tensor((origins[0] - center) / half, dtype=torch.float32, device=device)
    direction = torch.as_tensor(rays, dtype=torch.float32, device=device)
    near, far = _cube_interval(origin, direction)
    index = torch.nonzero(far > near).squeeze(1)
    distance = torch.zeros(len(rays), device=device)
    with one_thread():
        found = _march(sdf / half, origin, direction[index], near[index], far[index], steps)
    distance[index] = found
    depth = distance.cpu().numpy() * half * along_z
    return np.asarray(depth.reshape(height, width), np.float32)


def _cube_interval(
    origin: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    inverse = 1.0 / torch.where(direction.abs() < 1e-9, torch.full_like(direction, 1e-9), direction)
    one, two = (-1.0 - origin) * inverse, (1.0 - origin) * inverse
    near = torch.minimum(one, two).amax(1).clamp_min(0.0)
    return near, torch.maximum(one, two).amin(1)


def _march(
    grid: torch.Tensor,
    origin: torch.Tensor,
    direction: torch.Tensor,
    near: torch.Tensor,
    far: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Distance of the first inside place along rays (unit cube), 0 = none."""
    smallest = 1.0 / grid.shape[0]
    out = torch.zeros_like(near)
    active = torch.arange(len(near), device=near.device)
    t = near + 1e-4
    for _ in range(steps):
        value = interpolate(grid, origin + t[active, None] * direction[active])
        t[active] = t[active] + torch.where(value > smallest * 0.05, value, value * 0.7)
        hit = value.abs() < smallest * 0.05
        out[active[hit]] = t[active[hit]]
        active = active[~hit & (t[active] < far[active])]
        if len(active) == 0:
            break
    if len(active):  # slow grazing rays: inside or within half a cell counts
        value = interpolate(grid, origin + t[active, None] * direction[active])
        hit = value < smallest * 0.5
        out[active[hit]] = t[active[hit]]
    return out


def interpolate(grid: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Trilinear values ``(N,)`` of a grid ``(n, n, n)`` over ``[-1, 1]^3`` (axes x, y, z)."""
    where = points.flip(-1)[None, None, None]
    value = torch.nn.functional.grid_sample(
        grid[None, None], where, align_corners=True, padding_mode="border"
    )
    return value.reshape(-1)
