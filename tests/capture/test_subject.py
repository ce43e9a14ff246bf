"""Movement of the person: made-up features with known cameras, and the demo with a nodding head."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from toonify3d.capture import subject
from toonify3d.capture.findings import EPIPOLAR, subject_finding
from toonify3d.capture.segmentation import PersonSegmenter
from toonify3d.capture.subject import SubjectMotion, epipolar_motion
from toonify3d.capture.video import decode
from toonify3d.scene import Camera

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo" / "capture.mp4"
K = np.array([[600.0, 0, 240], [0, 600.0, 320], [0, 0, 1]])


def camera(degrees: float) -> Camera:
    angle = np.radians(degrees)
    center = np.array([np.sin(angle), -np.cos(angle), 0.1])
    forward = -center / np.linalg.norm(center)
    right = np.cross(forward, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(forward, right), forward, center], axis=1)
    return Camera(K, c2w, 480, 640)


def seen(
    view: Camera, moved: np.ndarray, noise: int, turned: tuple[float, float, float] = (0, 0, 0)
) -> subject._Features:
    """Forty points of a head that may move and eighty of a room, each with its own descriptor."""
    rng = np.random.default_rng(3)
    head, room = rng.normal(0, 0.06, (40, 3)), rng.uniform((-1, 2, -1), (1, 4, 1), (80, 3))
    head = Rotation.from_rotvec(turned).apply(head)
    descriptors = rng.normal(0, 1, (120, 128)).astype(np.float32)
    points, _ = view.project(np.concatenate([head + moved, room]))
    points += np.random.default_rng(noise).normal(0, 0.2, points.shape)
    person = np.arange(120) < 40
    blank = np.zeros((640, 480), np.uint8)
    return subject._Features(blank, points, descriptors, person, ~person)


VIEWS = [camera(degrees) for degrees in (-8, 0, 8)]


def between(moves: list[tuple[float, float, float]]) -> tuple[float, float]:
    parts = [
        seen(view, np.array(m, float), i)
        for i, (view, m) in enumerate(zip(VIEWS, moves, strict=True))
    ]
    found = subject._triple_distance(parts[0], parts[1], parts[2], VIEWS)
    assert found is not None
    return found


@pytest.mark.parametrize("shift", [(0.01, 0, 0), (0, 0, 0.01)])
def test_known_cameras_show_movement_in_every_direction_across(shift):
    # A centimetre at a metre is 6 pixels of 640.
    person, room = between([(0, 0, 0), shift, (0, 0, 0)])
    assert person == pytest.approx(1000 * 6 / 640, rel=0.15)
    assert room < 0.8


def test_known_cameras_show_that_everything_is_at_rest():
    # 0.2 pixels of noise are 0.3 thousandths a feature; what forty have in common is less.
    assert between([(0, 0, 0)] * 3)[0] < 0.2


def test_a_slow_drift_shows_across_the_lines_of_the_outer_pictures():
    # Half a centimetre up and one to the side from first to last: the middle one lies between.
    person, _ = between([(-0.005, 0, -0.0025), (0, 0, 0), (0.005, 0, 0.0025)])
    assert person > 2.0


def test_epipolar_lines_show_movement_across_them():
    def distance(turned: tuple[float, float, float]) -> tuple[float, float]:
        one = seen(VIEWS[1], np.zeros(3), 0)
        two = seen(VIEWS[2], np.zeros(3), 1, turned)
        found = subject._line_distance(one.points, two.points, one.person, one.room, 640)
        assert found is not None
        return found

    still = distance((0, 0, 0))
    assert max(still) < 0.5
    assert distance((0.1, 0.06, 0))[0] > 4 * still[0]


def test_a_camera_at_rest_claims_nothing():
    one, again = seen(VIEWS[1], np.zeros(3), 0), seen(VIEWS[1], np.zeros(3), 1)
    assert subject._line_distance(one.points, again.points, one.person, one.room, 640) is None


def test_too_few_features_claim_nothing():
    few = []
    for index, view in enumerate(VIEWS):
        p = seen(view, np.zeros(3), index)
        few.append(
            subject._Features(p.gray, p.points[38:], p.descriptors[38:], p.person[38:], p.room[38:])
        )
    assert subject._triple_distance(few[0], few[1], few[2], VIEWS) is None
    assert subject._pair_distance(few[0], few[1]) is None
    assert epipolar_motion([np.zeros((80, 60, 3), np.uint8)] * 6, [np.zeros((80, 60))] * 6) is None
    assert subject_finding(None, EPIPOLAR) == []


def test_matches_are_placed_better_than_features_are():
    noise = np.random.default_rng(0).uniform(0, 255, (120, 160)).astype(np.float32)
    one = cv2.GaussianBlur(noise, (0, 0), 2.0)
    two = cv2.warpAffine(one, np.array([[1, 0, 1.3], [0, 1, -0.6]]), (160, 120))
    start = np.array([[40.5, 50.5], [80.5, 60.5], [110.5, 70.5]])
    rough = start + np.array([2.0, 0.2])
    wide = np.stack([one, two]) * 2 - 128
    gray = np.clip(wide, 0, 255).astype(np.uint8)
    better, stayed = subject._refined(gray[0], gray[1], start, rough)
    assert stayed.all()
    assert np.abs(better - start - (1.3, -0.6)).max() < 0.1


def test_findings_need_more_than_the_room_and_more_than_the_limit():
    severity = {
        motion: subject_finding(SubjectMotion(*motion, 8), (1.0, 3.0))[0].severity
        for motion in ((0.9, 0.1), (2.0, 1.0), (2.0, 0.2))
    }
    assert list(severity.values()) == ["ok", "ok", "warning"]


def test_the_demo_holds_still_until_its_head_nods():
    frames = dict(decode(DEMO, 640))
    # Neighbours at 8 places, where the face is seen and behind.
    indices = [i + step for i in range(0, len(frames) - 2, len(frames) // 8) for step in (0, 2)]
    images = [frames[i] for i in indices[:16]]
    with PersonSegmenter() as segmenter:
        masks = [segmenter.probability(image) for image in images]
    still = epipolar_motion(images, masks)
    assert [item.severity for item in subject_finding(still, EPIPOLAR)] == ["ok"]
    nodding, moved_masks = [], []
    for place, (image, mask) in enumerate(zip(images, masks, strict=True)):
        height, width = mask.shape
        sign = 1 if place % 2 else -1
        turn = cv2.getRotationMatrix2D((width / 2, 0.8 * height), 2.0 * sign, 1.03)
        turn[1, 2] += 0.01 * height * sign
        person = cv2.warpAffine(image, turn, (width, height))
        soft = cv2.warpAffine(mask, turn, (width, height))
        mixed = soft[..., None] * person + (1 - soft[..., None]) * image
        nodding.append(mixed.astype(np.uint8))
        moved_masks.append(soft)
    moving = epipolar_motion(nodding, moved_masks)
    assert [item.severity for item in subject_finding(moving, EPIPOLAR)] == ["warning"]
