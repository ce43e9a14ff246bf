# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that start, stop and look at jobs."""

from pathlib import Path
from typing import Any

import bpy

from .. import jobfolder, preferences, properties, report, session
from ..job import Job, JobState

VIDEO_SUFFIXES = ".mp4;.mov;.m4v;.avi;.mkv;.webm"
IMAGE_SUFFIXES = ".png;.jpg;.jpeg;.webp;.tif;.tiff;.bmp"


def missing_input(context: bpy.types.Context, *, capture: bool = True) -> str:
    """What keeps a job from starting, in one sentence; empty when nothing does. Touches no disk."""
    settings = context.scene.toonify3d
    if not preferences.python_path():
        return "Choose the backend's Python in the add-on's preferences"
    if capture and not settings.capture.strip():
        return "Choose a capture: a video or a folder of images"
    if not settings.exemplar.strip():
        return "Choose an exemplar: one stylized portrait"
    return ""


def build_request(context: bpy.types.Context, command: str) -> dict[str, Any]:
    """The request for the worker.

    Raises:
        FileNotFoundError: An input does not exist; the message is one sentence.
    """
    settings = context.scene.toonify3d
    request: dict[str, Any] = {"command": command, "device": "auto"}
    if command == "stylize":
        request["capture"] = _existing(settings.capture, "capture")
        request["preset"] = settings.preset
    if command in {"stylize", "restyle"}:
        request["exemplar"] = _existing(settings.exemplar, "exemplar")
        request["strength"] = round(settings.strength, 4)
    return request


def _existing(raw: str, what: str) -> str:
    path = properties.absolute(raw)
    if path is None or not path.exists():
        raise FileNotFoundError(f"The {what} does not exist: {path or raw}")
    return str(path)


def _submit(context: bpy.types.Context, folder: Path, request: dict[str, Any]) -> None:
    settings = preferences.get(context)
    keep = settings is not None and settings.keep_running
    job = Job(folder, request, preferences.python_path(), keep=keep)
    context.scene.toonify3d.job = str(folder)
    session.queue.submit(job)
    session.ensure_timer()
    session.redraw()


def _current_folder(context: bpy.types.Context) -> Path | None:
    job = session.queue.current
    return job.folder if job is not None else properties.absolute(context.scene.toonify3d.job)


def _has_job(folder: Path) -> bool:
    """True when the backend has begun a job in this folder."""
    return (folder / "job.json").is_file()


def _working(folder: Path | None) -> bool:
    """True when a worker is on this folder already, ours or another Blender's."""
    if folder is None:
        return False
    ours = any(
        job.folder == folder and (job.active or job.state is JobState.WAITING)
        for job in session.queue.jobs
    )
    return ours or jobfolder.is_alive(folder)


class ToonifyOtStylize(bpy.types.Operator):
    """Reconstruct the filmed head and give it the exemplar's style (runs beside Blender)."""

    bl_idname = "toonify3d.stylize"
    bl_label = "Stylize Avatar"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Greyed out, with the reason, while an input is missing."""
        reason = missing_input(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Make a job folder and hand it to the backend."""
        settings = context.scene.toonify3d
        try:
            request = build_request(context, "stylize")
            output = properties.absolute(settings.output) or preferences.default_output()
            folder = jobfolder.create_job_folder(output, Path(request["capture"]))
        except FileNotFoundError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except OSError as error:
            reason = error.strerror or error
            self.report({"ERROR"}, f"The output folder cannot be written: {reason}")
            return {"CANCELLED"}
        _submit(context, folder, request)
        return {"FINISHED"}


class _JobFolderOperator:
    """Shared by what needs a job folder that nobody works in."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a job that is not running."""
        folder = _current_folder(context)
        if folder is None:
            cls.poll_message_set("There is no job yet")
            return False
        job = session.queue.current
        if job is not None and (job.active or not job.state.finished):
            cls.poll_message_set("The job is running")
            return False
        return True

    def _start(self, context: bpy.types.Context, request: dict[str, Any]) -> set[str]:
        folder = _current_folder(context)
        if folder is None or not _has_job(folder):
            self.report({"ERROR"}, f"There is no job in {folder}")
            return {"CANCELLED"}
        if _working(folder):
            self.report({"ERROR"}, "Another process is working on this job")
            return {"CANCELLED"}
        _submit(context, folder, request)
        return {"FINISHED"}


class ToonifyOtResume(_JobFolderOperator, bpy.types.Operator):
    """Go on with a job that was stopped or failed."""

    bl_idname = "toonify3d.resume"
    bl_label = "Resume"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the worker on the same folder; one that never got going starts anew."""
        folder = _current_folder(context)
        request = build_request(context, "resume")
        if folder is not None and not _has_job(folder):
            request = jobfolder.read_request(folder) or request
            if request["command"] == "stylize":
                _submit(context, folder, request)
                return {"FINISHED"}
        return self._start(context, request)


class ToonifyOtRestyle(_JobFolderOperator, bpy.types.Operator):
    """Give the head of this job the style of the chosen exemplar (reuses the reconstruction)."""

    bl_idname = "toonify3d.restyle"
    bl_label = "Restyle"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the worker on the same folder with another exemplar."""
        try:
            request = build_request(context, "restyle")
        except FileNotFoundError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return self._start(context, request)


