"""Stage II as published: F_geo and F_app go on learning from the stylized portraits (eq. 8, 9).

The same rendering step as stage I (:class:`.stage1_step.StepRenderer`) on the portraits' rays, with
a copy of the prior as its start and without stereo. Two ablations of the paper live here too:
``joint`` learns F_tex and the discriminator at the same time (without PSA, :mod:`.joint_colors`),
and :func:`learn_without_prior` starts from nothing.
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
from ..snr.guide import Guide
from ..snr.prior import Prior
from ..snr.volume_texture import VolumeTexture
from .adaption_loop import LEAST_RAYS
from .adaption_settings import GeometryAdaptionSettings
from .corrections import FrameCorrections
from .data import RayBatch
from .joint_colors import JointColors, JointTexture
from .settings import PriorSettings
from .stage1 import train_prior
from .stage1_step import StepRenderer
from .view_rays import Rays, ViewRays

# Steps between two updates of the guide grid.
REFRESH = 25
# How deep below the prior's surface the guide may follow the stylized one (unit space).
SLACK = 0.3
# Points at which the way back to the person is judged.
JUDGED = 2000


class FieldFinetune:
    """One run of stage II by fine-tuning (or of stages II and III at once).

    Args:
        scene: The capture.
        prior: Frozen stage I; copied.
        views: Stylized portraits.
        settings: See :class:`.GeometryAdaptionSettings`.
        texture: What stage III would be given, when both stages are to be learned at once.

    Raises:
        TypeError: The prior is not a trained network.
    """

    def __init__(
        self,
        scene: Scene,
        prior: PriorLike,
        views: list[StylizedView],
        settings: GeometryAdaptionSettings,
        texture: JointTexture | None = None,
    ) -> None:
        self.prior, self.settings, self.device = prior, settings, prior.device
        self.adapted = _as_prior(prior)
        self.rays = ViewRays.within(scene, views, self.device, settings.silhouette_band)
        torch.manual_seed(settings.seed)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed)
        self.guide: Guide | None = None
        if settings.sampler == "guided":
            side = settings.coarse_resolution
            self.guide = Guide.from_field(prior.sdf, side, SLACK, self.device)
        self.colors: JointColors | None = None
        if texture is not None:
            self.colors = JointColors(self.adapted, views, scene.normalization, texture)
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
        network = [p for p in self.adapted.parameters() if id(p) not in left_out]
        groups: list[dict[str, Any]] = [{"params": network, "lr": settings.field_learning_rate}]
        if table:
            groups.append({"params": table, "lr": settings.table_learning_rate})
        if self.colors is not None:
            groups.append(self.colors.parameter_group())
        return torch.optim.Adam(
            groups,
            betas=(0.9, settings.adam_beta2),
            eps=settings.adam_epsilon,
            fused=self.device.type in ("cpu", "cuda"),
        )

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
        if self.colors is not None:
            self.colors.prepare(fraction)
        return self.ray_count

    def batch_losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`.adaption_loop.Recordable`."""
        colors, generator = self.colors, self.generator
        patches = None if colors is None else colors.draw_patches(self.ray_count, generator)
        inv_s = self.adapted.inv_s if self.settings.learn_inv_s else self._inv_s
        terms, shown = self.renderer.judge(self._batch(patches), inv_s, 0.0)
        total = terms.total
        if colors is not None:
            total = total + colors.take_penalty()
        if colors is not None and patches is not None:
            total = total + colors.adversarial(shown[-len(patches[0]) :], generator)
        values = {"total": terms.total, "color": terms.color, "mask": terms.mask}
        values["eikonal"] = terms.eikonal
        return total, {name: value.detach() for name, value in values.items()}

    def _batch(self, patches: tuple[Rays, Tensor] | None) -> RayBatch:
        """Random rays; the last of them those of the discriminator's patches, if any."""
        own = 0 if patches is None else len(patches[0])
        count = max(1, self.ray_count - own)
        rays, color, mask, interior = self.rays.draw_evenly(count, self.generator)
        if self.settings.binary_masks:
            mask = (mask > 0.5).to(mask.dtype)
        batch = as_batch(rays, color, mask, interior)
        if patches is None:
            return batch
        rays, color = patches
        inside = torch.ones(own, device=mask.device)
        added = as_batch(rays, color, inside, torch.zeros_like(inside, dtype=torch.bool))
        return RayBatch(*(torch.cat(pair) for pair in zip(batch, added, strict=True)))

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
        reduction=settings.reduction,
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
    training: PriorSettings,
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ablation "without prior": stage I's training on the portraits alone.

    It takes the steps of stages I and II, which it replaces, so that only the prior is missing. It
    does not touch the cameras: they come from the capture, and nothing would use corrected ones.

    Args:
        scene: The capture (normalization and crop height).
        views: Stylized portraits, at least three.
        prior: Only its architecture is taken.
        settings: ``steps`` and ``seed``.
        training: Stage I's settings.
        folder: The stage's folder; the training keeps its checkpoint in ``fields`` below it.
        progress: Told where it is.

    Returns:
        State for :func:`load_finetuned`, and figures for ``metrics.json``.
    """
    chosen = replace(
        training,
        fields=_as_prior(prior).settings,
        steps=training.steps + settings.steps,
        weight_mvs=0.0,
        holdout_frames=0,
        refine_cameras=False,
        refine_focal=False,
        seed=settings.seed,
    )
    inner = folder / "fields"
    alone = train_prior(PortraitScene(scene, views), inner, chosen, str(prior.device), progress)
    metrics = json.loads((inner / "metrics.json").read_text(encoding="utf-8"))
    figures = {name: metrics[name] for name in ("steps", "seconds", "losses")}
    generator = torch.Generator(prior.device).manual_seed(settings.seed)
    figures |= inverse_figures(AdaptedGeometry(prior, alone), generator)
    return {"method": "finetune", "adapted": alone.export_state()}, figures
