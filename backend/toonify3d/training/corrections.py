"""Small learned corrections of what structure from motion and the phone got wrong per frame."""

from __future__ import annotations

import torch
from torch import nn


class FrameCorrections(nn.Module):
    """A small rigid motion and a colour gain per training frame.

    Gauge: corrections are used minus their mean over the frames, so that the whole set can
    neither drift nor change the overall exposure.

    Args:
        frames: Number of training frames.
        poses: Whether the poses are corrected.
        exposure: Whether the colours are.
    """

    def __init__(self, frames: int, poses: bool, exposure: bool) -> None:
        super().__init__()
        self.poses = poses
        self.exposure = exposure
        self.rotation = nn.Parameter(torch.zeros(frames, 3), requires_grad=poses)
        self.translation = nn.Parameter(torch.zeros(frames, 3), requires_grad=poses)
        self.log_gain = nn.Parameter(torch.zeros(frames, 3), requires_grad=exposure)

    def move(
        self, frame: torch.Tensor, origins: torch.Tensor, directions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Corrected origins and unit directions ``(R, 3)`` of rays of frames ``(R,)``.

        Rotations are a tenth of a degree: first order (cross product) is exact to 1e-6.
        """
        if not self.poses:
            return origins, directions
        rotation = (self.rotation - self.rotation.mean(0))[frame]
        translation = (self.translation - self.translation.mean(0))[frame]
        turned = directions + torch.linalg.cross(rotation, directions)
        return origins + translation, torch.nn.functional.normalize(turned, dim=1)

    def expose(self, frame: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
        """The rendered colour ``(R, 3)`` as frames ``(R,)`` would show it."""
        if not self.exposure:
            return color
        return color * (self.log_gain - self.log_gain.mean(0))[frame].exp()
