"""One training step of stage I: where to sample, what to render, what to compare."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from ..snr.fields import SurfaceSample
from ..snr.guide import Guide
from ..snr.rendering import (
    Rendered,
    Samples,
    accumulate,
    accumulate_weights,
    sample_along,
    sample_around,
    section_opacity,
    sphere_interval,
)
from .corrections import FrameCorrections
from .data import RayBatch
from .losses import (
    color_loss,
    depth_loss,
    eikonal_loss,
    empty_space_loss,
    mask_loss,
    surface_loss,
)
from .ray_focus import RayFocus
from .settings import PriorSettings

# Half of the sampled span in units of 1 / inv_s. The density has faded at 7 (1e-3); the rest looks
# for a surface deeper inside (hollow places of the hull) and keeps grazing rays from being cut off.
SPAN = 14.0
# How much of the spacing is cubic: sections of 0.44 / inv_s in the middle with 16 samples.
TAIL = 0.75
# Least half span: how far the guide may be off the field between two refreshes.
LEAST_SPAN = 0.008
# Rays of less accumulated density than this hardly have a colour.
LEAST_COVERAGE = 0.05
# A grazing ray stays near the surface for long; its span grows up to 1 / this.
LEAST_SLOPE = 0.2


class Losses(NamedTuple):
    """The terms of eq. 4, unweighted, and their weighted sum."""

    total: torch.Tensor
    color: torch.Tensor
    mask: torch.Tensor
    eikonal: torch.Tensor
    stereo: torch.Tensor
    empty: torch.Tensor


def guided_samples(
    guide: Guide,
    origins: torch.Tensor,
    directions: torch.Tensor,
    count: int,
    inv_s: torch.Tensor | float,
    generator: torch.Generator | None,
) -> Samples:
    """``count`` sections per ray round the guide's surface, or round the closest approach."""
    t, _, slope = guide.intersect(origins, directions)
    span = _span(inv_s) / slope.abs().clamp(LEAST_SLOPE, 1.0)
    return sample_around(t, span[:, None], count, generator, tail=TAIL)


