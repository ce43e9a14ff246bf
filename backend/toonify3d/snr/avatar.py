"""The fields that stages II and III hand on: the stylized shape, and the avatar with its albedo."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from .deformation import Deformation, pull_back_normal
from .fields import SurfaceSample
from .light_grid import LightGrid
from .style_head import StyleHead
from .texture import TextureField, glance

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


class StylizedShape(Protocol):
    """Stage II's result, by whichever method: a shape, and where it comes from on the person."""

    @property
    def prior(self) -> PriorLike:
        """Stage I's frozen field."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""

    @property
    def module(self) -> nn.Module:
        """What stage II learned (stage III hashes it)."""

    def to_prior(self, y: Tensor) -> Tensor:
        """The place on the real person, ``(N, 3)``, of stylized points ``(N, 3)``."""

    def sdf(self, y: Tensor) -> Tensor:
        """Signed value ``(N,)``."""

    def sdf_gradient(self, y: Tensor) -> Tensor:
        """Gradient ``(N, 3)``, not normalised."""

    def evaluate(self, y: Tensor) -> SurfaceSample:
        """Value, gradient and F_geo's features at stylized points ``(N, 3)``."""

    def styled_color(self, y: Tensor) -> Tensor:
        """Stage II's view-averaged appearance ``(N, 3)``: the colour without stage III."""

    def styled_radiance(self, y: Tensor, direction: Tensor) -> Tensor:
        """Stage II's appearance ``(N, 3)`` along view directions ``(N, 3)``, as it was rendered."""


class StylizedGeometry:
    """Stage II's result of the fast presets: ``G(y) = G_prior(y + d(y))``.

    Args:
        prior: Stage I's frozen field.
        deformation: The learned map back to the real person.
        head: What stage II learned of the style's colours; None leaves the person's.
    """

    def __init__(
        self, prior: PriorLike, deformation: Deformation, head: StyleHead | None = None
    ) -> None:
        self.prior = prior
        self.deformation = deformation.eval()
        self.head = head

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.prior.device

    @property
    def module(self) -> nn.Module:
        """See :class:`StylizedShape`."""
        return self.deformation

    def to_prior(self, y: Tensor) -> Tensor:
        """The place on the real person, ``(N, 3)``, of stylized points ``(N, 3)``."""
        return chunked(lambda part: part + self.deformation(part), y)

    def sdf(self, y: Tensor) -> Tensor:
        """Signed value ``(N,)`` (a distance up to the local stretch of the deformation)."""
        return chunked(lambda part: self.prior.sdf(part + self.deformation(part)), y)

    def sdf_gradient(self, y: Tensor) -> Tensor:
        """``(I + J_d)^T grad G_prior``, ``(N, 3)``: the normal, not normalised."""

        def gradient(part: Tensor) -> Tensor:
            value, jacobian = self.deformation.with_jacobian(part)
            return pull_back_normal(jacobian, self.prior.sdf_gradient(part + value))

        return chunked(gradient, y)

    def evaluate(self, y: Tensor) -> SurfaceSample:
        """See :class:`StylizedShape`; features are the prior's at the place ``y`` comes from."""
        value, jacobian = self.deformation.with_jacobian(y)
        sample = self.prior.evaluate(y + value)
        return sample._replace(gradient=pull_back_normal(jacobian, sample.gradient))

    def styled_color(self, y: Tensor) -> Tensor:
        """See :class:`StylizedShape`; the prior's colours when stage II learned none."""

        def color(part: Tensor) -> Tensor:
            x = self.to_prior(part)
            seen = self.prior.color(x)
            if self.head is None:
                return seen
            sample = self.prior.evaluate(x)
            styled: Tensor = self.head(x, seen, sample.feature, sample.gradient)
            return styled

        with torch.no_grad():
            return chunked(color, y)

    def styled_radiance(self, y: Tensor, direction: Tensor) -> Tensor:
        """See :class:`StylizedShape`; what stage II compares with the portraits (eq. 8)."""

        def color(part: Tensor) -> Tensor:
            x = self.to_prior(part[:, :3])
            sample = self.prior.evaluate(x)
            seen = self.prior.radiance(x, sample, part[:, 3:])
            if self.head is None:
                return seen
            styled: Tensor = self.head(x, seen, sample.feature, sample.gradient)
            return styled

        with torch.no_grad():
            return chunked(color, torch.cat([y, direction], dim=1))


