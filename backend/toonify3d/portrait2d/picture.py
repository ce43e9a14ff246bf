"""Reading a picture file that a user chose, whatever it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from ..scene import ByteImage

MIN_SIDE = 64
MAX_PIXELS = 200_000_000
WORKING_SIDE = 640


def read_picture(path: Path) -> tuple[ByteImage, ByteImage | None]:
    """Read any raster picture as upright RGB.

    Args:
        path: PNG, JPEG (gray, RGB or CMYK), WebP, TIFF, BMP and what else Pillow reads.

    Returns:
        RGB ``(H, W, 3)`` and alpha ``(H, W)``, or None where the picture has no transparency.

    Raises:
        InputError: Not there, not a picture, a vector drawing, an animation, far too large.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give one picture.", "exemplar_missing")
    if not path.is_file():
        raise InputError(f"The picture {path} does not exist.", "exemplar_missing")
    head = path.read_bytes()[:512].lstrip().lower()
    if path.suffix.lower() == ".svg" or head.startswith(b"<svg") or b"<svg" in head:
        raise InputError(
            f"{path.name} is a vector drawing (SVG): export it as PNG first.", "exemplar_format"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return _decode(picture, path)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path.name} is too large: scale it to at most 12000 pixels a side.",
            "exemplar_too_large",
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(_unreadable(path), "exemplar_unreadable") from error
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow reports a truncated or lying file by any of these.
        raise InputError(_unreadable(path), "exemplar_unreadable") from error


def longest_side(path: Path) -> int:
    """Pixels of the file's longer side (:func:`read_picture` decodes large JPEGs smaller)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            return max(picture.size)


def _unreadable(path: Path) -> str:
    return f"{path.name} cannot be read as a picture: save it again as PNG or JPEG."


def _decode(picture: Image.Image, path: Path) -> tuple[ByteImage, ByteImage | None]:
    if getattr(picture, "n_frames", 1) > 1:
        raise InputError(
            f"{path.name} is an animation: save the frame you want as PNG.", "exemplar_format"
        )
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{path.name} is too large ({picture.width} x {picture.height}): "
            "scale it to at most 12000 pixels a side.",
            "exemplar_too_large",
        )
    picture.draft("RGB", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # JPEGs decode small at once
    upright = ImageOps.exif_transpose(picture) or picture
    if upright.mode in ("I", "I;16", "I;16B", "F"):
        return _from_high_range(upright), None
    transparent = "A" in upright.getbands() or "transparency" in upright.info
    if not transparent:
        return np.asarray(upright.convert("RGB"), np.uint8), None
    rgba = np.asarray(upright.convert("RGBA"), np.uint8)
    return rgba[..., :3].copy(), rgba[..., 3].copy()


def _from_high_range(picture: Image.Image) -> ByteImage:
    values = np.asarray(picture, np.float64)
    low, high = values.min(), values.max()
    gray = (255 * (values - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
