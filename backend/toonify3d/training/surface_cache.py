"""What stage III needs of every supervised pixel, computed once because the geometry is frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..scene import ByteImage, Camera, Float32Array, Normalization, StylizedView
from ..snr.avatar import PriorLike, StylizedShape
from ..snr.light_grid import LightGrid
from ..snr.rendering import trace
from ..snr.texture import BeliefMaps, glance, smoothstep
from .adaption_settings import TextureAdaptionSettings
from .view_rays import pixel_rays, signed_distance, unit_projection

# Depth step between neighbouring pixels (unit space) that counts as an occlusion border.
DEPTH_STEP = 0.03


@dataclass
class SurfacePoints:
    """Surface points seen by some cameras, one per pixel.

    Attributes:
        y: Stylized points ``(N, 3)``.
        color: Prior's view-averaged colour there ``(N, 3)``, without the room's light if known.
        feature: Prior's features there ``(N, F)``.
        normal: Unit normals of the stylized surface ``(N, 3)``.
        direction: View directions ``(N, 3)``.
        glance: The person's view-dependent part along them ``(N, 3)``, see :func:`.glance`.
        target: Stylized colours ``(N, 3)`` (zeros where no portrait gives one).
        belief: Belief in the pixel, ``(N,)`` in 0..1.
        trust: The portrait's own confidence times its mask, ``(N,)``.
        index: Per view ``(H, W)`` int64, row of each pixel's point or -1.
    """

    y: Tensor
    color: Tensor
    feature: Tensor
    normal: Tensor
    direction: Tensor
    glance: Tensor
    target: Tensor
    belief: Tensor
    trust: Tensor
    index: list[Tensor]

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class _Picture:
    """One camera at the working size, with its portrait if it has one."""

    camera: Camera
    image: ByteImage | None
    mask: npt.NDArray[np.bool_]
    confidence: Float32Array


def working_size(views: list[StylizedView], most: int) -> float:
    """Factor (1 or less) by which portraits are shrunk to give at most ``most`` points."""
    total = sum(int((view.mask > 127).sum()) for view in views)
    return min(1.0, math.sqrt(most / max(1, total)))


def portrait_points(
    geometry: StylizedShape,
    views: list[StylizedView],
    normalization: Normalization,
    settings: TextureAdaptionSettings,
    light: LightGrid | None = None,
) -> tuple[SurfacePoints, BeliefMaps]:
    """Surface points of all portraits (colours without ``light``), and their belief maps."""
    scale = working_size(views, settings.max_points)
    parts, weights, depths, projections = [], [], [], []
    for view in views:
        picture = _shrunk(view, scale)
        points, depth = _see(geometry, picture, normalization, light)
        weight = _believe(points, depth, picture, settings)
        parts.append(points)
        weights.append(weight)
        depths.append(torch.from_numpy(depth))
        projections.append(torch.from_numpy(unit_projection(picture.camera, normalization)))
    height, width = weights[0].shape
    same = all(weight.shape == (height, width) for weight in weights)
    if not same:
        weights, depths, projections = _common_size(weights, depths, projections)
    maps = BeliefMaps(torch.stack(weights), torch.stack(depths), torch.stack(projections))
    return _join(parts), maps.to(geometry.device)


def camera_points(
    geometry: StylizedShape,
    cameras: list[Camera],
    normalization: Normalization,
    longest: int,
    light: LightGrid | None = None,
) -> SurfacePoints:
    """Surface points of cameras without portraits, pictures shrunk to ``longest`` pixels."""
    parts = []
    for camera in cameras:
        scale = min(1.0, longest / max(camera.width, camera.height))
        small = camera.resized(round(camera.width * scale), round(camera.height * scale))
        shape = (small.height, small.width)
        everywhere = np.ones(shape, bool)
        picture = _Picture(small, None, everywhere, np.zeros(shape, np.float32))
        parts.append(_see(geometry, picture, normalization, light)[0])
    return _join(parts)


def dominance(maps: BeliefMaps, points: SurfacePoints, sharpness: float) -> Tensor:
    """How far each pixel's own view is the best one for its point, ``(belief / best)^sharpness``.

    Portraits of one drawing never agree to the pixel; letting the view that sees a place best
    decide keeps drawn lines sharp where averaging would blur them. ``(N,)`` in 0..1.
    """
    out = []
    for rows in torch.arange(len(points), device=points.y.device).split(1 << 16):
        best = maps.per_view(points.y[rows]).amax(dim=1)
        own = points.belief[rows]
        out.append((own / torch.maximum(best, own).clamp(min=1e-4)) ** sharpness)
    return torch.cat(out)


def prior_answers(prior: PriorLike, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """View-averaged colour ``(N, 3)``, features ``(N, F)`` and glances ``(N, 3)``, in chunks.

    Args:
        prior: The frozen prior.
        x: Prior points ``(N, 3)``.
        direction: View directions ``(N, 3)`` of the glances.
    """
    colors, features, glances = [], [], []
    with torch.no_grad():
        for part, toward in zip(x.split(1 << 16), direction.split(1 << 16), strict=True):
            sample = prior.evaluate(part)
            colors.append(prior.color(part))
            features.append(sample.feature)
            glances.append(glance(prior.radiance(part, sample, toward), colors[-1]))
    return torch.cat(colors), torch.cat(features), torch.cat(glances)


def _shrunk(view: StylizedView, scale: float) -> _Picture:
    camera = view.frame.camera
    mask, image, confidence = view.mask, view.image, view.confidence
    if scale < 1.0:
        size = (round(camera.width * scale), round(camera.height * scale))
        camera = camera.resized(*size)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
        confidence = np.asarray(
            cv2.resize(confidence, size, interpolation=cv2.INTER_AREA), np.float32
        )
    return _Picture(camera, image, mask > 127, confidence)


@torch.no_grad()
def _see(
    geometry: StylizedShape,
    picture: _Picture,
    normalization: Normalization,
    light: LightGrid | None,
) -> tuple[SurfacePoints, Float32Array]:
    """Trace one picture's pixels; also its depth map along z in unit space (0 = none)."""
    device = geometry.device
    row, column = np.nonzero(picture.mask)
    rays = pixel_rays(picture.camera, column, row, normalization, device)
    distance, hit = trace(geometry, rays.origin, rays.direction)
    (found,) = torch.nonzero(hit, as_tuple=True)
    chosen = found.cpu().numpy()
    row, column = row[chosen], column[chosen]
    direction = rays.direction[found]
    y = rays.origin[found] + distance[found, None] * direction
    normal = functional.normalize(geometry.sdf_gradient(y), dim=1)
    x = geometry.to_prior(y)
    color, feature, glances = prior_answers(geometry.prior, x, direction)
    if light is not None:
        color = light(x, color)
    target = torch.zeros_like(color)
    if picture.image is not None:
        target = torch.tensor(picture.image[row, column], device=device).float() / 255.0
    axis = torch.tensor(picture.camera.c2w[:3, 2], dtype=torch.float32, device=device)
    depth = np.zeros(picture.mask.shape, np.float32)
    depth[row, column] = (distance[found] * (direction @ axis)).cpu().numpy()
    index = torch.full(picture.mask.shape, -1, dtype=torch.int64)
    index[torch.from_numpy(row), torch.from_numpy(column)] = torch.arange(len(row))
    trust = torch.tensor(picture.confidence[row, column], device=device)
    points = SurfacePoints(
        y, color, feature, normal, direction, glances, target, trust.clone(), trust, [index]
    )
    return points, depth


