"""Strokes of an ink drawing: one per crease, fixed to the surface, as wide as asked."""

from __future__ import annotations

import numpy as np
import pytest

from toonify3d.meshes import edge_adjacency
from toonify3d.portrait2d.inkstrokes import Rules, border, drawn_strokes, trace, with_width

SIDE, UNIT = 240, 60.0
WIDTH = 0.1
FLAT = Rules(clear=1.7, faint=0.7, shortest=0.2, apart=0.12)


def _sheet(step: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a square of two eye distances."""
    at = np.arange(-1.0, 1.0, step)
    x, y = np.meshgrid(at, at)
    index = np.arange(x.size).reshape(x.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1), faces


def _crease(places: np.ndarray, height: float, depth: float, half: float = 0.7) -> np.ndarray:
    """A bent crease as dark as ``depth``, ``height`` above the middle."""
    across = places[:, 1] - height - 0.1 * np.sin(3 * places[:, 0])
    return depth * np.exp(-0.5 * (across / 0.03) ** 2) * (np.abs(places[:, 0]) < half)


def _strokes(dark: np.ndarray, wanted=None) -> list[np.ndarray]:
    places, faces = _sheet()
    return trace(places, edge_adjacency(faces, len(places)), dark, FLAT, wanted)


def test_a_crease_is_one_stroke_along_its_middle():
    places, _ = _sheet()
    rough = 1 + 0.3 * np.random.default_rng(1).uniform(-1, 1, len(places))
    (stroke,) = _strokes(_crease(places, 0.2, 4.0) * rough)
    assert np.ptp(stroke[:, 0]) > 1.25
    inner = stroke[np.abs(stroke[:, 0]) < 0.6]
    assert np.abs(inner[:, 1] - 0.2 - 0.1 * np.sin(3 * inner[:, 0])).max() < 0.02
    bends = np.diff(stroke, 2, axis=0)
    assert np.linalg.norm(bends, axis=1).max() < 0.002


def test_lines_beside_a_bolder_one_spots_and_faint_creases_are_not_drawn():
    places, _ = _sheet()
    bold, beside = _crease(places, 0.3, 5.0), _crease(places, 0.36, 4.0)
    spot, faint = _crease(places, -0.3, 5.0, 0.08), _crease(places, -0.7, 1.2)
    assert len(_strokes(_crease(places, -0.3, 5.0))) == 1
    strokes = _strokes(np.maximum.reduce([bold, beside, spot, faint]))
    assert len(strokes) == 1 and strokes[0][:, 1].min() > 0.1


def test_the_boldest_comes_first_and_what_is_refused_is_not_drawn():
    places, _ = _sheet()
    dark = _crease(places, -0.5, 3.0) + _crease(places, 0.5, 6.0)
    heights = [float(stroke[:, 1].mean()) for stroke in _strokes(dark)]
    assert heights == pytest.approx([0.5, -0.5], abs=0.05)
    kept = _strokes(dark, lambda curve: None if curve[:, 1].mean() > 0 else curve)
    assert [float(stroke[:, 1].mean()) for stroke in kept] == pytest.approx([-0.5], abs=0.05)


def test_a_border_runs_where_the_label_changes_its_sign():
    places, faces = _sheet()
    line = border(places, faces, places[:, 0] - 0.3 * places[:, 1] - 0.013, WIDTH)
    assert np.abs(line.points[:, 0] - 0.3 * line.points[:, 1] - 0.013).max() < 1e-9
    assert np.diff(np.sort(line.points[:, 1])).max() < 0.03
    assert (line.half == WIDTH / 2).all()
    assert not len(border(places, faces, np.ones(len(places)), WIDTH).points)


def _view(turn: float = 0.0, unit: float = UNIT) -> np.ndarray:
    """A surface bent in depth, turned about the upright axis: ``(SIDE, SIDE, 3)``."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    x, y = (columns - SIDE / 2) / unit / np.cos(turn), (SIDE / 2 - rows) / unit
    return np.stack([x, y, 0.2 * np.sin(2 * y)], 2).astype(np.float32)


def _stroke(upright: bool = False) -> np.ndarray:
    along = np.linspace(-0.9, 0.9, 200)
    if upright:
        return np.stack([0 * along, along, 0.2 * np.sin(2 * along)], 1)
    return np.stack([along, 0 * along, 0 * along], 1)


EVERYWHERE = np.ones((SIDE, SIDE), bool)


@pytest.mark.parametrize("unit", [40.0, 60.0, 100.0])
def test_a_stroke_is_as_wide_on_the_surface_as_asked_however_near_it_is_seen(unit):
    local = _view(0.0, unit)
    line = drawn_strokes(with_width(_stroke(True), WIDTH, 1.0), local, EVERYWHERE, unit)
    middle = line[SIDE // 2 - 10 : SIDE // 2 + 10].sum(1) / unit
    assert np.abs(middle - WIDTH).max() < 0.25 / unit


def test_from_the_side_it_is_foreshortened_and_lies_at_the_same_place():
    widths = []
    for turn in (0.0, 0.9):
        local = _view(turn)
        line = drawn_strokes(with_width(_stroke(True), WIDTH, 1.0), local, EVERYWHERE, UNIT)
        marked = local[line > 0.5]
        assert len(marked) > 200
        assert np.abs(marked[:, 0]).max() < 0.5 * WIDTH + 0.5 / UNIT
        assert abs(float((local[..., 0] * line).sum() / line.sum())) < 0.01
        widths.append(float(line[SIDE // 2].sum()))
    assert widths[1] == pytest.approx(widths[0] * np.cos(0.9), abs=0.6)


def test_a_frame_a_fraction_of_a_pixel_aside_shows_nearly_the_same_line():
    strokes = with_width(_stroke(True), 0.04, 1.0)
    shifted = _view() + np.array([0.4 / UNIT, 0, 0], np.float32)
    one, two = (drawn_strokes(strokes, view, EVERYWHERE, UNIT) for view in (_view(), shifted))
    rows = slice(SIDE // 2 - 20, SIDE // 2 + 20)
    assert np.abs(one[rows].sum(1) - two[rows].sum(1)).max() < 0.5
    assert one[rows].sum(1).min() > 1.9


def test_a_stroke_runs_out_at_its_ends_and_only_where_lines_are_asked_for():
    asked = EVERYWHERE.copy()
    asked[:, 150:] = False
    strokes = with_width(_stroke(), WIDTH)
    assert strokes.half.max() == pytest.approx(WIDTH / 2)
    line = drawn_strokes(strokes, _view(), asked, UNIT)
    assert line[:, 150:].max() == 0
    assert 0 < line[:, 70].sum() < 0.7 * line[:, SIDE // 2].sum()
    assert line[:, : round(SIDE / 2 - UNIT)].max() == 0
    nothing = drawn_strokes(strokes, _view() + np.float32(5.0), EVERYWHERE, UNIT)
    assert nothing.max() == 0
