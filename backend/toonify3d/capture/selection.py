"""Which frames of a video to use: sharp ones, evenly spread over the camera's motion.

Frames are compared with their neighbours only: the sharpest of each of N equal arcs of motion (not
of time, so that pauses and hurries do not matter) is kept; near-duplicates and frames much blurrier
than their surroundings are dropped.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..progress import Progress
from ..scene import ByteImage, FloatArray
from .settings import CaptureSettings
from .video import decode

ANALYSIS_SIDE = 320
"""Long side in pixels at which motion and sharpness are measured."""
DUPLICATE_MOTION = 0.05
"""Pixels (at the analysis size) that the picture must have moved since the last kept frame."""
BLURRY = 0.3
"""Frames below this share of the sharpness round them are dropped."""


@dataclass(frozen=True)
class FrameChoice:
    """The frames to use.

    Attributes:
        indices: 0-based source indices of the chosen frames, ascending.
        decoded: How many frames the source has.
        duplicates: How many were dropped because the camera stood still.
        blurred: How many were dropped because they are blurred.
    """

    indices: list[int]
    decoded: int
    duplicates: int
    blurred: int


def choose_frames(source: Path, settings: CaptureSettings, progress: Progress) -> FrameChoice:
    """Decode once at small size and choose at most ``settings.max_frames`` frames.

    Raises:
        InputError: Bad source, or fewer than ``settings.min_frames`` usable frames.
    """
    sharpness: list[float] = []
    motion: list[float] = []
    previous: ByteImage | None = None
    for index, gray in decode(source, ANALYSIS_SIDE, gray=True):
        sharpness.append(measure_sharpness(gray))
        motion.append(0.0 if previous is None else measure_motion(previous, gray))
        previous = gray
        # The number of frames is not known before the end: approach 1 asymptotically.
        progress.update(index / (index + 300.0), f"Reading frame {index + 1}")
    choice = select(np.array(sharpness), np.array(motion), settings.max_frames)
    if len(choice.indices) < settings.min_frames:
        raise InputError(_too_few(source, choice, settings.min_frames), "too_few_frames")
    return choice


def select(sharpness: FloatArray, motion: FloatArray, max_frames: int) -> FrameChoice:
    """Choose frames.

    Args:
        sharpness: ``(N,)`` any measure, compared with neighbours only.
        motion: ``(N,)`` how far each frame moved since the one before.
        max_frames: At most so many are chosen.
    """
    count = len(sharpness)
    if count == 0:
        return FrameChoice([], 0, 0, 0)
    relative = sharpness / np.maximum(ndimage.median_filter(sharpness, 15, mode="nearest"), 1e-9)
    moving = _without_duplicates(motion, relative)
    sharp = [i for i in moving if relative[i] >= BLURRY]
    blurred = len(moving) - len(sharp)
    chosen = sharp
    if len(sharp) > max_frames:
        chosen = _sharpest_per_arc(np.array(sharp), np.cumsum(motion), relative, max_frames)
    return FrameChoice(chosen, count, count - len(moving), blurred)


def measure_sharpness(gray: ByteImage) -> float:
    """Energy of the finest detail, relative to contrast (so that exposure matters little)."""
    image = gray.astype(np.float32)
    fine = image - cv2.GaussianBlur(image, (0, 0), 1.0)
    return float(np.sqrt(np.mean(fine**2)) / (image.std() + 4.0))


def measure_motion(before: ByteImage, after: ByteImage) -> float:
    """Median length in pixels of the optical flow (Lucas-Kanade at corners, whole picture)."""
    corners = cv2.goodFeaturesToTrack(before, 200, 0.01, 7)
    if corners is None or len(corners) < 8:
        return 0.0
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, np.empty_like(corners), winSize=(15, 15), maxLevel=3
    )
    good = found.reshape(-1) == 1
    if good.sum() < 8:
        # Lost altogether: a jump as large as the picture is wide.
        return float(before.shape[1])
    return float(np.median(np.linalg.norm((moved - corners).reshape(-1, 2)[good], axis=1)))


def _without_duplicates(motion: FloatArray, relative: FloatArray) -> list[int]:
    """Indices with one frame (the sharpest) per stand-still."""
    kept: list[int] = []
    since = np.inf
    for index, step in enumerate(motion):
        since += float(step)
        if since > DUPLICATE_MOTION:
            kept.append(index)
            since = 0.0
        elif relative[index] > relative[kept[-1]]:
            kept[-1] = index
    return kept


def _sharpest_per_arc(
    candidates: npt.NDArray[np.int64], path: FloatArray, relative: FloatArray, count: int
) -> list[int]:
    """The sharpest candidate of each of ``count`` arcs with equally many pixels of motion.

    Arcs without a candidate (a whip pan) give none, so the most crowded arcs are halved until the
    number is reached or nothing is left to halve.
    """
    position = path[candidates]
    edges = np.linspace(position[0], position[-1] * (1 + 1e-9) + 1e-9, count + 1)
    arcs = [
        candidates[(position >= low) & (position < high)] for low, high in itertools.pairwise(edges)
    ]
    arcs = [arc for arc in arcs if len(arc)]
    while len(arcs) < count:
        crowded = max(range(len(arcs)), key=lambda i: len(arcs[i]))
        arc = arcs[crowded]
        if len(arc) < 2:
            break
        arcs[crowded : crowded + 1] = [arc[: len(arc) // 2], arc[len(arc) // 2 :]]
    return [int(arc[np.argmax(relative[arc])]) for arc in arcs]


def _too_few(source: Path, choice: FrameChoice, needed: int) -> str:
    why = f"{source.name} has only {len(choice.indices)} usable frames of {choice.decoded}"
    if choice.duplicates > choice.blurred and choice.decoded > needed:
        return f"{why}: the camera hardly moves; walk once around the head while filming."
    return (
        f"{why}; at least {needed} are needed (20 to 30 seconds of one slow turn around the head "
        "are best)."
    )
