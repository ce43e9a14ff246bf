from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toonify3d.capture.hull import (
    Hull,
    euclidean,
    largest_piece,
    silhouette_distance,
    trace,
    visual_hull,
)
from toonify3d.errors import InputError
from toonify3d.scene import Normalization

sys.path.insert(0, str(Path(__file__).parent))
import made_up_capture as made_up


@pytest.fixture(scope="module")
def capture():
    return made_up.make(24)


@pytest.fixture(scope="module")
def hull(capture):
    return visual_hull(capture.masks, capture.cameras, resolution=64)


def true_sdf(points):
    return np.min([np.linalg.norm(points - c, axis=1) - r for c, r in made_up.BALLS], axis=0)


def grid(hull):
    axis = np.linspace(-1, 1, len(hull.sdf))
    mesh = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return hull.normalization.to_world(mesh)


def test_hull_holds_the_person(hull):
    """No true inside point may be lost (beyond half a cell)."""
    cell = 2 * hull.normalization.radius / (len(hull.sdf) - 1)
    inside = true_sdf(grid(hull)) < -0.5 * cell
    assert hull.occupancy.ravel()[inside].all()


def test_hull_is_tight_from_the_side(hull):
    """At the height of the head's middle the level orbit sees every tangent."""
    points = grid(hull)
    ring = np.abs(points[:, 2] - made_up.BALLS[0][0][2]) < 0.01
    outside = ring & (true_sdf(points) > 0.012)
    assert outside.sum() > 100
    assert not hull.occupancy.ravel()[outside].any()


def test_hull_fits_the_unit_ball(hull):
    points = hull.normalization.to_unit(grid(hull)[hull.occupancy.ravel()])
    largest = np.linalg.norm(points, axis=1).max()
    assert 0.82 < largest < 0.93


def test_sdf_is_a_distance(hull):
    steps = np.stack(np.gradient(hull.sdf, 2 / (len(hull.sdf) - 1)), -1)
    norm = np.linalg.norm(steps, axis=-1)
    assert 0.85 < np.median(norm) < 1.1


def test_crop_plane_cuts_the_body(capture):
    hull = visual_hull(capture.masks, capture.cameras, crop_z=-0.05, resolution=48)
    heights = grid(hull)[hull.occupancy.ravel()][:, 2]
    assert heights.min() > -0.06
    assert hull.crop_z == -0.05


def test_two_wrong_masks_of_24_do_not_remove_the_person(capture):
    masks = [mask.copy() for mask in capture.masks]
    masks[3][:] = 0
    masks[11][:80] = 0
    hull = visual_hull(masks, capture.cameras, resolution=48, outvoted=0.1)
    inside = true_sdf(grid(hull)) < -0.02
    assert hull.occupancy.ravel()[inside].mean() > 0.99


def test_outside_the_image_is_unknown():
    """Shoulders that leave many frames stay in the hull."""
    narrow = made_up.make(24, focal=2.9)
    assert all(mask[-1].any() for mask in narrow.masks)
    hull = visual_hull(narrow.masks, narrow.cameras, resolution=48)
    cameras = narrow.cameras
    points = np.array([[0.0, 0.0, 0.12], [0.05, 0.02, 0.0], [-0.06, 0.0, -0.02]])
    assert all(np.isfinite(camera.project(points)[0]).all() for camera in cameras)
    unit = hull.normalization.to_unit(points)
    index = np.round((unit + 1) / 2 * 47).astype(int)
    assert hull.occupancy[tuple(index.T)].all()


def test_depth_of_the_hull_is_the_front(capture, hull):
    depth = hull.depth(capture.cameras[0], 60, 80)
    true = capture.depths[0][::2, ::2]
    both = (depth > 0) & (true > 0)
    assert both.sum() > 0.95 * (true > 0).sum()
    assert np.median(np.abs(depth - true)[both]) < 0.01


def test_trace_of_an_exact_ball():
    axis = np.linspace(-1, 1, 65, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    sdf = torch.from_numpy(np.sqrt(x**2 + y**2 + z**2) - 0.5)
    camera = made_up.orbit(1, center=(0.0, 0.0, 0.0), distance=3.0, focal=2.0)[0]
    depth = trace(sdf, np.zeros(3), 1.0, camera, camera.width, camera.height)
    distance = np.linalg.norm(camera.center)
    assert abs(depth[80, 60] - (distance - 0.5)) < 0.003
    assert depth[2, 2] == 0.0


def test_saved_hull_is_the_same(hull, tmp_path):
    hull.save(tmp_path / "hull.npz")
    again = Hull.load(tmp_path / "hull.npz")
    assert np.array_equal(again.sdf, hull.sdf)
    assert again.normalization.radius == hull.normalization.radius
    assert again.crop_z == hull.crop_z


def test_nothing_in_common_is_an_input_error(capture):
    empty = [np.zeros_like(mask) for mask in capture.masks]
    with pytest.raises(InputError) as caught:
        visual_hull(empty, capture.cameras)
    assert caught.value.code == "no_person"


def test_silhouette_distance_is_zero_on_the_edge():
    mask = np.zeros((20, 30), bool)
    mask[:, 10:] = True
    distance = silhouette_distance(mask)
    assert distance[5, 9] == pytest.approx(0.5)
    assert distance[5, 10] == pytest.approx(-0.5)
    # The border of the picture is no outline: far from column 10 it stays deep inside.
    assert distance[0, 29] == pytest.approx(-19.5, abs=0.5)


def test_largest_piece_keeps_one():
    sdf = np.ones((10, 10, 10), np.float32)
    sdf[1:5, 1:5, 1:5] = -1
    sdf[8, 8, 8] = -1
    kept = largest_piece(sdf, 0.1)
    assert (kept < 0).sum() == 64
    assert kept[8, 8, 8] == pytest.approx(0.1)


def test_euclidean_keeps_the_zero_level():
    axis = np.linspace(-1, 1, 48)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    exact = (np.sqrt(x**2 + y**2 + z**2) - 0.6).astype(np.float32)
    cell = 2 / 47
    fixed = euclidean(np.clip(exact * 1.0, -0.02, 0.02).astype(np.float32), cell)
    assert np.array_equal(fixed < 0, exact < 0)
    assert np.abs(fixed - exact).max() < 1.5 * cell


def test_the_unit_ball_is_round_the_person(hull):
    """The balls of the person lie within the grid's ball, and fill most of it."""
    assert isinstance(hull.normalization, Normalization)
    reach = max(
        np.linalg.norm(hull.normalization.to_unit(np.asarray(center, np.float64)[None])[0])
        + radius / hull.normalization.radius
        for center, radius in made_up.BALLS
    )
    assert 0.5 < reach < 1.1
