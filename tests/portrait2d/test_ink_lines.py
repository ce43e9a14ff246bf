"""Which lines an inked person has, decided once from all photos."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from portrait2d_person import UNIT, draw_face, egg_to_face, face_landmarks, make_subject
from scipy.spatial import cKDTree

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.creases import crease_darkness
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.inklines import PersonRules, ink_strokes
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress

CHEEK = -0.31
"""y of a fold on the person's left cheek."""
AT_EYE = (0.34, 0.5, 0.68)
"""y of the lines that a photo shows round an eye."""


def _folds(local: np.ndarray, colors: np.ndarray) -> None:
    front = local[:, 2] > -0.6
    aside = np.abs(local[:, 0] - 0.72)
    # A triangle has the colour of its first corner: the fold lies between two rows of vertices.
    fold = (np.abs(local[:, 1] - CHEEK - 0.06) < 0.05) & (aside < 0.3)
    for height in AT_EYE:
        fold |= (np.abs(local[:, 1] - height) < 0.05) & (np.abs(local[:, 0] - 0.5) < 0.3)
    colors[front & fold] = (70, 50, 40)


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """Scene, person and what :func:`ink_strokes` needs of an egg with folds on it."""
    folder = tmp_path_factory.mktemp("folded")
    scene, mesh = make_subject(folder, _folds)
    image, at = draw_face(face_landmarks(), 400, 92.0)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    inked = np.repeat(np.where(gray > 120, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    write_image(folder / "ink.png", inked)
    (folder / "ink.json").write_text(json.dumps(at.tolist()))
    style = load_exemplar(folder / "ink.png", folder / "ink.json", "ink")
    settings = StylizeSettings(look="ink", strength=0.0)
    person = pipeline.study_person(scene, mesh, SilentProgress())
    change = pipeline.change_shape(person, style, settings)
    surface, look = pipeline._prepare(person, style, change, scene.frames, settings)
    return SimpleNamespace(scene=scene, person=person, change=change, surface=surface, look=look)


def _lines(folded, frames):
    return ink_strokes(
        folded.scene,
        frames,
        folded.surface,
        folded.look,
        folded.change.frame,
        folded.change.targets,
    )


def test_all_photos_together_say_how_dark_a_crease_is(folded):
    scene, person = folded.scene, folded.person
    dark = crease_darkness(scene, scene.frames, person.mesh, person.caster, person.frame)
    local = egg_to_face(person.mesh.vertices)
    front = local[:, 2] > -0.6
    fold = front & (np.abs(local[:, 1] - CHEEK) < 0.03) & (np.abs(local[:, 0] - 0.72) < 0.2)
    other_cheek = front & (np.abs(local[:, 1] - CHEEK) < 0.1) & (np.abs(local[:, 0] + 0.72) < 0.2)
    assert np.median(dark[fold]) > 8
    assert np.abs(dark[other_cheek]).max() < 1


def _on_cheek(folded, points):
    """Points near the fold, in the egg's units."""
    local = egg_to_face(folded.change.frame.to_world(points))
    return local[(np.abs(local[:, 1] - CHEEK) < 0.15) & (np.abs(local[:, 0] - 0.72) < 0.4)]


def test_photos_from_different_sides_give_the_same_line(folded):
    frames = folded.scene.frames
    left = [f for f in frames if 0.3 < f.yaw < 1.3]
    right = [f for f in frames if -0.5 < f.yaw < 0.3]
    one, two = (_on_cheek(folded, _lines(folded, part).points) for part in (left, right))
    assert np.ptp(one[:, 0]) > 0.35 and np.ptp(two[:, 0]) > 0.35
    far, _ = cKDTree(one).query(two[np.abs(two[:, 0] - 0.72) < 0.15])
    assert far.max() < 0.05


def test_round_a_drawn_eye_there_are_no_further_lines(folded):
    points = egg_to_face(folded.change.frame.to_world(_lines(folded, folded.scene.frames).points))
    assert len(points[(np.abs(points[:, 1] - CHEEK) < 0.1) & (points[:, 2] > -0.6)]) > 20
    eye = np.linalg.norm((points[:, :2] - [0.5, 0.5]) / [0.4, 0.3], axis=1) < 1
    assert not (eye & (points[:, 2] > -0.6)).any()


def test_the_jaw_is_drawn_and_a_face_without_creases_has_a_nose(folded):
    points = _lines(folded, folded.scene.frames).points
    targets = folded.change.targets
    for index in (lm.JAW[len(lm.JAW) // 2], lm.NOSE_BASE[len(lm.NOSE_BASE) // 2]):
        assert np.linalg.norm(points[:, :2] - targets[index, :2], axis=1).min() < 0.1


def _rules(left: float = 100.0) -> PersonRules:
    points = face_landmarks()
    ears = np.array([[1.4, 0.3, -1.5], [1.4, 0.3, -1.7]])
    return PersonRules(points, cKDTree(ears), np.array([0.5, -0.9]), left)


def _line(x: float, y: float, z: float, length: float) -> np.ndarray:
    along = np.linspace(-0.5, 0.5, round(100 * length)) * length
    return np.stack([x + along, 0 * along + y, 0 * along + z], 1)


def test_under_the_lips_lies_one_short_stroke():
    rules = _rules()
    first = rules(_line(0.02, -0.75, 0.2, 0.6))
    assert first is not None and np.ptp(first[:, 0]) == pytest.approx(0.35, abs=0.02)
    assert rules(_line(0.0, -0.85, 0.2, 0.5)) is None
    assert rules(_line(0.8, -0.75, 0.2, 0.5)) is not None


def test_an_ear_has_few_lines_and_its_back_one():
    rules = _rules()
    front, back = _line(1.4, 0.3, -1.5, 0.3), _line(1.4, 0.3, -1.7, 0.3)
    assert [rules(front) is not None for _ in range(6)] == [True] * 4 + [False] * 2
    assert [rules(back) is not None for _ in range(2)] == [True, False]


def test_a_face_has_no_more_creases_than_its_share_of_ink():
    rules = _rules(left=1.0)
    drawn = [rules(_line(0.7, y, 0.0, 0.4)) is not None for y in (-0.1, -0.2, -0.3, -0.4)]
    assert drawn == [True, True, False, False]
    assert not rules.nose
    assert _rules()(_line(0.0, -0.08, 0.3, 0.2)) is not None


def test_unit_of_the_made_up_person_is_the_eye_distance(folded):
    assert folded.person.frame.unit == pytest.approx(UNIT, rel=0.05)
