from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from portrait2d_person import UNIT, draw_face, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline, shape
from toonify3d.portrait2d.clicks import mean_face
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.person_face import frontal_viewpoint, locate_face, on_surface
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery

INNER = np.setdiff1d(np.arange(478), lm.FACE_OVAL)
FEATURES = sorted({i for name, ids in shape.COMPONENTS.items() if name != "oval" for i in ids})


def _off_the_surface(scene, amount):
    """Landmarks wrong by ``amount`` eye distances in depth as seen from the front, by turns."""
    away = scene.landmarks - frontal_viewpoint(scene.frames)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    sign = np.where(np.arange(478) % 2 == 0, 1.0, -1.0)
    return scene.landmarks + amount * UNIT * sign[:, None] * away


def _gaps(caster, points):
    return caster.closest(points).distance / UNIT


def test_features_lie_on_the_surface_where_the_frontal_frames_show_them(subject):
    scene, mesh = subject
    caster = MeshQuery(mesh.vertices, mesh.faces)
    wrong = replace(scene, landmarks=_off_the_surface(scene, 0.05))
    person = pipeline.study_person(wrong, mesh, SilentProgress())
    assert np.median(_gaps(caster, wrong.landmarks)[FEATURES]) > 0.04
    assert _gaps(caster, person.world)[FEATURES].max() < 0.002
    front = min(scene.frames, key=lambda f: abs(f.yaw)).camera
    shift = front.project(person.world)[0] - front.project(wrong.landmarks)[0]
    assert np.abs(shift).max() < 0.02 * front.K[0, 0] * UNIT / 0.75  # 2 % of the eyes' distance
    left, right = list(lm.LEFT_EYE), list(lm.RIGHT_EYE)
    assert abs(person.world[left, 2].mean() - person.world[right, 2].mean()) < 0.01 * UNIT


def test_the_outline_stays_where_it_is_seen(subject):
    scene, mesh = subject
    caster = MeshQuery(mesh.vertices, mesh.faces)
    wrong = replace(scene, landmarks=_off_the_surface(scene, 0.09))
    frame, world = locate_face(wrong, caster)
    assert np.array_equal(world[list(lm.FACE_OVAL)], wrong.landmarks[list(lm.FACE_OVAL)])
    assert frame.unit == shape.face_frame(wrong.landmarks).unit


def test_a_strand_over_the_brow_takes_no_landmark_along(subject):
    scene, mesh = subject
    brow = list(lm.LEFT_BROW)
    at = scene.landmarks[brow]
    low, high = at.min(0) - 0.1 * UNIT, at.max(0) + 0.1 * UNIT
    for gap, taken in ((0.3, False), (0.19, False), (0.05, True)):
        front = at[:, 1].min() - gap * UNIT  # the face looks along -y
        strand = np.array([[x, front, z] for x in (low[0], high[0]) for z in (low[2], high[2])])
        start = len(mesh.vertices)
        faces = np.concatenate([mesh.faces, start + np.array([[0, 1, 2], [2, 1, 3]])])
        caster = MeshQuery(np.concatenate([mesh.vertices, strand]), faces)
        world = locate_face(scene, caster)[1]
        moved = np.linalg.norm(world - scene.landmarks, axis=1)[brow].max() / UNIT
        assert (moved > 0.04) == taken, gap
        if not taken:
            assert moved < 0.03


def test_neighbours_are_not_torn_apart_at_the_limit(subject):
    scene, mesh = subject
    caster = MeshQuery(mesh.vertices, mesh.faces)
    view = frontal_viewpoint(scene.frames)
    nose = scene.landmarks[lm.NOSE_TIP]
    away = (nose - view) / np.linalg.norm(nose - view)
    depths = np.linspace(0.0, 0.3, 301)
    points = np.tile(nose, (478, 1))
    points[INNER[: len(depths)]] += depths[:, None] * UNIT * away
    depth = (on_surface(points, UNIT, view, caster) - nose)[INNER[: len(depths)]] @ away / UNIT
    assert np.abs(depth[depths < 0.11]).max() < 0.01
    assert np.allclose(depth[depths > 0.2], depths[depths > 0.2], atol=0.01)
    assert np.abs(np.diff(depth)).max() < 10 * (depths[1] - depths[0])


def test_cameras_far_from_the_front_do_when_there_is_none_better(subject):
    scene, _ = subject
    side = [frame for frame in scene.frames if 0.5 < frame.yaw < 2.0]
    nearest = min(side, key=lambda frame: frame.yaw)
    assert np.array_equal(frontal_viewpoint(side), nearest.camera.center)
    front = frontal_viewpoint(scene.frames)
    assert front[1] < -0.7 and abs(front[0]) < 0.05


@pytest.fixture
def like_anyone(tmp_path):
    """An exemplar with the mean face's proportions."""
    image, _ = draw_face(face_landmarks(), 480, 110.0)
    at = mean_face() * [110.0, -110.0, -110.0] + [240.0, 240.0, 0.0]
    write_image(tmp_path / "anyone.png", image)
    (tmp_path / "points.json").write_text(json.dumps(at.tolist()))
    style = load_exemplar(tmp_path / "anyone.png", tmp_path / "points.json")
    return replace(style, points=at)  # as drawn: eyes were measured in the picture


def test_an_exemplar_like_anyone_leaves_the_person_alone(subject, like_anyone):
    scene, mesh = subject
    person = pipeline.study_person(scene, mesh, SilentProgress())
    change = pipeline.change_shape(person, like_anyone, StylizeSettings(relative_to="mean"))
    assert np.abs(change.targets - change.landmarks).max() < 1e-3
    assert change.notes == ()
    change = pipeline.change_shape(person, like_anyone, StylizeSettings(relative_to="person"))
    assert np.abs(change.targets - change.landmarks).max() > 0.1
