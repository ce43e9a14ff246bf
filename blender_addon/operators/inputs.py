# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that choose and check what a job is made from."""

from pathlib import Path

import bpy

from .. import preferences, properties, session
from ..requests import SETUP_MISSING, add_exemplars, changed_features, existing

VIDEO_SUFFIXES = ".mp4;.mov;.m4v;.avi;.mkv;.webm"
IMAGE_SUFFIXES = ".png;.jpg;.jpeg;.webp;.tif;.tiff;.bmp"


class ToonifyOtCheckCapture(bpy.types.Operator):
    """Look at the film, and for the face in every exemplar, and say what is wrong (seconds)."""

    bl_idname = "toonify3d.check_capture"
    bl_label = "Check Film and Exemplars"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a backend and a capture."""
        reason = _check_objection(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Start the check in a process of its own."""
        try:
            capture = Path(existing(context.scene.toonify3d.capture, "capture"))
        except FileNotFoundError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        session.start_check(context.scene, capture, then_start=False)
        return {"FINISHED"}


def _check_objection(context: bpy.types.Context) -> str:
    if not preferences.python_path():
        return SETUP_MISSING
    if not context.scene.toonify3d.capture.strip():
        return "Choose a capture: a video or a folder of images"
    return "A check is running" if session.checking() else ""


class ToonifyOtStopCheck(bpy.types.Operator):
    """Do not wait for the check of the capture any longer, and start nothing."""

    bl_idname = "toonify3d.stop_check"
    bl_label = "Cancel"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """End the check."""
        session.stop_check()
        return {"FINISHED"}


class ToonifyOtOpenSheet(bpy.types.Operator):
    """Show the pictures that the check looked at, in the system's picture viewer."""

    bl_idname = "toonify3d.open_sheet"
    bl_label = "Show Pictures"
    bl_options = {"INTERNAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Open the contact sheet."""
        sheet = session.capture_check.sheet
        if sheet is None or not sheet.is_file():
            self.report({"ERROR"}, "There are no pictures of this check")
            return {"CANCELLED"}
        return bpy.ops.wm.path_open(filepath=str(sheet))


class ToonifyOtAddExemplars(bpy.types.Operator):
    """Choose more stylized portraits; each becomes an avatar of its own, one after the other."""

    bl_idname = "toonify3d.add_exemplars"
    bl_label = "Add Exemplars"
    bl_options = {"UNDO", "INTERNAL"}

    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    files: bpy.props.CollectionProperty(
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE"}
    )
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Open the file browser where the main exemplar lies."""
        main = properties.absolute(context.scene.toonify3d.exemplar)
        if main is not None:
            self.directory = str(main.parent)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Append the chosen files; the first becomes the main exemplar when there is none."""
        names = [item.name for item in self.files if item.name]
        add_exemplars(context.scene.toonify3d, [str(Path(self.directory) / n) for n in names])
        session.redraw()
        return {"FINISHED"}


class ToonifyOtRemoveExemplar(bpy.types.Operator):
    """Take this exemplar off the list (the file stays)."""

    bl_idname = "toonify3d.remove_exemplar"
    bl_label = "Remove Exemplar"
    bl_options = {"UNDO", "INTERNAL"}

    index: bpy.props.IntProperty()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove one of the further exemplars."""
        more = context.scene.toonify3d.more_exemplars
        if not 0 <= self.index < len(more):
            return {"CANCELLED"}
        more.remove(self.index)
        return {"FINISHED"}


class ToonifyOtResetFeatures(bpy.types.Operator):
    """Put all features, the expression and the symmetry back to what they were at the start."""

    bl_idname = "toonify3d.reset_features"
    bl_label = "Reset Features"
    bl_options = {"UNDO", "INTERNAL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Needs a feature that was changed."""
        if not changed_features(context.scene.toonify3d):
            cls.poll_message_set("No feature has been changed")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Reset them."""
        for name in properties.FEATURES:
            context.scene.toonify3d.property_unset(name)
        return {"FINISHED"}


class ToonifyOtDrop(bpy.types.Operator):
    """Take a dropped video as the capture, dropped images as the exemplars."""

    bl_idname = "toonify3d.drop"
    bl_label = "Use in 3DToonify"
    bl_options = {"UNDO", "INTERNAL"}

    filepath: bpy.props.StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE"})
    files: bpy.props.CollectionProperty(
        type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE"}
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """A drop needs no further question."""
        return self.execute(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Fill in the fields that the files are for."""
        settings = context.scene.toonify3d
        paths = [str(Path(self.directory) / item.name) for item in self.files if item.name]
        paths = paths or [self.filepath]
        suffixes = {path: Path(path).suffix.lower() for path in paths}
        videos = [path for path in paths if suffixes[path] in VIDEO_SUFFIXES.split(";")]
        images = [path for path in paths if suffixes[path] in IMAGE_SUFFIXES.split(";")]
        if not videos and not images:
            name = suffixes[paths[0]] or "This"
            self.report({"ERROR"}, f"{name} is neither a video nor an image")
            return {"CANCELLED"}
        if videos:
            settings.capture = videos[0]
        if images:
            settings.exemplar = images[0]
            add_exemplars(settings, images[1:])
        session.redraw()
        return {"FINISHED"}


class ToonifyFhVideo(bpy.types.FileHandler):
    """Drag and drop of videos onto the viewport."""

    bl_idname = "TOONIFY3D_FH_video"
    bl_label = "3DToonify capture"
    bl_import_operator = "toonify3d.drop"
    bl_file_extensions = VIDEO_SUFFIXES

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        """Only with the sidebar's Toonify tab open: elsewhere a video means something else."""
        region = next((item for item in context.area.regions if item.type == "UI"), None)
        is_view = context.area.type == "VIEW_3D"
        return is_view and getattr(region, "active_panel_category", "") == "Toonify"


class ToonifyFhImage(bpy.types.FileHandler):
    """Drag and drop of portraits onto the viewport."""

    bl_idname = "TOONIFY3D_FH_image"
    bl_label = "3DToonify exemplar"
    bl_import_operator = "toonify3d.drop"
    bl_file_extensions = IMAGE_SUFFIXES

    poll_drop = ToonifyFhVideo.poll_drop


CLASSES = (
    ToonifyOtCheckCapture,
    ToonifyOtStopCheck,
    ToonifyOtOpenSheet,
    ToonifyOtAddExemplars,
    ToonifyOtRemoveExemplar,
    ToonifyOtResetFeatures,
    ToonifyOtDrop,
    ToonifyFhVideo,
    ToonifyFhImage,
)
