from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from portrait2d_person import UNIT, face_landmarks

from toonify3d.capture import landmarks as lm
from toonify3d.errors import InputError
from toonify3d.portrait2d import shape
from toonify3d.portrait2d.field import MIN_JACOBIAN, Controls, RadialLevel, fit_field
from toonify3d.portrait2d.settings import StylizeSettings


def _big_eyes(points: np.ndarray, factor: float) -> np.ndarray:
    out = points.copy()
    for ids in (lm.LEFT_EYE + lm.LEFT_IRIS, lm.RIGHT_EYE + lm.RIGHT_IRIS):
        center = out[list(ids)].mean(0)
        out[list(ids)] = center + factor * (out[list(ids)] - center)
    return out


def _largest(moves: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(m).max()) for m in moves.values())


def test_same_shape_asks_for_no_move():
    face = face_landmarks()
    assert _largest(shape.target_offsets(face, face, StylizeSettings(strength=1.5))) < 1e-9


def test_strength_zero_asks_for_no_move():
    face = face_landmarks()
    moves = shape.target_offsets(face, _big_eyes(face, 2.0), StylizeSettings(strength=0.0))
    assert _largest(moves) < 1e-9


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 1.4), st.floats(0.02, 0.1), st.floats(1.1, 2.0))
def test_more_strength_moves_more(strength, more, factor):
    face = face_landmarks()
    style = _big_eyes(face, factor)
    low = shape.target_offsets(face, style, StylizeSettings(strength=strength))["left_eye"]
    high = shape.target_offsets(face, style, StylizeSettings(strength=strength + more))["left_eye"]
    assert np.linalg.norm(high) > np.linalg.norm(low)


def test_strength_one_reaches_the_exemplars_eye_size():
    face = face_landmarks()
    style = _big_eyes(face, 1.5)
    ids = list(shape.COMPONENTS["left_eye"])
    moved = face[ids] + shape.target_offsets(face, style, StylizeSettings(strength=1.0))["left_eye"]
    assert np.ptp(moved[:, 0]) == pytest.approx(1.5 * np.ptp(face[ids, 0]), rel=0.02)


def test_a_component_weight_of_zero_leaves_only_that_component():
    face = face_landmarks()
    style = _big_eyes(face, 1.6)
    style[list(lm.FACE_OVAL), 0] *= 1.2
    moves = shape.target_offsets(face, style, StylizeSettings(eyes_weight=0.0))
    assert np.abs(moves["left_eye"]).max() < 1e-9
    assert np.abs(moves["oval"]).max() > 0.02


def test_the_jaw_has_a_weight_of_its_own():
    face = face_landmarks()
    style = face.copy()
    style[list(lm.FACE_OVAL), 0] *= 1.3
    plain = shape.target_offsets(face, style, StylizeSettings())["oval"]
    kept = shape.target_offsets(face, style, StylizeSettings(jaw_weight=0.0))["oval"]
    height = face[list(lm.FACE_OVAL), 1]
    upper = height > height.mean()
    assert np.array_equal(kept[upper], plain[upper])
    low = height < np.quantile(height, 0.2)
    assert np.abs(kept[low]).max() < 1e-9 < np.abs(plain[low]).max()
    only_jaw = shape.target_offsets(face, style, StylizeSettings(oval_weight=0.0))["oval"]
    assert np.allclose(only_jaw[low], plain[low]) and np.abs(only_jaw[upper]).max() < 1e-9


def test_a_smile_is_not_transferred_unless_asked():
    face = face_landmarks()
    style = face.copy()
    mouth = list(shape.COMPONENTS["mouth"])
    style[mouth, 1] += 0.8 * style[mouth, 0] ** 2  # corners up
    style[mouth, 1] -= style[mouth, 1].mean() - face[mouth, 1].mean()
    corner = shape.COMPONENTS["mouth"].index(291)
    off = shape.target_offsets(face, style, StylizeSettings(strength=1.0))["mouth"]
    on = shape.target_offsets(face, style, StylizeSettings(strength=1.0, expression=1.0))["mouth"]
    assert on[corner, 1] > off[corner, 1] + 0.03


