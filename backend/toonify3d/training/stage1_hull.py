"""Where stage I starts: the visual hull, and F_geo fitted to it before anything is rendered."""

from __future__ import annotations

import torch

from ..scene import Frame, Scene
from ..snr.encoding import HashEncoding
from ..snr.guide import Guide
from ..snr.prior import Prior
from .schedule import active_levels
from .settings import PriorSettings


def start_guide(
    scene: Scene, frames: list[Frame], settings: PriorSettings, device: torch.device
) -> Guide:
    """The visual hull of ``frames``, with what their stereo depth carves out of it.

    Raises:
        InputError: The masks leave no common volume (``code="empty_hull"``).
    """
    guide = Guide.from_masks(
        [frame.camera for frame in frames],
        [scene.mask(frame) for frame in frames],
        scene.normalization,
        settings.guide_resolution,
        device,
        lowest=scene.crop_z,
    )
    pairs = [(frame.camera, scene.depth(frame)) for frame in frames]
    stereo = [(camera, depth) for camera, depth in pairs if depth is not None]
    if stereo and settings.weight_mvs > 0 and settings.hull_steps:
        guide.carve_with_depth(
            [camera for camera, _ in stereo],
            [depth for _, depth in stereo],
            scene.normalization,
        )
    return guide


def fit_hull(
    prior: Prior, guide: Guide, settings: PriorSettings, generator: torch.Generator
) -> None:
    """A few steps of plain distance regression; refreshes the guide.

    Args:
        prior: Its geometry is changed.
        guide: The visual hull, with what stereo carved out of it.
        settings: ``hull_steps`` and ``hull_inset``.
        generator: Random numbers.
    """
    device, encoding = prior.device, prior.geometry.encoding
    if isinstance(encoding, HashEncoding):
        encoding.active = active_levels(0, settings)
    inset = settings.hull_inset * guide.cell
    band = (guide.values.abs() < 6.0 * guide.cell).nonzero()
    optimizer = torch.optim.Adam(prior.geometry.parameters(), lr=5e-3, eps=1e-15)
    for _ in range(settings.hull_steps):
        index = torch.randint(len(band), (3072,), generator=generator, device=device)
        near = band[index].to(torch.float32)
        near = near + torch.rand((len(index), 3), generator=generator, device=device)
        free = torch.rand((1024, 3), generator=generator, device=device)
        points = torch.cat([near * guide.cell - 1.0, free * 2.0 - 1.0])
        wanted = guide.distance(points) + inset
        sample = prior.evaluate(points)
        loss = (sample.sdf - wanted).abs().mean()
        loss = loss + 0.01 * (sample.gradient.norm(dim=1) - 1.0).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    guide.refresh(prior.sdf)
