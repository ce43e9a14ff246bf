# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist chooses for a job; stored with the scene."""

from pathlib import Path
from typing import Any

import bpy

from . import compat, estimates

PRESETS = (
    ("preview", "Preview", "A first look in minutes: 30k triangles, 2K texture"),
    ("standard", "Standard", "Good quality: 50k triangles, 2K texture; wants a GPU, or patience"),
    ("high", "High", "Fine detail: 80k triangles, 4K texture; wants a GPU with 8 GB or more"),
    ("paper", "Paper", "The settings of the 3DToonify paper: hours on a large GPU"),
)

LOOKS = (
    ("auto", "Automatic", "Chosen by the picture", 0),
    ("toon", "Toon", "Smooth colors; eyes, brows and lips as they are drawn", 1),
    ("cel", "Cel", "Flat tones with hard edges between them", 2),
    ("paint", "Paint", "Brush strokes, laid on as in the exemplar", 3),
    ("hatch", "Hatch", "Strokes of chalk or an engraver's lines", 4),
    ("ink", "Ink", "Two tones and drawn lines", 5),
    ("colour", "Colors and Strokes", "No face is needed; the person keeps the shape", 6),
)
"""Values of the backend's setting behind the look. The numbers are what a .blend holds."""

LOOK = "stylize.look"

FEATURES = {
    "eyes": "stylize.eyes_weight",
    "brows": "stylize.brows_weight",
    "nose": "stylize.nose_weight",
    "mouth": "stylize.mouth_weight",
    "jaw": "stylize.jaw_weight",
    "head": "stylize.oval_weight",
    "expression": "stylize.expression",
    "symmetric": "stylize.symmetric",
}
"""What is chosen for single features, and the backend's settings behind it."""


def _slider(label: str, setting: str, **options: Any) -> Any:
    """A slider for a setting; tooltip, limits and default are the backend's own."""
    low, high = estimates.limits(setting)
    return bpy.props.FloatProperty(
        name=label,
        description=estimates.doc(setting),
        min=low,
        max=high,
        default=estimates.default(setting),
        subtype="FACTOR",
        **options,
    )


def _feature(name: str) -> Any:
    """A slider for one feature."""
    return _slider(name.title(), FEATURES[name])


def _live_changed(settings: bpy.types.PropertyGroup, _: bpy.types.Context) -> None:
    """Show or remove at once, not at the next step of the job."""
    from . import session

    session.show_live(settings.id_data)


class ToonifyExemplar(bpy.types.PropertyGroup):
    """One more style for the same capture."""

    path: bpy.props.StringProperty(
        name="Exemplar",
        description="Another stylized portrait; each becomes an avatar of its own",
        subtype="FILE_PATH",
        options=compat.path_options(),
    )


def _place(label: str) -> Any:
    """Where a place is; negative when it is not marked."""
    return bpy.props.FloatVectorProperty(
        name=label, description="Pixels from the top left corner", size=2, default=(-1.0, -1.0)
    )


class ToonifyFace(bpy.types.PropertyGroup):
    """What the artist has said about the face in one exemplar; kept when others are chosen."""

    path: bpy.props.StringProperty(
        name="Exemplar",
        description="The picture this is about",
        subtype="FILE_PATH",
        options=compat.path_options(),
    )
    colors_only: bpy.props.BoolProperty(
        name="Colors and Strokes Only",
        description="Take only colors and strokes from this exemplar; the person keeps the shape",
        default=False,
    )
    size: bpy.props.IntVectorProperty(
        name="Size", description="Width and height of the marked picture", size=2
    )
    file_bytes: bpy.props.StringProperty(
        name="Length", description="Length of the marked file, to notice another one"
    )
    right_eye: _place("Eye on the left of the picture")
    left_eye: _place("Eye on the right of the picture")
    nose: _place("Tip of the Nose")
    mouth_right: _place("Corner of the mouth on the left of the picture")
    mouth_left: _place("Corner of the mouth on the right of the picture")
    chin: _place("Tip of the Chin")


