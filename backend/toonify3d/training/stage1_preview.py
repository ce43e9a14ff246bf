"""Quick pictures and figures of a prior in training, traced through the guide grid."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..scene import ByteImage, Camera, Frame, Normalization, Scene
from ..snr.guide import Guide
from ..snr.prior import Prior
from ..snr.rendering import camera_rays

PREVIEW_HEIGHT = 256
CHUNK = 1 << 16


def shade_rays(
    prior: Prior, guide: Guide, origins: torch.Tensor, directions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Surface colours ``(R, 3)`` in 0..1 and hits ``(R,)``: guide first, then Newton on the field.

    Rays that miss are black.
    """
    with torch.no_grad():
        color = torch.zeros_like(origins)
        hit = torch.zeros(len(origins), dtype=torch.bool, device=origins.device)
        for start in range(0, len(origins), CHUNK):
            part = slice(start, start + CHUNK)
            t, value, slope = guide.intersect(origins[part], directions[part])
            index = (value <= 0.1 * guide.cell).nonzero()[:, 0]
            o, d, t = origins[part][index], directions[part][index], t[index]
            steepness = slope[index].clamp(-1.0, -0.3)
            for _ in range(3):
                t = t - (prior.sdf(o + d * t[:, None]) / steepness).clamp(-0.02, 0.02)
            color[start + index], _ = prior.shade(o + d * t[:, None], d)
            hit[start + index] = True
        return color, hit


def preview_image(
    prior: Prior, guide: Guide, camera: Camera, normalization: Normalization
) -> ByteImage:
    """A small picture of the current state on white, RGB ``(H, W, 3)``."""
    height = min(PREVIEW_HEIGHT, camera.height)
    small = camera.resized(round(camera.width * height / camera.height), height)
    color, hit = shade_rays(prior, guide, *camera_rays(small, normalization, prior.device))
    color[~hit] = 1.0
    picture = (color * 255.0).round().to(torch.uint8).cpu().numpy()
    return np.asarray(picture.reshape(small.height, small.width, 3))


def foreground_psnr(prior: Prior, guide: Guide, scene: Scene, frame: Frame) -> float:
    """PSNR in dB of the foreground pixels of a frame (missed ones count as black)."""
    camera = frame.camera
    origins, directions = camera_rays(camera, scene.normalization, prior.device)
    inside = torch.tensor(scene.mask(frame).ravel() > 127, device=prior.device)
    observed = torch.tensor(scene.image(frame).reshape(-1, 3), device=prior.device)[inside]
    color, _ = shade_rays(prior, guide, origins[inside], directions[inside])
    error = (color - observed.to(torch.float32) / 255.0).square().mean()
    return -10.0 * math.log10(max(float(error), 1e-10))


def mean_psnr(prior: Prior, guide: Guide, scene: Scene, frames: list[Frame]) -> float | None:
    """Mean of :func:`foreground_psnr` in dB, or None without frames."""
    if not frames:
        return None
    return sum(foreground_psnr(prior, guide, scene, frame) for frame in frames) / len(frames)
