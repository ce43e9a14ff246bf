# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar tab "Toonify". Drawing reads memory only: no disk, no process."""

from __future__ import annotations

import bpy

from . import problems, session
from .job import Job, JobState
from .operators.job import missing_input
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
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        for name in ("capture", "exemplar", "preset", "strength", "output"):
            column.prop(settings, name)
        reason = missing_input(context)
        if reason:
            draw_text(layout, reason, icon="INFO")
            if "preferences" in reason:
                layout.operator("toonify3d.open_preferences", icon="PREFERENCES")
        row = layout.row()
        row.scale_y = 1.6
        row.operator("toonify3d.stylize", icon="OUTLINER_OB_ARMATURE")
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
        layout.label(text=f"{job.name}: {job.state.value}", icon=_STATE_ICONS[job.state])
        _draw_progress(layout, job)
        _draw_preview(layout, job)
        _draw_problem(layout, job)
        _draw_actions(layout, job)


def _draw_last(layout: bpy.types.UILayout, folder: str) -> None:
    """After a restart of Blender: the job that this .blend remembers."""
    if not folder:
        layout.label(text="No job yet")
        return
    layout.operator_context = "EXEC_DEFAULT"
    layout.operator("toonify3d.attach", text="Open Last Job").directory = folder


def _draw_queue(layout: bpy.types.UILayout) -> None:
    if len(session.queue.jobs) < 2:
        return
    column = layout.column(align=True)
    for index, job in enumerate(session.queue.jobs[-6:], max(0, len(session.queue.jobs) - 6)):
        button = column.operator(
            "toonify3d.show_job",
            text=f"{job.name}: {job.state.value}",
            icon=_STATE_ICONS[job.state],
            depress=job is session.queue.current,
        )
        button.index = index


def _draw_progress(layout: bpy.types.UILayout, job: Job) -> None:
    status = job.status
    if status is None or job.state in (JobState.WAITING, JobState.FAILED):
        return
    percent = f"{100 * status.fraction:.0f}%"
    left = session.seconds_text(status.eta_s) if job.state is JobState.RUNNING else ""
    layout.progress(factor=status.fraction, text=f"{percent}, {left} left" if left else percent)
    if job.state is JobState.RUNNING:
        stage = f"{status.stage_index} of {status.stage_count}: {status.stage}"
        layout.label(text=f"Stage {stage} ({100 * status.step_fraction:.0f}%)")
    if status.message:
        draw_text(layout, status.message)
    if not job.connected and job.state is JobState.RUNNING:
        layout.label(text="Following the job by its folder", icon="FILE_FOLDER")
    for warning in status.warnings[-3:]:
        draw_text(layout, warning, icon="INFO")


def _draw_preview(layout: bpy.types.UILayout, job: Job) -> None:
    icon = session.preview_icon(job.preview) if job.state is not JobState.FAILED else 0
    if icon:
        layout.template_icon(icon_value=icon, scale=9.0)


def _draw_problem(layout: bpy.types.UILayout, job: Job) -> None:
    if job.state is not JobState.FAILED or job.problem is None:
        return
    box = layout.box()
    box.alert = True
    draw_text(box, job.problem.message, icon="ERROR")
    hint = problems.advice(job.problem.code)
    if hint.text:
        draw_text(box, hint.text)
    if hint.operator:
        box.operator(hint.operator, icon="TOOL_SETTINGS")


def _draw_actions(layout: bpy.types.UILayout, job: Job) -> None:
    if not job.state.finished:
        layout.operator("toonify3d.cancel", icon="CANCEL")
    row = layout.row(align=True)
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        row.operator("toonify3d.resume", icon="PLAY")
    if job.state is JobState.DONE:
        row.operator("toonify3d.import_result", icon="IMPORT")
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
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
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
        column = layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
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


CLASSES = (
    TOONIFY3D_PT_main,
    TOONIFY3D_PT_job,
    TOONIFY3D_PT_avatar,
    TOONIFY3D_PT_turntable,
    TOONIFY3D_PT_export,
)
