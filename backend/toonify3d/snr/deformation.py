"""The smooth map from the stylized head back to the real one, ``x = y + d(y)`` (unit space).

Stage II keeps the prior's geometry field frozen and learns only this map, so that what the few
portraits show spreads smoothly to where no portrait reaches (``method_anchors`` A6: freeing all of
F_geo is worse at the sides than doing nothing). ``y`` is a point of the stylized head, ``x`` the
same place on the real person.

``d`` is the sum of two parts: a fixed start baked from the stylizer's control points
(:class:`DisplacementLattice`) and a small network that is learned (:class:`Deformation`). Both give
their Jacobian in closed form, because the normal of the stylized surface is
``(I + J_d)^T grad G(y + d(y))``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from ..scene import FloatArray
from .warp_radial import sum_wendland


def wendland_c2(ratio: FloatArray) -> FloatArray:
    """Wendland's compactly supported, positive definite C2 kernel ``(1-r)^4 (4r+1)``.

    Args:
        ratio: Distance divided by the support radius, any shape.
    """
    left = np.clip(1.0 - ratio, 0.0, None)
    squared = left * left
    return np.asarray(squared * squared * (4.0 * ratio + 1.0))


class RadialField:
    """A smooth vector field through scattered samples, zero beyond ``support`` of all of them.

    Args:
        points: ``(N, 3)`` where the field is known.
        values: ``(N, 3)`` the field there.
        support: Radius of the Wendland kernels, same unit as ``points``.
        ridge: Relative smoothing; it also makes coincident points harmless.
    """

    def __init__(
        self, points: FloatArray, values: FloatArray, support: float, ridge: float = 1e-3
    ) -> None:
        self.points = points
        self.support = support
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        matrix = wendland_c2(distance / support) + ridge * np.eye(len(points))
        self.weights = np.linalg.solve(matrix, values)

    def __call__(self, query: FloatArray) -> FloatArray:
        """The field at ``query`` ``(Q, 3)``."""
        return sum_wendland(query, self.points, self.weights, self.support)


@dataclass(frozen=True)
class LatticeOptions:
    """How control points become a field.

    Attributes:
        support: Radius of influence of a control point in unit space.
        ridge: Relative smoothing of the interpolation.
        max_points: Larger sets are thinned (the solve is cubic).
        resolution: Nodes along the longest side of the lattice.
        min_determinant: The map may not compress volume below this (0 would be a fold).
    """

    support: float = 0.4
    ridge: float = 1e-3
    max_points: int = 1200
    resolution: int = 84
    min_determinant: float = 0.15


class DisplacementLattice(nn.Module):
    """A fixed displacement field on a regular lattice, by quadratic B-splines (C1, 27 nodes).

    Args:
        coefficients: ``(X, Y, Z, 3)`` B-spline coefficients.
        low: ``(3,)`` position of the first node.
        spacing: Distance between nodes.
    """

    coefficients: Tensor
    low: Tensor
    spacing: Tensor

    def __init__(self, coefficients: Tensor, low: Tensor, spacing: Tensor) -> None:
        super().__init__()
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("low", low)
        self.register_buffer("spacing", spacing)
        # On the device from the start: a recorded training step cannot copy it there.
        self._size: Tensor
        self.register_buffer("_size", torch.tensor(coefficients.shape[:3]), persistent=False)

    @classmethod
    def sample(
        cls,
        field: Callable[[FloatArray], FloatArray],
        low: FloatArray,
        high: FloatArray,
        resolution: int,
    ) -> DisplacementLattice:
        """Bake ``field`` over the box ``[low, high]``."""
        spacing = float((high - low).max()) / (resolution - 1)
        shape = np.ceil((high - low) / spacing).astype(int) + 1
        axes = [low[i] + spacing * np.arange(shape[i]) for i in range(3)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        values = field(nodes.reshape(-1, 3)).reshape(*shape, 3)
        # scipy's order-2 filter is for the same centred quadratic B-spline that forward evaluates.
        coefficients = np.stack(
            [ndimage.spline_filter(values[..., c], order=2, mode="mirror") for c in range(3)], -1
        )
        return cls(
            torch.tensor(coefficients, dtype=torch.float32),
            torch.tensor(low, dtype=torch.float32),
            torch.tensor(spacing, dtype=torch.float32),
        )

    def forward(self, y: Tensor) -> Tensor:
        """Displacement ``(N, 3)`` at ``y`` ``(N, 3)``."""
        flat, weights, _ = self._stencil(y, with_slopes=False)
        product = weights[:, 0, :, None, None] * weights[:, 1, None, :, None]
        product = (product * weights[:, 2, None, None, :]).reshape(len(y), 1, 27)
        return torch.bmm(product, flat).squeeze(1)

    def with_jacobian(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Displacement ``(N, 3)`` and Jacobian ``(N, 3, 3)``, ``J[n, i, j] = dd_i / dy_j``."""
        flat, weights, slopes = self._stencil(y, with_slopes=True)
        rows = [self._outer(weights[:, 0], weights[:, 1], weights[:, 2])]
        for axis in range(3):
            factors = [slopes[:, a] if a == axis else weights[:, a] for a in range(3)]
            rows.append(self._outer(*factors))
        result = torch.bmm(torch.stack(rows, dim=1), flat)
        return result[:, 0], result[:, 1:].transpose(1, 2)

    @staticmethod
    def _outer(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (a[:, :, None, None] * b[:, None, :, None] * c[:, None, None, :]).reshape(-1, 27)

    def _stencil(self, y: Tensor, with_slopes: bool) -> tuple[Tensor, Tensor, Tensor]:
        size = self._size
        grid = (y - self.low) / self.spacing
        # Beyond the lattice the field goes on as at its border (zero wherever kernels ended).
        limit = (size - 2).to(grid.dtype) + 0.499
        clamped = torch.minimum(grid.clamp(min=0.501), limit)
        node = torch.round(clamped)
        offset = clamped - node
        weights = torch.stack(
            [0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2], dim=-1
        )
        slopes = weights
        if with_slopes:
            inside = (clamped == grid).to(grid.dtype) / self.spacing
            slopes = torch.stack([offset - 0.5, -2.0 * offset, 0.5 + offset], dim=-1)
            slopes = slopes * inside[..., None]
        index = node.long()[:, :, None] + torch.arange(-1, 2, device=y.device)
        index = torch.minimum(index.clamp(min=0), (size - 1)[:, None])
        linear = (index[:, 0, :, None, None] * size[1] + index[:, 1, None, :, None]) * size[
            2
        ] + index[:, 2, None, None, :]
        flat = self.coefficients.reshape(-1, 3)[linear.reshape(-1)].reshape(len(y), 27, 3)
        return flat, weights, slopes


def bake_displacement(
    points: FloatArray, offsets: FloatArray, options: LatticeOptions
) -> tuple[DisplacementLattice, float]:
    """The inverse map ``y -> x - y`` of a stylizer's control points, as a lattice.

    A point ``p`` of the real person moves to ``p + o``; so the field that leads back is ``-o`` at
    ``p + o``, interpolated by Wendland kernels. Where that would fold space, the whole field is
    weakened until the Jacobian determinant of ``y + d(y)`` stays above ``min_determinant``.

    Args:
        points: ``(N, 3)`` control points on the real person, unit space.
        offsets: ``(N, 3)`` how far each moves, unit space.
        options: See :class:`LatticeOptions`.

    Returns:
        The lattice and the factor (1 = as given) by which it had to be weakened.
    """
    valid = np.isfinite(points).all(1) & np.isfinite(offsets).all(1)
    points, offsets = points[valid], offsets[valid]
    keep = _thinned(points + offsets, offsets, options)
    points, offsets = points[keep], offsets[keep]
    moved = points + offsets
    # Only where something moves: nodes spent on resting shoulders are missing at the eyes.
    length = np.linalg.norm(offsets, axis=1)
    moving = moved[length >= 0.05 * length.max()]
    low = np.clip(moving.min(0) - 0.5 * options.support, -1.2, 1.2)
    high = np.clip(moving.max(0) + 0.5 * options.support, -1.2, 1.2)
    field = RadialField(moved, -offsets, options.support, options.ridge)
    lattice = DisplacementLattice.sample(field, low, high, options.resolution)
    probe = torch.tensor(
        np.concatenate([moved, np.random.default_rng(0).uniform(low, high, (20000, 3))]),
        dtype=torch.float32,
    )
    factor = _unfolding_factor(lattice.with_jacobian(probe)[1], options.min_determinant)
    lattice.coefficients *= factor
    return lattice, factor


def _thinned(
    moved: FloatArray, offsets: FloatArray, options: LatticeOptions
) -> npt.NDArray[np.int64]:
    """Rows that are enough to describe the field: some evenly, then where it is still wrong.

    Stylizers may offer every vertex of a mesh; eyes and mouth need most of the kernels.
    """
    count = len(moved)
    if count <= options.max_points:
        return np.arange(count)
    third = options.max_points // 3
    generator = np.random.default_rng(0)
    rows = generator.permutation(count)[: 8 * options.max_points]
    keep = rows[:third]
    for _ in range(2):
        field = RadialField(moved[keep], offsets[keep], options.support, options.ridge)
        miss = np.linalg.norm(offsets[rows] - field(moved[rows]), axis=1) + 1e-9
        miss[np.isin(rows, keep)] = 0.0
        more = generator.choice(rows, third, replace=False, p=miss / miss.sum())
        keep = np.concatenate([keep, more])
    return keep


def _unfolding_factor(jacobian: Tensor, minimum: float) -> float:
    identity = torch.eye(3)
    factor = 1.0
    while factor > 0.05:
        if float(torch.linalg.det(identity + factor * jacobian).min()) >= minimum:
            return factor
        factor *= 0.9
    return factor


class Deformation(nn.Module):
    """``d(y)``: the initial lattice (if any) plus a small network that starts at nearly zero.

    Args:
        initial: The stylizer's displacement, or None.
        width: Hidden width (method_anchors A6: 64).
        frequencies: Octaves of the positional encoding (A6: 3).
        depth: Hidden layers.
        fine: A second network of more octaves that is added, or None.
    """

    def __init__(
        self,
        initial: DisplacementLattice | None = None,
        width: int = 64,
        frequencies: int = 3,
        depth: int = 2,
        fine: Deformation | None = None,
    ) -> None:
        super().__init__()
        self.initial = initial
        self.fine = fine
        self.frequencies = frequencies
        encoded = 3 * (1 + 2 * frequencies)
        sizes = [encoded] + [width] * depth
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])
        self.out = nn.Linear(width, 3)
        nn.init.normal_(self.out.weight, std=1e-4)
        nn.init.zeros_(self.out.bias)

    def forward(self, y: Tensor) -> Tensor:
        """Displacement ``(N, 3)`` at stylized points ``y`` ``(N, 3)``, unit space."""
        value = self.residual(y)
        if self.initial is None:
            return value
        start: Tensor = self.initial(y)
        return value + start

    def residual(self, y: Tensor) -> Tensor:
        """The learned part of the displacement ``(N, 3)``."""
        hidden = self._encode(y).flatten(1)
        for layer in self.hidden:
            # SiLU: smooth, so that normals are; four times as fast as tanh on a CPU.
            hidden = functional.silu(layer(hidden))
        value: Tensor = self.out(hidden)
        return value if self.fine is None else value + self.fine.residual(y)

    def residual_with_jacobian(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The learned part and its Jacobian ``(N, 3, 3)``, ``J[n, i, j] = dd_i / dy_j``.

        Tangents are carried forward as ordinary operations, so one backward pass differentiates
        a loss on the Jacobian (no second-order autograd).
        """
        hidden = self._encode(y).flatten(1)
        first = True
        tangent = y.new_zeros(0)
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            if first:
                weight = layer.weight.reshape(layer.out_features, 3, -1)
                tangent = torch.einsum("nae,wae->naw", self._encode_slope(y), weight)
                first = False
            else:
                tangent = tangent @ layer.weight.T
            linear = layer(hidden)
            gate = torch.sigmoid(linear)
            hidden = linear * gate
            tangent = tangent * (gate + hidden * (1.0 - gate))[:, None, :]
        value, jacobian = self.out(hidden), (tangent @ self.out.weight.T).transpose(1, 2)
        if self.fine is not None:
            more, more_jacobian = self.fine.residual_with_jacobian(y)
            value, jacobian = value + more, jacobian + more_jacobian
        return value, jacobian

    def with_jacobian(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``d(y)`` ``(N, 3)`` and its Jacobian ``(N, 3, 3)``."""
        value, jacobian = self.residual_with_jacobian(y)
        if self.initial is None:
            return value, jacobian
        start, start_jacobian = self.initial.with_jacobian(y)
        return value + start, jacobian + start_jacobian

    def _encode(self, y: Tensor) -> Tensor:
        """Positional encoding ``(N, 3, 1 + 2F)``, each axis by itself."""
        parts = [y]
        for octave in range(self.frequencies):
            angle = y * (math.pi * 2.0**octave)
            parts += [torch.sin(angle), torch.cos(angle)]
        return torch.stack(parts, dim=-1)

    def _encode_slope(self, y: Tensor) -> Tensor:
        """Derivative of :meth:`_encode` along its own axis, ``(N, 3, 1 + 2F)``."""
        parts = [torch.ones_like(y)]
        for octave in range(self.frequencies):
            scale = math.pi * 2.0**octave
            parts += [scale * torch.cos(scale * y), -scale * torch.sin(scale * y)]
        return torch.stack(parts, dim=-1)


def strain_energy(jacobian: Tensor, growth: float = 1.0) -> Tensor:
    """How far a small displacement is from a rigid (``growth`` 0: a similar) motion, ``(N,)``.

    ``|sym J|^2 + 0.1 |J|^2``: the symmetric part is the linear strain of elasticity; the small full
    term keeps rotations from winding up where nothing supervises. ``growth`` weighs the even growth
    ``(tr J)^2 / 3`` within ``|sym J|^2`` against what changes angles. With little of it a skull
    that the portraits show to be wider also gets deeper, which frontal views cannot tell.
    """
    symmetric = 0.5 * (jacobian + jacobian.transpose(1, 2))
    even = symmetric.diagonal(dim1=1, dim2=2).sum(1).square() / 3.0
    strain = (symmetric**2).sum((1, 2))
    turn = (jacobian**2).sum((1, 2)) - strain
    return 1.1 * (strain - (1.0 - growth) * even) + 0.1 * turn


def fold_penalty(jacobian: Tensor, minimum: float | Tensor = 0.2) -> Tensor:
    """Squared shortfall of ``det(I + J)`` below ``minimum``, ``(N,)``; zero for a healthy map."""
    identity = torch.eye(3, device=jacobian.device, dtype=jacobian.dtype)
    return torch.relu(minimum - determinant3(identity + jacobian)) ** 2


def determinant3(matrix: Tensor) -> Tensor:
    """Determinant of ``(N, 3, 3)`` in closed form (LAPACK per 3 x 3 matrix is slow)."""
    a, b, c = matrix[:, 0], matrix[:, 1], matrix[:, 2]
    value: Tensor = (a * torch.linalg.cross(b, c)).sum(1)
    return value


def pull_back_normal(jacobian: Tensor, prior_gradient: Tensor) -> Tensor:
    """Gradient of ``G(y + d(y))``: ``(I + J_d)^T grad G``, ``(N, 3)``."""
    return prior_gradient + torch.einsum("nij,ni->nj", jacobian, prior_gradient)
