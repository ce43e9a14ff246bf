"""Rays of stylized portraits, and where they meet the stylized surface (unit space)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..scene import Camera, Float32Array, FloatArray, Normalization, Scene, StylizedView
from ..snr.avatar import PriorLike
from ..snr.rendering import sphere_interval
from ..snr.warp_guide import interpolate
from .data import WHOLE_PICTURE, camera_tensors, meets_sphere

# Ring of the portraits' background when rays come from whole portraits: what is interior and edge
# does not depend on that.
_RING = 1.0 / 12.0


@dataclass
class Rays:
    """Rays in unit space.

    Attributes:
        origin: ``(N, 3)``.
        direction: ``(N, 3)``, unit length.
    """

    origin: Tensor
    direction: Tensor

    def __len__(self) -> int:
        return len(self.origin)

    def at(self, distance: Tensor) -> Tensor:
        """Points ``(N, 3)`` or ``(N, K, 3)`` at distances ``(N,)`` or ``(N, K)`` along the rays."""
        if distance.dim() == 1:
            return self.origin + distance[:, None] * self.direction
        return self.origin[:, None] + distance[..., None] * self.direction[:, None]

    def part(self, rows: slice) -> Rays:
        """A slice of the rays."""
        return Rays(self.origin[rows], self.direction[rows])


def unit_projection(camera: Camera, normalization: Normalization) -> FloatArray:
    """``(3, 4)`` matrix from unit space to homogeneous image points; its third row is depth.

    The depth it gives is along z in units of the normalization radius.
    """
    rotation = camera.w2c[:3, :3]
    offset = (rotation @ normalization.center + camera.w2c[:3, 3]) / normalization.radius
    return np.asarray(camera.K @ np.concatenate([rotation, offset[:, None]], axis=1))


def pixel_rays(
    camera: Camera,
    columns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    normalization: Normalization,
    device: torch.device,
) -> Rays:
    """Rays through the centres of pixels ``(N,)``."""
    points = np.stack([columns + 0.5, rows + 0.5], axis=1).astype(np.float64)
    return point_rays(camera, points, normalization, device)


def point_rays(
    camera: Camera, points: FloatArray, normalization: Normalization, device: torch.device
) -> Rays:
    """Rays through image points ``(N, 2)``."""
    origin, direction = camera.rays(points)
    return Rays(
        torch.tensor(normalization.to_unit(origin), dtype=torch.float32, device=device),
        torch.tensor(direction, dtype=torch.float32, device=device),
    )


def check_views(views: list[StylizedView]) -> None:
    """Refuse views that cannot supervise anything.

    Raises:
        InputError: None at all, an image of another size than its camera, or only empty masks.
    """
    if not views:
        raise InputError(
            "There is no stylized portrait to learn from; give at least one near-frontal frame.",
            code="no_stylized_views",
        )
    for view in views:
        expected = (view.frame.camera.height, view.frame.camera.width)
        if view.image.shape[:2] != expected or view.mask.shape[:2] != expected:
            raise InputError(
                f"The stylized portrait of frame {view.frame.name} is "
                f"{view.image.shape[1]} x {view.image.shape[0]} pixels, but the frame is "
                f"{expected[1]} x {expected[0]}.",
                code="stylized_view_size",
            )
    if not any((view.mask > 127).any() for view in views):
        raise InputError(
            "Every stylized portrait has an empty mask, so there is nothing to learn from.",
            code="empty_stylized_masks",
        )


class ViewRays:
    """Pixels of all views, ready to be drawn: inside, along and outside of the silhouettes.

    Candidates and colours stay on the device as bytes and short integers; a draw gathers them
    there, without a copy from or to the host.

    Args:
        scene: Gives the normalization and the crop height.
        views: The portraits.
        device: Where the rays are wanted.
        edge: Half width in pixels of the band called "along the silhouette".
        reach: How far outside of the mask, in pixels, rays still say something useful.
        whole: All pixels are candidates whose rays meet the unit sphere, however far outside.
    """

    def __init__(
        self,
        scene: Scene,
        views: list[StylizedView],
        device: torch.device,
        edge: int,
        reach: int,
        whole: bool = False,
    ) -> None:
        check_views(views)
        cameras = [view.frame.camera for view in views]
        self._sight = _Sight(cameras, scene.normalization, device)
        parts: list[tuple[npt.NDArray[np.generic], ...]] = []
        for number, view in enumerate(views):
            signed = signed_distance(view.mask > 127)
            camera = view.frame.camera
            near = meets_sphere(camera, scene.normalization) if whole else signed > -reach
            chosen = near & self._above_crop(scene, camera)
            row, column = np.nonzero(chosen)
            pixels = np.stack([np.full_like(row, number), column, row], axis=1).astype(np.int16)
            parts.append((pixels, view.image[chosen], view.mask[chosen], signed[chosen]))
        joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        distance = joined.pop()
        self.pixels, self.colors, self.masks = (torch.tensor(a, device=device) for a in joined)
        self._interior = torch.tensor(distance > reach, device=device)
        pools = [distance > 0, np.abs(distance) <= edge, distance < -edge]
        self._pools = [
            torch.tensor(np.nonzero(pool)[0].astype(np.int32), device=device) for pool in pools
        ]

    @classmethod
    def within(
        cls, scene: Scene, views: list[StylizedView], device: torch.device, band: float
    ) -> ViewRays:
        """Rays of the silhouettes and a ring of ``band`` image widths; from 1 on, of everything.

        Raises:
            InputError: No usable portrait.
        """
        check_views(views)
        whole = band >= WHOLE_PICTURE
        reach = ring_pixels(views[0].image.shape[1], _RING if whole else band)
        return cls(scene, views, device, edge=max(3, reach // 5), reach=reach, whole=whole)

    def draw(
        self, count: int, generator: torch.Generator, shares: tuple[float, float, float]
    ) -> tuple[Rays, Tensor, Tensor]:
        """``count`` rays with their colours ``(N, 3)`` and mask values ``(N,)`` in 0..1.

        Args:
            count: Number of rays.
            generator: Source of randomness, on the rays' device.
            shares: Fractions drawn inside, along and outside of the silhouettes.
        """
        parts = []
        for pool, share in zip(self._pools, shares, strict=True):
            if len(pool) and share > 0:
                wanted = max(1, round(share * count))
                parts.append(pool[_drawn(len(pool), wanted, generator)])
        rays, color, mask, _ = self._take(torch.cat(parts).long())
        return rays, color, mask

    def draw_evenly(
        self, count: int, generator: torch.Generator
    ) -> tuple[Rays, Tensor, Tensor, Tensor]:
        """``count`` rays, every candidate pixel as likely as any other.

        Returns:
            Rays, colours ``(N, 3)``, mask values ``(N,)`` in 0..1 and whether the pixel is far
            inside the silhouette ``(N,)`` bool.
        """
        return self._take(_drawn(len(self.pixels), count, generator))

    def _take(self, chosen: Tensor) -> tuple[Rays, Tensor, Tensor, Tensor]:
        view, column, row = self.pixels[chosen].unbind(1)
        return (
            self._sight.rays(view.long(), column, row),
            self.colors[chosen].float() / 255.0,
            self.masks[chosen].float() / 255.0,
            self._interior[chosen],
        )

    @staticmethod
    def _above_crop(scene: Scene, camera: Camera) -> npt.NDArray[np.bool_]:
        """Pixels whose ray passes the head's axis above the crop plane, ``(H, W)`` bool."""
        shape = (camera.height, camera.width)
        if not np.isfinite(scene.crop_z):
            return np.ones(shape, bool)
        row, column = np.indices(shape)
        points = np.stack([column.ravel() + 0.5, row.ravel() + 0.5], axis=1)
        origin, direction = camera.rays(points)
        toward = scene.normalization.center - origin
        middle = origin + (toward * direction).sum(1, keepdims=True) * direction
        return np.asarray((middle[:, 2] > scene.crop_z).reshape(shape))


