from __future__ import annotations

import numpy as np
import torch

from toonify3d.portrait2d.field import Controls, DisplacementField, RadialLevel, fit_field
from toonify3d.portrait2d.store import load_displacement, save_displacement
from toonify3d.scene import Displacement, Normalization
from toonify3d.snr.deformation import LatticeOptions, bake_displacement, determinant3
from toonify3d.training.start_field import inverse_start

PLACE = Normalization(center=np.array([0.0, 0.02, 0.15]), radius=0.25)
OPTIONS = LatticeOptions(support=0.6, resolution=64)


def _ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 3))
    return np.array(center) + radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def _grown(factor: float) -> tuple[DisplacementField, np.ndarray]:
    """Two balls grow in place, as eyes do; a ring round them stays; metres."""
    eyes = np.concatenate([_ball((x, -0.08, 0.15), 0.013) for x in (-0.032, 0.032)])
    centers = np.repeat([[-0.032, -0.08, 0.15], [0.032, -0.08, 0.15]], 40, axis=0)
    ring = np.array(
        [[0.09 * np.cos(t), -0.05, 0.15 + 0.09 * np.sin(t)] for t in np.arange(0, 6.2, 0.3)]
    )
    controls = Controls(
        ring, np.zeros_like(ring), eyes, (factor - 1) * (eyes - centers), np.zeros((0, 3)), 0.064
    )
    field, kept = fit_field(controls, np.concatenate([eyes, ring]))
    assert kept == 1.0
    return field, np.concatenate([eyes, ring])


def _displacement(field: DisplacementField, points: np.ndarray) -> Displacement:
    return Displacement(points, field(points), field.kernels())


def test_the_way_back_is_exact_where_eyes_grow_many_times():
    field, points = _grown(2.2)
    x = np.random.default_rng(0).uniform([-0.07, -0.12, 0.1], [0.07, -0.03, 0.2], (4000, 3))
    assert field.determinant(x).max() > 7  # so the way back falls below any fixed limit
    given = _displacement(field, points)
    _, factor = bake_displacement(PLACE.to_unit(points), given.offsets / PLACE.radius, OPTIONS)
    assert factor < 1  # as scattered points all of the change is weakened
    lattice = inverse_start(given, PLACE, OPTIONS)
    assert lattice is not None
    y = torch.tensor(PLACE.to_unit(x + field(x)), dtype=torch.float32)
    back, jacobian = lattice.with_jacobian(y)
    error = np.linalg.norm((y + back).numpy() - PLACE.to_unit(x), axis=1) * PLACE.radius
    assert np.quantile(error, 0.99) < 3e-4 and error.max() < 2e-3
    volume = determinant3(torch.eye(3) + jacobian).numpy()
    assert volume.min() > 0
    assert np.median(np.abs(volume * field.determinant(x) - 1)) < 0.03


def test_without_kernels_or_without_an_inverse_there_is_no_start():
    field, points = _grown(1.5)
    assert inverse_start(Displacement(points, field(points)), PLACE, OPTIONS) is None
    away = np.array([[0.0, -0.08, 0.15]])
    folded = DisplacementField(((RadialLevel(away, np.array([[0.2, 0.0, 0.0]]), 0.1),),), points)
    assert folded.determinant(away + np.array([0.02, 0.0, 0.0]))[0] < 0
    assert inverse_start(_displacement(folded, points), PLACE, OPTIONS) is None


def test_the_kernels_survive_the_file(tmp_path):
    field, points = _grown(1.5)
    given = _displacement(field, points)
    save_displacement(tmp_path, given)
    read = load_displacement(tmp_path)
    assert read is not None and read.kernels is not None
    assert np.array_equal(read.kernels, given.kernels)
    save_displacement(tmp_path, Displacement(points, given.offsets))
    read = load_displacement(tmp_path)
    assert read is not None and read.kernels is None
    assert np.array_equal(read.offsets, given.offsets)
    assert load_displacement(tmp_path / "nothing") is None
