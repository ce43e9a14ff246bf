"""A drawing's jaw is one line on the surface, not the outline that each frame sees."""

from __future__ import annotations

import numpy as np

from toonify3d.portrait2d.hatching import DrawnFrame, contours, jaw_line

SIDE, UNIT, EDGE = 240, 60.0, 140
WIDTH = 0.1


def _jaw(turn: float = 0.0) -> np.ndarray:
    x = np.linspace(-1.2, 1.2, 200)
    y = (SIDE / 2 - EDGE) / UNIT + 0.05 + 0 * x
    return np.stack([x * np.cos(turn), y, -0.8 * np.abs(x) - x * np.sin(turn)], 1)


def _face_before_neck(jaw: np.ndarray | None, turn: float = 0.0) -> DrawnFrame:
    """Above row EDGE a face, below it a neck that lies one eye distance behind."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    x, y = (columns - SIDE / 2) / UNIT / np.cos(turn), (SIDE / 2 - rows) / UNIT
    z = -0.8 * np.abs(x) - 1.0 * (rows > EDGE)
    local = np.stack([x, y, z], 2).astype(np.float32)
    labels = np.zeros((SIDE, SIDE, 3), np.float32)
    labels[..., 0] = 1
    nothing = np.zeros((SIDE, SIDE), np.float32)
    cover = nothing.copy()
    cover[6:-6, 6:-6] = 1
    light = np.full((SIDE, SIDE), 75, np.float32)
    return DrawnFrame(light, labels, local, nothing, cover, UNIT, jaw)


def test_a_face_whose_jaw_lies_in_3d_has_no_outline_of_its_own():
    band = (slice(EDGE - 4, EDGE + 5), slice(60, 180))
    assert contours(_face_before_neck(None))[band].max(0).min() > 0.5
    assert contours(_face_before_neck(_jaw()))[band].max() < 0.05


def test_the_edge_of_the_jaws_shadow_is_no_second_line():
    band = (slice(EDGE - 16, EDGE - 4), slice(80, 160))
    lines = []
    for jaw in (None, _jaw()):
        frame = _face_before_neck(jaw)
        frame.light[EDGE - 12 : EDGE - 9, 60:180] = 35
        lines.append(contours(frame)[band].max(0).min())
    assert lines[0] > 0.8 and lines[1] < 0.05


def test_outlines_far_from_the_face_stay():
    jaw = _jaw() + np.array([0.0, 2.0, 1.5])
    band = (slice(EDGE - 4, EDGE + 5), slice(60, 180))
    assert contours(_face_before_neck(jaw))[band].max(0).min() > 0.5


def test_the_line_is_as_wide_as_asked_and_runs_out_at_its_ends():
    line = jaw_line(_face_before_neck(_jaw()), WIDTH)
    middle = line[:, SIDE // 2]
    assert abs(middle.sum() - WIDTH * UNIT) < 1.0
    assert abs((middle * np.arange(SIDE)).sum() / middle.sum() - (EDGE - 0.05 * UNIT)) < 0.5
    near_end = line[:, SIDE // 2 + round(1.1 * UNIT)]
    assert 0 < near_end.sum() < 0.5 * middle.sum()
    assert line[:, SIDE // 2 + round(1.3 * UNIT) :].max() == 0


def test_frames_from_different_sides_draw_it_at_the_same_place():
    jaw = _jaw()
    for turn in (0.0, 0.7):
        frame = _face_before_neck(jaw, turn)
        marked = frame.local[jaw_line(frame, WIDTH) > 0.5]
        far = np.linalg.norm(marked[:, None] - jaw[None], axis=2).min(1)
        assert len(marked) > 300
        assert far.max() < 0.5 * WIDTH + 0.02


def test_hair_over_the_jaw_and_drawn_features_cover_it():
    frame = _face_before_neck(_jaw())
    frame.labels[:, : SIDE // 2] = [0, 1, 0]
    frame.taken[:, 150:] = 1
    line = jaw_line(frame, WIDTH)
    assert line[:, : SIDE // 2].max() == 0 and line[:, 150:].max() == 0
    assert line[:, 125:145].max(0).min() > 0.9
