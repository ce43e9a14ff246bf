from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.colorspace import blur, to_lab
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.exemplarkind import PictureStats, choose_look, measure_picture
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.strokes import (
    Canvas,
    GuideWeights,
    lay_strokes,
    prepare_source,
    split_strokes,
)
from toonify3d.portrait2d.transport import plane_transport
from toonify3d.progress import SilentProgress


def _stripes(size: int, period: float, angle: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period).astype(np.float32)


def _exemplar(folder, kind):
    image, at = draw_face(face_landmarks(), 400, 92.0)
    if kind == "gray":
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    elif kind == "ink":
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        image = np.repeat(np.where(gray > 120, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    elif kind == "paint":
        wave = _stripes(400, 9.0, 0.6) + _stripes(400, 7.0, 2.0)
        image = np.clip(image * 0.85 + 16 * wave[..., None] + 10, 0, 255).astype(np.uint8)
    write_image(folder / f"{kind}.png", image)
    (folder / f"{kind}.json").write_text(json.dumps(at.tolist()))
    return folder / f"{kind}.png", folder / f"{kind}.json"


@pytest.fixture(scope="module")
def person(subject):
    scene, mesh = subject
    return pipeline.study_person(scene, mesh, SilentProgress())


def _stylize(subject, person, folder, kind, yaws=(0.0, 0.1), **chosen):
    scene, mesh = subject
    path, points = _exemplar(folder, kind)
    frames = [min(scene.frames, key=lambda f, y=y: abs(f.yaw - y)) for y in yaws]
    progress = SilentProgress()
    result = pipeline.stylize_views(
        scene,
        mesh,
        path,
        folder / "out",
        StylizeSettings(**chosen),
        progress,
        landmarks_file=None if chosen.get("look") == "colour" else points,
        frames=frames,
        person=person,
    )
    return result, progress


@pytest.mark.parametrize(
    ("stats", "look"),
    [
        (PictureStats(0.99, 43, 0.93, 100, 0.2, 0.0), "cel"),
        (PictureStats(0.99, 0, 1.0, 100, 0.0, 0.0), "ink"),
        (PictureStats(0.76, 23, 0.81, 89, 1.0, 0.0), "toon"),
        (PictureStats(0.21, 26, 0.13, 73, 5.3, 1.0), "paint"),
        (PictureStats(0.55, 27, 0.73, 15, 5.2, 1.0), "paint"),
        (PictureStats(0.26, 52, 0.58, 80, 4.5, 0.9), "hatch"),
    ],
)
def test_the_look_follows_the_picture(stats, look):
    assert choose_look(stats) == look


def test_figures_of_pictures():
    flat = np.zeros((90, 90, 3), np.uint8)
    flat[:, 30:] = (200, 40, 40)
    assert measure_picture(to_lab(flat), 0.0, 0.0).flat > 0.99
    rng = np.random.default_rng(0)
    pigment = np.array([240, 225, 200]) * rng.uniform(0.4, 1, (90, 90, 1))
    assert measure_picture(to_lab(pigment.astype(np.uint8)), 0.0, 0.0).pigment > 0.8
    colourful = rng.integers(0, 255, (90, 90, 3), np.uint8)
    assert measure_picture(to_lab(colourful), 0.0, 0.0).pigment < 0.5


def test_a_gray_exemplar_makes_everything_gray(subject, person, tmp_path):
    result, _ = _stylize(subject, person, tmp_path, "gray", (0.0,))
    view = result.views[0]
    chroma = np.linalg.norm(to_lab(view.image)[view.mask > 250][:, 1:], axis=1)
    assert np.quantile(chroma, 0.98) < 7


def test_ink_has_two_tones(subject, person, tmp_path):
    result, _ = _stylize(subject, person, tmp_path, "ink", (0.0,))
    view = result.views[0]
    light = to_lab(view.image)[view.mask > 250][:, 0]
    assert ((light > 85) | (light < 20)).mean() > 0.85
    assert (light < 20).mean() > 0.02 and (light > 85).mean() > 0.2


def test_painted_strokes_are_laid_and_agree_between_frames(subject, person, tmp_path):
    result, _ = _stylize(subject, person, tmp_path, "paint", look="paint")
    plain, _ = _stylize(subject, person, tmp_path, "paint", (0.0,), look="paint", strokes=0.0)
    one, two = sorted(result.views, key=lambda v: abs(v.frame.yaw))
    points = result.displacement.points + result.displacement.offsets
    points = points[points[:, 1] < np.quantile(points[:, 1], 0.2)]

    def strokes(view):
        light = to_lab(view.image)[..., 0]
        fine = light - blur(light, 3.0)
        at = view.frame.camera.project(points)[0].astype(int)
        return fine[at[:, 1], at[:, 0]]

    first, second, none = strokes(one), strokes(two), strokes(plain.views[0])
    laid = first - none
    assert laid.std() > 2
    assert np.corrcoef(first, second)[0, 1] > 0.6


def test_colour_look_needs_no_face_and_keeps_the_shape(subject, person, tmp_path):
    rng = np.random.default_rng(5)
    blue = np.clip(rng.normal([40, 70, 200], 12, (200, 300, 3)), 0, 255).astype(np.uint8)
    write_image(tmp_path / "sea.png", cv2.GaussianBlur(blue, (0, 0), 1.5))
    with pytest.raises(InputError, match="look=colour"):
        load_exemplar(tmp_path / "sea.png")
    scene, mesh = subject
    progress = SilentProgress()
    result = pipeline.stylize_views(
        scene,
        mesh,
        tmp_path / "sea.png",
        tmp_path / "out",
        StylizeSettings(look="colour"),
        progress,
        frames=scene.frames[:1],
        person=person,
    )
    assert np.abs(result.displacement.offsets).max() == 0
    assert any("shape stays" in text for text in progress.warnings)
    view = result.views[0]
    assert np.median(to_lab(view.image)[view.mask > 250][:, 2]) < -25


def test_an_unknown_look_is_refused(subject, person, tmp_path):
    with pytest.raises(InputError, match="no look 'oil'"):
        _stylize(subject, person, tmp_path, "gray", look="oil")


def test_filled_lips_are_no_lipstick(subject, person, tmp_path):
    scene, _ = subject
    full, _ = _stylize(subject, person, tmp_path, "flat", (0.0,), look="toon", lip_contrast=90.0)
    calm, _ = _stylize(subject, person, tmp_path, "flat", (0.0,), look="toon", lip_contrast=20.0)
    at = full.views[0].frame.camera.project(scene.landmarks[[17, 0]])[0].mean(0)
    x, y = int(at[0]), int(at[1])
    window = (slice(y - 4, y + 5), slice(x - 8, x + 9))
    skin = to_lab(full.views[0].image[100, 80])

    def gap(result):
        difference = np.linalg.norm(to_lab(result.views[0].image[window]) - skin, axis=2)
        return np.median(difference[difference > 8])

    assert gap(calm) < 0.7 * gap(full)


def test_chroma_is_transported_and_light_only_drawn_nearer():
    rng = np.random.default_rng(2)
    source = rng.normal([50, 10, 10], [15, 4, 2], (4000, 3)).astype(np.float32)
    target = rng.normal([80, -20, 5], [5, 2, 6], (4000, 3)).astype(np.float32)
    out = plane_transport(source, target, 0.5)(source)
    assert np.allclose(out[:, 1:].mean(0), target[:, 1:].mean(0), atol=0.2)
    assert out[:, 0].mean() == pytest.approx(65, abs=1)
    assert np.corrcoef(out[:, 0], source[:, 0])[0, 1] > 0.99


def _canvas(light, labels):
    size = light.shape[0]
    lab = np.zeros((size, size, 3), np.float32)
    lab[..., 0] = light
    place = np.zeros((size, size, 2), np.float32)
    return Canvas(lab, labels, place, np.ones((size, size), bool))


def _halves(size):
    labels = np.zeros((size, size, 3), np.float32)
    labels[:, : size // 2, 0] = 1
    labels[:, size // 2 :, 1] = 1
    return labels


def test_strokes_come_from_the_same_region_and_are_the_same_every_time():
    size = 96
    labels = _halves(size)
    strokes = np.zeros((size, size, 3), np.float32)
    strokes[..., 0] = np.where(
        labels[..., 0] > 0, 8 * _stripes(size, 6, 0.0), 4 * _stripes(size, 6, np.pi / 2)
    )
    flat = np.full((size, size), 50, np.float32)
    source = prepare_source(_canvas(flat, labels), strokes, GuideWeights())
    nothing = np.zeros((size, size, 3), np.float32)
    wanted = _canvas(flat, np.ascontiguousarray(labels[:, ::-1]))
    out = lay_strokes(source, wanted, nothing, nothing[..., 0])
    again = lay_strokes(source, wanted, nothing, nothing[..., 0])
    assert np.array_equal(out, again)
    left, right = out[8:-8, 8:40, 0], out[8:-8, 56:-8, 0]
    # Swapped: horizontal bands now left, upright ones right.
    assert left.mean(1).std() > 3 * left.mean(0).std()
    assert right.mean(0).std() > 3 * right.mean(1).std()
    assert right.std() == pytest.approx(strokes[:, :40, 0].std(), rel=0.3)


def test_a_mark_that_stands_out_from_all_others_is_not_copied():
    size = 96
    labels = np.zeros((size, size, 3), np.float32)
    labels[..., 1] = 1
    strokes = np.zeros((size, size, 3), np.float32)
    strokes[..., 0] = 3 * _stripes(size, 6, 0.3)
    strokes[40:48, 40:60, 0] = -30
    flat = np.full((size, size), 50, np.float32)
    source = prepare_source(_canvas(flat, labels), strokes, GuideWeights())
    assert not source.usable[42:46, 42:58].any()
    assert source.usable[8:-8, 8:-8].mean() > 0.8
    nothing = np.zeros((size, size, 3), np.float32)
    out = lay_strokes(source, _canvas(flat, labels), nothing, nothing[..., 0])
    assert out[8:-8, 8:-8, 0].min() > -8


def test_strokes_that_lie_already_stay():
    size = 64
    labels = _halves(size)
    strokes = np.repeat(5 * _stripes(size, 7, 0.4)[..., None], 3, axis=2)
    canvas = _canvas(np.full((size, size), 50, np.float32), labels)
    source = prepare_source(canvas, strokes, GuideWeights())
    fixed = np.zeros((size, size), np.float32)
    fixed[:, :30] = 1
    known = np.full((size, size, 3), 3.0, np.float32)
    out = lay_strokes(source, canvas, known, fixed)
    assert np.allclose(out[:, :30], 3.0, atol=1e-4)
    assert out[8:-8, 40:-8].std() > 1


def test_smooth_part_and_strokes_add_up():
    lab = np.zeros((60, 60, 3), np.float32)
    lab[:, 30:, 0] = 60
    lab[..., 0] += 4 * _stripes(60, 5, 1.0)
    smooth, strokes = split_strokes(lab, 3.0, 16.0)
    assert np.allclose(smooth + strokes, lab, atol=1e-4)
    assert np.abs(smooth[10:-10, 36:-10, 0] - 60).max() < 3  # the edge of 60 stayed in the smooth
    assert strokes[10:-10, 10:24, 0].std() > 1.5
