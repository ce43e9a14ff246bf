"""Poses of the frames that stage I did not train on, fitted to its finished surface.

With refined cameras the surface no longer fits the given ones. Frames held out of the training
would be off by what the others were moved; portraits may be made of them, and their PSNR would
measure their pose. Only the pose learns from their pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..scene import Camera, Frame, Scene
from ..snr.guide import Guide
from ..snr.prior import Prior
from .corrections import FrameCorrections
from .data import RayBank
from .settings import PriorSettings
from .stage1_step import StepRenderer

STEPS = 100
FINAL_RATE = 0.05


def fitted_poses(
    prior: Prior,
    guide: Guide,
    scene: Scene,
    frames: list[Frame],
    settings: PriorSettings,
    generator: torch.Generator,
) -> list[Frame]:
    """The frames with camera poses that fit the prior.

    Args:
        prior: Finished; nothing of it is changed.
        guide: Of its surface.
        scene: Images and masks.
        frames: Which; with the focal length that was found.
        settings: Of the training.
        generator: Random numbers.
    """
    cameras = [frame.camera for frame in frames]
    band, binary = settings.silhouette_band, settings.binary_masks
    bank = RayBank.from_scene(scene, frames, band, prior.device, binary)
    bank.drop_unreachable(guide)
    corrections = FrameCorrections(
        len(frames), True, False, False, cameras, scene.normalization, gauge=False
    ).to(prior.device)
    renderer = StepRenderer(prior, guide, settings, corrections, generator)
    learned = [corrections.rotation, corrections.translation]
    optimizer = torch.optim.Adam(learned, lr=settings.lr_cameras, betas=(0.9, 0.99))
    sharpness = float(prior.inv_s)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = settings.lr_cameras * FINAL_RATE ** (step / STEPS)
        losses = renderer.losses(bank.sample(settings.rays, generator), sharpness, 0.0)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
    return with_cameras(frames, corrections.corrected(cameras, scene.normalization))


def with_cameras(frames: list[Frame], cameras: list[Camera]) -> list[Frame]:
    """The frames with other cameras."""
    pairs = zip(frames, cameras, strict=True)
    return [replace(frame, camera=camera) for frame, camera in pairs]
