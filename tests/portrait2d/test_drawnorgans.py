"""Drawn eyes, brows and lips on a person with shut eyes and a shut mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.exemplar import analyse
from toonify3d.portrait2d.facelayer import build_layer
from toonify3d.portrait2d.paper import Paper

SIZE, SCALE = 480, 92.0
DARK = 40.0
TALL = 2.2
"""Height of the person's brows after the change of shape, against the schematic face."""
LIPS = (190, 20, 80)


def _points(image_points, color, image):
    cv2.fillPoly(image, [np.round(image_points).astype(np.int32)], color, cv2.LINE_AA)


def _exemplar(fringe=False, mouth="ellipse"):
    """A cartoon with eyes twice as large as the person's and thick brows close above them."""
    points = face_landmarks()
    for brow in (lm.LEFT_BROW, lm.RIGHT_BROW):
        center = points[list(brow), :2].mean(0)
        points[list(brow), :2] = center + (points[list(brow), :2] - center) * [0.9, 2.6]
    image, at = draw_face(points, SIZE, SCALE, eye=1.9)
    lips = at[list(lm.LIPS_OUTER), :2]
    if mouth != "ellipse":
        skin = (240, 190, 150)
        cv2.fillPoly(image, [np.round(lips + (lips - lips.mean(0)) * 0.1).astype(np.int32)], skin)
        x = np.linspace(-1, 1, 21)
        half, middle = 0.95 * np.ptp(lips[:, 0]) / 2, lips.mean(0)
        top = np.stack([middle[0] + half * x, middle[1] - 10 * x**2], 1)
        low = np.stack([middle[0] + half * x, top[:, 1] + 16 * np.sqrt(1 - x**2)], 1)
        if mouth == "smile":
            _points(np.concatenate([top, low[::-1]]), LIPS, image)
        else:
            curve = np.round(top).astype(np.int32)[None]
            cv2.polylines(image, list(curve), False, (30, 10, 20), 4, cv2.LINE_AA)
    if fringe:  # hangs over the right brow's outer half, which is on the picture's left
        brow = at[list(lm.RIGHT_BROW), :2]
        low, high = brow.min(0), brow.max(0)
        strand = [[low[0] - 20, 0], [brow[:, 0].mean(), 0], [brow[:, 0].mean(), high[1] - 4]]
        _points(np.array([*strand, [low[0] - 20, high[1] + 6]]), (70, 30, 10), image)
    return analyse(image, None, at)


def _person():
    """Shut eyes, a shut straight mouth, brows low above the lids, not quite symmetric."""
    points = face_landmarks()
    for eye in (lm.LEFT_EYE, lm.RIGHT_EYE):
        points[list(eye), 1] = 0.5 + 0.05 * (points[list(eye), 1] - 0.5)
    for brow, lift in ((lm.LEFT_BROW, -0.14), (lm.RIGHT_BROW, -0.18)):
        points[list(brow), 1] = 0.85 + lift + TALL * (points[list(brow), 1] - 0.85)
    inner = list(lm.LIPS_INNER)
    points[inner, 1] = -0.5 + 0.02 * (points[inner, 1] + 0.5)
    return points


def _brow(layer, targets, contour):
    """Opaque dark pixels near a brow, its middle in the centre."""
    x, y = np.round(layer.pixels(targets[list(contour)]).mean(0)).astype(int)
    window = (slice(y - 30, y + 31), slice(x - 50, x + 51))
    on = (layer.feature[window] > 0.5) & (layer.feature_lab[window][..., 0] < DARK)
    _, parts = cv2.connectedComponents(on.astype(np.uint8))
    return parts == parts[30, 50]


def _layer(style, targets, **more):
    return build_layer(style, targets, (True, True), 0.0, 100.0, **more)


