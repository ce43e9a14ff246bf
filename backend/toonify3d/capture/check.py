"""``toonify3d check``: is this capture good enough, told in seconds instead of after an hour.

One decoding pass at small size: optical flow between neighbours (motion, turn, exposure), and a few
pictures kept for the slower questions (face, person, focus, texture). :mod:`.findings` turns the
figures into sentences, :mod:`.check_sheet` into a picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..scene import ByteImage, FloatArray
from .landmarks import FaceLandmarker, FaceLandmarks
from .matching import RecentFeatures
from .object_start import circles_something
from .posed import is_posed, load_posed
from .probe import VideoInfo, probe
from .segmentation import GENERAL, PersonSegmenter
from .selection import DUPLICATE_MOTION, FrameChoice, measure_sharpness, select
from .settings import CaptureSettings
from .subject import SubjectMotion, epipolar_motion
from .turn import STEP_FEATURES, Step, Turn, estimate_turn, measure_step
from .video import check_source, decode, image_files, read_image

LOOK_SIDE = 640
"""Long side in pixels at which pictures are kept and looked at."""
FLOW_SIDE = 320
"""Long side in pixels at which neighbours are compared."""
STEPS = 300
"""Longer videos are compared at about this many places."""
KEPT = 48
"""Between this many and half of it are kept for the slower questions."""
PAIRS = 12
"""Places at which neighbours are compared to see whether the person moves."""


@dataclass(frozen=True)
class Look:
    """What one kept picture shows.

    Attributes:
        place: Its position among the looked-at frames.
        source_index: Its 0-based index in the source.
        image: RGB ``(H, W, 3)``, long side at most :data:`LOOK_SIDE`.
        face: The face in it, or None.
    """

    place: int
    source_index: int
    image: ByteImage
    face: FaceLandmarks | None


@dataclass(frozen=True)
class Person:
    """How the person sits in the picture, over some pictures.

    Attributes:
        share: Median share of the picture that is the person.
        head_cut: Share of the pictures in which the person touches the upper edge.
        side_cut: Share in which the head's height of the left or right edge shows the person.
    """

    share: float
    head_cut: float
    side_cut: float


@dataclass(frozen=True)
class Measured:
    """The figures of a capture.

    Attributes:
        name: File or folder name.
        is_video: Else a folder of images.
        size: Width and height of the source in pixels, upright; None when unknown.
        seconds: Length of a video; None when unknown.
        frames: Frames of the video (or images).
        choice: What the job's frame choice makes of the looked-at frames.
        steps: Changes between looked-at frames (the first is no change).
        turn: Where the camera stood.
        looks: The kept pictures.
        person: None when nobody was found.
        blur: Median perceived blur, 0 sharp to 1 (Crete et al. 2007), in the middle of the picture.
        textured: Median number of SIFT points in the whole picture.
        room_points: Median number of SIFT points outside the person.
        room_cells: Median share of the cells round the person that have some.
        hdr: ``"HLG"`` or ``"PQ"`` for a video of high dynamic range, else None.
        subject: How the person moved; None when too few features tell.
        goes_round: Whether the camera goes round a thing that is no person to the models; None when
            that cannot be told, or a person is there.
    """

    name: str
    is_video: bool
    size: tuple[int, int] | None
    seconds: float | None
    frames: int
    choice: FrameChoice
    steps: list[Step]
    turn: Turn
    looks: list[Look]
    person: Person | None
    blur: float
    textured: float
    room_points: float
    room_cells: float
    hdr: str | None = None
    subject: SubjectMotion | None = None
    goes_round: bool | None = None

    @property
    def faces(self) -> list[Look]:
        """The kept pictures with a face."""
        return [look for look in self.looks if look.face is not None]

    @property
    def ordered(self) -> bool:
        """Whether neighbours show the same things: always in a video, not in every folder.

        At 19 degrees from picture to picture a tenth of the features is found again, in pictures
        that were shuffled a thirtieth.
        """
        found = [step.tracked if step.room else 0.0 for step in self.steps[1:]]
        return self.is_video or float(np.median(found or [0.0])) >= 0.07

    @property
    def turn_known(self) -> bool:
        """Whether the angles of :attr:`turn` can be believed and mean something."""
        return self.turn.anchored and self.ordered and self.turn.total > np.radians(25)


def measure_capture(source: Path, settings: CaptureSettings) -> Measured:
    """Look at a video or image folder.

    Raises:
        InputError: It cannot be a capture at all (see :func:`~.video.check_source`).
    """
    if is_posed(source):  # the pictures tell; that the cameras can be read is seen here too
        source = load_posed(source).images[0].path.parent
    check_source(source, settings.min_frames)
    info = _describe(source)
    stride = max(1, round(info.frames / STEPS))
    steps, sharpness, kept, last = _read(source, stride)
    # Only every stride-th frame is looked at: how many follow the last one the file has to tell.
    frames = int(np.clip(info.frames, last + 1, last + stride))
    looks = _find_faces(kept)
    faces = [(look.place, look.face.rough_yaw) for look in looks if look.face is not None]
    slides = np.array([step.slide for step in steps])
    motion = np.array([step.motion for step in steps])
    turn = estimate_turn(slides, faces, FLOW_SIDE, motion <= DUPLICATE_MOTION)
    person, masks = _find_person(looks[:: max(1, len(looks) // 8)])
    points = [_texture(image, mask) for image, mask in masks]
    textured, room, cells = np.median(np.array(points, np.float64), axis=0)
    return Measured(
        name=source.name,
        is_video=source.is_file(),
        size=info.size,
        seconds=info.seconds,
        frames=frames,
        hdr=info.hdr,
        subject=_subject(looks) if person is not None else None,
        goes_round=circles_something([look.image for look in looks])
        if person is None and not faces
        else None,
        choice=select(np.array(sharpness), motion, settings.max_frames),
        steps=steps,
        turn=turn,
        looks=looks,
        person=person,
        blur=float(np.median([_blur(look.image) for look in looks])),
        textured=float(textured),
        room_points=float(room),
        room_cells=float(cells),
    )


def perceived_blur(gray: FloatArray) -> float:
    """Blur of a gray picture ``(H, W)``: how little another blur changes it, 0 sharp to 1.

    Source: Crete et al., "The blur effect: perception and estimation with a new no-reference
    perceptual blur metric", 2007.
    """
    answers = []
    for axis in (0, 1):
        kernel = (1, 9) if axis == 0 else (9, 1)
        soft = cv2.blur(gray, kernel)
        sharp_steps, soft_steps = np.abs(np.diff(gray, axis=axis)), np.abs(np.diff(soft, axis=axis))
        lost = np.maximum(sharp_steps - soft_steps, 0).sum()
        total = sharp_steps.sum()
        answers.append(1.0 - lost / total if total > 0 else 1.0)
    return float(max(answers))


def _describe(source: Path) -> VideoInfo:
    """What the file says of itself; of a folder, the size and number of its images."""
    if source.is_file():
        return probe(source)
    files = image_files(source)
    height, width = read_image(files[0]).shape[:2]
    return VideoInfo(size=(width, height), frames=len(files))


def _read(
    source: Path, stride: int
) -> tuple[list[Step], list[float], list[tuple[int, int, ByteImage]], int]:
    """Every ``stride``-th frame compared with the one before; of those that moved, some kept.

    Also returns the index of the last one.
    """
    steps: list[Step] = []
    sharpness: list[float] = []
    kept: list[tuple[int, int, ByteImage]] = []
    every, moved, before, index = 1, 0, None, -1
    features = RecentFeatures(STEP_FEATURES)
    for index, image in decode(source, LOOK_SIDE, every=stride):
        gray = _small_gray(image)
        steps.append(
            Step(0.0, 0.0, 1.0, 0.0) if before is None else measure_step(before, gray, features)
        )
        sharpness.append(measure_sharpness(gray))
        before = gray
        moved += steps[-1].motion > DUPLICATE_MOTION or len(steps) == 1
        if moved > every * len(kept):  # a pause shows nothing new
            kept.append((len(steps) - 1, index, image))
        if len(kept) > KEPT:  # the number of frames is not known before the end
            every, kept = 2 * every, kept[::2]
    return steps, sharpness, kept, index


def _small_gray(image: ByteImage) -> ByteImage:
    scale = FLOW_SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def _find_faces(kept: Sequence[tuple[int, int, ByteImage]]) -> list[Look]:
    with contextlib.closing(FaceLandmarker()) as landmarker:
        return [Look(place, index, image, landmarker.detect(image)) for place, index, image in kept]


def _find_person(
    looks: Sequence[Look],
) -> tuple[Person | None, list[tuple[ByteImage, FloatArray]]]:
    """The person in some pictures, and those pictures with the person's probability."""
    with PersonSegmenter() as segmenter:
        masks = [
            (look.image, segmenter.probability(look.image).astype(np.float64)) for look in looks
        ]
    shares = np.array([float((mask > 0.6).mean()) for _, mask in masks])
    if float(np.median(shares)) < 0.03:
        return None, masks
    heads, sides = [], []
    for _, mask in masks:
        height, width = mask.shape
        edge = max(2, round(0.01 * height))
        heads.append(float((mask[:edge] > 0.6).mean()) > 0.05)
        upper = mask[: round(0.45 * height)] > 0.6
        edge = max(2, round(0.01 * width))
        sides.append(max(float(upper[:, :edge].mean()), float(upper[:, -edge:].mean())) > 0.1)
    person = Person(float(np.median(shares)), float(np.mean(heads)), float(np.mean(sides)))
    return person, masks


