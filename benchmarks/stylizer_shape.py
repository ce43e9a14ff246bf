"""Do the stylized faces have the shape that was asked for? Landmarks detected afresh.

What was learned about the detectors, on photos bent by a known displacement (nothing repainted):
MediaPipe's FaceMesh follows lips and drawn contours, but fits a human face: its outline answers
with 0.3 to 1.3 times the true move, whatever the picture. dlib's 68 points (iBUG) answer with 1.05
to 1.2 on the jaw and 0.95 to 1.1 on the lips. So eyes are measured on FaceMesh pulled onto what is
drawn, the outline on dlib's jaw, the mouth on both.

Both draw a stylized face's landmarks towards what they were trained on, by about the same amount
with and without the change of shape; moves are therefore measured against the same look at strength
0, and said beside it against the photo. Of the outline only the moves across it count.

How far a detector follows depends on the look: on a brown cel face with brown hair dlib's jaw
hardly stirs. So the finished picture of strength 0 is bent by the very field that was asked for,
after painting; what the detectors answer to that known bend is their gain. A slope counts as
reliable only where the gain is about 1; slope over gain is what they would say if they followed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.exemplar import analyse
from toonify3d.portrait2d.framewarp import BentSurface, warp_frame
from toonify3d.portrait2d.pipeline import Person, ShapeChange
from toonify3d.portrait2d.refine import refine_landmarks
from toonify3d.raycast import MeshQuery
from toonify3d.scene import ByteImage, Camera, Frame

FloatArray = npt.NDArray[np.float64]
LEAST_PIXELS = 1.5
"""Moves smaller than this (root mean square) say nothing at this resolution."""
LARGEST_SPREAD = 0.25
"""A slope is unreliable when its detections scatter by more than this share of the move asked."""
LARGEST_BIAS = 1.0
"""Or when, at strength 0, where the shape is the photo's, they are off by more than the move."""
GAINS = (0.8, 1.2)
"""Or when to a known bend of the same picture they answer with less or more than this."""
LEAST_GAIN = 0.3
"""Below this they do not follow at all; slope over gain would be noise."""
MESH_PARTS = {"eyes": (*lm.LEFT_EYE, *lm.RIGHT_EYE), "mouth": lm.LIPS_OUTER}
DLIB_PARTS = {"oval": range(17), "mouth": range(48, 60)}
# Points of dlib's 68 after a flip of the picture.
_FLIP = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
    ]
)


def dlib_model(name: str) -> str:
    """Path of a model of ``face_recognition_models`` (its own look-up needs ``pkg_resources``).

    Raises:
        ImportError: It is not installed.
    """
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise ImportError("face_recognition_models is not installed")
    return str(Path(found.submodule_search_locations[0]) / "models" / name)


