"""The sRGB curve (IEC 61966-2-1) on arrays of any shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .scene import FloatArray


def to_linear(color: npt.NDArray[Any]) -> FloatArray:
    """Linear light of sRGB values 0..1; values below 0 are taken as 0."""
    c = np.maximum(np.asarray(color, np.float64), 0.0)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))


def to_srgb(linear: npt.NDArray[Any]) -> FloatArray:
    """sRGB values 0..1 of linear light, clipped: the inverse of :func:`to_linear`."""
    c = np.clip(np.asarray(linear, np.float64), 0.0, 1.0)
    return np.asarray(np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055))
