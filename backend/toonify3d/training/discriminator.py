"""The palette discriminator of stage III (eq. 11), on patches of rays.

Real patches are posterized portraits, fake ones what F_tex and the reflection give. The paper names
neither its shape nor the patch size: here a small convolutional net on 16 x 16 patches, the
non-saturating form of the loss for the fields, and an R1 penalty, because real and fake come from
the same few frames and a discriminator could simply remember them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PaletteDiscriminator(nn.Module):
    """Patch ``(B, 3, P, P)`` with values in 0..1 to one logit per cell, ``(B, 1, P/8, P/8)``.

    Args:
        width: Channels of the first layer.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Logits: positive means "a posterized portrait"."""
        out: Tensor = self.layers(2.0 * patches - 1.0)
        return out


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What D descends: minus eq. 11, ``-E log D(real) - E log(1 - D(fake))``, from logits."""
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def field_loss(fake: Tensor) -> Tensor:
    """What the fields descend: ``-E log D(fake)`` (non-saturating form of eq. 11), from logits."""
    return functional.softplus(-fake).mean()


def r1_penalty(discriminator: PaletteDiscriminator, real: Tensor) -> Tensor:
    """Mean squared gradient of D at real patches (Mescheder et al. 2018), a scalar."""
    patches = real.detach().requires_grad_(True)
    logits = discriminator(patches)
    (gradient,) = torch.autograd.grad(logits.sum(), patches, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