class Jaw:
    """dlib's 68 landmarks, from many boxes and the mirror image, so that their scatter is known."""

    def __init__(self) -> None:
        import dlib

        self._dlib = dlib
        self._predict = dlib.shape_predictor(dlib_model("shape_predictor_68_face_landmarks.dat"))

    def __call__(self, image: ByteImage, mesh: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Median ``(68, 2)`` and its standard error ``(68,)`` in pixels.

        Args:
            image: RGB.
            mesh: FaceMesh's landmarks in this very picture; they only say where to look.
        """
        outline = mesh[list(lm.FACE_OVAL), :2]
        top = mesh[[*lm.LEFT_BROW, *lm.RIGHT_BROW], 1].min()
        low, high = outline.min(0), outline.max(0)
        middle = np.array([(low[0] + high[0]) / 2, (top + high[1]) / 2])
        side = max(high[0] - low[0], high[1] - top)
        flipped = np.ascontiguousarray(image[:, ::-1])
        found = []
        for scale in (0.92, 1.0, 1.08):
            for dx, dy in ((0, 0), (0.04, 0), (-0.04, 0), (0, 0.04), (0, -0.04)):
                center, half = middle + side * np.array([dx, dy]), scale * side / 2
                found.append(self._run(image, center, half))
                other = np.array([image.shape[1] - center[0], center[1]])
                mirrored = self._run(flipped, other, half)[_FLIP]
                mirrored[:, 0] = image.shape[1] - mirrored[:, 0]
                found.append(mirrored)
        points = np.array(found)
        error = 1.25 * points.std(0) / np.sqrt(len(points) / 2)  # boxes are not independent
        return np.median(points, axis=0), np.linalg.norm(error, axis=1)

    def _run(self, image: ByteImage, center: FloatArray, half: float) -> FloatArray:
        x0, y0 = (center - half).astype(int)
        x1, y1 = (center + half).astype(int)
        box = self._dlib.rectangle(int(x0), int(y0), int(x1), int(y1))
        return np.array([[p.x + 0.5, p.y + 0.5] for p in self._predict(image, box).parts()])


@dataclass(frozen=True)
class Slope:
    """One part of one pair.

    Attributes:
        asked: Pixels (root mean square), mean over the frames.
        slope: Regression of found on asked moves, against strength 0; median over the frames.
        against_photo: The same against the photo: includes what the look does to the detector.
        gain: The slope that a known bend of the finished picture of strength 0 gives.
        settled: Enough was asked, the detections agree with each other, and at strength 0 they are
            where the photo's are.
    """

    asked: float
    slope: float
    against_photo: float
    gain: float
    settled: bool

    @property
    def reliable(self) -> bool:
        """Settled, and the detectors follow a known bend."""
        return self.settled and GAINS[0] <= self.gain <= GAINS[1]

    @property
    def corrected(self) -> float:
        """Slope over gain, NaN where the detectors do not follow."""
        return self.slope / self.gain if self.settled and self.gain > LEAST_GAIN else float("nan")


@dataclass(frozen=True)
class _Answer:
    asked: float
    slope: float
    against_photo: float
    gain: float
    error: float
    bias: float


def measure(
    finder: lm.FaceLandmarker,
    jaw: Jaw | None,
    frames: Sequence[tuple[Frame, ByteImage, ByteImage, ByteImage]],
    person: Person,
    change: ShapeChange,
    drawn: bool,
) -> dict[str, Slope]:
    """Slopes of ``eyes``, ``oval`` and ``mouth``.

    Args:
        finder: FaceMesh.
        jaw: dlib; None leaves the outline out.
        frames: Frame, photo, stylized without and with the change of shape.
        person: Whose landmarks and surface say where each point should go.
        change: What was asked.
        drawn: A toon, cel or ink look: its eyes have borders that can be measured.
    """
    answers: dict[str, list[_Answer]] = {"eyes": [], "oval": [], "mouth": []}
    bent = person.mesh.vertices + change.field(person.mesh.vertices)
    nothing = np.zeros((len(bent), 1), np.float32)
    caster = MeshQuery(bent, person.mesh.faces)
    surface = BentSurface(person.mesh, bent, person.caster, caster, nothing, False)
    for frame, *images in frames:
        images.append(_bent_picture(surface, frame.camera, images[1]))
        found = [finder.detect(image, thorough=True) for image in images]
        if any(item is None for item in found):
            continue
        raw = [item.points for item in found if item is not None]
        found_eyes = [_drawn_eyes(i, p) if drawn else p for i, p in zip(images, raw, strict=True)]
        _by_mesh(answers, frame.camera, [raw[0], *found_eyes[1:]], person, change)
        if jaw is not None:
            places = [jaw(image, points) for image, points in zip(images, raw, strict=True)]
            _by_jaw(answers, frame.camera, places, person, change)
    return {part: _summary(items) for part, items in answers.items()}


def _bent_picture(surface: BentSurface, camera: Camera, picture: ByteImage) -> ByteImage:
    """A finished picture bent by the asked change: what the detectors are to follow."""
    whole = np.full(picture.shape[:2], 255, np.uint8)
    warped = warp_frame(surface, camera, picture, whole)
    return np.clip(warped.photo + 0.5, 0, 255).astype(np.uint8)


def _by_mesh(
    answers: dict[str, list[_Answer]],
    camera: Camera,
    points: list[FloatArray],
    person: Person,
    change: ShapeChange,
) -> None:
    moved = person.frame.to_world(change.targets)
    asked = camera.project(moved)[0] - camera.project(person.world)[0]
    for part, ids in MESH_PARTS.items():
        at = [p[list(ids), :2] for p in points]
        answers[part].append(_regress(asked[list(ids)], *at, 0.0))


def _drawn_eyes(image: ByteImage, points: FloatArray) -> FloatArray:
    """As for exemplars: the detector draws drawn eyes towards human size, so they are measured."""
    taken = analyse(image, None, points)
    skin = taken.labels[..., 0]
    return refine_landmarks(points, taken.feature, skin, taken.stats.noise)


def _by_jaw(
    answers: dict[str, list[_Answer]],
    camera: Camera,
    places: Sequence[tuple[FloatArray, FloatArray]],
    person: Person,
    change: ShapeChange,
) -> None:
    asked = _moves_at(places[0][0], camera, person, change)
    for part, ids in DLIB_PARTS.items():
        at = [p[list(ids)] for p, _ in places]
        across = asked[list(ids)]
        if part == "oval":  # along an outline no detector can tell one point from the next
            normals = _normals(at[0])
            across = (across * normals).sum(1, keepdims=True)
            at = [(p * normals).sum(1, keepdims=True) for p in at]
        errors = [e[list(ids)] for _, e in places[1:]]
        error = float(np.sqrt(np.mean([(e**2).mean() for e in errors])))
        answers[part].append(_regress(across, *at, error))


def _normals(line: FloatArray) -> FloatArray:
    along = np.gradient(line, axis=0)
    across = np.stack([along[:, 1], -along[:, 0]], 1)
    return np.asarray(across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9))


def _moves_at(
    points: FloatArray, camera: Camera, person: Person, change: ShapeChange
) -> FloatArray:
    """How far image points ``(n, 2)`` should move; beside the person, as the nearest vertex."""
    hits = person.caster.cast(*camera.rays(points))
    corners = person.mesh.faces[np.maximum(hits.face, 0)]
    world = (person.mesh.vertices[corners] * hits.weights[..., None]).sum(1)
    seen = camera.project(person.mesh.vertices)[0]
    for i in np.flatnonzero(hits.face < 0):
        world[i] = person.mesh.vertices[((seen - points[i]) ** 2).sum(1).argmin()]
    return np.asarray(camera.project(world + change.field(world))[0] - camera.project(world)[0])


def _regress(
    asked: FloatArray,
    photo: FloatArray,
    plain: FloatArray,
    bent: FloatArray,
    known: FloatArray,
    error: float,
) -> _Answer:
    power = float((asked**2).sum())
    size = float(np.sqrt(power / len(asked)))
    moves = (bent - plain, bent - photo, known - plain)
    slopes = [float((asked * move).sum()) / power for move in moves]
    bias = float(np.sqrt(((plain - photo) ** 2).sum() / len(asked)))
    return _Answer(size, *slopes, error / max(size, 1e-9), bias / max(size, 1e-9))


def _summary(items: list[_Answer]) -> Slope:
    if not items:
        return Slope(*[float("nan")] * 4, False)
    asked = float(np.mean([a.asked for a in items]))
    slopes = np.array([a.slope for a in items])
    spread = max(float(slopes.std()), max(a.error for a in items))
    bias = float(np.median([a.bias for a in items]))
    settled = asked >= LEAST_PIXELS and spread <= LARGEST_SPREAD and bias <= LARGEST_BIAS
    photo = float(np.median([a.against_photo for a in items]))
    gain = float(np.median([a.gain for a in items]))
    return Slope(asked, float(np.median(slopes)), photo, gain, settled)


def columns(slopes: dict[str, Slope]) -> dict[str, Any]:
    """Columns of the table: slope (NaN when unreliable), slope over gain, and the raw figures."""
    out: dict[str, Any] = {}
    for part, item in slopes.items():
        out[f"slope {part}"] = item.slope if item.reliable else float("nan")
        out[f"slope/gain {part}"] = item.corrected
        out[f"raw {part}"] = (
            f"{item.asked:.1f} px, {item.slope:.2f}, {item.against_photo:.2f}, {item.gain:.2f}"
        )
    return out
