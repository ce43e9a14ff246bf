"""Presets: every part's settings put together.

``JobSettings`` belong to the capture (a job has one), ``StyleSettings`` to a style (a job can have
many). Both go into ``job.json`` and into the keys of the cached steps.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .asset.settings import AssetSettings
from .capture.settings import CaptureSettings
from .errors import InputError
from .portrait2d.adapters.settings import AdapterSettings
from .portrait2d.settings import StylizeSettings
from .settings_doc import override
from .settings_limits import check_limits, leaves
from .training.adaption_settings import (
    PAPER_GEOMETRY,
    PAPER_TEXTURE,
    GeometryAdaptionSettings,
    TextureAdaptionSettings,
)
from .training.settings import PRESETS as PRIOR_PRESETS
from .training.settings import PriorSettings

PRESETS = ("preview", "standard", "high", "paper")
"""What users choose from; ``tiny`` also exists, for tests."""


@dataclass(frozen=True)
class JobSettings:
    """What belongs to the capture and its prior."""

    preset: str = "standard"
    """The preset these settings started from."""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    """Frames, cameras, masks, depth."""
    prior: PriorSettings = field(default_factory=PriorSettings)
    """Stage I."""
    prior_mesh: AssetSettings = field(default_factory=AssetSettings)
    """The mesh that is cut from the prior."""


@dataclass(frozen=True)
class StyleSettings:
    """What belongs to one style."""

    stylize: StylizeSettings = field(default_factory=StylizeSettings)
    """The 2D portraits."""
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    """The user's own 2D stylizer."""
    geometry: GeometryAdaptionSettings = field(default_factory=GeometryAdaptionSettings)
    """Stage II."""
    texture: TextureAdaptionSettings = field(default_factory=TextureAdaptionSettings)
    """Stage III."""
    asset: AssetSettings = field(default_factory=AssetSettings)
    """Mesh, atlas and files."""


def preset_settings(name: str) -> tuple[JobSettings, StyleSettings]:
    """The settings of a preset.

    Raises:
        InputError: There is no such preset.
    """
    if name not in (*PRESETS, "tiny"):
        raise InputError(
            f"There is no preset '{name}'; use one of {', '.join(PRESETS)}.", "bad_preset"
        )
    job = JobSettings(
        preset=name,
        capture=_capture(name),
        prior=PRIOR_PRESETS[name],
        prior_mesh=AssetSettings(resolution=_RESOLUTION[name], faces=_PRIOR_FACES[name]),
    )
    return job, StyleSettings(
        stylize=StylizeSettings(side_frames=0) if name == "paper" else StylizeSettings(),
        geometry=_geometry(name),
        texture=_texture(name),
        asset=AssetSettings(
            resolution=_RESOLUTION[name], faces=_FACES[name], texture_size=_TEXTURE[name]
        ),
    )


_RESOLUTION = {"tiny": 96, "preview": 256, "standard": 384, "high": 512, "paper": 512}
_PRIOR_FACES = {"tiny": 8_000, "preview": 100_000, "standard": 200_000, "high": 0, "paper": 0}
_FACES = {"tiny": 6_000, "preview": 30_000, "standard": 50_000, "high": 80_000, "paper": 80_000}
_TEXTURE = {"tiny": 512, "preview": 2048, "standard": 2048, "high": 4096, "paper": 4096}


def _capture(name: str) -> CaptureSettings:
    frames = {"tiny": 48, "preview": 120, "standard": 200, "high": 300, "paper": 300}[name]
    side = {"tiny": 560, "preview": 640, "standard": 1024, "high": 1536, "paper": 1024}[name]
    return CaptureSettings(max_frames=frames, long_side=side)


def _geometry(name: str) -> GeometryAdaptionSettings:
    if name == "paper":
        return PAPER_GEOMETRY
    steps = {"tiny": 30, "preview": 500, "standard": 1500, "high": 3000}[name]
    # On the known style 8 samples came as near as 14, with a fifth less work (one seed, preview).
    samples = 8 if name == "preview" else GeometryAdaptionSettings.samples
    return GeometryAdaptionSettings(steps=steps, samples=samples)


def _texture(name: str) -> TextureAdaptionSettings:
    if name == "paper":
        return PAPER_TEXTURE
    steps = {"tiny": 30, "preview": 500, "standard": 1500, "high": 3000}[name]
    return TextureAdaptionSettings(steps=steps)


def apply_overrides(
    job: JobSettings, style: StyleSettings, assignments: Iterable[str]
) -> tuple[JobSettings, StyleSettings]:
    """Apply ``NAME=VALUE`` settings to whichever group has the name.

    Raises:
        InputError: No such setting, or a value that does not fit.
    """
    style_groups = {item.name for item in dataclasses.fields(StyleSettings)}
    names = [name for group in (job, style) for name, _ in leaves(group)]
    for assignment in assignments:
        name, equals, _ = assignment.partition("=")
        if equals:
            _check_name(name.strip(), names)
        if name.partition(".")[0].strip() in style_groups:
            style = override(style, assignment)
        else:
            job = override(job, assignment)
    check_limits(job)
    check_limits(style)
    return job, style


def _check_name(name: str, names: Sequence[str]) -> None:
    """See whether there is such a setting, and say which one may have been meant.

    Raises:
        InputError: There is none.
    """
    if name == "preset":  # a preset's name on another one's values would belie the job
        raise InputError("Choose the preset with --preset, not with --set.", "bad_setting")
    if name in names:
        return
    group = [other for other in names if name and other.startswith(f"{name}.")]
    if group:
        raise InputError(
            f"'{name}' is a group of settings; name one of them, such as {group[0]}.", "bad_setting"
        )
    last = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.75)
    near = near or [other for other in names if other.rpartition(".")[2] == last]
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(
        f"There is no setting '{name}'; 'toonify3d settings' lists them.{meant}", "bad_setting"
    )
