"""From which places of the exemplar patches are copied: neighbours made to agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
PATCH = 3
"""Radius of a patch in pixels: 7 x 7, as small as holds a stroke's width and direction."""
_TILE = 5
"""Targets that are copied in one piece where all want the same patch."""


def whole_strokes(
    usable: npt.NDArray[np.bool_], spots: IntArray, places: IntArray, shape: tuple[int, ...]
) -> IntArray:
    """Let neighbours that were copied from neighbouring places win: one stroke, not scraps of many.

    Every target takes the shift (source minus target) that is commonest in its 3 x 3
    neighbourhood, give or take a pixel (FaceBlit's modal filter, on shifts).

    Args:
        usable: ``(H, W)`` of the source, where the middle of a patch may lie.
        spots: ``(n, 2)`` row and column of targets, on every second pixel from ``PATCH`` on.
        places: ``(n, 2)`` their sources.
        shape: Height and width of the canvas.

    Returns:
        ``(n, 2)`` sources.
    """
    height, width = usable.shape
    cell = (spots - PATCH) // 2 + 2
    field = np.full((shape[0] // 2 + 5, shape[1] // 2 + 5, 2), -9999, np.int16)
    for turn in range(2):
        # The second time, targets that lie farther off are asked: the winners spread.
        reach = (1 + turn) * np.arange(-1, 2)
        field[cell[:, 0], cell[:, 1]] = places - spots
        around = [field[cell[:, 0] + dy, cell[:, 1] + dx] for dy in reach for dx in reach]
        stack = np.stack(around, 1)
        chosen, most = stack[:, 4], np.zeros(len(spots), np.int64)
        for other in (4, 0, 1, 2, 3, 5, 6, 7, 8):
            value = stack[:, other]
            count = (np.abs(stack - value[:, None]).max(2) <= 1).sum(1) * (value[:, 0] > -9999)
            place = spots + value
            inside = (place >= 0).all(1) & (place < [height, width]).all(1)
            row, column = np.where(inside[:, None], place, 0).T
            better = (count > most) & inside & usable[row, column]
            chosen = np.where(better[:, None], value, chosen)
            most = np.where(better, count, most)
        places = np.where((most > 0)[:, None], spots + chosen, places)
    # Where all want the same patch no two shifts agree: a tile is then copied in one piece.
    field[cell[:, 0], cell[:, 1]] = places - spots
    middle = cell // _TILE * _TILE + _TILE // 2
    inside = (middle < field.shape[:2]).all(1)
    whole = field[tuple(np.where(inside[:, None], middle, 0).T)]
    place = spots + whole
    inside &= (place >= 0).all(1) & (place < [height, width]).all(1) & (most <= 2)
    row, column = np.where(inside[:, None], place, 0).T
    inside &= usable[row, column]
    return np.asarray(np.where(inside[:, None], place, places), np.int64)


def every_pixel(
    source: tuple[int, ...], spots: IntArray, places: IntArray, shape: tuple[int, ...]
) -> tuple[IntArray, IntArray]:
    """Targets of every second pixel, and their sources, for all pixels.

    With a target on every second pixel only, pixels between two that disagree are softer: a weave.
    """
    steps = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    found = np.concatenate([places + step for step in steps])
    target = np.concatenate([spots + step for step in steps])
    limit = np.array(source[:2]) - 1 - PATCH
    fits = (target < np.array(shape[:2]) - PATCH).all(1)
    return target[fits], np.minimum(found, limit)[fits]
