"""Triangulation and alignment on made-up heads with known cameras."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from toonify3d.capture import landmarks as lm
from toonify3d.capture.align import (
    align,
    align_without_face,
    camera_yaw,
    gravity,
    look_at_point,
    triangulate,
    triangulate_face,
)
from toonify3d.capture.landmarks import FaceLandmarks
from toonify3d.scene import Camera

WIDTH, HEIGHT = 420, 560
K = np.array([[620.0, 0, 210.0], [0, 620.0, 280.0], [0, 0, 1]])


def made_up_face(seed: int = 0) -> np.ndarray:
    """478 mirror-symmetric points (metres, face along -Y, Z up) with plausible eyes and chin."""
    rng = np.random.default_rng(seed)
    angle, height = rng.uniform(-1.2, 1.2, 478), rng.uniform(-0.08, 0.09, 478)
    points = np.stack([0.07 * np.sin(angle), -0.08 * np.cos(angle), height], axis=1)
    points[248:468, 0] = np.abs(points[248:468, 0])
    left = [*range(248, 468), *lm.LEFT_IRIS]
    points[lm.LEFT_EYE[0]] = (0.045, -0.06, 0.03)
    points[[*lm.LEFT_IRIS]] = (0.0315, -0.07, 0.03)
    points[[lm.LEFT_IRIS[i] for i in (1, 2, 3, 4)], :] += rng.normal(0, 0.003, (4, 3))
    points[lm.MIRROR[left]] = points[left] * (-1, 1, 1)
    points[list(lm.MIDLINE), 0] = 0.0
    points[lm.CHIN] = (0.0, -0.075, -0.085)
    points[lm.FOREHEAD] = (0.0, -0.075, 0.095)
    points[list(lm.NOSE_RIDGE)] = [(0.0, -0.09 - 0.003 * i, 0.03 - 0.01 * i) for i in range(7)]
    return points


def looking_at(center: np.ndarray, target: np.ndarray, roll: float = 0.0) -> Camera:
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    axes = np.stack([right, down, forward], axis=1) @ Rotation.from_euler("z", roll).as_matrix()
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = axes, center
    return Camera(K, c2w, WIDTH, HEIGHT)


def orbit(count: int = 48, roll: float = 0.0, sweep: float = 360.0) -> list[Camera]:
    """Cameras round the origin starting in front, to the person's left, bobbing up and down."""
    cameras = []
    for index in range(count):
        yaw = np.radians(sweep * index / count)
        center = np.array([np.sin(yaw), -np.cos(yaw), 0.2 * np.sin(3 * yaw) + 0.1])
        cameras.append(looking_at(center, np.array([0.0, 0.02, 0.0]), roll))
    return cameras


def wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def detections(
    cameras: list[Camera], points: np.ndarray, noise: float = 0.0, seed: int = 0
) -> list[FaceLandmarks | None]:
    """What a detector would say: nothing from beyond 75 degrees, depth as FaceMesh gives it."""
    rng = np.random.default_rng(seed)
    out: list[FaceLandmarks | None] = []
    for camera in cameras:
        offset = camera.center - points.mean(0)
        if abs(np.arctan2(offset[0], -offset[1])) > np.radians(75):
            out.append(None)
            continue
        place, depth = camera.project(points)
        z = (depth - depth.mean()) * camera.K[0, 0] / depth.mean()
        image = np.concatenate([place, z[:, None]], axis=1)
        image[:, :2] += rng.normal(0, noise, (478, 2))
        out.append(FaceLandmarks(image, 0.9, WIDTH, HEIGHT))
    return out


def random_similarity(rng: np.random.Generator) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = rng.uniform(0.05, 20.0) * Rotation.random(random_state=rng).as_matrix()
    out[:3, 3] = rng.normal(0, 5, 3)
    return out


def test_exact_observations_give_exact_points():
    points, cameras = made_up_face(), orbit(12)
    image = np.stack([camera.project(points)[0] for camera in cameras])
    found = triangulate(cameras, image, np.ones(image.shape[:2]), 1.0)
    np.testing.assert_allclose(found, points, atol=1e-7)


def test_wrong_observations_are_outvoted():
    points, cameras = made_up_face(), orbit(16)
    image = np.stack([camera.project(points)[0] for camera in cameras])
    rng = np.random.default_rng(1)
    image += rng.normal(0, 0.3, image.shape)
    wrong = rng.random(image.shape[:2]) < 0.2
    image[wrong] += rng.normal(0, 60, (int(wrong.sum()), 2))
    found = triangulate(cameras, image, np.ones(image.shape[:2]), 1.0)
    error = np.linalg.norm(found - points, axis=1)
    assert np.nanmedian(error) < 4e-4 and np.nanpercentile(error, 95) < 2e-3


def test_points_with_two_views_are_unknown():
    points, cameras = made_up_face(), orbit(6)
    image = np.stack([camera.project(points)[0] for camera in cameras])
    weights = np.ones(image.shape[:2])
    weights[2:, 7] = 0.0
    found = triangulate(cameras, image, weights, 1.0)
    assert np.isnan(found[7]).all() and not np.isnan(np.delete(found, 7, axis=0)).any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_alignment_undoes_any_similarity(seed):
    """The aligned world does not depend on the world that structure from motion happened to use."""
    rng = np.random.default_rng(seed)
    face, cameras = made_up_face(seed), orbit()
    faces = detections(cameras, face, noise=0.4, seed=seed)
    other = random_similarity(rng)
    found = align([camera.transformed(other) for camera in cameras], faces, 0.063)
    assert found is not None and found.landmarks is not None
    back = found.similarity @ other  # from the true head to the aligned one
    scale = np.cbrt(np.linalg.det(back[:3, :3]))
    assert scale == pytest.approx(1.0, abs=0.02)
    turn = Rotation.from_matrix(back[:3, :3] / scale).magnitude()
    assert np.degrees(turn) < 1.5
    true = face @ back[:3, :3].T + back[:3, 3]
    assert np.nanmedian(np.linalg.norm(found.landmarks - true, axis=1)) < 1e-3


