# SPDX-License-Identifier: GPL-3.0-or-later
"""The export buttons."""

from pathlib import Path

import bpy

from .. import preferences, properties
from ..scene import export, importer


class ToonifyOtExport(bpy.types.Operator):
    """Write the avatar to a file for another program."""

    bl_idname = "toonify3d.export"
    bl_label = "Export Avatar"

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})
    kind: bpy.props.EnumProperty(
        name="Format",
        items=(
            ("GLB", "GLB", "glTF binary: games, web, Windows and Android viewers"),
            ("FBX", "FBX", "Unity, Unreal, Maya; textures embedded"),
            ("USD", "USD", "Universal Scene Description"),
            ("OBJ", "OBJ", "Wavefront with its material and texture"),
            ("STL", "STL", "3D printing, millimetres, no color"),
        ),
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs an avatar."""
        if importer.find_avatar(context) is None:
            cls.poll_message_set("There is no imported avatar in this scene")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask for the file."""
        avatar = importer.find_avatar(context)
        suffix = export.SUFFIXES[self.kind]
        self.filter_glob = f"*{suffix}"
        folder = Path(bpy.data.filepath).parent if bpy.data.filepath else _result_folder(avatar)
        self.filepath = str(folder / f"{bpy.path.clean_name(avatar.name)}{suffix}")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Write the file."""
        avatar = importer.find_avatar(context)
        path = properties.absolute(self.filepath)
        if avatar is None or path is None:
            self.report({"ERROR"}, "Choose a file name")
            return {"CANCELLED"}
        if path.suffix.lower() != export.SUFFIXES[self.kind]:
            path = path.with_name(path.name + export.SUFFIXES[self.kind])
        try:
            export.export_avatar(context, avatar, path)
        except (export.ExportError, OSError) as error:
            self.report({"ERROR"}, f"The avatar was not exported: {error}")
            return {"CANCELLED"}
        self.report({"INFO"}, f"Written: {path}")
        return {"FINISHED"}


def _result_folder(avatar: bpy.types.Object) -> Path:
    folder = Path(avatar.get(importer.RESULT_PROPERTY, ""))
    return folder if folder.is_dir() else preferences.default_output()


CLASSES = (ToonifyOtExport,)
