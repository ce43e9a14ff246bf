"""Landmarks of a drawing pulled onto what is drawn.

The detector was trained on photos and draws a cartoon's landmarks towards human proportions: big
eyes come out small, a square jaw round. Where the drawing shows clear shapes, they are measured.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .drawn_nose import fit_nose

_ORGANS = (
    (lm.RIGHT_EYE, lm.RIGHT_IRIS),
    (lm.LEFT_EYE, lm.LEFT_IRIS),
    (lm.RIGHT_BROW, ()),
    (lm.LEFT_BROW, ()),
)
_MAX_NOISE = 5.0
"""Unrest of the skin (CIELAB) above which shapes are too vague to measure."""
_MAX_PAINTED = 0.5
_MIN_FIT, _MAX_FIT = 0.5, 2.2
_LIFTS = np.linspace(0.0, 0.36, 19)
"""How far up, in distances between the eyes, a drawn brow is looked for."""
_BARE, _DRAWN = 0.3, 0.6
"""Drawn share of a brow's contour below which it lies on skin, above which on a brow."""


def refine_landmarks(
    points: FloatArray,
    feature: Float32Array,
    skinness: Float32Array,
    noise: float,
    painted: float = 0.0,
    light: Float32Array | None = None,
) -> FloatArray:
    """Fit eyes, brows, nose and face outline to the drawing.

    Args:
        points: ``(478, 3)`` detected landmarks.
        feature: ``(H, W)`` 0..1, differs from skin.
        skinness: ``(H, W)`` 0..1, has the colour of the skin around it.
        noise: Median unrest of the skin in CIELAB units.
        painted: 0 for clean drawings, 1 for paintings: those look like photos to the detector, and
            the shadows round a painted eye would be taken for the eye.
        light: ``(H, W)`` CIELAB lightness; None leaves the nose as it was found.

    Returns:
        ``(478, 3)``; unchanged where nothing clear was found.
    """
    if noise > _MAX_NOISE or painted > _MAX_PAINTED:
        return points
    out = points.copy()
    unit = float(np.linalg.norm(_center(points, lm.LEFT_EYE) - _center(points, lm.RIGHT_EYE)))
    for contour in (lm.RIGHT_BROW, lm.LEFT_BROW):
        out[list(contour), :2] = _lift_brow(points[list(contour), :2], feature, unit)
    points = out.copy()
    for contour, extra in _ORGANS:
        others = [p for p, _ in _ORGANS if p is not contour]
        box = _blob_box(points, contour, others, feature, unit)
        if box is not None:
            ids = [*contour, *extra]
            out[ids, :2] = _fit_box(points[ids, :2], points[list(contour), :2], box)
    if light is not None:
        out = fit_nose(out, light)
    oval = list(lm.FACE_OVAL)
    out[oval, :2] = _snap_oval(points[oval, :2], skinness, unit)
    return out


def _lift_brow(contour: FloatArray, feature: Float32Array, unit: float) -> FloatArray:
    """Move a brow that was found on bare skin up to the one that is drawn above it.

    Toon brows sit far above big eyes; the detector looks for them where a photo has them.
    """
    shares = []
    for lift in _LIFTS:
        canvas = np.zeros(feature.shape, np.uint8)
        moved = contour - np.array([0.0, lift * unit])
        cv2.fillPoly(canvas, [np.round(moved).astype(np.int32).reshape(-1, 1, 2)], (1,))
        shares.append(float((feature[canvas > 0] > 0.5).mean()) if canvas.any() else 0.0)
    best = int(np.argmax(shares))
    if shares[0] > _BARE or shares[best] < _DRAWN:
        return contour
    return np.asarray(contour - np.array([0.0, _LIFTS[best] * unit]))


def _center(points: FloatArray, contour: tuple[int, ...]) -> FloatArray:
    return np.asarray(points[list(contour), :2].mean(0))


