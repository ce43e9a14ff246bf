"""The same strokes on every frame: laid once per end of the head and carried along the surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ..progress import Progress
from ..scene import Camera, Float32Array, FloatArray, Frame, angle_apart
from .colorspace import blur, sample, smoothstep
from .finish import decided_marks, stroke_base, surface_marks
from .hatching import AXIS, PERIOD, strand_phase
from .inklines import FACE_UNITS
from .inkstrokes import Strokes
from .look import Look, Painted
from .shape import FaceFrame
from .strokes import Canvas, GuideWeights, StrokeSource, lay_strokes, matching_gain
from .strokesource import STROKE_CONTRAST, exemplar_source

STROKED = ("paint", "hatch", "colour")
"""Looks whose strokes are laid on."""
_HATCH_CONTRAST = 90.0
"""In a drawing all narrow things are strokes, however dark."""
_WORK_SIDE = 440
"""Longest side in pixels of the person's box while strokes are searched."""
_COVERED = 0.02
_BALD, _BOLD = 0.02, 0.3
"""Below this share of hair, skin takes this share of its strokes' energy from the painted hair."""
_LINES, _LINE_DEPTH = np.array([0.78, 0.62, 0.1], np.float32), 3.0
"""Normal of the planes whose lines lead the brush where nothing else does, and their L."""
_STRAND_DEPTH = 8.0
"""L of the lines along which hair falls, where its own strands say nothing."""
_HALVES = (AXIS - 0.2, AXIS + 0.2)
"""z of the face frame over which the front half of the head passes into the back half."""
_SLACK = 0.06
"""Eye distances by which a surface point may lie behind another and still count as seen."""

_GRAZING = (0.3, 0.5)
"""Cosine between surface and ray up to which a frame's marks are smears to other frames, and from
which on they are taken over."""


@dataclass(frozen=True)
class BentFrame:
    """What the strokes need of one recoloured frame.

    Attributes:
        camera: Its camera.
        yaw: Its angle round the head.
        world: ``(H, W, 3)`` point of the bent surface under each pixel.
        hit: ``(H, W)`` bool, there is one.
        labels: ``(H, W, 3)`` skin, hair, rest.
        place: ``(H, W, 2)`` face-frame x and y.
        lab: ``(H, W, 3)`` the recoloured smooth picture.
        cover: ``(H, W)`` 0..1 the person.
        grain: ``(H, W)`` L along whose structure strokes run.
        ahead: ``(H, W)`` 0..1 the front half of the head.
    """

    camera: Camera
    yaw: float
    world: Float32Array
    hit: npt.NDArray[np.bool_]
    labels: Float32Array
    place: Float32Array
    lab: Float32Array
    cover: Float32Array
    grain: Float32Array
    ahead: Float32Array


def lay_on_frames(
    look: Look,
    frames: Sequence[Frame],
    painted: Sequence[Painted],
    face: FaceFrame,
    targets: FloatArray | None,
    progress: Progress,
    device: str,
) -> list[Float32Array]:
    """Strokes ``(H, W, 3)`` for all recoloured frames.

    Args:
        look: What the frames share.
        frames: The frames.
        painted: The frames recoloured.
        face: The person's face frame.
        targets: ``(478, 3)`` stylized landmarks; None where the exemplar has no face.
        progress: Listener.
        device: Torch device of the patch search.
    """
    bent = [
        _bent_frame(frame, item, face, stroke_base(look, item), look.kind == "paint")
        for frame, item in zip(frames, painted, strict=True)
    ]
    scale = working_scale(bent)
    middle = face.to_world(np.zeros((1, 3)))
    nearest = min(frames, key=lambda f: _from_end(f.yaw))
    depth = abs(float(nearest.camera.project(middle)[1][0]))
    pixels = FACE_UNITS * face.unit * float(nearest.camera.K[0, 0]) / max(depth, 1e-6)
    hatch = look.kind == "hatch"
    source = exemplar_source(
        look.exemplar,
        targets,
        pixels * scale * look.settings.stroke_size,
        _HATCH_CONTRAST if hatch else STROKE_CONTRAST,
        GuideWeights(tone=6.0, position=0.7) if hatch else GuideWeights(),
        look.kind == "paint",
    )
    source = replace(source, device=device)
    return stroke_frames(source, bent, face.unit, scale, progress.update)


def _bent_frame(
    frame: Frame, item: Painted, face: FaceFrame, lab: Float32Array, lined: bool = False
) -> BentFrame:
    return BentFrame(
        frame.camera,
        frame.yaw,
        np.asarray(face.to_world(item.local.astype(np.float64)), np.float32),
        item.cover > _COVERED,
        item.labels,
        item.local[..., :2],
        lab,
        item.cover,
        _grain(lab, item, lined),
        smoothstep(item.local[..., 2], *_HALVES),
    )


