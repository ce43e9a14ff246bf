"""Landmarks of an exemplar from a file: all of them, or five clicks on a mean face."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import RBFInterpolator

from ..capture import landmarks as lm
from ..errors import InputError
from ..scene import FloatArray
from .shape import similarity

CLICKS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
"""The five places to click; right and left are the drawn person's own, so the right eye is on the
left of the picture. A sixth, ``chin``, may be given as well."""
_INDICES = {
    "right_eye": lm.RIGHT_EYE,
    "left_eye": lm.LEFT_EYE,
    "nose": (lm.NOSE_TIP,),
    "mouth_right": (61,),
    "mouth_left": (291,),
    "chin": (lm.CHIN,),
}


def read_landmarks(path: Path, scale: float) -> FloatArray:
    """Landmarks ``(478, 3)`` in the working picture's pixels.

    Args:
        path: JSON: an object with ``[x, y]`` under each name of :data:`CLICKS` (and ``chin``, if
            wanted), or a list of 478 ``[x, y]`` or ``[x, y, z]`` rows; pixels of the picture file.
        scale: Working picture's size over the file's.

    Raises:
        InputError: ``exemplar_landmarks``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The landmark file {path} cannot be read.", "exemplar_landmarks") from (
            error
        )
    if isinstance(document, dict):
        return scale * _from_clicks(document, path)
    try:
        values = np.array(document, float)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 2 or values.shape[0] != lm.LANDMARK_COUNT or values.shape[1] not in (2, 3):
        raise InputError(
            f"The landmark file {path.name} must hold {lm.LANDMARK_COUNT} [x, y] pairs, or the "
            f"five places {', '.join(CLICKS)}.",
            "exemplar_landmarks",
        )
    if not np.isfinite(values).all():
        raise InputError(f"The landmark file {path.name} holds no numbers.", "exemplar_landmarks")
    if values.shape[1] == 2:
        values = np.concatenate([values, np.zeros((len(values), 1))], axis=1)
    return np.asarray(values * scale)


def _from_clicks(document: dict[str, Any], path: Path) -> FloatArray:
    missing = [name for name in CLICKS if name not in document]
    if missing:
        raise InputError(
            f"The landmark file {path.name} lacks {', '.join(missing)}.", "exemplar_landmarks"
        )
    names = [name for name in _INDICES if name in document]
    try:
        clicked = np.array([[float(v) for v in document[name]] for name in names])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"In the landmark file {path.name} every place must be [x, y].", "exemplar_landmarks"
        ) from error
    if clicked.shape != (len(names), 2) or not np.isfinite(clicked).all():
        raise InputError(
            f"In the landmark file {path.name} every place must be [x, y].", "exemplar_landmarks"
        )
    eyes = clicked[names.index("left_eye")] - clicked[names.index("right_eye")]
    if eyes[0] <= 0 or np.linalg.norm(eyes) < 4:
        raise InputError(
            f"In the landmark file {path.name} the right eye must be on the left of the picture: "
            "right and left are the drawn person's own.",
            "exemplar_landmarks",
        )
    _check_below(dict(zip(names, clicked, strict=True)), eyes, path)
    return spread_clicks(names, clicked)


def _check_below(places: dict[str, FloatArray], eyes: FloatArray, path: Path) -> None:
    """Refuse places from which no face can be laid out: all on a line, mirrored, upside down."""
    across = eyes / np.linalg.norm(eyes)
    down = np.array([-across[1], across[0]])
    middle = (places["left_eye"] + places["right_eye"]) / 2
    mouth = (places["mouth_left"] + places["mouth_right"]) / 2
    wide = float(across @ (places["mouth_left"] - places["mouth_right"]))
    low = float(down @ (mouth - middle))
    nose = float(down @ (places["nose"] - middle))
    least = 0.05 * float(np.linalg.norm(eyes))
    if wide < least or nose < least or low < nose + least:
        raise InputError(
            f"In the landmark file {path.name} the nose must lie below the eyes and the mouth "
            "below the nose, its right corner (the drawn person's own) on the left.",
            "exemplar_landmarks",
        )


def spread_clicks(names: list[str], clicked: FloatArray) -> FloatArray:
    """Bend the mean face so that it passes through the clicked places.

    Args:
        names: Keys of the places.
        clicked: ``(n, 2)`` image points.
    """
    face = mean_face() * np.array([1.0, -1.0, -1.0])  # image rows grow downwards, z away
    own = np.stack([face[list(_INDICES[name])].mean(0) for name in names])
    flat = np.concatenate([own[:, :2], np.zeros((len(own), 1))], 1)
    goal = np.concatenate([clicked, np.zeros((len(clicked), 1))], 1)
    size, rotation, shift = similarity(flat, goal, np.ones(len(flat)))
    placed = size * face @ rotation.T + shift
    anchors = np.stack([placed[list(_INDICES[name]), :2].mean(0) for name in names])
    bend = RBFInterpolator(anchors, clicked - anchors, kernel="linear", degree=1)
    placed[:, :2] += bend(placed[:, :2])
    return np.asarray(placed)