def _subject(looks: Sequence[Look]) -> SubjectMotion | None:
    """Movement of the person between kept neighbours, at :data:`PAIRS` places."""
    starts = np.unique(np.linspace(0, len(looks) - 2, PAIRS).astype(int))
    pairs = [looks[i + step].image for i in starts for step in (0, 1)]
    with PersonSegmenter((GENERAL,)) as segmenter:
        return epipolar_motion(pairs, [segmenter.probability(image) for image in pairs])


def _texture(image: ByteImage, person: FloatArray) -> tuple[float, float, float]:
    """SIFT points in the picture, outside the person, and the share of the room's cells with one.

    The contrast threshold is COLMAP's (0.02 over three layers, OpenCV divides by the layers).
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(nfeatures=2000, contrastThreshold=0.02)  # type: ignore[attr-defined]
    points = np.array([point.pt for point in sift.detect(gray, None)]).reshape(-1, 2)
    column, row = points.astype(int).T
    outside = person[row, column] < 0.3
    grid = 6
    cells = [
        (slice(i * gray.shape[0] // grid, (i + 1) * gray.shape[0] // grid),
         slice(j * gray.shape[1] // grid, (j + 1) * gray.shape[1] // grid))
        for i in range(grid) for j in range(grid)
    ]  # fmt: skip
    hits = np.zeros(gray.shape, bool)
    hits[row[outside], column[outside]] = True
    room = [hits[cell].any() for cell in cells if (person[cell] < 0.3).mean() > 0.5]
    return float(len(points)), float(outside.sum()), float(np.mean(room)) if room else 0.0


def _blur(image: ByteImage) -> float:
    height, width = image.shape[:2]
    middle = image[height // 6 : height * 5 // 6, width // 6 : width * 5 // 6]
    return perceived_blur(cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY).astype(np.float64))


def spread_looks(looks: Sequence[Look], count: int) -> Iterator[Look]:
    """``count`` of the pictures (or all), evenly."""
    for index in np.unique(np.linspace(0, len(looks) - 1, min(count, len(looks))).round()):
        yield looks[int(index)]
