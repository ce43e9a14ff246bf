"""The palette discriminator of stage III (eq. 11), on patches of rays.

Real patches are posterized portraits, fake ones what F_tex and the reflection give. The paper names
neither its shape nor the patch size: here a small convolutional net on 16 x 16 patches, the
non-saturating form of the loss for the fields, and an R1 penalty, because real and fake come from
the same few frames and a discriminator could simply remember them. Its width and the side of the
patches are settings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .adaption_settings import TextureAdaptionSettings


class PaletteDiscriminator(nn.Module):
    """Patch ``(B, 3, P, P)`` with values in 0..1 to one logit per cell, ``(B, 1, P/8, P/8)``.

    Args:
        width: Channels of the first layer.
    """

    def __init__(self, width: int) -> None:
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


def adversarial_terms(
    discriminator: PaletteDiscriminator, real: Tensor, fake: Tensor, r1_weight: float
) -> tuple[Tensor, Tensor]:
    """Eq. 11 from both sides on patches ``(B, 3, P, P)``.

    Returns:
        What the discriminator descends (the fields are constants to it, R1 penalty included), and
        what the fields descend (the discriminator is a constant to them), unweighted.
    """
    own = discriminator_loss(discriminator(real), discriminator(fake.detach()))
    own = own + r1_weight * r1_penalty(discriminator, real)
    frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
    judged = torch.func.functional_call(discriminator, frozen, (fake,))
    return own, field_loss(judged)


def adversarial_weight(fraction: float, settings: TextureAdaptionSettings) -> float:
    """lambda_ds of eq. 12: nothing at first, then a linear ramp to the full weight."""
    if fraction < settings.discriminator_from:
        return 0.0
    if settings.discriminator_ramp <= 0.0:
        return settings.discriminator_weight
    ramp = (fraction - settings.discriminator_from) / settings.discriminator_ramp
    return settings.discriminator_weight * min(1.0, ramp)


def as_patches(colors: Tensor, side: int) -> Tensor:
    """Rows of colours ``(B * side * side, 3)`` as images ``(B, 3, side, side)``."""
    return colors.reshape(-1, side, side, 3).permute(0, 3, 1, 2)
