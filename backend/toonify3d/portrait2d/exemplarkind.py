"""Which pixels of the exemplar are skin, hair and the rest; and what kind of picture it is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, kmeans

LOOKS = ("auto", "toon", "cel", "paint", "hatch", "ink", "colour")
"""Values of the setting ``look``."""


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
    """
    height, width = skin.shape
    rows = np.arange(height)[:, None]
    oval = points[list(lm.FACE_OVAL), :2]
    unit = float(np.ptp(oval[:, 0]))
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.round(oval).astype(np.int32)], (1,))
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
    out[..., 2] = 1 - out[..., 0] - out[..., 1]
    soft = blur(np.clip(out, 0, 1), 0.01 * unit)
    return np.asarray(soft / np.maximum(soft.sum(2, keepdims=True), 1e-6), np.float32)
