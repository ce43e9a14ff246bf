"""The fields that stages II and III hand on: the stylized shape, and the avatar with its albedo."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .deformation import Deformation, pull_back_normal
from .fields import SurfaceSample
from .texture import TextureField

# Points per evaluation when no gradient is wanted: bounds memory whatever the caller asks for.
CHUNK = 1 << 16


class PriorLike(Protocol):
    """The part of stage I's prior that the later stages use (unit space)."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""

    def evaluate(self, x: Tensor) -> SurfaceSample:
        """Signed distance, gradient and features at ``(N, 3)``; differentiable by ``x``."""

    def radiance(self, x: Tensor, sample: SurfaceSample, direction: Tensor) -> Tensor:
        """F_app: colour ``(N, 3)`` seen along ``direction``; differentiable by ``x``."""

    def sdf(self, x: Tensor) -> Tensor:
        """Signed distance ``(N,)``."""

    def sdf_gradient(self, x: Tensor) -> Tensor:
        """Gradient ``(N, 3)``."""

    def color(self, x: Tensor) -> Tensor:
        """View-averaged colour ``(N, 3)``."""


class StylizedGeometry:
    """Stage II's result: ``G(y) = G_prior(y + d(y))``.

    Args:
        prior: Stage I's frozen field.
        deformation: The learned map back to the real person.
    """

    def __init__(self, prior: PriorLike, deformation: Deformation) -> None:
        self.prior = prior
        self.deformation = deformation.eval()

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.prior.device

    def to_prior(self, y: Tensor) -> Tensor:
        """The place on the real person, ``(N, 3)``, of stylized points ``(N, 3)``."""
        return _chunked(lambda part: part + self.deformation(part), y)

    def sdf(self, y: Tensor) -> Tensor:
        """Signed value ``(N,)`` (a distance up to the local stretch of the deformation)."""
        return _chunked(lambda part: self.prior.sdf(part + self.deformation(part)), y)

    def sdf_gradient(self, y: Tensor) -> Tensor:
        """``(I + J_d)^T grad G_prior``, ``(N, 3)``: the normal, not normalised."""

        def gradient(part: Tensor) -> Tensor:
            value, jacobian = self.deformation.with_jacobian(part)
            return pull_back_normal(jacobian, self.prior.sdf_gradient(part + value))

        return _chunked(gradient, y)


class StylizedAvatar:
    """Stage III's result: the stylized shape with its albedo.

    Args:
        geometry: Stage II's result.
        texture: F_tex.
    """

    def __init__(self, geometry: StylizedGeometry, texture: TextureField) -> None:
        self.geometry = geometry
        self.texture = texture.eval()

    @property
    def prior(self) -> PriorLike:
        """Stage I's field."""
        return self.geometry.prior

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.geometry.device

    def sdf(self, y: Tensor) -> Tensor:
        """See :meth:`StylizedGeometry.sdf`."""
        return self.geometry.sdf(y)

    def sdf_gradient(self, y: Tensor) -> Tensor:
        """See :meth:`StylizedGeometry.sdf_gradient`."""
        return self.geometry.sdf_gradient(y)

    def to_prior(self, y: Tensor) -> Tensor:
        """See :meth:`StylizedGeometry.to_prior`."""
        return self.geometry.to_prior(y)

    def color(self, y: Tensor) -> Tensor:
        """Albedo ``(N, 3)``, sRGB values in 0..1, at stylized points ``(N, 3)``."""
        return self.color_pair(y)[:, :3]

    def color_pair(self, y: Tensor) -> Tensor:
        """Albedo and the real person's view-averaged colour there, ``(N, 6)``, sRGB in 0..1."""

        def both(part: Tensor) -> Tensor:
            x = self.geometry.to_prior(part)
            color = self.prior.color(x)
            albedo = self.texture(part, color, self.prior.evaluate(x).feature)
            return torch.cat([albedo, color], dim=1)

        with torch.no_grad():
            return _chunked(both, y)


class _Function(Protocol):
    def __call__(self, part: Tensor, /) -> Tensor: ...


def _chunked(function: _Function, points: Tensor) -> Tensor:
    if torch.is_grad_enabled() or len(points) <= CHUNK:
        return function(points)
    return torch.cat([function(part) for part in points.split(CHUNK)])