def free_points(count: int, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    """Uniform random points ``(count, 3)`` of the cube ``[-1, 1]^3``."""
    return torch.rand((count, 3), generator=generator, device=device) * 2.0 - 1.0


class TrainableField(Protocol):
    """What is rendered: a prior in training, or one whose colours come from elsewhere."""

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        """Signed distance ``(N,)``."""

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        """Distance, gradient and features of ``(N, 3)`` points."""

    def radiance(
        self, x: torch.Tensor, sample: SurfaceSample, direction: torch.Tensor
    ) -> torch.Tensor:
        """Colour ``(N, 3)`` seen along unit directions."""


class StepRenderer:
    """Renders batches of rays with fields that are being trained.

    Args:
        prior: The fields.
        guide: Where to sample; None only with the hierarchical sampler.
        settings: Stage I settings.
        corrections: Per-frame corrections.
        generator: Random numbers.
        focus: Told the colour errors, if any.
    """

    def __init__(
        self,
        prior: TrainableField,
        guide: Guide | None,
        settings: PriorSettings,
        corrections: FrameCorrections,
        generator: torch.Generator,
        focus: RayFocus | None = None,
    ) -> None:
        self.prior = prior
        self.guide = guide
        self.settings = settings
        self.corrections = corrections
        self.generator = generator
        self.focus = focus
        # Evaluate also the colours that hardly weigh anything: no data-dependent sizes.
        self.all_colors = settings.color_threshold <= 0.0

    def losses(
        self, batch: RayBatch, inv_s: torch.Tensor | float, stereo: torch.Tensor | float
    ) -> Losses:
        """Eq. 4 on a batch; arguments as of :meth:`judge`."""
        return self.judge(batch, inv_s, stereo)[0]

    def judge(
        self, batch: RayBatch, inv_s: torch.Tensor | float, stereo: torch.Tensor | float
    ) -> tuple[Losses, torch.Tensor]:
        """Eq. 4 on a batch, and the colours ``(R, 3)`` that it compared with the observed ones.

        Args:
            batch: Rays with observations.
            inv_s: Sharpness.
            stereo: Current weight of the stereo terms; as a tensor they are always computed.
        """
        settings = self.settings
        # Outlines must not steer the cameras: masks are uncertain there, by whole parts of a frame.
        origins, directions = self.corrections.move(
            batch.frame, batch.origins, batch.directions, batch.interior
        )
        samples = self._samples(origins.detach(), directions.detach(), inv_s)
        points = origins[:, None] + directions[:, None] * samples.distance[..., None]
        free = free_points(settings.free_points, batch.origins.device, self.generator)
        with_stereo = isinstance(stereo, torch.Tensor) or stereo > 0
        # Stereo must not steer the cameras: it was made with the given ones, and it is biased.
        lifted = origins.detach() + directions.detach() * batch.depth[:, None]
        extra = [free, lifted] if with_stereo else [free]
        everything = self.prior.evaluate(torch.cat([points.reshape(-1, 3), *extra]))
        rays, count = samples.distance.shape
        rendered = self._render(
            points,
            directions,
            SurfaceSample(*(v[: rays * count] for v in everything)),
            samples,
            inv_s,
        )
        shown = self.corrections.expose(batch.frame, self._seen(rendered))
        if self.focus is not None:
            self._note(self.focus, batch, rendered, shown)
        color = color_loss(shown, batch.color, batch.color_weight, settings.reduction)
        mask = mask_loss(self._covered(rendered, batch), batch.mask)
        eikonal = eikonal_loss(everything.gradient[: rays * count + len(free)], settings.reduction)
        empty = self._empty(free, everything.sdf[rays * count : rays * count + len(free)])
        guided = torch.zeros_like(color)
        if with_stereo:
            weight = self._stereo_weight(batch)
            guided = self._depth(rendered, batch, weight) + surface_loss(
                everything.sdf[rays * count + len(free) :], weight, settings.reduction
            )
        total = (
            color
            + settings.weight_mask * mask
            + settings.weight_eikonal * eikonal
            + settings.weight_empty * empty
            + stereo * guided
        )
        if self.corrections.poses:
            total = total + settings.weight_poses * self.corrections.pose_penalty()
        if self.corrections.focal:
            total = total + settings.weight_focal * self.corrections.penalty()
        return Losses(total, color, mask, eikonal, guided, empty), shown

    def _stereo_weight(self, batch: RayBatch) -> torch.Tensor:
        """Weight ``(R,)`` of rays in eq. 2 and 3: by confidence, or M(r) in {0, 1} as printed."""
        if self.settings.binary_stereo:
            return (batch.confidence > 0).to(batch.mask.dtype) * batch.mask
        return batch.confidence * batch.mask

    def _note(
        self, focus: RayFocus, batch: RayBatch, rendered: Rendered, shown: torch.Tensor
    ) -> None:
        with torch.no_grad():
            t = rendered.depth / rendered.mask.clamp(min=LEAST_COVERAGE)
            points = batch.origins + batch.directions * t[:, None]
            focus.note(points, (shown - batch.color).abs().mean(1), batch.color_weight)

    def render(
        self, origins: torch.Tensor, directions: torch.Tensor, inv_s: torch.Tensor | float
    ) -> Rendered:
        """Rays ``(R, 3)`` accumulated (eq. 1, 5 and 6), colour divided as in the losses."""
        samples = self._samples(origins, directions, inv_s)
        points = origins[:, None] + directions[:, None] * samples.distance[..., None]
        surface = self.prior.evaluate(points.reshape(-1, 3))
        rendered = self._render(points, directions, surface, samples, inv_s)
        return rendered._replace(color=self._seen(rendered))

    def _samples(
        self, origins: torch.Tensor, directions: torch.Tensor, inv_s: torch.Tensor | float
    ) -> Samples:
        settings = self.settings
        if self.guide is not None and settings.sampler == "guided":
            return guided_samples(
                self.guide, origins, directions, settings.samples, inv_s, self.generator
            )
        near, far, _ = sphere_interval(origins, directions)
        return sample_along(
            self.prior,
            origins,
            directions,
            near,
            far,
            settings.coarse_samples,
            settings.fine_samples,
            generator=self.generator,
        )

    def _render(
        self,
        points: torch.Tensor,
        directions: torch.Tensor,
        surface: SurfaceSample,
        samples: Samples,
        inv_s: torch.Tensor | float,
    ) -> Rendered:
        rays, count = samples.distance.shape
        alpha = section_opacity(
            surface.sdf.view(rays, count),
            surface.gradient.view(rays, count, 3),
            directions,
            samples.length,
            inv_s,
        )
        weights = accumulate_weights(alpha)
        flat = points.reshape(-1, 3)
        along = directions[:, None].expand(rays, count, 3).reshape(-1, 3)
        if self.all_colors:
            colors = self.prior.radiance(flat, surface, along).view(rays, count, 3)
            return accumulate(weights, colors, samples.distance)
        # Most samples of a sharp surface weigh nothing: their colours are not evaluated.
        index = (weights.detach().reshape(-1) > self.settings.color_threshold).nonzero()[:, 0]
        chosen = SurfaceSample(*(values[index] for values in surface))
        colors = self.prior.radiance(flat[index], chosen, along[index])
        contribution = weights.reshape(-1)[index, None] * colors
        color = torch.zeros_like(directions).index_add(0, index // count, contribution)
        return Rendered(weights, color, (weights * samples.distance).sum(1), weights.sum(1))

    def _seen(self, rendered: Rendered) -> torch.Tensor:
        """Eq. 5's colour, by default divided by the accumulated density.

        A soft surface is not opaque within the sampled span. Undivided, the missing part counts as
        black, and skin becomes brighter, that is right, by moving the surface out.
        """
        if not self.settings.divide_color:
            return rendered.color
        return rendered.color / rendered.mask[:, None].clamp(min=LEAST_COVERAGE)

    def _depth(self, rendered: Rendered, batch: RayBatch, weight: torch.Tensor) -> torch.Tensor:
        """Eq. 2, by default with the accumulated distance divided by the accumulated density.

        Undivided, a hundredth of density missing near an outline is a hundredth of the way to the
        camera missing: millimetres, had back by moving the surface out. A ray that hardly meets
        anything has no distance to compare.
        """
        if not self.settings.divide_depth:
            return depth_loss(rendered.depth, batch.depth, weight, self.settings.reduction)
        density = rendered.mask.clamp(min=LEAST_COVERAGE)
        met = (rendered.mask.detach() > LEAST_COVERAGE).to(weight.dtype)
        return depth_loss(
            rendered.depth / density, batch.depth, weight * met, self.settings.reduction
        )

    def _covered(self, rendered: Rendered, batch: RayBatch) -> torch.Tensor:
        """Eq. 6's accumulated density; enough of it counts as all of it far from any outline.

        There the mask says that a surface is on the ray, not where. While the surface is soft, the
        last percents of density are had by moving it out, which drowns the colours' weak pull into
        hollow places (measured: two to eight times as strong).
        """
        if self.settings.enough_coverage <= 0.0:
            return rendered.mask
        enough = batch.interior & (rendered.mask > self.settings.enough_coverage)
        return torch.where(enough, torch.ones_like(rendered.mask), rendered.mask)

    def _empty(self, free: torch.Tensor, sdf: torch.Tensor) -> torch.Tensor:
        if self.guide is None or not self.settings.weight_empty or not len(free):
            return sdf.new_zeros(())
        outside = empty_space_loss(sdf, self.guide.hull_distance(free), 2.0 * self.guide.cell)
        # Deep down the guide still has the hull's distances: half of these is safe for hollows of
        # up to four cells.
        inside = empty_space_loss(-sdf, -self.guide.distance(free), 8.0 * self.guide.cell)
        return outside + inside


def _span(inv_s: torch.Tensor | float) -> torch.Tensor | float:
    """Half of the sampled span for a ray that meets the surface head on."""
    if isinstance(inv_s, torch.Tensor):  # stays on its device: nothing is read back
        return (SPAN / inv_s.detach()).clamp(min=LEAST_SPAN)
    return max(SPAN / inv_s, LEAST_SPAN)
