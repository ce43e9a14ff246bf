"""The face landmarker: its tables always, its answers where pictures of faces are at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from toonify3d.capture import landmarks as lm
from toonify3d.capture.landmarks import FaceLandmarker, quiet_native_logs


@pytest.fixture(scope="module")
def landmarker():
    made = FaceLandmarker()
    yield made
    made.close()


def load(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def test_mirror_table_swaps_sides():
    assert (lm.MIRROR[lm.MIRROR] == np.arange(lm.LANDMARK_COUNT)).all()
    assert set(np.flatnonzero(np.arange(478) == lm.MIRROR)) == set(lm.MIDLINE)
    assert lm.MIRROR[33] == 263 and lm.MIRROR[61] == 291 and lm.MIRROR[468] == 473


def test_mirror_maps_mediapipes_own_contours_onto_each_other():
    from mediapipe.python.solutions import face_mesh_connections as theirs

    for left, right in (
        (theirs.FACEMESH_LEFT_EYE, theirs.FACEMESH_RIGHT_EYE),
        (theirs.FACEMESH_LEFT_EYEBROW, theirs.FACEMESH_RIGHT_EYEBROW),
    ):
        assert {frozenset(map(int, lm.MIRROR[list(e)])) for e in left} == set(map(frozenset, right))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lm.FACE_OVAL, "FACEMESH_FACE_OVAL"),
        (lm.RIGHT_EYE, "FACEMESH_RIGHT_EYE"),
        (lm.LEFT_EYE, "FACEMESH_LEFT_EYE"),
    ],
)
def test_contours_are_closed_rings_of_mediapipe(ours, theirs):
    from mediapipe.python.solutions import face_mesh_connections

    edges = {frozenset(edge) for edge in getattr(face_mesh_connections, theirs)}
    ring = {frozenset((a, b)) for a, b in zip(ours, (*ours[1:], ours[0]), strict=True)}
    assert ring == edges


def test_lip_rings_are_mediapipes_lips():
    from mediapipe.python.solutions import face_mesh_connections

    edges = {frozenset(edge) for edge in face_mesh_connections.FACEMESH_LIPS}
    rings = set()
    for ring in (lm.LIPS_OUTER, lm.LIPS_INNER):
        rings |= {frozenset((a, b)) for a, b in zip(ring, (*ring[1:], ring[0]), strict=True)}
    assert rings == edges


def test_nothing_is_found_where_there_is_nothing(landmarker):
    rng = np.random.default_rng(0)
    assert landmarker.detect(rng.integers(0, 255, (300, 200, 3), np.uint8)) is None
    assert landmarker.detect(np.full((240, 320, 3), 127, np.uint8), thorough=True) is None
    assert landmarker.detect(np.zeros((4, 4, 3), np.uint8)) is None


def test_wrong_images_are_refused(landmarker):
    with pytest.raises(ValueError, match="RGB"):
        landmarker.detect(np.zeros((50, 50), np.uint8))
    with pytest.raises(ValueError, match="RGB"):
        landmarker.detect(np.zeros((50, 50, 3), np.float32))


def test_native_chatter_is_kept_back_and_the_rest_passed_on(capfd):
    import os

    with quiet_native_logs():
        os.write(2, b"W0000 00:00:1 some.cc:1] noise\nsomething that matters\n")
    assert capfd.readouterr().err == "something that matters\n"


@pytest.mark.shared
def test_photo(landmarker, shared_data):
    image = load(shared_data / "portraits" / "astronaut.png")
    face = landmarker.detect(image)
    assert face is not None and face.score > 0.7 and face.points.shape == (478, 3)
    assert (face.width, face.height) == (512, 512)
    right, left = face.iris_centers
    # Read off the picture by eye.
    np.testing.assert_allclose(right, (204, 107), atol=7)
    np.testing.assert_allclose(left, (244, 106), atol=7)
    assert abs(face.rough_yaw) < 0.2
    x0, y0, x1, y1 = face.box
    assert x0 < 204 < 244 < x1 and y0 < 106 < face.points[lm.CHIN, 1] <= y1 + 1e-9


@pytest.mark.shared
def test_mirrored_photo_gives_mirrored_points(landmarker, shared_data):
    image = load(shared_data / "portraits" / "grace_hopper.jpg")
    face = landmarker.detect(image)
    other = landmarker.detect(np.ascontiguousarray(image[:, ::-1]))
    assert face is not None and other is not None
    back = other.points[lm.MIRROR]
    back[:, 0] = image.shape[1] - back[:, 0]
    assert np.linalg.norm((back - face.points)[:, :2], axis=1).max() < 2.5


@pytest.mark.shared
def test_small_face_in_a_big_frame(landmarker, shared_data):
    small = cv2.resize(load(shared_data / "portraits" / "astronaut.png"), (256, 256))
    big = np.full((1080, 1920, 3), 120, np.uint8)
    big[-256:, 600:856] = small
    face = landmarker.detect(big)
    assert face is not None
    np.testing.assert_allclose(face.iris_centers[0], (600 + 102, 824 + 53), atol=6)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "exemplar_fluent_man/exemplar.png",
        "exemplar_bigears_flat/exemplar.png",
        "exemplar_lorelei_ink/exemplar.png",
        "exemplar_leonardo_red_chalk/exemplar.jpg",
        "exemplar_van_gogh_1889/exemplar.jpg",
    ],
)
def test_drawn_faces(landmarker, shared_data, name):
    face = landmarker.detect(load(shared_data / name), thorough=True)
    assert face is not None and face.score > 0.6
    eyes = face.iris_centers
    assert eyes[0, 0] < eyes[1, 0] and face.points[lm.CHIN, 1] > eyes[:, 1].max()


class Mirrored(FaceLandmarker):
    """Stands in for FaceMesh: finds a face only on one side of its view.

    The face is a triangle of marks, red for the right eye, green for the left, blue for the chin;
    its left eye is missed unless it lies left (``flipped``) or right of the right one.
    """

    def __init__(self, flipped: bool, unrest: float = 0.0) -> None:
        super().__init__()
        self.flipped, self.unrest, self.looks = flipped, unrest, 0

    def _load(self) -> None:
        pass

    def _face_boxes(self, image, thorough):
        return []

    def _run(self, view):
        self.looks += 1
        strong = view.astype(int) - np.sort(view, axis=2)[..., 1:2]
        places = [np.argwhere(strong[..., i] > 60) for i in range(3)]
        if min(map(len, places)) < 3:
            return None
        (red, green, chin) = (p.mean(0)[::-1] + 0.5 for p in places)
        if (green[0] < red[0]) != self.flipped:
            return None
        # In a mirror the eye on the right of the picture is the left one, whatever its colour.
        right, left = (green, red) if self.flipped else (red, green)
        out = np.random.default_rng(0).normal(0, 0.1, (478, 2)) * (left[0] - right[0])
        out += (right + left + chin) / 3
        out[lm.RIGHT_EYE[0]], out[lm.LEFT_EYE[0]], out[lm.CHIN] = right, left, chin
        out += np.random.default_rng(self.looks).normal(0, 1, out.shape) * self.unrest
        return np.concatenate([out, np.zeros((478, 1))], axis=1)


def _marks() -> np.ndarray:
    image = np.full((400, 320, 3), 30, np.uint8)
    for at, colour in (((110, 150), (250, 30, 30)), ((210, 140), (30, 250, 30))):
        cv2.circle(image, at, 12, colour, -1)
    cv2.circle(image, (170, 280), 12, (30, 30, 250), -1)
    return image


@pytest.mark.parametrize("flipped", [True, False])
def test_a_face_that_shows_on_one_side_of_the_mirror_only_is_found(flipped):
    finder = Mirrored(flipped)
    assert finder.detect(_marks()) is None  # a frame of a film needs both
    face = finder.detect(_marks(), thorough=True)
    assert face is not None and face.score > 0.9
    for point, at in ((lm.RIGHT_EYE[0], (110, 150)), (lm.LEFT_EYE[0], (210, 140))):
        np.testing.assert_allclose(face.points[point, :2], np.add(at, 0.5), atol=1.5)
    np.testing.assert_allclose(face.points[lm.CHIN, :2], (170.5, 280.5), atol=1.5)


def test_one_sided_answers_that_disagree_are_no_face():
    assert Mirrored(True, unrest=40.0).detect(_marks(), thorough=True) is None
