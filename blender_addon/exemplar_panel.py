# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the panel about exemplars: their pictures, and faces that are not found."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import faces, lookup, pictures, portraits, properties, session
from .face_check import NO_FACE, FaceAnswer
from .texts import draw_name, draw_text


def draw_exemplars(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup) -> None:
    """A picture of every exemplar, what is known of its face, and what can be done about it."""
    chosen = [settings.exemplar, *(item.path for item in settings.more_exemplars)]
    if not settings.exemplar.strip():
        return
    if len(chosen) == 1:
        draw_file(layout, settings.exemplar, "FILE_IMAGE")
        icon = pictures.icon(properties.absolute(settings.exemplar))
        if icon:
            layout.template_icon(icon_value=icon, scale=5.0)
        if not session.refused_exemplars(settings.id_data):  # which brings its own buttons
            _draw_state(layout, settings, settings.exemplar, short=False)
    else:
        grid = layout.grid_flow(row_major=True, columns=3, even_columns=True, align=True)
        for index, exemplar in enumerate(chosen):
            _draw_cell(grid.column(align=True), settings, exemplar, index)
    if session.face_check.running:
        layout.label(text="Looking for the exemplar's face...", icon="TIME")
        return
    if session.face_check.problem:
        draw_text(layout, session.face_check.problem, icon="INFO")
    for exemplar in session.refused_exemplars(settings.id_data):
        answer = session.face_check.answer(properties.absolute(exemplar) or Path())
        draw_refused(layout, exemplar, answer)


def draw_file(layout: bpy.types.UILayout, chosen: str, icon: str) -> None:
    """The name of a chosen file, which a narrow path field hides, and whether it is there."""
    path = properties.absolute(chosen)
    if path is None:
        return
    if lookup.is_there(path):
        draw_name(layout, path.name, icon)
        return
    column = layout.column()
    column.alert = True
    draw_text(column, f"{path.name} is not there: choose it again", icon="ERROR")


def _draw_cell(
    cell: bpy.types.UILayout, settings: bpy.types.PropertyGroup, exemplar: str, index: int
) -> None:
    """One of several exemplars."""
    path = properties.absolute(exemplar)
    cell.template_icon(icon_value=pictures.icon(path), scale=3.5)
    row = cell.row(align=True)
    row.label(text=path.stem if path else "?", icon=_missing_icon(path))
    if index:
        button = row.operator("toonify3d.remove_exemplar", text="", icon="X", emboss=False)
        button.index = index - 1
    _draw_state(cell, settings, exemplar, short=True)


def _missing_icon(path: Path | None) -> str:
    return "NONE" if path is not None and lookup.is_there(path) else "ERROR"


def _draw_state(
    layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, exemplar: str, *, short: bool
) -> None:
    """What was said about the face, with a button to change it and one to take it back."""
    row = layout.row(align=True)
    if portraits.chosen(settings) is not None:
        row.label(text="Palette" if short else "Palette Only", icon="COLOR")
        return
    if faces.colors_only(settings, exemplar):
        text = "Colors" if short else "Colors and Strokes Only"
        row.label(text=text, icon="BRUSHES_ALL")
        if settings.look == faces.COLORS_ONLY:  # chosen for all, below
            return
    else:
        marked = bool(faces.points(settings, exemplar))
        full = "Face Marked" if marked else "Mark Face..."
        button = row.operator(
            "toonify3d.mark_face",
            text=("Marked" if marked else "Face...") if short else full,
            icon="CHECKMARK" if marked else "PIVOT_CURSOR",
            depress=marked,
        )
        button.exemplar = exemplar
        if not marked:
            return
    row.operator("toonify3d.clear_face", text="", icon="TRASH").exemplar = exemplar


def draw_refused(layout: bpy.types.UILayout, exemplar: str, answer: FaceAnswer) -> None:
    """Why an exemplar cannot be used as it is, and what mends it."""
    box = layout.box()
    part = box.column(align=True)
    part.alert = True
    path = properties.absolute(exemplar)
    if answer.code != NO_FACE:
        draw_text(part, answer.message, icon="ERROR")
        return
    draw_text(part, f"No face was found in {path.name if path else 'it'}", icon="ERROR")
    draw_face_fixes(box, exemplar)


def draw_face_fixes(box: bpy.types.UILayout, exemplar: str) -> None:
    """The two ways on without a face that the detector finds."""
    draw_text(box, "There is one: show where, with five clicks")
    box.operator("toonify3d.mark_face", icon="PIVOT_CURSOR").exemplar = exemplar
    draw_text(box, "There is none: the person keeps the shape")
    box.operator("toonify3d.colors_only", icon="BRUSHES_ALL").exemplar = exemplar
