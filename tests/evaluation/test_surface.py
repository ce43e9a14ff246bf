"""Surface distances and image metrics on cases with known answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from toonify3d.errors import InputError
from toonify3d.evaluation.images import foreground_psnr, mask_iou
from toonify3d.evaluation.surface import evaluate_surface, sample_surface, umeyama
from toonify3d.scene import Camera, Frame, Normalization, Scene, SurfaceMesh


def camera_at(center):
    forward = -np.asarray(center, dtype=float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    c2w[:3, 3] = center
    return Camera(np.array([[90.0, 0, 50], [0, 90, 50], [0, 0, 1]]), c2w, 100, 100)


@pytest.fixture
def case(tmp_path):
    """A unit ball seen from a ring; the job's world is turned, moved and half as large."""
    ball = trimesh.creation.icosphere(4)
    np.savez(tmp_path / "mesh.npz", v=ball.vertices, f=ball.faces)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    cameras = [camera_at([4 * np.sin(a), -4 * np.cos(a), 0.5 * np.sin(3 * a)]) for a in angles]
    blender = [(c.c2w @ np.diag([1.0, -1, -1, 1])).tolist() for c in cameras]
    (tmp_path / "cameras.json").write_text(json.dumps({"c2w_blender": blender}))
    move = np.eye(4)
    turn = 0.3
    move[:3, :3] = 0.5 * np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    move[:3, 3] = [0.2, -0.1, 0.4]
    # Frames out of order and not all of them: source_index is the link.
    frames = [
        Frame(f"{k:04d}", k, cameras[k].transformed(move), float(angles[k]))
        for k in (7, 2, 0, 10, 5, 3)
    ]
    scene = Scene(Path("nowhere"), frames, Normalization(move[:3, 3], 0.6))
    return ball, move, scene, tmp_path


def moved(vertices, move):
    return vertices @ move[:3, :3].T + move[:3, 3]


def test_same_surface_has_no_distance(case):
    ball, move, scene, folder = case
    mesh = SurfaceMesh(moved(ball.vertices, move), np.asarray(ball.faces))
    out = evaluate_surface(mesh, scene, folder, 4000)
    assert out["scale"] == pytest.approx(2.0, rel=1e-6)
    assert out["camera_rms"] < 1e-6
    for way in ("result_to_truth", "truth_to_result"):
        assert out[way]["all"]["p95"] < 1e-3
        assert out[way]["all"]["points"] == 4000


def test_inflated_surface_is_as_far_as_it_should_be(case):
    ball, move, scene, folder = case
    mesh = SurfaceMesh(moved(ball.vertices * 1.02, move), np.asarray(ball.faces))
    out = evaluate_surface(mesh, scene, folder, 4000)
    expected = 100 * 0.02 / np.linalg.norm(np.ptp(ball.vertices, axis=0))
    for way in ("result_to_truth", "truth_to_result"):
        for part in ("all", "visible", "sides"):
            assert out[way][part]["median"] == pytest.approx(expected, rel=0.02)
    sides = out["truth_to_result"]["sides"]["points"]
    assert 0 < sides < out["truth_to_result"]["visible"]["points"] < 4000


def test_a_head_put_too_low_by_its_cameras_is_told_from_a_wrong_shape(case):
    ball, move, scene, folder = case
    shape = ball.vertices * [1.0, 0.8, 1.2]
    np.savez(folder / "mesh.npz", v=shape, f=ball.faces)
    low = shape + np.array([0.004, 0.0, -0.01])
    out = evaluate_surface(SurfaceMesh(moved(low, move), np.asarray(ball.faces)), scene, folder)
    fitted = out["truth_to_fitted"]
    assert out["truth_to_result"]["visible"]["median"] > 0.05
    assert fitted["visible"]["p95"] < 1e-3
    assert fitted["shift"] == pytest.approx(np.hypot(0.004, 0.01), rel=0.02)
    swollen = evaluate_surface(
        SurfaceMesh(moved(1.01 * low, move), np.asarray(ball.faces)), scene, folder
    )
    assert swollen["truth_to_fitted"]["visible"]["median"] > 0.15


def test_missing_part_shows_only_from_the_truth(case):
    ball, move, scene, folder = case
    keep = ball.triangles_center[:, 0] < 0.5
    mesh = SurfaceMesh(moved(ball.vertices, move), np.asarray(ball.faces)[keep])
    out = evaluate_surface(mesh, scene, folder, 4000)
    assert out["result_to_truth"]["all"]["p95"] < 1e-3
    assert out["truth_to_result"]["all"]["p95"] > 5


def test_missing_ground_truth_is_explained(case, tmp_path):
    ball, _, scene, folder = case
    mesh = SurfaceMesh(np.asarray(ball.vertices), np.asarray(ball.faces))
    with pytest.raises(InputError, match=r"mesh\.npz is missing"):
        evaluate_surface(mesh, scene, folder / "none")
    few = Scene(scene.root, scene.frames[:2], scene.normalization)
    with pytest.raises(InputError, match="Fewer than three"):
        evaluate_surface(mesh, few, folder)


def test_umeyama_does_not_mirror():
    generator = np.random.default_rng(3)
    points = generator.normal(size=(20, 3))
    mirrored = points * [1, 1, -1]
    assert np.linalg.det(umeyama(points, mirrored)[:3, :3]) > 0


def test_samples_are_uniform_by_area():
    v = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [5, 3, 0]])
    points = sample_surface(v, np.array([[0, 1, 2], [3, 4, 5]]), 5000)
    assert (points[:, 0] > 4).mean() == pytest.approx(0.9, abs=0.001)
    first = points[points[:, 0] < 4]
    assert np.abs(first.mean(axis=0) - [1 / 3, 1 / 3, 0]).max() < 0.03


def test_psnr_counts_only_the_foreground():
    reference = np.full((10, 10, 3), 100, dtype=np.uint8)
    image = reference.copy()
    image[:5] = 0
    image[5:] = 110
    mask = np.zeros((10, 10), dtype=np.uint8)
    mask[5:] = 255
    assert foreground_psnr(image, reference, mask) == pytest.approx(20 * np.log10(25.5))
    assert foreground_psnr(reference, reference) == float("inf")
    with pytest.raises(ValueError, match="empty"):
        foreground_psnr(image, reference, mask * 0)


def test_mask_iou():
    a = np.zeros((4, 4), dtype=bool)
    b = a.copy()
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    assert mask_iou(a, b.astype(np.uint8) * 255) == pytest.approx(1 / 3)
    assert mask_iou(a & False, a & False) == 1.0
