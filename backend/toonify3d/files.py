"""Files that are written whole or not at all (temporary name, fsync, rename)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InputError

# What Windows answers when a folder or a file in it is open in another program.
_IN_USE = {errno.EACCES, errno.EPERM, errno.EBUSY}
# Virus scanners and search indexes hold new files for moments only: tries, and seconds between.
SWAP_TRIES, SWAP_WAIT = 5, 0.5


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
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), temporary):
            raise
        # A write that fails names no file, and nobody knows the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when the block ends well, and not before.

    What is written into it goes into a folder beside it. Should anything fail, that is thrown away
    and ``folder`` stays as it was; what a killed process left is cleared away the next time. Only
    when everything is written and ``folder`` cannot be moved away, because it is open in another
    program (on Windows), is the new one kept for :func:`take_kept`.

    Raises:
        OSError: Disk full or not writable, with ``folder`` as the file name.
        InputError: ``folder``, or a file in it, is open in another program (``in_use``).
    """
    fresh, old = _beside(folder, "new"), _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)  # killed between the two renames below
    for left in (fresh, old, kept_folder(folder)):
        shutil.rmtree(left, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _swap(fresh, folder)
    except OSError as error:
        # A write that fails names no file, and the new folder's files are gone when this is read.
        if error.filename is not None and fresh.name not in str(error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def kept_folder(folder: Path) -> Path:
    """Where :func:`replaced_folder` keeps a finished folder that could not take its place."""
    return _beside(folder, "kept")


def take_kept(folder: Path) -> None:
    """Put what was kept in the place of ``folder``.

    Raises:
        InputError: It still is open in another program.
    """
    _swap(kept_folder(folder), folder)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f".{folder.name}.{word}")


def _swap(fresh: Path, folder: Path) -> None:
    """Put ``fresh`` in the place of ``folder``; keep it when that is in use."""
    for left in reversed(range(SWAP_TRIES)):
        try:
            _exchange(fresh, folder)
            return
        except OSError as error:
            if error.errno not in _IN_USE:
                raise
            if left:
                time.sleep(SWAP_WAIT)
                continue
            kept = kept_folder(folder)
            if fresh != kept:
                fresh.rename(kept)
            raise InputError(
                f"Cannot replace '{folder}' ({error.strerror}): it, or a file in it, is open in"
                " another program; close it there and start again: the new result is finished,"
                f" waits in '{kept.name}' and is put in place at once.",
                "in_use",
            ) from error


def _exchange(fresh: Path, folder: Path) -> None:
    old = _beside(folder, "old")
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
