"""Stage II of the fast presets: a smooth deformation of the frozen prior.

Eq. 8 and 9 (masked colour, silhouettes, eikonal) drive the deformation
(:mod:`toonify3d.snr.deformation`); colours may follow the style through a small head on what the
prior's appearance field says, so that a colour that merely changed does not bend anything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..progress import Progress
from ..scene import Displacement, Scene, StylizedView
from ..snr.avatar import PriorLike, StylizedGeometry
from ..snr.deformation import (
    Deformation,
    DisplacementLattice,
    LatticeOptions,
    bake_displacement,
    determinant3,
    fold_penalty,
    pull_back_normal,
    strain_energy,
)
from ..snr.rendering import accumulate_weights, opacity
from ..snr.style_head import StyleHead
from .adaption_loop import LEAST_RAYS
from .adaption_settings import GeometryAdaptionSettings
from .flow_guide import FlowGuide
from .losses import color_loss, eikonal_loss, mask_loss
from .start_field import inverse_start
from .view_rays import CoarseDistance, Rays, ViewRays, deepest, locate

# Steps between two bendings of the grid on which rays are searched.
REFRESH = 40
# Displacements below this, in unit space (0.4 mm on a head), count as none.
_STILL = 1e-3
# Matches of portrait and photo in a step, and the miss, in unit space, that is usual for them.
_MATCHES = 512
_MISS = 4e-3


class Shape(NamedTuple):
    """What the kernels of a step depend on.

    Attributes:
        rays: Rays that carry colour.
        mask_rays: Rays along the silhouettes.
        bends: Whether colours move the shape yet.
        fine: Whether the fine residual learns.
    """

    rays: int
    mask_rays: int
    bends: bool
    fine: bool


class GeometryAdaption:
    """One run of stage II: everything a step needs.

    Args:
        scene: The capture.
        prior: Frozen stage I.
        views: Stylized portraits.
        lattice: Start of the deformation, or None.
        settings: See :class:`GeometryAdaptionSettings`.
    """

    def __init__(
        self,
        scene: Scene,
        prior: PriorLike,
        views: list[StylizedView],
        lattice: DisplacementLattice | None,
        settings: GeometryAdaptionSettings,
    ) -> None:
        device = prior.device
        self.prior, self.settings = prior, settings
        self.rays = ViewRays.within(scene, views, device, settings.silhouette_band)
        torch.manual_seed(settings.seed)
        fine = None
        if settings.fine_residual:
            fine = Deformation(None, settings.width, settings.fine_frequencies)
        self.deformation = Deformation(lattice, settings.width, settings.frequencies, fine=fine).to(
            device
        )
        self.coarse = CoarseDistance(prior, settings.coarse_resolution)
        self.coarse.refresh(self.deformation)
        self._band = self.coarse.band(0.06)
        self._calls = 0
        self.ray_count, self.mask_ray_count = settings.rays, settings.mask_rays
        self._sharpness = torch.tensor(settings.sharpness_start, device=device)
        self._shape = Shape(0, 0, False, False)
        with torch.no_grad():
            width = prior.evaluate(self._band[:1]).feature.shape[1]
        self.head = StyleHead(width).to(device)
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.guide = None
        if lattice is None and settings.flow_weight > 0:
            guide = FlowGuide(scene, prior, views, settings.seed)
            self.guide = guide if len(guide) else None

    def modules(self) -> nn.ModuleDict:
        """What is optimised."""
        return nn.ModuleDict({"deformation": self.deformation, "head": self.head})

    def optimizer(self) -> torch.optim.Optimizer:
        """See :class:`.adaption_loop.Adaption`."""
        settings = self.settings
        return torch.optim.Adam(
            [
                {"params": self.deformation.parameters(), "lr": settings.learning_rate},
                {"params": self.head.parameters(), "lr": settings.head_learning_rate},
            ],
            betas=(0.9, 0.99),
            fused=self.prior.device.type in ("cpu", "cuda"),
        )

    def generators(self) -> dict[str, torch.Generator | np.random.Generator]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"rays": self.generator}

    def shrink(self) -> int | None:
        """See :class:`.adaption_loop.Adaption`."""
        if self.ray_count <= LEAST_RAYS:
            return None
        self.ray_count //= 2
        self.mask_ray_count //= 2
        return self.ray_count

    def step_state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return {
            "calls": self._calls,
            "rays": self.ray_count,
            "mask_rays": self.mask_ray_count,
            "coarse": self.coarse.values,
        }

    def restore_step_state(self, state: dict[str, Any]) -> None:
        """See :class:`.adaption_loop.Adaption`."""
        self._calls = int(state["calls"])
        self.ray_count = min(self.ray_count, int(state["rays"]))
        self.mask_ray_count = min(self.mask_ray_count, int(state["mask_rays"]))
        self.coarse.values.copy_(state["coarse"])

    def state(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`; :func:`load_bend` reads it."""
        lattice = self.deformation.initial
        return {
            "method": "deformation",
            "lattice": None if lattice is None else dict(lattice.state_dict()),
            "width": self.deformation.out.in_features,
            "frequencies": self.deformation.frequencies,
            "depth": len(self.deformation.hidden),
            "fine": None if self.deformation.fine is None else self.deformation.fine.frequencies,
            "deformation": self.deformation.state_dict(),
            "head": self.head.state_dict(),
        }

    def figures(self) -> dict[str, Any]:
        """See :class:`.adaption_loop.Adaption`."""
        return {"smallest_determinant": self.smallest_determinant()}

    def geometry(self) -> StylizedGeometry:
        """The result (or the present state of it)."""
        return StylizedGeometry(self.prior, self.deformation, self.head)

    def losses(self, fraction: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 9 on one batch, ``fraction`` 0 to 1 of the way through the run."""
        self.prepare(fraction)
        return self.batch_losses()

    def prepare(self, fraction: float) -> Shape:
        """See :class:`.adaption_loop.Recordable`."""
        settings, fine = self.settings, self.deformation.fine
        learns = fine is not None and fraction >= settings.fine_from
        if fine is not None:
            fine.requires_grad_(learns)
        if self._calls % REFRESH == 0:
            self.coarse.refresh(self.deformation)
        self._calls += 1
        growth = settings.sharpness_end / settings.sharpness_start
        self._sharpness.fill_(settings.sharpness_start * growth ** min(1.0, fraction / 0.8))
        bends = fraction >= settings.color_warmup
        self._shape = Shape(self.ray_count, self.mask_ray_count, bends, learns)
        return self._shape

    def batch_losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See :class:`.adaption_loop.Recordable`."""
        settings, shape = self.settings, self._shape
        rays, color, mask = self.rays.draw(shape.rays, self.generator, (1.0, 0.0, 0.0))
        shown = self._render(rays, shape.bends)
        color_term = color_loss(shown, color, mask, settings.reduction)
        rays, _, mask = self.rays.draw(shape.mask_rays, self.generator, (0.1, 0.7, 0.2))
        mask_term = mask_loss(self._coverage(rays), mask)
        eikonal, strain, extra = self._shape_terms()
        total = (
            color_term
            + settings.mask_weight * mask_term
            + settings.eikonal_weight * eikonal
            + settings.strain_weight * strain
            + extra
        )
        values = {
            "total": total,
            "color": color_term,
            "mask": mask_term,
            "eikonal": eikonal,
            "strain": strain,
        }
        if self.guide is not None:
            values["flow"] = self._flow_term()
            total = values["total"] = total + settings.flow_weight * values["flow"]
        return total, {name: value.detach() for name, value in values.items()}

    def _coverage(self, rays: Rays) -> Tensor:
        """Accumulated density ``(R,)`` of eq. 6 along whole rays.

        ``prod (1 - alpha_i)`` telescopes to ``Phi_s`` at the least distance along the ray, so one
        sample there gives what any number of samples would. Samples round the first crossing do
        not: on grazing rays they miss the deepest point, and silhouettes could only be met by
        growing (measured: 4 mm on a head).
        """
        nearest = deepest(self.coarse, rays, self.settings.search_steps)
        y = rays.at(nearest)
        return torch.sigmoid(-self._sharpness * self.prior.sdf(y + self.deformation(y)))

    def _flow_term(self) -> Tensor:
        """Distance of where portraits' pixels come from to where the flow says, across the view.

        Along the view the found ``y`` is as deep as the coarse grid has it, which is too deep on a
        nose: counted too, that pushed noses and eyes in by millimetres.
        """
        assert self.guide is not None
        rays, place, sight = self.guide.draw(_MATCHES, self.generator)
        y = rays.at(locate(self.coarse, rays, self.settings.search_steps)[0])
        miss = y + self.deformation(y) - place
        return _length(miss - (miss * sight).sum(1, keepdim=True) * sight, _MISS).mean()

    def _render(self, rays: Rays, bends: bool) -> Tensor:
        """Accumulated colour ``(R, 3)`` of samples round the surface, eq. 8.

        Divided by the accumulated density, so that silhouettes are the mask term's business alone.
        """
        count = self.settings.samples
        center, _ = locate(self.coarse, rays, self.settings.search_steps)
        half = 0.015 + 3.0 / self._sharpness
        fractions = torch.linspace(-1.0, 1.0, count + 1, device=center.device)
        shift = torch.rand((len(rays), 1), generator=self.generator, device=center.device) - 0.5
        # Denser in the middle, where the surface is.
        spread = 0.5 * fractions + 0.5 * fractions**3 + shift / count
        distance = (center[:, None] + half * spread).clamp(min=1e-3)
        y = rays.at(distance).reshape(-1, 3)
        displacement = self.deformation(y)
        x = y + (displacement if bends else displacement.detach())
        sample = self.prior.evaluate(x)
        sdf = sample.sdf.reshape(len(rays), count + 1)
        weights = accumulate_weights(opacity(sdf[:, :-1], sdf[:, 1:], self._sharpness))
        direction = rays.direction[:, None].expand(len(rays), count + 1, 3).reshape(-1, 3)
        seen = self.prior.radiance(x, sample, direction)
        styled = self.head(x, seen, sample.feature, sample.gradient.detach())
        styled = styled.reshape(len(rays), count + 1, 3)
        middle = 0.5 * (styled[:, :-1] + styled[:, 1:])
        total = weights.sum(1, keepdim=True).clamp(min=1e-3)
        color: Tensor = (weights[..., None] * middle).sum(1) / total
        return color

    def _shape_terms(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eikonal (eq. 7), strain, and magnitude plus fold penalties, all round the head."""
        rows = torch.randint(
            len(self._band), (768,), generator=self.generator, device=self._band.device
        )
        y = self._band[rows]
        jitter = torch.rand(y.shape, generator=self.generator, device=y.device) - 0.5
        y = y + jitter * (2.0 / self.settings.coarse_resolution)
        learned, jacobian = self.deformation.residual_with_jacobian(y)
        total, displacement, least = jacobian, learned, torch.full_like(y[:, 0], 0.2)
        if self.deformation.initial is not None:
            start, start_jacobian = self.deformation.initial.with_jacobian(y)
            total, displacement = jacobian + start_jacobian, learned + start
            # Eyes that the portraits show at eight times their volume are no fold.
            identity = torch.eye(3, device=y.device)
            least = least * determinant3(identity + start_jacobian).clamp(0.05, 1.0)
        with torch.no_grad():
            gradient = self.prior.sdf_gradient(y + displacement)
        eikonal = eikonal_loss(pull_back_normal(total, gradient), self.settings.reduction)
        extra = (
            self.settings.magnitude_weight * _length(learned).mean()
            + self.settings.fold_weight * fold_penalty(total, least).mean()
        )
        return eikonal, strain_energy(jacobian, self.settings.growth_strain).mean(), extra

    @torch.no_grad()
    def smallest_determinant(self) -> float:
        """Smallest ``det(I + J_d)`` round the surface; 0 or less is a fold."""
        points = self._band[:: max(1, len(self._band) // 20000)]
        _, jacobian = self.deformation.with_jacobian(points)
        identity = torch.eye(3, device=jacobian.device)
        return float(determinant3(identity + jacobian).min())


def _length(displacement: Tensor, still: float = _STILL) -> Tensor:
    """Length ``(N,)`` of ``(N, 3)``, round within ``still`` so that it has a slope there.

    Squared, it would weaken a large change and still let the shoulders drift along the view
    (measured on the known style: 4 mm).
    """
    return (displacement.square().sum(1) + still**2).sqrt() - still


def load_bend(
    prior: PriorLike, state: dict[str, Any], device: torch.device | str
) -> StylizedGeometry:
    """The geometry that :meth:`GeometryAdaption.state` described."""
    lattice = None
    if state["lattice"] is not None:
        lattice = DisplacementLattice(**state["lattice"])
    fine = None
    if state.get("fine") is not None:
        fine = Deformation(None, state["width"], state["fine"])
    deformation = Deformation(lattice, state["width"], state["frequencies"], state["depth"], fine)
    deformation.load_state_dict(state["deformation"])
    head = None
    if "head" in state:
        # The head's first layer takes features, 9 numbers and its own encoding.
        inputs = state["head"]["hidden.0.weight"].shape[1]
        head = StyleHead(inputs - 9 - 6 * StyleHead.OCTAVES).to(device)
        head.load_state_dict(state["head"])
        head.requires_grad_(False)
    deformation.requires_grad_(False)
    return StylizedGeometry(prior, deformation.to(device), head)


def start_lattice(
    scene: Scene,
    displacement: Displacement | None,
    settings: GeometryAdaptionSettings,
    progress: Progress,
) -> DisplacementLattice | None:
    """The stylizer's own shape change as the start of the deformation, or None."""
    if displacement is None or not len(displacement.points):
        return None
    radius = scene.normalization.radius
    options = LatticeOptions(support=settings.displacement_support / radius)
    exact = inverse_start(displacement, scene.normalization, options)
    if exact is not None:
        return exact
    lattice, factor = bake_displacement(
        scene.normalization.to_unit(displacement.points), displacement.offsets / radius, options
    )
    if factor < 0.999:
        progress.warn(
            f"The stylizer's shape change would fold the surface; {factor:.0%} of it is kept."
        )
    return lattice
