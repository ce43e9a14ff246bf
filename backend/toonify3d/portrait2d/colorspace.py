"""Small image operations shared by the stylizer's parts: CIELAB, filling, filtering, sampling."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Float32Array


def to_lab(image: npt.NDArray[Any]) -> Float32Array:
    """RGB (uint8, or float 0..255) ``(..., 3)`` to CIELAB, L in 0..100."""
    rgb = np.asarray(image, np.float32) / 255.0
    shape = rgb.shape
    lab = cv2.cvtColor(np.ascontiguousarray(rgb.reshape(-1, 1, 3)), cv2.COLOR_RGB2LAB)
    return np.asarray(lab.reshape(shape), np.float32)


def to_rgb(lab: npt.NDArray[Any]) -> ByteImage:
    """CIELAB ``(..., 3)`` to RGB uint8."""
    flat = np.ascontiguousarray(np.asarray(lab, np.float32).reshape(-1, 1, 3))
    rgb = cv2.cvtColor(flat, cv2.COLOR_LAB2RGB).reshape(lab.shape)
    return np.asarray(np.clip(rgb * 255.0 + 0.5, 0, 255), np.uint8)


def fill_holes(image: Float32Array, weight: Float32Array) -> Float32Array:
    """Extend ``(H, W[, C])`` smoothly from where ``weight`` ``(H, W)`` is 1 to where it is 0.

    Push-pull: averages go up a pyramid of weights, holes are filled from the coarser level.
    """
    values = image if image.ndim == 3 else image[..., None]
    filled = _push_pull(values.astype(np.float32), np.clip(weight, 0, 1).astype(np.float32))
    return filled if image.ndim == 3 else filled[..., 0]


def _push_pull(values: Float32Array, weight: Float32Array) -> Float32Array:
    height, width = weight.shape
    if min(height, width) <= 2:
        total = weight.sum()
        mean = (values * weight[..., None]).sum((0, 1)) / max(float(total), 1e-6)
        return np.asarray(np.broadcast_to(mean, values.shape), np.float32).copy()
    size = ((width + 1) // 2, (height + 1) // 2)
    small_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    small = _resize(values * weight[..., None], size, cv2.INTER_AREA)
    small = small / np.maximum(small_weight, 1e-6)[..., None]
    coarse = _push_pull(small, np.minimum(1.0, small_weight * 2).astype(np.float32))
    up = _resize(coarse, (width, height), cv2.INTER_LINEAR)
    return np.asarray(values * weight[..., None] + up * (1 - weight[..., None]), np.float32)


def _resize(values: Float32Array, size: tuple[int, int], how: int) -> Float32Array:
    out = cv2.resize(values, size, interpolation=how)
    return np.asarray(out if out.ndim == 3 else out[..., None], np.float32)


def smoothstep(values: npt.ArrayLike, low: float, high: float) -> Float32Array:
    """0 below ``low``, 1 above ``high``, a cubic between (``low > high`` turns it round)."""
    t = np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def smooth_edges(lab: Float32Array, sigma_color: float, sigma_space: float) -> Float32Array:
    """Edge-preserving smoothing (bilateral filter) of a CIELAB image or a single channel."""
    return np.asarray(
        cv2.bilateralFilter(np.asarray(lab, np.float32), 0, sigma_color, sigma_space), np.float32
    )


def blur(image: npt.NDArray[Any], sigma: float) -> Float32Array:
    """Gaussian blur that keeps the array's number of dimensions (wide ones at lower resolution)."""
    if sigma > 8 and min(image.shape[:2]) > 64:
        factor = 2 ** int(np.log2(sigma / 4))
        height, width = image.shape[:2]
        size = (max(8, width // factor), max(8, height // factor))
        small = cv2.resize(np.asarray(image, np.float32), size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.asarray(
        cv2.GaussianBlur(np.asarray(image, np.float32), (0, 0), max(sigma, 1e-3)), np.float32
    )


def sample(image: npt.NDArray[Any], points: npt.NDArray[Any]) -> Float32Array:
    """Bilinear values at image points ``(..., 2)`` (pixel centres at half integers)."""
    source = np.asarray(image, np.float32)
    flat = np.asarray(points, np.float32).reshape(-1, 2) - 0.5
    limit = 16384  # cv2.remap takes at most 32767 rows
    rows = -(-len(flat) // limit)
    padded = np.zeros((rows * limit, 2), np.float32)
    padded[: len(flat)] = flat
    grid = padded.reshape(rows, limit, 2)
    out = cv2.remap(
        source, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    channels = source.shape[2:]
    values = out.reshape(rows * limit, *channels)[: len(flat)]
    return np.asarray(values.reshape(*points.shape[:-1], *channels), np.float32)


def clean_foreground(image: ByteImage, mask: ByteImage, inset: float = 1.5) -> Float32Array:
    """The photo with its background replaced by the nearest person's colours.

    Edge pixels mix person and background; without this, warping and smoothing draw a halo.
    """
    inside = cv2.distanceTransform((mask > 200).astype(np.uint8), cv2.DIST_L2, 5)
    weight = smoothstep(inside, 0.5 * inset, inset + 0.5)
    if weight.max() < 0.5:
        weight = (mask > 127).astype(np.float32)
    return fill_holes(np.asarray(image, np.float32), weight)


def signed_distance(contour: npt.NDArray[Any], height: int, width: int) -> Float32Array:
    """Pixels to a closed contour of image points ``(n, 2)``, positive inside, ``(H, W)``."""
    canvas = np.zeros((height, width), np.uint8)
    points = np.round((contour - 0.5) * 16).astype(np.int32).reshape(-1, 1, 2)
    cv2.fillPoly(canvas, [points], (255,), shift=4)
    inside = np.asarray(cv2.distanceTransform(canvas, cv2.DIST_L2, 5), np.float32)
    outside = np.asarray(cv2.distanceTransform(255 - canvas, cv2.DIST_L2, 5), np.float32)
    return inside - outside


def kmeans(
    values: npt.NDArray[Any], count: int, sample_size: int = 20_000
) -> tuple[npt.NDArray[np.int64], Float32Array]:
    """Deterministic k-means of ``(n, d)``: labels ``(n,)`` and centres ``(k, d)``."""
    points = np.ascontiguousarray(values, np.float32)
    part = points[:: max(1, len(points) // sample_size)]
    cv2.setRNGSeed(7)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.1)
    _, _, centers = cv2.kmeans(
        part, min(count, len(part)), np.empty(0, np.int32), criteria, 2, cv2.KMEANS_PP_CENTERS
    )
    distance = ((points[:, None] - centers[None]) ** 2).sum(2)
    return distance.argmin(1), np.asarray(centers, np.float32)
