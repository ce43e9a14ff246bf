# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of the preferences: choosing and checking the backend."""

from pathlib import Path

import bpy

from .. import __package__ as base_package
from .. import preferences, process, properties, session


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


class ToonifyOtSetUpBackend(bpy.types.Operator):
    """Make an environment with PyTorch and the other packages (a download of some GB)."""

    bl_idname = "toonify3d.set_up_backend"
    bl_label = "Set Up Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Downloads need Blender's permission; a folder of wheels does not."""
        settings = preferences.get(context)
        if settings is None or session.setup.running:
            return False
        if not (settings.wheels.strip() or bpy.app.online_access):
            cls.poll_message_set("Allow Online Access in Blender's System preferences first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the setup; its progress appears in the preferences."""
        settings = preferences.get(context)
        folder = properties.absolute(settings.environment)
        requirements = process.requirements_file()
        if folder is None or requirements is None:
            missing = "folder" if folder is None else "package list"
            self.report({"ERROR"}, f"There is no {missing} for the environment")
            return {"CANCELLED"}
        wheels = properties.absolute(settings.wheels)
        session.setup.start(folder, requirements, "" if wheels is None else str(wheels))
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


class ToonifyOtCancelSetup(bpy.types.Operator):
    """Stop the setup; it can go on later."""

    bl_idname = "toonify3d.cancel_setup"
    bl_label = "Cancel Setup"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Stop it."""
        session.setup.cancel()
        session.redraw()
        return {"FINISHED"}


CLASSES = (
    ToonifyOtCheckBackend,
    ToonifyOtChoosePython,
    ToonifyOtPreferences,
    ToonifyOtSetUpBackend,
    ToonifyOtCancelSetup,
)