def test_shut_eyes_are_not_opened():
    face = face_landmarks()
    shut = face.copy()
    for contour in (lm.LEFT_EYE, lm.RIGHT_EYE):
        ids = list(contour)
        shut[ids, 1] = shut[ids, 1].mean() + 0.1 * (shut[ids, 1] - shut[ids, 1].mean())
    moves = shape.target_offsets(shut, _big_eyes(face, 1.5), StylizeSettings(strength=1.0))
    moved = shut.copy()
    for name in ("left_eye", "right_eye"):
        moved[list(shape.COMPONENTS[name])] += moves[name]
    assert max(shape.eye_opening(moved)) < shape.CLOSED_OPENING
    assert min(shape.eye_opening(face)) > shape.CLOSED_OPENING


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(0.5, 300.0))
def test_pose_and_scale_of_the_exemplar_do_not_matter(yaw, roll, scale):
    face = face_landmarks()
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(roll), np.sin(roll)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn
    aligned, _ = shape.align_exemplar(scale * face @ turn.T + [5.0, 9.0, 1.0], face)
    assert np.abs(aligned - face).max() < 1e-6


def test_yaw_sign_names_the_better_half():
    face = face_landmarks()
    angle = -0.4  # the person's left half comes forward
    c, s = np.cos(angle), np.sin(angle)
    seen = face @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    _, yaw = shape.align_exemplar(seen, face)
    assert yaw == pytest.approx(0.4, abs=1e-3)
    lopsided = face.copy()
    lopsided[list(lm.LEFT_EYE), 1] += 0.3
    both = shape.symmetrize(lopsided, 1.0)
    assert both[lm.RIGHT_EYE[0], 1] == pytest.approx(lopsided[lm.LEFT_EYE[0], 1])


def test_face_frame_axes():
    local = face_landmarks()
    world = np.stack([local[:, 0], -local[:, 2], local[:, 1]], 1) * UNIT + [0.1, 0.2, 1.5]
    frame = shape.face_frame(world)
    assert (np.diag(frame.rotation @ [[1, 0, 0], [0, 0, -1], [0, 1, 0]]) > 0.99).all()
    assert np.allclose(frame.to_world(frame.to_face(world)), world)
    assert frame.unit == pytest.approx(UNIT, rel=0.02)
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turned = shape.face_frame(2.0 * world @ turn.T)
    assert np.allclose(turned.to_face(2.0 * world @ turn.T), frame.to_face(world))


def test_missing_landmarks_come_from_the_mirror_image():
    face = face_landmarks()
    holed = face.copy()
    lost = [*lm.LEFT_EYE, *lm.LIPS_OUTER[1:4]]
    holed[lost] = np.nan
    filled = shape.complete_landmarks(holed)
    assert np.abs(filled[lost] - face[lost]).max() < 0.05
    with pytest.raises(InputError) as caught:
        shape.complete_landmarks(np.full((478, 3), np.nan))
    assert caught.value.code == "no_face"


def _controls(moves: dict[str, np.ndarray], face: np.ndarray) -> Controls:
    names = [n for n in shape.COMPONENTS if n != "oval"]
    return Controls(
        face[list(lm.FACE_OVAL)],
        moves["oval"],
        np.concatenate([face[list(shape.COMPONENTS[n])] for n in names]),
        np.concatenate([moves[n] for n in names]),
        np.array([[x, y, -3.0] for x in (-1, 0, 1) for y in (-1, 0, 1)], float),
        1.0,
    )


def test_field_reaches_its_targets_and_ends():
    face = face_landmarks()
    moves = shape.target_offsets(face, _big_eyes(face, 1.5), StylizeSettings())
    field, kept = fit_field(_controls(moves, face), face)
    ids = list(lm.LEFT_EYE)
    wanted = moves["left_eye"][: len(ids)]
    error = np.linalg.norm(field(face[ids]) - wanted, axis=1)
    assert kept == 1.0
    assert error.max() < 0.3 * np.linalg.norm(wanted, axis=1).max()
    assert np.abs(field(np.array([[0.0, 0.0, -6.0]]))).max() == 0.0


def test_a_move_that_would_fold_is_reduced():
    face = face_landmarks()
    moves = {n: np.zeros((len(i), 3)) for n, i in shape.COMPONENTS.items()}
    moves["left_eye"][:, 0] = -0.8  # straight into the nose
    moves["right_eye"][:, 0] = 0.8
    controls = _controls(moves, face)
    field, kept = fit_field(controls, face)
    assert kept < 1.0
    assert field.determinant(face).min() >= MIN_JACOBIAN
    raw = RadialLevel.fit(controls.features, controls.feature_offsets, 1.0, 2e-2)
    assert np.linalg.det(np.eye(3) + raw.jacobian(face)).min() < MIN_JACOBIAN


