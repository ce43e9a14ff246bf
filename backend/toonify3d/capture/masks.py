"""Person masks of a whole capture: every view's guess, made to agree across views.

1. Every frame alone: segmentation model (:mod:`segmentation`) and parallax (:mod:`parallax`); when
   the model sees no person, parallax and colour alone (:mod:`object_start`), with a warning.
2. Vote: the robust visual hull of these guesses, its largest piece (:mod:`hull`).
3. Colour: person and room inside and outside the hull's outline give colour models, of the whole
   video and near each place (:mod:`colour_model`); with the outline as prior they give new guesses.
   Back to 2, mistrusting the guesses less each round (compare Campbell et al. 2010, "Automatic
   object segmentation from calibrated images").
4. The last round runs at full size; then every edge is moved to where its picture shows it
   (:mod:`edges`).

Nothing in this chain may push outlines to one side on the mean, because stage I follows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..progress import Progress, SubProgress
from ..scene import ByteImage, Camera, Float32Array, FloatArray
from .adapters.matting import external_masks
from .colour_model import COLOURS, Palette, histogram, learn_palette, local_ratio
from .edges import refine_edge
from .hull import UNSEEN, grid_points, largest_piece, vote
from .look_at import NO_PERSON, Ball, look_at_ball
from .mask_settings import MaskSettings
from .object_start import look_at_ball_of_cameras, start_from_parallax, subject_found
from .parallax import ball_evidence
from .segmentation import PersonSegmenter
from .silhouettes import silhouette, subpixel_distance

BoolImage = npt.NDArray[np.bool_]
NOT_A_PERSON = (
    "No person was recognised where the cameras look, so the masks show the thing that they go "
    "round; check the masks, and give your own with capture.masks.folder where they are wrong."
)


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
        InputError: No person, and nothing else that the cameras go round (``no_person``); see also
            :func:`~.adapters.matting.external_masks` when ``settings.source`` names a model.
    """
    if settings.source in ("bshm", "rembg"):
        return external_masks(images, settings, progress)
    views = _Views.of(images, cameras, sparse_points, settings)
    try:
        start = _person_start(views, settings, progress)
    except InputError as error:
        if error.code != "no_person":
            raise
        progress.warn(NOT_A_PERSON)
        start = _object_start(views, settings, progress)
    current, outlines = start.own, start.outlines
    for number in range(settings.rounds):
        if number > 0:
            outlines = _vote_round(current, cameras, start.ball, settings, number)
        current = _colour_round(
            views.small, outlines, start.own, views.palette, settings, first=number == 0
        )
        progress.update(0.45 + 0.3 * (number + 1) / settings.rounds, "Masks: vote across views")
    outlines = _vote_round(current, cameras, start.ball, settings, settings.rounds)
    return _final_masks(images, outlines, views.palette, settings, progress)


_SPIKE = 5
"""Pieces thinner than this many pixels are thin."""
_STICKS_OUT = 2.5
"""Pixels by which a thin piece may lie outside the views' common outline."""


