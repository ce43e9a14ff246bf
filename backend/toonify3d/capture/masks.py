"""Person masks of a whole capture: every view's guess, made to agree across views.

1. Every frame alone: segmentation model (:mod:`segmentation`) and parallax (:mod:`parallax`).
2. Vote: the robust visual hull of these guesses, its largest piece (:mod:`hull`).
3. Colour: person and room inside and outside the hull's outline give colour models, of the whole
   video and near each place (:mod:`colour_model`); with the outline as prior they give new guesses.
   Back to 2, mistrusting the guesses less each round (compare Campbell et al. 2010, "Automatic
   object segmentation from calibrated images").
4. The last round runs at full size, the edges following the picture by a guided filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..progress import Progress
from ..scene import ByteImage, Camera, Float32Array, FloatArray
from .colour_model import COLOURS, Palette, histogram, learn_palette, local_ratio
from .hull import grid_points, largest_piece, silhouette_distance, trace, vote
from .look_at import NO_PERSON, Ball, look_at_ball
from .mask_settings import MaskSettings
from .parallax import ball_evidence
from .segmentation import PersonSegmenter

BoolImage = npt.NDArray[np.bool_]


def compute_masks(
    images: list[ByteImage],
    cameras: list[Camera],
    sparse_points: FloatArray | None,
    settings: MaskSettings,
    progress: Progress,
) -> list[ByteImage]:
    """Masks of the person, one per image, ``(H, W)`` 0 to 255, soft over one pixel.

    Args:
        images: Undistorted RGB frames of one size.
        cameras: Their cameras, any world and unit of length.
        sparse_points: ``(N, 3)`` structure-from-motion points in that world: they tell how far the
            room reaches; None when not known.
        settings: See :class:`MaskSettings`.
        progress: Gets updates and warnings.

    Raises:
        InputError: No person in the video (``no_person``).
    """
    small = [_fit(image, settings.vote_long_side) for image in images]
    guesses = [_logit(p) for p in _probabilities(images, small[0].shape[:2], progress)]
    ball = look_at_ball([guess > 0.0 for guess in guesses], cameras)
    farthest = _farthest(cameras, ball, sparse_points)
    tiny = [_fit(image, settings.vote_long_side * 2 // 3) for image in small]
    own = []
    for index, guess in enumerate(guesses):
        evidence = ball_evidence(tiny, cameras, index, ball, farthest)
        own.append(3.0 * cv2.resize(evidence, guess.shape[::-1]) + guess)
        progress.update(0.15 + 0.3 * (index + 1) / len(guesses), "Masks: parallax")
    palette = learn_palette(small)
    current = own
    for number in range(settings.rounds):
        outlines = _vote_round(current, cameras, ball, settings, number)
        if number == 0:
            _check_person(outlines, guesses)
        current = _colour_round(small, outlines, own, palette, settings, first=number == 0)
        progress.update(0.45 + 0.3 * (number + 1) / settings.rounds, "Masks: vote across views")
    outlines = _vote_round(current, cameras, ball, settings, settings.rounds)
    return _final_masks(images, outlines, own, palette, settings, progress)


def _farthest(cameras: Sequence[Camera], ball: Ball, points: FloatArray | None) -> float:
    """Depth that the room reaches: from the sparse points, else six times the camera distance."""
    distance = float(np.median([np.linalg.norm(c.center - ball.center) for c in cameras]))
    if points is None or len(points) < 100:
        return 6.0 * distance
    reach = np.percentile(np.linalg.norm(points - ball.center, axis=1), 95)
    return distance + float(np.clip(reach, distance, 20.0 * distance))


def _probabilities(
    images: Sequence[ByteImage], shape: tuple[int, ...], progress: Progress
) -> list[Float32Array]:
    out = []
    with PersonSegmenter() as segmenter:
        for index, image in enumerate(images):
            probability = segmenter.probability(_fit(image, 640))
            size = (shape[1], shape[0])
            resized = cv2.resize(probability, size, interpolation=cv2.INTER_AREA)
            out.append(np.asarray(resized, np.float32))
            progress.update(0.15 * (index + 1) / len(images), "Masks: person segmentation")
    return out


def _logit(probability: Float32Array) -> Float32Array:
    """Log-odds clipped to 2.5: the model is often sure and wrong."""
    ratio = np.log((probability + 0.02) / (1.02 - probability))
    return np.clip(ratio, -2.5, 2.5).astype(np.float32)


def _vote_round(
    current: Sequence[Float32Array],
    cameras: Sequence[Camera],
    ball: Ball,
    settings: MaskSettings,
    number: int,
) -> list[Float32Array]:
    """Signed distance images (pixels, positive outside) of the hull's outlines."""
    share = settings.outvoted if number == 0 else settings.outvoted / 4.0
    chosen = np.unique(np.linspace(0, len(cameras) - 1, settings.vote_views).astype(int))
    fields = [silhouette_distance(current[i] > 0.0) for i in chosen]
    count = settings.grid
    points = grid_points(ball.center, ball.radius, count)
    sdf = vote(points, fields, [cameras[i] for i in chosen], share, settings.min_seen)
    outside_ball = np.linalg.norm(points - ball.center, axis=1) - ball.radius
    sdf = np.maximum(sdf, outside_ball).reshape(count, count, count).astype(np.float32)
    grid = torch.from_numpy(largest_piece(sdf, 2.0 * ball.radius / (count - 1)))
    height, width = current[0].shape
    outlines = []
    for camera in cameras:
        depth = trace(grid, ball.center, ball.radius, camera, width // 2, height // 2)
        shown = cv2.resize((depth > 0).astype(np.float32), (width, height)) > 0.5
        # Closing removes the pinholes that grazing rays leave.
        closed = cv2.morphologyEx(shown.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
        outlines.append(silhouette_distance(closed > 0))
    return outlines


def _check_person(outlines: Sequence[Float32Array], guesses: Sequence[Float32Array]) -> None:
    """What the cameras circle round must be a person to the segmentation model."""
    inside = [
        float((guess[outline < 0] > 0).mean()) if (outline < 0).any() else 0.0
        for outline, guess in zip(outlines, guesses, strict=True)
    ]
    if float(np.median(inside)) < 0.35:
        raise InputError(NO_PERSON, "no_person")


@dataclass(frozen=True)
class _Colours:
    palette: Palette
    person: FloatArray
    room: FloatArray


def _whole_video(
    labels: Sequence[npt.NDArray[np.uint8]],
    outlines: Sequence[Float32Array],
    palette: Palette,
    band: float,
) -> _Colours:
    person, room = np.full(COLOURS, 1e-9), np.full(COLOURS, 1e-9)
    for label, outline in zip(labels, outlines, strict=True):
        person += histogram(label, outline < -0.3 * band)
        room += histogram(label, outline > 0.7 * band)
    return _Colours(palette, person / person.sum(), room / room.sum())


def _colour_round(
    images: Sequence[ByteImage],
    outlines: Sequence[Float32Array],
    own: Sequence[Float32Array],
    palette: Palette,
    settings: MaskSettings,
    first: bool,
) -> list[Float32Array]:
    band = settings.band * max(images[0].shape[:2])
    labels = [palette(image) for image in images]
    colours = _whole_video(labels, outlines, palette, band)
    weights = (0.5, 0.6) if first else (1.0, 0.3)
    return [
        _judge(image, label, outline, colours, band)
        + weights[0] * _prior(outline, band)
        + weights[1] * guess
        for image, label, outline, guess in zip(images, labels, outlines, own, strict=True)
    ]


def _prior(outline: Float32Array, band: float) -> Float32Array:
    return np.clip(-2.0 / band * outline, -6.0, 6.0).astype(np.float32)


def _judge(
    image: ByteImage,
    labels: npt.NDArray[np.uint8],
    outline: Float32Array,
    colours: _Colours,
    band: float,
) -> Float32Array:
    """Log-odds of person by colour, smoothed along the picture's edges."""
    block = max(1, round(max(image.shape[:2]) / 70))
    reach = round(0.06 * max(image.shape[:2]))
    room = (outline > 0.7 * band) & (outline < 10.0 * band)
    ratio = local_ratio(
        labels, outline < -0.3 * band, room, colours.person, colours.room, reach, block
    )
    radius = max(2, round(max(image.shape[:2]) / 70))
    return np.asarray(cv2.ximgproc.guidedFilter(image, ratio, radius, (0.04 * 255) ** 2))


def _final_masks(
    images: Sequence[ByteImage],
    outlines: Sequence[Float32Array],
    own: Sequence[Float32Array],
    palette: Palette,
    settings: MaskSettings,
    progress: Progress,
) -> list[ByteImage]:
    fitted = [_fit(image, settings.refine_long_side) for image in images]
    height, width = fitted[0].shape[:2]
    scale = height / outlines[0].shape[0]
    large = [cv2.resize(outline, (width, height)) * scale for outline in outlines]
    labels = [palette(image) for image in fitted]
    band = settings.band * max(height, width)
    colours = _whole_video(labels, large, palette, band)
    masks = []
    for index, image in enumerate(fitted):
        logit = _judge(image, labels[index], large[index], colours, band)
        logit += _prior(large[index], band) + 0.3 * cv2.resize(own[index], (width, height))
        masks.append(_crisp(logit, images[index].shape[:2]))
        progress.update(0.75 + 0.25 * (index + 1) / len(fitted), "Masks: outlines")
    return masks


def _crisp(logit: Float32Array, shape: tuple[int, ...]) -> ByteImage:
    """One piece without holes, its edge soft over one pixel, at the size ``shape``."""
    if logit.shape != tuple(shape):
        size = (shape[1], shape[0])
        logit = np.asarray(cv2.resize(logit, size, interpolation=cv2.INTER_CUBIC), np.float32)
    solid = (logit > 0.0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    if count < 2:
        return np.zeros(shape, np.uint8)
    solid = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(solid, contours, -1, (1.0,), cv2.FILLED)
    return np.asarray(cv2.GaussianBlur(solid * 255, (3, 3), 0.5), np.uint8)


def _fit(image: ByteImage, long_side: int) -> ByteImage:
    """The image scaled down so that its long side is at most ``long_side``."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1.0:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