def test_jacobian_matches_differences():
    rng = np.random.default_rng(0)
    level = RadialLevel(rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), 2.0)
    x, h = rng.normal(size=(5, 3)) * 0.5, 1e-5
    numeric = np.stack([(level(x + h * e) - level(x - h * e)) / (2 * h) for e in np.eye(3)], axis=2)
    assert np.allclose(level.jacobian(x), numeric, atol=1e-6)


def test_settings_name_every_component():
    weights = StylizeSettings(nose_weight=0.3)
    assert weights.component_weight("nose") == 0.3
    assert replace(weights, strength=1.0).component_weight("oval") == 1.0


def test_big_eyes_grow_in_proportion_to_the_strength():
    face = face_landmarks()
    ids = list(shape.COMPONENTS["left_eye"])
    style = _big_eyes(face, 3.0)
    for strength in (0.35, 0.7, 1.0):
        asked = shape.target_offsets(face, style, StylizeSettings(strength=strength))["left_eye"]
        moved = face[ids] + asked
        grown = np.ptp(moved[:, 1]) / np.ptp(face[ids, 1])
        # The outermost points may also meet the limit of a single move.
        assert grown == pytest.approx(1 + strength * 2.0, rel=0.05)


def test_a_limit_that_acts_is_said():
    face = face_landmarks()
    settings = StylizeSettings(strength=1.0)
    assert shape.clamped(face, face, settings) == []
    assert shape.clamped(face, _big_eyes(face, 2.0), settings) == []
    said = shape.clamped(face, _big_eyes(face, 6.0), settings)
    assert len(said) == 1 and "eyes" in said[0] and "6" in said[0] and "4" in said[0]
    assert shape.clamped(face, _big_eyes(face, 6.0), StylizeSettings(eyes_weight=0.0)) == []


def test_what_is_held_back_is_said_by_part():
    face = face_landmarks()
    moves = shape.target_offsets(face, _big_eyes(face, 2.0), StylizeSettings())
    targets = face.copy()
    for name in ("left_eye", "right_eye"):
        targets[list(shape.COMPONENTS[name])] += 0.5 * moves[name]
    said = shape.held_back(face, targets, moves)
    assert len(said) == 1 and "50%" in said[0] and "eyes" in said[0]
    targets[list(shape.COMPONENTS["left_eye"])] += 0.5 * moves["left_eye"]
    targets[list(shape.COMPONENTS["right_eye"])] += 0.5 * moves["right_eye"]
    assert shape.held_back(face, targets, moves) == []


def _brow_move(face, eyes_shut):
    own, style = face.copy(), _big_eyes(face, 2.0)
    for contour in (lm.LEFT_BROW, lm.RIGHT_BROW):
        style[list(contour), 1] += 0.25  # a toon's brow, high over a big eye
    if eyes_shut:
        for contour in (lm.LEFT_EYE, lm.RIGHT_EYE):
            ids = list(contour)
            own[ids, 1] = own[ids, 1].mean() + 0.1 * (own[ids, 1] - own[ids, 1].mean())
    moves = shape.target_offsets(own, style, StylizeSettings(brows_weight=1.0, strength=1.0))
    return moves["left_brow"][:, 1].mean()


def test_brows_over_shut_eyes_do_not_float():
    face = face_landmarks()
    lid = np.ptp(face[list(lm.LEFT_EYE), 1])  # half of the doubled eye's height
    assert _brow_move(face, False) == pytest.approx(0.25, abs=1e-6)
    assert _brow_move(face, True) == pytest.approx(0.25 - 0.95 * lid, abs=1e-3)


def test_the_forehead_keeps_room_above_high_brows():
    face = face_landmarks()
    style = face.copy()
    for contour in (lm.LEFT_BROW, lm.RIGHT_BROW):
        style[list(contour), 1] += 0.35
    oval = list(lm.FACE_OVAL)
    style[oval, 1] = np.minimum(style[oval, 1], 1.0)  # and a low hairline
    moves = shape.target_offsets(face, style, StylizeSettings(strength=1.0))
    top = shape.COMPONENTS["oval"].index(lm.FOREHEAD)
    brow = list(shape.COMPONENTS["left_brow"])
    gap = face[lm.FOREHEAD, 1] - face[brow, 1].mean()
    left = gap + moves["oval"][top, 1] - moves["left_brow"][:, 1].mean()
    assert left > 0.4 * gap