def _blob_box(
    points: FloatArray,
    contour: tuple[int, ...],
    others: list[tuple[int, ...]],
    feature: Float32Array,
    unit: float,
) -> FloatArray | None:
    """Bounding box ``((x0, y0), (x1, y1))`` of what is drawn at an organ, or None if unclear."""
    own = points[list(contour), :2]
    canvas = np.zeros(feature.shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(own).astype(np.int32).reshape(-1, 1, 2)], (1,))
    near = cv2.distanceTransform(1 - canvas, cv2.DIST_L2, 5)
    rest = np.full(feature.shape, np.inf, np.float32)
    for other in others:
        taken = np.ones(feature.shape, np.uint8)
        cv2.fillPoly(taken, [np.round(points[list(other), :2]).astype(np.int32)], (0,))
        rest = np.minimum(rest, cv2.distanceTransform(taken, cv2.DIST_L2, 5))
    zone = (near < 0.3 * unit) & (near < rest)
    drawn = ((feature > 0.5) & zone).astype(np.uint8)
    count, labels = cv2.connectedComponents(drawn)
    touching = np.unique(labels[(canvas > 0) & (drawn > 0)])
    blob = np.isin(labels, touching[touching > 0])
    if count <= 1 or blob.sum() < 0.25 * canvas.sum():
        return None
    edge = blob & (near > 0.28 * unit)
    if edge.sum() > 0.04 * blob.sum():  # runs on beyond the window: a shadow, hair, glasses
        return None
    rows, columns = np.nonzero(blob)
    low = np.array([np.quantile(columns, 0.005), np.quantile(rows, 0.005)])
    high = np.array([np.quantile(columns, 0.995), np.quantile(rows, 0.995)]) + 1.0
    return np.asarray(np.stack([low, high]))


def _fit_box(points: FloatArray, contour: FloatArray, box: FloatArray) -> FloatArray:
    low, high = contour.min(0), contour.max(0)
    ratio = np.clip((box[1] - box[0]) / np.maximum(high - low, 1e-6), _MIN_FIT, _MAX_FIT)
    return np.asarray((points - (low + high) / 2) * ratio + box.mean(0))


def _snap_oval(oval: FloatArray, skinness: Float32Array, unit: float) -> FloatArray:
    """Move the outline's lower half to where the skin ends, as far as it ends all round."""
    center = oval.mean(0)
    steps = np.linspace(0.8, 1.35, 111)
    ratio = np.ones(len(oval))
    found = np.zeros(len(oval), bool)
    for i, point in enumerate(oval):
        if point[1] < center[1] - 0.1 * unit:  # fringe, hairline: no outline of the face
            continue
        line = center + (point - center) * steps[:, None]
        values = _along(skinness, line)
        start = values[steps < 0.88].mean()
        outside = np.flatnonzero((values < 0.4) & (steps > 0.86))
        if start > 0.7 and len(outside) and values[outside[0] : outside[0] + 8].mean() < 0.4:
            ratio[i], found[i] = steps[outside[0]], True
    if found.sum() < 6:
        return oval
    ratio = _steady(ratio, found)
    return np.asarray(center + (oval - center) * ratio[:, None])


def _along(image: Float32Array, points: FloatArray) -> npt.NDArray[np.float32]:
    spot = np.clip(np.round(points).astype(int), 0, np.array(image.shape[::-1]) - 1)
    return np.asarray(image[spot[:, 1], spot[:, 0]], np.float32)


def _steady(ratio: FloatArray, found: npt.NDArray[np.bool_]) -> FloatArray:
    """Drop lone jumps (ears, neck), bridge gaps, smooth round the contour."""
    count = len(ratio)
    middle = float(np.median(ratio[found]))
    sure = found & (np.abs(ratio - middle) < 0.12)
    if sure.sum() < 5:
        return np.ones(count)
    index = np.arange(count)
    # Beyond the found part the outline fades back to the detector's.
    anchor = np.flatnonzero(~found & (np.minimum(index, count - index) < count // 5))
    known = np.concatenate([np.flatnonzero(sure), anchor])
    values = np.concatenate([ratio[sure], np.ones(len(anchor))])
    order = np.argsort(known)
    bridged = np.interp(index, known[order], values[order], period=count)
    padded = np.concatenate([bridged[-4:], bridged, bridged[:4]])
    return np.convolve(padded, np.array([1, 2, 3, 2, 1]) / 9.0, mode="same")[4:-4]
