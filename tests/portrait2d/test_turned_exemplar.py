from __future__ import annotations

import cv2
import numpy as np
import pytest

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.clicks import mean_face
from toonify3d.portrait2d.exemplarmasks import face_outline, like_wall, polygon
from toonify3d.portrait2d.tones import frontal_share

SIZE, SCALE = 400, 90.0


def _pictured(degrees):
    """Landmarks in a picture of the mean face turned about the upright axis."""
    turn = np.radians(degrees)
    face = mean_face() @ np.array(
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
    )
    return face * [SCALE, -SCALE, -SCALE] + [SIZE / 2, SIZE / 2, 0]


@pytest.mark.parametrize("degrees", [-50, 0, 50])
def test_the_outline_holds_the_far_cheek_of_a_turned_face(degrees):
    points = _pictured(degrees)
    outline = np.asarray(face_outline(points), np.float32)
    oval = np.asarray(points[list(lm.FACE_OVAL), :2], np.float32)
    assert min(cv2.pointPolygonTest(outline, tuple(p), True) for p in points[:468, :2]) > -1e-3
    beyond = min(cv2.pointPolygonTest(oval, tuple(p), True) for p in points[:468, :2])
    if degrees == 0:
        grown = polygon((SIZE, SIZE), outline, 0.0).sum() / polygon((SIZE, SIZE), oval, 0.0).sum()
        assert grown < 1.03
    else:
        assert beyond < -0.05 * np.ptp(oval[:, 0])


@pytest.mark.parametrize("degrees", [-45, 45])
def test_the_far_half_of_a_turned_face_counts_for_what_it_is_seen_from_the_front(degrees):
    points = _pictured(degrees)
    share = frontal_share(points, mean_face(), (SIZE, SIZE))
    face = polygon((SIZE, SIZE), face_outline(points), 0.0) > 0
    nose = points[list(lm.MIDLINE), 0].mean()
    columns = np.arange(SIZE)[None, :]
    far = (columns < nose) if points[lm.NOSE_TIP, 0] < SIZE / 2 else (columns > nose)
    seen = (face & far).sum() / face.sum()
    counted = share[face & far].sum() / share[face].sum()
    assert seen < 0.35
    assert counted > seen + 0.07
    assert share.min() > 0.2 and share.max() < 4.1


def test_a_frontal_face_counts_evenly():
    share = frontal_share(_pictured(0), mean_face(), (SIZE, SIZE))
    face = polygon((SIZE, SIZE), face_outline(_pictured(0)), -4.0) > 0
    assert np.abs(share[face] - 1).max() < 0.1


@pytest.mark.parametrize("unrest", [1.0, 25.0])
def test_a_mask_that_reaches_into_an_even_wall_is_told(unrest):
    generator = np.random.default_rng(0)
    lab = np.tile([4.0, 0.0, 0.0], (100, 100, 1))
    lab += generator.normal(0, unrest, lab.shape)
    lab[40:80, 30:60] = [50.0, 10.0, 30.0]
    person = np.zeros((100, 100), bool)
    person[40:80, 30:80] = True  # a third of it is wall
    found = like_wall(lab.astype(np.float32), person)
    if unrest > 10:
        assert not found.any()
    else:
        assert not found[40:80, 30:60].any() and found[40:80, 60:80].mean() > 0.95