def _grid(face: np.ndarray) -> np.ndarray:
    low, high = face.min(0) - 0.5, face.max(0) + 0.5
    axes = [np.linspace(low[i], high[i], 24) for i in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def test_small_steps_keep_what_one_step_would_fold():
    face = face_landmarks()
    style = _big_eyes(face, 1.87)
    moves = shape.target_offsets(face, style, StylizeSettings(strength=1.0, brows_weight=1.0))
    controls = _controls(moves, face)
    grid = np.concatenate([_grid(face), face])
    points = np.concatenate([controls.features, controls.outline])
    offsets = np.concatenate([controls.feature_offsets, controls.outline_offsets])
    once = RadialLevel.fit(points, offsets, 1.0, 2e-2)
    assert np.linalg.det(np.eye(3) + once.jacobian(grid)).min() < 0
    field, kept = fit_field(controls, grid)
    assert kept == 1.0
    assert field.determinant(grid).min() > MIN_JACOBIAN
    error = np.linalg.norm(field(points) - offsets, axis=1)
    assert error.max() < 0.15 * np.linalg.norm(offsets, axis=1).max()


def test_the_fields_determinant_and_kernels_are_those_of_its_map():
    face = face_landmarks()
    moves = shape.target_offsets(face, _big_eyes(face, 1.8), StylizeSettings())
    field, _ = fit_field(_controls(moves, face), face)
    x, h = face[::40], 1e-5
    columns = [(field(x + h * e) - field(x - h * e)) / (2 * h) for e in np.eye(3)]
    numeric = np.linalg.det(np.eye(3) + np.stack(columns, axis=2))
    assert np.allclose(field.determinant(x), numeric, atol=1e-5)
    at = x.copy()
    rows = field.kernels()
    for step in np.unique(rows[:, 0]):
        own = rows[rows[:, 0] == step]
        r = np.linalg.norm(at[:, None] - own[None, :, 2:5], axis=2) / own[:, 1]
        at = at + (np.clip(1 - r, 0, None) ** 4 * (4 * r + 1)) @ own[:, 5:8]
    assert np.allclose(at - x, field(x), atol=1e-9)
    many = np.repeat(x, 400, axis=0)  # summed by compiled code
    assert np.allclose(field(many)[::400], field(x), atol=1e-5)


def test_what_is_special_about_the_exemplar_is_added_to_what_is_special_about_the_person():
    mean = face_landmarks()
    mouth, eye = list(shape.COMPONENTS["mouth"]), list(shape.COMPONENTS["left_eye"])
    own, style = mean.copy(), _big_eyes(mean, 2.0)
    own[mouth, 0] *= 1.3
    own[mouth, 1] -= 0.1
    own = _big_eyes(own, 1.2)
    full = StylizeSettings(strength=1.0)
    moves = shape.target_offsets(own, style, full, mean)
    assert np.abs(moves["mouth"]).max() < 1e-9  # the exemplar's mouth is like anyone's
    moved = own[eye] + moves["left_eye"]
    assert np.ptp(moved[:, 0]) == pytest.approx(2.0 * np.ptp(own[eye, 0]), rel=0.02)
    direct = shape.target_offsets(own, style, full)
    assert np.ptp(own[mouth, 0]) + np.ptp(direct["mouth"][:, 0]) > np.ptp(mean[mouth, 0])
    moved = own[mouth] + direct["mouth"]
    assert np.allclose(moved[:, :2], style[mouth, :2], atol=0.03)


def test_an_asked_expression_replaces_the_persons_own():
    mean = face_landmarks()
    mouth = list(shape.COMPONENTS["mouth"])
    smile = mean.copy()
    smile[mouth, 1] += 0.5 * smile[mouth, 0] ** 2
    asked = StylizeSettings(strength=1.0, expression=1.0)
    moved = smile[mouth] + shape.target_offsets(smile, smile, asked, mean)["mouth"]
    form = moved - moved.mean(0)
    wanted = smile[mouth] - smile[mouth].mean(0)
    assert np.allclose(form[:, :2], wanted[:, :2], atol=0.02)  # not two smiles on one mouth


def test_a_limit_names_what_the_exemplar_was_compared_with():
    face = face_landmarks()
    full = StylizeSettings(strength=1.0)
    style = _big_eyes(face, 6.0)
    assert "the person's" in shape.clamped(face, style, full)[0]
    assert "the mean face's" in shape.clamped(_big_eyes(face, 1.2), style, full, face)[0]
    assert shape.clamped(_big_eyes(face, 0.1), _big_eyes(face, 2.0), full, face) == []