def _grain(lab: Float32Array, item: Painted, lined: bool) -> Float32Array:
    """Strands in the hair, form elsewhere (pores and folds of cloth lead no brush).

    ``lined`` rules faint lines over the form: where it has no edges, the brush follows them.
    """
    hair, light, strand = item.labels[..., 1], lab[..., 0], item.photo_light
    if lined:
        light = light + _LINE_DEPTH * np.sin(item.local @ (_LINES * 2 * np.pi / PERIOD))
        strand = strand + _STRAND_DEPTH * np.sin(2 * np.pi * strand_phase(item.local))
    return np.asarray(light + hair * (strand - light), np.float32)


def marks_on_frames(
    look: Look,
    frames: Sequence[Frame],
    painted: Sequence[Painted],
    face: FaceFrame,
    lines: Strokes | None = None,
) -> list[Float32Array]:
    """Contours, hatching and the hair's lights ``(H, W, 3)``, opacities, for drawings.

    A chalk drawing's contours and the lights are decided on the most frontal and the most rearward
    frame and carried along the surface like strokes; hatching and lines of ink lie in 3D already.

    Args:
        look: What the frames share.
        frames: The frames.
        painted: The frames recoloured.
        face: The person's face frame.
        lines: All lines of an ink drawing (:func:`.inklines.ink_strokes`).
    """
    if look.kind == "ink" and not look.hair_lights:
        out = [np.zeros_like(item.lab) for item in painted]
    else:
        out = _agreed_marks(look, frames, painted, face)
    for marks, item in zip(out, painted, strict=True):
        marks[..., 1] = surface_marks(look, item, lines)
    return out


def _agreed_marks(
    look: Look, frames: Sequence[Frame], painted: Sequence[Painted], face: FaceFrame
) -> list[Float32Array]:
    """What frames decide ``(H, W, 3)``: each takes over what those nearer to front or back have."""
    bent = [_bent_frame(f, item, face, item.lab) for f, item in zip(frames, painted, strict=True)]
    done: dict[int, Float32Array] = {}
    for index in sorted(range(len(bent)), key=lambda i: _from_end(bent[i].yaw)):
        known, fixed = _carry(bent[index], [(bent[i], done[i]) for i in done], face.unit)
        own, share = decided_marks(look, painted[index]), fixed[..., None]
        done[index] = np.asarray(np.clip(known * share + own * (1 - share), 0, 1), np.float32)
    return [done[index] for index in range(len(bent))]


def working_scale(frames: Sequence[BentFrame]) -> float:
    """Factor from the frames' pixels to those in which strokes are searched, at most 1."""
    largest = 1
    for frame in frames:
        inside = frame.cover > _COVERED
        largest = max(largest, int(inside.any(1).sum()), int(inside.any(0).sum()))
    return min(1.0, _WORK_SIDE / largest)


def stroke_frames(
    source: StrokeSource,
    frames: Sequence[BentFrame],
    unit: float,
    shrink: float,
    report: Callable[[float, str], None],
) -> list[Float32Array]:
    """Strokes ``(H, W, 3)`` for every frame, agreeing wherever two frames see the same place.

    The most frontal and the most rearward frame are synthesized in full; every other frame takes
    over what frames nearer to them have, and only what none has seen is synthesized.

    Args:
        source: The exemplar's strokes.
        frames: Recoloured frames.
        unit: Metres between the eyes.
        shrink: From :func:`working_scale`.
        report: Called with a share of the work and a text.
    """
    order = sorted(range(len(frames)), key=lambda i: _from_end(frames[i].yaw))
    done: dict[int, Float32Array] = {}
    for count, index in enumerate(order):
        report(count / len(order), f"laying strokes on frame {count + 1} of {len(order)}")
        frame = frames[index]
        known, fixed = _carry(frame, [(frames[i], done[i]) for i in done], unit)
        done[index] = _synthesize(source, frame, known, fixed, shrink)
    return _as_strong(source, frames, [done[i] for i in range(len(frames))], order[0])


def _as_strong(
    source: StrokeSource, frames: Sequence[BentFrame], strokes: list[Float32Array], first: int
) -> list[Float32Array]:
    """Strokes as strong as the exemplar's: one factor per region for all frames, so they agree."""
    frame = frames[first]
    canvas = Canvas(frame.lab, frame.labels, frame.place, frame.cover > 0.9)
    wanted = source.energy.copy()
    if frame.labels[frame.hit, 1].mean() < _BALD:  # its share of the painting's bold strokes
        bold = np.sqrt((1 - _BOLD) * wanted[0] ** 2 + _BOLD * wanted[1] ** 2)
        wanted[0] = np.fmax(wanted[0], bold)
    gain = matching_gain(wanted, frame.lab, strokes[first], canvas)
    return [
        np.asarray(laid * (item.labels @ gain), np.float32)
        for laid, item in zip(strokes, frames, strict=True)
    ]


def _from_end(yaw: float) -> float:
    """Angle to front or back, whichever is nearer; front frames first."""
    front = angle_apart(yaw)
    return min(front, np.pi - front + 1e-3)


