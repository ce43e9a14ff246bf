"""What the capture's pipeline promises about files and errors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh

from toonify3d.capture import pipeline
from toonify3d.capture.align import camera_yaw
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


def looking(targets):
    """Cameras at ``(x, 0, 0)`` or anywhere that look at the targets, upright."""
    cameras = []
    for center, target in targets:
        forward = np.subtract(target, center) / np.linalg.norm(np.subtract(target, center))
        right = np.cross(forward, (0, 0, 1.0))
        right /= np.linalg.norm(right)
        c2w = np.eye(4)
        c2w[:3] = np.stack([right, np.cross(forward, right), forward, center], axis=1)
        cameras.append(Camera(np.array([[500.0, 0, 135], [0, 500, 180], [0, 0, 1]]), c2w, 270, 360))
    return cameras


def solved_with(cameras, size=(360, 270, 3)):
    empty = np.zeros((0, 3))
    images = [np.zeros(size, np.uint8)] * len(cameras)
    return SolvedCameras(
        cameras, list(range(len(cameras))), images, empty, empty.astype(np.uint8), 0.3, {"k": 0.0}
    )


def test_a_camera_that_goes_round_nothing_is_no_capture(wall_folder, tmp_path, monkeypatch):
    walking = looking([((0.1 * i, 0, 0), (0.1 * i + 0.01 * (-1) ** i, 5, 0)) for i in range(14)])
    monkeypatch.setattr(pipeline, "solve_cameras", lambda *_, **__: solved_with(walking))
    monkeypatch.setattr(pipeline, "_find_faces", lambda images, _: [None] * len(images))
    with pytest.raises(InputError, match="person") as caught:
        pipeline.run_capture(
            wall_folder, tmp_path / "out", CaptureSettings(), "cpu", SilentProgress()
        )
    assert caught.value.code == "no_person"
    assert not (tmp_path / "out" / "cameras.json").exists()


@pytest.mark.parametrize(("front", "looked_at"), [(0, 60), (7, 60), (None, 24)])
def test_faces_are_looked_for_everywhere_only_where_there_are_some(front, looked_at, monkeypatch):
    """``front``: the frame round which five frames show a face."""
    seen = []

    class Landmarker:
        def detect(self, image):
            index = int(image[0, 0, 0])
            seen.append(index)
            shows = front is not None and abs(index - front) <= 2
            return FaceLandmarks(np.zeros((478, 3)), 0.9, 8, 8) if shows else None

        def close(self):
            pass

    monkeypatch.setattr(pipeline, "FaceLandmarker", Landmarker)
    monkeypatch.setattr(pipeline, "circles_something", lambda _: True)
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(60)]
    faces = pipeline._find_faces(images, SilentProgress())
    assert len(seen) == len(set(seen)) == looked_at and len(faces) == 60
    expected = [] if front is None else [i for i in range(60) if abs(i - front) <= 2]
    assert [i for i, face in enumerate(faces) if face is not None] == expected


def test_a_head_without_a_face_gets_the_front_that_the_user_gives():
    angles = np.radians(np.arange(0, 360, 20))
    ring = looking([((3 * np.sin(a), -3 * np.cos(a), 0.2), (0, 0, 0)) for a in angles])
    solved, nobody, progress = solved_with(ring), [None] * len(ring), SilentProgress()
    sources = [10 * i for i in range(len(ring))]
    found = pipeline._align(solved, nobody, sources, CaptureSettings(), progress)
    assert "capture.front_frame" in progress.warnings[0]
    yaw = [camera_yaw(camera.transformed(found.similarity)) for camera in ring]
    assert abs(yaw[0]) < 1e-6
    settings = CaptureSettings(front_frame=40, front_yaw=5.0)
    progress = SilentProgress()
    found = pipeline._align(solved, nobody, sources, settings, progress)
    yaw = [camera_yaw(camera.transformed(found.similarity)) for camera in ring]
    # Frame 40 is the fifth camera, 80 degrees to the person's left; then 5 degrees on.
    np.testing.assert_allclose(np.degrees(yaw[4]), -5.0, atol=1e-6)
    np.testing.assert_allclose(np.degrees(yaw[0]), -85.0, atol=1e-6)
    assert not any("front_frame" in note for note in progress.warnings)


def test_a_front_frame_without_a_camera_is_replaced_and_said():
    ring = looking([((np.sin(a), -np.cos(a), 0), (0, 0, 0)) for a in np.radians((0, 120, 240))])
    progress = SilentProgress()
    found = pipeline._align(
        solved_with(ring), [None] * 3, [0, 10, 20], CaptureSettings(front_frame=12), progress
    )
    assert abs(camera_yaw(ring[1].transformed(found.similarity))) < 1e-6
    assert any("frame 10 is the front" in note for note in progress.warnings)


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
