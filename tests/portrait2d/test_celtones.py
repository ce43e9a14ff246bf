"""Tones decided on the surface: calm colours, dyes of clothes, one form shadow; what a painted
portrait's forehead and beard are; strokes along the grain."""

from __future__ import annotations

import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks
from test_regions import MIDDLE, body

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.celtones import (
    calm_colours,
    flat_marks,
    flat_steps,
    form_shadow,
    lit_share,
)
from toonify3d.portrait2d.colorspace import blur, to_lab, to_rgb
from toonify3d.portrait2d.drawnorgans import whole_shape
from toonify3d.portrait2d.exemplar import analyse
from toonify3d.portrait2d.exemplarkind import choose_look
from toonify3d.portrait2d.look import _borders, _hair_levels
from toonify3d.portrait2d.regions import Regions
from toonify3d.portrait2d.strokes import Canvas, GuideWeights, lay_strokes, prepare_source
from toonify3d.portrait2d.surface import Observations
from toonify3d.portrait2d.tones import tone_curve


def _regions(skin, hair, clothes):
    parts = [part.astype(np.float32) for part in (skin, hair, clothes)]
    lab = np.array([60.0, 15.0, 18.0], np.float32)
    return Regions(*parts, np.zeros(len(skin), np.float32), False, lab, 5.0)


@pytest.fixture(scope="module")
def column():
    vertices, normals, faces = body()
    normals = np.nan_to_num(normals)  # the middle of the bottom has none
    low = vertices[:, 1] < -1.5
    regions = _regions(~low & (vertices[:, 1] < 1.0), vertices[:, 1] >= 1.0, low)
    return vertices, normals, faces, regions


def test_calm_colours_are_smooth_and_stay_in_their_region(column):
    _, _, faces, regions = column
    rng = np.random.default_rng(1)
    lab = np.where(regions.hair[:, None] > 0.5, [20.0, 4, 6], [65.0, 18, 20])
    lab = (lab + rng.normal(0, 6, lab.shape)).astype(np.float32)
    calm = calm_colours(lab, regions, faces)
    for label, light in ((regions.hair, 20), (regions.skin, 65)):
        part = calm[label > 0.5]
        assert part[:, 0].std() < 2.0
        assert part[:, 0].mean() == pytest.approx(light, abs=1.0)
        assert np.abs(part[:, 0] - light).max() < 8  # at the border too


def test_a_shine_on_clothes_is_no_other_colour_but_a_gray_collar_is(column):
    vertices, _, faces, regions = column
    worn = regions.clothes > 0.5
    collar = worn & (vertices[:, 1] > -2.0)
    shine = worn & ~collar & (vertices[:, 0] > 0.6)
    lab = np.tile(np.array([60.0, 15.0, 18.0], np.float32), (len(vertices), 1))
    lab[worn] = [35, 45, 28]
    lab[shine] = [60, 22, 13]
    lab[collar] = [55, 0, 1]
    calm = calm_colours(lab, regions, faces)
    inside = worn & ((vertices[:, 1] < -2.6) | (vertices[:, 1] > -1.8)) & (vertices[:, 1] > -4.5)
    chroma = np.linalg.norm(calm[:, 1:], axis=1)
    assert chroma[inside & ~collar].min() > 40
    assert chroma[inside & collar].max() < 8
    assert calm[shine & inside, 0].mean() > calm[inside & ~collar & ~shine, 0].mean() + 3


def test_the_form_s_shadow_is_one_piece_away_from_the_light(column):
    vertices, normals, faces, regions = column
    lit = form_shadow(normals, vertices, faces, regions)
    front = (regions.skin > 0.7) & (normals[:, 2] > 0.1)
    assert (lit[front] < 0).mean() == pytest.approx(0.25, abs=0.02)
    dark, light = vertices[front & (lit < 0)], vertices[front & (lit > 0)]
    assert dark[:, 0].mean() > light[:, 0].mean()  # light comes from the viewer's left, above
    assert dark[:, 1].mean() < light[:, 1].mean()
    middle = front & (np.abs(vertices[:, 0]) < 0.3) & (vertices[:, 1] > -0.5)
    assert (lit[middle] > 0).all() and vertices[middle, 2].min() > MIDDLE


def test_borders_of_flat_tones_are_narrow_on_any_slope():
    for slope in (0.05, 0.4):
        ramp = np.tile(np.arange(200, dtype=np.float32) * slope, (20, 1))
        flat = flat_steps(ramp, 9.0)[10]
        between = np.abs(flat / 9.0 - np.round(flat / 9.0)) > 0.05
        steps = int(ramp.max() / 9.0 + 0.5)
        assert between.sum() <= 3 * max(steps, 1)
        assert np.abs(flat - ramp[10]).max() < 4.6
        share = lit_share((ramp - ramp.mean()) / 10)[10]
        assert ((share > 0.02) & (share < 0.98)).sum() <= 3
        assert share[0] == 0 and share[-1] == 1


