"""The multi-resolution grid in plain torch: any dtype, any device. Oracle of the Warp kernels.

Also the implementation for devices that Warp does not serve (MPS).
"""

from __future__ import annotations

import torch

PRIMES = (1, 2654435761, 805459861)


def _vertex_index(corner: torch.Tensor, resolution: int, size: int, offset: int) -> torch.Tensor:
    """Table rows of integer vertices ``(..., 3)``."""
    side = resolution + 1
    x, y, z = corner.unbind(-1)
    if side**3 <= size:
        return offset + x + side * (y + side * z)
    # 32-bit wrap-around products, computed in int64.
    wrap = 0xFFFFFFFF
    key = x ^ ((y * PRIMES[1]) & wrap) ^ ((z * PRIMES[2]) & wrap)
    return offset + (key & (size - 1))


def encode_reference(
    x: torch.Tensor, table: torch.Tensor, levels: torch.Tensor, active: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features ``(N, L, F)`` and Jacobian ``(N, 3, L, F)``; see :func:`.warp_grid.encode`.

    Differentiable by ordinary autograd with respect to ``x`` and ``table``.
    """
    features, jacobians = [], []
    for number, (resolution, size, offset) in enumerate(levels.tolist()):
        if number >= active:
            zero = torch.zeros((len(x), table.shape[1]), dtype=x.dtype, device=x.device)
            features.append(zero)
            jacobians.append(zero[:, None].expand(-1, 3, -1))
            continue
        value, jacobian = _encode_level(x, table, resolution, size, offset)
        features.append(value)
        jacobians.append(jacobian)
    return torch.stack(features, 1), torch.stack(jacobians, 2)


def _encode_level(
    x: torch.Tensor, table: torch.Tensor, resolution: int, size: int, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = (0.5 * (x + 1.0)).clamp(0.0, 1.0) * resolution
    cell = scaled.detach().long().clamp(max=resolution - 1)
    fraction = scaled - cell
    inside = (x >= -1.0) & (x <= 1.0)
    slope = torch.where(inside, 0.5 * resolution, 0.0).to(x.dtype)
    value = torch.zeros((len(x), table.shape[1]), dtype=x.dtype, device=x.device)
    jacobian = [torch.zeros_like(value) for _ in range(3)]
    for number in range(8):
        bits = torch.tensor([number & 1, number >> 1 & 1, number >> 2 & 1], device=x.device)
        row = table[_vertex_index(cell + bits, resolution, size, offset)]
        # Per axis: the linear weight of this corner and its derivative.
        weight = torch.where(bits.bool(), fraction, 1.0 - fraction)
        sign = (2 * bits - 1).to(x.dtype)
        value = value + weight.prod(1, keepdim=True) * row
        for axis in range(3):
            others = weight[:, (axis + 1) % 3] * weight[:, (axis + 2) % 3]
            jacobian[axis] = jacobian[axis] + (others * sign[axis] * slope[:, axis])[:, None] * row
    return value, torch.stack(jacobian, 1)
