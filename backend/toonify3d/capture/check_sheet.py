"""The contact sheet of ``toonify3d check``: pictures round the circle, a clock, the findings."""

from __future__ import annotations

import textwrap

import cv2
import numpy as np

from ..scene import ByteImage
from .check import Look, Measured, spread_looks
from .findings import CheckReport, Severity
from .turn import clock_position, missing_arcs

WIDTH, COLUMNS, ROWS = 1440, 6, 2
_COLOURS: dict[Severity, tuple[int, int, int]] = {
    "ok": (110, 190, 110),
    "hint": (120, 170, 230),
    "warning": (240, 180, 70),
    "stop": (240, 90, 80),
}
_BACK, _TEXT, _DIM = (32, 33, 36), (230, 230, 230), (140, 142, 146)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(measured: Measured, report: CheckReport) -> ByteImage:
    """RGB ``(H, 1440, 3)``: twelve pictures with the face marked, a clock and the findings."""
    tiles = [_tile(look, measured) for look in spread_looks(measured.looks, COLUMNS * ROWS)]
    blank = np.full_like(tiles[0], _BACK)
    tiles += [blank] * (COLUMNS * ROWS - len(tiles))
    rows = [np.concatenate(tiles[i * COLUMNS : (i + 1) * COLUMNS], axis=1) for i in range(ROWS)]
    lines = _lines(report)
    foot = np.full((max(360, 80 + 24 * len(lines)), WIDTH, 3), _BACK, np.uint8)
    _draw_clock(foot, measured)
    verdict, colour = _verdict(report)
    _write(foot, verdict, (350, 38), colour, 0.75)
    for index, (text, colour) in enumerate(lines):
        _write(foot, text, (350, 74 + 24 * index), colour)
    return np.concatenate([*rows, foot], axis=0)


def _tile(look: Look, measured: Measured) -> ByteImage:
    side = WIDTH // COLUMNS
    height, width = look.image.shape[:2]
    scale = side / width
    size = (side, round(height * scale))
    tile = np.asarray(cv2.resize(look.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if look.face is not None:
        x0, y0, x1, y1 = (round(scale * value) for value in look.face.box)
        cv2.rectangle(tile, (x0, y0), (x1, y1), _COLOURS["ok"], 2)
    text = f"frame {look.source_index}" if measured.is_video else f"image {look.source_index}"
    if measured.turn_known:
        degrees = float(np.degrees(measured.turn.angles[look.place]))
        text += f", {clock_position(degrees)} o'clock"
    (width, _), _ = cv2.getTextSize(text, _FONT, 0.55, 1)
    cv2.rectangle(tile, (0, 0), (width + 12, 24), _BACK, -1)
    _write(tile, text, (6, 17), _TEXT)
    return tile


def _verdict(report: CheckReport) -> tuple[str, tuple[int, int, int]]:
    """The answer in one line, and its colour."""
    grave = {item.severity for item in report.findings}
    if "stop" in grave:
        return "This capture cannot be used as it is:", _COLOURS["stop"]
    if "warning" in grave:
        return "Usable, but filming again is worth it:", _COLOURS["warning"]
    return "Good to go.", _COLOURS["ok"]


def _lines(report: CheckReport) -> list[tuple[str, tuple[int, int, int]]]:
    order = ("stop", "warning", "hint", "ok")
    lines = []
    for item in sorted(report.findings, key=lambda item: order.index(item.severity)):
        wrapped = textwrap.wrap(f"{item.severity.upper()}: {item.what} {item.what_to_do}", 108)
        lines += [
            (line if first else f"    {line}", _COLOURS[item.severity])
            for line, first in zip(wrapped, [True] + [False] * len(wrapped), strict=False)
        ]
    return lines


def _draw_clock(picture: ByteImage, measured: Measured) -> None:
    """The circle seen from above, face at the top; where the camera was, and what is missing."""
    center, radius = (170, 165), 105
    _write(picture, "seen from above", (98, 332), _DIM)
    cv2.circle(picture, center, radius, _DIM, 1, cv2.LINE_AA)
    cv2.circle(picture, center, 30, _DIM, -1, cv2.LINE_AA)
    cv2.circle(picture, (center[0], center[1] - 30), 7, _DIM, -1, cv2.LINE_AA)  # the nose
    for hour, (dx, dy) in {12: (-9, -118), 3: (118, 6), 6: (-5, 134), 9: (-132, 6)}.items():
        _write(picture, str(hour), (center[0] + dx, center[1] + dy), _DIM)
    if not measured.turn_known:
        _write(picture, "(turn not known)", (94, 352), _DIM)
        return
    for angle in measured.turn.angles:
        # The person's left is left on the clock (9), angles are positive to it.
        x, y = center[0] - radius * np.sin(angle), center[1] - radius * np.cos(angle)
        cv2.circle(picture, (round(float(x)), round(float(y))), 4, _COLOURS["ok"], -1, cv2.LINE_AA)
    for gap in missing_arcs(measured.turn.angles):
        start = -90.0 - gap.start - gap.width
        cv2.ellipse(
            picture, center, (radius, radius), 0, start, start + gap.width,
            _COLOURS["stop"], 6, cv2.LINE_AA,
        )  # fmt: skip
    if missing_arcs(measured.turn.angles):
        _write(picture, "red: not filmed", (98, 352), _COLOURS["stop"])


def _write(
    picture: ByteImage,
    text: str,
    place: tuple[int, int],
    colour: tuple[int, int, int],
    size: float = 0.55,
) -> None:
    plain = text.encode("ascii", "replace").decode("ascii")  # OpenCV's font has no more
    cv2.putText(picture, plain, place, _FONT, size, colour, 1, cv2.LINE_AA)
