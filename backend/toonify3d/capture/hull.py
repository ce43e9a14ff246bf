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
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ..errors import InputError
from ..files import write_atomic
from ..scene import ByteImage, Camera, Float32Array, FloatArray, Normalization
from .look_at import NO_PERSON, look_at_ball

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
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    origin, direction, along_z = rays_in_cube(small, pixels, center, half, device)
    near, far = cube_interval(origin, direction)
    index = torch.nonzero(far > near).squeeze(1)
    distance = torch.zeros(len(direction), device=device)
    with one_thread():
        found = _march(sdf / half, origin, direction[index], near[index], far[index], steps)
    distance[index] = found
    depth = distance.cpu().numpy() * half * along_z
    return np.asarray(depth.reshape(height, width), np.float32)


def rays_in_cube(
    camera: Camera, pixels: FloatArray, center: FloatArray, half: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, FloatArray]:
    """Rays of a camera where a cube is ``[-1, 1]^3``.

    Args:
        camera: Any camera.
        pixels: Image points ``(R, 2)``.
        center: Centre of the cube, world.
        half: Half its side.
        device: Of the tensors.

    Returns:
        Origin ``(3,)``, directions ``(R, 3)``, and their parts along the camera's axis ``(R,)``.
    """
    origins, rays = camera.rays(pixels)
    origin = torch.as_tensor((origins[0] - center) / half, dtype=torch.float32, device=device)
    direction = torch.as_tensor(rays, dtype=torch.float32, device=device)
    return origin, direction, rays @ camera.c2w[:3, 2]


