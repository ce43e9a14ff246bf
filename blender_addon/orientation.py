# SPDX-License-Identifier: GPL-3.0-or-later
"""How a picture file wants to be turned (Exif tag 274): Blender ignores it, the backend obeys it.

A drawing photographed with a phone is the usual case. Standard library only.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

_TAG = 274
_SHORT = 3
_MAX_BLOCKS = 10_000


def exif_orientation(path: Path) -> int:
    """1 to 8 as Exif counts; 1 (upright) when the file says nothing or cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            if head[:4] in (b"II*\0", b"MM\0*"):
                return _from_tiff(file)
            if head.startswith(b"\xff\xd8"):
                block = _jpeg_block(file)
            elif head.startswith(b"\x89PNG\r\n\x1a\n"):
                block = _chunk(file, 8, b"eXIf")
            elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
                block = _chunk(file, 12, b"EXIF")
            else:
                return 1
            return _from_tiff(io.BytesIO(block.removeprefix(b"Exif\0\0"))) if block else 1
    except (OSError, struct.error):
        return 1


def _jpeg_block(file: BinaryIO) -> bytes:
    """The Exif block among a JPEG's segments, which all stand before the picture itself."""
    file.seek(2)
    for _ in range(_MAX_BLOCKS):
        mark, kind, size = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF or kind == 0xDA:
            break
        data = file.read(size - 2)
        if kind == 0xE1 and data.startswith(b"Exif\0\0"):
            return data
    return b""


def _chunk(file: BinaryIO, start: int, wanted: bytes) -> bytes:
    """A chunk of a PNG (length, name, data, checksum) or a WebP (name, length, data, filling)."""
    is_png = wanted == b"eXIf"
    for _ in range(_MAX_BLOCKS):
        file.seek(start)
        if is_png:
            size, name = struct.unpack(">I4s", file.read(8))
            start += 12 + size
        else:
            name, size = struct.unpack("<4sI", file.read(8))
            start += 8 + size + size % 2
        if name == wanted:
            return file.read(size)
    return b""


def _from_tiff(file: BinaryIO) -> int:
    """The tag's value in the first directory of a TIFF structure, which an Exif block is too."""
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    _, first = struct.unpack(order + "HI", file.read(6))
    file.seek(first)
    (count,) = struct.unpack(order + "H", file.read(2))
    for _ in range(count):
        tag, kind, _, value = struct.unpack(order + "HHIH2x", file.read(12))
        if tag == _TAG:
            return value if kind == _SHORT and 1 <= value <= 8 else 1
    return 1
