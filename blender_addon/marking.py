# SPDX-License-Identifier: GPL-3.0-or-later
"""What clicks, drags and keys do while an artist marks a face. No bpy here: see face_editor.py.

Region points count from the region's bottom left corner, as Blender's events do; picture points
from the upright picture's top left corner, as the backend reads them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .places import NEEDED, PLACES, Point, arranged, complaint

GRAB = 13.0
"""How near a point the pointer takes hold of it, in pixels at interface scale 1."""

BAR_HEIGHT = 56.0
"""Height of the bar with the prompt above the picture, in pixels at interface scale 1."""

BUTTONS_HEIGHT = 42.0
"""Height of the strip with the buttons below it."""

_MARGIN = 0.97
_ZOOM_STEP = 1.25
_BUTTONS = (("undo", "Undo"), ("cancel", "Cancel"), ("done", "Done"))
_BUTTON_WIDTH, _BUTTON_HEIGHT, _BUTTON_GAP = 96.0, 26.0, 8.0

_PRESSES = {"PRESS", "DOUBLE_CLICK"}
"""Blender calls the second of two quick clicks a double click, wherever it is."""


class Outcome(enum.Enum):
    """What an event led to."""

    NOTHING = "nothing"
    CHANGED = "changed"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Rect:
    """A rectangle of a region."""

    x: float
    y: float
    width: float
    height: float

    def holds(self, x: float, y: float) -> bool:
        """True when the point lies in it."""
        return 0 <= x - self.x < self.width and 0 <= y - self.y < self.height


@dataclass(frozen=True)
class Input:
    """An event of Blender's, in region pixels.

    Attributes:
        kind: ``Event.type``.
        value: ``Event.value``.
        x: From the region's left border.
        y: From its lower border.
        command: Ctrl, or Cmd on macOS, is held.
    """

    kind: str
    value: str
    x: float
    y: float
    command: bool = False


class View:
    """Where the picture lies in the region.

    Args:
        picture: Its width and height.
        free: The part of the region for the picture.
    """

    def __init__(self, picture: tuple[int, int], free: Rect) -> None:
        self.picture = picture
        self.free = free
        self.scale = self.left = self.top = 0.0
        self.fit()

    def fit(self) -> None:
        """Show the whole picture."""
        width, height = self.picture
        self.scale = self._fitting()
        self.left = self.free.x + (self.free.width - self.scale * width) / 2
        self.top = self.free.y + (self.free.height + self.scale * height) / 2

    def resize(self, free: Rect) -> None:
        """The region has changed."""
        if free != self.free:
            self.free = free
            self.fit()

    def zoom(self, factor: float, x: float, y: float) -> None:
        """Enlarge, with the picture's place under a region point staying there."""
        fixed_x, fixed_y = self.to_picture(x, y)
        least = 0.5 * self._fitting()
        self.scale = min(max(self.scale * factor, least), max(60 * least, 8.0))
        self.left, self.top = x - self.scale * fixed_x, y + self.scale * fixed_y

    def pan(self, dx: float, dy: float) -> None:
        """Move the picture, of which some always stays in sight."""
        width, height = (self.scale * side for side in self.picture)
        self.left = _clamp(self.left + dx, self.free.x - 0.8 * width, self._right(0.2 * width))
        low = self.free.y + 0.2 * height
        self.top = _clamp(self.top + dy, low, self.free.y + self.free.height + 0.8 * height)

    def to_picture(self, x: float, y: float) -> Point:
        """Picture point under a region point; it may lie outside the picture."""
        return (x - self.left) / self.scale, (self.top - y) / self.scale

    def to_region(self, point: Point) -> Point:
        """Region point of a picture point."""
        return self.left + self.scale * point[0], self.top - self.scale * point[1]

    def inside(self, point: Point) -> bool:
        """True for points of the picture."""
        return 0 <= point[0] <= self.picture[0] and 0 <= point[1] <= self.picture[1]

    def clamped(self, point: Point) -> Point:
        """The nearest point of the picture."""
        width, height = self.picture
        return _clamp(point[0], 0, width), _clamp(point[1], 0, height)

    def _fitting(self) -> float:
        width, height = self.picture
        fits = min(self.free.width / width, self.free.height / height)
        return max(_MARGIN * fits, 1e-3)

    def _right(self, least: float) -> float:
        return self.free.x + self.free.width - least


