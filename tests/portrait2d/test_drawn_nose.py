from __future__ import annotations

import cv2
import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d import shape
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.drawn_nose import fit_nose
from toonify3d.portrait2d.settings import StylizeSettings

SIZE, SCALE = 480, 90.0
BASE = list(lm.NOSE_BASE)


def _drawing(share: float, freckles: bool = False) -> tuple[np.ndarray, np.ndarray, float]:
    """Lightness, landmarks and eye distance of a toon; its nose is a line of ``share`` of human."""
    image, at = draw_face(face_landmarks(), SIZE, SCALE)
    at = np.concatenate([at[:, :2], at[:, 2:]], 1)
    unit = float(at[list(lm.LEFT_EYE), 0].mean() - at[list(lm.RIGHT_EYE), 0].mean())
    middle, half = at[BASE, :2].mean(0), 0.5 * np.ptp(at[BASE, 0])
    if share > 0:
        center = tuple(np.round(middle).astype(int).tolist())
        axes = (round(share * half), round(0.06 * unit))
        cv2.ellipse(image, center, axes, 0, 0, 180, (190, 130, 100), 3, cv2.LINE_AA)
    if freckles:
        for side in (-0.33, 0.33):
            spot = np.round(middle + np.array([side * unit, 0.0])).astype(int)
            cv2.circle(image, tuple(spot.tolist()), 4, (120, 60, 30), -1, cv2.LINE_AA)
    return to_lab(image)[..., 0], at, unit


def _width(points: np.ndarray) -> float:
    a, b = points[lm.NOSE_BASE[0], :2], points[lm.NOSE_BASE[-1], :2]
    return float(np.linalg.norm(a - b))


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_the_wings_come_onto_the_drawn_nose(share):
    light, at, _ = _drawing(share)
    found = fit_nose(at, light)
    assert _width(found) / _width(at) == pytest.approx(share, abs=0.1)
    rest = np.setdiff1d(np.arange(len(at)), BASE)
    assert np.array_equal(found[rest], at[rest])
    assert np.allclose(found[BASE].mean(0), at[BASE].mean(0))


def test_freckles_are_no_nose():
    plain, at, _ = _drawing(0.6)
    spotted, _, _ = _drawing(0.6, freckles=True)
    assert _width(fit_nose(at, spotted)) == pytest.approx(_width(fit_nose(at, plain)), rel=0.1)


def test_a_face_without_a_nose_gives_the_narrowest():
    light, at, _ = _drawing(0.0)
    assert _width(fit_nose(at, light)) == pytest.approx(0.45 * _width(at), rel=0.01)


def test_a_turned_picture_gives_the_same():
    light, at, _ = _drawing(0.6)
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 25.0, 1.0)
    turned = cv2.warpAffine(light, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    points = at.copy()
    points[:, :2] = at[:, :2] @ turn[:, :2].T + turn[:, 2]
    assert _width(fit_nose(points, turned)) == pytest.approx(_width(fit_nose(at, light)), rel=0.1)


def test_a_narrower_nose_sticks_out_less():
    face = face_landmarks()
    style = face.copy()
    style[BASE, 0] *= 0.6
    moved = face.copy()
    ids = list(shape.COMPONENTS["nose"])
    moves = shape.target_offsets(face, style, StylizeSettings(strength=1.0))["nose"]
    moved[ids] += moves
    wings = [lm.NOSE_BASE[0], lm.NOSE_BASE[-1]]

    def out(points: np.ndarray) -> float:
        return float(points[lm.NOSE_TIP, 2] - points[wings, 2].mean())

    assert np.allclose(moves[[ids.index(i) for i in (*wings, lm.NOSE_RIDGE[0])], 2], 0, atol=1e-6)
    narrower = np.abs(moved[ids, 0]).mean() / np.abs(face[ids, 0]).mean()
    assert 0.5 < narrower < 0.8
    assert 0.5 * out(face) < out(moved) < 0.9 * out(face)
    assert np.abs(moved[ids] - face[ids]).max() < 0.3  # still the person
