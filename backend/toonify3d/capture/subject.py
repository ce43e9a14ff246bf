"""Does the person move while being filmed? Told by features on the person against the room's.

A camera that walks round things at rest moves every point along its epipolar line. Two answers:

* :func:`epipolar_motion`, before structure from motion: features on the person are held against
  the epipolar geometry of two neighbouring pictures. That geometry is found from all features (from
  the far room alone it is several pixels off where the person is), which the room outnumbers. It
  only shows movement across the lines, which are level: nodding. A person who sways looks the same
  in two pictures as one at rest seen by a camera that left its circle.
* :func:`measured_motion`, with known cameras: features in three pictures are triangulated from the
  outer two and projected into the middle one; movement shows in any direction but towards it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Camera, FloatArray
from .agreement import essential_matrix, sampson_distance, signed_sampson_distance
from .matching import mutual_matches, sift_features

LOOK_SIDE = 640
"""Long side in pixels at which features are sought."""
MARGIN = 0.012
"""Features this near the outline, in long sides, belong to neither."""
LEAST_PERSON, LEAST_ROOM = 8, 16
"""A pair or triple with fewer features on the person or in the room says nothing."""
LOST = 2.0
"""Thousandths of the long side by which the room may be off before the pair is too far apart to
match at all."""
STEP_ANGLE = np.radians(8.0)
"""Turn between the pictures of a triple: enough to triangulate, little enough to match."""
FARTHEST = 20.0
"""Thousandths of the long side from which a feature is no movement but a wrong match."""
STAYED = 0.01
"""Share of the long side that the picture must have moved: a camera at rest says nothing."""
_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SubjectMotion:
    """How far features are from where things at rest would be.

    Attributes:
        person: Median on the person, in thousandths of the long side.
        room: Median in the room, likewise.
        compared: How many pairs or triples said something.
    """

    person: float
    room: float
    compared: int


@dataclass(frozen=True)
class _Features:
    gray: ByteImage
    points: FloatArray
    descriptors: npt.NDArray[np.float32]
    person: _BoolArray
    room: _BoolArray

    @property
    def long_side(self) -> int:
        return max(self.gray.shape)


def epipolar_motion(
    images: Sequence[ByteImage], person: Sequence[npt.NDArray[np.floating[Any]]]
) -> SubjectMotion | None:
    """Movement between pictures 0 and 1, 2 and 3, and so on, without any camera.

    Args:
        images: RGB, neighbours in pairs.
        person: ``(H, W)`` probability of the person, 0 to 1.

    Returns:
        None when fewer than three pairs have features enough.
    """
    found = [_features(image, mask) for image, mask in zip(images, person, strict=True)]
    answers = [_pair_distance(one, two) for one, two in zip(found[::2], found[1::2], strict=False)]
    return _summary([answer for answer in answers if answer is not None])


def measured_motion(
    images: Sequence[ByteImage],
    cameras: Sequence[Camera],
    masks: Sequence[ByteImage],
    triples: int = 16,
) -> SubjectMotion | None:
    """Movement with known cameras, over about ``triples`` places round the circle.

    Args:
        images: RGB, in the order of the walk (others: triples are sought by angle).
        cameras: Their cameras; the world's origin is in the person.
        masks: ``(H, W)`` 0 to 255 of the person.
        triples: How many triples of pictures are looked at.
    """
    answers = []
    for indices in _triples(cameras, triples):
        first, middle, last = (_features(images[i], masks[i] / 255.0) for i in indices)
        views = [cameras[i].resized(*_small_size(images[i])) for i in indices]
        distance = _triple_distance(first, middle, last, views)
        if distance is not None:
            answers.append(distance)
    return _summary(answers)


def _pair_distance(one: _Features, two: _Features) -> tuple[float, float] | None:
    """:func:`_line_distance` of two pictures' matches, placed more exactly."""
    links = mutual_matches(one.descriptors, two.descriptors)
    start, stop = one.points[links[:, 0]], two.points[links[:, 1]]
    if len(links) < LEAST_PERSON + LEAST_ROOM:
        return None
    better, kept = _refined(one.gray, two.gray, start, stop)
    links = links[kept]
    person = one.person[links[:, 0]] & two.person[links[:, 1]]
    room = one.room[links[:, 0]] & two.room[links[:, 1]]
    return _line_distance(start[kept], better[kept], person, room, one.long_side)


def _line_distance(
    start: FloatArray, stop: FloatArray, person: _BoolArray, room: _BoolArray, long_side: int
) -> tuple[float, float] | None:
    """Medians on person and room of the distance to the epipolar lines, in thousandths.

    Args:
        start: ``(N, 2)`` points of the first picture.
        stop: ``(N, 2)`` the same points in the second.
        person: ``(N,)`` which lie on the person.
        room: ``(N,)`` which lie in the room.
        long_side: Of the pictures, in pixels.
    """
    if person.sum() < LEAST_PERSON or room.sum() < LEAST_ROOM:
        return None
    if float(np.median(np.linalg.norm(stop - start, axis=1))) < STAYED * long_side:
        return None
    fundamental, _ = cv2.findFundamentalMat(start, stop, cv2.USAC_MAGSAC, 1.0, 0.999, 5000)
    if fundamental is None or fundamental.shape != (3, 3):
        return None
    apart = sampson_distance(
        np.asarray(fundamental, np.float64), _homogeneous(start), _homogeneous(stop)
    )
    apart *= 1000.0 / long_side
    if float(np.median(apart[room])) > LOST:
        return None
    return float(np.median(apart[person])), float(np.median(apart[room]))