def ring_pixels(width: int, band: float) -> int:
    """Whole pixels, at least 8, of a ring ``band`` times as wide as a picture of ``width``."""
    return max(8, math.floor(band * width + 1e-6))  # a twelfth of 12 is 1, not just below it


class PatchRays:
    """Square patches of portrait pixels that lie wholly inside the silhouette.

    Args:
        views: The portraits.
        normalization: World to unit space.
        device: Where the rays are wanted.
        side: Pixels along each side.
    """

    def __init__(
        self,
        views: list[StylizedView],
        normalization: Normalization,
        device: torch.device,
        side: int,
    ) -> None:
        self.side = side
        self._sight = _Sight([view.frame.camera for view in views], normalization, device)
        corners, colors, starts = [], [], [0]
        for number, view in enumerate(views):
            inside = (view.mask > 127).astype(np.uint8)
            # A pixel stays when the whole patch to its right and below is inside.
            kernel = np.ones((side, side), np.uint8)
            whole = cv2.erode(inside, kernel, anchor=(0, 0), borderValue=(0,))
            row, column = np.nonzero(whole)
            corners.append(np.stack([np.full_like(row, number), row, column], axis=1))
            colors.append(view.image.reshape(-1, 3))
            starts.append(starts[-1] + inside.size)
        self.corners = torch.tensor(np.concatenate(corners).astype(np.int16), device=device)
        self._colors = torch.tensor(np.concatenate(colors), device=device)
        self._starts = torch.tensor(starts[:-1], device=device)
        self._widths = torch.tensor([view.mask.shape[1] for view in views], device=device)
        self._steps = torch.arange(side, device=device)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Rays, Tensor] | None:
        """``count`` patches, row by row: rays and colours ``(count * side^2, 3)``.

        Half of them are mirrored (the colours of a patch stay with their rays). None when no
        patch fits into any silhouette.
        """
        if not len(self.corners):
            return None
        chosen = self.corners[_drawn(len(self.corners), count, generator)].long()
        view, top, left = (part[:, None, None] for part in chosen.unbind(1))
        mirrored = torch.rand((count, 1, 1), generator=generator, device=chosen.device) < 0.5
        across = torch.where(mirrored, self.side - 1 - self._steps, self._steps)
        shape = (count, self.side, self.side)
        view = view.expand(shape).reshape(-1)
        row = (top + self._steps[:, None]).expand(shape).reshape(-1)
        column = (left + across).expand(shape).reshape(-1)
        color = self._colors[self._starts[view] + row * self._widths[view] + column]
        return self._sight.rays(view, column, row), color.float() / 255.0


