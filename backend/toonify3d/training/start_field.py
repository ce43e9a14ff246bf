"""The stylizer's change of shape, inverted exactly: where stage II's deformation starts.

The stylizer moves points of the person, ``x -> x + d(x)``, by small steps of radial functions;
stage II needs the way back, ``y -> x``, on a lattice. Interpolating the known pairs of points does
not give it: between them and off the surface the interpolation may fold, and eyes that grow to
eight times their volume (an inverse of 0.12) look like a fold to any fixed limit. Every step is
mild enough to be inverted by fixed-point iteration, so the way back is known at every node.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..scene import Displacement, FloatArray, Normalization
from ..snr.deformation import DisplacementLattice, LatticeOptions, determinant3
from ..snr.warp_radial import sum_wendland

TOLERANCE = 1e-5
"""Of the unit sphere's radius: some micrometres on a head."""
_PLAIN, _MAX_ITERATIONS = 20, 120
_MARGIN = 0.1
"""Metres round the points that move over which the lattice reaches; the rest dies out there."""
_LEAST_VOLUME = 0.01


def inverse_start(
    displacement: Displacement, normalization: Normalization, options: LatticeOptions
) -> DisplacementLattice | None:
    """The way back ``y -> x - y`` of a displacement whose kernels are known, unit space.

    Args:
        displacement: The stylizer's change of shape.
        normalization: World to unit space.
        options: ``resolution`` says how many nodes; the rest is for scattered points.

    Returns:
        The lattice, or None: no kernels are known, or they cannot be inverted by iteration.
    """
    if displacement.kernels is None or not len(displacement.kernels):
        return None
    steps = _unit_steps(displacement.kernels, normalization)
    length = np.linalg.norm(displacement.offsets, axis=1)
    moving = length >= 0.05 * length.max()
    moved = normalization.to_unit((displacement.points + displacement.offsets)[moving])
    margin = _MARGIN / normalization.radius
    low = np.clip(moved.min(0) - margin, -1.2, 1.2)
    high = np.clip(moved.max(0) + margin, -1.2, 1.2)
    failed: list[bool] = []

    def way_back(y: FloatArray) -> FloatArray:
        x, sure = inverted(steps, y)
        failed.append(not sure)
        return x - y

    lattice = DisplacementLattice.sample(_in_parts(way_back), low, high, options.resolution)
    if any(failed) or _least_volume(lattice, moved) < _LEAST_VOLUME:
        return None
    return lattice


def inverted(
    steps: list[Callable[[FloatArray], FloatArray]], y: FloatArray
) -> tuple[FloatArray, bool]:
    """Points ``x`` with ``(id + u_n) o ... o (id + u_1) (x) = y`` and whether all were found.

    Args:
        steps: Displacements ``u_i`` of the steps, in the order in which they are taken.
        y: ``(N, 3)``.
    """
    x, sure = y.copy(), True
    for step in reversed(steps):
        goal, rows = x.copy(), np.arange(len(x))
        for iteration in range(_MAX_ITERATIONS):
            # Where a step more than doubles lengths the plain iteration swings wider and wider.
            pace = 1.0 if iteration < _PLAIN else 0.5
            change = goal[rows] - step(x[rows]) - x[rows]
            x[rows] += pace * change
            rows = rows[np.abs(change).max(1) > TOLERANCE]
            if not len(rows):
                break
        sure = sure and not len(rows)
    return x, sure


def _unit_steps(
    kernels: FloatArray, normalization: Normalization
) -> list[Callable[[FloatArray], FloatArray]]:
    steps = []
    for index in np.unique(kernels[:, 0]):
        levels = []
        for support in np.unique(kernels[kernels[:, 0] == index, 1]):
            rows = kernels[(kernels[:, 0] == index) & (kernels[:, 1] == support)]
            centers = normalization.to_unit(rows[:, 2:5])
            levels.append(
                (
                    centers,
                    rows[:, 5:8] / normalization.radius,
                    float(support) / normalization.radius,
                )
            )
        steps.append(_summed(levels))
    return steps


def _summed(
    levels: list[tuple[FloatArray, FloatArray, float]],
) -> Callable[[FloatArray], FloatArray]:
    def step(points: FloatArray) -> FloatArray:
        out = np.zeros_like(points)
        for centers, weights, support in levels:
            out += sum_wendland(points, centers, weights, support)
        return out

    return step


def _in_parts(
    field: Callable[[FloatArray], FloatArray], size: int = 100_000
) -> Callable[[FloatArray], FloatArray]:
    """The same field, evaluated a part of the points at a time (memory)."""

    def whole(points: FloatArray) -> FloatArray:
        return np.concatenate(
            [field(points[i : i + size]) for i in range(0, max(len(points), 1), size)]
        )

    return whole


def _least_volume(lattice: DisplacementLattice, moved: FloatArray) -> float:
    """Smallest determinant of the way back, at the points and at random in their box."""
    free = np.random.default_rng(0).uniform(moved.min(0), moved.max(0), (20_000, 3))
    probe = torch.tensor(np.concatenate([moved[:20_000], free]), dtype=torch.float32)
    with torch.no_grad():
        jacobian = lattice.with_jacobian(probe)[1]
    return float(determinant3(torch.eye(3) + jacobian).min())
