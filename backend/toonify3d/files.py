"""Files that are written whole or not at all (temporary name, fsync, rename)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over ``path``.

    The temporary name keeps the suffix, because libraries choose the format by it.

    Raises:
        OSError: Disk full or folder not writable; ``path`` is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` atomically."""
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as indented UTF-8 JSON atomically."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def write_image(path: Path, image: npt.NDArray[Any]) -> None:
    """Write an RGB, RGBA or gray image (uint8 or uint16) atomically, format by suffix.

    Raises:
        ValueError: OpenCV cannot encode it.
    """
    if image.ndim == 3:
        order = [2, 1, 0, 3][: image.shape[2]] if image.shape[2] in (3, 4) else [0]
        image = np.ascontiguousarray(image[..., order])
    # imencode + our own write: cv2.imwrite fails on non-Latin paths on Windows.
    done, encoded = cv2.imencode(path.suffix, image)
    if not done:
        raise ValueError(f"cannot encode {path.name}")
    write_bytes(path, encoded.tobytes())


def read_image(path: Path, flags: int) -> npt.NDArray[np.uint8]:
    """Decode an image as OpenCV does with ``flags`` (BGR or gray).

    Raises:
        FileNotFoundError: Not there, or not an image.
    """
    # cv2.imread cannot open non-Latin paths on Windows; decoding bytes works everywhere.
    image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), flags)
    if image is None:
        raise FileNotFoundError(f"cannot decode {path}")
    return np.asarray(image, dtype=np.uint8)
