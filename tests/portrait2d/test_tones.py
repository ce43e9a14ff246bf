from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.framewarp import BentSurface, warp_frame
from toonify3d.portrait2d.hatching import (
    PERIOD,
    PLANES,
    DrawnFrame,
    contours,
    hair_lights,
    hatching,
    sharp_label,
)
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.strokeshift import PATCH, every_pixel, whole_strokes
from toonify3d.portrait2d.tones import as_seen, tone_curve
from toonify3d.progress import SilentProgress


def test_a_tone_curve_gives_the_painting_s_lightness_and_tears_nothing():
    rng = np.random.default_rng(3)
    source = rng.normal(60, 12, 4000)
    light = rng.normal(40, 15, 4000)
    target = np.stack([light, 0.4 * light, 30 - 0.5 * light], 1).astype(np.float32)
    curve = tone_curve(source, target, 1.0)
    out = curve(source.astype(np.float32))
    assert out[:, 0].mean() == pytest.approx(40, abs=1.5)
    assert out[:, 0].std() == pytest.approx(15, rel=0.12)
    assert np.abs(out[:, 1] - 0.4 * out[:, 0]).mean() < 1.5
    steps = np.diff(curve.light(np.linspace(0, 100, 201, dtype=np.float32))) / 0.5
    assert steps.min() >= 0 and steps.max() < 1.6


def test_a_flat_face_is_not_torn_to_a_contrasty_painting():
    source = np.random.default_rng(0).normal(60, 1, 2000)
    target = np.zeros((2000, 3), np.float32)
    target[:, 0] = np.linspace(5, 95, 2000)
    assert tone_curve(source, target, 1.0).light(source.astype(np.float32)).std() < 1.8


def test_what_turns_away_counts_less():
    light, facing = np.repeat([20.0, 60.0], [1000, 1000]), np.repeat([0.1, 0.9], [1000, 1000])
    seen = as_seen(light, facing)
    assert len(seen) == 2000 and (np.diff(seen) >= 0).all()
    assert (seen < 40).mean() == pytest.approx(0.1, abs=0.01)
    even = as_seen(light[::-1], np.ones(2000))
    assert np.abs(even - light).max() < 1e-9
    assert as_seen(light[:0], facing[:0]).size == 0


def _lit_painting(folder, side):
    image, at = draw_face(face_landmarks(), 400, 92.0)
    shade = 0.45 + 0.55 * np.clip(np.linspace(-0.2, 1.2, 400), 0, 1)
    shade = shade if side == "right" else shade[::-1]
    image = (image * shade[None, :, None]).astype(np.uint8)
    write_image(folder / f"{side}.png", image)
    (folder / f"{side}.json").write_text(json.dumps(at.tolist()))
    return folder / f"{side}.png", folder / f"{side}.json"


@pytest.fixture(scope="module")
def person(subject):
    scene, mesh = subject
    return pipeline.study_person(scene, mesh, SilentProgress())


def _stylize(subject, person, paths, folder, frames, **chosen):
    scene, mesh = subject
    return pipeline.stylize_views(
        scene,
        mesh,
        paths[0],
        folder,
        StylizeSettings(**chosen),
        SilentProgress(),
        landmarks_file=paths[1],
        frames=frames,
        person=person,
    )


def test_the_painted_light_falls_on_the_person(subject, person, tmp_path):
    scene, _ = subject
    frame = min(scene.frames, key=lambda f: abs(f.yaw))
    tips = frame.camera.project(scene.landmarks[[123, 352]])[0].astype(int)  # the cheeks
    lightness = {}
    for side in ("left", "right"):
        paths = _lit_painting(tmp_path, side)
        chosen = {"look": "paint", "strokes": 0.0, "strength": 0.0}
        view = _stylize(subject, person, paths, tmp_path / side, [frame], **chosen).views[0]
        light = cv2.blur(to_lab(view.image)[..., 0], (9, 9))
        lightness[side] = [float(light[y, x]) for x, y in tips]
    assert lightness["right"][1] > lightness["right"][0] + 6
    assert lightness["left"][0] > lightness["left"][1] + 6


def _front(subject, person, paths, folder):
    """The stylized front (CIELAB, no strokes, the person's shape) and its region map."""
    frame = min(subject[0].frames, key=lambda f: abs(f.yaw))
    chosen = {"look": "paint", "strokes": 0.0, "strength": 0.0}
    view = _stylize(subject, person, paths, folder, [frame], **chosen).views[0]
    surface = person.mesh, person.mesh.vertices, person.caster, person.caster
    labels = np.stack([person.regions.skin, person.regions.hair, person.regions.clothes], 1)
    bent = BentSurface(*surface, labels.astype(np.float32))
    regions = warp_frame(bent, frame.camera, view.image, view.mask).attributes
    return to_lab(view.image), regions * (view.mask > 250)[..., None]


def test_clothes_between_long_hair_give_the_clothes_their_tone(subject, person, tmp_path):
    image, at = draw_face(face_landmarks(), 400, 92.0)
    chin = int(at[lm.CHIN, 1])
    image[chin:, 40:360] = (60, 30, 15)
    image[chin + 20 :, 130:270] = (225, 230, 240)
    write_image(tmp_path / "long.png", image)
    (tmp_path / "long.json").write_text(json.dumps(at.tolist()))
    paths = tmp_path / "long.png", tmp_path / "long.json"
    lab, regions = _front(subject, person, paths, tmp_path / "out")
    worn = regions[..., 2] > 0.6
    assert worn.sum() > 100
    assert np.median(lab[worn][:, 0]) > 35


