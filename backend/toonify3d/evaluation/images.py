"""Differences between images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..scene import ByteImage


def foreground_psnr(
    image: ByteImage, reference: ByteImage, mask: npt.NDArray[np.generic] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB over the pixels of a mask.

    Args:
        image: RGB ``(H, W, 3)``.
        reference: The same size.
        mask: ``(H, W)``, foreground where above half of its type's range (booleans: True); None
            for all pixels.

    Returns:
        ``inf`` for equal images.

    Raises:
        ValueError: Sizes differ, or the mask is empty.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image sizes differ: {image.shape} and {reference.shape}")
    difference = image.astype(np.float64) - reference.astype(np.float64)
    if mask is not None:
        chosen = foreground(mask)
        if chosen.shape != image.shape[:2]:
            raise ValueError(f"mask size {chosen.shape} is not the image's {image.shape[:2]}")
        if not chosen.any():
            raise ValueError("the mask is empty")
        difference = difference[chosen]
    error = float((difference**2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def mask_iou(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float:
    """Intersection over union of two masks ``(H, W)``; 1.0 when both are empty.

    Raises:
        ValueError: Sizes differ.
    """
    a, b = foreground(first), foreground(second)
    if a.shape != b.shape:
        raise ValueError(f"mask sizes differ: {a.shape} and {b.shape}")
    union = int((a | b).sum())
    return 1.0 if union == 0 else float((a & b).sum() / union)


def foreground(mask: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """A mask ``(H, W)`` of any type as booleans: above half of the type's range."""
    if mask.dtype == np.bool_:
        return np.asarray(mask, dtype=np.bool_)
    half = np.iinfo(mask.dtype.name).max / 2 if np.issubdtype(mask.dtype, np.integer) else 0.5
    return np.asarray(mask.astype(np.float64) > half)