def _portrait(beard):
    image, at = draw_face(face_landmarks(), 400, 92.0)
    rows, columns = np.mgrid[:400, :400]
    top = at[list(lm.FACE_OVAL), 1].min()
    forehead = (np.abs(columns - 200) < 60) & (rows > top - 30) & (rows < top + 20)
    image[forehead] = (240, 190, 150)
    if beard:
        x, y = (columns - 200) / 92, (200 - rows) / 92
        oval = (x / 1.15) ** 2 + ((y - 0.05) / 1.3) ** 2 < 1
        lips = (x / 0.4) ** 2 + ((y + 0.5) / 0.14) ** 2 < 1
        image[oval & (y < -0.25) & ~lips] = (120, 160, 40)
    shade = 0.5 + 0.5 * np.clip(np.linspace(-0.2, 1.2, 400), 0, 1)
    image = (image * shade[None, :, None]).astype(np.uint8)
    style = analyse(image, None, at)
    assert choose_look(style.stats) == "paint"
    return style, at, int(top)


def test_skin_goes_on_above_the_landmarks_and_a_beard_is_no_skin():
    plain, at, top = _portrait(False)
    bearded, _, _ = _portrait(True)
    assert plain.labels[top - 15, 180:220, 0].mean() > 0.8
    assert plain.labels[top - 60, 180:220, 1].mean() > 0.8  # hair above it
    chin = at[[lm.CHIN], 1][0]
    below = (slice(int(chin) - 22, int(chin) - 12), slice(180, 220))
    assert plain.labels[below][..., 0].mean() > 0.9
    assert bearded.labels[below][..., 1].mean() > 0.9
    # Lips are redder than skin whatever grows round them.
    assert np.abs(bearded.lip_shift - plain.lip_shift).max() < 6


def test_darks_of_something_else_deepen_shadows_without_dyeing_skin():
    rng = np.random.default_rng(2)
    source = rng.normal(60, 14, 4000)
    skin = np.stack([rng.uniform(55, 90, 4000), np.full(4000, -12.0), np.full(4000, 20.0)], 1)
    beard = np.stack([rng.uniform(30, 60, 1500), np.full(1500, 12.0), np.full(1500, 30.0)], 1)
    bare = tone_curve(source, skin, 1.0)
    deep = tone_curve(source, skin, 1.0, beard)
    dark = np.array([np.quantile(source, 0.03)], np.float32)
    assert deep.light(dark)[0] < bare.light(dark)[0] - 8
    assert deep.colour(np.array([80.0], np.float32))[0, 0] == pytest.approx(-12, abs=0.5)
    assert deep.colour(np.array([40.0], np.float32))[0, 0] > 0


