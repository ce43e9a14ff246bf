"""What is drawn on the skin between eyes and lips (freckles, a nose) belongs to the skin."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.exemplar import analyse
from toonify3d.portrait2d.exemplarmasks import ink_on_skin, light_in_hair


@pytest.fixture(scope="module")
def drawing():
    """A cartoon with a dot close under each eye and one close above the lips; their places."""
    image, points = draw_face(face_landmarks(), 512, 110.0)
    unit = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    spots = [
        points[list(contour), :2].mean(0) + np.array([0, 0.15 * unit])
        for contour in (lm.LEFT_EYE, lm.RIGHT_EYE)
    ]
    lips = points[list(lm.LIPS_OUTER), :2]
    spots.append(np.array([lips[:, 0].mean() + 0.06 * unit, lips[:, 1].min() - 0.1 * unit]))
    for x, y in spots:
        cv2.circle(image, (round(x), round(y)), 5, (170, 110, 70), -1, cv2.LINE_AA)
    return analyse(image, None, points), spots, points


def test_freckles_near_eyes_and_lips_are_kept(drawing):
    style, spots, _ = drawing
    for x, y in spots:
        near = style.detail_lab[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4, 0]
        assert near.min() < -10


def test_the_organs_themselves_are_not_drawn_on_the_skin(drawing):
    style, _, points = drawing
    for contour in (lm.LEFT_EYE, lm.RIGHT_EYE, lm.LIPS_OUTER):
        x, y = points[list(contour), :2].mean(0).astype(int)
        assert np.abs(style.detail_lab[y, x]).max() < 1.0


def test_lights_in_drawn_hair_are_told_from_a_solid_mass():
    points = face_landmarks()
    image, at = draw_face(points, 512, 110.0)
    labels = np.zeros((512, 512, 3), np.float32)
    labels[..., 1] = np.linalg.norm(image.astype(float) - (150, 70, 20), axis=2) < 30
    assert light_in_hair(labels, at) < 0.01
    cv2.ellipse(labels, (256, 228), (140, 180), 0, 215, 325, (0, 0, 1), 14)
    assert light_in_hair(labels, at) > 0.04


def test_ink_on_skin_tells_hatching_from_lines():
    points = face_landmarks()
    image, at = draw_face(points, 512, 110.0)
    black = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) < 110
    lines = np.repeat(np.where(black, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    nose = at[lm.CHIN, :2] * 0.4 + at[[*lm.LEFT_BROW, *lm.RIGHT_BROW], :2].mean(0) * 0.6
    cv2.line(lines, tuple(int(v) for v in nose), tuple(int(v + 20) for v in nose), (0, 0, 0), 4)

    def hatched(thickness):
        out = lines.copy()
        for x in range(int(at[:, 0].min()), int(at[:, 0].mean()), 20):
            ends = (x, int(at[:, 1].min())), (x + 40, int(at[:, 1].max()))
            cv2.line(out, *ends, (0, 0, 0), thickness, cv2.LINE_AA)
        return out

    def inked(picture):
        style = analyse(picture, None, at)
        ink, paper = float(style.line_lab[0]), float(style.skin_mean[0])
        share, width = ink_on_skin(style.lab, style.labels, style.points, ink, paper)
        return share, width * style.face_width

    assert inked(lines)[0] < 0.03
    fine, bold = inked(hatched(3)), inked(hatched(7))
    assert fine[0] > 0.06
    assert bold[0] > 1.5 * fine[0]
    assert 2.5 < fine[1] < 6.5  # the drawn face has lines of its own
    assert 1.0 < bold[1] - fine[1] < 4.5
