"""The person's calm colours, which stage III gets beside a toon's portraits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from portrait2d_person import draw_face, face_landmarks

from toonify3d.calm_colors import FILE, CalmColors, load_calm_colors, save_calm_colors
from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.store import load_stylized
from toonify3d.progress import SilentProgress
from toonify3d.room import Room
from toonify3d.room_light import RoomLight, remove_light
from toonify3d.scene import Normalization
from toonify3d.snr.light_grid import LightGrid


@pytest.fixture(scope="module")
def person(subject):
    """With stubble: every vertex a little lighter or darker."""
    scene, mesh = subject
    known = pipeline.study_person(scene, mesh, SilentProgress())
    lab = known.observed.lab.copy()
    lab[:, 0] += np.random.default_rng(5).normal(0, 4, len(lab))
    return replace(known, observed=replace(known.observed, lab=lab))


def _stylize(subject, person, folder, look):
    scene, mesh = subject
    image, at = draw_face(face_landmarks(), 400, 92.0)
    write_image(folder / "exemplar.png", image)
    (folder / "at.json").write_text(json.dumps(at.tolist()))
    return pipeline.stylize_views(
        scene,
        mesh,
        folder / "exemplar.png",
        folder / "out",
        StylizeSettings(look=look),
        SilentProgress(),
        landmarks_file=folder / "at.json",
        frames=[min(scene.frames, key=lambda f: abs(f.yaw))],
        person=person,
    )


def test_a_toon_brings_calm_colours_and_a_painting_none(subject, person, tmp_path):
    made = _stylize(subject, person, tmp_path, "toon")
    calm = load_stylized(tmp_path / "out", subject[0]).calm
    assert made.calm is not None and calm is not None
    assert np.abs(calm.color - made.calm.color).max() < 0.01
    local = person.frame.to_face(calm.points)
    own = person.frame.to_face(person.world)
    skin = person.regions.skin[::2] > 0.98
    cheek = skin & (calm.weight > 0.95) & (local[:, 2] > 0)
    assert cheek.sum() > 100
    before = person.observed.lab[::2][cheek]
    after = to_lab(calm.color * 255)[cheek]
    near = np.argsort(np.linalg.norm(local[cheek] - local[cheek][0], axis=1))[:60]
    assert after[near, 0].std() < 0.3 * before[near, 0].std()
    assert np.abs(after.mean(0) - before.mean(0)).max() < 2.5
    for part in (lm.LEFT_EYE, lm.RIGHT_BROW, lm.LIPS_OUTER):
        there = np.linalg.norm(local[:, :2] - own[list(part), :2].mean(0), axis=1) < 0.06
        assert calm.weight[there & (local[:, 2] > 0)].max() < 0.05
    behind = skin & (local[:, 2] < local[:, 2].min() + 0.3)
    assert not behind.any() or calm.weight[behind].min() > 0.9
    _stylize(subject, person, tmp_path, "paint")
    assert load_calm_colors(tmp_path / "out") is None
    assert not (tmp_path / "out" / FILE).exists()


def _grid_of(weight, light=True):
    points = np.random.default_rng(1).uniform(-0.1, 0.1, (400, 3))
    gain = np.tile([0.3, 0.2, 0.1], (400, 1))
    color = np.tile(np.float32([0.8, 0.5, 0.4]), (400, 1))
    calm = CalmColors(points, color, np.full(400, weight, np.float32))
    room = RoomLight(points, gain) if light else None
    return room, calm, LightGrid.of(room, Normalization(np.zeros(3), 0.2), "cpu", calm)


def test_the_grid_gives_calm_colours_as_far_as_they_count():
    places, color = torch.zeros(5, 3), torch.full((5, 3), 0.6)
    gain = np.tile([0.3, 0.2, 0.1], (5, 1))
    bare = remove_light(color.numpy(), gain)
    for weight in (0.0, 0.4, 1.0):
        _, _, grid = _grid_of(weight)
        expected = bare + weight * (np.array([0.8, 0.5, 0.4]) - bare)
        assert np.abs(grid(places, color).numpy() - expected).max() < 2e-3
        assert np.abs(grid.gain(places).numpy() - gain).max() < 2e-3
        again = LightGrid.from_state(grid.export_state())
        assert torch.equal(again(places, color), grid(places, color))
    _, _, alone = _grid_of(0.4, light=False)
    expected = 0.6 + 0.4 * (np.array([0.8, 0.5, 0.4]) - 0.6)
    assert np.abs(alone(places, color).numpy() - expected).max() < 2e-3


def test_calm_colours_count_without_any_light(subject, tmp_path):
    scene, mesh = subject
    room = Room(scene, mesh, tmp_path / "light.npz", SilentProgress())
    _, calm, _ = _grid_of(1.0)
    assert room.grid(0.0, "cpu") is None
    found = room.grid(0.0, "cpu", calm)
    assert found is not None
    place = torch.tensor(scene.normalization.to_unit(calm.points[:3]), dtype=torch.float32)
    assert np.allclose(found(place, torch.zeros(3, 3)).numpy(), calm.color[:3], atol=3e-3)


def test_an_earlier_file_goes_when_there_are_none(tmp_path):
    _, calm, _ = _grid_of(0.5)
    save_calm_colors(tmp_path, calm)
    known = load_calm_colors(tmp_path)
    assert known is not None and np.abs(known.weight - 0.5).max() < 0.003
    save_calm_colors(tmp_path, None)
    assert load_calm_colors(tmp_path) is None
