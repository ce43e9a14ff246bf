"""F_app adapted to the style on top of a frozen prior (stage II of the fast presets)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .encoding import FrequencyEncoding
from .texture import logit


class StyleHead(nn.Module):
    """F_app adapted to the style: the prior's colour plus a learned change of its logits.

    Starts as the prior's own appearance and learns faster than the deformation: what is drawn
    where the person has nothing (big pupils, outlines) is taken up as colour at that place of the
    person and bends nothing, while what merely lies elsewhere is cheaper to move.

    Args:
        features: Width of the prior's feature vector.
        width: Hidden width.
    """

    OCTAVES = 4

    def __init__(self, features: int, width: int = 48) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(features + 9 + 6 * self.OCTAVES, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        self.encoding = FrequencyEncoding(self.OCTAVES)
        self.out = nn.Linear(width, 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, color: Tensor, feature: Tensor, gradient: Tensor) -> Tensor:
        """Stylized colours ``(N, 3)`` at prior points from the prior's answers there."""
        place = self.encoding.features(x * math.pi)
        change = self.out(self.hidden(torch.cat([place, color, feature, gradient], dim=1)))
        return torch.sigmoid(logit(color) + change)
