"""Soft person segmentation of single pictures with the model that MediaPipe bundles.

MediaPipe's selfie segmentation (0.10.21, Apache-2.0) sees 256 x 256 (or 256 x 144) pixels and was
trained on people in front of a webcam: it is rough, follows clutter, and is weaker from behind.
Its answers are therefore averaged over both models, the mirror image and windows, and are only a
start for :mod:`masks`, which makes all the views of a capture agree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..scene import ByteImage, Float32Array
from .landmarks import quiet_native_logs

GENERAL, LANDSCAPE = 0, 1
"""MediaPipe's two models: 256 x 256 and 256 x 144 input."""


@dataclass(frozen=True)
class Window:
    """A part of a picture in pixels, ``[left, right) x [top, bottom)``."""

    left: int
    top: int
    right: int
    bottom: int


class PersonSegmenter:
    """Person probability of pictures. Holds native resources: use as a context manager."""

    def __init__(self, models: Sequence[int] = (GENERAL, LANDSCAPE)) -> None:
        with quiet_native_logs():
            from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

            self._models: list[Any] = [SelfieSegmentation(model_selection=m) for m in models]
            for model in self._models:  # the native code logs at the first picture as well
                model.process(np.full((64, 64, 3), 128, np.uint8))

    def __enter__(self) -> PersonSegmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the native graphs."""
        for model in self._models:
            with contextlib.suppress(ValueError):  # MediaPipe's answer to a second close
                model.close()

    def probability(self, image: ByteImage, window: Window | None = None) -> Float32Array:
        """Probability ``(H, W)`` in 0 to 1 that each pixel of an RGB image shows a person.

        Args:
            image: RGB ``(H, W, 3)``.
            window: Look only here (the model sees more detail); 0.5 = unknown outside.
        """
        out = np.full(image.shape[:2], 0.5, np.float32)
        part = window or Window(0, 0, image.shape[1], image.shape[0])
        rows, columns = slice(part.top, part.bottom), slice(part.left, part.right)
        crop = np.ascontiguousarray(image[rows, columns])
        answers = list(self._answers(crop))
        out[rows, columns] = np.mean(answers, axis=0)
        return out

    def _answers(self, image: ByteImage) -> Iterator[Float32Array]:
        mirrored = np.ascontiguousarray(image[:, ::-1])
        for model in self._models:
            yield _run(model, image)
            yield _run(model, mirrored)[:, ::-1]


def _run(model: Any, image: ByteImage) -> Float32Array:
    mask = np.asarray(model.process(image).segmentation_mask, np.float32)
    if mask.shape != image.shape[:2]:
        mask = np.asarray(cv2.resize(mask, (image.shape[1], image.shape[0])), np.float32)
    return np.clip(mask, 0.0, 1.0)
