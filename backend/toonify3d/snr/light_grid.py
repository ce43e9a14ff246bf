"""The room's light as a field: takes it out of the prior's colours wherever they are asked for.

For styles with smooth skin it also knows the person's colours without blotches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from ..calm_colors import CalmColors
from ..room_light import RoomLight
from ..scene import FloatArray, Normalization

SIDE = 96
"""Cells along the longest side of the person's box: about 5 mm, as fine as the light is known."""
_NEIGHBOURS = 4


class LightGrid(nn.Module):
    """Log light on a box of cells, linear between them and constant beyond (unit space).

    Args:
        values: ``(3, Z, Y, X)`` log light per channel at the cells' corners; with four more
            channels, calm sRGB colours and how far these take the place of the person's own.
        low: ``(3,)`` first corner.
        high: ``(3,)`` last corner.
    """

    values: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, values: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        # Half precision is a two-thousandth of the light here.
        self.register_buffer("values", values.to(torch.float16))
        self.register_buffer("low", low.to(torch.float32))
        self.register_buffer("high", high.to(torch.float32))

    def gain(self, x: Tensor) -> Tensor:
        """Log light ``(N, 3)`` at places on the person ``(N, 3)``."""
        return self._at(x)[:, :3]

    def _at(self, x: Tensor) -> Tensor:
        """All channels ``(N, 3 or 7)``."""
        spot = 2.0 * (x - self.low) / (self.high - self.low) - 1.0
        found = functional.grid_sample(
            self.values[None].to(x.dtype),
            spot[None, None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return found[0, :, 0, 0].T

    def forward(self, x: Tensor, color: Tensor) -> Tensor:
        """sRGB colours ``(N, 3)`` in 0..1 at places on the person, without the light; calm."""
        known = self._at(x)
        linear = torch.where(color <= 0.04045, color / 12.92, _power(color))
        linear = (linear * torch.exp(-known[:, :3])).clamp(0.0, 1.0)
        bright = 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055
        bright = torch.where(linear <= 0.0031308, 12.92 * linear, bright)
        if known.shape[1] == 3:
            return bright
        return bright + known[:, 6:] * (known[:, 3:6] - bright)

    def export_state(self) -> dict[str, Any]:
        """Tensors from which :meth:`from_state` makes it again."""
        return {"values": self.values, "low": self.low, "high": self.high}

    @classmethod
    def from_state(cls, state: dict[str, Any] | None) -> LightGrid | None:
        """What :meth:`export_state` gave; None for None."""
        return None if state is None else cls(state["values"], state["low"], state["high"])

    @classmethod
    def of(
        cls,
        light: RoomLight | None,
        normalization: Normalization,
        device: torch.device | str,
        calm: CalmColors | None = None,
    ) -> LightGrid:
        """The grid of a light, and of calm colours, known at places; one of them at least."""
        known = []
        if light is not None:
            known.append((normalization.to_unit(light.points), light.gain))
        elif calm is not None:
            known.append((normalization.to_unit(calm.points[:1]), np.zeros((1, 3))))
        if calm is not None:
            values = np.concatenate([calm.color, calm.weight[:, None]], axis=1)
            known.append((normalization.to_unit(calm.points), values.astype(float)))
        points = np.concatenate([places for places, _ in known])
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.02 * float((high - low).max()) + 1e-6
        low, high = low - margin, high + margin
        cell = float((high - low).max()) / SIDE
        count = np.maximum(np.ceil((high - low) / cell).astype(int) + 1, 2)
        axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, count, strict=True)]
        z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        corners = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
        parts = [_spread(places, values, corners, cell) for places, values in known]
        values = np.concatenate(parts, axis=1).T.reshape(-1, *z.shape)
        tensors = (torch.tensor(np.ascontiguousarray(part)) for part in (values, low, high))
        return cls(*tensors).to(device)


def _power(color: Tensor) -> Tensor:
    powered: Tensor = ((color.clamp(min=0.0) + 0.055) / 1.055) ** 2.4
    return powered


def _spread(points: FloatArray, gain: FloatArray, corners: FloatArray, cell: float) -> FloatArray:
    """Values ``(M, c)`` at corners: mean of the nearest places, the nearer the more."""
    count = min(_NEIGHBOURS, len(points))
    distance, nearest = cKDTree(points).query(corners, count)
    distance, nearest = distance.reshape(len(corners), -1), nearest.reshape(len(corners), -1)
    weight = 1.0 / (distance + 0.1 * cell) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkc->nc", weight, gain[nearest]))
