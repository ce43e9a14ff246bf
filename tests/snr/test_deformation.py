"""The deformation: closed-form Jacobians, the inverse of control points, strain and folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toonify3d.snr.deformation import (
    Deformation,
    LatticeOptions,
    RadialField,
    bake_displacement,
    determinant3,
    fold_penalty,
    pull_back_normal,
    strain_energy,
    wendland_c2,
)
from toonify3d.snr.warp_radial import sum_wendland


def numeric_jacobian(function, points: torch.Tensor, step: float) -> torch.Tensor:
    columns = []
    for axis in range(3):
        shift = torch.zeros(3, dtype=points.dtype)
        shift[axis] = step
        columns.append((function(points + shift) - function(points - shift)) / (2 * step))
    return torch.stack(columns, dim=2)


def control_points(count: int = 200, scale: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    points = generator.normal(size=(count, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    offsets = scale * np.stack(
        [np.sin(3 * points[:, 1]), np.cos(2 * points[:, 0]), points[:, 0] * 2], axis=1
    )
    return points, offsets


def test_network_jacobian_equals_differences() -> None:
    torch.manual_seed(0)
    deformation = Deformation().double()
    torch.nn.init.normal_(deformation.out.weight, std=0.3)
    points = torch.rand(40, 3, dtype=torch.float64) * 1.6 - 0.8
    value, jacobian = deformation.with_jacobian(points)
    assert torch.allclose(value, deformation(points))
    assert torch.allclose(jacobian, numeric_jacobian(deformation, points, 1e-5), atol=1e-6)


def test_network_jacobian_is_differentiable_by_the_parameters() -> None:
    torch.manual_seed(0)
    deformation = Deformation(width=8, frequencies=2).double()
    torch.nn.init.normal_(deformation.out.weight, std=0.3)
    points = torch.rand(6, 3, dtype=torch.float64)
    weight = deformation.hidden[0].weight

    def energy() -> torch.Tensor:
        return strain_energy(deformation.residual_with_jacobian(points)[1]).sum()

    (gradient,) = torch.autograd.grad(energy(), weight)
    with torch.no_grad():
        weight[2, 3] += 1e-6
        above = energy()
        weight[2, 3] -= 2e-6
        below = energy()
    assert float(gradient[2, 3]) == pytest.approx(float(above - below) / 2e-6, rel=1e-4)


def test_starts_at_nearly_nothing() -> None:
    points = torch.rand(500, 3) * 2 - 1
    assert float(Deformation()(points).detach().abs().max()) < 1e-2


def test_radial_field_interpolates_and_ends() -> None:
    points, offsets = control_points()
    field = RadialField(points, offsets, support=0.4, ridge=1e-8)
    assert np.abs(field(points) - offsets).max() < 1e-4
    far = np.array([[0.0, 0.0, 0.95], [0.93, 0.0, 0.0]])
    assert np.all(field(far) == 0.0)
    assert wendland_c2(np.array([0.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.0]


def test_radial_sum_equals_its_formula() -> None:
    generator = np.random.default_rng(5)
    centers = generator.uniform(-0.5, 0.5, (300, 3))
    weights = generator.normal(size=(300, 3))
    # Among them points on a centre, and beyond the reach of all.
    queries = np.concatenate(
        [generator.uniform(-0.8, 0.8, (2000, 3)), centers[:50], [[2.0, 0.0, 0.0]]]
    )
    ratio = np.linalg.norm(queries[:, None] - centers[None], axis=2) / 0.3
    expected = wendland_c2(ratio) @ weights
    got = sum_wendland(queries, centers, weights, 0.3)
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.all(got[-1] == 0.0)
    assert sum_wendland(np.zeros((0, 3)), centers, weights, 0.3).shape == (0, 3)


def test_baked_field_leads_back_from_moved_control_points() -> None:
    points, offsets = control_points()
    lattice, factor = bake_displacement(points, offsets, LatticeOptions(resolution=48))
    assert factor == 1.0
    moved = torch.tensor(points + offsets, dtype=torch.float32)
    back = moved + lattice(moved)
    error = (back - torch.tensor(points, dtype=torch.float32)).norm(dim=1)
    # The moves are 0.03 to 0.05 long.
    assert float(error.max()) < 4e-3
    assert float(error.median()) < 1e-3


def test_lattice_jacobian_equals_differences_and_is_continuous() -> None:
    lattice, _ = bake_displacement(*control_points(), LatticeOptions(resolution=48))
    lattice = lattice.double()
    points = torch.rand(200, 3, dtype=torch.float64) * 1.2 - 0.6
    value, jacobian = lattice.with_jacobian(points)
    assert torch.allclose(value, lattice(points), atol=1e-12)
    assert torch.allclose(jacobian, numeric_jacobian(lattice, points, 1e-6), atol=1e-5)
    # Quadratic splines: the Jacobian has no jumps, not even where the stencil changes.
    line = torch.linspace(-0.5, 0.5, 20001, dtype=torch.float64)
    path = torch.stack([line, 0.3 * line, torch.full_like(line, 0.41)], dim=1)
    jumps = lattice.with_jacobian(path)[1].diff(dim=0).abs().max()
    assert float(jumps) < 2e-3


def test_points_outside_of_the_lattice_stay() -> None:
    points, offsets = control_points()
    near = points[:, 1] < -0.3
    lattice, _ = bake_displacement(
        points[near], offsets[near], LatticeOptions(support=0.2, resolution=40)
    )
    far = torch.tensor([[0.0, 0.9, 0.0], [0.0, 0.5, 0.6]])
    value, jacobian = lattice.with_jacobian(far)
    assert float(value.abs().max()) < 1e-5
    assert float(jacobian.abs().max()) < 1e-3


def test_a_folding_displacement_is_weakened() -> None:
    points = np.array([[0.0, 0.0, 0.0], [0.05, 0.0, 0.0], [0.1, 0.0, 0.0]])
    offsets = np.array([[0.3, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.3, 0.0, 0.0]])
    options = LatticeOptions(support=0.3, resolution=48)
    lattice, factor = bake_displacement(points, offsets, options)
    assert factor < 0.9
    probe = torch.rand(20000, 3) * 1.2 - 0.6
    determinant = determinant3(torch.eye(3) + lattice.with_jacobian(probe)[1])
    assert float(determinant.min()) > 0.0


def test_nan_control_points_are_ignored() -> None:
    points, offsets = control_points()
    broken = points.copy()
    broken[5] = np.nan
    lattice, _ = bake_displacement(broken, offsets, LatticeOptions(resolution=48))
    assert bool(torch.isfinite(lattice.coefficients).all())


def test_strain_ignores_small_rotations_but_not_stretching() -> None:
    turn = 0.05
    rotation = torch.tensor([[[0.0, -turn, 0.0], [turn, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    stretch = torch.tensor([[[0.0, turn, 0.0], [turn, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    assert float(strain_energy(rotation)) < 0.11 * float(strain_energy(stretch))
    assert float(strain_energy(torch.zeros(1, 3, 3))) == 0.0


def test_even_growth_is_as_dear_as_asked() -> None:
    torch.manual_seed(2)
    jacobian = torch.randn(20, 3, 3, dtype=torch.float64)
    symmetric = 0.5 * (jacobian + jacobian.transpose(1, 2))
    plain = (symmetric**2).sum((1, 2)) + 0.1 * (jacobian**2).sum((1, 2))
    assert torch.allclose(strain_energy(jacobian), plain)
    bigger = 0.1 * torch.eye(3, dtype=torch.float64)[None]
    assert float(strain_energy(bigger, 0.0)) == pytest.approx(0.0, abs=1e-15)
    assert float(strain_energy(bigger, 0.25)) == pytest.approx(0.25 * 1.1 * 3 * 0.01)
    # What changes angles costs the same whatever growth does.
    even = symmetric.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] / 3.0
    angles = jacobian - even * torch.eye(3, dtype=torch.float64)
    assert torch.allclose(strain_energy(angles, 0.0), strain_energy(angles, 1.0))


def test_fold_penalty_and_determinant() -> None:
    torch.manual_seed(1)
    matrix = torch.randn(50, 3, 3, dtype=torch.float64)
    assert torch.allclose(determinant3(matrix), torch.linalg.det(matrix))
    flat = torch.zeros(2, 3, 3)
    flat[1, 0, 0] = -1.5
    penalty = fold_penalty(flat)
    assert float(penalty[0]) == 0.0
    assert float(penalty[1]) == pytest.approx((0.2 + 0.5) ** 2)


def test_pulled_back_normal_is_the_gradient_of_the_composed_field() -> None:
    torch.manual_seed(0)
    lattice, _ = bake_displacement(*control_points(), LatticeOptions(resolution=48))
    deformation = Deformation(lattice).double()
    torch.nn.init.normal_(deformation.out.weight, std=0.05)
    points = torch.rand(50, 3, dtype=torch.float64) - 0.5

    def distance(y: torch.Tensor) -> torch.Tensor:
        x = y + deformation(y)
        return (x.norm(dim=1) - 0.4)[:, None]

    value, jacobian = deformation.with_jacobian(points)
    x = points + value
    normal = pull_back_normal(jacobian, x / x.norm(dim=1, keepdim=True))
    expected = numeric_jacobian(distance, points, 1e-6)[:, 0]
    assert torch.allclose(normal, expected, atol=1e-5)


def test_many_control_points_are_thinned_where_the_field_is_smooth() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(6000, 3))
    points *= 0.5 / np.linalg.norm(points, axis=1, keepdims=True)
    # Everything rests but a small "eye" that grows by a fifth.
    eye = np.array([0.1, -0.48, 0.1])
    offset = points - eye
    near = np.exp(-(offset**2).sum(1) / (2 * 0.05**2))
    offsets = 0.2 * offset * near[:, None]
    options = LatticeOptions(support=0.3, resolution=64, max_points=450)
    lattice, _ = bake_displacement(points, offsets, options)
    moved = torch.tensor(points + offsets, dtype=torch.float32)
    error = (lattice(moved) + torch.tensor(offsets, dtype=torch.float32)).norm(dim=1)
    assert float(error.max()) < 0.25 * float(np.linalg.norm(offsets, axis=1).max())


def test_a_fine_network_adds_its_displacement_and_its_jacobian() -> None:
    torch.manual_seed(0)
    fine = Deformation(width=16, frequencies=5)
    both = Deformation(width=16, fine=fine).double()
    for part in (both.out, fine.out):
        torch.nn.init.normal_(part.weight, std=0.1)
    points = torch.rand(30, 3, dtype=torch.float64) - 0.5
    coarse = Deformation(width=16).double()
    coarse.load_state_dict({k: v for k, v in both.state_dict().items() if "fine" not in k})
    value, jacobian = both.with_jacobian(points)
    assert torch.allclose(value, coarse(points) + fine(points))
    assert torch.allclose(jacobian, numeric_jacobian(both, points, 1e-6), atol=1e-5)
