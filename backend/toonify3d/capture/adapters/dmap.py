"""Reads OpenMVS's depth maps (``.dmap``, OpenMVS 2.x).

Layout, little endian: ``DR``; content type (1 depth, 2 normals, 4 confidence, 8 views) and a byte
of padding; image width and height, map width and height (uint32 each); least and largest depth
searched (float32); the image's file name (uint16 length, bytes); view ids (uint32 count, uint32
each); K, R, C as 9, 9 and 3 float64; then the depth, the normals and the confidence as float32.
K is that of the header's image size and counts pixel centres at integers (COLMAP's centre minus a
half); the number in the file's own name is OpenMVS's image id, not the frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...scene import Camera, Float32Array, FloatArray

_DEPTH, _NORMAL, _CONFIDENCE = 1, 2, 4


@dataclass(frozen=True)
class DepthMapFile:
    """One depth map.

    Attributes:
        image: File name of the image it belongs to.
        camera: Its camera at the size of the map, in this project's convention.
        depth: ``(h, w)`` along the camera's z, 0 = none.
        confidence: ``(h, w)``: OpenMVS's sum over agreeing views, or None when not stored.
        views: OpenMVS's ids of this image and its neighbours.
    """

    image: str
    camera: Camera
    depth: Float32Array
    confidence: Float32Array | None
    views: tuple[int, ...]


def read_dmap(path: Path) -> DepthMapFile:
    """Read a ``.dmap`` file.

    Raises:
        InputError: Not such a file, or cut off (``bad_depth_map``).
    """
    data = path.read_bytes()
    try:
        return _parse(data)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name} is no OpenMVS depth map, or is cut off ({error}).", "bad_depth_map"
        ) from error


def _parse(data: bytes) -> DepthMapFile:
    magic, kind = struct.unpack_from("<2sB", data, 0)
    if magic != b"DR" or not kind & _DEPTH:
        raise ValueError("it does not begin with a depth map's header")
    image_width, image_height, width, height = struct.unpack_from("<4I", data, 4)
    (length,) = struct.unpack_from("<H", data, 28)
    name = data[30 : 30 + length].decode("utf-8")
    at = 30 + length
    (count,) = struct.unpack_from("<I", data, at)
    views = struct.unpack_from(f"<{count}I", data, at + 4)
    at += 4 + 4 * count
    numbers = np.frombuffer(data, "<f8", 21, at)
    at += 21 * 8
    pixels = width * height
    if not 0 < pixels <= 1 << 28:
        raise ValueError(f"a map of {width} x {height}")
    depth = np.frombuffer(data, "<f4", pixels, at).reshape(height, width).copy()
    at += 4 * pixels + (12 * pixels if kind & _NORMAL else 0)
    confidence = None
    if kind & _CONFIDENCE:
        confidence = np.frombuffer(data, "<f4", pixels, at).reshape(height, width).copy()
    camera = _camera(numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3), numbers[18:])
    whole = Camera(camera[0], camera[1], image_width, image_height)
    depth[~np.isfinite(depth) | (depth < 0)] = 0.0
    return DepthMapFile(name, whole.resized(width, height), depth, confidence, views)


def _camera(
    K: FloatArray, rotation: FloatArray, center: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Intrinsics with centres at half integers, and camera-to-world."""
    ours = K.copy()
    ours[:2, 2] += 0.5
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation.T, center
    return ours, c2w
