# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture over a 3D viewport, in which an artist clicks eyes, nose and mouth.

Drawn over the viewport that the panel belongs to, not in an Image Editor or a window of its own:
it needs no room in the workspace, changes no layout, and nothing has to be put back but a drawing
callback. The picture is a texture, not an image of the .blend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bpy

from .exemplar_picture import Picture
from .marking import BAR_HEIGHT, BUTTONS_HEIGHT, Input, Marking, Outcome, Rect, View
from .places import Point

current: FaceEditor | None = None
"""The open editor; there is never more than one."""


class FaceEditor:
    """The open editor.

    Args:
        window: Where it is.
        area: A 3D viewport.
        picture: What to show.
        points: What is marked already.
    """

    def __init__(
        self,
        window: bpy.types.Window,
        area: bpy.types.Area,
        picture: Picture,
        points: Mapping[str, Point],
    ) -> None:
        global current
        self._window, self._area = window, area
        self._region = _main_region(area)
        self._scale = max(bpy.context.preferences.system.ui_scale, 0.1)
        self.marking = Marking(View(picture.size, self._free()), points, self._scale)
        self._texture = None
        self._handler: Any = None
        if not bpy.app.background:  # there is no GPU, and nothing is drawn
            from . import face_canvas

            self._texture = face_canvas.make_texture(picture.pixels)
            self._handler = bpy.types.SpaceView3D.draw_handler_add(
                self._draw, (), "WINDOW", "POST_PIXEL"
            )
            window.cursor_modal_set("CROSSHAIR")
        current = self
        self._tell()

    def handle(self, event: bpy.types.Event) -> Outcome:
        """Act on an event; closes itself with the last one."""
        if not self._alive():
            self.close()
            return Outcome.CANCELLED
        self.marking.view.resize(self._free())
        outcome = self._navigate(event) or self.marking.handle(
            Input(
                event.type,
                event.value,
                event.mouse_x - self._region.x,
                event.mouse_y - self._region.y,
                bool(event.ctrl or event.oskey),
            )
        )
        if outcome in (Outcome.DONE, Outcome.CANCELLED):
            self.close()
        elif outcome is Outcome.CHANGED:
            self._tell()
        return outcome

    def close(self) -> None:
        """Give the viewport back; safe to call twice."""
        global current
        if current is self:
            current = None
        if self._handler is not None:
            bpy.types.SpaceView3D.draw_handler_remove(self._handler, "WINDOW")
            self._handler = self._texture = None
            self._window.cursor_modal_restore()
        self._status(None)
        if self._alive():
            self._area.tag_redraw()

    def _navigate(self, event: bpy.types.Event) -> Outcome | None:
        """Two fingers on a touchpad; the mouse's own are in :class:`Marking`."""
        if event.type not in {"TRACKPADPAN", "TRACKPADZOOM"}:
            return None
        view = self.marking.view
        dx, dy = event.mouse_x - event.mouse_prev_x, event.mouse_y - event.mouse_prev_y
        if event.type == "TRACKPADPAN":
            view.pan(dx, dy)
        else:
            at = event.mouse_x - self._region.x, event.mouse_y - self._region.y
            view.zoom(1.0 + min(max((dx + dy) / 200, -0.5), 0.5), *at)
        return Outcome.CHANGED

    def _tell(self) -> None:
        """Show the prompt in the status bar too, and draw again."""
        self._status(self.marking.note or self.marking.prompt)
        self._area.tag_redraw()

    def _status(self, text: str | None) -> None:
        workspace = self._window.workspace if self._window_lives() else None
        if workspace is not None:
            workspace.status_text_set(text)

    def _window_lives(self) -> bool:
        return any(item == self._window for item in bpy.context.window_manager.windows)

    def _alive(self) -> bool:
        """False when the viewport has gone or has become another editor."""
        if not self._window_lives():
            return False
        areas = self._window.screen.areas
        return any(item == self._area and item.type == "VIEW_3D" for item in areas)

    def _free(self) -> Rect:
        """The part of the viewport that nothing covers, between the bar and the buttons."""
        main = self._region
        left, bottom, right, top = 0, 0, max(main.width, 1), max(main.height, 1)
        for region in self._area.regions:
            if region.type == "WINDOW" or min(region.width, region.height) < 2:
                continue
            x, y = region.x - main.x, region.y - main.y
            side = region.alignment
            if side == "LEFT" and region.width < main.width:
                left = max(left, x + region.width)
            elif side == "RIGHT" and region.width < main.width:
                right = min(right, x)
            elif side == "TOP":
                top = min(top, y)
            elif side == "BOTTOM":
                bottom = max(bottom, y + region.height)
        if right - left < 120 or top - bottom < 120:  # all but covered: then below the sidebars
            left, bottom, right, top = 0, 0, max(main.width, 1), max(main.height, 1)
        bottom += round(BUTTONS_HEIGHT * self._scale)
        bar = BAR_HEIGHT * self._scale
        return Rect(left, bottom, max(right - left, 1), max(top - bottom - bar, 1))

    def _draw(self) -> None:
        """Blender's callback, for every region of every viewport."""
        if bpy.context.region != self._region or self._texture is None:
            return
        from . import face_canvas

        self.marking.view.resize(self._free())
        face_canvas.draw(self.marking, self._texture, self._region)


def _main_region(area: bpy.types.Area) -> bpy.types.Region:
    """The viewport itself; of a quad view the largest part."""
    regions = [item for item in area.regions if item.type == "WINDOW"]
    return max(regions, key=lambda item: item.width * item.height)


def close() -> None:
    """Close an open editor (the add-on is being disabled)."""
    if current is not None:
        current.close()