def _carry(
    frame: BentFrame, others: list[tuple[BentFrame, Float32Array]], unit: float
) -> tuple[Float32Array, Float32Array]:
    """Strokes that earlier frames have for this frame's surface, and how surely.

    Every half of the head takes over what was laid from its own end, if that saw it: else side
    frames would take one place from the front, their neighbours the same from behind.
    """
    shape = frame.hit.shape
    known = np.zeros((*shape, 3), np.float32)
    fixed = np.zeros(shape, np.float32)
    # Strokes of the frames made first were carried the fewest times: ask these first.
    near = [item for item in others if angle_apart(frame.yaw, item[0].yaw) <= 1.2]
    looked: dict[int, tuple[Float32Array, Float32Array]] = {}
    for anywhere in (False, True):
        for index, (other, strokes) in enumerate(near):
            half = frame.ahead if angle_apart(other.yaw) < np.pi / 2 else 1 - frame.ahead
            wanted = np.ones_like(half) if anywhere else half
            if (np.maximum(fixed, 1 - wanted)[frame.hit] > 0.99).mean() > 0.995:
                continue
            if index not in looked:
                looked[index] = _look(frame, other, strokes, unit)
            values, seen = looked[index]
            share = seen * np.maximum(wanted - fixed, 0)
            known += values * share[..., None]
            fixed += share
    return known / np.maximum(fixed, 1e-6)[..., None], fixed


def _look(
    frame: BentFrame, other: BentFrame, strokes: Float32Array, unit: float
) -> tuple[Float32Array, Float32Array]:
    """``other``'s strokes at this frame's surface points, and whether it sees them."""
    points = frame.world[frame.hit].astype(np.float64)
    at, _ = other.camera.project(points)
    inside = (at > 1).all(1) & (at < [other.camera.width - 1, other.camera.height - 1]).all(1)
    first = sample(other.world, at)
    gap = np.linalg.norm(first - points, axis=1) / unit
    seen = inside * smoothstep(gap, 2 * _SLACK, _SLACK)
    # Near its outline the other frame's own strokes are smeared over a grazing surface.
    edge = cv2.distanceTransform(other.hit.astype(np.uint8), cv2.DIST_L2, 5)
    seen = seen * smoothstep(sample(edge.astype(np.float32), at), 2.0, 6.0)
    seen = seen * smoothstep(sample(_facing(other), at), *_GRAZING)
    values = np.zeros((*frame.hit.shape, 3), np.float32)
    sure = np.zeros(frame.hit.shape, np.float32)
    values[frame.hit] = _sharp_sample(strokes, at)
    sure[frame.hit] = seen
    return values, np.asarray(np.minimum(sure, cv2.blur(sure, (3, 3)) + 0.2), np.float32)


def _facing(frame: BentFrame) -> Float32Array:
    """Cosine ``(H, W)`` between the surface's normal and the ray that sees it."""
    world = blur(frame.world, 1.0)
    across, down = (cv2.Sobel(world, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    normal = np.cross(across, down)
    ray = frame.world - frame.camera.center.astype(np.float32)
    lengths = np.linalg.norm(normal, axis=2) * np.linalg.norm(ray, axis=2)
    return np.asarray(np.abs((normal * ray).sum(2)) / np.maximum(lengths, 1e-12), np.float32)


def _sharp_sample(image: Float32Array, points: FloatArray) -> Float32Array:
    """Bicubic values at image points: bilinear ones would wash fine strokes out."""
    flat = np.asarray(points, np.float32) - 0.5
    limit = 16384
    rows = -(-len(flat) // limit)
    padded = np.zeros((rows * limit, 2), np.float32)
    padded[: len(flat)] = flat
    grid = padded.reshape(rows, limit, 2)
    out = cv2.remap(
        image, grid[..., 0], grid[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(out.reshape(rows * limit, -1)[: len(flat)], np.float32)


def _synthesize(
    source: StrokeSource,
    frame: BentFrame,
    known: Float32Array,
    fixed: Float32Array,
    shrink: float,
) -> Float32Array:
    """Fill in what is not known yet, in the person's box at working size."""
    inside = frame.cover > _COVERED
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    out = np.zeros((*inside.shape, 3), np.float32)
    if not len(rows):
        return out
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    height, width = inside[window].shape
    size = (max(16, round(width * shrink)), max(16, round(height * shrink)))

    def fit(image: npt.NDArray[np.generic]) -> Float32Array:
        part = np.ascontiguousarray(image[window], np.float32)
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.float32)

    pad = 8
    canvas = Canvas(
        _padded(fit(frame.lab), pad),
        _padded(fit(frame.labels), pad),
        _padded(fit(frame.place), pad),
        np.pad(fit(inside) > _COVERED, pad),
        _padded(fit(frame.grain), pad),
    )
    have, sure = _padded(fit(known), pad), _padded(fit(fixed), pad)
    sure = blur(sure, 0.7)
    passes = 3 if sure[canvas.inside].mean() < 0.5 else 2
    laid = lay_strokes(source, canvas, have, sure, passes)[pad:-pad, pad:-pad]
    out[window] = cv2.resize(laid, (width, height), interpolation=cv2.INTER_CUBIC)
    own = fixed[..., None]
    return np.asarray(out * (1 - own) + known * own if shrink < 1 else out, np.float32)


def _padded(image: Float32Array, pad: int) -> Float32Array:
    return np.asarray(
        cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE), np.float32
    )
