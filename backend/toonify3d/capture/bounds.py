"""The sphere round head and shoulders, and the chest plane below which nothing is reconstructed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..scene import ByteImage, Camera, FloatArray, Normalization
from .hull import grid_points, silhouette_distance, vote

SEARCH_CENTER = np.array([0.0, 0.0, 0.05])
SEARCH_HALF = 0.48
"""Half side in metres of the cube round the neck base in which head and shoulders lie."""
CELLS = 64
VIEWS = 40
CHEST = -0.22
"""World height of the chest plane when the body goes on below: a hand under the collar bones."""
MARGIN = 1.06
"""The sphere is so much larger than what must be in it: masks may be a little tight."""


def find_bounds(
    cameras: Sequence[Camera], masks: Sequence[ByteImage]
) -> tuple[Normalization, float]:
    """Sphere and chest plane from the visual hull of the masks.

    A bust that ends above the chest plane is kept whole; a longer body is cut there.

    Args:
        cameras: Cameras in the aligned world (metres, origin at the neck base).
        masks: Person masks ``(H, W)``, 0 to 255.

    Returns:
        Normalization and ``crop_z`` in metres.

    Raises:
        InputError: The masks have nothing in common (``no_person``).
    """
    inside = _occupied(cameras, masks)
    if len(inside) == 0:
        raise InputError(
            "The person masks of the views do not fit together; film one person who stands still.",
            "no_person",
        )
    cell = 2 * SEARCH_HALF / (CELLS - 1)
    bottom = float(inside[:, 2].min()) - cell
    crop = max(bottom, CHEST)
    inside = inside[inside[:, 2] >= crop]
    center = (inside.min(0) + inside.max(0)) / 2
    radius = float(np.linalg.norm(inside - center, axis=1).max()) + cell
    return Normalization(center, MARGIN * radius), crop


def _occupied(cameras: Sequence[Camera], masks: Sequence[ByteImage]) -> FloatArray:
    """Grid places inside the largest piece of the visual hull, ``(N, 3)``."""
    chosen = np.unique(np.linspace(0, len(cameras) - 1, VIEWS).round().astype(np.int64))
    fields = [silhouette_distance(masks[i] > 127) for i in chosen]
    points = grid_points(SEARCH_CENTER, SEARCH_HALF, CELLS)
    distances = vote(points, fields, [cameras[i] for i in chosen], outvoted=0.08, min_seen=0.3)
    solid: npt.NDArray[np.bool_] = (distances < 0).reshape(CELLS, CELLS, CELLS)
    labels, count = ndimage.label(solid)
    if count == 0:
        return np.zeros((0, 3))
    sizes = np.bincount(labels.reshape(-1))
    sizes[0] = 0
    return np.asarray(points[labels.reshape(-1) == int(sizes.argmax())], np.float64)
