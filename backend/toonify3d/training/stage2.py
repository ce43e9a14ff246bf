"""Stage II: bend the frozen prior until it agrees with the stylized portraits (paper 3.3.1).

Eq. 8 and 9 (masked colour, silhouettes, eikonal) drive a smooth deformation of the prior
(:mod:`toonify3d.snr.deformation`); colours may follow the style through a small head on what the
prior's appearance field says, so that a colour that merely changed does not bend anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from ..snr.encoding import FrequencyEncoding
from ..snr.rendering import accumulate_weights, opacity, render_view
from ..snr.texture import logit
from .adaption_loop import (
    AdaptionLoop,
    freeze,
    input_digest,
    load_state,
    read_finished,
    save_state,
    write_metrics,
)
from .adaption_settings import GeometryAdaptionSettings
from .losses import color_loss, eikonal_loss, mask_loss
from .view_rays import CoarseDistance, Rays, ViewRays, check_views, deepest, locate

# Steps between two bendings of the grid on which rays are searched.
REFRESH = 40


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


@dataclass
class _Losses:
    total: Tensor
    color: Tensor
    mask: Tensor
    eikonal: Tensor
    strain: Tensor

    def values(self) -> dict[str, float]:
        return {
            name: float(getattr(self, name).detach())
            for name in ("total", "color", "mask", "eikonal", "strain")
        }


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
        reach = max(8, views[0].image.shape[1] // 12) if views else 8
        self.rays = ViewRays(scene, views, device, edge=max(3, reach // 5), reach=reach)
        torch.manual_seed(settings.seed)
        self.deformation = Deformation(lattice, settings.width, settings.frequencies).to(device)
        self.coarse = CoarseDistance(prior, settings.coarse_resolution)
        self.coarse.refresh(self.deformation)
        self._band = self.coarse.band(0.06)
        self._calls = 0
        with torch.no_grad():
            width = prior.evaluate(self._band[:1]).feature.shape[1]
        self.head = StyleHead(width).to(device)
        self.random = np.random.default_rng(settings.seed)
        self.generator = torch.Generator(device).manual_seed(settings.seed)

    def modules(self) -> nn.ModuleDict:
        """What is optimised."""
        return nn.ModuleDict({"deformation": self.deformation, "head": self.head})

    def losses(self, fraction: float) -> _Losses:
        """Eq. 9 on one batch, ``fraction`` 0 to 1 of the way through the run."""
        settings = self.settings
        if self._calls % REFRESH == 0:
            self.coarse.refresh(self.deformation)
        self._calls += 1
        sharpness = settings.sharpness_start * (
            settings.sharpness_end / settings.sharpness_start
        ) ** min(1.0, fraction / 0.8)
        rays, color, mask = self.rays.draw(settings.rays, self.random, (1.0, 0.0, 0.0))
        rendered = self._render(rays, sharpness, fraction >= settings.color_warmup)
        color_term = color_loss(rendered, color, mask)
        rays, _, mask = self.rays.draw(settings.mask_rays, self.random, (0.1, 0.7, 0.2))
        mask_term = mask_loss(self._coverage(rays, sharpness), mask)
        eikonal, strain, extra = self._shape_terms()
        total = (
            color_term
            + settings.mask_weight * mask_term
            + settings.eikonal_weight * eikonal
            + settings.strain_weight * strain
            + extra
        )
        return _Losses(total, color_term, mask_term, eikonal, strain)

    def _coverage(self, rays: Rays, sharpness: float) -> Tensor:
        """Accumulated density ``(R,)`` of eq. 6 along whole rays.

        ``prod (1 - alpha_i)`` telescopes to ``Phi_s`` at the least distance along the ray, so one
        sample there gives what any number of samples would. Samples round the first crossing do
        not: on grazing rays they miss the deepest point, and silhouettes could only be met by
        growing (measured: 4 mm on a head).
        """
        nearest = deepest(self.coarse, rays, self.settings.search_steps)
        y = rays.at(nearest)
        return torch.sigmoid(-sharpness * self.prior.sdf(y + self.deformation(y)))

    def _render(self, rays: Rays, sharpness: float, bends: bool) -> Tensor:
        """Accumulated colour ``(R, 3)`` of samples round the surface, eq. 8.

        Divided by the accumulated density, so that silhouettes are the mask term's business alone.
        """
        count = self.settings.samples
        center, _ = locate(self.coarse, rays, self.settings.search_steps)
        half = 0.015 + 3.0 / sharpness
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
        weights = accumulate_weights(opacity(sdf[:, :-1], sdf[:, 1:], sharpness))
        direction = rays.direction.repeat_interleave(count + 1, dim=0)
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
        total, displacement = jacobian, learned
        if self.deformation.initial is not None:
            start, start_jacobian = self.deformation.initial.with_jacobian(y)
            total, displacement = jacobian + start_jacobian, learned + start
        with torch.no_grad():
            gradient = self.prior.sdf_gradient(y + displacement)
        eikonal = eikonal_loss(pull_back_normal(total, gradient))
        extra = (
            self.settings.magnitude_weight * learned.square().sum(1).mean()
            + self.settings.fold_weight * fold_penalty(total).mean()
        )
        return eikonal, strain_energy(jacobian).mean(), extra

    @torch.no_grad()
    def smallest_determinant(self) -> float:
        """Smallest ``det(I + J_d)`` round the surface; 0 or less is a fold."""
        points = self._band[:: max(1, len(self._band) // 20000)]
        _, jacobian = self.deformation.with_jacobian(points)
        identity = torch.eye(3, device=jacobian.device)
        return float(determinant3(identity + jacobian).min())


def adapt_geometry(
    scene: Scene,
    prior: PriorLike,
    views: list[StylizedView],
    displacement: Displacement | None,
    folder: Path,
    settings: GeometryAdaptionSettings,
    device: torch.device | str,
    progress: Progress,
) -> StylizedGeometry:
    """Run (or resume, or just load) stage II.

    Args:
        scene: The capture; frames, normalization and crop height are read.
        prior: Stage I's field; its parameters are frozen.
        views: Stylized portraits.
        displacement: The stylizer's own shape change as the start, or None.
        folder: Receives ``geometry.pt``, ``metrics.json`` and, while running, ``checkpoint.pt``.
        settings: See :class:`GeometryAdaptionSettings`.
        device: Must be the prior's.
        progress: Told where it is.

    Raises:
        InputError: No usable portrait.
        TrainingError: Diverged repeatedly.
        CancelledError: From ``progress``; the next call goes on where this one stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    freeze(prior)
    check_views(views)
    digest = input_digest(settings, views, displacement, prior)
    if read_finished(folder, digest) and (folder / "geometry.pt").exists():
        progress.update(1.0, "stylized shape is already there")
        return load_geometry(prior, folder, device)
    (folder / "metrics.json").unlink(missing_ok=True)
    lattice = _start(scene, displacement, settings, progress)
    adaption = GeometryAdaption(scene, prior, views, lattice, settings)
    modules = adaption.modules()
    optimizer = torch.optim.Adam(
        [
            {"params": adaption.deformation.parameters(), "lr": settings.learning_rate},
            {"params": adaption.head.parameters(), "lr": settings.head_learning_rate},
        ],
        betas=(0.9, 0.99),
    )
    loop = AdaptionLoop(
        folder,
        digest,
        modules,
        optimizer,
        {"rays": adaption.random, "samples": adaption.generator},
        progress,
    )

    def step(fraction: float) -> tuple[Tensor, dict[str, float]]:
        losses = adaption.losses(fraction)
        return losses.total, losses.values()

    watch = _previewer(scene, adaption, views, settings.steps, progress)
    result = loop.run(settings.steps, step, "bending the shape", watch)
    geometry = StylizedGeometry(prior, adaption.deformation)
    determinant = adaption.smallest_determinant()
    if determinant <= 0.0:
        progress.warn("The bent shape folds over itself somewhere; a lower strength avoids it.")
    _save_geometry(folder, adaption.deformation)
    write_metrics(
        folder,
        digest,
        {
            "steps": settings.steps,
            "seconds": result.seconds,
            "losses": result.losses,
            "rollbacks": result.rollbacks,
            "smallest_determinant": determinant,
            "views": len(views),
        },
    )
    loop.finish()
    return geometry


