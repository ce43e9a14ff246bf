# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators for exemplars in which no face is found: five clicks, or no change of shape."""

from typing import Any

import bpy

from .. import face_editor, faces, properties, session
from ..exemplar_picture import Picture, PictureError, load_picture
from ..marking import Outcome
from ..places import Point


def _exemplar() -> Any:
    return bpy.props.StringProperty(
        name="Exemplar",
        description="Which picture; empty for the first exemplar",
        options={"HIDDEN", "SKIP_SAVE"},
    )


def _chosen(cls: type, context: bpy.types.Context) -> bool:
    """Poll of operators that need an exemplar (a failed job brings its own)."""
    if context.scene.toonify3d.exemplar.strip() or session.queue.current is not None:
        return True
    cls.poll_message_set("Choose an exemplar: one stylized portrait")
    return False


class ToonifyOtMarkFace(bpy.types.Operator):
    """Show the exemplar and click eyes, nose and mouth in it, when its face is not found."""

    bl_idname = "toonify3d.mark_face"
    bl_label = "Mark Face..."
    bl_options = {"UNDO", "INTERNAL"}

    exemplar: _exemplar()

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an exemplar, and no other one being marked."""
        if face_editor.current is not None:
            cls.poll_message_set("Finish the face that is being marked: Enter, or Esc")
            return False
        return _chosen(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Show the picture over the viewport."""
        settings = context.scene.toonify3d
        self._exemplar = self.exemplar or settings.exemplar
        path, area = properties.absolute(self._exemplar), _viewport(context)
        if path is None or area is None:
            missing = "3D viewport to show the exemplar in" if path else "exemplar"
            self.report({"ERROR"}, f"There is no {missing}")
            return {"CANCELLED"}
        try:
            self._picture: Picture = load_picture(path)
        except PictureError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self._scene = context.scene.name
        marked = faces.points(settings, self._exemplar)
        self._editor = face_editor.FaceEditor(context.window, area, self._picture, marked)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Hand the event to the editor; keep the points when it is done."""
        if face_editor.current is not self._editor:  # closed from outside
            return {"CANCELLED"}
        if event.type.startswith(("TIMER", "WINDOW_", "NONE")):
            return {"PASS_THROUGH"}
        outcome = self._editor.handle(event)
        if outcome is Outcome.CANCELLED:
            session.redraw()
            return {"CANCELLED"}
        if outcome is Outcome.DONE:
            return self._keep(self._editor.marking.result())
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends it: a file is opened, the window is closed."""
        self._editor.close()

    def _keep(self, marked: dict[str, Point]) -> set[str]:
        session.redraw()
        scene = bpy.data.scenes.get(self._scene)
        if scene is None:
            self.report({"ERROR"}, "The scene of this exemplar is gone")
            return {"CANCELLED"}
        faces.store(scene.toonify3d, self._exemplar, marked, self._picture)
        return {"FINISHED"}


def _viewport(context: bpy.types.Context) -> bpy.types.Area | None:
    """The 3D viewport the button is in, else the largest of the window."""
    if context.area is not None and context.area.type == "VIEW_3D":
        return context.area
    areas = context.window.screen.areas if context.window is not None else ()
    views = [area for area in areas if area.type == "VIEW_3D"]
    return max(views, key=lambda area: area.width * area.height, default=None)


class ToonifyOtColorsOnly(bpy.types.Operator):
    """Take only colors and strokes from this exemplar; the person keeps the shape."""

    bl_idname = "toonify3d.colors_only"
    bl_label = "Colors and Strokes Only"
    bl_options = {"UNDO", "INTERNAL"}

    exemplar: _exemplar()

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an exemplar."""
        return _chosen(cls, context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Note it for this exemplar."""
        settings = context.scene.toonify3d
        faces.set_colors_only(settings, self.exemplar or settings.exemplar, True)
        session.redraw()
        return {"FINISHED"}


class ToonifyOtClearFace(bpy.types.Operator):
    """Forget what was marked in this exemplar, and look for its face again."""

    bl_idname = "toonify3d.clear_face"
    bl_label = "Clear Face"
    bl_options = {"UNDO", "INTERNAL"}

    exemplar: _exemplar()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove the entry."""
        settings = context.scene.toonify3d
        if not faces.clear(settings, self.exemplar or settings.exemplar):
            return {"CANCELLED"}
        session.redraw()
        return {"FINISHED"}


CLASSES = (ToonifyOtMarkFace, ToonifyOtColorsOnly, ToonifyOtClearFace)
