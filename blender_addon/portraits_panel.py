# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the panel about portraits that the artist paints."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import portraits, properties, session
from .texts import beside, draw_name, draw_text


def draw_portraits(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """A closed sub-panel; what is wrong with the chosen folder stands below it in any case."""
    folder = portraits.chosen(settings)
    job = session.queue.current
    shown = properties.absolute(settings.job) if job is None else job.folder
    complaint = "" if folder is None else portraits.recent_complaint(folder, shown)
    header, body = layout.panel("TOONIFY3D_portraits", default_closed=True)
    used = folder is not None and not complaint
    count = portraits.recent_count(folder) if used else 0
    header.label(text=f"Painted Portraits ({count} used)" if used else "Painted Portraits")
    if folder is not None:
        header.operator("toonify3d.clear_portraits", text="", icon="X", emboss=False)
    if body is not None:
        _draw_export(body)
        column = body.column()
        column.use_property_split = True
        column.use_property_decorate = False
        column.prop(settings, "portraits")
        if used:
            note = body.column(align=True)
            note.active = False
            text = "Shape and look are as you painted them; the exemplar gives the palette"
            draw_text(note, text, icon="INFO")
    if complaint:
        _draw_complaint(layout.box(), complaint)


def _draw_export(layout: bpy.types.UILayout) -> None:
    """The button, or how far it has come."""
    export = session.portrait_export
    if export.running:
        row = layout.row(align=True)
        row.label(text="Writing the portraits...", icon="TIME")
        row.operator("toonify3d.stop_portraits", text="", icon="X")
        return
    note = layout.column(align=True)
    note.active = False
    draw_text(note, "Paint the film's portraits yourself: export them, then choose their folder")
    layout.operator("toonify3d.export_portraits", icon="EXPORT")
    if export.problem:
        box = layout.box()
        box.alert = True
        draw_text(box, export.problem, icon="ERROR")
    elif export.count:
        _draw_exported(layout, export.folder, export.count)


def _draw_exported(layout: bpy.types.UILayout, folder: Path, count: int) -> None:
    draw_text(layout, f"{count} portraits to paint are in", icon="CHECKMARK")
    draw_name(layout, folder.name, icon="FILE_FOLDER")
    row = beside(layout)
    row.operator("wm.path_open", text="Show Folder").filepath = str(folder)
    row.operator_context = "EXEC_DEFAULT"
    row.operator("toonify3d.choose_portraits", text="Use Them").directory = str(folder)


def _draw_complaint(box: bpy.types.UILayout, complaint: str) -> None:
    part = box.column(align=True)
    part.alert = True
    draw_text(part, complaint, icon="ERROR")
    fixes = box.column(align=True)
    fixes.operator("toonify3d.choose_portraits", icon="FILE_FOLDER")
    fixes.operator("toonify3d.clear_portraits", icon="IMAGE_DATA")
