"""A stylized shape whose F_geo was fine-tuned as published, and its way back to the person.

Fine-tuning leaves two distance fields and no map between them. The map is made by level-set
tracking: the blend ``G_t = (1 - t) G_prior + t G_adapted`` leads from one shape to the other, and a
point that keeps its value while ``t`` goes from 1 to 0 moves along the normals with

    dx/dt = -(G_adapted - G_prior) grad G_t / |grad G_t|^2

(the level-set equation of Osher and Sethian 1988). So ``G_adapted(y) = G_prior(to_prior(y))``, the
same identity that the deformation of the fast presets has. What it cannot know is motion *along*
the surface: two distance fields do not say that an eye became wider.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .avatar import PriorLike, chunked
from .fields import SurfaceSample
from .prior import Prior
from .volume_texture import VolumeTexture

# Steps of the tracking, and Newton steps onto the wanted level of the prior at its end.
TRACK_STEPS = 4
CORRECTIONS = 2
# No single correction moves a point farther than this (unit space).
LONGEST_STEP = 0.05


class _Levels(Protocol):
    def sdf(self, x: Tensor, /) -> Tensor: ...
    def sdf_gradient(self, x: Tensor, /) -> Tensor: ...


def track_to_prior(
    prior: PriorLike, adapted: PriorLike, y: Tensor, steps: int = TRACK_STEPS
) -> Tensor:
    """Follow level sets from the adapted to the prior field, without gradient.

    Args:
        prior: Field of the person.
        adapted: Fine-tuned field.
        y: Points ``(N, 3)`` of the adapted field, unit space.
        steps: Midpoint steps.

    Returns:
        Points ``(N, 3)`` with ``G_prior(x) = G_adapted(y)`` wherever the prior's gradient does not
        vanish.
    """
    with torch.no_grad():
        wanted = adapted.sdf(y)
        x = y
        for number in range(steps):
            t = 1.0 - number / steps
            middle = x + _velocity(prior, adapted, x, t) * (0.5 / steps)
            x = x + _velocity(prior, adapted, middle, t - 0.5 / steps) / steps
        for _ in range(CORRECTIONS):
            sample = prior.evaluate(x)
            off = (sample.sdf - wanted)[:, None]
            x = x - _limited(off * sample.gradient / _squared(sample.gradient), LONGEST_STEP)
        return x


def _velocity(prior: PriorLike, adapted: PriorLike, x: Tensor, t: float) -> Tensor:
    """Velocity while ``t`` falls."""
    source, target = prior.evaluate(x), adapted.evaluate(x)
    gradient = (1.0 - t) * source.gradient + t * target.gradient
    return (target.sdf - source.sdf)[:, None] * gradient / _squared(gradient)


def _squared(gradient: Tensor) -> Tensor:
    return gradient.square().sum(1, keepdim=True).clamp(min=0.05)


def _limited(step: Tensor, longest: float) -> Tensor:
    length = step.norm(dim=1, keepdim=True).clamp(min=1e-12)
    limited: Tensor = step * (longest / length).clamp(max=1.0)
    return limited


class InverseQuality(NamedTuple):
    """How good the way back is, measured at points of the stylized surface.

    Attributes:
        residual: 95th percentile of ``|G_prior(to_prior(y)) - G_adapted(y)|``, unit space.
        smallest_determinant: Of the map's Jacobian by differences; 0 or less is a fold.
        folded: Share of the points where the determinant is not positive.
    """

    residual: float
    smallest_determinant: float
    folded: float


class AdaptedGeometry:
    """Stage II's result as published: fine-tuned F_geo and F_app.

    Args:
        prior: Stage I's frozen field.
        adapted: The fine-tuned copy.
        texture: F_tex, when a joint run has learned it at the same time.
    """

    def __init__(
        self, prior: PriorLike, adapted: Prior, texture: VolumeTexture | None = None
    ) -> None:
        self.prior = prior
        self.adapted = adapted.eval().requires_grad_(False)
        self.texture = texture

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.adapted.device

    @property
    def module(self) -> nn.Module:
        """See :class:`.avatar.StylizedShape`."""
        return self.adapted

    def to_prior(self, y: Tensor) -> Tensor:
        """See :func:`track_to_prior`."""
        return chunked(lambda part: track_to_prior(self.prior, self.adapted, part), y)

    def sdf(self, y: Tensor) -> Tensor:
        """Signed distance ``(N,)``."""
        return self.adapted.sdf(y)

    def sdf_gradient(self, y: Tensor) -> Tensor:
        """Gradient ``(N, 3)``."""
        return self.adapted.sdf_gradient(y)

    def evaluate(self, y: Tensor) -> SurfaceSample:
        """Value, gradient and features of the fine-tuned F_geo."""
        return self.adapted.evaluate(y)

    def styled_color(self, y: Tensor) -> Tensor:
        """View-averaged colour of the fine-tuned F_app."""
        return self.adapted.color(y)

    def styled_radiance(self, y: Tensor, direction: Tensor) -> Tensor:
        """The fine-tuned F_app along view directions ``(N, 3)``, as eq. 8 renders it."""
        with torch.no_grad():
            return chunked(
                lambda part: self.adapted.shade(part[:, :3], part[:, 3:])[0],
                torch.cat([y, direction], dim=1),
            )

    def inverse_quality(self, surface: Tensor, step: float = 2e-3) -> InverseQuality:
        """Judge :meth:`to_prior` at points ``(N, 3)`` of the stylized surface."""
        with torch.no_grad():
            residual = (self.prior.sdf(self.to_prior(surface)) - self.sdf(surface)).abs()
            columns = []
            for axis in range(3):
                shift = torch.zeros(3, device=surface.device)
                shift[axis] = step
                ahead, behind = self.to_prior(surface + shift), self.to_prior(surface - shift)
                columns.append((ahead - behind) / (2.0 * step))
            determinant = torch.linalg.det(torch.stack(columns, dim=2))
        return InverseQuality(
            float(residual.quantile(0.95)),
            float(determinant.min()),
            float((determinant <= 0).float().mean()),
        )


def project_to_surface(field: _Levels, points: Tensor, steps: int = 6) -> Tensor:
    """Those of ``points (N, 3)`` that Newton steps bring onto the surface, ``(M, 3)``."""
    with torch.no_grad():
        for _ in range(steps):
            gradient = field.sdf_gradient(points)
            step = field.sdf(points)[:, None] * gradient / _squared(gradient)
            points = points - _limited(step, 0.5)
        near = (field.sdf(points).abs() < 1e-3) & (points.norm(dim=1) < 1.0)
        return points[near]
