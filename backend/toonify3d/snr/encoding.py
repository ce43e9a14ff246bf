"""Encodings of a position, with analytic Jacobians: multi-resolution grid and frequencies."""

from __future__ import annotations

import math

import torch
from torch import nn

from .reference_grid import encode_reference
from .warp_grid import GridFunction, encode


class Encoding(nn.Module):
    """A map from unit space to features.

    Attributes:
        width: Number of features.
    """

    width: int

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(N, width)`` and Jacobian ``(N, width, 3)`` at positions ``(N, 3)``."""
        raise NotImplementedError

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The features alone, ``(N, width)``."""
        return self.forward(x)[0]


class HashEncoding(Encoding):
    """Multi-resolution grid over ``[-1, 1]^3``: dense coarse levels, hashed fine levels.

    Instant-NGP's encoding (Mueller et al. 2022). ``active`` limits how many levels, from the
    coarsest, answer with something other than zero (progressive training as in NeuS2).

    Args:
        levels: Number of levels.
        features: Features per level (2, 4 or 8).
        base: Cells per axis of the coarsest level.
        finest: Cells per axis of the finest level.
        log2_table: Binary logarithm of the most entries a level may have.
    """

    def __init__(self, levels: int, features: int, base: int, finest: int, log2_table: int) -> None:
        super().__init__()
        self.width = levels * features
        self.active = levels
        growth = (finest / base) ** (1.0 / max(levels - 1, 1))
        rows, offset = [], 0
        for level in range(levels):
            resolution = round(base * growth**level)
            size = 2**log2_table
            rows.append((resolution, size, offset))
            offset += min((resolution + 1) ** 3, size)
        self.levels: torch.Tensor
        self.register_buffer("levels", torch.tensor(rows, dtype=torch.int32), persistent=False)
        self.table = nn.Parameter((torch.rand((offset, features)) * 2.0 - 1.0) * 1e-4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`Encoding`. Differentiable by the table and, through the features, by x."""
        if x.device.type in ("cpu", "cuda") and x.dtype == torch.float32:
            features, jacobian = GridFunction.apply(x, self.table, self.levels, self.active)
        else:
            features, jacobian = encode_reference(x, self.table, self.levels, self.active)
        return features.flatten(1), jacobian.flatten(2).transpose(1, 2)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`Encoding`; twice as fast as :meth:`forward` when x needs no gradient."""
        grad = torch.is_grad_enabled()
        other = x.device.type not in ("cpu", "cuda") or x.dtype != torch.float32
        if other or (grad and x.requires_grad):
            return self.forward(x)[0]
        if grad and self.table.requires_grad:
            features, _ = GridFunction.apply(x, self.table, self.levels, self.active, False)
            result: torch.Tensor = features.flatten(1)
            return result
        return encode(x, self.table.detach(), self.levels, self.active, False)[0].flatten(1)


class FrequencyEncoding(Encoding):
    """NeRF's positional encoding: ``x`` and ``sin, cos(2^k x)`` for ``k < octaves``.

    NeRF (Mildenhall et al. 2020) eq. 4 without the factor pi, as NeuS implements it.
    """

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.width = 3 + 6 * octaves
        self.frequencies: torch.Tensor
        self.register_buffer("frequencies", 2.0 ** torch.arange(octaves), persistent=False)
        self.identity: torch.Tensor
        self.register_buffer("identity", torch.eye(3), persistent=False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """See :class:`Encoding`."""
        phase = x[:, None, :] * self.frequencies[:, None]
        waves = torch.stack([phase.sin(), phase.cos()], dim=2)
        return torch.cat([x, waves.flatten(1)], dim=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`Encoding`."""
        phase = x[:, None, :] * self.frequencies[:, None]
        sine, cosine = phase.sin(), phase.cos()
        features = torch.cat([x, torch.stack([sine, cosine], 2).flatten(1)], dim=1)
        slopes = torch.stack([cosine, -sine], 2) * self.frequencies[:, None, None]
        # (N, octaves, 2, 3) slopes onto the axis each belongs to: (N, octaves * 2 * 3, 3).
        spread = (slopes[..., None] * self.identity).flatten(1, 3)
        return features, torch.cat([self.identity.expand(len(x), 3, 3), spread], dim=1)


def spherical_harmonics(direction: torch.Tensor) -> torch.Tensor:
    """Real spherical harmonics up to degree 2 of unit vectors ``(N, 3)``: ``(N, 9)``."""
    x, y, z = direction.unbind(-1)
    band1 = math.sqrt(3.0 / (4.0 * math.pi))
    band2 = math.sqrt(15.0 / (4.0 * math.pi))
    return torch.stack(
        [
            torch.full_like(x, math.sqrt(1.0 / (4.0 * math.pi))),
            band1 * y,
            band1 * z,
            band1 * x,
            band2 * x * y,
            band2 * y * z,
            math.sqrt(5.0 / (16.0 * math.pi)) * (3.0 * z * z - 1.0),
            band2 * x * z,
            0.5 * band2 * (x * x - y * y),
        ],
        dim=-1,
    )


def cubic_harmonics(direction: torch.Tensor) -> torch.Tensor:
    """Real spherical harmonics of degree 3 of unit vectors ``(N, 3)``: ``(N, 7)``."""
    x, y, z = direction.unbind(-1)
    pi = math.pi
    return torch.stack(
        [
            0.25 * math.sqrt(35.0 / (2.0 * pi)) * y * (3.0 * x * x - y * y),
            0.5 * math.sqrt(105.0 / pi) * x * y * z,
            0.25 * math.sqrt(21.0 / (2.0 * pi)) * y * (5.0 * z * z - 1.0),
            0.25 * math.sqrt(7.0 / pi) * z * (5.0 * z * z - 3.0),
            0.25 * math.sqrt(21.0 / (2.0 * pi)) * x * (5.0 * z * z - 1.0),
            0.25 * math.sqrt(105.0 / pi) * z * (x * x - y * y),
            0.25 * math.sqrt(35.0 / (2.0 * pi)) * x * (x * x - 3.0 * y * y),
        ],
        dim=-1,
    )
