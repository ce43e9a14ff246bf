"""The exemplar taken apart: face landmarks, skin, hair, and their colour ramps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..capture.segmentation import PersonSegmenter
from ..errors import InputError
from ..scene import ByteImage, Float32Array, FloatArray
from .clicks import read_landmarks
from .colorspace import blur, fill_holes, kmeans, smooth_edges, smoothstep, to_lab
from .exemplarkind import PictureStats, choose_look, measure_picture, region_labels
from .exemplarmasks import dilate, erode, face_outline, organ_mask, polygon
from .picture import MIN_SIDE, WORKING_SIDE, longest_side, read_picture
from .refine import refine_landmarks

RAMP_STEPS = 32
_CLEAN = 0.5
"""Pictures painted less than this have shapes with clear borders."""
_MAX_RAMP = 18.0
"""Lightness that a ramp may reach above or below its middle."""


@dataclass(frozen=True)
class Exemplar:
    """What the stylizer takes from the exemplar.

    Attributes:
        image: RGB ``(H, W, 3)``, longest side at most 640, transparency over white.
        lab: The same in CIELAB, in a painting without its large light and shadow.
        points: ``(478, 3)`` landmarks, image points and z in pixels.
        skin_lab: ``(H, W, 3)`` the skin's smooth colour, continued under eyes, brows, lips, hair.
        detail_lab: ``(H, W, 3)`` what the artist drew on the skin beyond that (nose, blush).
        feature: ``(H, W)`` 0..1: differs from skin (eyes, brows, lips as they are drawn).
        skin_ramp: ``(32, 3)`` CIELAB of the skin from dark to light.
        hair_ramp: ``(32, 3)`` the same of the hair, or None when there is none to see.
        line_lab: ``(3,)`` the colour of lashes and lines.
        painted: 0 for clean drawings, 1 for paintings with brush strokes or strong light.
        skin_mean: ``(3,)`` colour for skin that the exemplar does not show (neck, scalp).
        labels: ``(H, W, 3)`` soft: skin, hair, the rest (clothes and background).
        rest_lab: ``(n, 3)`` raw colours of clothes, of the background where none are seen.
        lip_shift: ``(3,)`` CIELAB from the skin round the mouth to the lips.
        brow_shift: ``(3,)`` the same of the brows.
        stats: What kind of picture it is.
    """

    image: ByteImage
    lab: Float32Array
    points: FloatArray
    skin_lab: Float32Array
    detail_lab: Float32Array
    feature: Float32Array
    skin_ramp: Float32Array
    hair_ramp: Float32Array | None
    line_lab: Float32Array
    painted: float
    skin_mean: Float32Array
    labels: Float32Array
    rest_lab: Float32Array
    lip_shift: Float32Array
    brow_shift: Float32Array
    stats: PictureStats

    @property
    def face_width(self) -> float:
        """Width of the face oval in pixels."""
        return float(np.ptp(self.points[list(lm.FACE_OVAL), 0]))


def load_exemplar(path: Path, landmarks_file: Path | None = None, look: str = "auto") -> Exemplar:
    """Read and analyse an exemplar.

    Args:
        path: Any picture with one face.
        landmarks_file: For drawings in which no face is found: five clicks or all landmarks, see
            :func:`~toonify3d.portrait2d.clicks.read_landmarks`.
        look: The setting; ``"colour"`` needs no face and looks for none.

    Raises:
        InputError: Codes ``exemplar_missing``, ``exemplar_unreadable``, ``exemplar_format``,
            ``exemplar_too_small``, ``exemplar_too_large``, ``exemplar_no_face``,
            ``exemplar_landmarks``.
    """
    image, alpha, scale = _working_picture(path)
    if look == "colour":
        return analyse_faceless(image, alpha)
    if landmarks_file is not None:
        points = read_landmarks(landmarks_file, scale)
        _check_inside(points, image, landmarks_file)
    else:
        points = _find_face(image, path)
    return analyse(image, alpha, points)


def find_exemplar_face(path: Path) -> FloatArray:
    """Landmarks ``(478, 3)`` as the detector finds them, in the upright picture file's pixels.

    Raises:
        InputError: As :func:`load_exemplar`, which has the same answer.
    """
    image, _, scale = _working_picture(path)
    return np.asarray(_find_face(image, path) / scale)


def read_working_image(path: Path) -> ByteImage:
    """The exemplar's RGB picture alone (for its palette); errors as :func:`load_exemplar`."""
    return _working_picture(path)[0]


