"""The exemplar's face laid out once on the stylized person's face, seen straight from the front.

Every frame samples this one layer through the bent surface, so the frames agree by construction.
Layer coordinates are x and y of the face frame (units of the eye distance, y up).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import RBFInterpolator

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, sample, smoothstep
from .drawnmouth import lay_mouth, mouth_line
from .drawnorgans import Sticker, better_brow, extents, lay_organ, organ_map
from .exemplar import Exemplar
from .paper import Paper
from .shape import COMPONENTS

_LOW = np.array([-1.9, -2.3])
_HIGH = np.array([1.9, 2.0])
_GRID_STEP = 6
_MIRROR_YAW = 0.25
"""Exemplars turned farther than this (radians) lend the skin of their better half to both."""
_CLEAN = 0.5
"""Exemplars painted less than this have shapes with clear borders."""
_MARGIN = {"eye": 0.11, "brow": 0.07, "lips": 0.03}
_FACE = 1.2
"""Half the side of the square round the landmarks in which the spline must not fold."""
_EYES, _BROWS = (lm.RIGHT_EYE, lm.LEFT_EYE), (lm.RIGHT_BROW, lm.LEFT_BROW)
_EYE_ENDS, _BROW_ENDS = (0, 8), (0, 4)
"""Landmarks on an organ's axis, as places in its contour."""
_STIFFER = (1e-4, 1e-3, 1e-2, 1e-1)
"""Smoothing of the spline through the landmarks: the first with which nothing folds."""


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

    @property
    def paper(self) -> Paper:
        """Where the layer's pixels lie on the face."""
        return Paper(_LOW, _HIGH, self.scale)

    def pixels(self, local: FloatArray) -> FloatArray:
        """Face-frame points ``(..., >=2)`` to the layer's image points."""
        return self.paper.pixels(local)


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
    symmetric: bool = False,
    expression: float = 0.0,
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
        symmetric: Both brows are the better drawn one of the exemplar's.
        expression: How far the mouth's form is the drawn one, 0 to 1.
    """
    paper = Paper(_LOW, _HIGH, scale)
    lookup = _lookup(exemplar, targets, closed, paper)
    ratio = _shrink(exemplar, targets, scale)
    skin_lookup = _better_half(lookup, yaw, scale)
    layer = FaceLayer(
        scale,
        sample(exemplar.skin_lab, skin_lookup),
        sample(_prefilter(exemplar.detail_lab, ratio), skin_lookup),
        sample(_prefilter(exemplar.lab, ratio), lookup),
        np.zeros(paper.shape, np.float32),
        np.zeros(paper.shape, np.float32),
        np.zeros((*paper.shape, 2), np.float32),
    )
    if exemplar.painted < _CLEAN:  # a drawn forehead is bare: what is there is a fringe's tip
        brows = float(targets[[*lm.RIGHT_BROW, *lm.LEFT_BROW], 1].max())
        bare = smoothstep(paper.places()[:, 0, 1], brows + 0.15, brows)[:, None, None]
        layer = replace(layer, detail_lab=layer.detail_lab * bare)
    drawing = _Drawing(
        exemplar, _prefilter(exemplar.lab, ratio), _prefilter(exemplar.feature, ratio), targets, yaw
    )
    if not (kept and own_eyes):
        layer = _with_eyes(layer, drawing, closed)
    if kept:
        return _with_own(layer, targets, own_eyes)
    layer = _with_brows(layer, drawing, symmetric)
    if lip_contrast <= 0:
        return _with_mouth_line(layer, targets, exemplar.line_lab)
    drawn = sample(drawing.feature, lookup)
    return _with_lips(layer, drawn, drawing, lip_contrast, expression)


def _lookup(
    exemplar: Exemplar, targets: FloatArray, closed: tuple[bool, bool], paper: Paper
) -> Float32Array:
    """Exemplar image points ``(H, W, 2)`` by a thin-plate spline through the landmarks.

    A big open eye squeezed into a shut lid would fold the skin above and below: shut eyes have no
    part in it, and where it still folds it is made stiffer.
    """
    unused = {*lm.RIGHT_IRIS, *lm.LEFT_IRIS}
    for contour, shut in zip(_EYES, closed, strict=True):
        unused |= set(contour) if shut else set()
    ids = sorted({i for group in COMPONENTS.values() for i in group} - unused)
    height, width = paper.shape
    columns = np.arange(0, width + _GRID_STEP, _GRID_STEP)
    rows = np.arange(0, height + _GRID_STEP, _GRID_STEP)
    x, y = _LOW[0] + columns / paper.scale, _HIGH[1] - rows / paper.scale
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    inner = np.abs(grid[:-1, :-1] - targets[ids, :2].mean(0)).max(2) < _FACE
    for smoothing in _STIFFER:
        spline = RBFInterpolator(
            targets[ids, :2],
            exemplar.points[ids, :2],
            kernel="thin_plate_spline",
            smoothing=smoothing,
        )
        coarse = spline(grid.reshape(-1, 2)).reshape(len(rows), len(columns), 2)
        across, down = coarse[:-1, 1:] - coarse[:-1, :-1], coarse[1:, :-1] - coarse[:-1, :-1]
        area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
        if (area[inner] > 0).all():
            break
    at = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    return sample(coarse.astype(np.float32), at / _GRID_STEP + 0.5)


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


@dataclass(frozen=True)
class _Drawing:
    """The exemplar at the layer's fineness, and where its organs shall lie.

    Attributes:
        exemplar: The picture taken apart.
        lab: ``(h, w, 3)``.
        feature: ``(h, w)``.
        targets: ``(478, 3)`` stylized landmarks.
        yaw: The head's turn.
    """

    exemplar: Exemplar
    lab: Float32Array
    feature: Float32Array
    targets: FloatArray
    yaw: float

    def sticker(
        self,
        paper: Paper,
        place: tuple[int, ...],
        drawn: tuple[int, ...] | None = None,
        extent: FloatArray | None = None,
    ) -> Sticker:
        """The organ ``drawn`` (the same one if None) at ``place``; ``extent`` see organ_map."""
        drawn = place if drawn is None else drawn
        points = self.exemplar.points[:, :2]
        ends = _EYE_ENDS if place in _EYES else _BROW_ENDS
        lay = organ_map(
            self.targets[list(place), :2], points[list(drawn)], ends, drawn != place, extent
        )
        rest = [points[list(other)] for other in (*_EYES, *_BROWS) if other is not drawn]
        contours = (points[list(drawn)], rest)
        return lay_organ(paper, lay, self.lab, self.feature, contours, place in _BROWS)


def _with_eyes(layer: FaceLayer, drawing: _Drawing, closed: tuple[bool, bool]) -> FaceLayer:
    """Set opacity, colour and organ mask of the eyes; shut ones get a lash line."""
    exemplar, paper = drawing.exemplar, layer.paper
    tight = 1 - 0.65 * exemplar.painted  # beyond a painted organ lies its shadow
    for contour, shut in zip(_EYES, closed, strict=True):
        points = drawing.targets[list(contour)]
        inside = paper.signed(points)
        if shut:
            line = _lash_line(paper, points)
            color = np.where(line[..., None] > 0, exemplar.line_lab, layer.feature_lab)
            eye = line * (1 - 0.35 * exemplar.painted)
            reach = 0.06
        else:
            found = drawing.sticker(paper, contour)
            whole = found.opacity if exemplar.painted < _CLEAN else None
            eye = _organ(inside, found.drawn, _MARGIN["eye"] * tight) if whole is None else whole
            eye = np.maximum(eye, smoothstep(inside, -0.01, 0.02))  # lids, whites of skin's colour
            color = _stuck(layer.feature_lab, found.color, eye)
            reach = 0.1 + 0.1 * (1 - exemplar.painted)  # a toon has no lids, bags and sockets
        grown = smoothstep(inside, -reach, (-0.01 if shut else 0.07 - reach))
        layer = _drawn_on(layer, color, eye, grown)
    return layer


def _with_own(layer: FaceLayer, targets: FloatArray, eyes: bool) -> FaceLayer:
    """Mark where the person's own lips and brows stay (and with ``eyes`` also the eyes)."""
    paper = layer.paper
    lips = smoothstep(paper.signed(targets[list(lm.LIPS_OUTER)]), -0.05, 0.02)
    brows = np.zeros_like(lips)
    for contour in (*_BROWS, *(_EYES if eyes else ())):
        brows = np.maximum(brows, smoothstep(paper.signed(targets[list(contour)]), -0.1, 0.0))
    brows *= 1 - smoothstep(layer.feature, 0.2, 0.8)
    organs = np.maximum(layer.organs, np.maximum(lips, brows))
    return replace(layer, organs=organs, own=np.stack([lips, brows], 2))


