"""Colours of the person and of the room, over the whole video and near each place of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Float32Array

COLOURS = 96
"""Palette entries that all frames share."""
_PRIOR_PIXELS = 60.0
"""Weight of the whole video's histogram, in pixels, against the histogram near a place."""
_FLOOR = 1e-3
"""Probability that any colour has on either side."""
_LIMIT = 4.0
"""Largest log-likelihood ratio that colour alone may claim."""


@dataclass(frozen=True)
class Palette:
    """A colour quantizer: 32^3 table from 5 bits of R, G, B to a palette index."""

    table: npt.NDArray[np.uint8]

    def __call__(self, image: ByteImage) -> npt.NDArray[np.uint8]:
        """Palette indices ``(H, W)`` of an RGB image."""
        bits = (image >> 3).astype(np.int32)
        return self.table[(bits[..., 0] * 32 + bits[..., 1]) * 32 + bits[..., 2]]


def learn_palette(images: Sequence[ByteImage], seed: int = 0) -> Palette:
    """k-means in CIE Lab on random pixels of all frames, RGB ``(H, W, 3)`` each."""
    rng = np.random.default_rng(seed)
    each = max(1, 40_000 // len(images))
    pixels = [im.reshape(-1, 3)[rng.integers(0, im.shape[0] * im.shape[1], each)] for im in images]
    samples = _lab(np.concatenate(pixels).astype(np.float32) / 255.0)
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 15, 0.1)
    no_labels = np.empty(0, np.int32)
    _, _, centers = cv2.kmeans(samples, COLOURS, no_labels, criteria, 1, cv2.KMEANS_PP_CENTERS)
    axis = np.arange(4, 256, 8, dtype=np.float32) / 255.0
    cube = _lab(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3))
    distance = (cube**2).sum(1)[:, None] - 2.0 * cube @ centers.T + (centers**2).sum(1)[None]
    return Palette(distance.argmin(1).astype(np.uint8))


def _lab(rgb: Float32Array) -> Float32Array:
    return np.asarray(cv2.cvtColor(rgb[None], cv2.COLOR_RGB2LAB)[0], np.float32)


def histogram(
    labels: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Counts ``(COLOURS,)`` of the chosen pixels."""
    return np.bincount(labels[chosen], minlength=COLOURS).astype(np.float64)


def local_ratio(
    labels: npt.NDArray[np.uint8],
    person: npt.NDArray[np.bool_],
    room: npt.NDArray[np.bool_],
    whole_person: npt.NDArray[np.float64],
    whole_room: npt.NDArray[np.float64],
    reach: int,
    block: int,
) -> Float32Array:
    """Log-likelihood ratio ``(H, W)`` of person against room by colour.

    The histograms count the known pixels within about ``reach`` pixels, in blocks of ``block``
    pixels, and fall back to the whole video's (normalized) histograms where few are near.
    """
    size = max(3, 2 * (reach // block) + 1)
    near_person = _box(_block_counts(labels, person, block), size)
    near_room = _box(_block_counts(labels, room, block), size)
    ratio = np.log(_blend(near_person, whole_person) + _FLOOR)
    ratio -= np.log(_blend(near_room, whole_room) + _FLOOR)
    rows = (np.arange(labels.shape[0]) // block)[:, None]
    columns = (np.arange(labels.shape[1]) // block)[None]
    chosen = np.clip(ratio[rows, columns, labels], -_LIMIT, _LIMIT)
    return np.asarray(chosen, np.float32)


def _blend(counts: Float32Array, whole: npt.NDArray[np.float64]) -> Float32Array:
    prior = (_PRIOR_PIXELS * whole).astype(np.float32)
    total = counts.sum(-1, keepdims=True) + np.float32(_PRIOR_PIXELS)
    return np.asarray((counts + prior) / total, np.float32)


def _block_counts(
    labels: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_], block: int
) -> Float32Array:
    height, width = labels.shape
    blocks_x, blocks_y = -(-width // block), -(-height // block)
    rows, columns = np.nonzero(chosen)
    cell = (rows // block) * blocks_x + columns // block
    flat = np.bincount(
        cell * COLOURS + labels[rows, columns], minlength=blocks_x * blocks_y * COLOURS
    )
    return flat.reshape(blocks_y, blocks_x, COLOURS).astype(np.float32)


def _box(counts: Float32Array, size: int) -> Float32Array:
    return np.asarray(
        cv2.boxFilter(counts, -1, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT),
        np.float32,
    )
