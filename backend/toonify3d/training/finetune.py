"""Stage II as published: F_geo and F_app go on learning from the stylized portraits (eq. 8, 9).

The same rendering step as stage I (:class:`.stage1_step.StepRenderer`) on the portraits' rays, with
a copy of the prior as its start and without stereo. Two ablations of the paper live here too:
``joint`` learns F_tex and the discriminator at the same time (without PSA), and
:func:`learn_without_prior` starts from nothing.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..progress import Progress
from ..scene import ByteImage, Float32Array, Frame, Scene, StylizedView
from ..snr.adapted import AdaptedGeometry, project_to_surface
from ..snr.avatar import PriorLike
from ..snr.encoding import HashEncoding
from ..snr.fields import SurfaceSample
from ..snr.guide import Guide
from ..snr.prior import Prior
from ..snr.volume_texture import AppearanceReflection, VolumeTexture
from .adaption_loop import LEAST_RAYS
from .adaption_settings import GeometryAdaptionSettings, TextureAdaptionSettings
from .corrections import FrameCorrections
from .data import RayBatch
from .discriminator import PaletteDiscriminator, adversarial_terms, as_patches
from .palette import Posterize, style_palette
from .settings import PAPER, PREVIEW, PriorSettings
from .stage1 import train_prior
from .stage1_step import StepRenderer
from .view_rays import PatchRays, Rays, ViewRays
from .volume_texture import WARM_POINTS, fit_albedo, reflection_penalty

# Steps between two updates of the guide grid.
REFRESH = 25
# How deep below the prior's surface the guide may follow the stylized one (unit space).
SLACK = 0.3
# Points at which the way back to the person is judged.
JUDGED = 2000
# Share of the rays that the discriminator's patch may take in a joint run.
JOINT_PATCH = 16


class FieldFinetune:
    """One run of stage II by fine-tuning (or of stages II and III at once).

    Args:
        scene: The capture.
        prior: Frozen stage I; copied.
        views: Stylized portraits.
        settings: See :class:`.GeometryAdaptionSettings`.

    Raises:
        TypeError: The prior is not a trained network.
    """

    def __init__(
        self,
        scene: Scene,
        prior: PriorLike,
        views: list[StylizedView],
        settings: GeometryAdaptionSettings,
    ) -> None:
        self.prior, self.settings, self.device = prior, settings, prior.device
        self.adapted = _as_prior(prior)
        reach = max(8, views[0].image.shape[1] // 12)
        self.rays = ViewRays(scene, views, self.device, edge=max(3, reach // 5), reach=reach)
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed)
        self.guide: Guide | None = None
        if settings.sampler == "guided":
            side = settings.coarse_resolution
            self.guide = Guide.from_field(prior.sdf, side, SLACK, self.device)
        self.colors = JointColors(self.adapted, views, scene, settings) if settings.joint else None
        self.renderer = StepRenderer(
            self.adapted if self.colors is None else self.colors,
            self.guide,
            step_settings(settings),
            FrameCorrections(len(views), poses=False, exposure=False).to(self.device),
            self.generator,
        )
        # How many samples weigh something is only known on the device.
        self.renderer.all_colors |= self.device.type != "cpu"
        self.ray_count = settings.rays
        self._inv_s = torch.tensor(settings.sharpness_start, device=self.device)
        self._calls = 0

    def modules(self) -> nn.ModuleDict:
        """See :class:`.adaption_loop.Adaption`."""
        modules: dict[str, nn.Module] = {"adapted": self.adapted}
        if self.colors is not None:
            modules |= self.colors.learned()
        return nn.ModuleDict(modules)

    def optimizer(self) -> torch.optim.Optimizer:
        """See :class:`.adaption_loop.Adaption`."""
        settings = self.settings
        encoding = self.adapted.geometry.encoding
        table = [encoding.table] if isinstance(encoding, HashEncoding) else []
        left_out = {id(p) for p in table}
        if not settings.learn_inv_s:
            left_out.add(id(self.adapted.variance))
        network = [p for p in self.modules().parameters() if id(p) not in left_out]
        groups = [{"params": network, "lr": settings.field_learning_rate}]
        if table:
            groups.append({"params": table, "lr": settings.table_learning_rate})
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=fused)

    def generators(self) -> dict[str, torch.Generator | np.random.Generator]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"rays": self.generator}

    def losses(self, fraction: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 9 (of a joint run eq. 12 with F_geo free) on one batch."""
        self.prepare(fraction)
        return self.batch_losses()

    def prepare(self, fraction: float) -> int:
        """See :class:`.adaption_loop.Recordable`."""
        if self.guide is not None and self._calls % REFRESH == 0:
            self.guide.refresh(self.adapted.sdf)
        self._calls += 1
        self._inv_s.fill_(self._sharpness(fraction))
        return self.ray_count

    def batch_losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`.adaption_loop.Recordable`."""
        rays, color, mask, interior = self.rays.draw_evenly(self.ray_count, self.generator)
        inv_s = self.adapted.inv_s if self.settings.learn_inv_s else self._inv_s
        terms = self.renderer.losses(as_batch(rays, color, mask, interior), inv_s, 0.0)
        total = terms.total
        if self.colors is not None:
            total = total + self.colors.take_penalty()
            total = total + self.colors.adversarial(self.renderer, inv_s, self.generator)
        values = {"total": terms.total, "color": terms.color, "mask": terms.mask}
        values["eikonal"] = terms.eikonal
        return total, {name: value.detach() for name, value in values.items()}

    def shrink(self) -> int | None:
        """See :class:`.adaption_loop.Adaption`."""
        if self.ray_count <= LEAST_RAYS:
            return None
        self.ray_count //= 2
        return self.ray_count

    def step_state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        guide = None if self.guide is None else self.guide.values
        return {"calls": self._calls, "rays": self.ray_count, "guide": guide}

    def restore_step_state(self, state: dict[str, Any]) -> None:
        """See :class:`.adaption_loop.Adaption`."""
        self._calls = int(state["calls"])
        self.ray_count = min(self.ray_count, int(state["rays"]))
        if self.guide is not None:
            self.guide.values.copy_(state["guide"])

    def state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`; :func:`load_finetuned` reads it."""
        if not self.settings.learn_inv_s:
            with torch.no_grad():
                self.adapted.variance.fill_(math.log(self._sharpness(1.0)) / 10.0)
        state = {"method": "finetune", "adapted": self.adapted.export_state()}
        return state if self.colors is None else state | self.colors.state()

    def figures(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return inverse_figures(self.geometry(), self.generator)

    def geometry(self) -> AdaptedGeometry:
        """The result (or the present state of it)."""
        return AdaptedGeometry(self.prior, copy.deepcopy(self.adapted))

    def _sharpness(self, fraction: float) -> float:
        low, high = self.settings.sharpness_start, self.settings.sharpness_end
        return float(low * (high / low) ** min(1.0, fraction / 0.8))


class JointColors:
    """F_tex, the reflection and the discriminator of a run without PSA (eq. 10, 11, 12).

    Has the shape of a field for :class:`.StepRenderer`: geometry of the adapted fields, colours
    ``s * c_tex``.
    """

    def __init__(
        self,
        adapted: Prior,
        views: list[StylizedView],
        scene: Scene,
        settings: GeometryAdaptionSettings,
    ) -> None:
        fields = adapted.settings
        device = adapted.device
        self.adapted = adapted
        self.texture = VolumeTexture(
            adapted.feature_width, fields.appearance_layers, fields.appearance_width
        ).to(device)
        self.reflection = AppearanceReflection(adapted.appearance).to(device)
        self.discriminator = PaletteDiscriminator().to(device)
        self.posterize = Posterize(
            style_palette(np.zeros((0, 3), np.uint8), views, 16, settings.seed)
        )
        self.patches = PatchRays(views, scene.normalization, device, JOINT_PATCH)
        self._penalty: Tensor | None = None
        self._warm_start(settings.seed)

    def learned(self) -> dict[str, nn.Module]:
        """What is optimised beside the adapted fields."""
        return {
            "texture": self.texture,
            "reflection": self.reflection,
            "discriminator": self.discriminator,
        }

    def state(self) -> dict[str, Any]:
        """F_tex as stage III would save it."""
        return {"texture": {"shape": self.texture.shape, "parameters": self.texture.state_dict()}}

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
        weights = TextureAdaptionSettings
        self._penalty = weights.reflection_weight * off + weights.monochrome_weight * chroma
        albedo: Tensor = self.texture(x, sample.feature)
        return shade * albedo

    def take_penalty(self) -> Tensor:
        """The penalty on the last :meth:`radiance`; kept no longer, nor its autograd graph."""
        penalty, self._penalty = self._penalty, None
        assert penalty is not None  # the renderer has just asked for colours
        return penalty

    @torch.no_grad()
    def _surface(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        free = torch.rand((WARM_POINTS, 3), generator=generator, device=self.adapted.device)
        points = project_to_surface(self.adapted, free * 1.6 - 0.8)
        return points, self.adapted.evaluate(points).feature, self.adapted.color(points)

    def _warm_start(self, seed: int) -> None:
        generator = torch.Generator(self.adapted.device).manual_seed(seed)
        points, feature, wanted = self._surface(generator)
        steps = TextureAdaptionSettings.warm_steps
        fit_albedo(self.texture, points, feature, wanted, steps, generator)

    def adversarial(
        self, renderer: StepRenderer, inv_s: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Both sides of eq. 11, weight 1 as published."""
        drawn = self.patches.draw(1, generator)
        if drawn is None:
            return torch.zeros((), device=self.adapted.device)
        rays, color = drawn
        fake = as_patches(renderer.render(rays.origin, rays.direction, inv_s).color, JOINT_PATCH)
        real = as_patches(self.posterize(color), JOINT_PATCH)
        self._penalty = None  # of the patch: the batch's own counts
        own, fields = adversarial_terms(self.discriminator, real, fake, r1_weight=0.5)
        return own + fields


def step_settings(settings: GeometryAdaptionSettings) -> PriorSettings:
    """Stage II's numbers in the form the rendering step reads."""
    guided = settings.sampler == "guided"
    return PriorSettings(
        sampler=settings.sampler,
        samples=settings.samples,
        coarse_samples=settings.coarse_samples,
        fine_samples=settings.fine_samples,
        free_points=512 if guided else 0,
        weight_mvs=0.0,
        weight_mask=settings.mask_weight,
        weight_eikonal=settings.eikonal_weight,
        weight_empty=0.0,
        enough_coverage=0.5 if guided else 0.0,
        divide_color=guided,
        color_threshold=1e-3 if guided else 0.0,
    )


def as_batch(rays: Rays, color: Tensor, mask: Tensor, interior: Tensor) -> RayBatch:
    """Portrait rays as stage I's batches, without stereo."""
    nothing = torch.zeros_like(mask)
    return RayBatch(
        rays.origin,
        rays.direction,
        color,
        mask,
        (mask > 0.5).to(mask.dtype),
        interior,
        nothing,
        nothing,
        torch.zeros(len(mask), dtype=torch.int64, device=mask.device),
    )


def inverse_figures(geometry: AdaptedGeometry, generator: torch.Generator) -> dict[str, float]:
    """How good the way back to the person is, for ``metrics.json``."""
    device = geometry.device
    points = torch.rand((JUDGED, 3), generator=generator, device=device) * 1.4 - 0.7
    surface = project_to_surface(geometry.adapted, points)
    if not len(surface):
        return {}
    quality = geometry.inverse_quality(surface)
    return {
        "inverse_residual": quality.residual,
        "smallest_determinant": quality.smallest_determinant,
        "inverse_folded": quality.folded,
    }


def load_finetuned(
    prior: PriorLike, state: dict[str, Any], device: torch.device | str
) -> AdaptedGeometry:
    """The geometry that :meth:`FieldFinetune.state` described."""
    texture = None
    if "texture" in state:
        texture = VolumeTexture(*state["texture"]["shape"]).to(device)
        texture.load_state_dict(state["texture"]["parameters"])
        texture.requires_grad_(False)
    return AdaptedGeometry(prior, Prior.from_state(state["adapted"], device), texture)


def _as_prior(prior: PriorLike) -> Prior:
    if not isinstance(prior, Prior):
        raise TypeError(f"only trained networks can be fine-tuned, not {type(prior).__name__}")
    return copy.deepcopy(prior).requires_grad_(True).train()


# -- without prior ------------------------------------------------------------------------------


class PortraitScene(Scene):
    """The stylized portraits as a capture of their own."""

    def __init__(self, scene: Scene, views: list[StylizedView]) -> None:
        super().__init__(
            scene.root, [view.frame for view in views], scene.normalization, None, scene.crop_z
        )
        self._views = {view.frame.name: view for view in views}

    def image(self, frame: Frame) -> ByteImage:
        """See :class:`.Scene`."""
        return self._views[frame.name].image

    def mask(self, frame: Frame) -> ByteImage:
        """See :class:`.Scene`."""
        return self._views[frame.name].mask

    def depth(self, frame: Frame) -> tuple[Float32Array, Float32Array] | None:
        """See :class:`.Scene`: portraits have none."""
        return None


def learn_without_prior(
    scene: Scene,
    views: list[StylizedView],
    prior: PriorLike,
    settings: GeometryAdaptionSettings,
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ablation "without prior": stage I's training on the portraits alone.

    Args:
        scene: The capture (normalization and crop height).
        views: Stylized portraits, at least three.
        prior: Only its architecture is taken.
        settings: ``steps``, ``rays``, ``seed``.
        folder: The stage's folder; the training keeps its checkpoint in ``fields`` below it.
        progress: Told where it is.

    Returns:
        State for :func:`load_finetuned`, and figures for ``metrics.json``.
    """
    fields = _as_prior(prior).settings
    base = PAPER if fields.encoding == "frequency" else PREVIEW
    chosen = replace(
        base,
        fields=fields,
        steps=settings.steps,
        rays=settings.rays,
        weight_mvs=0.0,
        holdout_frames=0,
        seed=settings.seed,
    )
    inner = folder / "fields"
    alone = train_prior(PortraitScene(scene, views), inner, chosen, str(prior.device), progress)
    metrics = json.loads((inner / "metrics.json").read_text(encoding="utf-8"))
    figures = {name: metrics[name] for name in ("steps", "seconds", "losses")}
    generator = torch.Generator(prior.device).manual_seed(settings.seed)
    figures |= inverse_figures(AdaptedGeometry(prior, alone), generator)
    return {"method": "finetune", "adapted": alone.export_state()}, figures
