"""Hair of drawings and paintings flows down from the crown."""

import numpy as np
import pytest

from toonify3d.portrait2d.hatching import strand_phase, strands
from toonify3d.portrait2d.strokes import Canvas, GuideWeights, lay_strokes, prepare_source
from toonify3d.portrait2d.strokesource import with_turned_hair


def _cylinder(turn: float = 0.0, size: int = 200) -> np.ndarray:
    """Surface ``(H, W, 3)`` of upright hair seen from ``turn`` radians, 50 pixels per unit."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    x = (columns - size / 2 + 0.5) / 50.0
    angle = np.arcsin(np.clip(x / 1.7, -1, 1)) + turn
    height = (size / 2 - rows) / 50.0
    return np.stack([1.7 * np.sin(angle), height, 1.7 * np.cos(angle) - 1.5], 2).astype(np.float32)


def test_strands_fall_down_and_cover_what_the_tone_asks_for():
    local = _cylinder()
    middle = (slice(20, -20), slice(60, -60))
    light, dark = (strands(local, np.full((200, 200), d, np.float32))[middle] for d in (0.2, 0.5))
    across, down = (np.abs(np.diff(dark, axis=axis)).mean() for axis in (1, 0))
    assert across > 1.8 * down
    assert 0.1 < light.mean() < 0.3 < dark.mean() < 0.6


def test_two_frames_draw_the_same_strands():
    """The same place of the surface: the lines of one frame are the other's."""
    front, turned = _cylinder(0.0), _cylinder(0.2)
    dark = np.full((200, 200), 0.4, np.float32)
    one, two = strands(front, dark), strands(turned, dark)
    angle = np.arcsin(np.clip((np.arange(200) - 99.5) / 85.0, -1, 1))
    columns = np.round(85.0 * np.sin(angle[80:121] - 0.2) + 99.5).astype(int)
    drawn, again = one[:, 80:121], two[:, columns]
    assert np.corrcoef(drawn.ravel(), again.ravel())[0, 1] > 0.8


def test_strands_meet_behind_the_head():
    heights = np.linspace(-2, 1, 50)
    sides = [np.stack([np.full(50, x), heights, np.full(50, -3.2)], 1) for x in (-1e-6, 1e-6)]
    left, right = (strand_phase(side[:, None].astype(np.float32)) for side in sides)
    gap = (right - left) / 2  # whole numbers twice over: every second strand is whole too
    assert np.abs(gap - np.round(gap)).max() < 1e-3
    assert np.abs(gap).min() > 10


@pytest.mark.parametrize("offered", [False, True])
def test_swept_back_hair_lends_falling_strands(offered):
    size = 96
    labels = np.zeros((size, size, 3), np.float32)
    labels[..., 1] = 1
    flat = np.zeros((size, size, 3), np.float32)
    flat[..., 0] = 50
    rows, columns = np.mgrid[:size, :size]
    strokes = np.zeros_like(flat)
    strokes[..., 0] = 8 * np.sin(rows * 1.05)  # swept to the side
    place, inside = np.zeros((size, size, 2), np.float32), np.ones((size, size), bool)
    canvas = Canvas(flat, labels, place, inside, flat[..., 0] + strokes[..., 0])
    if offered:
        canvas, strokes = with_turned_hair(canvas, strokes)
        assert canvas.lab.shape[1] > 2 * size
    source = prepare_source(canvas, strokes, GuideWeights())
    falling = (50 + 4 * np.sin(columns * 1.05)).astype(np.float32)
    wanted = Canvas(flat, labels, place, inside, falling)
    out = lay_strokes(source, wanted, 0 * flat, 0 * flat[..., 0])[8:-8, 8:-8, 0]
    assert (out.mean(0).std() > 3 * out.mean(1).std()) == offered


def test_an_exemplar_without_hair_stays_as_it_is():
    size = 40
    labels = np.zeros((size, size, 3), np.float32)
    labels[..., 0] = 1
    flat = np.zeros((size, size, 3), np.float32)
    canvas = Canvas(
        flat, labels, flat[..., :2], np.ones((size, size), bool), np.zeros((size, size), np.float32)
    )
    assert with_turned_hair(canvas, flat)[0] is canvas


def test_lines_too_close_to_be_told_apart_are_a_tone():
    """Seen edge on they vanished, so frames disagreed about how dark a cheek is."""
    turned = _cylinder(1.2)
    share = np.full((200, 200), 0.4, np.float32)
    narrow = strands(turned[:, ::6], share[:, ::6])[:, 4:10]  # a line per pixel and closer
    assert 0.25 < narrow.mean() < 0.5
    assert narrow.std() < 0.15
