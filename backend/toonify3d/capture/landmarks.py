"""Face landmarks: MediaPipe FaceMesh (478 points with irises) made usable on photos and drawings.

FaceMesh alone misses small faces in big frames, faces that fill the picture, and line drawings; and
it shows no score. :class:`FaceLandmarker` therefore looks through several windows and renderings of
the picture, always also in a mirror, averages both answers and takes their agreement as the score.
In a drawing, a face that shows only in the mirror (or only without it) counts when a second look at
it says the same.

Left and right are the *person's*, as in MediaPipe: the left eye is on the right of a frontal photo.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, FloatArray

LANDMARK_COUNT = 478
"""468 face points, then 5 of the right iris, then 5 of the left iris (centre first)."""

# Points on the face's plane of symmetry. FaceMesh numbers the person's right half below 248 and the
# left half from 248 on, in the same order (found by matching mirrored detections; the table was
# checked to map the tessellation onto itself), so this list is all that is needed for the mirror.
MIDLINE: tuple[int, ...] = (
    *(0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19),
    *(94, 151, 152, 164, 168, 175, 195, 197, 199, 200),
)  # fmt: skip


def _mirror_table() -> npt.NDArray[np.int64]:
    table = np.arange(LANDMARK_COUNT)
    right = np.array([i for i in range(248) if i not in set(MIDLINE)])
    left = np.arange(248, 468)
    table[right], table[left] = left, right
    for one, other in ((468, 473), (469, 476), (470, 475), (471, 474), (472, 477)):
        table[one], table[other] = other, one
    return table


MIRROR: npt.NDArray[np.int64] = _mirror_table()
"""``(478,)`` index of each point's mirror image: ``points[MIRROR]`` swaps left and right."""

FACE_OVAL: tuple[int, ...] = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)  # fmt: skip
"""Closed outline: from the middle of the forehead down the person's left side and back up."""
JAW: tuple[int, ...] = FACE_OVAL[9:28]
"""Part of the outline from under the person's left ear over the chin to the right."""
RIGHT_EYE: tuple[int, ...] = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
)  # fmt: skip
"""Closed lid contour, from the outer corner along the lower lid to the inner corner and back."""
LEFT_EYE: tuple[int, ...] = tuple(int(MIRROR[i]) for i in RIGHT_EYE)
RIGHT_IRIS: tuple[int, ...] = (468, 469, 470, 471, 472)
"""Centre first, then four points of the rim."""
LEFT_IRIS: tuple[int, ...] = (473, 474, 475, 476, 477)
RIGHT_BROW: tuple[int, ...] = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
"""Closed contour: upper edge from the outer end inwards, then the lower edge back."""
LEFT_BROW: tuple[int, ...] = tuple(int(MIRROR[i]) for i in RIGHT_BROW)
LIPS_OUTER: tuple[int, ...] = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
)  # fmt: skip
"""Closed contour from the right corner along the lower lip."""
ORGANS = (LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, LIPS_OUTER)
"""Contours of all that a face has but skin."""
LIPS_INNER: tuple[int, ...] = (
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
)  # fmt: skip
NOSE_RIDGE: tuple[int, ...] = (168, 6, 197, 195, 5, 4, 1)
NOSE_BASE: tuple[int, ...] = (48, 64, 98, 97, 2, 326, 327, 294, 278)
NOSE_TIP, CHIN, FOREHEAD = 1, 152, 10

MIN_SCORE = 0.35
"""Answers that agree less with their mirror image are not faces (measured on noise and clutter)."""

_ONE_SIDED = 0.0
"""Score of an answer that came from the picture or from its mirror image alone."""
_CONFIRMED, _OTHER_WINDOW = 0.8, 1.2
"""Least agreement of two such answers, and how much larger one's window must be. Two looks at one
side agree more easily than a picture and its mirror image, on clutter and backs of heads as well
(up to 0.74 through windows of like size, 0.70 of different size, on captures/lps and f2)."""

# The windows in which a face is looked for, as (zoom, shift x, shift y) of the square picture:
# below 1 the picture is padded (faces that fill it), above 1 it is cropped (small faces).
_WINDOWS = ((1.0, 0.0, 0.0), (0.7, 0.0, 0.0), (1.4, 0.0, -0.1), (0.5, 0.0, 0.0), (1.8, 0.0, 0.0))


