# SPDX-License-Identifier: GPL-3.0-or-later
"""The avatar's textures on the artist's own retopology."""

from pathlib import Path

import bpy

from .. import jobfolder, preferences, session
from ..bake import MESH_FILE
from ..scene import importer, objfile


class ToonifyOtBake(bpy.types.Operator):
    """Bake the avatar's textures onto the selected mesh (your retopology of it, with UVs)."""

    bl_idname = "toonify3d.bake"
    bl_label = "Bake to Selected Mesh"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a mesh of the artist's, an avatar, a backend, and a free device."""
        reason = _objection(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Write the mesh and start the backend."""
        target = context.active_object
        avatar = importer.nearest_avatar(context.scene, target)
        result = Path(bpy.path.abspath(avatar[importer.RESULT_PROPERTY]))
        if not (result.parents[2] / "job.json").is_file():
            self.report({"ERROR"}, f"The avatar's job is not there any more: {result.parents[2]}")
            return {"CANCELLED"}
        if not target.data.uv_layers:
            self.report({"ERROR"}, "The mesh has no UVs: unwrap it first (U in Edit Mode)")
            return {"CANCELLED"}
        try:
            folder = jobfolder.create_job_folder(result.parents[2] / "bakes", Path(target.name))
            objfile.write_obj(folder / MESH_FILE, target, avatar.matrix_world)
            size = int(context.scene.toonify3d.bake_size)
            python = preferences.python_path()
            session.bake.start(python, result, folder / MESH_FILE, size, target.name)
        except OSError as error:
            self.report({"ERROR"}, f"The bake cannot be started: {error}")
            return {"CANCELLED"}
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


def _objection(context: bpy.types.Context) -> str:
    target = context.active_object
    if target is None or target.type != "MESH" or importer.is_avatar(target):
        return "Select your own mesh of the head"
    if target.mode != "OBJECT":
        return "Leave Edit Mode first"
    if importer.find_avatar(context) is None:
        return "There is no imported avatar in this scene"
    if not preferences.python_path():
        return "First set up 3DToonify in the add-on's preferences"
    if session.bake.running:
        return "A bake is running"
    if any(job.active for job in session.queue.jobs):
        return "A job is running"
    return ""


class ToonifyOtStopBake(bpy.types.Operator):
    """End the running bake; the mesh stays as it is."""

    bl_idname = "toonify3d.stop_bake"
    bl_label = "Cancel Bake"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """End it."""
        session.bake.close()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtBakeApply(bpy.types.Operator):
    """Give a mesh the material of its baked textures."""

    bl_idname = "toonify3d.bake_apply"
    bl_label = "Apply Baked Textures"
    bl_options = {"UNDO", "INTERNAL"}

    folder: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    target: bpy.props.StringProperty(options={"SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Build the material; the mesh keeps its own ones behind it."""
        target = bpy.data.objects.get(self.target)
        if target is None or target.type != "MESH":
            self.report({"ERROR"}, f"The mesh {self.target} is gone; the textures are on disk")
            return {"CANCELLED"}
        settings = preferences.get(context)
        pack = settings is not None and settings.pack_textures
        try:
            importer.apply_textures(target, Path(self.folder), pack=pack)
        except RuntimeError as error:
            self.report({"ERROR"}, f"The baked textures cannot be read: {error}")
            return {"CANCELLED"}
        self.report({"INFO"}, f"Baked: {self.folder}")
        return {"FINISHED"}


CLASSES = (ToonifyOtBake, ToonifyOtStopBake, ToonifyOtBakeApply)
