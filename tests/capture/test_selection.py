"""Which frames are chosen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toonify3d.capture.selection import choose_frames, measure_motion, measure_sharpness, select
from toonify3d.capture.settings import CaptureSettings
from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.progress import SilentProgress


def wall(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (60, 120), np.uint8)
    return cv2.resize(noise, (960, 480), interpolation=cv2.INTER_CUBIC)


def test_short_steady_clip_is_kept_whole():
    choice = select(np.full(96, 0.2), np.r_[0.0, np.full(95, 4.0)], 120)
    assert choice.indices == list(range(96))
    assert (choice.duplicates, choice.blurred) == (0, 0)


def test_stand_still_gives_one_frame_the_sharpest():
    motion = np.full(60, 3.0)
    motion[20:40] = 0.001
    sharpness = np.full(60, 0.2)
    sharpness[33] = 0.25
    choice = select(sharpness, motion, 300)
    assert choice.duplicates == 20
    assert [i for i in choice.indices if 19 <= i < 40] == [33]


def test_blurred_frame_is_dropped():
    sharpness = np.full(40, 0.2)
    sharpness[[7, 25]] = 0.02
    choice = select(sharpness, np.full(40, 2.0), 300)
    assert choice.blurred == 2 and not {7, 25} & set(choice.indices)


def test_arcs_of_motion_not_of_time():
    # Slow for 200 frames, then as far again in 20.
    motion = np.r_[np.full(200, 1.0), np.full(20, 10.0)]
    choice = select(np.full(220, 0.2), motion, 20)
    slow = sum(index < 200 for index in choice.indices)
    assert len(choice.indices) == 20 and 8 <= slow <= 12


def test_sharpest_of_each_arc():
    sharpness = np.full(100, 0.20)
    sharpness[5::10] = 0.21
    choice = select(sharpness, np.full(100, 1.0), 10)
    assert choice.indices == list(range(5, 100, 10))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 120).flatmap(
        lambda n: st.tuples(
            arrays(np.float64, n, elements=st.floats(0, 1)),
            arrays(np.float64, n, elements=st.floats(0, 50)),
            st.integers(1, 130),
        )
    )
)
def test_choice_is_ordered_unique_and_limited(case):
    sharpness, motion, limit = case
    choice = select(sharpness, motion, limit)
    assert len(choice.indices) <= limit
    assert choice.indices == sorted(set(choice.indices))
    assert all(0 <= index < len(sharpness) for index in choice.indices)
    assert choice.decoded == len(sharpness)


def test_no_frames_at_all():
    assert select(np.zeros(0), np.zeros(0), 10).indices == []


def test_motion_is_measured_in_pixels():
    picture = wall()
    before, after = picture[:240, 100:420], picture[:240, 106:426]
    assert measure_motion(before, after) == pytest.approx(6.0, abs=0.3)
    assert measure_motion(before, before) == pytest.approx(0.0, abs=0.02)


def test_sharpness_falls_with_blur_not_with_exposure():
    picture = cv2.resize(wall(), (480, 240), interpolation=cv2.INTER_AREA)[:, :320]
    sharp = measure_sharpness(picture)
    assert measure_sharpness(cv2.GaussianBlur(picture, (0, 0), 2.0)) < 0.6 * sharp
    assert measure_sharpness((picture * 0.6).astype(np.uint8)) == pytest.approx(sharp, rel=0.15)


def panning_folder(folder: Path, starts: list[int]) -> Path:
    picture = wall()
    for index, start in enumerate(starts):
        gray = picture[:200, start : start + 160]
        write_image(folder / f"{index:03d}.png", np.repeat(gray[..., None], 3, axis=2))
    return folder


def test_frames_of_a_folder(tmp_path):
    starts = [0, 6, 12, 12, 12, *range(18, 120, 6)]
    choice = choose_frames(
        panning_folder(tmp_path / "pan", starts), CaptureSettings(), SilentProgress()
    )
    assert choice.decoded == len(starts) and choice.duplicates == 2


def test_camera_that_never_moves(tmp_path):
    folder = panning_folder(tmp_path / "still", [40] * 20)
    with pytest.raises(InputError, match="hardly moves") as caught:
        choose_frames(folder, CaptureSettings(), SilentProgress())
    assert caught.value.code == "too_few_frames"
