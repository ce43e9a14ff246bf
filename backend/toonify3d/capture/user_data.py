"""What the user's own files say beyond the pictures: masks, and the focal length in EXIF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..scene import ByteImage
from .adapters.matting import check_mask_source
from .mask_settings import MaskSettings
from .video import IMAGE_SUFFIXES, image_files

_EXIF_IFD, _FOCAL, _FOCAL_35, _PLANE_X, _PLANE_UNIT = 0x8769, 0x920A, 0xA405, 0xA20E, 0xA210
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0}
"""Length of EXIF's FocalPlaneResolutionUnit: inch, centimetre, millimetre."""


def exif_focal(source: Path) -> float | None:
    """Focal length as a share of the long picture side: the median over some images of a folder.

    Takes the 35 mm equivalent (long side 36 mm), else the focal length with the resolution of the
    sensor. None for videos, and when no image tells.
    """
    if not source.is_dir():
        return None
    files = image_files(source)
    found = [_focal_share(path) for path in files[:: max(1, len(files) // 12)]]
    told = [value for value in found if value is not None]
    return float(np.median(told)) if told else None


def user_masks(
    files: Sequence[Path],
    indices: Sequence[int],
    size: tuple[int, int],
    settings: MaskSettings,
) -> dict[int, ByteImage]:
    """Masks that the user brings: files of ``settings.folder``, else the images' alpha.

    Args:
        files: The capture's images, empty for a video.
        indices: Source indices of the frames in use.
        size: Width and height to which the masks are scaled.
        settings: ``folder`` holds masks named like the images (``IMG_7.png`` or
            ``IMG_7.jpg.png``), or by frame number for videos (``0007.png``).

    Returns:
        Masks ``(H, W)`` 0 to 255 by source index; frames without one are left out.

    Raises:
        InputError: No such folder, or none of its files belongs to a frame (``no_masks``); a
            damaged file (``unreadable_image``); another shape of picture (``mask_size``).
    """
    if settings.folder:
        return _folder_masks(Path(settings.folder), files, indices, size)
    out = {}
    for index in indices:
        if files and (alpha := _alpha(files[index])) is not None:
            out[index] = _fitted(alpha, size, files[index].name)
    return out


def check_mask_folder(settings: MaskSettings) -> None:
    """See early whether the mask folder, and the model that makes masks, can be used.

    Raises:
        InputError: There is no such folder (``no_masks``); see also
            :func:`~.adapters.matting.check_mask_source`.
    """
    check_mask_source(settings)
    if settings.folder and not Path(settings.folder).is_dir():
        raise InputError(
            f"The mask folder {settings.folder} does not exist; give an existing folder with "
            "capture.masks.folder.",
            "no_masks",
        )


def _folder_masks(
    folder: Path, files: Sequence[Path], indices: Sequence[int], size: tuple[int, int]
) -> dict[int, ByteImage]:
    masks = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    numbered = {int(stem): path for stem, path in masks.items() if stem.isdecimal()}
    out = {}
    for index in indices:
        path = numbered.get(index)
        if files:
            path = masks.get(files[index].stem) or masks.get(files[index].name)
        if path is not None:
            out[index] = read_mask(path, size)
    if not out:
        raise InputError(
            f"No file in {folder} belongs to a frame; name masks like their images, or 0007.png "
            "for frame 7 of a video (counted from 0).",
            "no_masks",
        )
    return out


def read_mask(path: Path, size: tuple[int, int]) -> ByteImage:
    """A mask file scaled to ``size`` (width, height).

    Raises:
        InputError: Damaged (``unreadable_image``) or of another shape (``mask_size``).
    """
    return _fitted(_gray(path), size, path.name)


def _gray(path: Path) -> ByteImage:
    """A mask file as ``(H, W)`` 0 to 255: its alpha where that says something, else brightness."""
    data = np.fromfile(path, dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is None:
        raise InputError(f"The mask {path.name} is damaged or not an image.", "unreadable_image")
    if image.dtype == np.uint16:
        image = image // 257
    if image.ndim == 3:
        has_alpha = image.shape[2] == 4 and image[..., 3].min() < 250
        image = image[..., 3] if has_alpha else image[..., :3].max(2)
    # Masks saved as 0 and 1 (labels) mean the same as 0 and 255.
    return np.asarray(image * 255 if image.max() == 1 else image, np.uint8)


def _alpha(path: Path) -> ByteImage | None:
    with Image.open(path) as picture:
        if "A" not in picture.getbands() and "transparency" not in picture.info:
            return None
        upright = ImageOps.exif_transpose(picture).convert("RGBA")
    alpha = np.asarray(upright.getchannel("A"), np.uint8)
    return alpha if (alpha < 128).mean() > 0.005 else None


def _fitted(mask: ByteImage, size: tuple[int, int], name: str) -> ByteImage:
    height, width = mask.shape
    if abs(width * size[1] - height * size[0]) > 0.02 * width * size[1]:
        raise InputError(
            f"The mask {name} is {width} x {height}, another shape than its picture; masks must "
            "show the whole picture.",
            "mask_size",
        )
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)


def _focal_share(path: Path) -> float | None:
    try:
        with Image.open(path) as picture:
            tags: Mapping[int, Any] = picture.getexif().get_ifd(_EXIF_IFD)
            long_side = max(picture.size)
    except (OSError, ValueError, SyntaxError):  # what Pillow raises on damaged tags
        return None
    film, focal = _number(tags.get(_FOCAL_35)), _number(tags.get(_FOCAL))
    if film:
        return film / 36.0
    density = _number(tags.get(_PLANE_X))
    unit = _MILLIMETRES.get(int(_number(tags.get(_PLANE_UNIT)) or 2))
    if focal and density and unit:
        share = focal * density / unit / long_side
        return share if 0.3 < share < 10 else None
    return None


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if np.isfinite(number) and number > 0 else 0.0
