"""The exemplar's face laid out once on the stylized person's face, seen straight from the front.

Every frame samples this one layer through the bent surface, so the frames agree by construction.
Layer coordinates are x and y of the face frame (units of the eye distance, y up).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, sample, signed_distance, smoothstep
from .exemplar import Exemplar
from .shape import COMPONENTS

_LOW = np.array([-1.9, -2.3])
_HIGH = np.array([1.9, 2.0])
_GRID_STEP = 6
_MIRROR_YAW = 0.25
"""Exemplars turned farther than this (radians) lend the skin of their better half to both."""
_CLEAN = 0.5
"""Exemplars painted less than this have shapes with clear borders."""
_REACH = 0.3
"""How far beyond its landmarks, in eye distances, a drawn eye or brow may reach."""
_SPUR = 0.4
"""Share of a brow's thickness below which what hangs on it is a spur: a lid's or an eye's line,
bent onto a shut eye, can touch the brow."""
_ROUNDED = 0.4
"""Share of a brow's thickness over which its rim is evened."""
_MARGIN = {"eye": 0.11, "brow": 0.07, "lips": 0.03}


@dataclass(frozen=True)
class FaceLayer:
    """Pictures over the layer's rectangle, row 0 on top.

    Attributes:
        scale: Pixels per unit.
        skin_lab: ``(H, W, 3)`` smooth skin colour.
        detail_lab: ``(H, W, 3)`` the exemplar's drawing on the skin.
        feature_lab: ``(H, W, 3)`` eyes, brows and lips.
        feature: ``(H, W)`` their opacity.
        organs: ``(H, W)`` where the person's own eyes, brows and lips must not shine through.
        own: ``(H, W, 2)`` where the person's own lips and brows are kept in new colours.
    """

    scale: float
    skin_lab: Float32Array
    detail_lab: Float32Array
    feature_lab: Float32Array
    feature: Float32Array
    organs: Float32Array
    own: Float32Array

    def pixels(self, local: FloatArray) -> FloatArray:
        """Face-frame points ``(..., >=2)`` to the layer's image points."""
        return np.stack(
            [
                (local[..., 0] - _LOW[0]) * self.scale,
                (_HIGH[1] - local[..., 1]) * self.scale,
            ],
            axis=-1,
        )


def blank_layer() -> FaceLayer:
    """A layer that draws nothing, for pictures without a face."""
    color = np.zeros((4, 4, 3), np.float32)
    flat = color[..., 0]
    return FaceLayer(1.0, color, color, color, flat, flat, color[..., :2])


def build_layer(
    exemplar: Exemplar,
    targets: FloatArray,
    closed: tuple[bool, bool],
    yaw: float,
    scale: float,
    kept: bool = False,
    lip_contrast: float = 30.0,
    own_eyes: bool = False,
) -> FaceLayer:
    """Bend the exemplar onto the stylized landmarks.

    Args:
        exemplar: The picture taken apart.
        targets: ``(478, 3)`` stylized landmarks in the face frame.
        closed: Whether the person's right and left eye are shut.
        yaw: The exemplar's head turn in radians, positive showing its left half.
        scale: Pixels per unit.
        kept: Keep the person's own lips and brows, in the exemplar's colours.
        lip_contrast: Largest CIELAB difference between drawn lips and skin; 0 draws the line
            between the lips only.
        own_eyes: With ``kept``, keep the person's own eyes too.
    """
    width, height = np.ceil((_HIGH - _LOW) * scale).astype(int)
    lookup = _lookup(exemplar, targets, int(width), int(height), scale)
    ratio = _shrink(exemplar, targets, scale)
    skin_lookup = _better_half(lookup, yaw, scale)
    layer = FaceLayer(
        scale,
        sample(exemplar.skin_lab, skin_lookup),
        sample(_prefilter(exemplar.detail_lab, ratio), skin_lookup),
        sample(_prefilter(exemplar.lab, ratio), lookup),
        np.zeros((height, width), np.float32),
        np.zeros((height, width), np.float32),
        np.zeros((height, width, 2), np.float32),
    )
    if exemplar.painted < _CLEAN:  # a drawn forehead is bare: what is there is a fringe's tip
        brows = float(targets[[*lm.RIGHT_BROW, *lm.LEFT_BROW], 1].max())
        rows = _HIGH[1] - (np.arange(height) + 0.5) / scale
        bare = smoothstep(rows, brows + 0.15, brows)[:, None, None]
        layer = replace(layer, detail_lab=layer.detail_lab * bare)
    drawn = sample(_prefilter(exemplar.feature, ratio), lookup)
    if not (kept and own_eyes):
        layer = _with_eyes(layer, exemplar, drawn, targets, closed)
    if kept:
        return _with_own(layer, targets, own_eyes)
    layer = _with_brows(layer, exemplar, drawn, targets)
    if lip_contrast <= 0:
        return _with_mouth_line(layer, targets, exemplar.line_lab)
    return _with_lips(layer, drawn, targets, lip_contrast)


