"""The turn estimated from the sliding room and the face."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toonify3d.capture.turn import (
    clock_position,
    estimate_turn,
    measure_step,
    missing_arcs,
)

sys.path.insert(0, str(Path(__file__).parent))
import made_up_capture as made_up


def gray(image, gain=1.0):
    return np.clip(image.astype(float).mean(2) * gain, 0, 255).astype(np.uint8)


def test_clock_has_the_face_at_twelve_and_the_left_hand_at_nine():
    assert [clock_position(a) for a in (0, 90, 180, -90, -180, 31, -29)] == [12, 9, 6, 3, 6, 11, 1]


@settings(max_examples=50, deadline=None)
@given(st.floats(-180, 180), st.floats(40, 250))
def test_a_missing_arc_is_found_where_it_is(start, width):
    angles = np.radians(np.arange(start + width, start + 360, 2.0))
    (gap,) = missing_arcs(angles)
    # Every camera covers six degrees to both sides.
    assert abs(gap.width - (width - 12)) < 5
    expected = start + width / 2
    assert abs((gap.middle - expected + 180) % 360 - 180) < 4
    assert -180 < gap.middle <= 180


def test_a_full_circle_has_no_missing_arc_and_nothing_misses_all():
    assert missing_arcs(np.linspace(0, 2 * np.pi, 60)) == []
    assert missing_arcs(np.zeros(0))[0].width == 360


@pytest.mark.parametrize("direction", [1, -1])
def test_faces_before_and_after_the_back_of_the_head_give_the_scale(direction):
    true = direction * np.linspace(-0.5, 2 * np.pi + 0.4, 120)
    slides = np.diff(240.0 * true, prepend=240.0 * true[0])
    faces = [
        (i, float(np.angle(np.exp(1j * a))))
        for i, a in enumerate(true)
        if abs(np.angle(np.exp(1j * a))) < 0.9 and i % 4 == 0
    ]
    turn = estimate_turn(slides, faces, 320)
    assert turn.anchored and turn.source == "face returns"
    error = np.angle(np.exp(1j * (turn.angles - true)))
    assert np.degrees(np.abs(error).max()) < 2


def test_faces_of_one_pass_give_the_scale():
    true = np.linspace(-0.8, 2.0, 60)
    slides = np.diff(300.0 * true, prepend=300.0 * true[0])
    faces = [(i, float(a)) for i, a in enumerate(true) if abs(a) < 0.8]
    turn = estimate_turn(slides, faces, 320)
    assert turn.source == "face"
    np.testing.assert_allclose(turn.angles, true, atol=0.02)


def test_without_a_face_a_typical_lens_is_assumed_and_said():
    turn = estimate_turn(np.full(10, 8.0), [], 320)
    assert not turn.anchored and turn.source == "typical lens" and turn.total > 0


def test_the_room_slides_with_the_sign_of_the_yaw():
    # Frame 1 of the made-up orbit stands nearer to +X: the person's left, positive yaw.
    capture = made_up.make(60, width=240, height=240)
    step = measure_step(gray(capture.images[0]), gray(capture.images[1]))
    assert step.slide > 1 and step.tracked > 0.6 and abs(step.exposure) < 0.1


def test_exposure_is_told_from_motion():
    image = made_up.make(60, width=240, height=240).images[0]
    step = measure_step(gray(image), gray(image, 0.95))
    assert step.exposure == pytest.approx(2.2 * np.log2(0.95), abs=0.03)
    assert step.motion < 0.2


def test_frames_written_twice_do_not_shorten_the_turn():
    # 24 frames a second written as 60: three of five repeat the one before.
    true = np.linspace(-0.4, 2 * np.pi + 0.3, 80)
    still = np.ones(200, bool)
    still[np.linspace(0, 199, 80).round().astype(int)] = False
    index = np.cumsum(~still) - 1
    slides = np.diff(240.0 * true[index], prepend=240.0 * true[0])
    faces = [
        (i, float(np.angle(np.exp(1j * true[k]))))
        for i, k in enumerate(index)
        if abs(np.angle(np.exp(1j * true[k]))) < 0.6
    ]
    turn = estimate_turn(slides, faces, 320, still)
    assert np.degrees(turn.total) == pytest.approx(np.degrees(np.ptp(true)), abs=4)


def test_pictures_far_apart_are_compared_by_their_features():
    # 15 degrees from one to the next: optical flow loses the track there.
    capture = made_up.make(24, width=240, height=320)
    images = [gray(image) for image in capture.images[:6]]
    steps = [measure_step(one, two) for one, two in itertools.pairwise(images)]
    near = made_up.make(120, width=240, height=320)
    fine = [gray(image) for image in near.images[:26]]
    true = [measure_step(one, two).slide for one, two in itertools.pairwise(fine)]
    assert sum(step.slide for step in steps) == pytest.approx(sum(true), rel=0.1)
    assert all(step.room for step in steps)


def test_a_plain_room_shows_no_slide():
    picture = np.full((240, 320), 90, np.uint8)
    picture[80:160, 120:200] = np.random.default_rng(0).integers(0, 255, (80, 80))
    step = measure_step(picture, np.roll(picture, 3, axis=1))
    assert not step.room and step.slide == 0
