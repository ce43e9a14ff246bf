# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators for portraits that the artist paints: handing them out, and choosing their folder."""

from pathlib import Path

import bpy

from .. import jobfolder, lookup, preferences, properties, session
from ..requests import SETUP_MISSING
from .job import current_folder


class ToonifyOtExportPortraits(bpy.types.Operator):
    """Write the film's portraits as pictures, to paint over or to use in any other program."""

    bl_idname = "toonify3d.export_portraits"
    bl_label = "Export Portraits..."

    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    stylized: bpy.props.BoolProperty(
        name="Stylized",
        description="Write the portraits of this job's style, to touch them up, instead of the "
        "film's own pictures",
        default=False,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a backend and a job that has read its film."""
        reason = _objection(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask for a folder, beside the job to begin with."""
        folder = current_folder(context)
        if folder is not None:
            self.directory = str(folder.parent)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the backend; nothing that is there is written over."""
        job, chosen = current_folder(context), properties.absolute(self.directory)
        if job is None or chosen is None:
            self.report({"ERROR"}, "Choose a folder for the portraits")
            return {"CANCELLED"}
        style = _finished_style(job) if self.stylized else ""
        if self.stylized and not style:
            self.report({"ERROR"}, "The job has no stylized portraits yet")
            return {"CANCELLED"}
        try:
            folder = _empty_folder(chosen, f"{job.name}-portraits")
            session.portrait_export.start(preferences.python_path(), job, folder, style)
        except OSError as error:
            reason = error.strerror or error
            self.report({"ERROR"}, f"The portraits cannot be written: {reason}")
            return {"CANCELLED"}
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


def _objection(context: bpy.types.Context) -> str:
    if not preferences.python_path():
        return SETUP_MISSING
    if session.portrait_export.running:
        return "The portraits are being written"
    folder = current_folder(context)
    if folder is None:
        return "Portraits come from a job's film: start one first, or open one"
    if not lookup.is_there(folder / "capture" / "step.json"):
        return "The job has not read its film yet"
    return ""


def _finished_style(job: Path) -> str:
    """The style that is shown, else the newest one with portraits; empty without any."""
    current = session.queue.current
    if current is not None and current.folder == job and current.result is not None:
        return current.result.parent.name
    return jobfolder.newest_portraits(job)


def _empty_folder(chosen: Path, name: str) -> Path:
    """The chosen folder when it is new or empty, else a new one in it.

    Raises:
        OSError: It cannot be written.
    """
    chosen.mkdir(parents=True, exist_ok=True)
    occupied = any(chosen.iterdir())
    return jobfolder.create_numbered_folder(chosen, name) if occupied else chosen


class ToonifyOtStopPortraits(bpy.types.Operator):
    """Write no more portraits."""

    bl_idname = "toonify3d.stop_portraits"
    bl_label = "Cancel"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """End it."""
        session.portrait_export.close()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtChoosePortraits(bpy.types.Operator):
    """Choose the folder of the painted portraits."""

    bl_idname = "toonify3d.choose_portraits"
    bl_label = "Choose Folder..."
    bl_options = {"UNDO", "INTERNAL"}

    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Open the file browser where the portraits were chosen or exported before."""
        known = properties.absolute(context.scene.toonify3d.portraits)
        places = [known, session.portrait_export.folder, current_folder(context)]
        found = [place for place in places if place and place != Path() and place.is_dir()]
        if found:
            self.directory = str(found[0])
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Use the folder; the panel says when there is nothing in it."""
        context.scene.toonify3d.portraits = self.directory
        lookup.forget()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtClearPortraits(bpy.types.Operator):
    """Let the exemplar make the style again (the painted portraits stay on disk)."""

    bl_idname = "toonify3d.clear_portraits"
    bl_label = "Use the Exemplar"
    bl_options = {"UNDO", "INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Empty the field."""
        context.scene.toonify3d.property_unset("portraits")
        session.redraw()
        return {"FINISHED"}


CLASSES = (
    ToonifyOtExportPortraits,
    ToonifyOtStopPortraits,
    ToonifyOtChoosePortraits,
    ToonifyOtClearPortraits,
)
