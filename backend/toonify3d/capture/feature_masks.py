"""Where camera features may be: everywhere, only on the person, or only in the room.

In a usual capture person and room both stand still and both help, so nothing is left out. When the
person moved, the room alone tells where the camera was; when the background moved (a street), or
when the person turned on a chair before a fixed camera, the person alone does. Which of these it
was cannot be told for sure from the pictures, so the user says it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..errors import InputError
from ..progress import Progress
from ..scene import ByteImage
from .segmentation import PersonSegmenter

CHOICES = ("everywhere", "person", "room")
MARGIN = 0.02
"""Features this near the outline, in long picture sides, belong to neither side."""


def check_features_setting(choice: str) -> None:
    """See early whether the setting is one of :data:`CHOICES`.

    Raises:
        InputError: It is not (``bad_setting``).
    """
    if choice not in CHOICES:
        raise InputError(
            f"capture.features cannot be '{choice}'; use one of {', '.join(CHOICES)}.",
            "bad_setting",
        )


def feature_masks(
    images: Sequence[ByteImage],
    given: Sequence[ByteImage | None],
    choice: str,
    progress: Progress,
) -> list[ByteImage] | None:
    """Masks ``(H, W)``, 255 where features may be found; None for everywhere.

    Args:
        images: RGB pictures.
        given: The user's own masks of the person, which win over the segmentation.
        choice: One of :data:`CHOICES`.
        progress: Gets updates.
    """
    if choice == "everywhere":
        return None
    out = []
    with PersonSegmenter() as segmenter:
        for index, (image, mask) in enumerate(zip(images, given, strict=True)):
            person = segmenter.probability(image) > 0.5 if mask is None else mask > 127
            out.append(_allowed(person.astype(np.uint8), choice))
            progress.update(0.0, f"Cameras: telling person from room {index + 1}")
    return out


def _allowed(person: ByteImage, choice: str) -> ByteImage:
    width = 2 * round(MARGIN * max(person.shape)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    if choice == "room":
        return np.asarray(255 * (1 - cv2.dilate(person, kernel)), np.uint8)
    # Outside the picture counts as person: the bust is cut off there, it does not end.
    inside = cv2.erode(person, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(1.0,))
    return np.asarray(255 * inside, np.uint8)
