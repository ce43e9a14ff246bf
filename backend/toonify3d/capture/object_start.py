"""Where the masks start when the segmentation model sees no person: what the cameras look at.

Busts, skulls and mannequins are no persons to a model trained on webcams, and real heads filmed
in odd light sometimes are none either. What is left is geometry. The cameras' axes meet in the
subject; a ball round that place holds it, parallax tells what lies inside the ball
(:mod:`.parallax`), and where the picture is too plain for parallax the colours that parallax is
sure of decide (:mod:`.colour_model`). The rounds of :mod:`.masks` then go on as for a person.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Camera, Float32Array, FloatArray
from .colour_model import COLOURS, Palette, histogram, local_ratio
from .look_at import Ball, nearest_point

SURE = 0.4
"""Evidence from which parallax is trusted to name a pixel's colour subject or room."""
_CORNERS = 160
_TRACKED = 12
"""Corners that must be found again on either side for their motion to say something."""


def look_at_ball_of_cameras(cameras: Sequence[Camera], points: FloatArray | None) -> Ball:
    """Ball round what cameras look at: where their axes meet, as large as they see there.

    Args:
        cameras: At least two, any world.
        points: ``(N, 3)`` sparse points in that world or None: where a cluster of them lies round
            the centre, the ball shrinks to it.
    """
    origins = np.array([camera.center for camera in cameras])
    axes = np.array([camera.c2w[:3, 2] for camera in cameras])
    center = nearest_point(origins, axes)
    spans = []
    for camera in cameras:
        (_,), (depth,) = camera.project(center[None])
        spans.append(0.65 * min(camera.width, camera.height) / camera.K[0, 0] * max(depth, 0.0))
    radius = float(np.median(spans))
    if points is not None and len(points):
        distance = np.linalg.norm(points - center, axis=1)
        near = distance[distance < 1.2 * radius]
        if len(near) >= 100:
            radius = float(np.clip(1.25 * np.percentile(near, 95), 0.3 * radius, 1.1 * radius))
    return Ball(center, radius)


def start_from_parallax(
    images: Sequence[ByteImage], evidence: Sequence[Float32Array], palette: Palette
) -> list[Float32Array]:
    """Log-odds ``(h, w)`` per view that a pixel shows the subject.

    Args:
        images: RGB ``(h, w, 3)``, small, of one size.
        evidence: Per view ``(h, w)`` in -1 to 1, see :func:`~.parallax.ball_evidence`.
        palette: Quantizes their colours.
    """
    labels = [palette(image) for image in images]
    subject, room = np.full(COLOURS, 1e-9), np.full(COLOURS, 1e-9)
    for label, value in zip(labels, evidence, strict=True):
        subject += histogram(label, value > SURE)
        room += histogram(label, value < -SURE)
    subject, room = subject / subject.sum(), room / room.sum()
    return [
        _log_odds(image, label, value, subject, room)
        for image, label, value in zip(images, labels, evidence, strict=True)
    ]


def _log_odds(
    image: ByteImage,
    labels: npt.NDArray[np.uint8],
    evidence: Float32Array,
    subject: FloatArray,
    room: FloatArray,
) -> Float32Array:
    long_side = max(image.shape[:2])
    reach, block = round(0.12 * long_side), max(1, round(long_side / 70))
    ratio = local_ratio(labels, evidence > SURE, evidence < -SURE, subject, room, reach, block)
    # What parallax is sure of counts twice; the colours fill the plain places between.
    value = ratio + 4.0 * cv2.blur(evidence, (3, 3)) - 0.3
    radius = max(2, round(long_side / 70))
    smooth = cv2.ximgproc.guidedFilter(image, value.astype(np.float32), radius, (0.06 * 255) ** 2)
    return np.clip(smooth, -4.0, 4.0).astype(np.float32)


def subject_found(
    outlines: Sequence[Float32Array], evidence: Sequence[Float32Array], least: float = 0.15
) -> bool:
    """Whether what the views agree on is really near: parallax says so in most of them.

    Args:
        outlines: Signed distances ``(h, w)`` to the outline, negative inside.
        evidence: Of the same size.
        least: Mean evidence inside the outline that the middle view must have.
    """
    inside = []
    for outline, value in zip(outlines, evidence, strict=True):
        shown = outline < 0
        inside.append(float(value[shown].mean()) if shown.mean() > 0.003 else -1.0)
    return float(np.median(inside)) > least


def circles_something(images: Sequence[ByteImage], pairs: int = 12) -> bool | None:
    """Whether the middle of the pictures moves unlike the margin: one walks round a thing.

    Answered in a second, before structure from motion. In a pan along a wall everything moves
    alike. Corners are tracked by optical flow (Lucas-Kanade) between neighbouring pictures.

    Args:
        images: RGB, in order.
        pairs: At most so many neighbours are compared.

    Returns:
        None when too few corners were found again to tell.
    """
    starts = np.unique(np.linspace(0, len(images) - 2, pairs).astype(int))
    differences = []
    for start in starts:
        found = _motions(_gray(images[start]), _gray(images[start + 1]))
        if found is not None:
            middle, margin = found
            scale = max(float(np.hypot(*middle)), float(np.hypot(*margin)), 0.5)
            differences.append(float(np.hypot(*(middle - margin))) / scale)
    if len(differences) < max(3, len(starts) // 3):
        return None
    return float(np.median(differences)) > 0.35


def _gray(image: ByteImage) -> ByteImage:
    scale = 320.0 / max(image.shape[:2])
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1.0:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(gray, np.uint8)


def _motions(one: ByteImage, two: ByteImage) -> tuple[FloatArray, FloatArray] | None:
    """Median flow ``(2,)`` in the middle and in the margin; None with too few corners."""
    height, width = one.shape
    middle = np.zeros(one.shape, np.uint8)
    rows, columns = (
        slice(height * 3 // 10, height * 7 // 10),
        slice(width * 3 // 10, width * 7 // 10),
    )
    middle[rows, columns] = 255
    margin = np.full(one.shape, 255, np.uint8)
    margin[:, width // 6 : width - width // 6] = 0
    out = []
    for where in (middle, margin):
        corners = cv2.goodFeaturesToTrack(one, _CORNERS, 0.01, 4, mask=where)
        if corners is None:
            return None
        moved, found, _ = cv2.calcOpticalFlowPyrLK(one, two, corners, np.empty_like(corners))
        good = found.ravel() == 1
        if good.sum() < _TRACKED:
            return None
        out.append(np.median((moved - corners).reshape(-1, 2)[good], axis=0).astype(np.float64))
    return out[0], out[1]
