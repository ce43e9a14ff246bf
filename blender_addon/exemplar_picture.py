# SPDX-License-Identifier: GPL-3.0-or-later
"""An exemplar's pixels as the backend sees them: turned upright, transparency over white."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from .orientation import exif_orientation

MAX_SHOWN = 2048
"""Longer sides are shown smaller; the points are of the whole file all the same."""


class PictureError(Exception):
    """The file cannot be shown: one sentence."""


@dataclass(frozen=True)
class Picture:
    """A picture to look at.

    Attributes:
        pixels: ``(h, w, 3)`` float32 sRGB values in 0..1, the top row first.
        size: Width and height of the upright file in pixels.
        file_bytes: Length of the file.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    file_bytes: int


def load_picture(path: Path) -> Picture:
    """Read a picture; nothing is left in the .blend.

    Raises:
        PictureError: There is no such file, or it is no picture.
    """
    if not path.is_file():
        raise PictureError(f"The exemplar does not exist: {path}")
    unreadable = f"{path.name} cannot be read as a picture: save it again as PNG or JPEG"
    try:
        image = bpy.data.images.load(str(path), check_existing=False)
    except RuntimeError as error:
        raise PictureError(unreadable) from error
    try:
        # The file's own values, of 16 bit files too; said before the pixels are read.
        image.colorspace_settings.is_data = True
        width, height = image.size
        if width < 1 or height < 1:
            raise PictureError(unreadable)
        stored = _pixels(image)
    finally:
        bpy.data.images.remove(image)
    orientation = exif_orientation(path)
    size = (height, width) if orientation in _SIDEWAYS else (width, height)
    pixels = np.ascontiguousarray(_upright(stored, orientation))
    return Picture(pixels, size, path.stat().st_size)


_SIDEWAYS = {5, 6, 7, 8}


def _pixels(image: bpy.types.Image) -> np.ndarray:
    """``(h, w, 3)`` over white, the top row first, not larger than is worth showing."""
    width, height = image.size
    factor = MAX_SHOWN / max(width, height)
    if factor < 1:
        image.scale(max(1, round(factor * width)), max(1, round(factor * height)))
        width, height = image.size
    values = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(values)
    values = values.reshape(height, width, image.channels)[::-1]
    colors = values[..., :3] if image.channels > 2 else np.repeat(values[..., :1], 3, axis=2)
    if image.channels in (2, 4):
        alpha = values[..., -1:]
        # Blender keeps float pixels multiplied by alpha, bytes not.
        colors = (colors if image.is_float else colors * alpha) + (1 - alpha)
    return np.clip(colors, 0.0, 1.0)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo what Exif says about a picture's orientation."""
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
