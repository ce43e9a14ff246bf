# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators of the preferences: choosing and checking the backend."""

import shlex
import subprocess
import sys
from pathlib import Path

import bpy

from .. import __package__ as base_package
from .. import preferences, process, properties, session, setup_backend


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
    """Make an environment with PyTorch and the other packages, or go on making it."""

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
        folder, packages = properties.absolute(settings.environment), process.package_lists()
        complaint = _objection(folder)
        if packages is None:
            complaint = "The add-on lacks its package lists: install it again"
        if complaint or folder is None:
            self.report({"ERROR"}, complaint)
            return {"CANCELLED"}
        wheels = properties.absolute(settings.wheels)
        device = settings.device.lower()
        session.setup.start(folder, packages, device, "" if wheels is None else str(wheels))
        session.ensure_timer()
        session.redraw()
        return {"FINISHED"}


def _objection(folder: Path | None) -> str:
    """Why an environment cannot go into a folder; empty when it can."""
    if folder is None:
        return "Choose a folder for the environment"
    kinds = ("USER", "LOCAL", "SYSTEM")
    homes = [Path(bpy.utils.resource_path(kind)) for kind in kinds if bpy.utils.resource_path(kind)]
    homes += [Path(__file__).resolve().parents[1], Path(bpy.utils.user_resource("EXTENSIONS"))]
    if any(folder == home or home in folder.parents for home in homes):
        return "Choose a folder outside Blender's and the add-on's: updates remove those"
    return ""


class ToonifyOtCopyCommand(bpy.types.Operator):
    """Copy the command that sets the backend up, to run it in a terminal."""

    bl_idname = "toonify3d.copy_setup_command"
    bl_label = "Copy Command"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Put it on the clipboard."""
        settings, packages = preferences.get(context), process.package_lists()
        folder = properties.absolute(settings.environment)
        if packages is None or folder is None:
            self.report({"ERROR"}, _objection(folder) or "The add-on lacks its package lists")
            return {"CANCELLED"}
        wheels = properties.absolute(settings.wheels)
        command = setup_backend.arguments(
            folder, packages, settings.device.lower(), "" if wheels is None else str(wheels)
        )
        line = [process.helper_python() or "python", *command]
        quote = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
        context.window_manager.clipboard = quote(line)
        self.report({"INFO"}, "Command copied")
        return {"FINISHED"}


class ToonifyOtOpenSetupLog(bpy.types.Operator):
    """Open the log of the setup."""

    bl_idname = "toonify3d.open_setup_log"
    bl_label = "Open Log"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Open it in the system's editor."""
        log = session.setup.log
        if log is None or not log.is_file():
            self.report({"ERROR"}, "There is no log yet")
            return {"CANCELLED"}
        return bpy.ops.wm.path_open(filepath=str(log))


class ToonifyOtOnlineAccess(bpy.types.Operator):
    """Show where Blender allows online access."""

    bl_idname = "toonify3d.online_access"
    bl_label = "Open System Preferences"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Open Blender's System preferences; the permission is the artist's to give."""
        return bpy.ops.screen.userpref_show(section="SYSTEM")


class ToonifyOtChooseOutput(bpy.types.Operator):
    """Choose another folder for jobs, on a disk with more space."""

    bl_idname = "toonify3d.choose_output"
    bl_label = "Output Folder"
    bl_options = {"INTERNAL"}

    directory: bpy.props.StringProperty(subtype="DIR_PATH")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Open the file browser."""
        self.directory = str(_disk_folder(context))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Store the choice and look again."""
        context.scene.toonify3d.output = self.directory
        return bpy.ops.toonify3d.check_backend()


class ToonifyOtFreeGpu(bpy.types.Operator):
    """Switch every viewport to Solid: rendered ones hold memory of the GPU that a job needs."""

    bl_idname = "toonify3d.free_gpu"
    bl_label = "Solid View"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Switch them, and look again."""
        for screen in bpy.data.screens:
            for area in screen.areas:
                if area.type == "VIEW_3D":
                    area.spaces[0].shading.type = "SOLID"
        return bpy.ops.toonify3d.check_backend()


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
    ToonifyOtCopyCommand,
    ToonifyOtOpenSetupLog,
    ToonifyOtOnlineAccess,
    ToonifyOtChooseOutput,
    ToonifyOtFreeGpu,
    ToonifyOtCancelSetup,
)
