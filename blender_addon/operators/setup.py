# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of the preferences: choosing and checking the backend."""

from pathlib import Path

import bpy

from .. import __package__ as base_package
from .. import preferences, properties, session


def _disk_folder(context: bpy.types.Context) -> Path:
    """The nearest existing folder of where jobs go, for the disk space check."""
    folder = properties.absolute(context.scene.toonify3d.output) or preferences.default_output()
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path.home())


class ToonifyOtCheckBackend(bpy.types.Operator):
    """Look whether the chosen Python has everything the backend needs."""

    bl_idname = "toonify3d.check_backend"
    bl_label = "Check Backend"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the check; the answer appears in the preferences."""
        python = preferences.python_path()
        if not python:
            self.report({"ERROR"}, "Choose the backend's Python first")
            return {"CANCELLED"}
        session.check.start(python, _disk_folder(context))
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtChoosePython(bpy.types.Operator):
    """Choose the Python interpreter of an environment that holds the backend's packages."""

    bl_idname = "toonify3d.choose_python"
    bl_label = "Use an Existing Environment"
    bl_options = {"INTERNAL"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Open the file browser."""
        self.filepath = preferences.python_path()
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Store the choice and check it."""
        settings = preferences.get(context)
        if settings is None or not Path(self.filepath).is_file():
            self.report({"ERROR"}, f"There is no program at {self.filepath}")
            return {"CANCELLED"}
        settings.python = self.filepath
        return bpy.ops.toonify3d.check_backend()


class ToonifyOtPreferences(bpy.types.Operator):
    """Open this add-on's preferences."""

    bl_idname = "toonify3d.open_preferences"
    bl_label = "Open Preferences"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Show the preferences."""
        return bpy.ops.preferences.addon_show(module=base_package)


CLASSES = (ToonifyOtCheckBackend, ToonifyOtChoosePython, ToonifyOtPreferences)
