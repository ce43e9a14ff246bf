"""Which pixels of the exemplar are skin, hair and the rest; and what kind of picture it is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, kmeans
from .exemplarmasks import face_outline, polygon

LOOKS = ("auto", "toon", "cel", "paint", "hatch", "ink", "colour")
"""Values of the setting ``look``."""

_FOREHEAD = 0.45
"""Face widths above the landmarks' outline that a forehead may reach: the detector was trained on
photos, and stops below the hair of painted foreheads."""
_ALIKE = np.array([14.0, 7.0, 7.0], np.float32)
_BEARD, _BEARD_SHARE = 11.0, 0.12
"""CIELAB difference (a, b) from skin of the same lightness, and the least share of the lower face
that it must cover, to be a beard."""

_BEARD_SPREAD = np.array([20.0, 9.0, 12.0], np.float32)


@dataclass(frozen=True)
class PictureStats:
    """Figures by which the look is chosen.

    Attributes:
        flat: Share of pixels within 4 CIELAB units of one of six colours: 1 for vector drawings.
        chroma: 90 % quantile of the colourfulness.
        pigment: Share of the colour's variance that follows from lightness alone: 1 for a drawing
            in one pigment on paper.
        paper: Median lightness of the picture.
        noise: Unrest of the skin in CIELAB; 0 without a face.
        painted: 0 for clean drawings, 1 for strong light or brush strokes.
    """

    flat: float
    chroma: float
    pigment: float
    paper: float
    noise: float
    painted: float


def measure_picture(lab: Float32Array, noise: float, painted: float) -> PictureStats:
    """Measure an exemplar in CIELAB ``(H, W, 3)``."""
    pixels = lab.reshape(-1, 3)[:: max(1, lab.shape[0] * lab.shape[1] // 40_000)]
    labels, centers = kmeans(pixels, 6)
    flat = float((np.linalg.norm(pixels - centers[labels], axis=1) < 4).mean())
    chroma = float(np.quantile(np.hypot(pixels[:, 1], pixels[:, 2]), 0.9))
    order = np.argsort(pixels[:, 0], kind="stable")
    explained = pixels[:, 1:].copy()
    for part in np.array_split(order, 24):
        explained[part] = pixels[part, 1:].mean(0)
    total = float(pixels[:, 1:].var(0).sum())
    left = float((pixels[:, 1:] - explained).var(0).sum())
    pigment = 1.0 - left / total if total > 1.0 else 1.0
    return PictureStats(flat, chroma, pigment, float(np.median(pixels[:, 0])), noise, painted)


def choose_look(stats: PictureStats) -> str:
    """The look that suits a picture (the setting ``look`` overrides it)."""
    if stats.flat > 0.9:
        return "ink" if stats.chroma < 8 else "cel"
    if stats.noise > 3.5 and stats.pigment > 0.4 and stats.paper > 65:
        return "hatch"
    return "paint" if stats.painted > 0.4 else "toon"


def region_labels(
    points: FloatArray,
    skin: Float32Array,
    field: Float32Array,
    smooth: Float32Array,
    person: Float32Array,
    hair: Float32Array | None,
    by_colour: bool = True,
    bearded: bool = False,
) -> Float32Array:
    """Skin, hair and the rest of the picture ``(H, W, 3)``, soft; background counts as the rest.

    Args:
        points: ``(478, 3)`` landmarks.
        skin: ``(H, W)`` skin inside the face.
        field: ``(H, W, 3)`` continued skin colour.
        smooth: ``(H, W, 3)`` smoothed CIELAB.
        person: ``(H, W)`` 0..1.
        hair: ``(n, 3)`` colours of hair, or None.
        by_colour: False for drawings in one pigment: regions then follow from the face's outline.
        bearded: Look for a beard, which counts as hair (paintings; a drawn chin in coloured shade
            would pass for one).
    """
    height, width = skin.shape
    rows = np.arange(height)[:, None]
    unit = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    canvas = polygon(skin.shape, face_outline(points), 0.0).astype(np.uint8)
    far = cv2.distanceTransform(1 - canvas, cv2.DIST_L2, 5) / unit
    weight = np.array([0.6, 1, 1], np.float32)
    if not by_colour:
        mane = (far < 0.9) & (rows < points[lm.CHIN, 1] + 0.6 * unit)
        out = np.stack([canvas, mane * (1.0 - canvas), 1.0 - np.maximum(canvas, mane)], 2)
        return blur(out.astype(np.float32), 0.01 * unit)
    as_skin = np.linalg.norm((smooth - field) * weight, axis=2)
    out = np.zeros((height, width, 3), np.float32)
    below = (rows > points[lm.CHIN, 1] - 0.1 * unit) & (far < 0.7)
    out[..., 0] = np.maximum(canvas, below * (as_skin < 14) * (far < 0.5)) * person
    out[..., 0] *= np.maximum(skin, (as_skin < 30).astype(np.float32))
    if hair is not None and len(hair):
        colour = np.median(hair, axis=0)
        spread = np.maximum(1.5 * hair.std(0), [14.0, 7.0, 7.0])
        alike = np.linalg.norm((smooth - colour) / spread, axis=2) < 1.8
        reach = (far < 0.9) & (rows < points[lm.CHIN, 1] + 1.2 * unit)
        out[..., 1] = alike * reach * person * (1 - out[..., 0])
        brow = points[[*lm.LEFT_BROW, *lm.RIGHT_BROW], 1].min()
        above = (rows < brow) & (far < _FOREHEAD) & (person > 0.5)
        out = _with_forehead(
            out, above, canvas, (smooth - field) / _ALIKE, (smooth - colour) / spread
        )
    if bearded:
        beard = _beard(points, smooth, skin, (far < 0.3) & (person > 0.5), unit)
        out[..., 1] = np.maximum(out[..., 1], beard)
        out[..., 0] *= 1 - beard
    out[..., 2] = 1 - out[..., 0] - out[..., 1]
    soft = blur(np.clip(out, 0, 1), 0.01 * unit)
    return np.asarray(soft / np.maximum(soft.sum(2, keepdims=True), 1e-6), np.float32)


def _with_forehead(
    labels: Float32Array,
    above: npt.NDArray[np.bool_],
    oval: npt.NDArray[np.uint8],
    from_skin: Float32Array,
    from_hair: Float32Array,
) -> Float32Array:
    """Labels whose skin goes on above the outline, as far as it is nearer to skin than to hair."""
    to_skin, to_hair = (np.linalg.norm(off, axis=2) for off in (from_skin, from_hair))
    alike = above & (oval == 0) & (to_skin < 1.4) & (to_skin < to_hair)
    _, parts = cv2.connectedComponents((alike | (oval > 0)).astype(np.uint8), connectivity=4)
    touching = np.unique(parts[(oval > 0) & (parts > 0)])
    forehead = alike & np.isin(parts, touching)
    out = labels.copy()
    out[forehead] = [1.0, 0.0, 0.0]
    return out


def _beard(
    points: FloatArray,
    smooth: Float32Array,
    skin: Float32Array,
    near: npt.NDArray[np.bool_],
    unit: float,
) -> Float32Array:
    """0 or 1 ``(H, W)``: what lies round the mouth in a colour that skin has at no lightness.

    A beard that counts as skin gives the whole face its strokes, and lips that are told from what
    lies round them the opposite colour.
    """
    height, width = skin.shape
    rows = np.arange(height)[:, None]
    nose = float(points[list(lm.NOSE_BASE), 1].mean())
    nothing = np.zeros((height, width), np.float32)
    known = smooth[(skin > 0.5) & (rows < nose)]
    low = near & (rows > nose)
    if len(known) < 200 or not low.any():
        return nothing
    known = known[np.argsort(known[:, 0], kind="stable")]
    middles = np.array([np.median(part, axis=0) for part in np.array_split(known, 12)])
    at = np.maximum.accumulate(middles[:, 0] + np.arange(12) * 1e-3)
    off = [smooth[..., i] - np.interp(smooth[..., 0], at, middles[:, i]) for i in (1, 2)]
    far = blur(np.hypot(*off).astype(np.float32), 0.015 * unit)
    lips = nothing.astype(np.uint8)
    cv2.fillPoly(lips, [np.round(points[list(lm.LIPS_OUTER), :2]).astype(np.int32)], (1,))
    low &= cv2.distanceTransform(1 - lips, cv2.DIST_L2, 5) > 0.03 * unit
    found = low & (far > _BEARD)
    oval = polygon(skin.shape, face_outline(points), 0.0)
    inner = low & (oval > 0)
    if (found & inner).sum() < _BEARD_SHARE * max(int(inner.sum()), 1):
        return nothing
    middle = np.median(smooth[found & inner], axis=0)  # a collar is no skin either
    like = np.linalg.norm((smooth - middle) / _BEARD_SPREAD, axis=2) < 1.8
    return np.asarray(found & like, np.float32)
