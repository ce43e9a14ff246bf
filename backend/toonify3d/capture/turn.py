"""How far round the person a video goes, estimated before structure from motion.

While the camera circles with the person in its middle, the room behind slides sideways through the
picture by nearly the same amount per degree. The slide is measured by optical flow outside the
middle; degrees per pixel come from the face's yaw where it is seen, or, when the face comes back
after the back of the head, from the full turn between. Without a face a typical lens is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..scene import ByteImage, FloatArray
from .matching import RecentFeatures, mutual_matches

PRIOR_DEGREES_PER_WIDTH = 75.0
"""Turn while the room slides by one long picture side, without a face to calibrate with: phone
video has a focal length of about 0.85 long sides, and the walls are a few metres behind."""
MAX_FACE_YAW = np.radians(46.0)
"""Face yaws beyond this are not used: the network answers about 58 degrees for all of them."""

MAX_DRIFT = np.radians(20.0)
"""Faces farther than this from their place on the path are mistakes."""


STEP_FEATURES = 800
"""At most so many features of a picture are compared with the next one's."""
LOST_TRACK = 0.35
"""With a smaller share of corners found again, features are matched instead."""


@dataclass(frozen=True)
class Step:
    """What changed from one looked-at frame to the next.

    Attributes:
        motion: Median length of the optical flow in pixels, whole picture.
        slide: Median sideways flow in pixels outside the middle of the picture, positive when the
            room moves to the right, that is when the camera walks to its own right round the
            person and turns left.
        tracked: Share of the corners that were found again, 0 to 1; of the features, where the
            corners were lost.
        exposure: Change of brightness of the same places, in stops (of display values, gamma 2.2).
        room: Whether enough was seen outside the middle to measure the slide.
    """

    motion: float
    slide: float
    tracked: float
    exposure: float
    room: bool = True


@dataclass(frozen=True)
class Turn:
    """Where the camera stood.

    Attributes:
        angles: ``(N,)`` radians round the head at every looked-at frame, not wrapped; 0 in front of
            the face when ``anchored``, positive on the person's left.
        anchored: A face told which angle is the front, and the scale.
        source: ``"face returns"``, ``"face"`` or ``"typical lens"``: what the scale comes from.
    """

    angles: FloatArray
    anchored: bool
    source: str

    @property
    def total(self) -> float:
        """Radians between the outermost positions."""
        return float(np.ptp(self.angles)) if len(self.angles) else 0.0


@dataclass(frozen=True)
class Gap:
    """An arc from which the person was not filmed, in degrees.

    Attributes:
        start: First missing angle, in (-180, 180]; positive on the person's left.
        width: How many degrees are missing.
    """

    start: float
    width: float

    @property
    def middle(self) -> float:
        """Middle of the arc in degrees, in (-180, 180]."""
        return -((180.0 - (self.start + self.width / 2)) % 360.0 - 180.0)


def measure_step(
    before: ByteImage, after: ByteImage, features: RecentFeatures | None = None
) -> Step:
    """Compare two gray pictures ``(H, W)`` uint8 of one size that follow each other.

    By optical flow; where it loses the track (pictures taken ten degrees apart) by features.

    Args:
        before: The first picture.
        after: The second one.
        features: Remembers features from one step to the next.
    """
    start, stop, corners = _flow(before, after)
    if corners < 8:
        return Step(0.0, 0.0, 0.0, 0.0, False)
    height, width = before.shape
    tracked = len(start) / corners
    if tracked < LOST_TRACK:
        find = features or RecentFeatures(STEP_FEATURES)
        one, two = find(before), find(after)
        links = mutual_matches(one[1], two[1])
        if len(links) >= 16:  # fewer are chance
            start, stop = one[0][links[:, 0]], two[0][links[:, 1]]
            tracked = max(tracked, len(links) / max(1, len(one[0])))
    if len(start) < 8:
        return Step(float(width), 0.0, tracked, 0.0, False)
    flow = stop - start
    outer = _outside_middle(start, width, height)
    room = bool(outer.sum() >= 6)
    return Step(
        motion=float(np.median(np.linalg.norm(flow, axis=1))),
        slide=float(np.median(flow[outer, 0])) if room else 0.0,
        tracked=tracked,
        exposure=_exposure(before, after, start, stop),
        room=room,
    )


