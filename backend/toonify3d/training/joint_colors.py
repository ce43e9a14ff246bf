"""F_tex, the reflection and the discriminator of a run without PSA (eq. 10, 11 and 12).

The ablation "without PSA" learns them together with F_geo and F_app instead of after them. They
start, are penalised and are judged exactly as in :mod:`.volume_texture`, by the same settings, so
that only the order of training differs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..scene import ByteImage, Normalization, StylizedView
from ..snr.adapted import project_to_surface
from ..snr.fields import SurfaceSample
from ..snr.light_grid import LightGrid
from ..snr.prior import Prior
from ..snr.volume_texture import AppearanceReflection, VolumeTexture
from .adaption_settings import TextureAdaptionSettings
from .discriminator import PaletteDiscriminator, adversarial_terms, adversarial_weight, as_patches
from .palette import Posterize, style_palette
from .view_rays import PatchRays, Rays
from .volume_texture import WARM_POINTS, fit_albedo, patch_count, reflection_penalty


class JointTexture(NamedTuple):
    """What stage III would be given.

    Attributes:
        settings: Of stage III.
        palette: The exemplar or its main colours, RGB ``(..., 3)``.
        light: Taken out of the person's colours that F_tex starts from; None leaves it in.
    """

    settings: TextureAdaptionSettings
    palette: ByteImage
    light: LightGrid | None = None


class JointColors:
    """Has the shape of a field for :class:`.StepRenderer`: colours are ``s * c_tex``.

    Args:
        adapted: F_geo and F_app in training.
        views: Stylized portraits.
        normalization: World to unit space.
        given: What stage III would be given.
    """

    def __init__(
        self,
        adapted: Prior,
        views: list[StylizedView],
        normalization: Normalization,
        given: JointTexture,
    ) -> None:
        settings, device = given.settings, adapted.device
        self.adapted, self.settings, self.light = adapted, settings, given.light
        self.texture = VolumeTexture(
            adapted.feature_width, settings.layers, settings.width, settings.weight_norm
        ).to(device)
        self.reflection = AppearanceReflection(adapted.appearance).to(device)
        self.discriminator = PaletteDiscriminator(settings.discriminator_width).to(device)
        self.posterize = Posterize(
            style_palette(given.palette, views, settings.palette_colors, settings.seed)
        )
        self.patches = PatchRays(views, normalization, device, settings.patch)
        self._style_weight = torch.zeros((), device=device)
        self._penalty: Tensor | None = None
        self._warm_start()

    def learned(self) -> dict[str, nn.Module]:
        """What is optimised beside the adapted fields."""
        return {
            "texture": self.texture,
            "reflection": self.reflection,
            "discriminator": self.discriminator,
        }

    def parameter_group(self) -> dict[str, Any]:
        """What is optimised as a group of Adam's, at stage III's rate and in its form."""
        settings = self.settings
        return {
            "params": [p for module in self.learned().values() for p in module.parameters()],
            "lr": settings.volume_learning_rate,
            "betas": (0.9, settings.adam_beta2),
            "eps": settings.adam_epsilon,
        }

    def state(self) -> dict[str, Any]:
        """F_tex as stage III would save it."""
        shape = list(self.texture.shape)
        return {"texture": {"shape": shape, "parameters": self.texture.state_dict()}}

    def prepare(self, fraction: float) -> None:
        """Set the discriminator's weight for ``fraction`` 0 to 1 of the run."""
        self._style_weight.fill_(adversarial_weight(fraction, self.settings))

    def sdf(self, x: Tensor) -> Tensor:
        """Of the adapted fields."""
        return self.adapted.sdf(x)

    def evaluate(self, x: Tensor) -> SurfaceSample:
        """Of the adapted fields."""
        return self.adapted.evaluate(x)

    def radiance(self, x: Tensor, sample: SurfaceSample, direction: Tensor) -> Tensor:
        """``s * c_tex`` (below eq. 9)."""
        shade: Tensor = self.reflection(x, sample.gradient, direction, sample.feature)
        off, chroma = reflection_penalty(shade)
        settings = self.settings
        self._penalty = settings.reflection_weight * off + settings.monochrome_weight * chroma
        albedo: Tensor = self.texture(x, sample.feature)
        return shade * albedo

    def take_penalty(self) -> Tensor:
        """The penalty on the last :meth:`radiance`; kept no longer, nor its autograd graph."""
        penalty, self._penalty = self._penalty, None
        assert penalty is not None  # the renderer has just asked for colours
        return penalty

    def draw_patches(self, rays: int, generator: torch.Generator) -> tuple[Rays, Tensor] | None:
        """The discriminator's share of a batch of ``rays``: rays and colours; None for none."""
        if not self.settings.discriminator_weight:
            return None
        return self.patches.draw(patch_count(self.settings, rays), generator)

    def adversarial(self, shown: Tensor, generator: torch.Generator) -> Tensor:
        """Both sides of eq. 11 on the patches' rendered colours ``(B * side * side, 3)``."""
        side = self.settings.patch
        drawn = self.patches.draw(len(shown) // side**2, generator)
        assert drawn is not None  # patches were rendered, so there are some
        real = as_patches(self.posterize(drawn[1]), side)
        own, fields = adversarial_terms(
            self.discriminator, real, as_patches(shown, side), self.settings.r1_weight
        )
        return own + self._style_weight * fields

    def _warm_start(self) -> None:
        """F_tex starts with the person's colours all round, as in stage III."""
        settings, device = self.settings, self.adapted.device
        generator = torch.Generator(device).manual_seed(settings.seed)
        free = torch.rand((WARM_POINTS, 3), generator=generator, device=device) * 1.6 - 0.8
        points = project_to_surface(self.adapted, free)
        with torch.no_grad():
            wanted = self.adapted.color(points)
            if self.light is not None:
                wanted = self.light(points, wanted)
            feature = self.adapted.evaluate(points).feature
        fit_albedo(self.texture, points, feature, wanted, settings.warm_steps, generator)
