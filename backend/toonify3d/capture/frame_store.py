"""All frames of a capture at full size, on disk instead of in memory.

300 frames of 1024 x 768 are 700 MB, and undistorted copies as much again. They are kept in one file
that is mapped into memory: they look like arrays, and the system may drop them whenever it needs
the memory for something else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..scene import ByteImage


def stored(images: Iterable[ByteImage], count: int, path: Path) -> list[ByteImage]:
    """Write pictures of one size to ``path`` as they come, and give them back as mapped arrays.

    Args:
        images: At most ``count`` pictures ``(H, W, 3)``; taken one at a time.
        count: How much room is made.
        path: The file; its folder is made. Whoever holds the arrays keeps it in use.

    Returns:
        Writable arrays backed by the file.

    Raises:
        OSError: The disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    store: np.memmap[tuple[int, ...], np.dtype[np.uint8]] | None = None
    out: list[ByteImage] = []
    for position, image in enumerate(images):
        if store is None:
            _make_room(path, count * image.size)
            store = np.memmap(path, np.uint8, "r+", shape=(count, *image.shape))
        store[position] = image
        out.append(np.asarray(store[position]))
    if store is not None:
        store.flush()  # clean pages can be dropped at once
    return out


def _make_room(path: Path, size: int) -> None:
    """Make a file of ``size`` bytes that the disk really has.

    Writing through a map into a file with holes ends the process (SIGBUS) when the disk is full.
    """
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        block = bytes(1 << 20)
        for start in range(0, size, len(block)):
            file.write(block[: min(len(block), size - start)])
