"""The fixed light of the room on the person: plain data, and what every part does with it.

Colours are sRGB values; light multiplies *linear* ones, so de-lighting divides there.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from .files import write_atomic
from .scene import Float32Array, FloatArray
from .srgb import to_linear, to_srgb

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_NEIGHBOURS = 4


@dataclass(frozen=True)
class RoomLight:
    """How much light falls on places of the real person.

    Attributes:
        points: ``(N, 3)`` places on the person, world metres.
        gain: ``(N, 3)`` natural logarithm of the light's RGB there against the light on the
            middle of the face's skin: linear colour = albedo x exp(gain).
        figures: What was found, for the report (see :func:`.portrait2d.delight.room_light`).
    """

    points: FloatArray
    gain: FloatArray
    figures: dict[str, Any] = field(default_factory=dict)

    def at(self, points: FloatArray) -> FloatArray:
        """The gain at other places ``(M, 3)`` (world): inverse distance mean of four neighbours."""
        count = min(_NEIGHBOURS, len(self.points))
        distance, nearest = cKDTree(self.points).query(points, count)
        if count == 1:
            return np.asarray(self.gain[nearest])
        weight = 1.0 / (distance + 1e-4)
        weight /= weight.sum(axis=1, keepdims=True)
        return np.asarray(np.einsum("nk,nkc->nc", weight, self.gain[nearest]))

    def scaled(self, strength: float) -> RoomLight:
        """The same light with its gain times ``strength``."""
        return dataclasses.replace(self, gain=self.gain * strength)


def remove_light(color: npt.NDArray[Any], gain: FloatArray) -> Float32Array:
    """Take a gain ``(..., 3)`` out of sRGB colours ``(..., 3)`` in 0..1."""
    return np.asarray(to_srgb(to_linear(color) * np.exp(-gain)), np.float32)


def save_room_light(path: Path, light: RoomLight, key: str) -> None:
    """Write ``light`` as ``.npz``, atomically; ``key`` says what it was made from."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "points": light.points.astype(np.float32),
        "gain": light.gain.astype(np.float32),
        "figures": np.array(json.dumps(light.figures)),
        "key": np.array(key),
    }
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def load_room_light(path: Path, key: str) -> RoomLight | None:
    """What :func:`save_room_light` wrote for ``key``; None when missing, damaged or of another."""
    try:
        with np.load(path) as data:
            if str(data["key"]) != key:
                return None
            figures = json.loads(str(data["figures"]))
            return RoomLight(data["points"].astype(float), data["gain"].astype(float), figures)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
