"""Camera paths for films and stills: turntable, ellipse in front of the face, a JSON file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..scene import Camera, FloatArray, SurfaceMesh
from .render import orbit_camera, turntable

MOST_FRAMES = 2000
SMALLEST, LARGEST = 16, 8192
# Swing of the ellipse: the face stays in sight, and the parallax shows its depth (radians).
ELLIPSE = (0.75, 0.22)
DEFAULT_FOV = 24.0


def parse_size(text: str) -> tuple[int, int]:
    """``"512"`` or ``"640x360"`` to width and height.

    Raises:
        InputError: Neither of them, or outside 16 to 8192.
    """
    found = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    size = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not all(SMALLEST <= side <= LARGEST for side in size):
        raise InputError(
            f"--size must be a number or WIDTHxHEIGHT, each {SMALLEST} to {LARGEST}, not '{text}'.",
            "bad_size",
        )
    return size


def camera_path(
    path: str, mesh: SurfaceMesh, frames: int, size: tuple[int, int] | None
) -> list[Camera]:
    """The cameras of a path.

    Args:
        path: ``turntable``, ``ellipse`` or the name of a JSON file (see :func:`read_cameras`).
        mesh: What they look at, world metres.
        frames: How many, for ``turntable`` and ``ellipse``.
        size: Width and height in pixels; None for 512 x 512, or a file's own.

    Raises:
        InputError: Unknown path, unreadable file, or a number out of its range.
    """
    if path not in ("turntable", "ellipse"):
        return read_cameras(Path(path), size)
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"--frames must lie between 1 and {MOST_FRAMES}.", "bad_frames")
    width, height = size or (512, 512)
    turns = [2 * math.pi * k / frames for k in range(frames)]
    cameras = turntable(mesh, turns, width, height)
    if path == "turntable":
        return cameras
    center = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    distance = float(np.linalg.norm(cameras[0].center - center))
    swing, lift = ELLIPSE
    return [
        orbit_camera(
            center, distance, swing * math.sin(t), lift * math.cos(t) + 0.05, width, height
        )
        for t in turns
    ]


def read_cameras(path: Path, size: tuple[int, int] | None) -> list[Camera]:
    """Cameras from a JSON file: ``{"frames": [...]}``, or the list alone.

    A frame gives its place as ``c2w`` (4 x 4, OpenCV axes) or as ``position`` and ``look_at``
    (world metres, Z up), and its lens as ``K`` with ``width`` and ``height`` or as ``fov``
    (vertical, degrees). What all frames share may stand beside ``frames``. A capture's
    ``cameras.json`` is such a file.

    Args:
        path: The file.
        size: Width and height in pixels; None for the file's own, else 512 x 512. A lens given as
            ``K`` must have the same shape of picture.

    Raises:
        InputError: Not there, no JSON, or not as described.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"--path must be 'turntable', 'ellipse' or a JSON file; there is no '{path}'.",
            "bad_path",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The camera file '{path}' cannot be read: {error}.", "bad_path") from None
    shared = document if isinstance(document, dict) else {}
    frames = shared.get("frames") if isinstance(document, dict) else document
    if not isinstance(frames, list) or not 1 <= len(frames) <= MOST_FRAMES:
        raise InputError(
            f"The camera file '{path}' needs a list 'frames' of 1 to {MOST_FRAMES} cameras.",
            "bad_path",
        )
    cameras = []
    for index, frame in enumerate(frames):
        try:
            cameras.append(_camera({**shared, **_dict(frame)}, size))
        except (ValueError, TypeError, KeyError) as error:
            words = f"it has no {error}" if isinstance(error, KeyError) else error
            raise InputError(f"Camera {index} of '{path}': {words}.", "bad_path") from error
    return cameras


def _dict(frame: Any) -> dict[str, Any]:
    if not isinstance(frame, dict):
        raise TypeError("it is not an object with 'c2w' or 'position'")
    return frame


def _camera(frame: dict[str, Any], size: tuple[int, int] | None) -> Camera:
    c2w = _pose(frame)
    if "K" not in frame:
        own = (frame.get("width", 512), frame.get("height", 512))
        width, height = size or (_side(own[0]), _side(own[1]))
        fov = float(frame.get("fov", DEFAULT_FOV))
        if not 1.0 <= fov <= 150.0:
            raise ValueError("'fov' must lie between 1 and 150 degrees")
        focal = height / 2 / math.tan(math.radians(fov) / 2)
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        return Camera(K, c2w, width, height)
    K = _numbers(frame["K"], (3, 3), "K")
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.allclose(K[2], [0, 0, 1]):
        raise ValueError("'K' is no pin-hole camera")
    camera = Camera(K, c2w, _side(frame["width"]), _side(frame["height"]))
    if size is None:
        return camera
    if abs(size[0] / size[1] * camera.height / camera.width - 1) > 0.01:
        raise ValueError(
            f"its picture is {camera.width}x{camera.height}, a --size of {size[0]}x{size[1]}"
            " would distort it"
        )
    return camera.resized(*size)


def _pose(frame: dict[str, Any]) -> FloatArray:
    if "c2w" in frame:
        c2w = _numbers(frame["c2w"], (4, 4), "c2w")
        turn = c2w[:3, :3]
        if not np.allclose(turn.T @ turn, np.eye(3), atol=1e-3) or np.linalg.det(turn) < 0:
            raise ValueError("'c2w' must hold a rotation")
        return c2w
    position = _numbers(frame["position"], (3,), "position")
    forward = _numbers(frame["look_at"], (3,), "look_at") - position
    length = np.linalg.norm(forward)
    if length < 1e-6:
        raise ValueError("'position' and 'look_at' are the same place")
    forward /= length
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:  # straight up or down: the face's left is right
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2] = right, np.cross(forward, right), forward
    c2w[:3, 3] = position
    return c2w


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> FloatArray:
    try:
        array = np.array(value, dtype=np.float64)
    except (ValueError, TypeError):
        array = np.zeros(0)
    if array.shape != shape or not np.isfinite(array).all():
        size = " x ".join(map(str, shape))
        raise ValueError(f"'{name}' must be {size} numbers")
    return array


def _side(value: Any) -> int:
    if not isinstance(value, int | float) or not SMALLEST <= value <= LARGEST:
        raise ValueError(f"'width' and 'height' must lie between {SMALLEST} and {LARGEST}")
    return int(value)
