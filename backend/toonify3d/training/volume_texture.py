"""Stage III as published: F_tex and the reflection rendered by volume on the frozen F_geo.

Eq. 10 along every ray, eq. 13 against the portraits, eq. 11 on one patch of rays per step. F_geo is
fixed, so weights need no gradient and the silhouette and eikonal terms of eq. 12 have none: they
are left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..scene import ByteImage, Scene, StylizedView
from ..snr.adapted import AdaptedGeometry, project_to_surface
from ..snr.avatar import StylizedShape
from ..snr.fields import AppearanceField, SurfaceSample
from ..snr.guide import Guide
from ..snr.light_grid import LightGrid
from ..snr.prior import Prior
from ..snr.rendering import (
    Samples,
    accumulate_weights,
    sample_along,
    section_opacity,
    sphere_interval,
)
from ..snr.volume_texture import AppearanceReflection, VolumeTexture
from .adaption_loop import LEAST_RAYS
from .adaption_settings import TextureAdaptionSettings
from .discriminator import PaletteDiscriminator, adversarial_terms, adversarial_weight, as_patches
from .losses import color_loss
from .palette import Posterize, style_palette
from .stage1_step import guided_samples
from .view_rays import PatchRays, Rays, ViewRays

GUIDE_SIDE = 128
# Surface points that F_tex's start is fitted to, and how many of them a step takes.
WARM_POINTS = 20_000
WARM_BATCH = 1024
# Samples of less weight than this are not coloured by the guided sampler.
LEAST_WEIGHT = 1e-4
JUDGED_RAYS = 4096


class VolumeRendering:
    """Weights of rays through a frozen shape, and what the colour networks need there.

    Args:
        geometry: Stage II's result.
        settings: Sampler and sample counts.
    """

    def __init__(self, geometry: StylizedShape, settings: TextureAdaptionSettings) -> None:
        self.geometry, self.settings = geometry, settings
        fields = appearance_source(geometry)
        self.inv_s = float(fields.inv_s.detach())
        self.guide: Guide | None = None
        if settings.sampler == "guided":
            self.guide = Guide.from_field(geometry.sdf, GUIDE_SIDE, 0.0, geometry.device)
        # Colour also the samples that hardly weigh anything: no data-dependent sizes.
        self.all_samples = self.guide is None or geometry.device.type != "cpu"

    @torch.no_grad()
    def weigh(
        self, rays: Rays, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, SurfaceSample, Tensor]:
        """Samples of ``R`` rays that matter for the colour.

        Returns:
            Weight ``(M,)``, ray ``(M,)`` int64, and F_geo's answers and the points ``(M, 3)`` of
            the samples; with the hierarchical sampler, and on a GPU, all of them.
        """
        samples = self._samples(rays, generator)
        count = samples.distance.shape[1]
        points = rays.at(samples.distance).reshape(-1, 3)
        surface = self.geometry.evaluate(points)
        alpha = section_opacity(
            surface.sdf.view(len(rays), count),
            surface.gradient.view(len(rays), count, 3),
            rays.direction,
            samples.length,
            self.inv_s,
        )
        weights = accumulate_weights(alpha)
        if self.guide is not None:  # a soft surface is not opaque within the sampled span
            weights = weights / weights.sum(1, keepdim=True).clamp(min=0.05)
        flat = weights.reshape(-1)
        if self.all_samples:
            ray = torch.arange(len(rays), device=flat.device)[:, None].expand(len(rays), count)
            return flat, ray.reshape(-1), surface, points
        index = (flat > LEAST_WEIGHT).nonzero()[:, 0]
        chosen = SurfaceSample(*(value[index] for value in surface))
        return flat[index], index // count, chosen, points[index]

    def _samples(self, rays: Rays, generator: torch.Generator | None) -> Samples:
        settings = self.settings
        if self.guide is not None:
            return guided_samples(
                self.guide, rays.origin, rays.direction, settings.samples, self.inv_s, generator
            )
        near, far, _ = sphere_interval(rays.origin, rays.direction)
        return sample_along(
            self.geometry,
            rays.origin,
            rays.direction,
            near,
            far,
            settings.coarse_samples,
            settings.fine_samples,
            generator=generator,
        )


class VolumeAdaption:
    """One run of stage III by volume rendering.

    Args:
        scene: The capture.
        geometry: Stage II's result, frozen; its appearance field becomes the reflection.
        views: Stylized portraits.
        palette: The exemplar or its main colours ``(..., 3)``.
        settings: See :class:`.TextureAdaptionSettings`.
        light: Taken out of the person's colours that F_tex starts from; None leaves it in.

    Raises:
        TypeError: The prior has no appearance network.
    """

    def __init__(
        self,
        scene: Scene,
        geometry: StylizedShape,
        views: list[StylizedView],
        palette: ByteImage,
        settings: TextureAdaptionSettings,
        light: LightGrid | None = None,
    ) -> None:
        self.geometry, self.settings, self.light = geometry, settings, light
        device = geometry.device
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        source = appearance_source(geometry)
        self.texture = VolumeTexture(
            source.feature_width, settings.layers, settings.width, settings.weight_norm
        ).to(device)
        appearance: AppearanceField = source.appearance
        self.reflection = AppearanceReflection(appearance).to(device)
        self.discriminator = PaletteDiscriminator(settings.discriminator_width).to(device)
        self.posterize = Posterize(
            style_palette(palette, views, settings.palette_colors, settings.seed)
        )
        self.rays = ViewRays.within(scene, views, device, settings.silhouette_band)
        self.patches = PatchRays(views, scene.normalization, device, settings.patch)
        self.rendering = VolumeRendering(geometry, settings)
        self.ray_count = settings.rays
        self._style_weight = torch.zeros((), device=device)
        self._warm_start()

    def modules(self) -> nn.ModuleDict:
        """See :class:`.adaption_loop.Adaption`."""
        return nn.ModuleDict(
            {
                "texture": self.texture,
                "reflection": self.reflection,
                "discriminator": self.discriminator,
            }
        )

    def optimizer(self) -> torch.optim.Optimizer:
        """See :class:`.adaption_loop.Adaption`."""
        return torch.optim.Adam(
            self.modules().parameters(),
            lr=self.settings.volume_learning_rate,
            betas=(0.9, self.settings.adam_beta2),
            eps=self.settings.adam_epsilon,
            fused=self.geometry.device.type in ("cpu", "cuda"),
        )

    def generators(self) -> dict[str, torch.Generator | np.random.Generator]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"rays": self.generator}

    def losses(self, fraction: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 12 on one batch: random rays, and patches whose rays count among the batch's."""
        self.prepare(fraction)
        return self.batch_losses()

    def prepare(self, fraction: float) -> int:
        """See :class:`.adaption_loop.Recordable`."""
        self._style_weight.fill_(adversarial_weight(fraction, self.settings))
        return self.ray_count

    def batch_losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`.adaption_loop.Recordable`."""
        settings, generator = self.settings, self.generator
        count = patch_count(settings, self.ray_count)
        drawn = self.patches.draw(count, generator) if settings.discriminator_weight else None
        inside = 0 if drawn is None else len(drawn[0])
        rays, target, mask, _ = self.rays.draw_evenly(max(1, self.ray_count - inside), generator)
        if drawn is not None:
            rays = Rays(
                torch.cat([rays.origin, drawn[0].origin]),
                torch.cat([rays.direction, drawn[0].direction]),
            )
            target = torch.cat([target, drawn[1]])
            mask = torch.cat([mask, torch.ones(inside, device=mask.device)])
        color, shade = self.render(rays)
        fit = color_loss(color, target, (mask > 0.5).to(mask.dtype), settings.reduction)
        off, chroma = reflection_penalty(shade)
        total = fit + settings.reflection_weight * off + settings.monochrome_weight * chroma
        values = {"color": fit.detach(), "reflection": off.detach(), "total": fit.detach()}
        if drawn is not None:
            real = as_patches(self.posterize(self._real_colors(count)), settings.patch)
            fake = as_patches(color[-inside:], settings.patch)
            own, fields = adversarial_terms(self.discriminator, real, fake, settings.r1_weight)
            total = total + own + self._style_weight * fields
            values["palette"] = fields.detach()
        return total, values

    def _real_colors(self, count: int) -> Tensor:
        drawn = self.patches.draw(count, self.generator)
        assert drawn is not None  # the caller has just drawn some
        return drawn[1]

    def render(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """See :func:`reflected_color`."""
        return reflected_color(self.rendering, self.reflection, self.texture, rays, self.generator)

    def shrink(self) -> int | None:
        """See :class:`.adaption_loop.Adaption`."""
        if self.ray_count <= LEAST_RAYS:
            return None
        self.ray_count //= 2
        return self.ray_count

    def step_state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"rays": self.ray_count}

    def restore_step_state(self, state: dict[str, Any]) -> None:
        """See :class:`.adaption_loop.Adaption`."""
        self.ray_count = min(self.ray_count, int(state["rays"]))

    def state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`; :func:`load_volume_texture` reads it."""
        return {
            "rendering": "volume",
            "shape": list(self.texture.shape),
            "parameters": self.texture.state_dict(),
        }

    def figures(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return {
            "portrait_psnr": self.portrait_psnr(),
            "palette": self.posterize.palette.tolist(),
        }

    @torch.no_grad()
    def portrait_psnr(self, count: int = JUDGED_RAYS) -> float:
        """PSNR in dB of the volume-rendered albedo against the portraits' foreground."""
        fixed = torch.Generator(self.geometry.device).manual_seed(0)
        rays, target, mask, _ = self.rays.draw_evenly(count, fixed)
        error, total = 0.0, 0.0
        for start in range(0, count, 512):
            part = rays.part(slice(start, start + 512))
            weight, ray, surface, points = self.rendering.weigh(part, None)
            albedo = weight[:, None] * self.texture(points, surface.feature)
            color = torch.zeros_like(part.direction).index_add(0, ray, albedo)
            inside = (mask[start : start + 512] > 0.5).to(color.dtype)
            off = (color - target[start : start + 512]).square().mean(1)
            error, total = error + float((off * inside).sum()), total + float(inside.sum())
        return -10.0 * math.log10(max(error / max(total, 1.0), 1e-9))

    def _warm_start(self) -> None:
        """F_tex starts with the person's colours all round, so that unseen sides have some."""
        geometry, device = self.geometry, self.geometry.device
        free = torch.rand((WARM_POINTS, 3), generator=self.generator, device=device) * 1.6 - 0.8
        points = project_to_surface(geometry, free)
        with torch.no_grad():
            x = geometry.to_prior(points)
            wanted = geometry.prior.color(x)
            if self.light is not None:
                wanted = self.light(x, wanted)
            feature = geometry.evaluate(points).feature
        fit_albedo(self.texture, points, feature, wanted, self.settings.warm_steps, self.generator)


def patch_count(settings: TextureAdaptionSettings, rays: int) -> int:
    """Patches in a batch of ``rays``: as asked, but at most half of the rays and at least one."""
    return max(1, min(settings.patches, rays // (2 * settings.patch**2)))


def fit_albedo(
    texture: VolumeTexture,
    points: Tensor,
    feature: Tensor,
    wanted: Tensor,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Plain regression of F_tex to colours ``(N, 3)`` at ``points (N, 3)``: its warm start."""
    if not len(points):
        return
    optimizer = torch.optim.Adam(texture.parameters(), lr=1e-3)
    for _ in range(steps):
        rows = torch.randint(len(points), (WARM_BATCH,), generator=generator, device=points.device)
        loss = (texture(points[rows], feature[rows]) - wanted[rows]).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def reflection_penalty(shade: Tensor) -> tuple[Tensor, Tensor]:
    """How far ``s (N, 3)`` is from 1, and from grey: mean ``|s - 1|`` and mean ``|s - mean(s)|``.

    ``c = s * c_tex`` leaves the scale of both open; these two terms fix it.
    """
    return (shade - 1.0).abs().mean(), (shade - shade.mean(1, keepdim=True)).abs().mean()


def reflected_color(
    rendering: VolumeRendering,
    reflection: AppearanceReflection,
    texture: VolumeTexture,
    rays: Rays,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Eq. 10: accumulated ``s * c_tex`` of the rays ``(R, 3)``, and ``s`` of the samples."""
    weight, ray, surface, points = rendering.weigh(rays, generator)
    shade: Tensor = reflection(points, surface.gradient, rays.direction[ray], surface.feature)
    seen = shade * texture(points, surface.feature)
    color = torch.zeros_like(rays.direction).index_add(0, ray, weight[:, None] * seen)
    return color, shade


def appearance_source(geometry: StylizedShape) -> Prior:
    """The fields whose F_app and sharpness stage III starts from.

    Raises:
        TypeError: The prior is not a trained network.
    """
    fields = geometry.adapted if isinstance(geometry, AdaptedGeometry) else geometry.prior
    if not isinstance(fields, Prior):
        raise TypeError(f"volume rendering needs trained networks, not {type(fields).__name__}")
    return fields


def load_volume_texture(state: dict[str, Any], device: torch.device | str) -> VolumeTexture:
    """The texture that :meth:`VolumeAdaption.state` described."""
    texture = VolumeTexture(*state["shape"]).to(device)
    texture.load_state_dict(state["parameters"])
    texture.requires_grad_(False)
    return texture
