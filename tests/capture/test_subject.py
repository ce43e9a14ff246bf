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
    return subject._Features(points, descriptors, person, ~person, 640)


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.01, 0, 0), (0, 0, 0.01)])
def test_known_cameras_show_movement_in_every_direction_across(shift):
    views = [camera(degrees) for degrees in (-8, 0, 8)]
    parts = [seen(view, np.zeros(3), i) for i, view in enumerate(views)]
    parts[1] = seen(views[1], np.array(shift, float), 1)
    found = subject._middle_distance(parts[0], parts[1], parts[2], views)
    assert found is not None
    person, room = found
    assert room < 0.8
    if any(shift):
        # A centimetre at a metre is 6 pixels of 640.
        assert person == pytest.approx(1000 * 6 / 640, rel=0.15)
    else:
        assert person < 0.8


def test_epipolar_lines_show_movement_across_them():
    views = [camera(0), camera(8)]
    still = subject._line_distance(*(seen(v, np.zeros(3), i) for i, v in enumerate(views)))
    one, two = seen(views[0], np.zeros(3), 0), seen(views[1], np.zeros(3), 1, (0.1, 0.06, 0))
    nod = subject._line_distance(one, two)
    assert still is not None and nod is not None
    assert still[0] < 0.5 and still[1] < 0.5
    assert nod[0] > 4 * still[0]


def test_too_few_features_claim_nothing():
    views = [camera(degrees) for degrees in (-8, 0, 8)]
    parts = [seen(view, np.zeros(3), i) for i, view in enumerate(views)]
    few = [
        subject._Features(p.points[38:], p.descriptors[38:], p.person[38:], p.room[38:], 640)
        for p in parts
    ]
    assert subject._middle_distance(few[0], few[1], few[2], views) is None
    assert subject._line_distance(few[0], few[1]) is None
    assert epipolar_motion([np.zeros((80, 60, 3), np.uint8)] * 6, [np.zeros((80, 60))] * 6) is None
    assert subject_finding(None, EPIPOLAR) == []


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