def _believe(
    points: SurfacePoints,
    depth: Float32Array,
    picture: _Picture,
    settings: TextureAdaptionSettings,
) -> Tensor:
    """Fill ``points.belief`` (facing x confidence x fade at borders); the same as a map."""
    facing = -(points.normal * points.direction).sum(1)
    high = np.asarray(cv2.dilate(depth, np.ones((3, 3), np.uint8)))
    low = np.asarray(cv2.erode(depth, np.ones((3, 3), np.uint8)))
    calm = (depth > 0) & (high - low < DEPTH_STEP) & picture.mask
    away = torch.from_numpy(signed_distance(calm)).clamp(min=0)
    fade = smoothstep(away, 0.0, settings.fade_pixels)
    row, column = torch.nonzero(points.index[0] >= 0, as_tuple=True)
    order = points.index[0][row, column]
    device = points.y.device
    points.belief[order] = (
        smoothstep(facing, settings.facing_low, settings.facing_high)[order]
        * points.trust[order]
        * fade[row, column].to(device)
    )
    weight = torch.zeros(depth.shape)
    weight[row, column] = points.belief[order].cpu()
    # The map is looked up between pixels: a small blur keeps the fade smooth.
    return torch.from_numpy(cv2.GaussianBlur(weight.numpy(), (0, 0), 1.0))


def _join(parts: list[SurfacePoints]) -> SurfacePoints:
    index, offset = [], 0
    for part in parts:
        index.append(torch.where(part.index[0] >= 0, part.index[0] + offset, -1))
        offset += len(part)

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return SurfacePoints(
        joined("y"),
        joined("color"),
        joined("feature"),
        joined("normal"),
        joined("direction"),
        joined("glance"),
        joined("target"),
        joined("belief"),
        joined("trust"),
        index,
    )


def _common_size(
    weights: list[Tensor], depths: list[Tensor], projections: list[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Bring maps of frames of different sizes to the largest size (depth: nearest)."""
    height = max(weight.shape[0] for weight in weights)
    width = max(weight.shape[1] for weight in weights)
    out: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for weight, depth, projection in zip(weights, depths, projections, strict=True):
        size = (width, height)
        grow = torch.diag(
            torch.tensor([width / weight.shape[1], height / weight.shape[0], 1.0]).double()
        )
        out[0].append(torch.from_numpy(cv2.resize(weight.numpy(), size)))
        nearest = cv2.resize(depth.numpy(), size, interpolation=cv2.INTER_NEAREST)
        out[1].append(torch.from_numpy(nearest))
        out[2].append(grow @ projection.double())
    return out
