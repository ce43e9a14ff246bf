"""The demo assets fit what the README and the product promise about them."""

from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest

from toonify3d.capture.landmarks import FaceLandmarker

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
EXEMPLARS = ("exemplar_glossy.png", "exemplar_cel.png", "exemplar_painterly.png")
MILLION = 1_000_000


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


@pytest.fixture(scope="module")
def video():
    with imageio.get_reader(DEMO / "capture.mp4") as reader:
        yield reader


def frame(video, index):
    return np.asarray(video.get_data(index))


def test_capture_is_small_h264_of_5_to_8_seconds(video):
    meta = video.get_meta_data()
    assert (DEMO / "capture.mp4").stat().st_size < 6 * MILLION
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert 5.0 <= meta["duration"] <= 8.0
    assert 90 <= video.count_frames() <= 110
    width, height = meta["size"]
    assert width >= 420
    assert height >= 560


@pytest.mark.parametrize("index", [0, 3, -3])
def test_face_is_found_in_frontal_frames(video, landmarker, index):
    image = frame(video, index % video.count_frames())
    found = landmarker.detect(image)
    assert found is not None
    points = found.points
    assert points.shape == (478, 3)
    height, width = image.shape[:2]
    inside = (points[:, :2] > 0).all() and (points[:, :2] < (width, height)).all()
    assert inside
    # Big enough for the landmarks to mean something: a fifth of the picture's width.
    assert np.ptp(points[:, 0]) > 0.2 * width


def test_capture_goes_all_the_way_round(video, landmarker):
    count = video.count_frames()
    assert landmarker.detect(frame(video, count // 2)) is None
    first, last = frame(video, 0), frame(video, count - 1)
    quarter = frame(video, count // 4)
    around = np.abs(first.astype(float) - last).mean()
    assert around < 0.6 * np.abs(first.astype(float) - quarter).mean()


@pytest.mark.parametrize("index", [0, 30, 60, 90])
def test_capture_has_texture_for_structure_from_motion(video, index):
    gray = cv2.cvtColor(frame(video, index), cv2.COLOR_RGB2GRAY)
    corners = cv2.goodFeaturesToTrack(gray, 2000, 0.01, 4)
    assert corners is not None
    assert len(corners) > 400


def test_neighbouring_frames_differ_by_a_small_turn(video):
    shifts = []
    for index in (0, 24, 48, 72):
        before, after = (
            cv2.cvtColor(frame(video, index + k), cv2.COLOR_RGB2GRAY).astype(np.float32)
            for k in (0, 1)
        )
        shift, _ = cv2.phaseCorrelate(before, after)
        shifts.append(np.hypot(*shift))
    assert max(shifts) < 80


@pytest.mark.parametrize("name", EXEMPLARS)
def test_exemplar_is_square_and_small_with_a_frontal_face(name, landmarker):
    file = DEMO / name
    image = cv2.imread(str(file))
    assert file.stat().st_size < MILLION
    assert image.shape[0] == image.shape[1]
    assert 768 <= image.shape[0] <= 1024
    found = landmarker.detect(np.ascontiguousarray(image[..., ::-1]))
    assert found is not None
    x = found.points[:, 0]
    left, nose, right = x[234], x[1], x[454]
    # Frontal: the nose tip is near the middle between the two cheeks' edges.
    assert abs((nose - left) / (right - left) - 0.5) < 0.12


def test_exemplars_differ_clearly():
    """Three styles, not three variants: colours and amounts of detail differ."""
    small = [cv2.resize(cv2.imread(str(DEMO / name)), (64, 64)).astype(float) for name in EXEMPLARS]
    for i in range(len(small)):
        for j in range(i):
            assert np.abs(small[i] - small[j]).mean() > 25