def _summary(answers: Sequence[tuple[float, float]]) -> SubjectMotion | None:
    if len(answers) < 3:
        return None
    person, room = np.median(np.array(answers, np.float64), axis=0)
    return SubjectMotion(float(person), float(room), len(answers))


def _triples(cameras: Sequence[Camera], count: int) -> list[tuple[int, int, int]]:
    """Pictures one :data:`STEP_ANGLE` to both sides of evenly spread middles."""
    centers = np.stack([camera.center for camera in cameras])
    yaw = np.arctan2(centers[:, 0], -centers[:, 1])
    out = []
    for middle in np.unique(np.linspace(0, len(cameras) - 1, count).round().astype(int)):
        turn = np.angle(np.exp(1j * (yaw - yaw[middle])))
        before = int(np.abs(turn + STEP_ANGLE).argmin())
        after = int(np.abs(turn - STEP_ANGLE).argmin())
        if max(abs(turn[before] + STEP_ANGLE), abs(turn[after] - STEP_ANGLE)) < STEP_ANGLE:
            out.append((before, int(middle), after))
    return out


def _triple_distance(
    first: _Features, middle: _Features, last: _Features, cameras: Sequence[Camera]
) -> tuple[float, float] | None:
    """How far the person went between three pictures, and what the room says, in thousandths.

    Single features are off by half a pixel and more, a person's all go the same way: that is why
    the person's is a length of median offsets (measured against the room's), which is a third of
    the median length when nothing moves and hardly less when something does. The room's is the
    median length.
    """
    left = mutual_matches(middle.descriptors, first.descriptors)
    right = mutual_matches(middle.descriptors, last.descriptors)
    to_first = dict(zip(left[:, 0].tolist(), left[:, 1].tolist(), strict=True))
    to_last = dict(zip(right[:, 0].tolist(), right[:, 1].tolist(), strict=True))
    shared = np.array(sorted(to_first.keys() & to_last.keys()), np.int64)
    if len(shared) < LEAST_PERSON + LEAST_ROOM:
        return None
    a = first.points[[to_first[i] for i in shared]]
    b, c = middle.points[shared], last.points[[to_last[i] for i in shared]]
    scale = 1000.0 / middle.long_side
    # Wrong matches are far off the lines, movement of a person is not.
    across = scale * _epipolar(cameras[0], cameras[2], a, c)
    near = np.abs(across) < FARTHEST
    projections = [camera.K @ camera.w2c[:3] for camera in cameras]
    points = cv2.triangulatePoints(projections[0], projections[2], a.T, c.T)
    seen, depth = cameras[1].project((points[:3] / points[3]).T)
    offsets = np.column_stack([scale * (seen - b), across])
    lengths = np.linalg.norm(offsets[:, :2], axis=1)
    near &= (depth > 0) & (lengths < FARTHEST)
    person, room = near & middle.person[shared], near & middle.room[shared]
    if person.sum() < LEAST_PERSON or room.sum() < LEAST_ROOM:
        return None
    went = np.median(offsets[person], axis=0) - np.median(offsets[room], axis=0)
    return float(np.linalg.norm(went)), float(np.median(lengths[room]))


def _epipolar(one: Camera, two: Camera, start: FloatArray, stop: FloatArray) -> FloatArray:
    inverse = np.linalg.inv(one.K)
    fundamental = np.linalg.inv(two.K).T @ essential_matrix(one.w2c, two.w2c) @ inverse
    return signed_sampson_distance(fundamental, _homogeneous(start), _homogeneous(stop))


def _small_size(image: ByteImage) -> tuple[int, int]:
    scale = min(1.0, LOOK_SIDE / max(image.shape[:2]))
    return round(image.shape[1] * scale), round(image.shape[0] * scale)


def _features(image: ByteImage, person: npt.NDArray[np.floating[Any]]) -> _Features:
    width, height = _small_size(image)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: ByteImage = np.asarray(
        cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8
    )
    sure = cv2.resize(np.asarray(person, np.float32), (width, height)) > 0.5
    kernel = np.ones((2 * round(MARGIN * max(width, height)) + 1,) * 2, np.uint8)
    inside = cv2.erode(sure.astype(np.uint8), kernel) > 0
    outside = cv2.dilate(sure.astype(np.uint8), kernel) == 0
    points, descriptors = sift_features(small, 2500)
    column, row = points.astype(int).T
    return _Features(small, points, descriptors, inside[row, column], outside[row, column])


def _refined(
    one: ByteImage, two: ByteImage, start: FloatArray, stop: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Matches placed more exactly by Lucas-Kanade, and which of them stayed where they were."""
    found, state, _ = cv2.calcOpticalFlowPyrLK(
        one, two, (start - 0.5).astype(np.float32), (stop - 0.5).astype(np.float32),
        winSize=(15, 15), maxLevel=0, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 0.01),
    )  # fmt: skip
    better = found.astype(np.float64) + 0.5
    stayed = (state.reshape(-1) == 1) & (np.linalg.norm(better - stop, axis=1) < 2.0)
    return better, stayed


def _homogeneous(points: FloatArray) -> FloatArray:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)
