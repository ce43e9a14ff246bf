# SPDX-License-Identifier: GPL-3.0-or-later
"""The places of a face that an artist clicks in an exemplar: names, order, what is wrong with them.

Names and rules are the backend's (``portrait2d/clicks.py``). Points are ``(x, y)`` in pixels of the
upright picture file, from its top left corner, x to the right, y down. No bpy here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """One place to click.

    Attributes:
        name: The backend's; right and left are the drawn person's own.
        label: Beside the marker.
        prompt: What to click, as the artist sees the picture.
    """

    name: str
    label: str
    prompt: str


PLACES = (
    Place("right_eye", "Eye", "Click the middle of the eye on the left of the picture"),
    Place("left_eye", "Eye", "Click the middle of the eye on the right of the picture"),
    Place("nose", "Nose", "Click the tip of the nose"),
    Place("mouth_right", "Mouth", "Click the corner of the mouth on the left of the picture"),
    Place("mouth_left", "Mouth", "Click the corner of the mouth on the right of the picture"),
    Place("chin", "Chin", "Done? Press Enter. Or click the tip of the chin as well"),
)
"""In the order of clicking; the last may be left out."""

NEEDED = tuple(place.name for place in PLACES[:5])
_LEAST_EYES = 4.0
"""Pixels between the eyes, below which the backend refuses a face."""

_LEAST_PART = 0.06
"""Of the eyes' distance: how far below the eyes the nose is at least, and the mouth below it (the
backend asks for 0.05)."""


def arranged(points: Mapping[str, Point]) -> dict[str, Point]:
    """The points with both eyes and both corners of the mouth on their sides of the picture.

    Artists are asked for sides of the picture, and mix them up all the same: it never matters.
    """
    found = dict(points)
    if _has(found, "right_eye", "left_eye") and found["right_eye"][0] > found["left_eye"][0]:
        found["right_eye"], found["left_eye"] = found["left_eye"], found["right_eye"]
    if _has(found, "right_eye", "left_eye", "mouth_right", "mouth_left"):
        eyes = _minus(found["left_eye"], found["right_eye"])
        mouth = _minus(found["mouth_left"], found["mouth_right"])
        if eyes[0] * mouth[0] + eyes[1] * mouth[1] < 0:
            found["mouth_right"], found["mouth_left"] = found["mouth_left"], found["mouth_right"]
    return found


def complaint(points: Mapping[str, Point]) -> str:
    """What keeps these (arranged) points from being a face, in one sentence; empty when nothing."""
    missing = [name for name in NEEDED if name not in points]
    if missing:
        return f"{len(missing)} more to click"
    eyes = _minus(points["left_eye"], points["right_eye"])
    wide = math.hypot(*eyes)
    if eyes[0] <= 0 or wide < _LEAST_EYES:
        return "The eyes are too close together: drag one to its place"
    across = (eyes[0] / wide, eyes[1] / wide)
    middle = _middle(points["left_eye"], points["right_eye"])

    def below(point: Point) -> float:
        away = _minus(point, middle)
        return (across[0] * away[1] - across[1] * away[0]) / wide

    corners = _minus(points["mouth_left"], points["mouth_right"])
    nose, mouth = below(points["nose"]), below(_middle(points["mouth_left"], points["mouth_right"]))
    if (across[0] * corners[0] + across[1] * corners[1]) / wide < _LEAST_PART:
        return "The corners of the mouth are too close together: drag one to its place"
    if nose < _LEAST_PART:
        return "The nose must be below the eyes: drag it to its place"
    if mouth < nose + _LEAST_PART:
        return "The mouth must be below the nose: drag it to its place"
    if "chin" in points and below(points["chin"]) < mouth + _LEAST_PART:
        return "The chin must be below the mouth: drag it there, or press Backspace"
    return ""


def _has(points: Mapping[str, Point], *names: str) -> bool:
    return all(name in points for name in names)


def _minus(one: Point, other: Point) -> Point:
    return one[0] - other[0], one[1] - other[1]


def _middle(one: Point, other: Point) -> Point:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2
