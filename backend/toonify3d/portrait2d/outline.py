"""The outline of a stylized frame: the bent surface's, where it and the photo's mask agree.

A frame's own mask is nearly binary, jagged, and wrong by some pixels wherever the background looks
like the person; the surface was learned from all masks together and its outline can be cast as
finely as wanted. The mask decides only where they disagree by more than some pixels: clothes below
the surface's end, hair that the surface lacks, a hand in front.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Float32Array, FloatArray
from .colorspace import smoothstep

Hits = Callable[[FloatArray], npt.NDArray[np.bool_]]
_REACH = 0.019
"""Share of the picture's width by which mask and surface may differ without a reason."""
_THIN = 0.006
"""Share of the picture's width: thinner bits that stick out of a mask belong to the background."""
_FINE = 4
"""Rays per pixel and axis along the outline."""


def outline(hit: npt.NDArray[np.bool_], mask: ByteImage, hits: Hits) -> ByteImage:
    """Anti-aliased mask ``(H, W)`` of the bent person.

    Args:
        hit: ``(H, W)`` the ray through the pixel's centre meets the bent surface.
        mask: ``(H, W)`` the frame's mask, bent.
        hits: Whether rays through image points ``(N, 2)`` meet the bent surface.
    """
    if not hit.any():
        return mask
    reach = max(4.0, _REACH * mask.shape[1])
    smooth = without_splinters(mask)
    person = smooth > 127
    more = _deep(person & ~hit, _distance(~hit), reach)
    less = _deep(~person & hit, _distance(hit), reach)
    cover = _coverage(hit, hits)
    soft = cv2.GaussianBlur(smooth, (0, 0), 0.8).astype(np.float32) / 255.0
    cover = cover + np.maximum(soft - cover, 0.0) * more
    cover = cover + np.minimum(soft - cover, 0.0) * less
    return np.clip(cover * 255 + 0.5, 0, 255).astype(np.uint8)


def without_splinters(mask: ByteImage) -> ByteImage:
    """The mask ``(H, W)`` without thin bits that stick out of it, its soft edge kept."""
    return opened(mask, _THIN * mask.shape[1])


def opened(mask: ByteImage, radius: float) -> ByteImage:
    """The mask ``(H, W)`` without what is narrower than twice ``radius`` (1 at least) pixels."""
    size = 2 * max(1, round(radius)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc), np.uint8)


def _distance(inside: npt.NDArray[np.bool_]) -> Float32Array:
    """Pixels from each pixel of ``inside`` to its end."""
    return np.asarray(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _deep(differing: npt.NDArray[np.bool_], distance: Float32Array, reach: float) -> Float32Array:
    """0..1: near a place where mask and surface differ by more than ``reach`` pixels."""
    far = differing & (distance > reach)
    if not far.any():
        return np.zeros(differing.shape, np.float32)
    near = cv2.distanceTransform((~far).astype(np.uint8), cv2.DIST_L2, 5)
    return smoothstep(near, 2.0 * reach, reach)


def _coverage(hit: npt.NDArray[np.bool_], hits: Hits) -> Float32Array:
    """Share of every pixel that the surface covers: rays per pixel along the outline only."""
    cover = hit.astype(np.float32)
    box = np.ones((3, 3), np.uint8)
    grown = cv2.dilate(hit.astype(np.uint8), box) > 0
    shrunk = cv2.erode(hit.astype(np.uint8), box, borderValue=(1,)) > 0
    rows, columns = np.nonzero(grown & ~shrunk)
    steps = (np.arange(_FINE) + 0.5) / _FINE
    inner = np.stack(np.meshgrid(steps, steps), -1).reshape(1, -1, 2)
    points = np.stack([columns, rows], 1)[:, None].astype(float) + inner
    cover[rows, columns] = hits(points.reshape(-1, 2)).reshape(len(rows), -1).mean(1)
    return cover
