# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that start, stop and look at jobs."""

from pathlib import Path
from typing import Any

import bpy

from .. import faces, jobfolder, lookup, portraits, preferences, properties, report, session
from ..homes import belongs_here, scene_of
from ..job import Job, JobState
from ..requests import SETUP_MISSING, build_request, exemplars, missing_input, refresh
from ..scene import importer


def _submit(
    context: bpy.types.Context, folder: Path, request: dict[str, Any], after: Job | None = None
) -> Job:
    settings = preferences.get(context)
    keep = settings is not None and settings.keep_running
    exemplar = request.get("exemplar")
    title = f"{folder.name}, {Path(exemplar).stem}" if exemplar else ""
    python = preferences.python_path()
    job = Job(folder, request, python, keep=keep, title=title, after=after)
    belongs_here(job, context.scene)
    session.queue.submit(job)
    session.ensure_timer()
    session.redraw()
    return job


def _submit_all(context: bpy.types.Context, folder: Path, requests: list[dict[str, Any]]) -> None:
    """The first request, and the others once it has made what they share.

    Raises:
        OSError: The clicked places of an exemplar cannot be written.
    """
    requests = [faces.hand_over(folder, request) for request in requests]
    first = _submit(context, folder, requests[0])
    for request in requests[1:]:
        _submit(context, folder, request, after=first)


def current_folder(context: bpy.types.Context) -> Path | None:
    """The folder of the job that is shown, else of the one that the .blend remembers."""
    job = session.queue.current
    return job.folder if job is not None else properties.absolute(context.scene.toonify3d.job)


def _has_job(folder: Path) -> bool:
    """True when the backend has begun a job in this folder."""
    return (folder / "job.json").is_file()


