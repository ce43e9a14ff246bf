# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel of the jobs: progress, picture, problem, what can be done."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import exemplar_panel, faces, lookup, pictures, problems, properties, session
from .face_check import NO_FACE
from .homes import scene_of
from .job import Job, JobState
from .scene import importer
from .texts import beside, draw_name, draw_text, fitting

_STATE_ICONS = {
    JobState.WAITING: "TIME",
    JobState.STARTING: "TIME",
    JobState.RUNNING: "PLAY",
    JobState.CANCELLING: "PAUSE",
    JobState.DONE: "CHECKMARK",
    JobState.FAILED: "ERROR",
    JobState.CANCELLED: "PAUSE",
}


_STAGES = {
    "capture": "reading the film",
    "prior": "reconstructing the head",
    "portraits": "stylizing the portraits",
    "geometry": "bending the shape",
    "texture": "painting the colors",
    "asset": "making mesh and textures",
}


class TOONIFY3D_PT_job(bpy.types.Panel):  # noqa: N801 - Blender's naming rule
    """The job: progress, picture, problem, what can be done."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Toonify"
    bl_label = "Job"
    bl_idname = "TOONIFY3D_PT_job"

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the current job."""
        layout = self.layout
        job = session.queue.current
        if job is None:
            _draw_last(layout, context.scene.toonify3d.job)
            return
        _draw_queue(layout)
        if len(session.queue.jobs) == 1:
            draw_name(layout, job.name, icon="FILE_FOLDER")
        if job.state.finished and not lookup.is_there(job.folder):
            _draw_gone(layout, job.folder)
            layout.operator("toonify3d.remove_job", icon="X").index = session.queue.jobs.index(job)
            return
        row = layout.row()
        row.label(text=job.state.value, icon=_STATE_ICONS[job.state])
        if not job.state.finished:  # beside the state: under the preview a low screen hides it
            row.operator("toonify3d.cancel", icon="CANCEL")
        _draw_progress(layout, job)
        if not job.state.finished:  # then the picture is what one looks at; else, what to do next
            _draw_preview(layout, job)
        _draw_warnings(layout, job)
        _draw_problem(layout, context.scene.toonify3d, job)
        _draw_actions(layout, context, job)
        if job.state.finished and not _is_imported(context.scene, job):
            _draw_preview(layout, job)


def _draw_last(layout: bpy.types.UILayout, folder: str) -> None:
    """After a restart of Blender: the job that this .blend remembers."""
    path = properties.absolute(folder)
    if path is None:
        layout.label(text="No job yet")
        return
    if not lookup.is_there(path):
        _draw_gone(layout, path)
        return
    draw_name(layout, path.name, icon="FILE_FOLDER")
    layout.operator_context = "EXEC_DEFAULT"
    layout.operator("toonify3d.attach", text="Open Last Job").directory = folder


def _draw_gone(layout: bpy.types.UILayout, folder: Path) -> None:
    """A job's folder was moved, renamed or deleted."""
    text = f"The folder of {folder.name} is gone: open it where it is now, or start again"
    draw_text(layout, text, icon="ERROR")
    layout.operator("toonify3d.attach", icon="FILE_FOLDER")


def _draw_queue(layout: bpy.types.UILayout) -> None:
    """The list of jobs, when there are several."""
    jobs = session.queue.jobs
    if len(jobs) < 2:
        return
    column = layout.column(align=True)
    for index, job in enumerate(jobs[-6:], max(0, len(jobs) - 6)):
        row = column.row(align=True)
        button = row.operator(
            "toonify3d.show_job",
            text=fitting(job.name),
            icon=_STATE_ICONS[job.state],
            depress=job is session.queue.current,
        )
        button.index = index
        if not job.active:
            row.operator("toonify3d.remove_job", text="", icon="X").index = index