class ToonifySettings(bpy.types.PropertyGroup):
    """Inputs of the next job."""

    capture: bpy.props.StringProperty(
        name="Capture",
        description="Video (or folder of images) of the head, filmed by walking once around it",
        subtype="FILE_PATH",
        options=compat.path_options(),
    )
    exemplar: bpy.props.StringProperty(
        name="Exemplar",
        description="One stylized portrait, seen from the front, whose style the head gets",
        subtype="FILE_PATH",
        options=compat.path_options(),
    )
    more_exemplars: bpy.props.CollectionProperty(type=ToonifyExemplar)
    faces: bpy.props.CollectionProperty(type=ToonifyFace)
    portraits: bpy.props.StringProperty(
        name="Painted Folder",
        description="Folder of the portraits that you painted, or made with any other program, "
        "under the names they were exported with; empty lets the exemplar make them",
        subtype="DIR_PATH",
        options=compat.path_options(),
    )
    preset: bpy.props.EnumProperty(
        name="Preset",
        description="How much time and memory to spend",
        items=PRESETS,
        default="preview",
    )
    look: bpy.props.EnumProperty(
        name="Look",
        description=estimates.doc(LOOK),
        items=LOOKS,
        default=estimates.default(LOOK),
    )
    strength: _slider("Shape Strength", "stylize.strength", soft_max=1.2)
    eyes: _feature("eyes")
    brows: _feature("brows")
    nose: _feature("nose")
    mouth: _feature("mouth")
    jaw: _feature("jaw")
    head: _feature("head")
    expression: _feature("expression")
    symmetric: bpy.props.BoolProperty(
        name="Symmetric",
        description=estimates.doc(FEATURES["symmetric"]),
        default=estimates.default(FEATURES["symmetric"]),
    )
    check_capture: bpy.props.BoolProperty(
        name="Check the Inputs First",
        description="Look at film and exemplars for some seconds and say what is wrong with them "
        "before anything long starts",
        default=True,
    )
    live_mesh: bpy.props.BoolProperty(
        name="Show the Mesh while Running",
        description="Show the reconstructed head in the viewport as soon as there is one; it goes "
        "when the finished avatar comes",
        default=False,
        update=_live_changed,
    )
    live_cameras: bpy.props.BoolProperty(
        name="Show Cameras and Points",
        description="Show from where the film was taken, and the points found in it",
        default=False,
        update=_live_changed,
    )
    output: bpy.props.StringProperty(
        name="Output",
        description="Folder for jobs; empty means a folder 3DToonify beside the saved .blend, or "
        "in your home folder",
        subtype="DIR_PATH",
        options=compat.path_options(),
    )
    job: bpy.props.StringProperty(
        name="Job",
        description="The job folder of the last job, for resuming and restyling",
        subtype="DIR_PATH",
        options=compat.path_options(),
    )
    longer: bpy.props.FloatProperty(
        name="Longer",
        description="How many times as long Refine More trains shape and colors",
        min=1.5,
        max=8.0,
        default=2.0,
    )
    bake_size: bpy.props.EnumProperty(
        name="Texture Size",
        description="Width and height of the baked textures in pixels",
        items=(("1024", "1K", ""), ("2048", "2K", ""), ("4096", "4K", "")),
        default="2048",
    )


class ToonifyTurntable(bpy.types.PropertyGroup):
    """How the turntable is rendered."""

    seconds: bpy.props.FloatProperty(
        name="Seconds", description="Time of one full turn", min=0.5, max=60.0, default=4.0
    )
    fps: bpy.props.IntProperty(
        name="Frame Rate", description="Frames per second", min=1, max=120, default=24
    )
    size: bpy.props.IntProperty(
        name="Size", description="Width and height in pixels", min=16, max=8192, default=1024
    )
    engine: bpy.props.EnumProperty(
        name="Engine",
        description="What renders the turntable",
        items=(
            ("EEVEE", "EEVEE", "Toon shading, fast with a GPU"),
            ("CYCLES", "Cycles", "Physically based shading with the same colors"),
        ),
    )
    samples: bpy.props.IntProperty(
        name="Samples", description="Samples per pixel", min=1, max=4096, default=32
    )
    turns: bpy.props.EnumProperty(
        name="Turning",
        description="What goes round",
        items=(
            ("OBJECT", "Object", "The head turns, light stays with the camera"),
            ("CAMERA", "Camera", "Camera and light go round the head"),
        ),
    )
    light: bpy.props.EnumProperty(
        name="Light",
        description="Light rig",
        items=(
            ("SOFT", "Soft", "Large lights from both sides"),
            ("STUDIO", "Studio", "Key, fill and rim light"),
            ("DRAMATIC", "Dramatic", "One strong side light and a rim"),
        ),
    )
    transparent: bpy.props.BoolProperty(
        name="Transparent", description="No backdrop (image sequence only)", default=False
    )
    backdrop: bpy.props.FloatVectorProperty(
        name="Backdrop",
        description="Background color",
        subtype="COLOR",
        size=3,
        min=0.0,
        max=1.0,
        default=(0.85, 0.87, 0.9),
    )
    video: bpy.props.BoolProperty(
        name="Video", description="Write an MP4 instead of an image sequence", default=True
    )


def absolute(path: str) -> Path | None:
    """A path property as an absolute path, None when it is empty."""
    return Path(bpy.path.abspath(path.strip())) if path.strip() else None


def register_properties() -> None:
    """Attach the settings to scenes."""
    bpy.types.Scene.toonify3d = bpy.props.PointerProperty(type=ToonifySettings)
    bpy.types.Scene.toonify3d_turntable = bpy.props.PointerProperty(type=ToonifyTurntable)


def unregister_properties() -> None:
    """Detach them again."""
    del bpy.types.Scene.toonify3d_turntable
    del bpy.types.Scene.toonify3d


CLASSES = (ToonifyExemplar, ToonifyFace, ToonifySettings, ToonifyTurntable)