def _job_around(chosen: Path | None) -> Path | None:
    """The job that a chosen folder is, or lies in (its result, say); else the folder itself."""
    if chosen is None:
        return None
    return next((item for item in (chosen, *list(chosen.parents)[:3]) if _has_job(item)), chosen)


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

    anyway: bpy.props.BoolProperty(
        name="Without Check",
        description="Start although the check of the capture found something, or without one",
        default=False,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Greyed out, with the reason, while an input is missing."""
        reason = "The capture is being checked" if session.starting() else missing_input(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Check the capture; make a job folder and hand it to the backend."""
        settings = context.scene.toonify3d
        try:
            first, *others = exemplars(settings)
            requests = [build_request(context, "stylize", first)]
            requests += [build_request(context, "restyle", path) for path in others]
            capture = Path(requests[0]["capture"])
            if settings.check_capture and not self.anyway and not self._checked(context, capture):
                return {"FINISHED"}
            output = properties.absolute(settings.output) or preferences.default_output()
            if self._refused(context):
                return {"FINISHED"}
            folder = jobfolder.create_job_folder(output, capture)
            _submit_all(context, folder, requests)
        except (FileNotFoundError, faces.ChangedPictureError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except OSError as error:
            reason = error.strerror or error
            self.report({"ERROR"}, f"The output folder cannot be written: {reason}")
            return {"CANCELLED"}
        return {"FINISHED"}

    def _refused(self, context: bpy.types.Context) -> bool:
        """True, and said, when the backend is known to refuse an exemplar as it is."""
        check = session.face_check
        refused = [
            item
            for item in session.refused_exemplars(context.scene)
            if check.knows(properties.absolute(item) or Path())
        ]
        if refused:
            name = Path(refused[0]).name
            self.report({"WARNING"}, f"{name} cannot be used as it is: see below its picture")
            session.redraw()
        return bool(refused)

    def _checked(self, context: bpy.types.Context, capture: Path) -> bool:
        """True when the inputs are known to be good; else their check is started or shown."""
        check = session.capture_check
        if not check.answers(capture) or session.unchecked_exemplars(context.scene):
            session.start_check(context.scene, capture, then_start=True)
            return False
        if check.verdict in {"stop", "warning"}:
            self.report({"WARNING"}, check.findings[0].what)
            session.redraw()
            return False
        return True


def _job_objection(context: bpy.types.Context, what: str) -> str:
    """Why nothing can be done with the current job's folder; empty when something can."""
    folder = current_folder(context)
    if folder is None:
        return f"{what} needs a job: stylize first, or open one"
    job = session.queue.current
    if job is not None and (job.active or not job.state.finished):
        return f"{what} can start when the job is over"
    if not preferences.python_path():
        return SETUP_MISSING
    if not lookup.is_there(folder):
        return f"{what} needs the job's folder, which is gone: open it where it is now"
    return ""


def restyle_objection(context: bpy.types.Context) -> str:
    """Why the job cannot be given another style; empty when it can."""
    reason = _job_objection(context, "Restyle")
    return reason or missing_input(context, capture=False)


_REFUSED = ("exemplar_", "portraits_", "no_portraits")
"""Codes of problems with what a style is made of: it is asked for again once that is mended."""


class _JobFolderOperator:
    """Shared by what needs a job folder that nobody works in."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a job that is not running."""
        reason = cls._objection(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    @classmethod
    def _objection(cls, context: bpy.types.Context) -> str:
        return _job_objection(context, cls.bl_label)

    def _start(self, context: bpy.types.Context, *requests: dict[str, Any]) -> set[str]:
        folder = current_folder(context)
        if folder is None or not _has_job(folder):
            self.report({"ERROR"}, f"There is no job in {folder}")
            return {"CANCELLED"}
        if _working(folder):
            self.report({"ERROR"}, "Another process is working on this job")
            return {"CANCELLED"}
        painted = (Path(r["portraits"]) for r in requests if portraits.concerns(r))
        reason = next(filter(None, (portraits.misfit(item, folder) for item in painted)), "")
        if reason:  # at once, in the backend's words
            self.report({"ERROR"}, reason)
            return {"CANCELLED"}
        try:
            _submit_all(context, folder, list(requests))
        except OSError as error:
            self.report({"ERROR"}, f"The job folder cannot be written: {error.strerror or error}")
            return {"CANCELLED"}
        return {"FINISHED"}


class ToonifyOtResume(_JobFolderOperator, bpy.types.Operator):
    """Go on with a job that was stopped or failed."""

    bl_idname = "toonify3d.resume"
    bl_label = "Resume"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the worker on the same folder; one that never got going starts anew."""
        folder = current_folder(context)
        request = build_request(context, "resume")
        earlier = _asked_before(folder)
        try:
            if earlier is not None:
                refresh(earlier, context.scene.toonify3d)
                request = earlier
                if folder is not None and request["command"] == "stylize":
                    _submit_all(context, folder, [request])
                    return {"FINISHED"}
        except (OSError, faces.ChangedPictureError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return self._start(context, request)


def _asked_before(folder: Path | None) -> dict[str, Any] | None:
    """What to ask again, as the backend refused exemplar or portraits, or died before all that."""
    if folder is None:
        return None
    job = session.queue.current
    code = job.problem.code if job is not None and job.problem is not None else ""
    begun = _has_job(folder)
    if begun and not code.startswith(_REFUSED):
        return None
    request = (job.request if job is not None else None) or jobfolder.read_request(folder)
    wanted = {"stylize", "restyle"} if begun else {"stylize"}
    return dict(request) if request and request.get("command") in wanted else None


class ToonifyOtRestyle(_JobFolderOperator, bpy.types.Operator):
    """Give the head of this job the style of the chosen exemplars (reuses the reconstruction)."""

    bl_idname = "toonify3d.restyle"
    bl_label = "Restyle"

    @classmethod
    def _objection(cls, context: bpy.types.Context) -> str:
        return restyle_objection(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the worker on the same folder with other exemplars."""
        chosen = exemplars(context.scene.toonify3d)
        try:
            requests = [build_request(context, "restyle", path) for path in chosen]
        except (FileNotFoundError, faces.ChangedPictureError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return self._start(context, *requests)


class ToonifyOtRefine(_JobFolderOperator, bpy.types.Operator):
    """Train shape and colors of this style again, longer; the avatar so far is kept."""

    bl_idname = "toonify3d.refine"
    bl_label = "Refine More"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the worker on the same folder and style."""
        request = build_request(context, "refine")
        job = session.queue.current
        if job is not None and job.result is not None:
            request["style"] = job.result.parent.name
        return self._start(context, request)


class ToonifyOtCancel(bpy.types.Operator):
    """Stop the job at the next safe place; it can be resumed."""

    bl_idname = "toonify3d.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a job that has not finished."""
        job = session.queue.current
        if job is None or job.state.finished:
            cls.poll_message_set("No job is running")
            return False
        if job.state is JobState.CANCELLING:
            cls.poll_message_set("The job stops at its next safe place")
            return False
        return True

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
    bl_options = {"UNDO"}

    directory: bpy.props.StringProperty(subtype="DIR_PATH")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Open the file browser."""
        known = properties.absolute(context.scene.toonify3d.job)
        jobs = properties.absolute(context.scene.toonify3d.output) or preferences.default_output()
        self.directory = str(known if known is not None and known.is_dir() else jobs)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Show the job."""
        folder = _job_around(properties.absolute(self.directory))
        if folder is None or not _has_job(folder):
            name = folder or "nothing"
            self.report({"ERROR"}, f"There is no job in {name}: choose a folder with a job.json")
            return {"CANCELLED"}
        belongs_here(session.queue.attach(folder), context.scene)
        found = importer.follow_moved(context.scene, folder)
        if found:
            self.report({"INFO"}, f"Found again where the job is now: {', '.join(found)}")
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
        folder = current_folder(context)
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
        job = session.queue.current = session.queue.jobs[self.index]
        if scene_of(job) == context.scene:
            context.scene.toonify3d.job = str(job.folder)  # the one to come back to
        session.redraw()
        return {"FINISHED"}


class ToonifyOtRemoveJob(bpy.types.Operator):
    """Take this job off the list; its folder stays, and one that waits is not started."""

    bl_idname = "toonify3d.remove_job"
    bl_label = "Remove Job"
    bl_options = {"INTERNAL"}

    index: bpy.props.IntProperty()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove it unless it runs."""
        if not 0 <= self.index < len(session.queue.jobs):
            return {"CANCELLED"}
        session.queue.remove(session.queue.jobs[self.index])
        session.redraw()
        return {"FINISHED"}


CLASSES = (
    ToonifyOtStylize,
    ToonifyOtResume,
    ToonifyOtRestyle,
    ToonifyOtRefine,
    ToonifyOtRemoveJob,
    ToonifyOtCancel,
    ToonifyOtAttach,
    ToonifyOtOpenFolder,
    ToonifyOtCopyReport,
    ToonifyOtNextJob,
)