def places_of(points: FloatArray) -> dict[str, list[float]]:
    """The places of a landmark file in landmarks ``(478, 2 or 3)``, ``[x, y]`` each."""
    places = {name: points[list(at), :2].mean(0) for name, at in _INDICES.items()}
    return {name: [round(float(value), 1) for value in place] for name, place in places.items()}


def mean_face() -> FloatArray:
    """``(478, 3)`` landmarks of a mean face in the face frame, exactly symmetric.

    Averaged by us over FaceMesh's landmarks of four public-domain pictures (two NASA and US Navy
    portraits, Mona Lisa, Duerer 1500) and the triangulated ones of two scans, each mirrored and
    aligned by a robust similarity.
    """
    values = np.frombuffer(base64.b64decode(_MEAN_FACE), "<f2").astype(float)
    return values.reshape(lm.LANDMARK_COUNT, 3)


_MEAN_FACE = (
    "AAB+tbE2AAAcmRQ5AAAhr6U2La0wNcs3AABmLj45AABuM9M4AABnOJg1Z7mhOP2oAABUOlk0AABfO4A0AACkPQsxAAAL"
    "toc2AACbth82AAAJt341AACEt3o1AAATuLk1AAB0uAs2AADjuO01AAC0ubM0AAALq7M4Ta68q4w3K7yVO1W4UrYPOAws"
    "17fyN5cqrbjtN6AltLldOBqsFrU8OBcsaLgxOvgrB7caOpQsNbkKOuknt7m3OQmdTrqlN0GvwLURuw4xs7nTOJCsVLwP"
    "OFu4LbtSOAKzordCLXAxgq8ytWg2wK6Ptsg1T7OutW812bQ6tko0RLKitg01Q7TStgY0BLdWuMovHK3mjPs43q1OLh45"
    "wrpNOmOphrRcNdIx2LRwJiY27LQbLY81FbrmLaQlj60QM544/rgvOzwwC7rkOtoqjLuEPMK1l7KJOq8zgbXDOc4rG7g2"
    "tx0u+Lt4t+S5grOhqOg1GbFBrCo2WrY7t98v+rU3t5owcrpbO3YX67QopF81IbcfOzwyabfBO5QycLhyPWEh97oePCex"
    "7besPKEvN7udOhWwxrsUOyu1Qq/ttTw2yrIvtk41kLSEtkE00rLrqrM1KLY5t08wcbWgtwEyybU6t7cwAbJum9E3BbQM"
    "t40zzrH7tos0OK79tjE1EbCquXA0ma/UuKo1Tq9muME1zq4GuGs1Jq55ty01/rNkt4AzSbSkt9YzmLQBuBE017Q/uMUz"
    "crZwtHMzXrzXKBW7AACMrb432LRct+cxI7V3txUyC7C/rjg2b7TvrJY0j7CJrTw2EbZ1NKcwSLjBMjcvLrWZKM40ULoV"
    "PWOxwLmCPHykQ7nHOwYvubXhuLExmrOOOzY0ObSyPF8y0bSdPaIvU7kVOPWlHbt+NoKxULRmOLArb7pUOVKt8bJbNvMy"
    "17OuK5k3/rtBNY+0lLp3NQ2tlbn1NIIkHbhENd0sGrb0NYsulLSrNjAwxq00OBA14buGL/azCLtnOXKwgKquqqQ4brR1"
    "M1AzdLwGOL663bJvN98wULUGJ/oyA7rOOBqu7bMPMN82PrzAsrO6X7SkONYobLHuMSY4Sbp3uUmzTLp/uhm2UryXLIa4"
    "PLtluMu1ILyxOVG3Jbb7uzYvRqlRraM3xrUpMRMy07skOCG1m7hqOFcl3rdmOM0ptrXbt5Mxwbu+rUu0prKQvLYvELgV"
    "vPStG7l/u/+yAACvPFUzAACgvAsxmbZ4OKIqb7WTOPYptLSbONIok7uHObmzvbUnORgqE7dZOVcqObhgOTUp47hEOXIk"
    "SrkYOTShYrz8ObK5ErmCOAOhAADtsVo2/LQNs6Y0e7MrpXA2RbANsiU2AABjOWI0Obl7uoKvMrhCu4GgtLI6vOsyNbtV"
    "uYm40bTYOJkp5rDfNZg1AABLvAI06LVevDkoNLzvsGG4wrFst4c0T7Lct700xrI5uPc0F7ObuNw0F7RYuZAzMbUDty4y"
    "fLXitikyv7W7tiEymLe0tUAxt7o7sLqs3bB4NzI0ibI8OXouNLQlOcQr5bQmt+0x3Lo2tjayya9KOeUy97QuugwyAABx"
    "NR44jK25NpE2AAAON+g2C7PEMp41AACru6s0AACfup80D7GRuiY0Qri+uCMsmraFqiky6LaUubIvCLm/qAQwALjbsH4x"
    "srl/sj8qJrKQuxo0bbT9MIg08rh3uROl27dYumQr47h8t88pkrtGtKi047nmt5yrAbzPtfu3m7iBtN0v17LRNI806rKo"
    "IwE4YrTJoG82krFGLYQ4grTyOV0vCLdyOksvoriLOjEuirldOrQqJrr4OUafgbqSOI6wYLyrNHq44bkHN4+rErmfNiQd"
    "Cri1NooqLLYeN60swbSdN3gtkrMIODcua7xZNCK7XLRsqMQ17rBwNM82ybBqIZw4la4JqVM407AZoEM48rMWrF41RK0F"
    "qoY4vqzYrJY3prOeOBgrD7JxOBQvHLFQOKUxhbn0OLGoBrpSOcGqLS0wNcs3ZzmhOP2oTS68q4w3KzyVO1W4UjYPOAws"
    "1zfyN5cqrTjtN6AltDldOBqsFjU8OBcsaDgxOvgrBzcaOpQsNTkKOukntzm3OQmdTjqlN0GvwDURuw4xsznTOJCsVDwP"
    "OFu4LTtSOAKzojdCLXAxgi8ytWg2wC6Ptsg1TzOutW812TQ6tko0RDKitg01QzTStgY0BDdWuMovHC3mjPs43i1OLh45"
    "wjpNOmOphjRcNdIx2DRwJiY27DQbLY81FTrmLaQljy0QM544/jgvOzwwCzrkOtoqjDuEPMK1lzKJOq8zgTXDOc4rGzg2"
    "tx0u+Dt4t+S5gjOhqOg1GTFBrCo2WjY7t98v+jU3t5owcjpbO3YX6zQopF81ITcfOzwyaTfBO5QycDhyPWEh9zoePCex"
    "7TesPKEvNzudOhWwxjsUOyu1Qi/ttTw2yjIvtk41kDSEtkE00jLrqrM1KDY5t08wcTWgtwEyyTU6t7cwATJum9E3BTQM"
    "t40zzjH7tos0OC79tjE1ETCquXA0mS/UuKo1Ti9muME1zi4GuGs1Ji55ty01/jNkt4AzSTSkt9YzmDQBuBE01zQ/uMUz"
    "cjZwtHMzXjzXKBW72DRct+cxIzV3txUyCzC/rjg2bzTvrJY0jzCJrTw2ETZ1NKcwSDjBMjcvLjWZKM40UDoVPWOxwDmC"
    "PHykQznHOwYvuTXhuLExmjOOOzY0OTSyPF8y0TSdPaIvUzkVOPWlHTt+NoKxUDRmOLArbzpUOVKt8TJbNvMy1zOuK5k3"
    "/jtBNY+0lDp3NQ2tlTn1NIIkHThENd0sGjb0NYsulDSrNjAwxi00OBA14TuGL/azCDtnOXKwgCquqqQ4bjR1M1AzdDwG"
    "OL663TJvN98wUDUGJ/oyAzrOOBqu7TMPMN82PjzAsrO6XzSkONYobDHuMSY4STp3uUmzTDp/uhm2UjyXLIa4PDtluMu1"
    "IDyxOVG3JTb7uzYvRilRraM3xjUpMRMy0zskOCG1mzhqOFcl3jdmOM0ptjXbt5MxwTu+rUu0pjKQvLYvEDgVvPStGzl/"
    "u/+ymTZ4OKIqbzWTOPYptDSbONIokzuHObmzvTUnORgqEzdZOVcqOThgOTUp4zhEOXIkSjkYOTShYjz8ObK5EjmCOAOh"
    "/DQNs6Y0ezMrpXA2RTANsiU2OTl7uoKvMjhCu4GgtDI6vOsyNTtVuYm40TTYOJkp5jDfNZg16DVevDkoNDzvsGG4wjFs"
    "t4c0TzLct700xjI5uPc0FzObuNw0FzRYuZAzMTUDty4yfDXitikyvzW7tiEymDe0tUAxtzo7sLqs3TB4NzI0iTI8OXou"
    "NDQlOcQr5TQmt+0x3Do2tjayyS9KOeUy9zQuugwyjC25NpE2CzPEMp41DzGRuiY0Qji+uCMsmjaFqiky6DaUubIvCDm/"
    "qAQwADjbsH4xsjl/sj8qJjKQuxo0bTT9MIg08jh3uROl2zdYumQr4zh8t88pkjtGtKi04znmt5yrATzPtfu3mziBtN0v"
    "1zLRNI806jKoIwE4YjTJoG82kjFGLYQ4gjTyOV0vCDdyOksvojiLOjEuijldOrQqJjr4OUafgTqSOI6wYDyrNHq44TkH"
    "N4+rEjmfNiQdCji1NooqLDYeN60swTSdN3gtkjMIODcuazxZNCK7XDRsqMQ17jBwNM82yTBqIZw4lS4JqVM40zAZoEM4"
    "8jMWrF41RC0FqoY4vizYrJY3pjOeOBgrDzJxOBQvHDFQOKUxhTn0OLGoBjpSOcGq8rfnOAkmcLbpOPsm9LeQOYwivbjn"
    "OJkk87c/OFEo8jfnOAkmvTjnOJkk9DeQOYwicDbpOPsm8zc/OFEo"
)