@dataclass(frozen=True)
class _Views:
    """The capture at the size of the vote, and smaller for the parallax."""

    images: Sequence[ByteImage]
    small: list[ByteImage]
    tiny: list[ByteImage]
    cameras: Sequence[Camera]
    points: FloatArray | None
    palette: Palette

    @classmethod
    def of(
        cls,
        images: Sequence[ByteImage],
        cameras: Sequence[Camera],
        points: FloatArray | None,
        settings: MaskSettings,
    ) -> _Views:
        small = [_fit(image, settings.vote_long_side) for image in images]
        tiny = [_fit(image, settings.vote_long_side * 2 // 3) for image in small]
        return cls(images, small, tiny, cameras, points, learn_palette(small))

    def evidence(self, ball: Ball, progress: Progress) -> list[Float32Array]:
        """Per view ``(h, w)`` in -1 to 1: does parallax place it inside the ball?"""
        farthest = _farthest(self.cameras, ball, self.points)
        out = []
        height, width = self.small[0].shape[:2]
        for index in range(len(self.small)):
            value = ball_evidence(self.tiny, self.cameras, index, ball, farthest)
            out.append(np.asarray(cv2.resize(value, (width, height)), np.float32))
            progress.update((index + 1) / len(self.small), "Masks: parallax")
        return out


@dataclass(frozen=True)
class _Start:
    """What every frame says alone, the ball that holds the subject, and the first vote."""

    own: list[Float32Array]
    ball: Ball
    outlines: list[Float32Array]


def _person_start(views: _Views, settings: MaskSettings, progress: Progress) -> _Start:
    """From the segmentation model and parallax.

    Raises:
        InputError: No person to the model where the cameras look (``no_person``).
    """
    shape = views.small[0].shape[:2]
    part = SubProgress(progress, 0.0, 0.1)
    guesses = [_logit(p) for p in _probabilities(views.images, shape, part)]
    ball = look_at_ball([guess > 0.0 for guess in guesses], views.cameras)
    evidence = views.evidence(ball, SubProgress(progress, 0.1, 0.3))
    own = [3.0 * value + guess for value, guess in zip(evidence, guesses, strict=True)]
    outlines = _vote_round(own, views.cameras, ball, settings, 0)
    _check_person(outlines, guesses)
    return _Start(own, ball, outlines)


def _object_start(views: _Views, settings: MaskSettings, progress: Progress) -> _Start:
    """From the cameras and parallax alone; a second time round what the first time found.

    Raises:
        InputError: Nothing is where the cameras look (``no_person``).
    """
    ball = look_at_ball_of_cameras(views.cameras, views.points)
    for start in (0.3, 0.375):
        evidence = views.evidence(ball, SubProgress(progress, start, start + 0.075))
        own = start_from_parallax(views.small, evidence, views.palette)
        outlines = _vote_round(own, views.cameras, ball, settings, 0)
        if not subject_found(outlines, evidence):
            raise InputError(NO_PERSON, "no_person")
        found = look_at_ball([outline < 0 for outline in outlines], views.cameras)
        if _alike(ball, found):
            break
        ball = found
    return _Start(own, ball, outlines)


def _alike(one: Ball, two: Ball) -> bool:
    apart = float(np.linalg.norm(one.center - two.center))
    return apart < 0.15 * one.radius and 0.8 < two.radius / one.radius < 1.25


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
            progress.update((index + 1) / len(images), "Masks: person segmentation")
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
    """Signed distance images (pixels, positive outside) of the hull's outlines.

    Args:
        current: Per view log-odds of person; the outline runs between the pixels where they cross
            zero.
        cameras: One per view.
        ball: Holds the subject.
        settings: Of the masks.
        number: Round; the first one mistrusts single views most.
    """
    share = settings.outvoted if number == 0 else settings.outvoted / 4.0
    if number == settings.rounds:
        # Nothing is grossly wrong any more, but of the few views that graze a place the most inward
        # one is inside by its noise.
        share = settings.outvoted / 2.0
    chosen = np.unique(np.linspace(0, len(cameras) - 1, settings.vote_views).astype(int))
    fields = [subpixel_distance(-current[i]) for i in chosen]
    count = settings.grid
    points = grid_points(ball.center, ball.radius, count)
    sdf = vote(points, fields, [cameras[i] for i in chosen], share, settings.min_seen)
    cell = 2.0 * ball.radius / (count - 1)
    # Where too few views see, "outside" is no distance: the end lies half way to the next corner.
    sdf = np.where(sdf >= -UNSEEN, cell, sdf)
    outside_ball = np.linalg.norm(points - ball.center, axis=1) - ball.radius
    sdf = np.maximum(sdf, outside_ball).reshape(count, count, count).astype(np.float32)
    grid = torch.from_numpy(largest_piece(sdf, cell))
    height, width = current[0].shape
    return [silhouette(grid, ball.center, ball.radius, c, width, height) for c in cameras]


def _check_person(outlines: Sequence[Float32Array], guesses: Sequence[Float32Array]) -> None:
    """What the cameras circle round must be a person to the segmentation model."""
    inside = [
        float((guess[outline < 0] > 0).mean()) if (outline < 0).any() else 0.0
        for outline, guess in zip(outlines, guesses, strict=True)
    ]
    if float(np.median(inside)) < 0.35:
        raise InputError(NO_PERSON, "no_person")


@dataclass(frozen=True)
class _Known:
    """Pixels from the outline from which on a colour is the person's, or the room's."""

    inside: float
    outside: float
    farthest: float

    @classmethod
    def of(cls, band: float, last: bool) -> _Known:
        """The last outline is good to a pixel or two: then the shaded rim is looked at too."""
        inside, outside = (0.15, 0.3) if last else (0.3, 0.7)
        return cls(inside * band, outside * band, 10.0 * band)


@dataclass(frozen=True)
class _Colours:
    palette: Palette
    person: FloatArray
    room: FloatArray


def _whole_video(
    labels: Sequence[npt.NDArray[np.uint8]],
    outlines: Sequence[Float32Array],
    palette: Palette,
    known: _Known,
) -> _Colours:
    person, room = np.full(COLOURS, 1e-9), np.full(COLOURS, 1e-9)
    for label, outline in zip(labels, outlines, strict=True):
        person += histogram(label, outline < -known.inside)
        room += histogram(label, outline > known.outside)
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
    known = _Known.of(band, last=False)
    colours = _whole_video(labels, outlines, palette, known)
    weights = (0.5, 0.6) if first else (1.0, 0.3)
    return [
        _judge(image, label, outline, colours, known)
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
    known: _Known,
) -> Float32Array:
    """Log-odds of person by colour, smoothed along the picture's edges."""
    block = max(1, round(max(image.shape[:2]) / 70))
    reach = round(0.06 * max(image.shape[:2]))
    room = (outline > known.outside) & (outline < known.farthest)
    person = outline < -known.inside
    ratio = local_ratio(labels, person, room, colours.person, colours.room, reach, block)
    radius = max(2, round(max(image.shape[:2]) / 70))
    return np.asarray(cv2.ximgproc.guidedFilter(image, ratio, radius, (0.04 * 255) ** 2))


def _final_masks(
    images: Sequence[ByteImage],
    outlines: Sequence[Float32Array],
    palette: Palette,
    settings: MaskSettings,
    progress: Progress,
) -> list[ByteImage]:
    """Colour, the views' common outline, and the picture's edge.

    What single frames said at first is in the outlines; parallax and segmentation are coarser than
    these, and fatter than the person.
    """
    fitted = [_fit(image, settings.refine_long_side) for image in images]
    height, width = fitted[0].shape[:2]
    scale = height / outlines[0].shape[0]
    large = [cv2.resize(outline, (width, height)) * scale for outline in outlines]
    labels = [palette(image) for image in fitted]
    band = settings.band * max(height, width)
    known = _Known.of(band, last=True)
    colours = _whole_video(labels, large, palette, known)
    masks = []
    for index, image in enumerate(fitted):
        logit = _judge(image, labels[index], large[index], colours, known)
        # The outline is now four times as sure as in the rounds before.
        logit += _prior(large[index], 0.25 * band)
        solid = _without_spikes(_whole(logit > 0.0), large[index])
        edge = refine_edge(image, solid, _whole)
        masks.append(_drawn(edge, images[index].shape[:2]))
        progress.update(0.75 + 0.25 * (index + 1) / len(fitted), "Masks: outlines")
    return masks


def _without_spikes(solid: BoolImage, outline: Float32Array) -> BoolImage:
    """Without thin pieces that stick out of the views' common outline.

    Where an edge of the room meets the person's, the colours smoothed along edges leak out along
    it, a pixel or two thick (seen on lps, at the ends of the coloured blocks).
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_SPIKE, _SPIKE))
    opened = np.asarray(cv2.morphologyEx(solid.astype(np.uint8), cv2.MORPH_OPEN, kernel)) > 0
    thin = solid & ~opened
    _, labels = cv2.connectedComponents(thin.astype(np.uint8), connectivity=4)
    out = np.unique(labels[thin & (outline > _STICKS_OUT)])
    return np.asarray(solid & ~np.isin(labels, out[out > 0]))


def _whole(solid: BoolImage) -> BoolImage:
    """The largest piece without its holes."""
    byte = solid.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(byte, connectivity=4)
    if count < 2:
        return np.zeros(solid.shape, np.bool_)
    byte = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(byte, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(byte, contours, -1, (1.0,), cv2.FILLED)
    return np.asarray(byte > 0)


def _drawn(distance: Float32Array, shape: tuple[int, ...]) -> ByteImage:
    """A mask soft over one pixel, of the size ``shape``, from signed distances in pixels."""
    if distance.shape != tuple(shape):
        size = (shape[1], shape[0])
        scale = np.float32(shape[0] / distance.shape[0])
        larger = cv2.resize(distance, size, interpolation=cv2.INTER_CUBIC)
        distance = np.asarray(larger, np.float32) * scale
    return np.asarray((np.clip(0.5 - distance, 0.0, 1.0) * 255.0).round(), np.uint8)


def _fit(image: ByteImage, long_side: int) -> ByteImage:
    """The image scaled down so that its long side is at most ``long_side``."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1.0:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