@dataclass(frozen=True)
class FaceLandmarks:
    """Landmarks of one face.

    Attributes:
        points: ``(478, 3)`` image points in pixels; z also in pixels, smaller is nearer, 0 about at
            the centre of the head (a rough guess by the network, not a measurement).
        score: 0 to 1, how well two looks agree on the points: at the picture and at its mirror
            image or, of a face that shows in one of them only, through two windows.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    points: FloatArray
    score: float
    width: int
    height: int

    @property
    def iris_centers(self) -> FloatArray:
        """``(2, 2)`` image points of the right and the left iris centre."""
        return self.points[[RIGHT_IRIS[0], LEFT_IRIS[0]], :2]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """``(x0, y0, x1, y1)`` of all points."""
        low, high = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def rough_yaw(self) -> float:
        """Where the camera stands round the head, in radians, by the network's own depth.

        Same sense as ``Frame.yaw``: 0 in front, positive on the person's left. Good to some 10
        degrees: enough to sort views, not to align them.
        """
        across = self.points[LEFT_EYE[0]] - self.points[RIGHT_EYE[0]]
        return float(np.arctan2(-across[2], np.hypot(across[0], across[1])))


class FaceLandmarker:
    """Finds the landmarks of the most prominent face in a picture.

    Not thread safe. Loads its models (in the mediapipe wheel) on first use; takes about 15 ms for a
    picture whose face is found at once.
    """

    def __init__(self) -> None:
        self._mesh: Any = None
        self._warm = False
        self._detectors: list[Any] = []

    def detect(self, image: ByteImage, thorough: bool = False) -> FaceLandmarks | None:
        """Find the face in an RGB uint8 image ``(H, W, 3)``.

        Args:
            image: The picture.
            thorough: Also try contrast variants, more windows and small rotations, and keep the
                best answer: for drawn exemplars, where time does not matter.

        Returns:
            The landmarks, or None when no face was found.

        Raises:
            ValueError: The image is not ``(H, W, 3)`` uint8.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected an RGB uint8 image, got {image.dtype} {image.shape}")
        if min(image.shape[:2]) < 8:
            return None
        best: FaceLandmarks | None = None
        one_sided: list[tuple[float, FaceLandmarks]] = []
        for window, rendering, angle in self._attempts(image, thorough):
            found = self._attempt(rendering, window, angle)
            if found is not None and found.score == _ONE_SIDED:
                one_sided.append((float(window[2]), found))
            elif found is not None and (best is None or found.score > best.score):
                best = found
            if best is not None and best.score > (0.8 if thorough else 0.6):
                break
        if best is not None and best.score >= MIN_SCORE:
            return best
        return _confirmed(one_sided) if thorough else None

    def close(self) -> None:
        """Release the models."""
        for solution in (self._mesh, *self._detectors):
            if solution is not None:
                solution.close()
        self._mesh, self._detectors = None, []

    def _attempts(
        self, image: ByteImage, thorough: bool
    ) -> Iterator[tuple[FloatArray, ByteImage, float]]:
        """Windows ``(x0, y0, side)``, the picture to look at, and a rotation in degrees."""
        height, width = image.shape[:2]
        windows = [_square(width, height, *window) for window in _WINDOWS]
        yield windows[0], image, 0.0
        for box in self._face_boxes(image, thorough):
            yield box, image, 0.0
        for window in windows[1:] if thorough else windows[1:3]:
            yield window, image, 0.0
        if not thorough:
            return
        for rendering in _renderings(image):
            for window in windows:
                yield window, rendering, 0.0
        for angle in (-15.0, 15.0, -30.0, 30.0):
            for window in windows[:2]:
                yield window, image, angle

    def _face_boxes(self, image: ByteImage, thorough: bool) -> list[FloatArray]:
        """Square windows round detected faces, most certain first.

        The detectors shrink what they get to 128 or 192 pixels, so small faces in big pictures are
        looked for in overlapping tiles as well; they stop at the first tile size with a face.
        """
        height, width = image.shape[:2]
        short = min(height, width)
        sides = [max(height, width), short]
        if thorough or max(height, width) > 1000:
            sides.append(short // 2)
        for side in sides:
            found = [
                (score, box)
                for x in _tile_starts(width, side)
                for y in _tile_starts(height, side)
                for score, box in self._boxes_in(image, x, y, side)
            ]
            if found:
                found.sort(key=lambda item: -item[0])
                return [box for _, box in found[:4]]
        return []

    def _boxes_in(
        self, image: ByteImage, x: int, y: int, side: int
    ) -> Iterator[tuple[float, FloatArray]]:
        self._load()
        tile = np.ascontiguousarray(image[y : y + side, x : x + side])
        height, width = tile.shape[:2]
        for detector in self._detectors:
            for detection in detector.process(tile).detections or []:
                box = detection.location_data.relative_bounding_box
                window = 2.0 * max(box.width * width, box.height * height)
                if window < 24:
                    continue
                left = x + (box.xmin + box.width / 2) * width - window / 2
                top = y + (box.ymin + box.height / 2) * height - window / 2
                yield float(detection.score[0]), np.array([left, top, window])

    def _attempt(
        self, image: ByteImage, window: FloatArray, angle: float = 0.0
    ) -> FaceLandmarks | None:
        """Run FaceMesh in one square window and in its mirror image; average both answers.

        An answer that came from one of the two alone is handed back with the score
        :data:`_ONE_SIDED`.
        """
        side = int(np.clip(window[2], 192, 768))
        # Maps window pixels to image pixels; rotation is about the window's centre.
        scale = window[2] / side
        cos, sin = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
        linear = np.array([[cos, -sin], [sin, cos]])
        offset = window[:2] + window[2] / 2 - linear @ np.full(2, side / 2)
        view = _sample(image, linear, offset, side)
        direct = self._run(view)
        mirrored = self._run(np.ascontiguousarray(view[:, ::-1]))
        if mirrored is not None:
            mirrored = mirrored[MIRROR]
            mirrored[:, 0] = side - mirrored[:, 0]
        if direct is not None and mirrored is not None:
            points, score = (direct + mirrored) / 2, _agreement(direct, mirrored)
        else:
            lone = mirrored if direct is None else direct
            if lone is None:
                return None
            points, score = lone, _ONE_SIDED
        out = np.concatenate([points[:, :2] @ linear.T + offset, points[:, 2:] * scale], axis=1)
        height, width = image.shape[:2]
        return FaceLandmarks(out, score, width, height)

    def _run(self, view: ByteImage) -> FloatArray | None:
        """FaceMesh on a square RGB view ``(S, S, 3)``: ``(478, 3)`` in its pixels."""
        self._load()
        # The native code logs once more at the first face.
        with contextlib.nullcontext() if self._warm else quiet_native_logs():
            faces = self._mesh.process(view).multi_face_landmarks
        if not faces:
            return None
        self._warm = True
        side = view.shape[0]
        return np.array([[p.x * side, p.y * side, p.z * side] for p in faces[0].landmark])

    def _load(self) -> None:
        if self._mesh is not None:
            return
        with quiet_native_logs():
            from mediapipe.python.solutions import face_detection, face_mesh

            self._mesh = face_mesh.FaceMesh(
                static_image_mode=True,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=0.3,
                min_tracking_confidence=0.3,
            )
            self._detectors = [
                face_detection.FaceDetection(model_selection=model, min_detection_confidence=0.3)
                for model in (1, 0)
            ]
            # The native code logs on the first picture as well.
            blank = np.full((192, 192, 3), 128, np.uint8)
            for solution in (self._mesh, *self._detectors):
                solution.process(blank)


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Keep the start-up chatter of mediapipe's native libraries off standard error.

    They write to file descriptor 2 before any log level can be set, so the descriptor itself is
    pointed at a temporary file for the time; lines that are not theirs are passed on afterwards.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            for line in sink.read().decode("utf-8", "replace").splitlines():
                if not _is_native_chatter(line):
                    sys.stderr.write(line + "\n")


def _is_native_chatter(line: str) -> bool:
    head = line[:1] in "IWE" and line[1:5].isdigit()  # glog: "W0000 00:00:..."
    known = ("INFO: Created TensorFlow Lite", "WARNING: All log messages before absl")
    return head or line.startswith(known) or not line.strip()


def _agreement(one: FloatArray, two: FloatArray) -> float:
    """1 for two equal answers ``(478, 3)``, 0.37 where points are 4 % of the face's size apart."""
    size = np.linalg.norm(np.ptp(one[:, :2], axis=0))
    apart = np.linalg.norm((one - two)[:, :2], axis=1).mean() / max(size, 1.0)
    return float(np.exp(-apart / 0.04))


def _confirmed(answers: Sequence[tuple[float, FaceLandmarks]]) -> FaceLandmarks | None:
    """The mean of the two one-sided answers most alike; None unless they agree well.

    Args:
        answers: Sides of the windows in pixels, and what was found there. Only windows of different
            size bear each other out: in nearly the same one the same mistake is made again.
    """
    best: FaceLandmarks | None = None
    for (side, one), (other, two) in itertools.combinations(answers, 2):
        if max(side, other) < _OTHER_WINDOW * min(side, other):
            continue
        score = _agreement(one.points, two.points)
        if best is None or score > best.score:
            best = replace(one, points=(one.points + two.points) / 2, score=score)
    return best if best is not None and best.score >= _CONFIRMED else None


def _square(width: int, height: int, zoom: float, dx: float, dy: float) -> FloatArray:
    """Square ``(x0, y0, side)`` round the picture, zoomed and shifted (in parts of its side)."""
    side = max(width, height) / zoom
    middle = np.array([width / 2 + dx * side, height / 2 + dy * side])
    return np.array([*(middle - side / 2), side])


def _tile_starts(length: int, side: int) -> list[int]:
    """Starts of half-overlapping tiles that cover ``length``."""
    last = max(length - side, 0)
    count = int(np.ceil(last / (side / 2))) + 1
    return sorted({round(float(start)) for start in np.linspace(0, last, count)})


def _sample(image: ByteImage, linear: FloatArray, offset: FloatArray, side: int) -> ByteImage:
    """Cut a ``(side, side, 3)`` view; ``linear`` and ``offset`` map its points to image points."""
    scale = float(np.hypot(*linear[:, 0]))
    if scale > 1.5:  # warpAffine does not average: shrink first, so that nothing aliases
        height, width = image.shape[:2]
        small = cv2.resize(
            image,
            (max(round(width / scale), 1), max(round(height / scale), 1)),
            interpolation=cv2.INTER_AREA,
        )
        ratio = np.array([small.shape[1] / width, small.shape[0] / height])
        linear, offset = ratio[:, None] * linear, ratio * offset
        image = np.asarray(small, np.uint8)
    # cv2 counts from pixel centres: p_cv = p - 0.5 on both sides.
    shift = offset + linear @ np.full(2, 0.5) - 0.5
    matrix = np.concatenate([linear, shift[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.uint8,
    )


def _renderings(image: ByteImage) -> Sequence[ByteImage]:
    """Variants in which line drawings and dark paintings look more like photos."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equal = lab.copy()
    equal[..., 0] = cv2.createCLAHE(3.0, (8, 8)).apply(lab[..., 0])
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sigma = max(image.shape[:2]) / 150
    soft = cv2.GaussianBlur(image, (0, 0), sigma)
    softer = cv2.GaussianBlur(image, (0, 0), 2.5 * sigma)
    bright = (255 * (image / 255.0) ** 0.5).astype(np.uint8)
    dark = (255 * (image / 255.0) ** 1.8).astype(np.uint8)
    # Skin-coloured paper under black ink: lines alone give the detector no face to hold on to.
    tinted = (np.array([226, 180, 150]) * (0.25 + 0.75 * softer.mean(2, keepdims=True) / 255)) + (
        0.2 * (soft.astype(np.float64) - 255)
    )
    return (
        np.asarray(cv2.cvtColor(equal, cv2.COLOR_LAB2RGB), np.uint8),
        np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), np.uint8),
        np.asarray(soft, np.uint8),
        bright,
        dark,
        np.clip(tinted, 0, 255).astype(np.uint8),
        np.asarray(softer, np.uint8),
    )
