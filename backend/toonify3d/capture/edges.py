"""Where exactly a mask's edge lies in the picture, to a fraction of a pixel.

A colour model calls the mixed pixels of an edge one side or the other; which, depends on what else
has such colours, so its edges are biased. Here each edge pixel is compared with what lies just
inside and just outside of it (the matting equation with known foreground and background, Smith and
Blinn 1996): half mixed is the edge. The lens mixes light, where half skin and half dark room looks
three quarters skin; what comes after (scaling, coding) mixes sRGB values. The edge is put halfway
between what the two say. Only a few pixels to either side are looked at, because a head
gets darker, or lighter, towards its outline. Where both sides look alike the edge stays.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Float32Array
from ..srgb import to_linear
from .hull import silhouette_distance
from .silhouettes import subpixel_distance

BoolImage = npt.NDArray[np.bool_]
_LINEAR = (255.0 * to_linear(np.arange(256) / 255.0)).astype(np.float32)
"""Linear light, 0..255, of the 256 sRGB values."""
_SIDES = (1.5, 3.0)
"""Distances to the edge, in pixels, between which a side's colour is taken."""
_WINDOW = 5
"""Side of the square window, in pixels, in which it is averaged."""
_NOISE = 8.0
"""Noise of the picture in grey levels, standard deviation."""
_DOUBT = 4.0
"""Squared contrast, in standard deviations, at which picture and old edge count the same."""
_MOVE = 2.0
"""Most pixels that the edge moves in one round."""
_BLUR = 3.0
"""Width in pixels of the old edge where the picture says nothing."""


def refine_edge(
    image: ByteImage, solid: BoolImage, whole: Callable[[BoolImage], BoolImage], rounds: int = 2
) -> Float32Array:
    """Signed distance ``(H, W)`` in pixels to the edge that the picture shows, positive outside.

    Args:
        image: RGB ``(H, W, 3)``.
        solid: The mask so far ``(H, W)``, off by a pixel or two.
        whole: Makes a mask one piece without holes; applied after every round.
        rounds: How often the edge is moved.
    """
    picture = image.astype(np.float32)
    light = np.asarray(cv2.LUT(image, _LINEAR), np.float32)
    distance = silhouette_distance(solid)
    for _ in range(rounds):
        field = 0.5 - _coverage(picture, light, distance)
        solid = whole(field < 0)
        # What ``whole`` removed or filled is no edge.
        field = np.where((field < 0) == solid, field, np.where(solid, -1e-3, 1e-3))
        distance = subpixel_distance(field.astype(np.float32))
    return distance


def _coverage(picture: Float32Array, light: Float32Array, distance: Float32Array) -> Float32Array:
    """Share ``(H, W)`` of the person in each pixel near the edge, by colour.

    Args:
        picture: sRGB ``(H, W, 3)``, 0..255.
        light: The same in linear light, 0..255.
        distance: To the edge so far ``(H, W)``, pixels.
    """
    inside = (distance <= -_SIDES[0]) & (distance >= -_SIDES[1])
    outside = (distance >= _SIDES[0]) & (distance <= _SIDES[1])
    person, person_spread, lit, person_known = _side(picture, light, inside)
    room, room_spread, unlit, room_known = _side(picture, light, outside)
    noise = person_spread + room_spread + np.float32(_NOISE**2)
    share, separation = _mixed(picture, person, room, noise)
    trust = np.where(person_known & room_known, separation / (separation + _DOUBT), 0.0)
    # sRGB noise in linear light grows with the curve's slope; its square is about light ** 1.1.
    slope = cv2.pow(np.maximum((lit + unlit) / 510.0, 1e-3), 1.1)
    share = 0.5 * (share + _mixed(light, lit, unlit, noise * slope)[0])
    before = np.clip(0.5 - distance / _BLUR, 0.0, 1.0)
    mixed = trust * np.clip(share, -0.2, 1.2) + (1.0 - trust) * before
    mixed = np.where(distance <= -_MOVE, 1.0, np.where(distance >= _MOVE, 0.0, mixed))
    return np.asarray(cv2.GaussianBlur(mixed.astype(np.float32), (3, 3), 0.5), np.float32)


def _mixed(
    picture: Float32Array, person: Float32Array, room: Float32Array, noise: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Share of the person that explains the picture best, and how far the two sides are apart.

    Args:
        picture: ``(H, W, 3)``.
        person: Its colour at the edge, the same shape.
        room: That of the room.
        noise: Variance, the same shape; the channels are taken as independent.

    Returns:
        The share ``(H, W)``, not limited to 0..1, and the squared distance in standard deviations.
    """
    contrast = person - room
    direction = contrast / noise  # Fisher's
    separation = (direction * contrast).sum(2)
    share = ((picture - room) * direction).sum(2) / (separation + 1e-6)
    return share, separation


def _side(
    picture: Float32Array, light: Float32Array, chosen: BoolImage
) -> tuple[Float32Array, Float32Array, Float32Array, BoolImage]:
    """Of the chosen pixels in each window: mean and variance ``(H, W, 3)`` of the picture, mean of
    the light; whether there are any."""
    weight = chosen.astype(np.float32)
    count = _box(weight)
    safe = (count + 1e-6)[..., None]
    mean, square, lit = (
        np.asarray(_box(values * weight[..., None]) / safe, np.float32)
        for values in (picture, picture * picture, light)
    )
    return mean, np.maximum(square - mean * mean, 0.0), lit, count > 1e-3


def _box(values: Float32Array) -> Float32Array:
    window = (_WINDOW, _WINDOW)
    return np.asarray(cv2.boxFilter(values, -1, window, borderType=cv2.BORDER_REFLECT), np.float32)