def cube_interval(
    origin: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where rays enter and leave the cube ``[-1, 1]^3``: near and far ``(R,)``.

    Args:
        origin: ``(3,)``, the rays' common origin.
        direction: Unit vectors ``(R, 3)``.
    """
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


@dataclass(frozen=True)
class Hull:
    """Visual hull of head and shoulders.

    Attributes:
        sdf: ``(n, n, n)`` signed distance in unit space over ``[-1, 1]^3``, axes x, y, z, corners
            included, negative inside. Euclidean away from the surface.
        normalization: World to unit space; the hull lies within 0.9 of the unit ball.
        crop_z: World height below which everything was cut away (-inf: nothing was).
    """

    sdf: Float32Array
    normalization: Normalization
    crop_z: float = -np.inf

    @property
    def occupancy(self) -> npt.NDArray[np.bool_]:
        """``(n, n, n)`` which grid corners are inside."""
        return np.asarray(self.sdf < 0)

    def depth(
        self, camera: Camera, width: int, height: int, device: torch.device | str = "cpu"
    ) -> Float32Array:
        """Depth along z ``(height, width)`` in metres of the hull's front, 0 = none."""
        scale = self.normalization.radius
        grid = torch.as_tensor(self.sdf, device=device) * scale
        return trace(grid, self.normalization.center, scale, camera, width, height)

    def save(self, path: Path) -> None:
        """Write an npz (atomically)."""
        arrays: dict[str, Any] = {
            "sdf": self.sdf,
            "center": self.normalization.center,
            "radius": np.float64(self.normalization.radius),
            "crop_z": np.float64(self.crop_z),
        }
        write_atomic(path, lambda part: np.savez_compressed(part, **arrays))

    @classmethod
    def load(cls, path: Path) -> Hull:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: ``path`` is not there.
        """
        with np.load(path) as data:
            normalization = Normalization(data["center"], float(data["radius"]))
            return cls(data["sdf"], normalization, float(data["crop_z"]))


def visual_hull(
    masks: Sequence[ByteImage],
    cameras: Sequence[Camera],
    crop_z: float = -np.inf,
    resolution: int = 128,
    outvoted: float = 0.03,
    min_seen: float = 0.25,
) -> Hull:
    """The hull of masks, and the unit ball that holds it.

    Args:
        masks: ``(H, W)`` 0 to 255; what lies outside an image is unknown, not background.
        cameras: One per mask, world in metres with Z up.
        crop_z: World height of the chest plane; the hull ends there.
        resolution: Corners along each side of the grid.
        outvoted: Share of the masks that may wrongly call a place background.
        min_seen: What a smaller share of the views sees is cut away.

    Raises:
        InputError: The masks have nothing in common (``no_person``).
    """
    solid = [_small_mask(mask) for mask in masks]
    ball = look_at_ball(solid, cameras)
    center, half = ball.center, ball.radius
    fields = [silhouette_distance(mask) for mask in solid]
    count = 72
    points = grid_points(center, half, count)
    coarse = vote(points, fields, cameras, outvoted, min_seen)
    coarse = np.maximum(coarse, crop_z - points[:, 2])
    cell = 2.0 * half / (count - 1)
    coarse = largest_piece(coarse.reshape(count, count, count).astype(np.float32), cell)
    normalization = _unit_ball(points[coarse.ravel() < 0.5 * cell])
    points = grid_points(normalization.center, normalization.radius, resolution)
    where = torch.as_tensor((points - center.astype(np.float32)) / np.float32(half))
    value = interpolate(torch.from_numpy(np.clip(coarse, -3 * cell, 3 * cell)), where).numpy()
    near = np.flatnonzero((np.abs(value) < 1.8 * cell) & (where.abs().amax(1).numpy() <= 1.0))
    fine = vote(points[near], fields, cameras, outvoted, min_seen)
    value[near] = np.maximum(fine, crop_z - points[near, 2])
    shape = (resolution, resolution, resolution)
    unit_cell = 2.0 / (resolution - 1)
    sdf = largest_piece((value / normalization.radius).reshape(shape).astype(np.float32), unit_cell)
    return Hull(euclidean(sdf, unit_cell), normalization, crop_z)


def largest_piece(sdf: Float32Array, cell: float) -> Float32Array:
    """The grid with every connected piece but the largest made outside.

    Raises:
        InputError: Nothing is inside (``no_person``).
    """
    labels, count = ndimage.label(sdf < 0)
    if count == 0:
        raise InputError(NO_PERSON, "no_person")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    other = (labels > 0) & (labels != int(sizes.argmax()))
    return np.where(other, np.float32(cell), sdf)


def euclidean(sdf: Float32Array, cell: float) -> Float32Array:
    """Mend a signed distance grid whose far values are not distances.

    Args:
        sdf: ``(n, n, n)``, negative inside, right only near the surface.
        cell: Edge of a cell, in the unit of ``sdf``.

    Returns:
        The given values within a cell and a half of the surface, Euclidean distances beyond.
    """
    inside = sdf < 0
    outer = ndimage.distance_transform_edt(~inside).astype(np.float32) * cell
    inner = ndimage.distance_transform_edt(inside).astype(np.float32) * cell
    distance = np.where(inside, 0.5 * cell - inner, outer - 0.5 * cell)
    near = np.abs(distance) < 1.5 * cell
    limited = np.clip(sdf, -2.0 * cell, 2.0 * cell)
    return np.where(near, limited, distance).astype(np.float32)


def _small_mask(mask: ByteImage, long_side: int = 420) -> npt.NDArray[np.bool_]:
    scale = min(1.0, long_side / max(mask.shape))
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 127)


def _unit_ball(points: Float32Array) -> Normalization:
    """Ball round points so that they lie within 0.9 of its radius (Ritter's centre, refined)."""
    where = points.astype(np.float64)
    center = (where.min(0) + where.max(0)) / 2.0
    for step in range(200):  # Badoiu and Clarkson 2003: move towards the farthest point
        offset = where - center
        farthest = int((offset**2).sum(1).argmax())
        center = center + offset[farthest] / (step + 2.0)
    radius = float(np.sqrt(((where - center) ** 2).sum(1).max()))
    return Normalization(center, radius / 0.9)
