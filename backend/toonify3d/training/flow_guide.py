"""Where portraits show what the photos showed: matches that bring stage II within reach of eq. 8.

A brow that a stylizer moved by six pixels is out of the reach of colours: their gradient only knows
the next pixel, and eyes stayed as they were (measured on the known style). Dense optical flow
(DIS, Kroeger et al. 2016, in OpenCV) from the portrait to its photo finds it again; what a pixel of
the photo shows on the person is known. Portraits whose stylizer hands over its own shape change do
not need this.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..scene import ByteImage, Float32Array, FloatArray, Scene, StylizedView
from ..snr.avatar import PriorLike
from ..snr.rendering import trace
from .view_rays import Rays, point_rays, signed_distance

_WINDOWS = 24
"""Windows over the height of the picture within which brightness and contrast are made even."""
_FAINT = 0.04
"""Contrast below which a place shows nothing that could be found again."""
_RETURN = 1.0
"""Pixels by which there and back may miss."""
_INSET = 3.0
"""Pixels from the silhouettes, where flow mixes person and wall."""
_MOST = 4000
"""Matches kept of a portrait."""


class FlowGuide:
    """Rays of portraits, each with the place on the real person that it shows.

    Args:
        scene: Photos, masks and cameras.
        prior: Finished stage I.
        views: The portraits.
        seed: Of the choice among more matches than are kept.
    """

    def __init__(
        self, scene: Scene, prior: PriorLike, views: list[StylizedView], seed: int
    ) -> None:
        device = prior.device
        generator = np.random.default_rng(seed)
        parts = []
        for view in views:
            found, points = matched(
                view.image, view.mask, scene.image(view.frame), scene.mask(view.frame)
            )
            rows = generator.permutation(len(found))[:_MOST]
            here, there = (
                point_rays(view.frame.camera, at[rows], scene.normalization, device)
                for at in (found + 0.5, points)
            )
            distance, hit = trace(prior, there.origin, there.direction)
            kept = (here.origin, here.direction, there.at(distance), there.direction)
            parts.append([part[hit] for part in kept])
        origin, direction, targets, sights = (torch.cat(part) for part in zip(*parts, strict=True))
        self._rays = Rays(origin, direction)
        self._targets, self._sights = targets, sights

    def __len__(self) -> int:
        return len(self._targets)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Rays, Tensor, Tensor]:
        """``count`` rays, the places ``(N, 3)`` on the real person, unit space, and from where
        the photo saw them, ``(N, 3)`` of unit length."""
        rows = torch.randint(len(self), (count,), generator=generator, device=generator.device)
        rays = Rays(self._rays.origin[rows], self._rays.direction[rows])
        return rays, self._targets[rows], self._sights[rows]


def matched(
    portrait: ByteImage, mask: ByteImage, photo: ByteImage, photo_mask: ByteImage
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Pixels ``(N, 2)`` int64 (column, row) of the portrait and image points ``(N, 2)`` of the
    photo that show the same, where that is sure.

    Args:
        portrait: ``(H, W, 3)``.
        mask: Its person ``(H, W)``.
        photo: ``(H, W, 3)``.
        photo_mask: Its person ``(H, W)``.
    """
    new, clear = _even(portrait, mask > 127)
    old, clear_before = _even(photo, photo_mask > 127)
    forth, back = _flow(new, old), _flow(old, new)
    row, column = np.indices(mask.shape, dtype=np.float32)
    to = np.stack([column, row], axis=2) + forth
    returned = _sampled(back, to) + forth
    sure = (clear > _FAINT) & (_sampled(clear_before, to) > _FAINT)
    sure &= np.linalg.norm(returned, axis=2) < _RETURN
    sure &= signed_distance(mask > 127) > _INSET
    sure &= _sampled(signed_distance(photo_mask > 127), to) > _INSET
    rows, columns = np.nonzero(sure)
    return np.stack([columns, rows], axis=1), to[sure].astype(np.float64) + 0.5


def _even(image: ByteImage, inside: npt.NDArray[np.bool_]) -> tuple[ByteImage, Float32Array]:
    """Brightness of the person with its mean and contrast made even, and the contrast it had."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    weight = inside.astype(np.float32)
    side = 2 * max(2, image.shape[0] // (2 * _WINDOWS)) + 1
    window = (side, side)
    total = cv2.blur(weight, window) + 1e-6
    mean = cv2.blur(gray * weight, window) / total
    variance: Float32Array = cv2.blur(gray * gray * weight, window) / total - mean * mean
    contrast = np.sqrt(np.maximum(variance, 0.0))
    level = 128.0 + 42.0 * (gray - mean) / np.hypot(contrast, 0.02)
    even = np.where(inside, np.clip(level, 0.0, 255.0), 128.0).astype(np.uint8)
    return even, contrast


def _flow(first: ByteImage, second: ByteImage) -> Float32Array:
    """Where every pixel of ``first`` is in ``second``, as offsets ``(H, W, 2)``."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)
    return np.asarray(flow.calc(first, second, None), np.float32)  # type: ignore[call-overload]


def _sampled(values: Float32Array, at: Float32Array) -> Float32Array:
    """``values`` at positions ``(H, W, 2)`` in whole pixels from the first one's centre."""
    found = cv2.remap(
        values, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found, np.float32)