def test_the_aligned_world_is_the_contract():
    cameras, face = orbit(), made_up_face()
    found = align(cameras, detections(cameras, face, 0.3), 0.07)
    assert found is not None and found.landmarks is not None
    eyes = found.landmarks[[lm.RIGHT_IRIS[0], lm.LEFT_IRIS[0]]]
    assert np.linalg.norm(eyes[1] - eyes[0]) == pytest.approx(0.07, rel=1e-6)
    assert eyes[1, 0] > 0 > eyes[0, 0]  # the person's left is +X
    nose = found.landmarks[lm.NOSE_TIP]
    assert nose[1] < eyes[0, 1] < 0  # the face looks along -Y
    assert found.landmarks[lm.FOREHEAD, 2] > eyes[0, 2] > found.landmarks[lm.CHIN, 2] > 0
    moved = [camera.transformed(found.similarity) for camera in cameras]
    yaw = np.array([camera_yaw(camera) for camera in moved])
    expected = np.radians(360 * np.arange(48) / 48)
    assert np.degrees(np.abs(wrapped(yaw - expected)).max()) < 3.0


@pytest.mark.parametrize(("offset", "sign"), [((1.0, 0.0, 0), 1), ((-1.0, 0.0, 0), -1)])
def test_yaw_is_positive_on_the_persons_left(offset, sign):
    camera = looking_at(np.array(offset), np.zeros(3))
    assert camera_yaw(camera) == pytest.approx(sign * np.pi / 2)
    assert camera_yaw(looking_at(np.array([0, -1.0, 0]), np.zeros(3))) == pytest.approx(0.0)


def test_false_faces_in_some_frames_do_no_harm():
    cameras, face = orbit(), made_up_face()
    faces = detections(cameras, face, 0.4)
    junk = np.random.default_rng(3).uniform(50, 400, (478, 3))
    for index in (3, 40):
        faces[index] = FaceLandmarks(junk, 0.5, WIDTH, HEIGHT)
    found = align(cameras, faces)
    assert found is not None
    turn = Rotation.from_matrix(found.similarity[:3, :3] / np.cbrt(np.linalg.det(
        found.similarity[:3, :3]))).magnitude()  # fmt: skip
    assert np.degrees(turn) < 1.5


def test_no_agreement_is_no_face():
    cameras = orbit()
    rng = np.random.default_rng(5)
    faces: list[FaceLandmarks | None] = [None] * len(cameras)
    for index in range(8):
        points = np.concatenate([rng.uniform(0, 400, (478, 2)), np.zeros((478, 1))], axis=1)
        points[[lm.RIGHT_EYE[0], lm.LEFT_EYE[0]], 0] = (100, 200)
        faces[index] = FaceLandmarks(points, 0.5, WIDTH, HEIGHT)
    assert triangulate_face(cameras, faces)[0] is None
    assert align(cameras, faces) is None
    assert align(cameras, [None] * len(cameras)) is None


def test_phone_held_sideways_lets_the_face_decide():
    cameras = orbit(roll=np.pi / 2)
    upright = made_up_face()
    found = align(cameras, detections(cameras, upright, 0.2))
    assert found is not None and found.notes
    back = found.similarity[:3, :3] / np.cbrt(np.linalg.det(found.similarity[:3, :3]))
    assert np.degrees(Rotation.from_matrix(back).magnitude()) < 6.0


@settings(max_examples=25, deadline=None)
@given(st.floats(90.0, 360.0), st.integers(0, 1000))
def test_gravity_from_cameras_held_upright(sweep, seed):
    assert _gravity_error(orbit(40, 0.0, sweep), seed) < 1.0


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.2, 0.2), st.integers(0, 1000))
def test_constant_roll_cancels_over_a_full_turn(roll, seed):
    assert _gravity_error(orbit(40, roll), seed) < 3.0


def _gravity_error(cameras: list[Camera], seed: int) -> float:
    other = random_similarity(np.random.default_rng(seed))
    up = gravity([camera.transformed(other) for camera in cameras])
    true = other[:3, 2] / np.linalg.norm(other[:3, 2])
    return float(np.degrees(np.arccos(np.clip(up @ true, -1, 1))))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_look_at_point(seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(0, 1, 3)
    centers = target + rng.normal(0, 2, (10, 3))
    flat = np.linalg.norm((centers - target)[:, :2], axis=1)
    assume(flat.min() > 0.1)
    np.testing.assert_allclose(
        look_at_point([looking_at(center, target) for center in centers]), target, atol=1e-6
    )


def test_without_a_face_the_first_frame_is_the_front():
    other = random_similarity(np.random.default_rng(2))
    cameras = [camera.transformed(other) for camera in orbit()]
    found = align_without_face(cameras)
    assert found.landmarks is None and len(found.notes) == 1
    moved = [camera.transformed(found.similarity) for camera in cameras]
    assert abs(camera_yaw(moved[0])) < 0.05
    assert camera_yaw(moved[12]) == pytest.approx(np.pi / 2, abs=0.1)
    assert np.median([np.linalg.norm(camera.center) for camera in moved]) == pytest.approx(
        1, abs=0.2
    )
