"""F_geo and F_app (paper section 3.1) on either encoding, with explicit spatial gradients.

The gradient of the signed distance is written as forward operations (the reverse chain through the
layers, then the encoding's Jacobian), so one ordinary backward pass trains colour, eikonal and mask
terms together, on every device and without double backward (``research/method_anchors`` A2).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear, relu, softplus

from .encoding import (
    Encoding,
    FrequencyEncoding,
    HashEncoding,
    cubic_harmonics,
    spherical_harmonics,
)

SOFTPLUS_BETA = 100.0


class SurfaceSample(NamedTuple):
    """What the geometry field knows of ``N`` points.

    Attributes:
        sdf: Signed distance, ``(N,)``, positive outside.
        gradient: Spatial gradient of ``sdf``, ``(N, 3)``.
        feature: F(x) for the colour fields, ``(N, F)``.
    """

    sdf: torch.Tensor
    gradient: torch.Tensor
    feature: torch.Tensor


@dataclass(frozen=True)
class FieldSettings:
    """Architecture of F_geo and F_app."""

    encoding: str = "grid"
    """``grid`` (multi-resolution hash grid) or ``frequency`` (the paper's positional encoding)."""
    levels: int = 8
    """Grid levels."""
    level_features: int = 2
    """Features per grid level: 2, 4 or 8."""
    base_resolution: int = 16
    """Cells per axis of the coarsest level over the cube [-1, 1]."""
    finest_resolution: int = 256
    """Cells per axis of the finest level."""
    log2_table: int = 17
    """Binary logarithm of the most entries per level."""
    octaves: int = 6
    """Octaves of the frequency encoding of the position (NeuS: 6)."""
    direction_octaves: int = 4
    """Octaves of the frequency encoding of the view direction (NeuS: 4)."""
    geometry_layers: int = 1
    """Hidden layers of F_geo (paper: 8)."""
    geometry_width: int = 64
    """Width of F_geo's hidden layers (NeuS: 256)."""
    geometry_skip: int = 0
    """Hidden layer that sees the encoding again (NeuS: 4); 0 for none."""
    features: int = 15
    """Feature vector that F_geo hands to the colour fields (NeuS: 256)."""
    appearance_layers: int = 2
    """Hidden layers of F_app (paper: 6)."""
    appearance_width: int = 64
    """Width of F_app's hidden layers (NeuS: 256)."""
    activation: str = "relu"
    """F_geo's activation: ``relu`` (15 times faster on a CPU) or ``softplus`` (paper, beta 100)."""
    share_encoding: bool = True
    """Append the encoding itself to the feature vector: more texture detail for almost nothing."""
    view_input: str = "direction"
    """How F_app is told the view: ``direction`` (paper), or ``reflection``, the view direction
    mirrored at the surface (Ref-NeRF), along which lights far away look the same from everywhere: a
    highlight need not be learned for every place anew, nor be explained by a dent."""
    initial_radius: float = 0.5
    """Radius of the sphere that F_geo starts from (IGR's geometric initialisation)."""
    weight_norm: bool = False
    """Weight normalisation of all layers, as NeuS does it."""


def make_encoding(settings: FieldSettings) -> Encoding:
    """The position encoding that ``settings`` ask for.

    Raises:
        ValueError: Unknown encoding name.
    """
    if settings.encoding == "grid":
        return HashEncoding(
            settings.levels,
            settings.level_features,
            settings.base_resolution,
            settings.finest_resolution,
            settings.log2_table,
        )
    if settings.encoding == "frequency":
        return FrequencyEncoding(settings.octaves)
    raise ValueError(f"unknown encoding {settings.encoding!r}: use 'grid' or 'frequency'")


class GeometryField(nn.Module):
    """F_geo: position to signed distance, its gradient and a feature vector.

    Attributes:
        feature_width: Width of :attr:`SurfaceSample.feature`.
    """

    def __init__(self, settings: FieldSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoding = make_encoding(settings)
        # The frequency encoding carries the position already; the grid gets it as three inputs.
        self._append_position = settings.encoding == "grid"
        inputs = self.encoding.width + (3 if self._append_position else 0)
        self.input_width = inputs
        widths = [settings.geometry_width] * settings.geometry_layers
        sizes = [inputs, *widths, 1 + settings.features]
        self.layers = nn.ModuleList()
        for number in range(len(sizes) - 1):
            out = sizes[number + 1]
            if settings.geometry_skip and number + 1 == settings.geometry_skip:
                out -= inputs  # the encoding is appended to this layer's output
            self.layers.append(nn.Linear(sizes[number], out))
        self._initialise_sphere(settings.initial_radius)
        if settings.weight_norm:
            for layer in self.layers:
                nn.utils.parametrizations.weight_norm(layer)
        shared = self.encoding.width if settings.share_encoding else 0
        self.feature_width = settings.features + shared

    def _initialise_sphere(self, radius: float) -> None:
        """Geometric initialisation (SAL, Atzmon and Lipman 2020, as in NeuS): about a sphere.

        Only the position drives the first layer; everything else of the encoding starts at zero.
        """
        last = len(self.layers) - 1
        with torch.no_grad():
            for number in range(last + 1):
                layer = self._linear(number)
                if number == last:
                    layer.weight.normal_(0.0, 1e-4)
                    layer.weight[0].add_(math.sqrt(math.pi) / math.sqrt(layer.in_features))
                    layer.bias.zero_()
                    layer.bias[0] = -radius
                    if self.settings.features:
                        nn.init.kaiming_uniform_(layer.weight[1:], a=math.sqrt(5))
                    continue
                layer.bias.zero_()
                layer.weight.normal_(0.0, math.sqrt(2.0) / math.sqrt(layer.out_features))
                if number == 0:
                    self._silence(layer.weight, 0)
                elif self._skips_into(number):
                    self._silence(layer.weight, layer.in_features - self.input_width)

    def _silence(self, weight: torch.Tensor, start: int) -> None:
        # Columns of the encoding other than the plain position, which comes first.
        if self._append_position:
            weight[:, start + 3 :].mul_(0.1)
        else:
            weight[:, start + 3 :].zero_()

    def _skips_into(self, number: int) -> bool:
        return bool(self.settings.geometry_skip) and number == self.settings.geometry_skip

    def _activate(self, z: torch.Tensor) -> torch.Tensor:
        if self.settings.activation == "relu":
            return relu(z)
        return softplus(z, beta=SOFTPLUS_BETA)

    def _slope(self, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Derivative of the activation at ``z`` (``h`` its value there)."""
        if self.settings.activation == "relu":
            return (h > 0).to(h.dtype)
        return torch.sigmoid(SOFTPLUS_BETA * z)

    def _linear(self, number: int) -> nn.Linear:
        layer = self.layers[number]
        assert isinstance(layer, nn.Linear)
        return layer

    def _inputs(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, features], dim=1) if self._append_position else features

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        """Signed distance, gradient and features of points ``(N, 3)`` in one pass.

        First-order autograd serves every parameter through all three outputs, and ``x`` through
        ``sdf`` and ``feature``. ``gradient`` is differentiable by ``x`` with the frequency
        encoding; with the grid it counts as piecewise constant (see :class:`.GridFunction`).
        """
        encoded, jacobian = self.encoding(x)
        inputs = self._inputs(x, encoded)
        h = inputs
        slopes: list[torch.Tensor] = []
        last = len(self.layers) - 1
        linears = [self._linear(number) for number in range(last + 1)]
        weights = [layer.weight for layer in linears]
        for number in range(last):
            if self._skips_into(number):
                h = torch.cat([h, inputs], dim=1) / math.sqrt(2.0)
            z = linear(h, weights[number], linears[number].bias)
            h = self._activate(z)
            slopes.append(self._slope(z, h))
        if self._skips_into(last):
            h = torch.cat([h, inputs], dim=1) / math.sqrt(2.0)
        out = linear(h, weights[last], linears[last].bias)
        reverse = self._reverse(weights, slopes)
        if self._append_position:
            gradient = reverse[:, :3] + (reverse[:, 3:, None] * jacobian).sum(1)
        else:
            gradient = (reverse[:, :, None] * jacobian).sum(1)
        return SurfaceSample(out[:, 0], gradient, self._feature(out, encoded))

    def _reverse(self, weights: list[torch.Tensor], slopes: list[torch.Tensor]) -> torch.Tensor:
        """d sdf / d inputs, ``(N, inputs)``: the chain rule from the last layer to the first."""
        last = len(weights) - 1
        back = weights[last][0].expand(len(slopes[0]), -1)
        skipped: torch.Tensor | None = None
        for number in range(last, -1, -1):
            if number < last:
                back = (back * slopes[number]) @ weights[number]
            if self._skips_into(number):
                back = back / math.sqrt(2.0)
                skipped = back[:, -self.input_width :]
                back = back[:, : -self.input_width]
        return back if skipped is None else back + skipped

    def _feature(self, out: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        if self.settings.share_encoding:
            return torch.cat([out[:, 1:], encoded], dim=1)
        return out[:, 1:]

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        """Signed distance alone, ``(N,)``; cheaper than :meth:`evaluate`, differentiable by x."""
        inputs = self._inputs(x, self.encoding.features(x))
        h = inputs
        last = len(self.layers) - 1
        for number in range(last + 1):
            layer = self._linear(number)
            if self._skips_into(number):
                h = torch.cat([h, inputs], dim=1) / math.sqrt(2.0)
            if number == last:
                return linear(h, layer.weight[:1], layer.bias[:1])[:, 0]
            h = self._activate(linear(h, layer.weight, layer.bias))
        raise AssertionError("a field has at least one layer")

    def forward(self, x: torch.Tensor) -> SurfaceSample:
        """Same as :meth:`evaluate`."""
        return self.evaluate(x)


class AppearanceField(nn.Module):
    """F_app: position, normal, view direction and F(x) to the observed colour (sRGB, 0..1).

    Args:
        settings: Architecture.
        feature_width: Width of the geometry field's feature vector.
    """

    def __init__(self, settings: FieldSettings, feature_width: int) -> None:
        super().__init__()
        self.settings = settings
        # Training fades the view direction in: as long as colours cannot depend on it, only the
        # right geometry explains the same point seen from two sides.
        self.view_strength = 1.0
        self._direction: FrequencyEncoding | None = None
        direction_width = 9 if settings.view_input == "direction" else 17
        if settings.encoding == "frequency":
            self._direction = FrequencyEncoding(settings.direction_octaves)
            direction_width = self._direction.width
        inputs = 3 + 3 + direction_width + feature_width
        sizes = [inputs] + [settings.appearance_width] * settings.appearance_layers + [3]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        if settings.weight_norm:
            for layer in self.layers:
                nn.utils.parametrizations.weight_norm(layer)

    def forward(
        self,
        x: torch.Tensor,
        gradient: torch.Tensor,
        direction: torch.Tensor,
        feature: torch.Tensor,
    ) -> torch.Tensor:
        """Colours ``(N, 3)`` at ``x (N, 3)`` seen along unit ``direction (N, 3)``."""
        if self.settings.view_input == "reflection":
            view = _mirrored(gradient, direction)
        elif self._direction is None:
            view = spherical_harmonics(direction)
        else:
            view = self._direction.features(direction)
        if self.view_strength != 1.0:
            view = view * self.view_strength
        h = torch.cat([x, gradient, view, feature], dim=1)
        for layer in self.layers[:-1]:
            h = relu(layer(h))
        return torch.sigmoid(self.layers[-1](h))


def _mirrored(gradient: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """View directions mirrored at the surface as harmonics up to degree 3, and the cosine.

    Args:
        gradient: Of the distance ``(N, 3)``, any length.
        direction: Unit view directions ``(N, 3)``.

    Returns:
        ``(N, 17)``.
    """
    normal = gradient * torch.rsqrt(gradient.square().sum(1, keepdim=True) + 1e-6)
    cosine = (normal * direction).sum(1, keepdim=True)
    mirrored = direction - 2.0 * cosine * normal
    return torch.cat([spherical_harmonics(mirrored), cubic_harmonics(mirrored), cosine], dim=1)
