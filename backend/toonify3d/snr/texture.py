"""F_tex: the stylized albedo, and the reflection ``s`` that multiplies it (unit space).

The albedo is a *global colour map* of what the frozen prior says about a point (its view-averaged
colour and its features, no position), which carries hair, skin and clothes round the head, plus a
*local residual* on a fine grid, which holds what the portraits draw (eyes, lips, lines) and is
believed only where portraits see the surface (:class:`BeliefMaps`). A field of position alone
washes out to white where no portrait reaches (``method_anchors`` A7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoding import HashEncoding, spherical_harmonics

if TYPE_CHECKING:
    from .avatar import Place
    from .light_grid import LightGrid


UNKNOWN = 16.0
"""How fast features beyond what portraits showed stop counting, by their squared distance in units
of the shown range; known style with a short prior, places that no portrait sees: 26.99 dB without,
27.10 with it; with a long prior 27.72 and 27.67; the red blotch behind lps' ear goes."""

SEEN = 0.5
"""Belief from which on a place is known whatever its features: single odd ones in it would be
specks of the colour alone."""

REACH = (3.0, 4.0)
"""Logits of the global map: 4 is white (or black) to five gray levels. Of a white style it would
run to 50, and no local residual could draw a line there (f2 in ink: the collar was lost)."""


