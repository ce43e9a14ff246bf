# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar tab "Toonify". Drawing starts nothing and reads no file but the pictures shown."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import estimates, exemplar_panel, faces, pictures, problems, properties, session
from .capture_check import Finding
from .face_check import NO_FACE
from .job import Job, JobState
from .requests import exemplars, missing_input
from .scene import importer, material
from .scene.mesh import STYLE_PROPERTY
from .texts import draw_text

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


class _Panel:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Toonify"


class TOONIFY3D_PT_main(_Panel, bpy.types.Panel):  # noqa: N801 - Blender's naming rule
    """Inputs and the one button."""

    bl_label = "3DToonify"
    bl_idname = "TOONIFY3D_PT_main"

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the inputs."""
        layout = self.layout
        settings = context.scene.toonify3d
        row = _column(layout).row(align=True)
        row.prop(settings, "capture")
        row.operator("toonify3d.check_capture", text="", icon="VIEWZOOM")
        _draw_check(layout, settings)
        row = _column(layout).row(align=True)
        row.prop(settings, "exemplar")
        row.operator("toonify3d.add_exemplars", text="", icon="ADD")
        exemplar_panel.draw_exemplars(layout, settings)
        column = _column(layout)
        column.prop(settings, "preset")
        _draw_estimate(layout, settings)
        _column(layout).prop(settings, "strength")
        _draw_options(layout, settings)
        _column(layout).prop(settings, "output")
        _draw_start(layout, context)


def _column(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """Labels left, fields right."""
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    return column


_FINDING_ICONS = {"stop": "CANCEL", "warning": "ERROR", "hint": "INFO", "ok": "CHECKMARK"}


def _draw_check(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """What the capture check says about the chosen film."""
    check = session.capture_check
    if check.running:
        row = layout.row(align=True)
        row.label(text="Checking the capture...", icon="TIME")
        row.operator("toonify3d.stop_check", text="", icon="X")
        return
    chosen = properties.absolute(settings.capture)
    if chosen is None or check.capture != str(chosen):
        return
    if check.problem:
        draw_text(layout, check.problem, icon="INFO")
    faults = [item for item in check.findings if item.severity != "ok"]
    if check.findings and not faults:
        layout.label(text="The capture is good", icon="CHECKMARK")
    if faults:
        _draw_faults(layout.box(), faults, check.verdict)


def _draw_faults(box: bpy.types.UILayout, faults: list[Finding], verdict: str) -> None:
    grave = verdict in {"stop", "warning"}
    for item in faults[:4]:
        part = box.column(align=True)
        part.alert = item.severity in {"stop", "warning"}
        draw_text(part, item.what, icon=_FINDING_ICONS[item.severity])
        if item.severity == "hint" and grave:
            continue
        why = box.column(align=True)
        why.active = False
        if item.why:
            draw_text(why, item.why, icon="BLANK1")
        if item.what_to_do:
            draw_text(box, item.what_to_do, icon="FORWARD")
    row = box.row(align=True)
    row.operator("toonify3d.open_sheet", icon="IMAGE_DATA")
    if verdict == "warning":
        row.operator("toonify3d.stylize", text="Start Anyway", icon="PLAY").anyway = True
    if grave:
        draw_text(box, "Film again, or choose another capture above", icon="FILE_MOVIE")


def _draw_estimate(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """Time and memory of the chosen preset."""
    count = len(exemplars(settings))
    device = session.device_kind()
    cost = estimates.estimate(settings.preset, device, session.measured(), max(1, count))
    text = "Not measured on this device yet" if cost is None else cost.text()
    column = layout.column(align=True)
    column.active = False
    draw_text(column, text, icon="TIME")


def _draw_options(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """Closed sub-panels: what most jobs leave alone."""
    header, body = layout.panel("TOONIFY3D_features", default_closed=True)
    header.label(text="Features")
    if body is not None:
        column = _column(body)
        for name in properties.FEATURES:
            column.prop(settings, name, slider=True)
        note = body.column(align=True)
        note.active = False
        draw_text(note, "0 keeps the person's own, 1 follows the exemplar", icon="INFO")
    header, body = layout.panel("TOONIFY3D_options", default_closed=True)
    header.label(text="Options")
    if body is not None:
        column = body.column(align=True)
        for name in ("check_capture", "live_mesh", "live_cameras"):
            column.prop(settings, name)


def _draw_start(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    reason = missing_input(context)
    if reason:
        draw_text(layout, reason, icon="INFO")
        if "preferences" in reason:
            layout.operator("toonify3d.open_preferences", icon="PREFERENCES")
    row = layout.row()
    row.scale_y = 1.6
    count = len(exemplars(context.scene.toonify3d))
    text = f"Stylize {count} Avatars" if count > 1 else "Stylize Avatar"
    row.operator("toonify3d.stylize", text=text, icon="OUTLINER_OB_ARMATURE")
    row = layout.row(align=True)
    row.operator("toonify3d.restyle")
    row.operator("toonify3d.attach")


class TOONIFY3D_PT_job(_Panel, bpy.types.Panel):  # noqa: N801
    """The job: progress, picture, problem, what can be done."""

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
            layout.label(text=job.name, icon="FILE_FOLDER")
        row = layout.row()
        row.label(text=job.state.value, icon=_STATE_ICONS[job.state])
        if not job.state.finished:  # beside the state: under the preview a low screen hides it
            row.operator("toonify3d.cancel", icon="CANCEL")
        _draw_progress(layout, job)
        _draw_problem(layout, context.scene.toonify3d, job)
        _draw_actions(layout, context, job)
        _draw_preview(layout, job)


def _draw_last(layout: bpy.types.UILayout, folder: str) -> None:
    """After a restart of Blender: the job that this .blend remembers."""
    if not folder:
        layout.label(text="No job yet")
        return
    layout.operator_context = "EXEC_DEFAULT"
    layout.operator("toonify3d.attach", text="Open Last Job").directory = folder


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
            text=job.name,
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
        draw_text(layout, status.message)
    if not job.connected and job.state is JobState.RUNNING:
        layout.label(text="Following the job by its folder", icon="FILE_FOLDER")
    for warning in status.warnings[-3:]:
        draw_text(layout, warning, icon="INFO")


def _draw_preview(layout: bpy.types.UILayout, job: Job) -> None:
    icon = pictures.icon(job.preview) if job.state is not JobState.FAILED else 0
    if icon:
        layout.template_icon(icon_value=icon, scale=9.0)


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
        row.operator("toonify3d.import_result", icon="IMPORT")
        row = layout.row(align=True)
        row.operator("toonify3d.refine", icon="MOD_SMOOTH")
        row.prop(context.scene.toonify3d, "longer", text="Time ×")
    row = layout.row(align=True)
    row.operator("toonify3d.open_folder", text="Folder", icon="FILE_FOLDER")
    row.operator("toonify3d.copy_report", text="Copy Report", icon="COPYDOWN")


class TOONIFY3D_PT_avatar(_Panel, bpy.types.Panel):  # noqa: N801
    """Sliders of the imported avatar."""

    bl_label = "Avatar"
    bl_idname = "TOONIFY3D_PT_avatar"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only when there is an avatar."""
        return importer.find_avatar(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        """Draw style and toon sliders."""
        layout = self.layout
        avatar = importer.find_avatar(context)
        column = _column(layout)
        if STYLE_PROPERTY in avatar:
            column.prop(avatar, f'["{STYLE_PROPERTY}"]', text="Style", slider=True)
        node = material.toon_node(avatar)
        if node is not None:
            for name in ("Bands", "Light Gain", "Shadow Tint", "Rim", "Rim Color"):
                column.prop(node.inputs[name], "default_value", text=name)
        outline = avatar.modifiers.get(material.OUTLINE_NAME)
        if outline is not None:
            column.prop(outline, "thickness", text="Outline")
        layout.operator(
            "toonify3d.outline",
            text="Remove Outline" if outline is not None else "Add Outline",
            icon="MOD_SOLIDIFY",
        )


class TOONIFY3D_PT_turntable(_Panel, bpy.types.Panel):  # noqa: N801
    """Turntable settings."""

    bl_label = "Turntable"
    bl_idname = "TOONIFY3D_PT_turntable"
    bl_options = {"DEFAULT_CLOSED"}

    poll = TOONIFY3D_PT_avatar.poll

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the settings and the button."""
        layout = self.layout
        group = context.scene.toonify3d_turntable
        column = _column(layout)
        names = ("seconds", "fps", "size", "engine", "samples", "turns", "light", "transparent")
        for name in names:
            column.prop(group, name)
        if not group.transparent:
            column.prop(group, "backdrop")
            column.prop(group, "video")
        layout.operator("toonify3d.turntable", icon="RENDER_ANIMATION")


class TOONIFY3D_PT_export(_Panel, bpy.types.Panel):  # noqa: N801
    """Export buttons."""

    bl_label = "Export"
    bl_idname = "TOONIFY3D_PT_export"
    bl_options = {"DEFAULT_CLOSED"}

    poll = TOONIFY3D_PT_avatar.poll

    def draw(self, context: bpy.types.Context) -> None:
        """Draw one button per format."""
        row = self.layout.row(align=True)
        for kind in ("GLB", "FBX", "USD", "OBJ", "STL"):
            row.operator("toonify3d.export", text=kind).kind = kind
        _draw_bake(self.layout, context)


def _draw_bake(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """Textures for the artist's own retopology."""
    bake = session.bake
    column = layout.column(align=True)
    if bake.running:
        draw_text(column, f"Baking onto {bake.target}: {bake.message}", icon="TIME")
        column.operator("toonify3d.stop_bake", icon="CANCEL")
        return
    row = column.split(factor=0.75, align=True)
    row.operator("toonify3d.bake", icon="TEXTURE")
    row.prop(context.scene.toonify3d, "bake_size", text="")
    if bake.problem:
        box = column.box()
        box.alert = True
        draw_text(box, bake.problem, icon="ERROR")


CLASSES = (
    TOONIFY3D_PT_main,
    TOONIFY3D_PT_job,
    TOONIFY3D_PT_avatar,
    TOONIFY3D_PT_turntable,
    TOONIFY3D_PT_export,
)
