"""The posterize filter kappa of eq. 11: every pixel takes the nearest colour of a palette.

The paper does not say what its filter is; here it is k-means in CIELAB over the exemplar and the
portraits together, so that it is right both for an exemplar that the portraits follow closely and
for a folder of portraits that only share its mood.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..scene import ByteImage, Float32Array, StylizedView

# Pixels taken from the exemplar and from the portraits for the clustering.
SAMPLES = 6000


def to_lab(colors: ByteImage) -> Float32Array:
    """CIELAB ``(N, 3)`` (L 0..100) of sRGB bytes ``(N, 3)``."""
    scaled = colors.reshape(-1, 1, 3).astype(np.float32) / 255.0
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB).reshape(-1, 3), dtype=np.float32)


def cluster_colors(colors: ByteImage, count: int, seed: int = 0) -> ByteImage:
    """The ``count`` main colours ``(K, 3)`` (fewer if there are fewer), by k-means in CIELAB.

    Args:
        colors: ``(N, 3)`` sRGB bytes.
        count: Most colours wanted.
        seed: k-means++ starts at random.
    """
    distinct = np.unique(colors, axis=0)
    if len(distinct) <= count:
        return np.asarray(distinct, dtype=np.uint8)
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.1)
    _, _, centers = cv2.kmeans(
        to_lab(colors), count, np.empty(0), criteria, 2, cv2.KMEANS_PP_CENTERS
    )
    rgb = cv2.cvtColor(centers.reshape(-1, 1, 3), cv2.COLOR_LAB2RGB).reshape(-1, 3)
    return np.asarray((rgb * 255.0).round().clip(0, 255), dtype=np.uint8)


def style_palette(
    exemplar: ByteImage, views: list[StylizedView], count: int, seed: int = 0
) -> ByteImage:
    """Palette ``(K, 3)`` of the exemplar (any RGB array) and of the portraits' foregrounds."""
    generator = np.random.default_rng(seed)
    portraits = np.concatenate([view.image[view.mask > 127] for view in views])
    parts = [_draw(part, generator) for part in (exemplar.reshape(-1, 3), portraits) if len(part)]
    return cluster_colors(np.concatenate(parts), count, seed)


def _draw(colors: ByteImage, generator: np.random.Generator) -> ByteImage:
    if len(colors) <= SAMPLES:
        return colors
    rows: npt.NDArray[np.int64] = generator.integers(0, len(colors), SAMPLES)
    return np.asarray(colors[rows], dtype=np.uint8)


class Posterize:
    """kappa: colours to the nearest of a palette, nearness measured in CIELAB.

    Args:
        palette: ``(K, 3)`` sRGB bytes.
    """

    def __init__(self, palette: ByteImage) -> None:
        self.palette = np.asarray(palette, dtype=np.uint8)
        self._colors = torch.tensor(self.palette).float() / 255.0
        self._lab = lab_of(self._colors)

    def __call__(self, colors: Tensor) -> Tensor:
        """``(N, 3)`` sRGB values in 0..1 to their palette colours, same shape; no gradient.

        Works on the colours' device; only the first call on a device copies the palette there.
        """
        with torch.no_grad():
            if self._lab.device != colors.device:
                self._lab, self._colors = (
                    part.to(colors.device) for part in (self._lab, self._colors)
                )
            lab = lab_of((colors.clamp(0.0, 1.0) * 255.0).round() / 255.0)
            distance = (lab[:, None] - self._lab).square().sum(2)
            return self._colors[distance.argmin(1)]


def lab_of(colors: Tensor) -> Tensor:
    """CIELAB ``(N, 3)`` (L 0..100, white D65) of sRGB values in 0..1, on their device.

    IEC 61966-2-1 and CIE 15; the same as OpenCV's up to its tables.
    """
    linear = torch.where(
        colors <= 0.04045, colors / 12.92, ((colors.clamp(min=0.0) + 0.055) / 1.055) ** 2.4
    )
    red, green, blue = linear.unbind(1)
    x = (0.412453 * red + 0.357580 * green + 0.180423 * blue) / 0.950456
    y = 0.212671 * red + 0.715160 * green + 0.072169 * blue
    z = (0.019334 * red + 0.119193 * green + 0.950227 * blue) / 1.088754
    fx, fy, fz = (
        torch.where(
            part > 216.0 / 24389.0, part ** (1.0 / 3.0), part * (841.0 / 108.0) + 4.0 / 29.0
        )
        for part in (x, y, z)
    )
    return torch.stack([116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)], dim=1)