def load_geometry(
    prior: PriorLike, folder: Path, device: torch.device | str = "cpu"
) -> StylizedGeometry:
    """Stage II's result from ``folder``.

    Raises:
        FileNotFoundError: Stage II has not finished there.
    """
    state = load_state(folder / "geometry.pt", device)
    lattice = None
    if state["lattice"] is not None:
        lattice = DisplacementLattice(**state["lattice"])
    deformation = Deformation(lattice, state["width"], state["frequencies"], state["depth"])
    deformation.load_state_dict(state["deformation"])
    deformation.requires_grad_(False)
    freeze(prior)
    return StylizedGeometry(prior, deformation.to(device))


def _save_geometry(folder: Path, deformation: Deformation) -> None:
    lattice = deformation.initial
    state = {
        "lattice": None if lattice is None else dict(lattice.state_dict()),
        "width": deformation.out.in_features,
        "frequencies": deformation.frequencies,
        "depth": len(deformation.hidden),
        "deformation": deformation.state_dict(),
    }
    save_state(folder / "geometry.pt", state)
    deformation.requires_grad_(False)


def _start(
    scene: Scene,
    displacement: Displacement | None,
    settings: GeometryAdaptionSettings,
    progress: Progress,
) -> DisplacementLattice | None:
    if displacement is None or not len(displacement.points):
        return None
    radius = scene.normalization.radius
    options = LatticeOptions(support=settings.displacement_support / radius)
    lattice, factor = bake_displacement(
        scene.normalization.to_unit(displacement.points), displacement.offsets / radius, options
    )
    if factor < 0.999:
        progress.warn(
            f"The stylizer's shape change would fold the surface; {factor:.0%} of it is kept."
        )
    return lattice


def _previewer(
    scene: Scene,
    adaption: GeometryAdaption,
    views: list[StylizedView],
    steps: int,
    progress: Progress,
) -> Callable[[int], None]:
    """Offers a small picture of the bent prior's normals twice during the run."""
    camera = views[0].frame.camera
    scale = 128.0 / max(camera.width, camera.height)
    small = camera.resized(round(camera.width * scale), round(camera.height * scale))
    moments = {steps // 3, 2 * steps // 3}

    def watch(number: int) -> None:
        if number in moments:
            geometry = _Shaded(StylizedGeometry(adaption.prior, adaption.deformation))
            progress.preview(render_view(geometry, small, scene.normalization).normal)

    return watch


class _Shaded(StylizedGeometry):
    """A stylized geometry in the prior's colours, for previews."""

    def __init__(self, geometry: StylizedGeometry) -> None:
        super().__init__(geometry.prior, geometry.deformation)

    def color(self, y: Tensor) -> Tensor:
        """The prior's view-averaged colour of the place that ``y`` comes from."""
        return self.prior.color(self.to_prior(y))
