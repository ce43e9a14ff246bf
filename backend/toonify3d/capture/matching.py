"""Matching of SIFT features between two small pictures, for the looks before and after COLMAP."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, FloatArray

Features = tuple[FloatArray, npt.NDArray[np.float32]]
"""Points and descriptors."""


def sift_features(gray: ByteImage, count: int, contrast: float = 0.015) -> Features:
    """Image points ``(N, 2)`` (pixel centres at halves, see Camera) and descriptors ``(N, 128)``.

    Args:
        gray: ``(H, W)``.
        count: At most about so many, the strongest.
        contrast: OpenCV's contrast threshold.
    """
    sift: Any = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=count, contrastThreshold=contrast
    )
    keys, descriptors = sift.detectAndCompute(gray, None)
    points = np.array([key.pt for key in keys], np.float64).reshape(-1, 2) + 0.5
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    return points, descriptors


class RecentFeatures:
    """SIFT features of pictures, those of the last two remembered: neighbours share a picture.

    Args:
        count: See :func:`sift_features`.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._recent: list[tuple[ByteImage, Features]] = []

    def __call__(self, gray: ByteImage) -> Features:
        """See :func:`sift_features`; a picture is known again by being the same array."""
        for known, features in self._recent:
            if known is gray:
                return features
        self._recent = [*self._recent[-1:], (gray, sift_features(gray, self._count))]
        return self._recent[-1][1]


def mutual_matches(
    one: npt.NDArray[np.float32], two: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Mutual nearest neighbours that pass Lowe's ratio test, ``(N, 2)``."""
    if min(len(one), len(two)) < 2:
        return np.zeros((0, 2), np.int64)
    # Squared distances of descriptors, by one matrix product.
    apart = (one**2).sum(1)[:, None] + (two**2).sum(1)[None] - 2.0 * (one @ two.T)
    best = apart.argmin(1)
    rows = np.arange(len(apart))
    nearest = apart[rows, best]
    apart[rows, best] = np.inf
    second = apart.min(1)
    apart[rows, best] = nearest
    mutual = apart.argmin(0)[best] == rows
    good = mutual & (nearest < 0.8**2 * second)
    return np.asarray(np.stack([rows[good], best[good]], axis=1), np.int64)