def _draw_progress(layout: bpy.types.UILayout, job: Job) -> None:
    status = job.status
    if status is None or job.state in (JobState.WAITING, JobState.FAILED):
        return
    percent = f"{100 * status.fraction:.0f}%"
    left = session.seconds_text(status.eta_s) if job.state is JobState.RUNNING else ""
    layout.progress(factor=status.fraction, text=f"{percent}, {left} left" if left else percent)
    if job.state is JobState.RUNNING:
        stage = _STAGES.get(status.stage, status.stage)
        percent = f"{100 * status.step_fraction:.0f}%"
        text = f"Step {status.stage_index} of {status.stage_count}: {stage} ({percent})"
        draw_text(layout, text)
    if status.message and job.state is not JobState.DONE:
        detail = layout.column(align=True)
        detail.active = False
        draw_text(detail, status.message)
    if not job.connected and job.state is JobState.RUNNING:
        layout.label(text="Following the job by its folder", icon="FILE_FOLDER")


def _draw_warnings(layout: bpy.types.UILayout, job: Job) -> None:
    if job.status is None or job.state in (JobState.WAITING, JobState.FAILED):
        return
    for warning in job.status.warnings[-3:]:
        draw_text(layout, warning, icon="INFO")


def _is_imported(scene: bpy.types.Scene, job: Job) -> bool:
    """True when one looks at the avatar itself: its panel comes next."""
    done = job.state is JobState.DONE and job.result is not None
    return done and importer.is_imported(scene, job.result)


def _draw_preview(layout: bpy.types.UILayout, job: Job) -> None:
    icon = pictures.icon(job.preview) if job.state is not JobState.FAILED else 0
    if icon:
        done = job.state is JobState.DONE  # then it is one of many things to look at
        layout.template_icon(icon_value=icon, scale=6.0 if done else 9.0)


def _draw_problem(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, job: Job) -> None:
    if job.state is not JobState.FAILED or job.problem is None:
        return
    exemplar = str((job.request or {}).get("exemplar") or "")
    box = layout.box()
    box.alert = True
    if job.problem.code == NO_FACE and exemplar:
        _draw_faceless(box, settings, exemplar)
        return
    draw_text(box, job.problem.message, icon="ERROR")
    hint = problems.advice(job.problem.code)
    if hint.text:
        draw_text(box, hint.text)
    if hint.operator:
        box.operator(hint.operator, icon="TOOL_SETTINGS")
    if job.problem.code == "exemplar_landmarks" and exemplar:
        box.operator("toonify3d.mark_face", icon="PIVOT_CURSOR").exemplar = exemplar


def _draw_faceless(
    box: bpy.types.UILayout, settings: bpy.types.PropertyGroup, exemplar: str
) -> None:
    """The backend found no face: its sentence is for the command line, this one for Blender."""
    draw_text(box, f"No face was found in {Path(exemplar).name}", icon="ERROR")
    if faces.settled(settings, exemplar):
        box.alert = False
        draw_text(box, "That is mended now: Resume starts it again", icon="CHECKMARK")
        return
    exemplar_panel.draw_face_fixes(box, exemplar)


def _draw_actions(layout: bpy.types.UILayout, context: bpy.types.Context, job: Job) -> None:
    row = layout.row(align=True)
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        row.operator("toonify3d.resume", icon="PLAY")
    if job.state is JobState.DONE:
        if job.imported and scene_of(job) is None:
            text = "It was started in another file: import it here, or open that file"
            draw_text(layout, text, icon="INFO")
        row.operator("toonify3d.import_result", icon="IMPORT")
        row = beside(layout)
        row.operator("toonify3d.refine", icon="MOD_SMOOTH")
        row.prop(context.scene.toonify3d, "longer", text="Time ×")
    row = beside(layout)
    row.operator("toonify3d.open_folder", text="Folder", icon="FILE_FOLDER")
    row.operator("toonify3d.copy_report", text="Copy Report", icon="COPYDOWN")
