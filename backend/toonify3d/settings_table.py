"""The table from which the add-on takes tooltips and expected times: ``settings.json``.

Blender cannot import the backend, so what the dataclasses say is written into the add-on's folder:
``python -m toonify3d.settings_table blender_addon/settings.json``. A test proves it up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .files import write_text
from .pipeline import EXPECTED_SECONDS
from .portrait2d.settings import StylizeSettings
from .settings import PRESETS, JobSettings, StyleSettings, preset_settings
from .settings_doc import field_docs
from .settings_limits import CHOICES, LIMITS

EXPECTED_RSS_GB = {"base": 1.0, "frames": 0.6}
"""Resident memory of the preview preset: 1.6 GB measured, about 0.6 of it in the frames."""


_PARTS = ("eyes", "brows", "nose", "mouth", "jaw", "oval")
SHOWN = ("look", "strength", *(f"{part}_weight" for part in _PARTS), "expression", "symmetric")
"""The settings of the 2D portraits that the add-on shows."""


def settings_table() -> dict[str, Any]:
    """Meaning, default and values of what the add-on shows, and per preset what it costs."""
    docs, defaults = field_docs(StylizeSettings), StylizeSettings()
    shown = [f"stylize.{name}" for name in SHOWN]
    return {
        "docs": {f"stylize.{name}": _one_line(docs[name]) for name in SHOWN},
        "defaults": {f"stylize.{name}": getattr(defaults, name) for name in SHOWN},
        "limits": {name: list(LIMITS[name]) for name in shown if name in LIMITS},
        "choices": {name: list(CHOICES[name]) for name in shown if name in CHOICES},
        "seconds": EXPECTED_SECONDS,
        "rss_gb": EXPECTED_RSS_GB,
        "work": {name: _work(name) for name in PRESETS},
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _work(name: str) -> dict[str, float] | None:
    """What each step has to do against the preview preset; None where that says nothing.

    Counts only (pixels, rays, cells): for estimates where nothing was measured.
    """
    if name == "paper":  # other networks: a ray costs several times as much, unmeasured
        return None
    own, base = _counts(*preset_settings(name)), _counts(*preset_settings("preview"))
    return {step: round(own[step] / base[step], 3) for step in own}


def _counts(job: JobSettings, style: StyleSettings) -> dict[str, float]:
    pixels = float(job.capture.long_side**2)
    preview_cells, preview_texels = 256.0**3, 2048.0**2
    return {
        "capture": job.capture.max_frames * pixels,
        "prior": float(job.prior.steps * job.prior.rays),
        "portraits": (style.stylize.max_frames + style.stylize.side_frames) * pixels,
        "geometry": float(style.geometry.steps * style.geometry.rays),
        "texture": float(style.texture.steps * style.texture.rays),
        "asset": style.asset.resolution**3 / preview_cells
        + style.asset.texture_size**2 / preview_texels,
    }


def write_table(path: Path) -> None:
    """Write the table as JSON."""
    write_text(path, json.dumps(settings_table(), indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