class _Sight:
    """Turns pixels of several cameras into rays, on the device."""

    def __init__(
        self, cameras: list[Camera], normalization: Normalization, device: torch.device
    ) -> None:
        self._origins, self._rotations = camera_tensors(cameras, normalization, device)

    def rays(self, view: Tensor, column: Tensor, row: Tensor) -> Rays:
        """Rays through the centres of pixels ``(N,)`` of cameras ``(N,)`` int64."""
        x, y = column.float() + 0.5, row.float() + 0.5
        matrix = self._rotations[view]
        # The third image coordinate is 1: its column is added as it is.
        raw = matrix[:, :, 0] * x[:, None] + matrix[:, :, 1] * y[:, None] + matrix[:, :, 2]
        return Rays(self._origins[view], functional.normalize(raw, dim=1))


def _drawn(total: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` random rows of ``total``, int64, on the generator's device."""
    return torch.randint(total, (count,), generator=generator, device=generator.device)


def signed_distance(inside: npt.NDArray[np.bool_]) -> Float32Array:
    """Distance in pixels to the border of a boolean mask, positive inside, ``(H, W)`` float32."""
    inner = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
    outer = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(inner - outer, dtype=np.float32)


class CoarseDistance:
    """The stylized signed distance on a grid: cheap enough to search along every ray.

    Args:
        prior: Evaluated once at every node.
        resolution: Nodes per axis over ``[-1, 1]^3``.

    Attributes:
        values: Signed distance at every node. Always the same tensor: a recorded training step
            reads it.
    """

    def __init__(self, prior: PriorLike, resolution: int) -> None:
        self.axis = torch.linspace(-1.0, 1.0, resolution, device=prior.device)
        axes = torch.meshgrid(self.axis, self.axis, self.axis, indexing="ij")
        self._nodes = torch.stack(axes, dim=-1)
        with torch.no_grad():
            distance = torch.cat([prior.sdf(plane.reshape(-1, 3)) for plane in self._nodes])
        self._prior = distance.reshape(self._nodes.shape[:3])
        self.values = self._prior.clone()

    @torch.no_grad()
    def refresh(self, deformation: nn.Module, resolution: int = 40) -> None:
        """Bend the grid by the current deformation, itself sampled at ``resolution`` nodes."""
        axis = torch.linspace(-1.0, 1.0, resolution, device=self.axis.device)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        displacement = deformation(points.reshape(-1, 3)).T.reshape(1, 3, *points.shape[:3])
        full = functional.interpolate(
            displacement, size=self._nodes.shape[:3], mode="trilinear", align_corners=True
        )[0].permute(1, 2, 3, 0)
        bent = interpolate(self._prior, (self._nodes + full).reshape(-1, 3))
        self.values.copy_(bent.reshape(self._prior.shape))

    def __call__(self, y: Tensor) -> Tensor:
        """Interpolated distance ``(N,)`` at stylized points ``(N, 3)``; no gradient."""
        return interpolate(self.values, y)

    def band(self, width: float) -> Tensor:
        """Nodes nearer than ``width`` to the surface and in the unit sphere, ``(M, 3)``."""
        nodes = self._nodes[self.values.abs() < width]
        return nodes[nodes.norm(dim=1) < 1.0]


@torch.no_grad()
def deepest(coarse: CoarseDistance, rays: Rays, steps: int) -> Tensor:
    """Distance along every ray ``(N,)`` of its least signed distance, by a parabola's vertex."""
    near, far, _ = sphere_interval(rays.origin, rays.direction)
    fractions = (torch.arange(steps, device=near.device) + 0.5) / steps
    distance = near[:, None] + (far - near)[:, None] * fractions
    value = coarse(rays.at(distance).reshape(-1, 3)).reshape(distance.shape)
    lowest = value.argmin(1).clamp(1, steps - 2)[:, None]
    before, middle, after = (value.gather(1, lowest + i)[:, 0] for i in (-1, 0, 1))
    bend = (before - 2.0 * middle + after).clamp(min=1e-6)
    shift = (0.5 * (before - after) / bend).clamp(-1.0, 1.0)
    return distance.gather(1, lowest)[:, 0] + shift * (far - near) / steps


@torch.no_grad()
def locate(coarse: CoarseDistance, rays: Rays, steps: int) -> tuple[Tensor, Tensor]:
    """First crossing of every ray with the stylized surface on the coarse grid.

    Returns:
        Distance along the ray ``(N,)`` (of the nearest approach where nothing is hit) and whether
        it hits ``(N,)``.
    """
    near, far, meets = sphere_interval(rays.origin, rays.direction)
    fractions = (torch.arange(steps, device=near.device) + 0.5) / steps
    distance = near[:, None] + (far - near)[:, None] * fractions
    value = coarse(rays.at(distance).reshape(-1, 3)).reshape(distance.shape)
    crossing = (value[:, :-1] > 0) & (value[:, 1:] <= 0)
    hit = crossing.any(1) & meets
    first = torch.where(crossing.any(1), crossing.to(torch.uint8).argmax(1), value.argmin(1))
    first = first.clamp(max=steps - 2)[:, None]
    before, after = value.gather(1, first)[:, 0], value.gather(1, first + 1)[:, 0]
    share = torch.where(hit, before / (before - after).clamp(min=1e-9), torch.zeros_like(before))
    spacing = (far - near) / steps
    return distance.gather(1, first)[:, 0] + share.clamp(0, 1) * spacing, hit