class ToonifyOtCancel(bpy.types.Operator):
    """Stop the job at the next safe place; it can be resumed."""

    bl_idname = "toonify3d.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a job that has not finished."""
        job = session.queue.current
        return job is not None and not job.state.finished and job.state is not JobState.CANCELLING

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Ask the worker to stop."""
        job = session.queue.current
        if job is None:
            return {"CANCELLED"}
        job.cancel()
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtAttach(bpy.types.Operator):
    """Show the job in a folder: go on watching it, resume it, or import its result."""

    bl_idname = "toonify3d.attach"
    bl_label = "Open Job..."

    directory: bpy.props.StringProperty(subtype="DIR_PATH")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Open the file browser."""
        self.directory = context.scene.toonify3d.job or str(preferences.default_output())
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Show the job."""
        folder = properties.absolute(self.directory)
        if folder is None or not _has_job(folder):
            self.report({"ERROR"}, f"There is no job in {folder}")
            return {"CANCELLED"}
        session.queue.attach(folder)
        context.scene.toonify3d.job = str(folder)
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtOpenFolder(bpy.types.Operator):
    """Show the job folder in the file manager."""

    bl_idname = "toonify3d.open_folder"
    bl_label = "Open Job Folder"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Open the folder."""
        folder = _current_folder(context)
        if folder is None or not folder.is_dir():
            self.report({"ERROR"}, f"The job folder is gone: {folder}")
            return {"CANCELLED"}
        return bpy.ops.wm.path_open(filepath=str(folder))


class ToonifyOtCopyReport(bpy.types.Operator):
    """Copy versions, state and the end of the log, ready to paste into a bug report."""

    bl_idname = "toonify3d.copy_report"
    bl_label = "Copy Report"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Put the report on the clipboard."""
        text = report.report_text(session.queue.current, session.check.report)
        context.window_manager.clipboard = text
        self.report({"INFO"}, "Report copied")
        return {"FINISHED"}


class ToonifyOtNextJob(bpy.types.Operator):
    """Show another job of the list."""

    bl_idname = "toonify3d.show_job"
    bl_label = "Show Job"
    bl_options = {"INTERNAL"}

    index: bpy.props.IntProperty()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Make it the current one."""
        if not 0 <= self.index < len(session.queue.jobs):
            return {"CANCELLED"}
        session.queue.current = session.queue.jobs[self.index]
        context.scene.toonify3d.job = str(session.queue.current.folder)
        session.redraw()
        return {"FINISHED"}


class ToonifyOtDrop(bpy.types.Operator):
    """Take a dropped video as the capture, a dropped image as the exemplar."""

    bl_idname = "toonify3d.drop"
    bl_label = "Use in 3DToonify"
    bl_options = {"UNDO", "INTERNAL"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """A drop needs no further question."""
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Fill in the field that the file is for."""
        settings = context.scene.toonify3d
        suffix = Path(self.filepath).suffix.lower()
        if suffix in VIDEO_SUFFIXES.split(";"):
            settings.capture = self.filepath
        elif suffix in IMAGE_SUFFIXES.split(";"):
            settings.exemplar = self.filepath
        else:
            self.report({"ERROR"}, f"{suffix or 'This'} is neither a video nor an image")
            return {"CANCELLED"}
        session.redraw()
        return {"FINISHED"}


class ToonifyFhVideo(bpy.types.FileHandler):
    """Drag and drop of videos onto the viewport."""

    bl_idname = "TOONIFY3D_FH_video"
    bl_label = "3DToonify capture"
    bl_import_operator = "toonify3d.drop"
    bl_file_extensions = VIDEO_SUFFIXES

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        """Only with the sidebar's Toonify tab open: elsewhere a video means something else."""
        region = next((item for item in context.area.regions if item.type == "UI"), None)
        is_view = context.area.type == "VIEW_3D"
        return is_view and getattr(region, "active_panel_category", "") == "Toonify"


class ToonifyFhImage(bpy.types.FileHandler):
    """Drag and drop of portraits onto the viewport."""

    bl_idname = "TOONIFY3D_FH_image"
    bl_label = "3DToonify exemplar"
    bl_import_operator = "toonify3d.drop"
    bl_file_extensions = IMAGE_SUFFIXES

    poll_drop = ToonifyFhVideo.poll_drop


CLASSES = (
    ToonifyOtStylize,
    ToonifyOtResume,
    ToonifyOtRestyle,
    ToonifyOtCancel,
    ToonifyOtAttach,
    ToonifyOtOpenFolder,
    ToonifyOtCopyReport,
    ToonifyOtNextJob,
    ToonifyOtDrop,
    ToonifyFhVideo,
    ToonifyFhImage,
)