def _with_brows(layer: FaceLayer, drawing: _Drawing, symmetric: bool) -> FaceLayer:
    paper, painted = layer.paper, drawing.exemplar.painted
    own = [drawing.sticker(paper, contour) for contour in _BROWS]
    if symmetric and painted < _CLEAN:
        own = _alike(paper, drawing, own)
    for contour, found in zip(_BROWS, own, strict=True):
        inside = paper.signed(drawing.targets[list(contour)])
        brow = found.opacity if painted < _CLEAN else None
        if brow is None:
            brow = _organ(inside, found.drawn, _MARGIN["brow"] * (1 - 0.65 * painted))
        color = _stuck(layer.feature_lab, found.color, brow)
        # Stray hairs of the person's own go too.
        layer = _drawn_on(layer, color, brow, smoothstep(inside, -0.2, -0.1))
    return layer


def _alike(paper: Paper, drawing: _Drawing, own: list[Sticker]) -> list[Sticker]:
    """Both brows from the better drawn one, in one size."""
    better = better_brow(own[0], own[1], drawing.yaw)
    if own[better].opacity is None:
        return own
    size = [extents(drawing.targets[list(contour), :2], _BROW_ENDS) for contour in _BROWS]
    extent = np.asarray(np.mean(size, axis=0))
    return [drawing.sticker(paper, contour, _BROWS[better], extent) for contour in _BROWS]