def _working_picture(path: Path) -> tuple[ByteImage, ByteImage | None, float]:
    image, alpha = read_picture(path)
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{path.name} is only {width} x {height} pixels: use a picture of at least "
            f"{MIN_SIDE} pixels a side, better 512.",
            "exemplar_too_small",
        )
    scale = min(1.0, WORKING_SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        if alpha is not None:
            alpha = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.uint8)
    if alpha is not None:
        if alpha.max() < 8:
            raise InputError(f"{path.name} is fully transparent.", "exemplar_unreadable")
        cover = alpha[..., None].astype(np.float32) / 255
        image = (image * cover + 255 * (1 - cover)).astype(np.uint8)
    return image, alpha, max(image.shape[:2]) / longest_side(path)


def _find_face(image: ByteImage, path: Path) -> FloatArray:
    finder = lm.FaceLandmarker()
    try:
        found = finder.detect(image, thorough=True)
    finally:
        finder.close()
    if found is None:
        raise InputError(
            f"No face was found in {path.name}: use a portrait whose face is seen from the front, "
            "or click its eyes, nose and mouth (--exemplar-landmarks FILE.json), or take only its "
            "colours and strokes, without its shape (--set stylize.look=colour).",
            "exemplar_no_face",
        )
    return found.points


def _check_inside(points: FloatArray, image: ByteImage, path: Path) -> None:
    height, width = image.shape[:2]
    eyes = points[[*lm.RIGHT_EYE, *lm.LEFT_EYE, *lm.LIPS_OUTER], :2]
    if (eyes < 0).any() or (eyes > [width, height]).any():
        raise InputError(
            f"The places in {path.name} lie outside the picture: give pixels of the picture file.",
            "exemplar_landmarks",
        )