class Place(NamedTuple):
    """Where an albedo is asked for.

    Attributes:
        geometry: The stylized shape.
        y: Stylized points ``(N, 3)``.
        x: Where they come from on the person ``(N, 3)``.
        color: The person's view-averaged colour there ``(N, 3)``.
    """

    geometry: StylizedShape
    y: Tensor
    x: Tensor
    color: Tensor


class Albedo(Protocol):
    """F_tex in any of its forms."""

    def albedo(self, place: Place) -> Tensor:
        """Albedo ``(N, 3)``, sRGB values in 0..1."""

    def eval(self) -> object:
        """Turn training behaviour off (as :class:`torch.nn.Module` does)."""


class AppearanceAlbedo(nn.Module):
    """Stage II's own colours as the albedo: what is left without texture adaption."""

    def albedo(self, place: Place) -> Tensor:
        """See :class:`Albedo`."""
        return place.geometry.styled_color(place.y)


class StylizedAvatar:
    """Stage III's result: the stylized shape with its albedo.

    Args:
        geometry: Stage II's result.
        texture: F_tex.

    Attributes:
        person_light: Taken out of the person's colours in :meth:`color_pair`; None leaves it in.
    """

    def __init__(self, geometry: StylizedShape, texture: Albedo) -> None:
        self.geometry = geometry
        self.texture = texture
        self.person_light: LightGrid | None = None
        texture.eval()

    @property
    def prior(self) -> PriorLike:
        """Stage I's field."""
        return self.geometry.prior

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.geometry.device

    def sdf(self, y: Tensor) -> Tensor:
        """See :meth:`StylizedShape.sdf`."""
        return self.geometry.sdf(y)

    def sdf_gradient(self, y: Tensor) -> Tensor:
        """See :meth:`StylizedShape.sdf_gradient`."""
        return self.geometry.sdf_gradient(y)

    def to_prior(self, y: Tensor) -> Tensor:
        """See :meth:`StylizedShape.to_prior`."""
        return self.geometry.to_prior(y)

    def color(self, y: Tensor) -> Tensor:
        """Albedo ``(N, 3)``, sRGB values in 0..1, at stylized points ``(N, 3)``."""
        return self.color_pair(y)[:, :3]

    def shade(self, y: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Reflection times albedo (eq. 10) and gradient, each ``(N, 3)``, for :func:`.render_view`.

        Without texture adaption it is stage II's own appearance along the directions. Where the
        reflection was not kept (rendering ``volume``) it counts as 1.
        """

        def lit(part: Tensor) -> Tensor:
            points, toward = part[:, :3], part[:, 3:]
            if isinstance(self.texture, AppearanceAlbedo):
                return self.geometry.styled_radiance(points, toward)
            albedo = self.color(points)
            if not isinstance(self.texture, TextureField) or self.texture.reflection is None:
                return albedo
            return (self._reflection(points, toward) * albedo).clamp(0.0, 1.0)

        with torch.no_grad():
            return chunked(lit, torch.cat([y, directions], dim=1)), self.sdf_gradient(y)

    def _reflection(self, y: Tensor, toward: Tensor) -> Tensor:
        """``s (N, 3)`` of the fast presets' F_tex."""
        assert isinstance(self.texture, TextureField) and self.texture.reflection is not None
        x = self.to_prior(y)
        sample = self.prior.evaluate(x)
        glances = glance(self.prior.radiance(x, sample, toward), self.prior.color(x))
        normal = functional.normalize(self.sdf_gradient(y), dim=1)
        shading: Tensor = self.texture.reflection(sample.feature, normal, toward, glances)
        return shading

    def color_pair(self, y: Tensor) -> Tensor:
        """Albedo and the real person's view-averaged colour there, ``(N, 6)``, sRGB in 0..1."""

        def both(part: Tensor) -> Tensor:
            x = self.geometry.to_prior(part)
            color = self.prior.color(x)
            albedo = self.texture.albedo(Place(self.geometry, part, x, color))
            if self.person_light is not None:
                color = self.person_light(x, color)
            return torch.cat([albedo, color], dim=1)

        with torch.no_grad():
            return chunked(both, y)


class _Function(Protocol):
    def __call__(self, part: Tensor, /) -> Tensor: ...


def chunked(function: _Function, points: Tensor) -> Tensor:
    """``function`` of ``points``, in parts when no gradient is wanted (bounds the memory)."""
    if torch.is_grad_enabled() or len(points) <= CHUNK:
        return function(points)
    return torch.cat([function(part) for part in points.split(CHUNK)])
