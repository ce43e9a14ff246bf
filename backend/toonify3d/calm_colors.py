"""The person's colours without blotches, where a style has smooth skin: plain data and its file.

Portraits of a toon show no stubble, pores and shadows in hollows; but what no portrait shows gets
its colours from the person's own, blotches and all, unless they are calmed in the same way there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import write_atomic
from .scene import Float32Array, FloatArray

FILE = "calm_colors.npz"


@dataclass(frozen=True)
class CalmColors:
    """Colours at places of the real person.

    Attributes:
        points: ``(N, 3)`` places, world metres.
        color: ``(N, 3)`` sRGB in 0..1, without the room's light as far as the portraits are.
        weight: ``(N,)`` how far they take the place of the person's own, 0 to 1.
    """

    points: FloatArray
    color: Float32Array
    weight: Float32Array


def save_calm_colors(folder: Path, calm: CalmColors | None) -> None:
    """Write ``calm_colors.npz``, or take an earlier one away when there are none."""
    path = folder / FILE
    if calm is None:
        path.unlink(missing_ok=True)
        return
    arrays: dict[str, npt.NDArray[Any]] = {
        "points": calm.points.astype(np.float32),
        "color": np.clip(calm.color * 255 + 0.5, 0, 255).astype(np.uint8),
        "weight": np.clip(calm.weight * 255 + 0.5, 0, 255).astype(np.uint8),
    }
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def load_calm_colors(folder: Path) -> CalmColors | None:
    """Read ``calm_colors.npz``; None when there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    with np.load(path) as data:
        color, weight = (data[name].astype(np.float32) / 255.0 for name in ("color", "weight"))
        return CalmColors(data["points"].astype(float), color, weight)
