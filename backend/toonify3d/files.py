"""Files that are written whole or not at all (temporary name, fsync, rename)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when the block ends well, and not before.

    What is written into it goes into a folder beside it. Should anything fail, that is thrown away
    and ``folder`` stays as it was; what a killed process left is cleared away the next time.

    Raises:
        OSError: Disk full or not writable, with ``folder`` as the file name.
    """
    fresh, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # killed between the two renames below
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _swap(fresh, folder, old)
    except OSError as error:
        # A write that fails names no file, and the new folder's files are gone when this is read.
        if error.filename is not None and fresh.name not in str(error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path, old: Path) -> None:
    """Put ``fresh`` in the place of ``folder``."""
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


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
