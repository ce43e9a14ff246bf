"""Structure from motion on a made-up room, and the geometry round it."""

from __future__ import annotations

import cv2
import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from toonify3d.capture import cameras as module
from toonify3d.capture.cameras import candidate_pairs, point_colors, solve_cameras, undistort
from toonify3d.capture.settings import CaptureSettings
from toonify3d.errors import CancelledError, InputError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera

WIDTH, HEIGHT, FOCAL = 320, 240, 330.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 400), st.booleans())
def test_pairs_are_valid_and_close_the_circle(count, ordered):
    pairs = candidate_pairs(count, ordered)
    assert len(set(pairs)) == len(pairs)
    assert all(0 <= i < j < count for i, j in pairs)
    assert (0, count - 1) in pairs
    if ordered:
        assert {(i, i + 1) for i in range(count - 1)} <= set(pairs)
        assert len(pairs) <= 10 * count + 200


def test_few_unordered_pictures_meet_each_other():
    assert len(candidate_pairs(30, ordered=False)) == 30 * 29 // 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_rigid_inverse_is_colmaps_convention(seed):
    rng = np.random.default_rng(seed)
    w2c = np.eye(4)
    w2c[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    w2c[:3, 3] = rng.normal(0, 3, 3)
    camera = Camera(K, module._inverse(w2c), WIDTH, HEIGHT)
    np.testing.assert_allclose(camera.w2c, w2c, atol=1e-12)
    np.testing.assert_allclose(camera.c2w @ w2c, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("k", [-0.15, 0.08])
def test_undistortion_moves_points_where_the_lens_model_says(k):
    camera = Camera(K, np.eye(4), WIDTH, HEIGHT)
    true = np.array([(60.5, 50.5), (160.5, 120.5), (250.5, 190.5), (40.5, 200.5)])
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    for x, y in (true - K[:2, 2]) / FOCAL:
        factor = 1 + k * (x * x + y * y)
        u, v = FOCAL * x * factor + WIDTH / 2, FOCAL * y * factor + HEIGHT / 2
        image += 250 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 8)[..., None]
    plain = undistort(image.astype(np.uint8), camera, k)[..., 0].astype(np.float64)
    for x, y in true:
        near = (np.abs(columns - x) < 8) & (np.abs(rows - y) < 8)
        weight = plain * near
        assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.15)
        assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.15)


def test_negligible_distortion_leaves_the_picture_alone():
    camera = Camera(K, np.eye(4), WIDTH, HEIGHT)
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    assert undistort(image, camera, 1e-4) is image


def test_point_colors_come_from_where_points_are_seen():
    camera = Camera(K, np.eye(4), WIDTH, HEIGHT)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, WIDTH // 2 :] = (10, 200, 30)
    points = np.array([[0.3, 0.0, 2.0], [-0.3, 0.0, 2.0], [0.0, 0.0, -2.0]])
    colors = point_colors(points, [camera], [image])
    assert colors.tolist() == [[10, 200, 30], [0, 0, 0], [128, 128, 128]]


# -- a room with a textured box, drawn by homographies ----------------------------------------


def _quads() -> list[tuple[np.ndarray, np.ndarray]]:
    """Corners (4, 3) and texture of the room's walls and of boxes in it, far to near."""
    rng = np.random.default_rng(0)

    def texture() -> np.ndarray:
        coarse = cv2.resize(rng.integers(0, 255, (12, 12, 3), np.uint8), (256, 256),
                            interpolation=cv2.INTER_NEAREST)  # fmt: skip
        fine = cv2.resize(rng.integers(0, 255, (64, 64, 3), np.uint8), (256, 256))
        return cv2.addWeighted(coarse, 0.5, fine, 0.5, 0)

    def upright(a, b, low, high):
        return np.array([(*a, high), (*b, high), (*b, low), (*a, low)], float)

    walls = [
        upright((-3, 3), (3, 3), -1.5, 1.5),
        upright((-3, -3), (-3, 3), -1.5, 1.5),
        upright((3, 3), (3, -3), -1.5, 1.5),
        np.array([(-3, 3, -1.5), (3, 3, -1.5), (3, -3, -1.5), (-3, -3, -1.5)], float),
    ]
    boxes = [
        upright((-0.9, 1.2), (-0.3, 1.0), -1.0, 0.6),
        upright((0.2, 0.6), (0.9, 0.9), -1.0, 0.4),
        upright((-0.3, 0.1), (0.2, 0.0), -0.6, 0.5),
    ]
    return [(quad, texture()) for quad in walls + boxes]


