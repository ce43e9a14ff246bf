"""The width of a drawn nose.

The detector was trained on photos: on a toon whose nose is a small knob or a line it lays nostrils
of human width over bare cheeks (measured: 0.44 to 0.60 eye distances where 0.23 to 0.38 are drawn).
What is drawn stands out from the light round it, by a shadow or by a line.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, sample

_STEPS = 100
"""Samples per eye distance."""
_HALF = 0.42
_BROAD, _FINE = 0.2, 0.015
"""Eye distances over which light counts as the cheeks', and over which lines are smoothed."""
_LEAST_CONTRAST = 2.0
"""CIELAB: fainter marks are no nose."""
_SHARE = 0.35
_NARROWEST, _WIDEST = 0.45, 1.15
_ABOVE, _BELOW = 0.3, 0.12
"""Rows round the nose's base in which its width counts, eye distances."""


def fit_nose(points: FloatArray, light: Float32Array) -> FloatArray:
    """Pull the nostrils and wings onto the drawn nose.

    Args:
        points: ``(478, 3)`` landmarks of a clean drawing.
        light: ``(H, W)`` its CIELAB lightness.

    Returns:
        ``(478, 3)``; where no nose is drawn at all, it is as narrow as a drawn one may be.
    """
    right, left = (points[list(ids), :2].mean(0) for ids in (lm.RIGHT_EYE, lm.LEFT_EYE))
    unit = float(np.linalg.norm(left - right))
    axes = np.stack([left - right, [right[1] - left[1], left[0] - right[0]]]) / unit  # x, down
    base = points[list(lm.NOSE_BASE), :2]
    local = (base - base.mean(0)) @ axes.T / unit
    span = _drawn_span(light, points, axes, unit)
    factor = _NARROWEST
    if span is not None:
        factor = float(np.clip(np.ptp(span) / np.ptp(local[:, 0]), _NARROWEST, _WIDEST))
    local[:, 0] *= factor
    out = points.copy()
    out[list(lm.NOSE_BASE), :2] = base.mean(0) + unit * local @ axes
    return out


def _drawn_span(
    light: Float32Array, points: FloatArray, axes: FloatArray, unit: float
) -> FloatArray | None:
    """Left and right end of what is drawn between eyes and lips, or None; eye distances."""
    center = points[list(lm.NOSE_BASE), :2].mean(0)

    def down(ids: tuple[int, ...]) -> FloatArray:
        return np.asarray((points[list(ids), :2] - center) @ axes[1] / unit)

    top = max(float(down(lm.RIGHT_EYE).max()), float(down(lm.LEFT_EYE).max())) + 0.04
    top = min(max(top, -_ABOVE), -0.1)
    low = max(min(float(down(lm.LIPS_OUTER).min()) - 0.05, _BELOW), 0.05)
    across = np.arange(-_HALF, _HALF, 1 / _STEPS)
    columns, rows = np.meshgrid(across, np.arange(top, low, 1 / _STEPS))
    at = center + unit * (columns[..., None] * axes[0] + rows[..., None] * axes[1])
    values = sample(blur(light, max(0.3, 0.5 * unit / _STEPS)), at)
    broad, fine = (
        cv2.GaussianBlur(values, (0, 0), size * _STEPS, borderType=cv2.BORDER_REFLECT)
        for size in (_BROAD, _FINE)
    )
    contrast = np.abs(fine - broad)
    peak = float(np.quantile(contrast[:, np.abs(across) < 0.2], 0.98))
    if peak < _LEAST_CONTRAST:
        return None
    drawn = (contrast > max(_LEAST_CONTRAST, _SHARE * peak)).astype(np.uint8)
    _, parts = cv2.connectedComponents(cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((3, 3))))
    own = np.unique(parts[:, np.abs(across) < 0.12])  # freckles lie beside it
    columns_of = np.nonzero(np.isin(parts, own[own > 0]))[1]
    if not len(columns_of):
        return None
    return np.asarray(np.quantile(across[columns_of], [0.02, 0.98]))
