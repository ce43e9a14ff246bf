# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences: where the backend lives and how results come in."""

from pathlib import Path

import bpy

from . import __package__ as base_package
from . import compat, doctor
from .texts import draw_text


def default_output() -> Path:
    """Where jobs go when nothing else is said: beside the saved .blend, else in the home folder."""
    if bpy.data.filepath:
        return Path(bpy.data.filepath).parent / "3DToonify"
    return Path.home() / "3DToonify"


class ToonifyPreferences(bpy.types.AddonPreferences):
    """Preferences of the add-on."""

    bl_idname = base_package

    python: bpy.props.StringProperty(
        name="Backend Python",
        description="Python interpreter of the environment that holds PyTorch and the backend's "
        "packages. Not Blender's own Python",
        subtype="FILE_PATH",
        options=compat.path_options(),
    )
    environment: bpy.props.StringProperty(
        name="Environment Folder",
        description="Where Set Up Backend puts the environment: a short path with 8 GB of space. "
        "Not inside Blender's or this add-on's folders, which updates wipe",
        subtype="DIR_PATH",
        default=str(Path.home() / "3DToonify" / "backend"),
    )
    device: bpy.props.EnumProperty(
        name="PyTorch Build",
        description="Which build of PyTorch Set Up Backend installs",
        items=(
            ("AUTO", "For This Machine", "CUDA with an NVIDIA driver that is new enough, Metal on "
             "a Mac, else the processor"),
            ("CUDA", "NVIDIA CUDA", "A download of 3 GB; needs an NVIDIA GPU"),
            ("CPU", "Processor", "The smallest; works everywhere"),
        ),
    )  # fmt: skip
    wheels: bpy.props.StringProperty(
        name="Folder of Wheels",
        description="Install from this folder instead of the internet; empty to download. "
        "'bootstrap.py --download FOLDER' fills one on a machine with network",
        subtype="DIR_PATH",
    )
    keep_running: bpy.props.BoolProperty(
        name="Keep Running When Blender Closes",
        description="Let a running job go on after Blender has been closed; open its job folder "
        "later to see it again",
        default=False,
    )
    auto_import: bpy.props.BoolProperty(
        name="Import When Finished",
        description="Bring the finished avatar into the scene by itself",
        default=True,
    )
    standard_view: bpy.props.BoolProperty(
        name="Show True Style Colors",
        description="Set the scene's view transform to Standard on import. Blender's default, "
        "AgX, makes flat stylized colors dull",
        default=True,
    )
    pack_textures: bpy.props.BoolProperty(
        name="Pack Textures",
        description="Store imported textures inside the .blend",
        default=False,
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the preferences."""
        layout = self.layout
        _draw_backend(layout.box(), self)
        _draw_setup(layout.box(), self)
        column = layout.column(heading="Jobs")
        column.prop(self, "keep_running")
        column = layout.column(heading="Import")
        for name in ("auto_import", "standard_view", "pack_textures"):
            column.prop(self, name)


def _draw_backend(box: bpy.types.UILayout, settings: ToonifyPreferences) -> None:
    """The chosen interpreter and the checklist."""
    from . import session

    box.label(text="Backend", icon="PREFERENCES")
    box.prop(settings, "python")
    row = box.row()
    row.enabled = not session.check.running
    text = "Checking..." if session.check.running else "Check Backend"
    row.operator("toonify3d.check_backend", text=text, icon="FILE_REFRESH")
    row.operator("toonify3d.choose_python", icon="FILE_FOLDER")
    chosen = bool(settings.python.strip())
    for line in session.check.lines if chosen else (doctor.NOT_CHOSEN,):
        _draw_line(box, line)


def _draw_setup(box: bpy.types.UILayout, settings: ToonifyPreferences) -> None:
    """Making an environment: in a process of its own, never in Blender's Python."""
    from . import session

    setup = session.setup
    box.label(text="Set Up a New Environment", icon="IMPORT")
    column = box.column()
    column.enabled = not setup.running
    for name in ("environment", "device", "wheels"):
        column.prop(settings, name)
    if setup.running:
        box.progress(factor=setup.fraction, text=setup.message[:80])
        _draw_tail(box, setup.tail)
        row = box.row()
        row.operator("toonify3d.cancel_setup", icon="CANCEL")
        row.operator("toonify3d.open_setup_log", icon="TEXT")
        return
    if not (settings.wheels.strip() or bpy.app.online_access):
        row = box.row()
        draw_text(row, "Downloading needs Blender's Allow Online Access", icon="INTERNET", width=60)
        row.operator("toonify3d.online_access")
    row = box.row()
    row.operator("toonify3d.set_up_backend", icon="IMPORT")
    row.operator("toonify3d.copy_setup_command", icon="COPYDOWN")
    if setup.error:
        row = box.row()
        row.alert = True
        draw_text(row, setup.error, icon="ERROR", width=60)
        _draw_tail(box, setup.tail)
        box.operator("toonify3d.open_setup_log", icon="TEXT")


def _draw_tail(box: bpy.types.UILayout, rows: list[str]) -> None:
    """The end of pip's output, so that one sees that something happens."""
    column = box.column(align=True)
    column.active = False
    for text in rows:
        column.label(text=text[:100])


def _draw_line(layout: bpy.types.UILayout, line: doctor.CheckLine) -> None:
    row = layout.row()
    row.alert = not line.ok
    icon = "CHECKMARK" if line.ok else "ERROR"
    draw_text(row, f"{line.title}: {line.detail}", icon=icon, width=60)
    if line.fix:
        button = row.row()
        button.alignment = "RIGHT"
        button.operator(line.fix, text=line.fix_text)


def get(context: bpy.types.Context | None = None) -> ToonifyPreferences | None:
    """This add-on's preferences, None when it is not enabled as an add-on."""
    found = (context or bpy.context).preferences.addons.get(base_package)
    return None if found is None else found.preferences


def python_path() -> str:
    """The chosen interpreter as an absolute path, empty when none is chosen."""
    settings = get()
    raw = settings.python.strip() if settings is not None else ""
    return bpy.path.abspath(raw) if raw else ""


CLASSES = (ToonifyPreferences,)