def _draw(camera: Camera, quads: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for corners, texture in quads:
        size = texture.shape[0]
        # Plane to image: u * edge1 + v * edge2 + origin, projected.
        basis = np.stack([corners[1] - corners[0], corners[3] - corners[0], corners[0]], axis=1)
        local = camera.w2c[:3, :3] @ basis
        local[:, 2] += camera.w2c[:3, 3]
        matrix = camera.K @ local @ np.diag([1 / size, 1 / size, 1.0])
        rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
        place = np.linalg.inv(matrix) @ np.stack(
            [columns.ravel(), rows.ravel(), np.ones(rows.size)]
        )
        u, v = place[0] / place[2], place[1] / place[2]
        front = (matrix[2] @ np.stack([u, v, np.ones_like(u)])) > 0.05
        seen = ((u >= 0) & (v >= 0) & (u < size) & (v < size) & front).reshape(HEIGHT, WIDTH)
        maps = [(m.reshape(HEIGHT, WIDTH) - 0.5).astype(np.float32) for m in (u, v)]
        drawn = cv2.remap(texture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image[seen] = drawn[seen]
    return image


def _arc(count: int) -> list[Camera]:
    cameras = []
    for angle in np.radians(np.linspace(-50, 50, count)):
        center = np.array(
            [1.8 * np.sin(angle), -1.8 * np.cos(angle), 0.2 + 0.1 * np.sin(5 * angle)]
        )
        forward = np.array([0.0, 0.3, -0.1]) - center
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0, 0, 1.0))
        right /= np.linalg.norm(right)
        c2w = np.eye(4)
        c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        c2w[:3, 3] = center
        cameras.append(Camera(K, c2w, WIDTH, HEIGHT))
    return cameras


@pytest.fixture(scope="module")
def room() -> tuple[list[Camera], list[np.ndarray]]:
    cameras, quads = _arc(16), _quads()
    return cameras, [_draw(camera, quads) for camera in cameras]


def test_the_focal_prior_reaches_colmap(room, tmp_path, monkeypatch):
    def stop(work, *_):
        with pycolmap.Database.open(work.database) as database:
            (lens,) = database.read_all_cameras()
        raise InputError(f"{lens.has_prior_focal_length} {list(lens.params)}")

    monkeypatch.setattr(module, "match", stop)
    arguments = (room[1][:2], tmp_path / "sfm", CaptureSettings(max_features=400))
    with pytest.raises(InputError, match=r"True \[400\.0, 160\.0, 120\.0, 0\.0\]"):
        solve_cameras(*arguments, SilentProgress(), focal=1.25)
    with pytest.raises(InputError, match="False"):
        solve_cameras(*arguments, SilentProgress())


def test_cameras_of_a_room(room, tmp_path):
    true, images = room
    progress = SilentProgress()
    solved = solve_cameras(images, tmp_path / "sfm", CaptureSettings(max_features=1500), progress)
    assert solved.kept == list(range(16)) and not progress.warnings
    assert not (tmp_path / "sfm").exists()
    assert solved.error < 0.6 and len(solved.points) == len(solved.colors) > 150
    assert solved.cameras[0].K[0, 0] == pytest.approx(FOCAL, rel=0.05)
    ours = np.stack([camera.center for camera in solved.cameras])
    theirs = np.stack([camera.center for camera in true])
    a, b = ours - ours.mean(0), theirs - theirs.mean(0)
    turn, _ = Rotation.align_vectors(b, a / np.linalg.norm(a) * np.linalg.norm(b))
    scale = np.linalg.norm(b) / np.linalg.norm(a)
    error = np.linalg.norm(scale * turn.apply(a) - b, axis=1)
    assert np.median(error) < 0.01 * 1.8
    for camera, reference in zip(solved.cameras, true, strict=True):
        apart = (
            Rotation.from_matrix(reference.c2w[:3, :3].T)
            * turn
            * (Rotation.from_matrix(camera.c2w[:3, :3]))
        )
        assert np.degrees(apart.magnitude()) < 1.0


def test_plain_pictures_are_refused_with_the_reason(tmp_path):
    images = [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)] * 13
    with pytest.raises(InputError, match="too little texture") as caught:
        solve_cameras(images, tmp_path / "sfm", CaptureSettings(), SilentProgress())
    assert caught.value.code == "plain_background"
    assert not (tmp_path / "sfm").exists()


def test_unrelated_pictures_are_refused_with_numbers(tmp_path):
    rng = np.random.default_rng(0)
    images = [
        cv2.resize(rng.integers(0, 255, (60, 80, 3), np.uint8), (WIDTH, HEIGHT)) for _ in range(12)
    ]
    with pytest.raises(InputError, match="of 12 frames") as caught:
        settings_ = CaptureSettings(max_features=500)
        solve_cameras(images, tmp_path / "sfm", settings_, SilentProgress())
    assert caught.value.code == "cameras_failed"


def test_cancelling_stops_and_cleans_up(room, tmp_path):
    class Cancelling(SilentProgress):
        def update(self, fraction: float, message: str = "") -> None:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        solve_cameras(room[1], tmp_path / "sfm", CaptureSettings(), Cancelling())
    assert not (tmp_path / "sfm").exists()
