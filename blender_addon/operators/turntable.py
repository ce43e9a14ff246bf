# SPDX-License-Identifier: GPL-3.0-or-later
"""The turntable operator."""

import dataclasses
from pathlib import Path

import bpy

from .. import preferences, properties
from ..scene import importer, turntable


class ToonifyOtTurntable(bpy.types.Operator):
    """Render one full turn of the avatar; your scene and its settings stay as they are."""

    bl_idname = "toonify3d.turntable"
    bl_label = "Render Turntable"

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an avatar, and no other render."""
        if importer.find_avatar(context) is None:
            cls.poll_message_set("There is no imported avatar in this scene")
            return False
        if bpy.app.is_job_running("RENDER"):
            cls.poll_message_set("A render is running: wait for it, or press Esc")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Render in the background of the interface, with Blender's own progress and Esc."""
        return self._render(context, wait=False)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Render and wait."""
        return self._render(context, wait=True)

    def _render(self, context: bpy.types.Context, *, wait: bool) -> set[str]:
        avatar = importer.find_avatar(context)
        group = context.scene.toonify3d_turntable
        values = {
            field.name: getattr(group, field.name)
            for field in dataclasses.fields(turntable.TurntableSettings)
            if hasattr(group, field.name)
        }
        values["backdrop"] = tuple(group.backdrop)
        output = properties.absolute(self.filepath) or _default_output(avatar, group)
        scene = turntable.build_turntable(avatar, output, turntable.TurntableSettings(**values))
        if wait:
            try:
                bpy.ops.render.render(animation=True, scene=scene.name)
            finally:
                turntable.remove_turntable(scene)
            self.report({"INFO"}, f"Turntable written to {output.parent}")
            return {"FINISHED"}
        _Cleanup(scene).arm()
        return bpy.ops.render.render("INVOKE_DEFAULT", animation=True, scene=scene.name)


class _Cleanup:
    """Removes the turntable scene when its render has ended, whichever way."""

    def __init__(self, scene: bpy.types.Scene) -> None:
        self._name = scene.name

    def arm(self) -> None:
        """Listen for the end of the render."""
        bpy.app.handlers.render_complete.append(self._ended)
        bpy.app.handlers.render_cancel.append(self._ended)

    def _ended(self, *_: object) -> None:
        bpy.app.handlers.render_complete.remove(self._ended)
        bpy.app.handlers.render_cancel.remove(self._ended)
        # Not inside the handler: the render still holds the scene.
        bpy.app.timers.register(self._remove, first_interval=0.5)

    def _remove(self) -> float | None:
        if bpy.app.is_job_running("RENDER"):
            return 0.5
        scene = bpy.data.scenes.get(self._name)
        if scene is not None:
            turntable.remove_turntable(scene)
        return None


def _default_output(avatar: bpy.types.Object, group: bpy.types.PropertyGroup) -> Path:
    """A new name beside the job's result, or in the default output folder."""
    folder = Path(avatar.get(importer.RESULT_PROPERTY, ""))
    base = folder if folder.is_dir() else preferences.default_output()
    number = 1
    while list(base.glob(f"turntable-{number:02d}*")):
        number += 1
    stem = base / f"turntable-{number:02d}"
    if group.video and not group.transparent:
        return stem.with_suffix(".mp4")
    return stem / "frame-"


CLASSES = (ToonifyOtTurntable,)