def test_strokes_run_along_the_grain():
    size = 96
    labels = np.zeros((size, size, 3), np.float32)
    labels[..., 1] = 1
    rows, columns = np.mgrid[:size, :size]
    upright, level = np.sin(columns * 1.05), np.sin(rows * 1.05)
    light = np.where(columns < size // 2, upright, level).astype(np.float32)
    flat = np.zeros((size, size, 3), np.float32)
    flat[..., 0] = 50
    strokes = np.zeros_like(flat)
    strokes[..., 0] = 8 * light
    place, inside = np.zeros((size, size, 2), np.float32), np.ones((size, size), bool)
    source = prepare_source(
        Canvas(flat, labels, place, inside, flat[..., 0] + strokes[..., 0]), strokes, GuideWeights()
    )
    for grain, along in ((upright, 0), (level, 1)):
        wanted = Canvas(flat, labels, place, inside, (50 + 4 * grain).astype(np.float32))
        out = lay_strokes(source, wanted, 0 * flat, 0 * flat[..., 0])[8:-8, 8:-8, 0]
        assert out.mean(along).std() > 3 * out.mean(1 - along).std()


def test_colours_that_no_face_has_are_no_beard():
    """Red lips and their margin alone give no beard."""
    plain, at, _ = _portrait(False)
    mouth = np.round(at[list(lm.LIPS_OUTER), :2].mean(0)).astype(int)
    around = plain.labels[mouth[1] + 18 : mouth[1] + 24, mouth[0] - 20 : mouth[0] + 20]
    assert around[..., 0].mean() > 0.9
    assert to_lab(plain.image)[mouth[1], mouth[0], 1] > 40


def _brow(extra):
    y, x = (np.mgrid[:200, :300] - np.array([100, 150])[:, None, None]) / 100.0
    contour = 0.08 - np.hypot(0.3 * x, y)  # what the detector calls the brow
    drawn = ((np.abs(x) < 0.4) & (np.abs(y) < 0.12)) | extra(x, y)
    apart = np.full(x.shape, -9.0, np.float32)
    return contour.astype(np.float32), drawn.astype(np.float32), apart


def test_a_fringe_that_runs_into_a_brow_is_none_and_a_lid_s_line_leaves_no_stump():
    fringe = _brow(lambda x, y: (np.abs(x) < 0.35) & (y < 0.0))
    assert whole_shape(*fringe, True) is None
    alone = whole_shape(*_brow(lambda x, y: np.zeros(x.shape, bool)), True)
    lid = whole_shape(*_brow(lambda x, y: (np.abs(x - 0.1) < 0.03) & (y > 0) & (y < 0.2)), True)
    assert alone is not None and lid is not None
    assert alone[100, 120:180].all() and not alone[100, 10]
    assert (lid ^ alone).sum() < 0.05 * alone.sum()


def test_marks_on_a_cel_s_skin_are_there_or_not():
    y, x = np.mgrid[:60, :60]
    soft = blur(((x - 30) ** 2 + (y - 30) ** 2 < 36).astype(np.float32), 2.5)
    color = np.array([-20.0, 6.0, 8.0], np.float32)
    full = float(np.linalg.norm(color))
    length = np.linalg.norm(flat_marks(soft[..., None] * color, full), axis=2)
    assert length[30, 30] == pytest.approx(full, rel=0.01)
    half = (length > 0.1 * full) & (length < 0.9 * full)
    assert half.sum() < 0.5 * ((soft > 0.1) & (soft < 0.9)).sum()
    faint = flat_marks(0.2 * soft[..., None] * color, full)
    assert np.abs(faint).max() < 0.5


def test_a_shadow_s_border_has_no_corners_but_keeps_its_steps():
    y, x = np.mgrid[:80, :160].astype(np.float32)
    corners = 2.5 * np.abs((x + 6) % 12 - 6) / 6  # between vertices some pixels apart
    share = lit_share(((y - 40 - corners) / 30).astype(np.float32))
    rows = 80 - share[:, 10:150].sum(0)
    assert rows.std() < 0.45 * corners[0, 10:150].std()
    jaw = np.where(y < 40, 1.5, -1.0).astype(np.float32)
    step = lit_share(jaw)[:, 80]
    assert step[38] == 1 and step[41] == 0


def test_a_drawing_s_hair_reaches_down_to_its_dark_tips():
    image, at = draw_face(face_landmarks(), 400, 92.0)
    hair = np.array([150, 70, 20], np.uint8)  # as draw_face has it
    dark = to_rgb(to_lab(hair[None]) - np.array([[15.0, 4.0, 4.0]]))[0]
    columns = np.r_[40:88, 312:360]
    image[190:330, columns] = dark
    style = analyse(image, None, at)
    tips = float(to_lab(dark)[0])
    assert style.hair_ramp is not None
    assert style.hair_ramp[0, 0] < tips + 5
    assert style.hair_ramp[-1, 0] > to_lab(hair)[0] - 6


def test_hair_that_turns_away_counts_less():
    half = np.zeros(200, np.float32)
    light = np.r_[np.full(100, 40.0), np.full(100, 20.0)]
    seen = Observations(np.stack([light, half, half], 1).astype(np.float32), half, half.astype(int))
    regions = Regions(half, half + 1, half, half, False, np.zeros(3, np.float32), 5.0)
    level = _hair_levels(regions, seen, np.r_[np.full(100, 0.9), np.full(100, 0.1)])
    assert level is not None
    assert (level > 30).mean() == pytest.approx(0.9, abs=0.06)
    assert _hair_levels(regions, seen, np.full(200, -1.0)) is not None
    none = Regions(half + 1, half, half, half, True, np.zeros(3, np.float32), 5.0)
    assert _hair_levels(none, seen, None) is None


@pytest.mark.parametrize(("kind", "widest"), [("toon", 4), ("cel", 2), ("paint", 99)])
def test_toons_have_borders_painters_soft_ones(kind, widest):
    skin = np.clip((np.arange(80, dtype=np.float32) - 33) / 14, 0, 1)
    labels = np.zeros((40, 80, 4), np.float32)
    labels[..., 0], labels[..., 1] = skin, 1 - skin
    row = _borders(labels, kind)[0, 20]
    between = ((row > 0.05) & (row < 0.95)).sum()
    assert between <= widest
    assert kind != "paint" or between > 6
