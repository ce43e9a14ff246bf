"""What the capture's pipeline promises about files and errors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from toonify3d.capture import pipeline
from toonify3d.capture.cameras import SolvedCameras
from toonify3d.capture.landmarks import FaceLandmarks
from toonify3d.capture.settings import CaptureSettings
from toonify3d.errors import CancelledError, InputError
from toonify3d.files import write_image
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera


@pytest.fixture
def wall_folder(tmp_path):
    """A textured wall that pans by; nobody in it."""
    coarse = np.random.default_rng(0).integers(0, 255, (45, 150, 3), np.uint8)
    picture = cv2.resize(coarse, (1200, 360))
    for index in range(14):
        write_image(tmp_path / "wall" / f"{index}.png", picture[:, 9 * index : 9 * index + 270])
    return tmp_path / "wall"


def test_nobody_in_the_video_is_said_before_the_long_work(wall_folder, tmp_path, monkeypatch):
    def too_late(*_args, **_kwargs):
        raise AssertionError("structure from motion was started")

    monkeypatch.setattr(pipeline, "solve_cameras", too_late)
    with pytest.raises(InputError, match="person") as caught:
        pipeline.run_capture(
            wall_folder, tmp_path / "out", CaptureSettings(), "cpu", SilentProgress()
        )
    assert caught.value.code == "no_person"
    assert not (tmp_path / "out" / "cameras.json").exists()


def test_a_new_run_takes_away_the_old_result_first(wall_folder, tmp_path, monkeypatch):
    root = tmp_path / "out"
    write_image(root / "frames" / "9999.png", np.zeros((4, 4, 3), np.uint8))
    (root / "cameras.json").write_text("{}")

    def cancelled(*_args, **_kwargs):
        raise CancelledError("stop")

    monkeypatch.setattr(pipeline, "_find_faces", cancelled)
    with pytest.raises(CancelledError):
        pipeline.run_capture(wall_folder, root, CaptureSettings(), "cpu", SilentProgress())
    assert not (root / "cameras.json").exists() and not (root / "frames").exists()


@pytest.mark.parametrize("k", [-0.05, 0.0, 0.1])
def test_landmarks_are_undistorted_as_the_image_is(k):
    K = np.array([[500.0, 0, 200], [0, 500.0, 300], [0, 0, 1]])
    camera = Camera(K, np.eye(4), 400, 600)
    plain = np.random.default_rng(0).uniform(0, 1, (478, 2)) * (400, 600)
    normal = (plain - K[:2, 2]) / 500.0
    distorted = normal * (1 + k * (normal**2).sum(1, keepdims=True)) * 500.0 + K[:2, 2]
    face = FaceLandmarks(np.concatenate([distorted, np.ones((478, 1))], axis=1), 0.9, 400, 600)
    empty = np.zeros((0, 3))
    solved = SolvedCameras([camera], [0], [], empty, empty.astype(np.uint8), 0.0, {"k": k})
    found = pipeline._undistorted(face, solved)
    assert found is not None
    np.testing.assert_allclose(found.points[:, :2], plain, atol=0.01)
    assert pipeline._undistorted(None, solved) is None


def test_sparse_points_file_can_be_read_back(tmp_path):
    points = np.random.default_rng(0).normal(0, 1, (50, 3))
    colors = np.random.default_rng(1).integers(0, 255, (50, 3), np.uint8)
    path = tmp_path / "sparse.ply"
    path.write_bytes(pipeline.point_cloud_ply(points, colors))
    cloud = trimesh.load(path)
    np.testing.assert_allclose(cloud.vertices, points, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], colors)


@pytest.mark.parametrize(("low", "expected"), [(-0.4, -0.22), (-0.18, -0.18), (0.1, -0.12)])
def test_chest_plane_rises_to_what_the_frames_show(low, expected):
    """Cameras a metre away whose lower edge looks at height ``low`` on the axis."""
    height = 400
    intrinsics = np.array([[500.0, 0, 150], [0, 500, 200], [0, 0, 1]])
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        back = np.array([np.cos(angle), np.sin(angle), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        c2w = np.eye(4)
        c2w[:3, :3] = np.stack([np.cross(down, -back), down, -back], axis=1)
        c2w[:3, 3] = back + np.array([0, 0, low + (height - 200) / 500])
        cameras.append(Camera(intrinsics, c2w, 300, height))
    assert pipeline.chest_plane(cameras) == pytest.approx(expected, abs=0.0101)
