# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on a finished result."""

from pathlib import Path

import bpy

from .. import compat, preferences, session
from ..scene import importer, material, viewport
from ..scene.result import ResultError

_NO_AVATAR = "There is no imported avatar in this scene"


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
        before = context.scene.view_settings.view_transform
        try:
            avatar = importer.import_result(context.scene, folder, _options(context, folder))
        except (ResultError, RuntimeError) as error:
            self.report({"ERROR"}, f"The avatar cannot be imported: {error}")
            return {"CANCELLED"}
        _select(context, avatar)
        self._tell(context, avatar, before)
        return {"FINISHED"}

    def _tell(self, context: bpy.types.Context, avatar: bpy.types.Object, before: str) -> None:
        """Say what else has changed in the artist's scene."""
        now = context.scene.view_settings.view_transform
        changed = "" if now == before else f"; the view transform is {now} now, it was {before}"
        self.report({"INFO"}, f"Imported {avatar.name}{changed}")


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


class ToonifyOtShowAvatar(bpy.types.Operator):
    """Turn this viewport to the front of the avatar, in its colors (Material Preview)."""

    bl_idname = "toonify3d.show_avatar"
    bl_label = "Show Avatar"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an avatar, and a viewport."""
        space = context.space_data
        if space is None or space.type != "VIEW_3D":
            cls.poll_message_set("There is no 3D viewport here")
            return False
        if importer.find_avatar(context) is None:
            cls.poll_message_set(_NO_AVATAR)
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Change this viewport; the scene stays as it is."""
        area, avatar = context.area, importer.find_avatar(context)
        viewport.show_colors(context.space_data)
        viewport.look_at_front(context.space_data, avatar, *_sizes(area))
        area.tag_redraw()
        return {"FINISHED"}


def _sizes(area: bpy.types.Area) -> tuple[int, int, int]:
    """Width and height of the area's viewport, and the width that no sidebar covers, pixels."""
    sizes = {region.type: (region.width, region.height) for region in area.regions}
    width, height = sizes["WINDOW"]
    covered = 2 * max(sizes.get("UI", (0, 0))[0], sizes.get("TOOLS", (0, 0))[0])
    return width, height, max(width - covered, width // 3)


class ToonifyOtTrueColors(bpy.types.Operator):
    """Set the scene's view transform to Standard, which leaves the style's colors as they are."""

    bl_idname = "toonify3d.true_colors"
    bl_label = "Show True Style Colors"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Change the scene's color management."""
        if not compat.set_view_transform(context.scene, importer.TRUE_COLORS):
            self.report({"ERROR"}, f"Blender's color configuration has no {importer.TRUE_COLORS}")
            return {"CANCELLED"}
        return {"FINISHED"}


class ToonifyOtOutline(bpy.types.Operator):
    """Add or remove an ink outline round the avatar."""

    bl_idname = "toonify3d.outline"
    bl_label = "Toggle Outline"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an avatar."""
        if importer.find_avatar(context) is None:
            cls.poll_message_set(_NO_AVATAR)
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Toggle the outline."""
        avatar = importer.find_avatar(context)
        enabled = avatar.modifiers.get(material.OUTLINE_NAME) is None
        material.set_outline(avatar, enabled=enabled)
        return {"FINISHED"}


CLASSES = (ToonifyOtImport, ToonifyOtShowAvatar, ToonifyOtTrueColors, ToonifyOtOutline)