def smoothstep(value: Tensor, low: float, high: float) -> Tensor:
    """Cubic ramp from 0 at ``low`` to 1 at ``high``."""
    t = ((value - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def logit(color: Tensor, margin: float = 0.004) -> Tensor:
    """Inverse sigmoid of colours in 0..1, finite at both ends."""
    inner = color.clamp(margin, 1.0 - margin)
    return torch.log(inner / (1.0 - inner))


def within_reach(logits: Tensor) -> Tensor:
    """Logits held softly within :data:`REACH`: unchanged up to its first number, never beyond the
    second."""
    inner = logits.clamp(-REACH[0], REACH[0])
    room = REACH[1] - REACH[0]
    return inner + room * torch.tanh((logits - inner) / room)


class GlobalColorMap(nn.Module):
    """Prior colour and features to stylized colour, without position; starts as the identity.

    Inputs are clamped to the range that the portraits showed: beyond it a network says anything.
    Even so a place unlike all that was shown (behind an ear) gets any of the style's colours from
    its features; the further they lie outside, the less they count, until the colour alone answers.

    Args:
        features: Width of the prior's feature vector.
        width: Hidden width.
    """

    low: Tensor
    high: Tensor

    def __init__(self, features: int, width: int = 48) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("low", torch.full((3 + features,), -1.0))
        self.register_buffer("high", torch.full((3 + features,), 1.0))
        self.hidden = nn.Sequential(
            nn.Linear(3 + features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.out = nn.Linear(width, 3)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)

    def fit_range(self, color: Tensor, feature: Tensor, weight: Tensor) -> None:
        """Learn the range of the inputs from supervised points (``weight`` > 0.2), ``(N, .)``."""
        chosen = torch.cat([color, feature], dim=1)[weight > 0.2]
        if len(chosen) == 0:
            chosen = torch.cat([color, feature], dim=1)
        chosen = chosen[:: max(1, len(chosen) // 100_000)]
        self.low.copy_(torch.quantile(chosen, 0.01, dim=0))
        self.high.copy_(torch.quantile(chosen, 0.99, dim=0))
        self.high.copy_(torch.maximum(self.high, self.low + 1e-3))

    def forward(
        self,
        color: Tensor,
        feature: Tensor,
        seen: Tensor | None = None,
        feature_gate: Tensor | None = None,
    ) -> Tensor:
        """Logits of the stylized colour, ``(N, 3)``.

        Args:
            color: Prior's view-averaged colour ``(N, 3)``.
            feature: Prior's features ``(N, F)``.
            seen: ``(N,)`` belief of the portraits: what they show is known, however rare; None
                asks the features alone.
            feature_gate: ``(N, 1)`` 0 hides the features of a point (dropout in training, so that
                the colour alone already gives a sensible answer).
        """
        both = torch.cat([color, feature], dim=1)
        both = torch.maximum(torch.minimum(both, self.high), self.low)
        scaled = 2.0 * (both - self.low) / (self.high - self.low) - 1.0
        gate = self._known(feature)
        if seen is not None:
            gate = torch.maximum(gate, smoothstep(seen, 0.0, SEEN)[:, None])
        if feature_gate is not None:
            gate = gate * feature_gate
        scaled = torch.cat([scaled[:, :3], scaled[:, 3:] * gate], dim=1)
        change: Tensor = self.out(self.hidden(scaled))
        return within_reach(logit(color) + change)

    def _known(self, feature: Tensor) -> Tensor:
        """``(N, 1)`` 1 for features as the portraits showed them, towards 0 far outside."""
        low, high = self.low[3:], self.high[3:]
        beyond = (torch.maximum(feature - high, low - feature) / (high - low)).clamp(min=0.0)
        return torch.exp(-UNKNOWN * beyond.square().sum(dim=1, keepdim=True))


class LocalResidual(nn.Module):
    """Colour logits added to the global map, linear in a multi-resolution grid; starts at zero.

    Linear (no network behind the grid), so that cells no portrait touches stay exactly zero.

    Args:
        levels: Grid levels.
        base: Cells per axis of the coarsest level.
        finest: Cells per axis of the finest level.
        log2_table: Binary logarithm of the entries per level.
    """

    def __init__(
        self, levels: int = 5, base: int = 32, finest: int = 1024, log2_table: int = 18
    ) -> None:
        super().__init__()
        self.shape = (levels, base, finest, log2_table)
        # Four features because the grid's kernels come in 2, 4 and 8; the fourth is not read.
        self.grid = HashEncoding(levels, 4, base, finest, log2_table)
        nn.init.zeros_(self.grid.table)

    def forward(self, y: Tensor) -> Tensor:
        """Logits ``(N, 3)`` at stylized points ``(N, 3)``."""
        return self.grid.features(y).reshape(len(y), -1, 4)[..., :3].sum(1)


def glance(seen: Tensor, color: Tensor) -> Tensor:
    """Log of what F_app says along one direction over its mean of all, ``(N, 3)``.

    The person's own view-dependent part: highlights. Dark colours say little, so that they are
    lifted, and no place may say more than a factor of 1.65.

    Args:
        seen: F_app along the view direction ``(N, 3)``, 0..1.
        color: Its view-averaged colour ``(N, 3)``, 0..1.
    """
    return torch.log((seen + 0.05) / (color + 0.05)).clamp(-0.5, 0.5)


class Reflection(nn.Module):
    """The degraded appearance ``s``: a factor bounded in (0, 2) that starts at exactly 1.

    ``c = s * c_tex`` does not fix the scale of either; bounding ``s`` round 1 and asking it to be
    monochrome (see the penalty in stage III) does (``method_anchors`` 0). What remains of F_app is
    the person's own view-dependent part (:func:`glance`) times ``strength``, one learned number: 1
    for a style that keeps highlights, 0 for one that draws none. It takes no colour from the
    albedo, because its mean over directions is 1.

    Args:
        features: Width of the prior's feature vector.
        width: Hidden width.
    """

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(features + 12, width), nn.SiLU())
        self.out = nn.Linear(width, 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.strength = nn.Parameter(torch.zeros(()))

    def network(self, feature: Tensor, normal: Tensor, direction: Tensor) -> Tensor:
        """Logits ``(N, 3)`` of the learned part; arguments as :meth:`forward`."""
        inputs = torch.cat([feature, normal, spherical_harmonics(direction)], dim=1)
        logits: Tensor = self.out(self.hidden(inputs))
        return logits

    def factor(self, logits: Tensor, glances: Tensor, learns: bool = True) -> Tensor:
        """``s (N, 3)`` of :meth:`network`'s logits and the person's glances ``(N, 3)``.

        ``learns`` False: ``strength`` is a constant.
        """
        strength = self.strength if learns else self.strength.detach()
        # The slope of 2 * sigmoid at 0 is a half.
        return 2.0 * torch.sigmoid(logits + 2.0 * strength * glances)

    def forward(
        self, feature: Tensor, normal: Tensor, direction: Tensor, glances: Tensor
    ) -> Tensor:
        """``s (N, 3)``.

        Args:
            feature: Prior's features ``(N, F)``.
            normal: Unit normals ``(N, 3)``.
            direction: View directions ``(N, 3)``, from the camera.
            glances: See :func:`glance`.
        """
        return self.factor(self.network(feature, normal, direction), glances)


class BeliefMaps(nn.Module):
    """How far the portraits can be believed at a point of the stylized surface, smooth, 0 to 1.

    Args:
        weights: ``(V, H, W)`` per pixel: facing x confidence, faded towards silhouettes and depth
            steps.
        depths: ``(V, H, W)`` depth along z of the stylized surface, unit space.
        projections: ``(V, 3, 4)`` unit space to homogeneous image points of these maps.
        tolerance: How far behind the seen surface a point may lie, unit space.
    """

    weights: Tensor
    depths: Tensor
    projections: Tensor

    def __init__(
        self, weights: Tensor, depths: Tensor, projections: Tensor, tolerance: float = 0.012
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights.to(torch.float16))
        self.register_buffer("depths", depths.to(torch.float32))
        self.register_buffer("projections", projections.to(torch.float32))
        self.tolerance = tolerance

    def per_view(self, y: Tensor) -> Tensor:
        """Belief of each view at points ``(N, 3)``: ``(N, V)``."""
        height, width = self.weights.shape[1:]
        scale = torch.tensor([2.0 / width, 2.0 / height], device=y.device)
        columns = []
        for view in range(len(self.weights)):
            matrix = self.projections[view]
            image = y @ matrix[:, :3].T + matrix[:, 3]
            depth = image[:, 2]
            grid = image[:, :2] / depth.clamp(min=1e-6)[:, None] * scale - 1.0
            maps = torch.stack([self.weights[view].to(y.dtype), self.depths[view].to(y.dtype)])
            seen = functional.grid_sample(
                maps[None],
                grid[None, :, None],
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )[0, :, :, 0]
            behind = 1.0 - smoothstep(depth - seen[1], self.tolerance, 2.0 * self.tolerance)
            columns.append(seen[0] * behind * (depth > 0))
        return torch.stack(columns, dim=1)

    def forward(self, y: Tensor) -> Tensor:
        """Belief of all views together, ``1 - prod(1 - w_v)``, ``(N,)``."""
        return 1.0 - (1.0 - self.per_view(y)).prod(dim=1)


class TextureField(nn.Module):
    """F_tex (paper eq. 10): ``c_tex = sigmoid(global + belief * local)``.

    Args:
        global_map: See :class:`GlobalColorMap`.
        local: See :class:`LocalResidual`.
        belief: See :class:`BeliefMaps`.
        light: The room's light, which the colours that the map gets do not have; None: they do.
        colourful: Largest difference of two channels; a black and white style stays black and
            white where no portrait shows the place either.

    Attributes:
        reflection: ``s`` of eq. 10 as it was learned with the albedo, to render as the paper does;
            None when it is not known. The albedo does not need it.
    """

    def __init__(
        self,
        global_map: GlobalColorMap,
        local: LocalResidual,
        belief: BeliefMaps,
        light: LightGrid | None = None,
        colourful: float = 1.0,
    ) -> None:
        super().__init__()
        self.colourful = colourful
        self.global_map, self.local, self.belief, self.light = global_map, local, belief, light
        self.reflection: Reflection | None = None

    def forward(self, y: Tensor, color: Tensor, feature: Tensor) -> Tensor:
        """Albedo ``(N, 3)`` in 0..1.

        Args:
            y: Stylized points ``(N, 3)``.
            color: Prior's view-averaged colour at ``to_prior(y)``, ``(N, 3)``, without the light.
            feature: Prior's features there, ``(N, F)``.
        """
        belief = self.belief(y)
        base = self.global_map(color, feature, belief)
        color = torch.sigmoid(base + belief[:, None] * self.local(y))
        return self._within_style(color)

    def _within_style(self, color: Tensor) -> Tensor:
        """Colours ``(N, 3)`` no more colourful than the style."""
        gray = color.mean(dim=1, keepdim=True)
        spread = color.amax(dim=1, keepdim=True) - color.amin(dim=1, keepdim=True)
        return gray + (color - gray) * (self.colourful / spread.clamp(min=1e-6)).clamp(max=1.0)

    def albedo(self, place: Place) -> Tensor:
        """See :class:`.avatar.Albedo`."""
        feature = place.geometry.prior.evaluate(place.x).feature
        color = place.color if self.light is None else self.light(place.x, place.color)
        result: Tensor = self(place.y, color, feature)
        return result