def _solid(shape):
    outline, _ = cv2.findContours(shape.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = np.zeros(shape.shape, np.uint8)
    cv2.fillPoly(hull, [cv2.convexHull(outline[0])], (1,))
    return shape.sum() / hull.sum()


def _overlap(one, two):
    return (one & two).sum() / (one | two).sum()


def test_brows_above_shut_eyes_stay_whole_and_alike():
    targets = _person()
    layer = _layer(_exemplar(), targets, symmetric=True)
    right, left = (_brow(layer, targets, c) for c in (lm.RIGHT_BROW, lm.LEFT_BROW))
    wanted = 0.9 * np.pi * 0.3 * TALL * 0.07 * 100.0**2  # as wide and high as the person's contour
    for shape in (right, left):
        assert _solid(shape) > 0.95
        assert shape.sum() == pytest.approx(wanted, rel=0.15)
    assert _overlap(right, left[:, ::-1]) > 0.9


def test_a_brow_under_a_fringe_is_the_other_ones_mirror_image():
    targets = _person()
    hidden = _exemplar(fringe=True)
    whole = _brow(_layer(_exemplar(), targets, symmetric=True), targets, lm.LEFT_BROW)
    layer = _layer(hidden, targets, symmetric=True)
    right, left = (_brow(layer, targets, c) for c in (lm.RIGHT_BROW, lm.LEFT_BROW))
    assert _overlap(left, whole) > 0.9
    assert _overlap(right, whole[:, ::-1]) > 0.85
    own = _brow(_layer(hidden, targets), targets, lm.RIGHT_BROW)  # in its contour at least
    assert own.sum() > 0.7 * whole.sum() and _solid(own) > 0.9


def test_the_skin_round_a_shut_eye_is_that_round_the_drawn_one():
    """A warp that squeezes the big eye into the lid folds: jaw colours come up under the eyes."""
    style = _exemplar()
    height = style.lab.shape[0]
    rows = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None, None], style.lab.shape)
    marked = type(style)(**{**vars(style), "skin_lab": np.ascontiguousarray(rows)})
    targets = _person()
    layer = _layer(marked, targets)
    for eye in (lm.LEFT_EYE, lm.RIGHT_EYE):
        x, y = layer.pixels(targets[list(eye)]).mean(0)
        column = layer.skin_lab[int(y) - 40 : int(y) + 60, int(x), 0]
        assert (np.diff(column) > 0).all()


def _mouth(layer, targets):
    """Opacity in units round the mouth's middle: rows -0.2 to 0.2, x -0.5 to 0.5."""
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 101), np.linspace(0.2, -0.2, 41) - 0.5)
    at = np.floor(layer.pixels(np.stack([x, y], 2))).astype(int)
    return layer.feature[at[..., 1], at[..., 0]]


def test_the_corners_of_a_smile_are_no_horns_on_a_straight_mouth():
    style, targets = _exemplar(mouth="smile"), _person()
    calm = _mouth(_layer(style, targets), targets)
    above, below = calm[:17], calm[23:33]  # more than 0.03 from the line
    assert above.max() < 0.1
    assert below[:, 45:56].max() > 0.9
    gay = _mouth(_layer(style, targets, expression=1.0), targets)
    assert gay[:17, 10:35].max() > 0.5 and gay[:17, 66:91].max() > 0.5


def test_two_drawn_lips_stay_two():
    calm = _mouth(_layer(_exemplar(), _person()), _person())
    assert calm[11, 50] > 0.9 and calm[29, 50] > 0.9


def test_a_mouth_drawn_as_a_line_is_one_line():
    calm = _mouth(_layer(_exemplar(mouth="line"), _person()), _person()) > 0.5
    across = calm.any(0)
    assert across[22:79].all()
    assert calm.sum(0)[across].max() <= 7
    rows = np.nonzero(calm)[0]
    assert np.ptp(rows) <= 8


def test_paper_and_places_agree():
    paper = Paper(np.array([-1.0, -2.0]), np.array([1.5, 0.5]), 40.0)
    assert paper.shape == (100, 100)
    at = paper.pixels(paper.places())
    assert np.allclose(at[3, 7], [7.5, 3.5])
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, -1.5], [-0.5, -1.5]])
    inside = paper.signed(square)
    x, y = np.floor(paper.pixels(np.array([0.0, -1.0]))).astype(int)
    assert inside[y, x] == pytest.approx(0.5, abs=0.05)
    assert inside[0, 0] < -0.5
