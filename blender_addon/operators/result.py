# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on a finished result."""

from pathlib import Path

import bpy

from .. import preferences, session
from ..scene import importer, material
from ..scene.result import ResultError


class ToonifyOtImport(bpy.types.Operator):
    """Bring a job's finished avatar into the scene."""

    bl_idname = "toonify3d.import_result"
    bl_label = "Import Avatar"
    bl_options = {"REGISTER", "UNDO"}

    folder: bpy.props.StringProperty(
        name="Result Folder",
        description="Result folder of a job; empty for the current job's",
        subtype="DIR_PATH",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Import and select the avatar."""
        job = session.queue.current
        folder = Path(self.folder) if self.folder else job.result if job is not None else None
        if folder is None:
            self.report({"ERROR"}, "The job has no result yet")
            return {"CANCELLED"}
        try:
            avatar = importer.import_result(context.scene, folder, _options(context, folder))
        except (ResultError, RuntimeError) as error:
            self.report({"ERROR"}, f"The avatar cannot be imported: {error}")
            return {"CANCELLED"}
        _select(context, avatar)
        return {"FINISHED"}


def _options(context: bpy.types.Context, folder: Path) -> importer.ImportOptions:
    name = folder.parent.name if folder.name == "result" else folder.name
    settings = preferences.get(context)
    if settings is None:
        return importer.ImportOptions(name=name)
    return importer.ImportOptions(
        name=name, standard_view=settings.standard_view, pack=settings.pack_textures
    )


def _select(context: bpy.types.Context, avatar: bpy.types.Object) -> None:
    """Make the avatar the active object, unless the artist is in the middle of an edit."""
    layer = context.view_layer
    if layer is None or (layer.objects.active and layer.objects.active.mode != "OBJECT"):
        return
    try:
        avatar.select_set(True, view_layer=layer)
    except RuntimeError:  # the artist looks at another view layer
        return
    for item in list(layer.objects.selected):
        item.select_set(item == avatar, view_layer=layer)
    layer.objects.active = avatar


class ToonifyOtOutline(bpy.types.Operator):
    """Add or remove an ink outline round the avatar."""

    bl_idname = "toonify3d.outline"
    bl_label = "Toggle Outline"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an avatar."""
        return importer.find_avatar(context) is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Toggle the outline."""
        avatar = importer.find_avatar(context)
        enabled = avatar.modifiers.get(material.OUTLINE_NAME) is None
        material.set_outline(avatar, enabled=enabled)
        return {"FINISHED"}


CLASSES = (ToonifyOtImport, ToonifyOtOutline)