def _lookup(
    exemplar: Exemplar, targets: FloatArray, width: int, height: int, scale: float
) -> Float32Array:
    """Exemplar image points ``(H, W, 2)`` by a thin-plate spline through the landmarks."""
    rims = {*lm.RIGHT_IRIS, *lm.LEFT_IRIS}
    ids = sorted({i for group in COMPONENTS.values() for i in group} - rims)
    spline = RBFInterpolator(
        targets[ids, :2], exemplar.points[ids, :2], kernel="thin_plate_spline", smoothing=1e-4
    )
    columns = np.arange(0, width + _GRID_STEP, _GRID_STEP)
    rows = np.arange(0, height + _GRID_STEP, _GRID_STEP)
    x = _LOW[0] + columns / scale
    y = _HIGH[1] - rows / scale
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    coarse = spline(grid.reshape(-1, 2)).reshape(len(rows), len(columns), 2)
    at = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    dense = sample(coarse.astype(np.float32), at / _GRID_STEP + 0.5)
    return _straight_organs(dense, exemplar, targets, at, scale)


def _straight_organs(
    lookup: Float32Array,
    exemplar: Exemplar,
    targets: FloatArray,
    at: FloatArray,
    scale: float,
) -> Float32Array:
    """Replace the spline by one map per eye and brow: a spline through few points dents them."""
    x = np.stack([at[..., 0] / scale + _LOW[0], _HIGH[1] - at[..., 1] / scale], -1)
    height, width = lookup.shape[:2]
    contours = (lm.RIGHT_BROW, lm.LEFT_BROW, lm.RIGHT_EYE, lm.LEFT_EYE)
    near = []
    for contour in contours:
        source = targets[list(contour), :2]
        pixels = np.stack([(source[:, 0] - _LOW[0]), (_HIGH[1] - source[:, 1])], 1) * scale
        near.append(signed_distance(pixels, height, width) / scale)
    for i, contour in enumerate(contours):
        ids = list(contour)
        ends = (0, 4) if i < 2 else (0, 8)
        matrix, center, middle = _organ_map(targets[ids, :2], exemplar.points[ids, :2], ends)
        local = middle + (x - center) @ matrix.T
        others = np.max([near[j] for j in range(4) if j != i], axis=0)
        weight = smoothstep(near[i], -0.25, -0.1) * smoothstep(near[i] - others, -0.04, 0.04)
        lookup = lookup * (1 - weight[..., None]) + local * weight[..., None]
    return np.asarray(lookup, np.float32)