def test_ink_agrees_between_frames(subject, person, tmp_path):
    scene, _ = subject
    image, at = draw_face(face_landmarks(), 400, 92.0)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    image = np.repeat(np.where(gray > 120, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    write_image(tmp_path / "ink.png", image)
    (tmp_path / "ink.json").write_text(json.dumps(at.tolist()))
    frames = [min(scene.frames, key=lambda f, y=y: abs(f.yaw - y)) for y in (0.0, 0.1)]
    paths = (tmp_path / "ink.png", tmp_path / "ink.json")
    result = _stylize(subject, person, paths, tmp_path / "out", frames)
    points = result.displacement.points + result.displacement.offsets
    points = points[points[:, 1] < np.quantile(points[:, 1], 0.15)]
    one, two = (
        to_lab(view.image)[tuple(view.frame.camera.project(points)[0].astype(int).T[::-1])][:, 0]
        for view in result.views
    )
    assert one.std() > 10
    assert np.corrcoef(one, two)[0, 1] > 0.8


def _plane(size=240, unit=60.0):
    rows, columns = np.mgrid[:size, :size]
    x, y = (columns - size / 2) / unit, (size / 2 - rows) / unit
    return np.stack([x, y, np.zeros_like(x)], 2).astype(np.float32)


@pytest.mark.parametrize("darkness", [0.2, 0.35, 0.5])
def test_hatching_covers_as_much_as_the_tone_asks(darkness):
    local = _plane()
    lines = hatching(local, np.full(local.shape[:2], darkness, np.float32))
    assert lines.mean() == pytest.approx(darkness, abs=0.06)
    assert lines.std() > 0.3 * np.sqrt(darkness)
    assert hatching(local, np.zeros(local.shape[:2], np.float32)).max() == 0


@pytest.mark.parametrize("plane", [0, 1])
def test_hatching_has_no_rings_where_its_planes_touch_the_form(plane):
    size, unit, radius = 300, 80.0, 1.6
    toward = PLANES[plane] / np.linalg.norm(PLANES[plane])
    right = np.cross([0.0, 0.0, 1.0], toward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(toward, right), toward])
    rows, columns = (np.mgrid[:size, :size] - size / 2) / unit
    ahead = np.sqrt(np.maximum(radius**2 - rows**2 - columns**2, 0.0))
    local = (np.stack([columns, -rows, ahead], 2) @ axes).astype(np.float32)
    opacity = hatching(local, np.full((size, size), 0.4, np.float32))
    middle = np.hypot(rows, columns) < 0.6
    bare = cv2.distanceTransform((opacity < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    assert bare[middle].max() < 0.8 * PERIOD * unit
    assert opacity[middle].mean() == pytest.approx(0.4, abs=0.12)


def _drawn(light, labels):
    nothing = np.zeros(light.shape, np.float32)
    cover = np.zeros_like(nothing)
    cover[6:-6, 6:-6] = 1
    return DrawnFrame(light, labels, _plane(len(light)), nothing, cover, 60.0)


def test_creases_become_lines_and_spots_do_not():
    light = np.full((240, 240), 75, np.float32)
    light[100:103, 60:180] = 35
    light[160:163, 60:63] = 30
    labels = np.zeros((240, 240, 3), np.float32)
    labels[..., 0] = 1
    lines = contours(_drawn(light, labels))
    assert lines[101, 80:160].min() > 0.8
    assert lines[150:175, 50:75].max() < 0.1
    assert lines[20:90].max() < 0.1


def test_hair_keeps_streaks_of_light_but_a_closed_edge():
    light = np.full((240, 240), 25, np.float32)
    light[80:88, 40:200] = 70
    light[150:152, 100:102] = 80
    labels = np.zeros((240, 240, 3), np.float32)
    labels[20:-20, 20:-20, 1] = 1
    labels[..., 0] = 1 - labels[..., 1]
    light[labels[..., 1] < 0.5] = 80
    lights = hair_lights(_drawn(light, labels))
    assert lights[84, 60:180].min() > 0.5
    assert lights[140:160, 90:110].max() < 0.1
    assert lights[labels[..., 1] > 0.5].mean() < 0.12
    assert lights[20:23, :].max() < 0.1


def test_a_soft_label_gets_a_border_of_one_pixel():
    soft = np.clip((np.arange(100, dtype=np.float32) - 30) / 40, 0, 1)
    sharp = sharp_label(np.repeat(soft[None], 20, axis=0))
    assert ((sharp[10] > 0.05) & (sharp[10] < 0.95)).sum() <= 2
    assert sharp[10, 40] == 0 and sharp[10, 60] == 1


def test_scattered_sources_are_drawn_into_whole_strokes():
    shape = (61, 61)
    grid = np.arange(PATCH, 61 - PATCH, 2)
    spots = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    shift = np.array([10, 5])
    places = spots + shift
    rng = np.random.default_rng(1)
    lone = rng.random(len(spots)) < 0.15
    places[lone] = rng.integers(5, 90, (int(lone.sum()), 2))
    usable = np.ones((100, 100), bool)
    out = whole_strokes(usable, spots, places, shape)
    assert (np.abs(out - spots - shift).max(1) <= 1).mean() > 0.97
    blocked = spots[np.flatnonzero(lone)[0]] + shift
    usable[blocked[0], blocked[1]] = False
    again = whole_strokes(usable, spots, places, shape)
    assert not (again == blocked).all(1).any()
    target, source = every_pixel(usable.shape, spots, out, shape)
    assert len(np.unique(target, axis=0)) == len(target) > 3.7 * len(spots)
    assert (target >= PATCH).all() and (source <= 99 - PATCH).all()