class Marking:
    """The points of one picture while they are clicked.

    Args:
        view: Where the picture lies.
        points: What is marked already.
        ui_scale: Blender's interface scale.
    """

    def __init__(self, view: View, points: Mapping[str, Point], ui_scale: float = 1.0) -> None:
        self.view = view
        self.points = dict(points)
        self.pointer: Point = (-1.0, -1.0)
        self.note = ""
        self.dragged = ""
        self._ui_scale = ui_scale
        self._history: list[dict[str, Point]] = []
        self._grip: Point = (0.0, 0.0)
        self._panning = False

    @property
    def next_place(self) -> str:
        """Name of the place to click now; empty when all are set."""
        return next((place.name for place in PLACES if place.name not in self.points), "")

    @property
    def prompt(self) -> str:
        """What to do now, in one sentence."""
        wanted = next((place for place in PLACES if place.name == self.next_place), None)
        if wanted is None:
            return "Drag a point to correct it. Press Enter when all are right"
        if wanted.name not in NEEDED:
            return complaint(arranged(self.points)) or wanted.prompt
        return f"{len(self.points) + 1} of {len(NEEDED)}: {wanted.prompt}"

    def buttons(self) -> list[tuple[str, str, Rect]]:
        """Name, text and place of the buttons below the picture."""
        scale, free = self._ui_scale, self.view.free
        width, gap = _BUTTON_WIDTH * scale, _BUTTON_GAP * scale
        left = free.x + (free.width - 3 * width - 2 * gap) / 2
        bottom = free.y - BUTTONS_HEIGHT * scale + gap
        return [
            (
                name,
                text,
                Rect(left + index * (width + gap), bottom, width, _BUTTON_HEIGHT * scale),
            )
            for index, (name, text) in enumerate(_BUTTONS)
        ]

    def handle(self, event: Input) -> Outcome:
        """Act on an event."""
        before = self.pointer
        self.pointer = event.x, event.y
        if event.kind == "MOUSEMOVE":
            return self._moved(event.x - before[0], event.y - before[1])
        if event.kind in {"LEFTMOUSE", "MIDDLEMOUSE"} and event.value == "RELEASE":
            return self._released()
        if event.value not in _PRESSES:
            return Outcome.NOTHING
        if event.kind == "MIDDLEMOUSE":
            self._panning = True
            return Outcome.CHANGED
        if event.kind in {"WHEELUPMOUSE", "WHEELDOWNMOUSE"}:
            factor = _ZOOM_STEP if event.kind == "WHEELUPMOUSE" else 1 / _ZOOM_STEP
            self.view.zoom(factor, event.x, event.y)
            return Outcome.CHANGED
        self.note = ""
        if event.kind == "LEFTMOUSE":
            return self._pressed(event.x, event.y)
        return self._key(event)

    def nearest(self, x: float, y: float) -> str:
        """The point that a press there would take hold of; empty for none."""
        far = {name: math.dist(self.view.to_region(at), (x, y)) for name, at in self.points.items()}
        name = min(far, key=lambda key: far[key], default="")
        return name if name and far[name] <= GRAB * self._ui_scale else ""

    def result(self) -> dict[str, Point]:
        """The points, every side in its place."""
        return arranged(self.points)

    def undo(self) -> None:
        """Take back the last click or drag; of points from before, the last."""
        if self._history:
            self.points = self._history.pop()
        elif self.points:
            last = [place.name for place in PLACES if place.name in self.points][-1]
            del self.points[last]

    def _key(self, event: Input) -> Outcome:
        if event.kind in {"ESC", "RIGHTMOUSE"}:
            if not self.dragged:
                return Outcome.CANCELLED
            self.dragged = ""
            self.undo()
        elif event.kind in {"BACK_SPACE", "DEL"} or (event.kind == "Z" and event.command):
            self.dragged = ""
            self.undo()
        elif event.kind in {"RET", "NUMPAD_ENTER"}:
            return self._confirm()
        elif event.kind == "HOME":
            self.view.fit()
        else:
            return Outcome.NOTHING
        return Outcome.CHANGED

    def _confirm(self) -> Outcome:
        self.note = complaint(self.result())
        return Outcome.CHANGED if self.note else Outcome.DONE

    def _pressed(self, x: float, y: float) -> Outcome:
        button = next((name for name, _, rect in self.buttons() if rect.holds(x, y)), "")
        if button == "undo":
            self.undo()
            return Outcome.CHANGED
        if button:
            return Outcome.CANCELLED if button == "cancel" else self._confirm()
        point, name = self.view.to_picture(x, y), self.nearest(x, y)
        if not name:
            if not self.view.inside(point):
                self.note = "Click inside the picture"
                return Outcome.CHANGED
            name = self.next_place
            if not name:
                self.note = "All points are set: drag one to correct it, or press Enter"
                return Outcome.CHANGED
        self._history.append(dict(self.points))
        placed = self.points.setdefault(name, point)
        self.dragged, self._grip = name, (placed[0] - point[0], placed[1] - point[1])
        return Outcome.CHANGED

    def _moved(self, dx: float, dy: float) -> Outcome:
        if self._panning:
            self.view.pan(dx, dy)
        elif self.dragged:
            x, y = self.view.to_picture(*self.pointer)
            self.points[self.dragged] = self.view.clamped((x + self._grip[0], y + self._grip[1]))
        return Outcome.CHANGED

    def _released(self) -> Outcome:
        self._panning = False
        if self.dragged:
            self.dragged = ""
            if self._history and self._history[-1] == self.points:  # taken hold of, not moved
                self._history.pop()
        return Outcome.CHANGED


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