def _flow(before: ByteImage, after: ByteImage) -> tuple[FloatArray, FloatArray, int]:
    """Points ``(N, 2)`` of the first picture, where they went, and how many were sought.

    Only points that the flow back brings home are given.
    """
    corners = _corners(before)
    if len(corners) < 8:
        return np.zeros((0, 2)), np.zeros((0, 2)), len(corners)
    found, state, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, np.empty_like(corners), winSize=(15, 15), maxLevel=3
    )
    # Lucas-Kanade takes a change of exposure for motion: finish where it sees detail only.
    finished, sure, _ = cv2.calcOpticalFlowPyrLK(
        _detail(before), _detail(after), corners, found.copy(), winSize=(15, 15), maxLevel=0,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    close = np.abs(finished - found).max(axis=2) < 3
    found = np.where((close & (sure == 1))[..., None], finished, found)
    home, returned, _ = cv2.calcOpticalFlowPyrLK(
        after, before, found, np.empty_like(found), winSize=(15, 15), maxLevel=3
    )
    start, stop = corners.reshape(-1, 2), found.reshape(-1, 2)
    height, width = before.shape
    good = (state.reshape(-1) == 1) & (returned.reshape(-1) == 1)
    good &= (stop >= 0).all(1) & (stop[:, 0] < width) & (stop[:, 1] < height)
    good &= np.linalg.norm(home.reshape(-1, 2) - start, axis=1) < 2.0
    return start[good].astype(np.float64), stop[good].astype(np.float64), len(corners)


def estimate_turn(
    slides: FloatArray,
    faces: Sequence[tuple[int, float]],
    long_side: int,
    still: npt.NDArray[np.bool_] | None = None,
) -> Turn:
    """Angles of all looked-at frames.

    Args:
        slides: ``(N,)`` :attr:`Step.slide` of every frame against the one before (first: 0).
        faces: ``(frame, yaw in radians)`` where a face was seen.
        long_side: Long side of the pictures in which the slide was measured.
        still: ``(N,)`` frames that repeat the one before (a pause, or 24 frames written as 60).
    """
    # Walking to the camera's right brings it to the person's left (they face each other), hence
    # the same sign for the slide and the yaw.
    # Single steps get lost where a corner of the room is plain: their neighbours know better.
    moving = np.ones(len(slides), bool) if still is None else ~still
    steady = np.where(moving, slides, 0.0)
    if moving.sum() >= 12:
        steady[moving] = ndimage.median_filter(slides[moving], 7, mode="nearest")
    path = np.cumsum(steady)
    scale = np.radians(PRIOR_DEGREES_PER_WIDTH) / long_side
    used = [(path[i], yaw) for i, yaw in faces if abs(yaw) < MAX_FACE_YAW]
    if not used:
        return Turn(scale * (path - path[:1]), False, "typical lens")
    places, yaws = np.array(used, np.float64).T
    source = "typical lens"
    fitted = _scale_from_yaw(places, yaws, scale)
    if fitted is not None:
        scale, source = fitted, "face"
    returned = _scale_from_return(places, yaws, scale)
    if returned is not None:
        scale, source = returned, "face returns"
    residual = yaws - scale * places
    apart = np.abs(np.angle(np.exp(1j * (residual[:, None] - residual))))
    offset = residual[int(np.median(apart, axis=1).argmin())]
    # The room does not slide evenly (near and far walls): put right where a face tells, unless
    # it is far from where the others say it is (a "face" in the hair of the back of the head).
    drift = np.angle(np.exp(1j * (residual - offset)))
    order = [i for i in np.argsort(places) if abs(drift[i]) < MAX_DRIFT]
    angles = scale * path + offset + np.interp(path, places[order], drift[order])
    return Turn(np.asarray(angles, np.float64), True, source)


def missing_arcs(angles: FloatArray, reach: float = 6.0, smallest: float = 20.0) -> list[Gap]:
    """Arcs without a camera, widest first.

    Args:
        angles: ``(N,)`` radians.
        reach: Degrees that every camera covers to both sides.
        smallest: Arcs narrower than this in degrees are left out.
    """
    if not len(angles):
        return [Gap(-180.0, 360.0)]
    covered = np.zeros(360, bool)
    offsets = np.arange(-round(reach), round(reach) + 1)
    marks = (np.degrees(angles).round().astype(int)[:, None] + offsets) % 360
    covered[marks.ravel()] = True
    if covered.all():
        return []
    first = int(np.argmax(covered))
    rolled = np.roll(covered, -first)  # starts with a covered degree: no gap wraps round
    edges = np.flatnonzero(np.diff(np.concatenate([[1], rolled, [1]])))
    gaps = [
        Gap(float((start + first + 180) % 360 - 180), float(stop - start))
        for start, stop in edges.reshape(-1, 2)
    ]
    return sorted((g for g in gaps if g.width >= smallest), key=lambda g: -g.width)


def clock_position(degrees: float) -> int:
    """Hour on a clock seen from above, the face at 12, for an angle (positive: person's left)."""
    # The person looks to 12, so the left hand points to 9.
    hour = round(-degrees / 30.0) % 12
    return hour or 12


def _detail(image: ByteImage) -> ByteImage:
    values = image.astype(np.float32)
    return np.clip(128 + 2 * (values - cv2.GaussianBlur(values, (0, 0), 8)), 0, 255).astype(
        np.uint8
    )


def _corners(image: ByteImage) -> npt.NDArray[np.float32]:
    """Corners ``(N, 1, 2)``, sought apart outside the middle so that stripes on clothes do not
    take all the places."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    places = np.stack([columns.ravel(), rows.ravel()], axis=1)
    outer = _outside_middle(places, image.shape[1], image.shape[0]).reshape(image.shape)
    out = [np.zeros((0, 1, 2), np.float32)]
    for region in (outer, ~outer):
        mask = region.astype(np.uint8) * 255
        found = cv2.goodFeaturesToTrack(image, 120, 0.01, 6, mask=mask)
        if found is not None:
            out.append(np.asarray(found, np.float32))
    return np.concatenate(out)


def _outside_middle(points: FloatArray, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Left and right quarter and a strip at the top: mostly room, not person."""
    x, y = points[:, 0] / width, points[:, 1] / height
    return np.asarray(((x < 0.24) | (x > 0.76) | (y < 0.1)) & (y < 0.8))


def _exposure(before: ByteImage, after: ByteImage, start: FloatArray, stop: FloatArray) -> float:
    one, two = (
        cv2.blur(image, (7, 7))[points[:, 1].astype(int), points[:, 0].astype(int)]
        for image, points in ((before, start), (after, stop))
    )
    usable = (np.minimum(one, two) > 12) & (np.maximum(one, two) < 245)
    if usable.sum() < 8:
        return 0.0
    ratio = two[usable].astype(np.float64) / one[usable]
    return float(2.2 * np.median(np.log2(ratio)))


def _scale_from_yaw(places: FloatArray, yaws: FloatArray, typical: float) -> float | None:
    """Median slope of pairs of faces (Theil-Sen); None when they say too little."""
    one, two = np.triu_indices(len(yaws), 1)
    along, turned = places[two] - places[one], yaws[two] - yaws[one]
    # Pairs of one pass only: far apart on the path they may be a turn apart.
    near = (np.abs(turned) > np.radians(12)) & (np.abs(along) > 2.0)
    near &= np.abs(along) * typical < np.radians(150)
    if near.sum() < 3:
        return None
    slopes = turned[near] / along[near]
    slope = float(np.median(slopes))
    if slope <= 0 or np.mean(slopes > 0) < 0.8:
        return None
    return slope


def _scale_from_return(places: FloatArray, yaws: FloatArray, scale: float) -> float | None:
    """Scale that puts whole turns between passes of the face; None when it passes once."""
    order = np.argsort(places)
    places, yaws = places[order], yaws[order]
    breaks = np.flatnonzero(np.diff(places) * scale > np.radians(100)) + 1
    if not len(breaks):
        return None
    # A pass is seen more than once; a single "face" may be a mistake.
    runs = zip(np.split(places, breaks), np.split(yaws, breaks), strict=True)
    fronts = [float(np.median(p - y / scale)) for p, y in runs if len(p) > 1]
    if len(fronts) < 2:
        return None
    turns = 0
    for apart in np.diff(fronts):
        expected = float(apart) * scale / (2 * np.pi)
        if not 0.6 < expected / max(1, round(expected)) < 1.6:
            return None
        turns += max(1, round(expected))
    return 2 * np.pi * turns / (fronts[-1] - fronts[0])