def _drawn_on(
    layer: FaceLayer, color: Float32Array, opacity: Float32Array, organs: Float32Array
) -> FaceLayer:
    return replace(
        layer,
        feature_lab=np.asarray(color, np.float32),
        feature=np.asarray(np.maximum(layer.feature, opacity), np.float32),
        organs=np.asarray(np.maximum(layer.organs, organs), np.float32),
    )


def _stuck(under: Float32Array, over: Float32Array, opacity: Float32Array) -> Float32Array:
    """Colours of a sticker where it is drawn and a little beyond, for the smoothing of its rim."""
    weight = smoothstep(blur(np.asarray(opacity > 0.02, np.float32), 1.5), 0.02, 0.3)[..., None]
    return np.asarray(under + (over - under) * weight, np.float32)


def _with_lips(
    layer: FaceLayer, drawn: Float32Array, drawing: _Drawing, contrast: float, expression: float
) -> FaceLayer:
    color, opacity = lay_mouth(
        layer.paper,
        layer.feature_lab,
        drawn,
        layer.skin_lab,
        drawing.targets,
        contrast,
        expression,
        drawing.exemplar.line_lab,
    )
    return _drawn_on(layer, color, opacity, _lips(layer, drawing.targets))


def _with_mouth_line(layer: FaceLayer, targets: FloatArray, ink: Float32Array) -> FaceLayer:
    """No lips but the line between them (ink)."""
    inside = layer.paper.signed(targets[list(lm.LIPS_OUTER)])
    near = smoothstep(inside, -_MARGIN["lips"] - 0.05, -_MARGIN["lips"])
    color = layer.feature_lab + (ink - layer.feature_lab) * near[..., None]
    bare = replace(layer, feature=layer.feature * (1 - near))
    return _drawn_on(bare, color, mouth_line(layer.paper, targets), _lips(layer, targets))


def _lips(layer: FaceLayer, targets: FloatArray) -> Float32Array:
    """Where the person's own lips must not shine through."""
    return smoothstep(layer.paper.signed(targets[list(lm.LIPS_OUTER)]), -0.06, -0.01)


def _organ(inside: Float32Array, drawn: Float32Array, margin: float) -> Float32Array:
    """What is drawn inside the contour, and beyond it up to ``margin``."""
    return np.asarray(drawn * smoothstep(inside, -margin, -0.5 * margin), np.float32)


def _lash_line(paper: Paper, contour: FloatArray) -> Float32Array:
    """Opacity of a drawn closed lid: a stroke along the shut lids, thinner at its ends."""
    lower = np.concatenate([contour[:1], contour[1:8], contour[8:9]])
    upper = np.concatenate([contour[:1], contour[:8:-1], contour[8:9]])
    return paper.stroke(0.35 * upper[:, :2] + 0.65 * lower[:, :2], 0.012, 0.02)
