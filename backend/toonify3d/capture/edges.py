"""Where exactly a mask's edge lies in the picture, to a fraction of a pixel.

A colour model calls the mixed pixels of an edge one side or the other; which, depends on what else
has such colours, so its edges are biased. Here each edge pixel is compared with what lies just
inside and just outside of it (the matting equation with known foreground and background, Smith and
Blinn 1996): half mixed is the edge. The lens mixes light, where half skin and half dark room looks
three quarters skin; what comes after (scaling, coding) mixes sRGB values. The edge is put halfway
between what the two say. Only a few pixels to either side are looked at, because a head
gets darker, or lighter, towards its outline. Where both sides look alike the edge stays.

A body that turns away from the light has a dark rim, often as dark as the room behind: then the
strongest edge is the rim's inner one, and a mask that follows it is two or three pixels too small.
Dimmer light does not change the hue, so first it is asked which pixels are the person's colour in
dimmer light, compared with the room beyond a rim's width; the answer counts as far as the two
differ in hue, and it only adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
_ROUNDS = ((2.0, True), (2.0, True), (1.5, False))
"""Of each round: most pixels that the edge moves, and whether a dark rim is looked for."""
_BEYOND = (2.5, 5.0)
"""Distances to the edge, in pixels, between which the room beyond a dark rim is taken."""
_WIDER = 7
"""Side of the square window, in pixels, in which that is averaged."""
_DIMMER = 0.3
"""How much dimmer the person gets, standard deviation as a share."""
_DIMMEST = (0.4, 0.6)
"""Shares of the person's colour that no rim has, and that one may have."""
_RIM_DOUBT = 1.0
"""As ``_DOUBT``, of the contrast that dimmer light leaves."""
_PLAIN = 0.03
"""How much the contrast that brightness makes too speaks against a rim."""
_BLUR = 3.0
"""Width in pixels of the old edge where the picture says nothing."""


def refine_edge(
    image: ByteImage, solid: BoolImage, whole: Callable[[BoolImage], BoolImage]
) -> Float32Array:
    """Signed distance ``(H, W)`` in pixels to the edge that the picture shows, positive outside.

    Args:
        image: RGB ``(H, W, 3)``.
        solid: The mask so far ``(H, W)``, off by a pixel or two.
        whole: Makes a mask one piece without holes; applied after every round.
    """
    distance = silhouette_distance(solid)
    for move, rim in _ROUNDS:
        field = (distance >= 0).astype(np.float32) - 0.5
        near = _surroundings(distance, move + _BEYOND[1] + _WIDER)
        field[near] = 0.5 - _coverage(image[near], distance[near], move, rim)
        solid = whole(field < 0)
        # What ``whole`` removed or filled is no edge.
        field = np.where((field < 0) == solid, field, np.where(solid, -1e-3, 1e-3))
        distance = subpixel_distance(field.astype(np.float32))
    return distance


