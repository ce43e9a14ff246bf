"""The exemplar as a source of strokes: its size, its regions, its places on the face."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, sample, to_lab
from .exemplar import Exemplar
from .shape import COMPONENTS
from .strokes import Canvas, GuideWeights, StrokeSource, prepare_source, split_strokes

STROKE_REACH = 0.035
"""Strokes are narrower than about this share of the face's width."""
STROKE_CONTRAST = 16.0
"""CIELAB difference above which an edge in a painting is form, not a stroke."""
LOCK_CONTRAST = 50.0
"""The same in hair."""
_CALM = 0.025
_CLEARANCE = 0.035
_GRID = 12
_GAP = 16
"""Pixels between the exemplar and its hair turned."""


def exemplar_source(
    exemplar: Exemplar,
    targets: FloatArray | None,
    face_pixels: float,
    contrast: float = STROKE_CONTRAST,
    weights: GuideWeights | None = None,
    turned_hair: bool = False,
) -> StrokeSource:
    """Bring the exemplar to the size of the frames and describe its strokes.

    Args:
        exemplar: The picture taken apart.
        targets: ``(478, 3)`` stylized landmarks in the face frame; None for a picture without a
            face, whose strokes may then lie anywhere.
        face_pixels: Width that the exemplar's face is to have, in pixels.
        contrast: See :func:`split_strokes`.
        weights: See :class:`GuideWeights`.
        turned_hair: Offer the hair's strokes turned by a quarter too: hair that is swept back in
            the exemplar falls down in the person.
    """
    height, width = exemplar.image.shape[:2]
    scale = min(1.0, face_pixels / max(exemplar.face_width, 1.0))
    size = (max(32, round(width * scale)), max(32, round(height * scale)))
    image = cv2.resize(exemplar.image, size, interpolation=cv2.INTER_AREA)
    lab = to_lab(np.asarray(image, np.uint8))
    reach = max(1.5, STROKE_REACH * exemplar.face_width * size[0] / width)
    labels = np.asarray(cv2.resize(exemplar.labels, size, interpolation=cv2.INTER_AREA), np.float32)
    labels = _calm_labels(labels, _CALM * exemplar.face_width * size[0] / width)
    smooth, strokes = split_strokes(lab, reach, contrast)
    if contrast < LOCK_CONTRAST:  # light and dark locks are the painter's hand, not form
        hair = labels[..., 1:2]
        smooth = smooth + hair * (split_strokes(lab, reach, LOCK_CONTRAST)[0] - smooth)
        strokes = np.asarray(lab - smooth, np.float32)
    inside = labels.sum(2) > 0.5
    place = np.zeros((size[1], size[0], 2), np.float32)
    if targets is not None:
        place = _places(exemplar, targets, size)
        inside &= ~_organs(exemplar, size)
    canvas = Canvas(smooth, labels, place, inside, np.ascontiguousarray(lab[..., 0]))
    if turned_hair:
        canvas, strokes = with_turned_hair(canvas, strokes)
    return prepare_source(canvas, strokes, weights or GuideWeights())


def with_turned_hair(canvas: Canvas, strokes: Float32Array) -> tuple[Canvas, Float32Array]:
    """The canvas and its strokes, and beside them its hair turned by a quarter.

    Args:
        canvas: The exemplar, with a grain.
        strokes: ``(H, W, 3)`` to go with it.
    """
    hair = canvas.inside & (canvas.labels[..., 1] > 0.5)
    if not hair.any():
        return canvas, strokes
    rows, columns = np.nonzero(hair)
    window = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))

    def beside(image: npt.NDArray[Any], turned: npt.NDArray[Any]) -> npt.NDArray[Any]:
        part = np.rot90(turned[window])
        height = max(len(image), len(part))
        rest = [(0, 0)] * (image.ndim - 2)
        how: Literal["constant", "edge"] = "constant" if image.dtype == bool else "edge"
        whole = np.pad(image, [(0, height - len(image)), (0, _GAP), *rest], how)
        return np.concatenate(
            [whole, np.pad(part, [(0, height - len(part)), (0, 0), *rest], how)], 1
        )

    assert canvas.grain is not None
    both = Canvas(
        beside(canvas.lab, canvas.lab),
        beside(canvas.labels, canvas.labels),
        beside(canvas.place, canvas.place),
        beside(canvas.inside, hair),
        beside(canvas.grain, canvas.grain),
    )
    return both, beside(strokes, strokes)


def _calm_labels(labels: Float32Array, width: float) -> Float32Array:
    """Labels by majority within ``width`` pixels: gilt locks before a dark ground are all hair."""
    share = blur(labels, width) ** 3
    total = share.sum(2, keepdims=True)
    return np.asarray(share / np.maximum(total, 1e-6) * (total > 1e-3), np.float32)


def _organs(exemplar: Exemplar, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Eyes, brows, lips, nostrils and a little round them: no strokes for any other place."""
    factor = size[0] / exemplar.image.shape[1]
    canvas = np.zeros((size[1], size[0]), np.uint8)
    parts = (*lm.ORGANS, lm.NOSE_BASE)
    for part in parts:
        points = np.round(exemplar.points[list(part), :2] * factor).astype(np.int32)
        cv2.fillConvexPoly(canvas, cv2.convexHull(points.reshape(-1, 1, 2)), (255,))
    near = cv2.distanceTransform(255 - canvas, cv2.DIST_L2, 5)
    return np.asarray(near < _CLEARANCE * exemplar.face_width * factor)


def _places(exemplar: Exemplar, targets: FloatArray, size: tuple[int, int]) -> Float32Array:
    """Face-frame x and y ``(H, W, 2)`` of every pixel, by a smoothing thin-plate spline."""
    ids = sorted({i for group in COMPONENTS.values() for i in group})
    factor = size[0] / exemplar.image.shape[1]
    points = exemplar.points[ids, :2] * factor
    spline = RBFInterpolator(points, targets[ids, :2], kernel="thin_plate_spline", smoothing=1.0)
    x = np.arange(0, size[0] + _GRID, _GRID, dtype=float)
    y = np.arange(0, size[1] + _GRID, _GRID, dtype=float)
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    coarse = spline(grid.reshape(-1, 2)).reshape(len(y), len(x), 2).astype(np.float32)
    at = np.stack(np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5), axis=-1)
    return sample(np.clip(coarse, -6, 6), at / _GRID + 0.5)
