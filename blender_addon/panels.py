# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidebar tab "Toonify". Drawing starts nothing and reads no file but the pictures shown."""

from __future__ import annotations

import bpy

from . import (
    estimates,
    exemplar_panel,
    faces,
    portraits,
    portraits_panel,
    preferences,
    properties,
    session,
)
from .capture_check import Finding
from .job_panel import TOONIFY3D_PT_job
from .operators.job import restyle_objection
from .requests import SETUP_MISSING, changed_features, exemplars, missing_input
from .scene import importer, material, viewport
from .scene.mesh import STYLE_PROPERTY
from .texts import beside, draw_text


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
        _draw_setup(layout)
        layout.label(text="1. The Film")
        row = _column(layout).row(align=True)
        row.prop(settings, "capture")
        row.operator("toonify3d.check_capture", text="", icon="VIEWZOOM")
        exemplar_panel.draw_file(layout, settings.capture, "FILE_MOVIE")
        _draw_check(layout, settings)
        layout.label(text="2. The Style")
        row = _column(layout).row(align=True)
        row.prop(settings, "exemplar")
        row.operator("toonify3d.add_exemplars", text="", icon="ADD")
        exemplar_panel.draw_exemplars(layout, settings)
        _draw_shape(layout, settings)
        portraits_panel.draw_portraits(layout, settings)
        layout.label(text="3. The Avatar")
        _column(layout).prop(settings, "preset")
        _draw_estimate(layout, settings)
        _draw_options(layout, settings)
        _column(layout).prop(settings, "output")
        _draw_output(layout, settings)
        _draw_start(layout, context)


def _draw_setup(layout: bpy.types.UILayout) -> None:
    """What comes before everything else, once."""
    if preferences.python_path():
        return
    box = layout.box()
    draw_text(box, SETUP_MISSING, icon="INFO")
    box.operator("toonify3d.open_preferences", icon="PREFERENCES")


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
    row = beside(box)
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


def _draw_shape(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """Look and shape; pale where painted portraits, or the look itself, leave nothing to choose."""
    painted = portraits.chosen(settings) is not None
    bends = not painted and settings.look != faces.COLORS_ONLY
    look, shape = _column(layout), layout.column()
    look.active, shape.active = not painted, bends
    look.prop(settings, "look")
    shape.prop(settings, "strength")
    _draw_features(layout, settings, active=bends)


def _draw_features(
    layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, *, active: bool
) -> None:
    """A closed sub-panel: what single features take, and what takes it all back."""
    header, body = layout.panel("TOONIFY3D_features", default_closed=True)
    changed = len(changed_features(settings))
    header.label(text=f"Features ({changed} changed)" if changed else "Features")
    header.operator("toonify3d.reset_features", text="", icon="LOOP_BACK", emboss=False)
    if body is None:
        return
    column = _column(body)
    column.active = active
    for name in properties.FEATURES:
        column.prop(settings, name, slider=True)  # Symmetric is a checkbox, which ignores that
    note = body.column(align=True)
    note.active = False
    draw_text(note, "0 keeps the person's own, 1 follows the exemplar", icon="INFO")


def _draw_options(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """A closed sub-panel: what most jobs leave alone."""
    header, body = layout.panel("TOONIFY3D_options", default_closed=True)
    header.label(text="Options")
    if body is not None:
        column = body.column(align=True)
        for name in ("check_capture", "live_mesh", "live_cameras"):
            column.prop(settings, name)


def _draw_output(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """Where the next job will be."""
    folder = properties.absolute(settings.output)
    note = layout.column(align=True)
    note.active = False
    draw_text(note, f"Jobs go to {folder or preferences.default_output()}", icon="FILE_FOLDER")


def _draw_start(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    reason = missing_input(context)
    if reason and reason != SETUP_MISSING:  # which stands at the top
        draw_text(layout, reason, icon="INFO")
    row = layout.row()
    row.scale_y = 1.6
    count = len(exemplars(context.scene.toonify3d))
    text = f"Stylize {count} Avatars" if count > 1 else "Stylize Avatar"
    row.operator("toonify3d.stylize", text=text, icon="OUTLINER_OB_ARMATURE")
    row = beside(layout)
    row.operator("toonify3d.restyle")
    row.operator("toonify3d.attach")
    objection = restyle_objection(context)
    if objection and not reason:
        note = layout.column(align=True)
        note.active = False
        draw_text(note, objection, icon="INFO")


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
        _draw_colors(layout, context)
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


def _draw_colors(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """What keeps the style's colors from being seen, each with the button that mends it."""
    view, space = context.scene.view_settings, context.space_data
    if isinstance(space, bpy.types.SpaceView3D) and not viewport.shows_colors(space):
        draw_text(layout, "This viewport shows the shape without its colors", icon="INFO")
    layout.operator("toonify3d.show_avatar", icon="ZOOM_SELECTED")
    if view.view_transform != importer.TRUE_COLORS:
        text = f"The view transform {view.view_transform} makes the style's colors dull"
        draw_text(layout, text, icon="INFO")
        layout.operator("toonify3d.true_colors", icon="COLOR")
    _column(layout).prop(view, "view_transform", text="View")


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
