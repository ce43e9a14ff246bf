"""Reading a picture file that a user chose, whatever it is."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from ..scene import ByteImage

MIN_SIDE = 64
MAX_PIXELS = 200_000_000
"""Larger pictures are refused; docs/exemplars.md promises this figure."""
WORKING_SIDE = 640
_LARGE = 40_000_000
"""Pixels from which on a picture is reduced before it is converted: at 200 megapixels every copy of
it takes 600 MB and more."""
_pillow_limit = threading.Lock()


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
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if path.suffix.lower() == ".svg" or head.startswith(b"<svg") or b"<svg" in head:
        raise InputError(
            f"{path.name} is a vector drawing (SVG): export it as PNG first.", "exemplar_format"
        )
    try:
        with _opened(path) as picture:
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
    with _opened(path) as picture:
        return max(picture.size)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file opened with :data:`MAX_PIXELS` in place of Pillow's own limit (179 megapixels).

    Pillow keeps its limit in a module variable and looks at it while it opens a file (the size is
    in the header; nothing is decoded yet), so it is another one for that moment only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with _pillow_limit:
            before = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow raises from twice this on
            try:
                picture = Image.open(path)
            finally:
                Image.MAX_IMAGE_PIXELS = before
        with picture:
            yield picture


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
    ImageOps.exif_transpose(picture, in_place=True)
    factor = _reduction(picture)
    if picture.mode in ("I", "I;16", "I;16B", "F"):
        return _from_high_range(picture, factor), None
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if factor > 1:
        if transparent or picture.mode in ("1", "P"):  # palette entries have no mean
            picture = picture.convert("RGBA" if transparent else "RGB")
        picture = picture.reduce(factor)
    if not transparent:
        return np.asarray(picture.convert("RGB"), np.uint8), None
    rgba = np.asarray(picture.convert("RGBA"), np.uint8)
    return rgba[..., :3].copy(), rgba[..., 3].copy()


def _reduction(picture: Image.Image) -> int:
    """Whole factor by which a very large picture may shrink and still be more than is needed."""
    if picture.width * picture.height < _LARGE:
        return 1
    return max(1, min(picture.size) // (2 * WORKING_SIDE))


def _from_high_range(picture: Image.Image, factor: int) -> ByteImage:
    raw = np.asarray(picture)
    if factor > 1:
        size = (raw.shape[1] // factor, raw.shape[0] // factor)
        narrow = raw.astype(np.float32) if raw.dtype == np.int32 else raw
        raw = cv2.resize(narrow, size, interpolation=cv2.INTER_AREA)
    values = raw.astype(np.float64)
    low, high = values.min(), values.max()
    gray = (255 * (values - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