def _organ_map(
    source: FloatArray, goal: FloatArray, ends: tuple[int, int]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Matrix, source centre and goal centre that lay one contour on another.

    Scales along and across the organ's own axis only; a free affine fit would shear the iris.
    """
    center, middle = source.mean(0), goal.mean(0)
    along, goal_along = (p[ends[1]] - p[ends[0]] for p in (source, goal))
    along, goal_along = (v / np.linalg.norm(v) for v in (along, goal_along))
    across = np.array([-along[1], along[0]])
    goal_across = np.array([goal_along[1], -goal_along[0]])  # image rows grow downwards
    matrix = np.zeros((2, 2))
    for axis, goal_axis in ((along, goal_along), (across, goal_across)):
        extent = np.abs((source - center) @ axis).mean()
        ratio = np.abs((goal - middle) @ goal_axis).mean() / max(float(extent), 1e-6)
        matrix += ratio * np.outer(goal_axis, axis)
    return matrix, center, middle


def _shrink(exemplar: Exemplar, targets: FloatArray, scale: float) -> float:
    own = np.ptp(targets[list(lm.FACE_OVAL), 0]) * scale
    return float(exemplar.face_width / max(own, 1e-6))


def _prefilter(image: Float32Array, ratio: float) -> Float32Array:
    return blur(image, 0.4 * ratio) if ratio > 1.2 else image


def _better_half(lookup: Float32Array, yaw: float, scale: float) -> Float32Array:
    if abs(yaw) < _MIRROR_YAW:
        return lookup
    height, width = lookup.shape[:2]
    columns = (np.arange(width) + 0.5) / scale + _LOW[0]
    mirrored = np.abs(columns) * np.sign(yaw)
    x = (mirrored - _LOW[0]) * scale
    at = np.stack(np.meshgrid(x, np.arange(height) + 0.5), axis=-1)
    return sample(lookup, at)


def _with_eyes(
    layer: FaceLayer,
    exemplar: Exemplar,
    drawn: Float32Array,
    targets: FloatArray,
    closed: tuple[bool, bool],
) -> FaceLayer:
    """Set opacity, colour and organ mask of the eyes; shut ones get a lash line."""
    opacity, color, organs = layer.feature, layer.feature_lab, layer.organs
    tight = 1 - 0.65 * exemplar.painted  # beyond a painted organ lies its shadow
    for contour, shut in ((lm.RIGHT_EYE, closed[0]), (lm.LEFT_EYE, closed[1])):
        inside = _signed(layer, targets[list(contour)])
        rest = _others(layer, targets, contour)
        if shut:
            line = _lash_line(layer, targets[list(contour)])
            color = np.where(line[..., None] > 0, exemplar.line_lab, color)
            opacity = np.maximum(opacity, line * (1 - 0.35 * exemplar.painted))
            organs = np.maximum(organs, smoothstep(inside, -0.06, -0.01))
        else:
            eye = _whole_organ(inside, drawn, rest) if exemplar.painted < _CLEAN else None
            if eye is None:
                eye = _organ(inside, drawn, _MARGIN["eye"] * tight, 0.0)
            eye = np.maximum(eye, smoothstep(inside, -0.01, 0.02))  # lids, whites of skin's colour
            opacity = np.maximum(opacity, eye)
            far = 0.1 + 0.1 * (1 - exemplar.painted)  # a toon has no lids, bags and sockets
            organs = np.maximum(organs, smoothstep(inside, -far, 0.07 - far))
    return replace(
        layer,
        feature_lab=np.asarray(color, np.float32),
        feature=np.asarray(opacity, np.float32),
        organs=np.asarray(organs, np.float32),
    )


def _with_own(layer: FaceLayer, targets: FloatArray, eyes: bool) -> FaceLayer:
    """Mark where the person's own lips and brows stay (and with ``eyes`` also the eyes)."""
    lips = smoothstep(_signed(layer, targets[list(lm.LIPS_OUTER)]), -0.05, 0.02)
    brows = np.zeros_like(lips)
    kept = (lm.RIGHT_BROW, lm.LEFT_BROW, *((lm.RIGHT_EYE, lm.LEFT_EYE) if eyes else ()))
    for contour in kept:
        brows = np.maximum(brows, smoothstep(_signed(layer, targets[list(contour)]), -0.1, 0.0))
    brows *= 1 - smoothstep(layer.feature, 0.2, 0.8)
    organs = np.maximum(layer.organs, np.maximum(lips, brows))
    return replace(layer, organs=organs, own=np.stack([lips, brows], 2))


def _with_brows(
    layer: FaceLayer, exemplar: Exemplar, drawn: Float32Array, targets: FloatArray
) -> FaceLayer:
    opacity, organs = layer.feature, layer.organs
    for contour in (lm.RIGHT_BROW, lm.LEFT_BROW):
        inside = _signed(layer, targets[list(contour)])
        margin = _MARGIN["brow"] * (1 - 0.65 * exemplar.painted)
        ring = (inside < -0.06) & (inside > -0.13)
        if (drawn[ring] > 0.5).mean() > 0.25:  # a fringe hangs down to the brow
            margin = 0.025
        brow = None
        if exemplar.painted < _CLEAN:
            rest = _others(layer, targets, contour)
            brow = _whole_organ(inside, drawn, rest, _SPUR)
        opacity = np.maximum(opacity, _organ(inside, drawn, margin, 0.0) if brow is None else brow)
        organs = np.maximum(organs, smoothstep(inside, -0.2, -0.1))  # with stray hairs of its own
    return replace(layer, feature=opacity, organs=organs)


def _with_lips(
    layer: FaceLayer, drawn: Float32Array, targets: FloatArray, contrast: float
) -> FaceLayer:
    """The exemplar's lips, filled ones no farther from the skin than ``contrast``.

    A toon's mouth is a dark shape that stands for lips, teeth and gap alike; laid in full on a shut
    mouth it reads as lipstick. The lips therefore take a part of its colour, the gap all of it.
    """
    inside = _signed(layer, targets[list(lm.LIPS_OUTER)])
    opacity = np.maximum(layer.feature, _organ(inside, drawn, _MARGIN["lips"], 0.0))
    organs = np.maximum(layer.organs, smoothstep(inside, -0.06, -0.01))
    color, core = layer.feature_lab, inside > 0.0
    if core.any() and (drawn[core] > 0.5).mean() > 0.45:
        gap = np.median(np.linalg.norm(color - layer.skin_lab, axis=2)[core])
        part = min(1.0, contrast / max(float(gap), 1e-6))
        near = smoothstep(inside, -_MARGIN["lips"] - 0.05, -_MARGIN["lips"])[..., None]
        faded = layer.skin_lab + (color - layer.skin_lab) * part
        full = np.median(color[core], axis=0)
        line = _mouth_line(layer, targets)
        faded = faded + (full - faded) * line[..., None]
        color = color + (faded - color) * near
        opacity = np.maximum(opacity, line)
    return replace(layer, feature_lab=color, feature=opacity, organs=organs)


def _with_mouth_line(layer: FaceLayer, targets: FloatArray, ink: Float32Array) -> FaceLayer:
    """No lips but the line between them (ink)."""
    inside = _signed(layer, targets[list(lm.LIPS_OUTER)])
    near = smoothstep(inside, -_MARGIN["lips"] - 0.05, -_MARGIN["lips"])
    line = _mouth_line(layer, targets)
    color = layer.feature_lab + (ink - layer.feature_lab) * near[..., None]
    return replace(
        layer,
        feature_lab=np.asarray(color, np.float32),
        feature=np.maximum(layer.feature * (1 - near), line),
        organs=np.maximum(layer.organs, smoothstep(inside, -0.06, -0.01)),
    )


def _mouth_line(layer: FaceLayer, targets: FloatArray) -> Float32Array:
    """Opacity of the gap between the lips: a stroke when shut, the whole gap when open."""
    inner = targets[list(lm.LIPS_INNER), :2]
    lower, upper = inner[:11], np.concatenate([inner[:1], inner[:9:-1]])
    curve = 0.5 * (lower + upper)
    gap = smoothstep(_signed(layer, inner), 0.0, 0.02)
    return np.maximum(gap, _stroke(layer, curve, 0.008, 0.014))


def _organ(inside: Float32Array, drawn: Float32Array, margin: float, core: float) -> Float32Array:
    """Opaque inside the contour; beyond it, only what is drawn there, up to ``margin``."""
    reach = smoothstep(inside, -margin, -0.5 * margin)
    return np.maximum(core * smoothstep(inside, -0.01, 0.02), drawn * reach)


def _whole_organ(
    inside: Float32Array, drawn: Float32Array, rest: Float32Array, spur: float = 0.0
) -> Float32Array | None:
    """Opacity of the whole drawn shape that a contour touches, however far it reaches beyond it.

    None when there is no such shape, or when it runs on (hair, glasses, a shadow). Other shapes
    near by, such as a second copy of the brow above a bent eye, are left out.

    Args:
        inside: Signed distance to the contour.
        drawn: How surely a pixel is drawn.
        rest: Largest signed distance to the other eyes and brows.
        spur: Share of the shape's thickness below which parts of it are left out.
    """
    zone = (inside > -_REACH) & (inside >= rest)
    on = ((drawn > 0.35) & zone).astype(np.uint8)  # the white of an eye on light skin
    _, labels = cv2.connectedComponents(on)
    touching = np.unique(labels[(inside > 0) & (on > 0)])
    shape = np.isin(labels, touching[touching > 0])
    if spur and shape.any():
        shape = _without_spurs(shape, spur)
    core = inside > 0
    if shape.sum() < 0.25 * core.sum():
        return None
    if (shape & ((inside < 0.02 - _REACH) | (inside < rest + 0.01))).sum() > 0.03 * shape.sum():
        return None
    if spur:
        shape = _rounded(shape)
    away = cv2.distanceTransform((~shape).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(smoothstep(drawn, 0.1, 0.5) * smoothstep(away, 3.0, 1.0), np.float32)


def _without_spurs(shape: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
    """A shape without what is thinner than ``share`` of its thickest (morphological opening)."""
    depth = cv2.distanceTransform(shape.astype(np.uint8), cv2.DIST_L2, 5)
    radius = share * float(depth.max())
    thick = np.asarray(depth > radius)
    away = cv2.distanceTransform((~thick).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(shape & (away <= 1.05 * radius + 0.5))


def _rounded(shape: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A shape whose rim is even: no stumps of spurs."""
    depth = cv2.distanceTransform(shape.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(blur(shape.astype(np.float32), _ROUNDED * float(depth.max())) > 0.5)


def _others(layer: FaceLayer, targets: FloatArray, contour: tuple[int, ...]) -> Float32Array:
    """Signed distance to the nearest other eye or brow."""
    organs = (lm.RIGHT_EYE, lm.LEFT_EYE, lm.RIGHT_BROW, lm.LEFT_BROW)
    rest = [_signed(layer, targets[list(other)]) for other in organs if other is not contour]
    return np.asarray(np.max(rest, axis=0), np.float32)


def _signed(layer: FaceLayer, contour: FloatArray) -> Float32Array:
    """Signed distance to a closed contour over the layer, in units, positive inside."""
    height, width = layer.feature.shape
    return signed_distance(layer.pixels(contour), height, width) / layer.scale


def _lash_line(layer: FaceLayer, contour: FloatArray) -> Float32Array:
    """Opacity of a drawn closed lid: a stroke along the shut lids, thinner at its ends."""
    lower = np.concatenate([contour[:1], contour[1:8], contour[8:9]])
    upper = np.concatenate([contour[:1], contour[:8:-1], contour[8:9]])
    return _stroke(layer, 0.35 * upper[:, :2] + 0.65 * lower[:, :2], 0.012, 0.02)


def _stroke(layer: FaceLayer, curve: FloatArray, thin: float, more: float) -> Float32Array:
    """A stroke along ``(n, 2)`` face-frame points, ``more`` wider in its middle."""
    last = len(curve) - 1
    steps = np.linspace(0, last, 65)
    dense = np.stack([np.interp(steps, np.arange(len(curve)), curve[:, i]) for i in (0, 1)], 1)
    middle = 1 - (2 * steps / last - 1) ** 2
    radius = (thin + more * middle) * layer.scale
    points = layer.pixels(dense) - 0.5
    out = np.zeros(layer.feature.shape, np.float32)
    rows, columns = np.mgrid[: out.shape[0], : out.shape[1]]
    low = np.maximum(np.floor(points.min(0) - 4 * radius.max()), 0).astype(int)
    high = np.ceil(points.max(0) + 4 * radius.max()).astype(int)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    distance = np.full(rows[window].shape, np.inf)
    for (x, y), r in zip(points, radius, strict=True):
        gap = np.hypot(columns[window] - x, rows[window] - y) - r
        distance = np.minimum(distance, gap)
    out[window] = smoothstep(distance, 0.8, -0.8)
    return out
