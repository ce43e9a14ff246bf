"""F_tex and the reflection as published (paper 3.1 and 3.3.2): networks rendered by volume."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from .fields import AppearanceField

if TYPE_CHECKING:
    from .avatar import Place


class VolumeTexture(nn.Module):
    """F_tex: position and F_geo's features to the albedo ``c_tex``, RGB in 0..1, no direction.

    The paper prints ``R^3 -> R``; an albedo has three channels.

    Args:
        features: Width of F(x).
        layers: Hidden layers (paper: 6).
        width: Their width (NeuS: 256).
        weight_norm: Weight normalisation of all layers, as of NeuS's colour network.
    """

    def __init__(
        self, features: int, layers: int = 6, width: int = 256, weight_norm: bool = False
    ) -> None:
        super().__init__()
        self.shape = (features, layers, width, weight_norm)
        sizes = [3 + features, *[width] * layers, 3]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        if weight_norm:
            for layer in self.layers:
                nn.utils.parametrizations.weight_norm(layer)

    def forward(self, y: Tensor, feature: Tensor) -> Tensor:
        """Albedo ``(N, 3)`` at stylized points ``(N, 3)`` with features ``(N, F)``."""
        h = torch.cat([y, feature], dim=1)
        for layer in self.layers[:-1]:
            h = relu(layer(h))
        return torch.sigmoid(self.layers[-1](h))

    def albedo(self, place: Place) -> Tensor:
        """See :class:`.avatar.Albedo`."""
        result: Tensor = self(place.y, place.geometry.evaluate(place.y).feature)
        return result


class AppearanceReflection(nn.Module):
    """F_app degraded to the reflection ``s`` of eq. 10: bounded in (0, 2), 1 at the start.

    Its hidden layers go on from stage II; the output layer starts at zero. Without the bound
    ``(k s, c / k)`` would render the same for every ``k``.

    Args:
        appearance: F_app of stage II; copied.
    """

    def __init__(self, appearance: AppearanceField) -> None:
        super().__init__()
        self.appearance = copy.deepcopy(appearance).requires_grad_(True)
        output = self.appearance.layers[-1]
        with torch.no_grad():
            # By every parameter, because of weight normalisation: length 0, direction kept.
            for name, parameter in output.named_parameters():
                if not name.endswith("original1"):
                    parameter.zero_()

    def forward(self, y: Tensor, gradient: Tensor, direction: Tensor, feature: Tensor) -> Tensor:
        """``s (N, 3)``; arguments as :meth:`.AppearanceField.forward`."""
        color: Tensor = self.appearance(y, gradient, direction, feature)
        return 2.0 * color