def _surroundings(distance: Float32Array, reach: float) -> tuple[slice, slice]:
    """The part of the picture with all places within ``reach`` pixels of the edge."""
    close = np.abs(distance) < reach
    rows, columns = np.flatnonzero(close.any(1)), np.flatnonzero(close.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _coverage(image: ByteImage, distance: Float32Array, move: float, rim: bool) -> Float32Array:
    """Share ``(H, W)`` of the person in each pixel near the edge, by colour.

    Args:
        image: RGB ``(H, W, 3)``.
        distance: To the edge so far ``(H, W)``, pixels.
        move: Farther from it nothing changes.
        rim: Look for a dark rim outside it.
    """
    if not image.size:
        return np.zeros(distance.shape, np.float32)
    picture = image.astype(np.float32)
    light = np.asarray(cv2.LUT(image, _LINEAR), np.float32)
    person = _side(picture, light, (distance <= -_SIDES[0]) & (distance >= -_SIDES[1]), _WINDOW)
    room = _side(picture, light, (distance >= _SIDES[0]) & (distance <= _SIDES[1]), _WINDOW)
    noise = _noise(person, room)
    share, separation = _mixed(picture, person.colour, room.colour, noise)
    trust = np.where(person.known & room.known, separation / (separation + _DOUBT), 0.0)
    # sRGB noise in linear light grows with the curve's slope; its square is about light ** 1.1.
    slope = cv2.pow(np.maximum((person.light + room.light) / 510.0, 1e-3), 1.1)
    share = 0.5 * (share + _mixed(light, person.light, room.light, noise * slope)[0])
    if rim:
        beyond = (distance >= _BEYOND[0]) & (distance <= _BEYOND[1])
        dimmed, sure = _dimmed(picture, person, _side(picture, light, beyond, _WIDER))
        sure = np.where(dimmed > share, sure, 0.0)
        share, trust = sure * dimmed + (1.0 - sure) * share, np.maximum(trust, sure)
    before = np.clip(0.5 - distance / _BLUR, 0.0, 1.0)
    mixed = trust * np.clip(share, -0.2, 1.2) + (1.0 - trust) * before
    mixed = np.where(distance <= -move, 1.0, np.where(distance >= move, 0.0, mixed))
    return np.asarray(cv2.GaussianBlur(mixed.astype(np.float32), (3, 3), 0.5), np.float32)


class _Side(NamedTuple):
    """What lies on one side of the edge: mean and variance ``(H, W, 3)`` of the picture, mean of
    the light, and whether there is anything in the window ``(H, W)``."""

    colour: Float32Array
    spread: Float32Array
    light: Float32Array
    known: BoolImage


def _noise(person: _Side, room: _Side) -> Float32Array:
    return person.spread + room.spread + np.float32(_NOISE**2)


def _dimmed(picture: Float32Array, person: _Side, room: _Side) -> tuple[Float32Array, Float32Array]:
    """Share of the person, in light that may be dimmer than on the person's side.

    The person's colour at a pixel is ``s`` times that of its side. ``s`` is unknown, so it adds to
    the noise along that colour (Sherman and Morrison 1950 invert the sum): brightness tells little,
    hue as much as before.

    Returns:
        The share ``(H, W)``, and how far to believe it, 0 to 1: not where it asks for more light.
    """
    noise = _noise(person, room)
    contrast, own = person.colour - room.colour, person.colour / noise
    strength = np.float32(_DIMMER**2) / (1.0 + _DIMMER**2 * (person.colour * own).sum(2))
    direction = contrast / noise - own * (strength * (own * contrast).sum(2))[..., None]
    separation = (direction * contrast).sum(2)
    offset = picture - room.colour
    share = (offset * direction).sum(2) / (separation + 1e-6)
    dimmer = ((offset - share[..., None] * contrast) * own).sum(2) < 0.0
    # Black is every colour in dim enough light.
    left = (picture * own).sum(2) / ((person.colour * own).sum(2) + 1e-6)
    lit = np.clip((left - _DIMMEST[0]) / (_DIMMEST[1] - _DIMMEST[0]), 0.0, 1.0)
    doubt = _RIM_DOUBT + _PLAIN * (contrast * contrast / noise).sum(2)
    sure = np.where(person.known & room.known & dimmer, separation / (separation + doubt), 0.0)
    sure = lit * sure
    return np.clip(share, -0.5, 1.5), sure.astype(np.float32)


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


def _side(picture: Float32Array, light: Float32Array, chosen: BoolImage, window: int) -> _Side:
    """Of the chosen pixels in each window."""
    weight = chosen.astype(np.float32)
    count = _box(weight, window)
    safe = (count + 1e-6)[..., None]
    mean, square, lit = (
        np.asarray(_box(values * weight[..., None], window) / safe, np.float32)
        for values in (picture, picture * picture, light)
    )
    return _Side(mean, np.maximum(square - mean * mean, 0.0), lit, count > 1e-3)


def _box(values: Float32Array, window: int) -> Float32Array:
    size = (window, window)
    return np.asarray(cv2.boxFilter(values, -1, size, borderType=cv2.BORDER_REFLECT), np.float32)