def analyse_faceless(image: ByteImage, alpha: ByteImage | None) -> Exemplar:
    """A picture without a face: only its colours and its strokes can be used."""
    lab = to_lab(image)
    height, width = lab.shape[:2]
    seen = np.ones((height, width), bool) if alpha is None else alpha > 128
    pixels = lab[seen][:: max(1, int(seen.sum()) // 20_000)]
    unrest = float(np.median(np.linalg.norm(lab - blur(lab, 0.012 * width), axis=2)[seen]))
    nothing = np.zeros((height, width), np.float32)
    labels = np.zeros((height, width, 3), np.float32)
    labels[..., 2] = seen
    middle = np.asarray(np.median(pixels, axis=0), np.float32)
    points = np.zeros((lm.LANDMARK_COUNT, 3))
    points[list(lm.FACE_OVAL), 0] = np.linspace(0.3, 0.7, len(lm.FACE_OVAL)) * width
    return Exemplar(
        image=image,
        lab=lab,
        points=points,
        skin_lab=lab,
        detail_lab=np.zeros_like(lab),
        feature=nothing,
        skin_ramp=_ramp(pixels),
        hair_ramp=None,
        line_lab=np.asarray(pixels[np.argsort(pixels[:, 0])[len(pixels) // 50]], np.float32),
        painted=1.0,
        skin_mean=middle,
        labels=labels,
        rest_lab=pixels,
        lip_shift=np.zeros(3, np.float32),
        brow_shift=np.zeros(3, np.float32),
        stats=measure_picture(lab, unrest, 1.0),
    )


def analyse(image: ByteImage, alpha: ByteImage | None, points: FloatArray) -> Exemplar:
    """Take a picture with known landmarks apart (see :class:`Exemplar`)."""
    lab = to_lab(image)
    width = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    smooth = smooth_edges(lab, 8.0, max(1.5, 0.012 * width))
    first = _layers(lab, smooth, points, width)
    skinness = smoothstep(np.linalg.norm(smooth - first.field, axis=2), 22.0, 12.0)
    person = person_mask(image, alpha, points)
    points = refine_landmarks(
        points, first.feature, skinness * person, first.noise, first.painted, lab[..., 0]
    )
    layers = _layers(lab, smooth, points, width)
    hair = _hair_pixels(smooth, points, layers, person, width)
    cover = person.astype(np.float32)
    stats = measure_picture(lab, layers.noise, layers.painted)
    kind = choose_look(stats)
    # In chalk, paper and strokes are in skin and hair alike.
    parts = points, layers.skin, layers.raw_field, smooth, cover, hair
    labels = region_labels(*parts, kind != "hatch", kind == "paint")
    return Exemplar(
        image=image,
        lab=layers.lab,
        points=points,
        skin_lab=layers.field,
        detail_lab=layers.detail,
        feature=layers.feature,
        skin_ramp=_ramp(smooth[layers.skin > 0.5]),
        hair_ramp=None if hair is None else _ramp(_all_hair(smooth, points, labels, hair, kind)),
        line_lab=_line_colour(lab, points),
        painted=layers.painted,
        skin_mean=np.asarray(np.median(layers.lab[layers.skin > 0.5], axis=0), np.float32),
        labels=labels,
        rest_lab=_rest(lab, labels, person),
        lip_shift=_shift(lab, points, (lm.LIPS_OUTER,), width, labels),
        brow_shift=_shift(lab, points, (lm.LEFT_BROW, lm.RIGHT_BROW), width, labels),
        stats=stats,
    )


def _rest(lab: Float32Array, labels: Float32Array, person: npt.NDArray[np.bool_]) -> Float32Array:
    """Colours ``(n, 3)`` for clothes: the person's own, else a background that is no paper."""
    other = labels[..., 2] > 0.6
    chosen = other & person
    if chosen.mean() < 0.03:
        chosen = other & (lab[..., 0] < 96)
    pixels = lab[chosen]
    return np.asarray(pixels[:: max(1, len(pixels) // 20_000)], np.float32)


def _shift(
    lab: Float32Array,
    points: FloatArray,
    contours: tuple[tuple[int, ...], ...],
    width: float,
    labels: Float32Array,
) -> Float32Array:
    """Median colour inside contours against that of the skin near them, ``(3,)``."""
    parts = []
    for contour in contours:
        inside = polygon(lab.shape, points[list(contour), :2], 0.0)
        ring = dilate(inside, 0.07 * width) - dilate(inside, 0.025 * width)
        for reach in (0.07, 0.4):  # beyond a beard
            skin = dilate(inside, reach * width) - dilate(inside, 0.025 * width)
            skin = skin * (labels[..., 0] > 0.6)
            if skin.sum() > 0.3 * ring.sum():
                ring = skin
                break
        if inside.sum() > 5 and ring.sum() > 5:
            parts.append(np.median(lab[inside > 0.5], axis=0) - np.median(lab[ring > 0.5], axis=0))
    return np.asarray(np.mean(parts, axis=0) if parts else np.zeros(3), np.float32)


@dataclass(frozen=True)
class _Layers:
    skin: Float32Array
    field: Float32Array
    raw_field: Float32Array
    lab: Float32Array
    detail: Float32Array
    feature: Float32Array
    noise: float
    painted: float


def _layers(lab: Float32Array, smooth: Float32Array, points: FloatArray, width: float) -> _Layers:
    oval = polygon(lab.shape, face_outline(points), 0.0)
    organs = organ_mask(lab.shape, points, 0.05 * width)
    skin = _skin_mask(smooth, oval, organs, points)
    field, _ = _skin_layers(smooth, skin, oval, organs, width)
    # What is drawn reaches beyond the landmarks' contours: keep it out of the skin, then go again.
    feature, noise = _feature(lab, smooth, field, skin)
    drawn = organ_mask(lab.shape, points, 0.12 * width) * feature > 0.3
    if _painted(smooth[skin > 0.5], noise) < _CLEAN:
        drawn = _touching(drawn, organ_mask(lab.shape, points, 0.02 * width) > 0.5)
    organs = np.maximum(organs, dilate(drawn.astype(np.float32), 0.02 * width))
    skin = _skin_mask(smooth, oval, organs, points)
    field, detail = _skin_layers(smooth, skin, oval, organs, width)
    feature, noise = _feature(lab, smooth, field, skin)
    # Strong painted light is the painted person's form, not the style: keep its colours only.
    painted = _painted(smooth[skin > 0.5], noise)
    raw = field
    if painted > 0:
        broad = blur(fill_holes(smooth, skin), 0.2 * width)
        lit = _lit(smooth[skin > 0.5])
        limit = np.array([8.0, 6.0, 6.0], np.float32)
        broad = lit + limit * np.tanh((broad - np.median(broad[skin > 0.5], axis=0)) / limit)
        brought = (broad - field) * painted  # eyes and lips come along into that light
        dark = np.clip(lab[..., :1] / np.maximum(field[..., :1], 1.0), 0, 1)  # but black stays
        field, lab = field + brought, lab + brought * dark
        detail = detail * (1 - 0.6 * painted)
    return _Layers(skin, field, raw, lab, detail, feature, noise, painted)


def _touching(drawn: npt.NDArray[np.bool_], organs: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Parts that reach into an organ; a nose's shadow and freckles beside it are skin."""
    _, parts = cv2.connectedComponents(drawn.astype(np.uint8))
    return np.asarray(drawn & np.isin(parts, np.unique(parts[organs])))


def _painted(skin: Float32Array, noise: float) -> float:
    """0 for drawings with flat or gently graded skin, 1 for paintings and photographs."""
    spread = float(np.subtract(*np.quantile(skin[:, 0], [0.9, 0.1]))) if len(skin) else 0.0
    return float(max(smoothstep(noise, 2.0, 5.0), smoothstep(spread, 16.0, 26.0)))


def _skin_mask(
    smooth: Float32Array, oval: Float32Array, organs: Float32Array, points: FloatArray
) -> Float32Array:
    """Inside the oval, no organ, and continuing the colours of cheeks and nose.

    Cheeks and nose are skin in any portrait, lit or shaded; a fringe or beard is told by differing
    from what their smooth continuation would be at its place.
    """
    width = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    inside = (oval > 0.5) & (organs < 0.5)
    rows = np.arange(oval.shape[0])[:, None]
    top = points[[*lm.LEFT_BROW, *lm.RIGHT_BROW], 1].min()
    inner = inside & (erode(oval, 0.07 * width) > 0.5)
    core = inner & (rows > top) & (rows < points[list(lm.LIPS_OUTER), 1].max())
    if core.sum() < 30:
        core = inside
    weights = np.array([0.33, 1, 1], np.float32)
    center = np.median(smooth[core], axis=0)
    lit = smooth[core][smooth[core][:, 0] >= center[0]]
    center = np.median(lit, axis=0)
    seeds = core & (np.linalg.norm((smooth - center) * weights, axis=2) < 26)
    field = blur(fill_holes(smooth, seeds.astype(np.float32)), 0.08 * width)
    off = np.linalg.norm((smooth - field) * np.array([0.6, 1, 1], np.float32), axis=2)
    unrest = float(np.median(off[seeds])) if seeds.any() else 0.0
    weight = inside * smoothstep(off, 13.0 + 3 * unrest, 8.0 + 2 * unrest)
    if weight.sum() < 0.15 * inside.sum():  # no main colour (chalk, hatching): all of it is skin
        weight = inside.astype(np.float32)
    return np.asarray(weight, np.float32)


def _skin_layers(
    smooth: Float32Array, skin: Float32Array, oval: Float32Array, organs: Float32Array, width: float
) -> tuple[Float32Array, Float32Array]:
    inner = erode(skin, 0.015 * width)
    if inner.sum() < 50:
        inner = skin
    filled = fill_holes(smooth, inner)
    field = blur(filled, 0.06 * width)
    edge = cv2.distanceTransform((oval > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    weight = blur(erode(1 - organs, 0.02 * width), 0.02 * width)
    whole = _without_specks(skin, (0.09 * width) ** 2)
    weight = weight * smoothstep(edge, 0.04 * width, 0.12 * width) * blur(whole, 0.01 * width)
    detail = (blur(smooth, 0.008 * width) - field) * weight[..., None]
    return field, np.clip(detail, -30, 30).astype(np.float32)


def _without_specks(skin: Float32Array, area: float) -> Float32Array:
    """Skin with its small holes (freckles, a nose's line) closed."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats((skin < 0.5).astype(np.uint8))
    small = (stats[:, cv2.CC_STAT_AREA] < area) & (np.arange(len(stats)) > 0)
    return np.asarray(np.maximum(skin, small[parts]), np.float32)


def _feature(
    lab: Float32Array, smooth: Float32Array, field: Float32Array, skin: Float32Array
) -> tuple[Float32Array, float]:
    """How surely each pixel is something else than skin; and the skin's own unrest."""
    noise = _spread(np.linalg.norm((smooth - field)[skin > 0.5], axis=1))
    difference = np.linalg.norm(lab - field, axis=2)
    return smoothstep(difference, 6 + 1.5 * noise, 14 + 3.0 * noise), noise


def _spread(values: Float32Array) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _ramp(pixels: Float32Array) -> Float32Array:
    """Colours by quantile of L, ``(32, 3)``, smoothed so that they change steadily."""
    order = np.argsort(pixels[:, 0], kind="stable")
    edges = np.linspace(0.02, 0.98, RAMP_STEPS + 1) * (len(order) - 1)
    bins = [
        np.median(pixels[order[int(a) : max(int(b), int(a) + 1)]], axis=0)
        for a, b in itertools.pairwise(edges)
    ]
    ramp: Float32Array = blur(np.array(bins, np.float32)[None], 2.0)[0]
    # Photographs and paintings hold highlights and holes that would tear a surface apart.
    middle = np.median(ramp[:, 0])
    ramp[:, 0] = middle + _MAX_RAMP * np.tanh((ramp[:, 0] - middle) / _MAX_RAMP)
    return np.asarray(ramp, np.float32)


def _hair_pixels(
    smooth: Float32Array,
    points: FloatArray,
    layers: _Layers,
    person: npt.NDArray[np.bool_],
    width: float,
) -> Float32Array | None:
    """Pixels ``(n, 3)`` above the forehead that are neither skin nor background."""
    zone = _hair_zone(smooth.shape, points, width) & person
    if zone.sum() < 0.15 * _hair_zone(smooth.shape, points, width).sum():
        return None
    lit = _lit(smooth[layers.skin > 0.5])
    labels, centers = kmeans(smooth[zone], 4)
    apart = np.linalg.norm((centers - lit) * np.array([0.7, 1, 1]), axis=1)
    unlike = apart > 15
    share = np.isin(labels, np.flatnonzero(unlike)).mean()
    if share < 0.2:
        # Chalk hair has the paper's colour; a smooth skin above the brows is a bald head.
        return np.asarray(smooth[zone]) if layers.noise > 3.0 else None
    return np.asarray(smooth[zone][np.isin(labels, np.flatnonzero(unlike))])


def _all_hair(
    smooth: Float32Array, points: FloatArray, labels: Float32Array, hair: Float32Array, kind: str
) -> Float32Array:
    """A drawing's hair ``(n, 3)`` down to its dark tips, beyond the band in which it is found."""
    oval = polygon(smooth.shape, face_outline(points), 0.0)
    found = smooth[(labels[..., 1] > 0.9) & (oval < 0.5)]
    return found if kind in ("toon", "cel") and len(found) >= len(hair) else hair


def _lit(skin: Float32Array) -> Float32Array:
    """Colour of skin in the light, ``(3,)``: the median of its lighter half."""
    return np.asarray(np.median(skin[skin[:, 0] >= np.median(skin[:, 0])], axis=0), np.float32)


def _hair_zone(shape: tuple[int, ...], points: FloatArray, width: float) -> npt.NDArray[np.bool_]:
    """A band over and beside the upper half of the face oval."""
    oval = points[list(lm.FACE_OVAL), :2]
    center = points[list(lm.MIDLINE), :2].mean(0)
    far = polygon(shape, center + (oval - center) * [1.35, 1.45], 0.0)
    near = polygon(shape, face_outline(points), 0.02 * width)
    rows = np.arange(shape[0])[:, None]
    brow = points[[*lm.LEFT_BROW, *lm.RIGHT_BROW], 1].mean()
    return np.asarray((far > 0.5) & (near < 0.5) & (rows < brow))


def person_mask(
    image: ByteImage, alpha: ByteImage | None, points: FloatArray
) -> npt.NDArray[np.bool_]:
    """Transparency if there is any, a flood through a plain background, else a segmentation."""
    if alpha is not None and (alpha < 128).mean() > 0.02:
        return np.asarray(alpha > 128)
    height, width = image.shape[:2]
    border = np.concatenate(
        [image[:2].reshape(-1, 3), image[: height // 2, [0, -1]].reshape(-1, 3)]
    )
    plain = np.abs(border.astype(int) - np.median(border, axis=0)).max(1) < 12
    if plain.mean() > 0.7:
        return _not_flooded(image, np.median(border, axis=0))
    with PersonSegmenter() as segmenter:
        found = np.asarray(segmenter.probability(image) > 0.5)
    if found[polygon(image.shape, face_outline(points), 0.0) > 0.5].mean() > 0.6:
        return found
    return np.ones((height, width), bool)


def _not_flooded(image: ByteImage, wall: FloatArray) -> npt.NDArray[np.bool_]:
    """What a flood of nearly equal colours from the upper border does not reach."""
    height, width = image.shape[:2]
    flood = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    starts = [(int(x), 0) for x in np.linspace(0, width - 1, 9)]
    starts += [(x, int(y)) for y in np.linspace(0, height * 0.6, 6) for x in (0, width - 1)]
    for start in starts:
        if np.abs(image[start[1], start[0]] - wall).max() > 14:  # hair that touches the border
            continue
        cv2.floodFill(image.copy(), flood, start, (0, 0, 0), (14,) * 3, (14,) * 3, flags)
    return np.asarray(flood[1:-1, 1:-1] == 0)


def _line_colour(lab: Float32Array, points: FloatArray) -> Float32Array:
    """The darkest tenth of eyes and brows."""
    parts = (lm.LEFT_EYE, lm.RIGHT_EYE, lm.LEFT_BROW, lm.RIGHT_BROW)
    mask = np.zeros(lab.shape[:2], np.float32)
    for part in parts:
        mask = np.maximum(mask, polygon(lab.shape, points[list(part), :2], 2.0))
    pixels = lab[mask > 0.5]
    if not len(pixels):
        return np.array([15.0, 0.0, 0.0], np.float32)
    dark = pixels[pixels[:, 0] <= np.quantile(pixels[:, 0], 0.1)]
    return np.asarray(np.median(dark, axis=0), np.float32)
