# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a preset will take and how much memory: measured on this computer, else estimated."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).resolve().parent / "settings.json"
PER_CAPTURE = ("capture", "prior")
"""Steps that several exemplars share."""

_WHOLE_RUNS = ("stylize", "restyle")


@functools.cache
def settings_table() -> dict[str, Any]:
    """What the backend says about its settings (written by ``toonify3d.settings_table``)."""
    document: dict[str, Any] = json.loads(SETTINGS.read_text(encoding="utf-8"))
    return document


def doc(name: str) -> str:
    """The meaning of a backend setting, as a tooltip (Blender adds the full stop itself)."""
    return str(settings_table()["docs"][name]).removesuffix(".")


def default(name: str) -> float | bool | str:
    """The default of a backend setting."""
    found: float | bool | str = settings_table()["defaults"][name]
    return found


def limits(name: str) -> tuple[float, float]:
    """Least and greatest value of a backend setting."""
    low, high = settings_table()["limits"][name]
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """What a job will cost.

    Attributes:
        seconds: None when nothing can be said.
        memory_gb: None when nothing can be said.
        measured: These figures were measured, not extrapolated from another preset's.
        here: They rest on jobs that ran on this computer.
    """

    seconds: float | None
    memory_gb: float | None
    measured: bool
    here: bool

    def text(self) -> str:
        """One line for the panel."""
        if self.seconds is None:
            return "Hours; never measured"
        how = "measured" if self.measured else "estimated"
        where = "on this computer" if self.here else "on 2 CPU cores"
        memory = "" if self.memory_gb is None else f", {self.memory_gb:.1f} GB"
        return f"About {about(self.seconds)}{memory} ({how} {where})"


def about(seconds: float) -> str:
    """A duration as roughly as it is known: ``"5 min"``, ``"1.5 h"``."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes if minutes < 10 else 5 * round(minutes / 5)} min"
    halves = round(seconds / 1800)
    return f"{halves // 2}{'.5' if halves % 2 else ''} h"


def estimate(
    preset: str, device: str, measured: Mapping[str, Any], exemplars: int = 1
) -> Estimate | None:
    """What ``preset`` will cost.

    Args:
        preset: Name of the preset.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``; what jobs here will run on.
        measured: What :func:`record` has collected on this computer.
        exemplars: How many styles.

    Returns:
        None when nothing at all is known for this device.
    """
    table = settings_table()
    work = table["work"].get(preset)
    own = measured.get(device, {})
    if _complete(own.get(preset)):
        found = own[preset]
        return Estimate(_total(found["seconds"], exemplars), found.get("memory_gb"), True, True)
    if work is None:
        return Estimate(None, None, False, False)
    memory = _memory(work, table["rss_gb"]) if device == "cpu" else None
    for other in table["work"]:
        if table["work"][other] is not None and _complete(own.get(other)):
            known = own[other]["seconds"]
            seconds = {step: known[step] * work[step] / table["work"][other][step] for step in work}
            return Estimate(_total(seconds, exemplars), memory, False, True)
    if device != "cpu":
        return None
    seconds = {step: table["seconds"][step] * work[step] for step in work}
    return Estimate(_total(seconds, exemplars), memory, preset == "preview", False)


def _complete(found: Any) -> bool:
    return isinstance(found, dict) and set(settings_table()["seconds"]) <= set(found["seconds"])


def _total(seconds: Mapping[str, float], exemplars: int) -> float:
    return sum(value * (1 if step in PER_CAPTURE else exemplars) for step, value in seconds.items())


def _memory(work: Mapping[str, float], rss: Mapping[str, float]) -> float:
    """The frames' share grows with their number and size, like the work of the capture step."""
    return float(rss["base"] + rss["frames"] * work["capture"])


def load(path: Path) -> dict[str, Any]:
    """What was measured so far; empty when the file is missing or damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def record(path: Path, result: Path, command: str) -> None:
    """Remember what a finished job took, from its ``report.json``.

    Resumed runs are left out (their clock started late), refined ones too (other settings).

    Raises:
        OSError: ``path`` cannot be written.
    """
    if command not in _WHOLE_RUNS:
        return
    try:
        report = json.loads((result / "report.json").read_text(encoding="utf-8"))
        device, preset = str(report["device"]).split(":")[0], str(report["preset"])
        done = {
            step: float(report["seconds"][step])
            for step in settings_table()["seconds"]
            if step not in report["steps_from_cache"]
        }
        memory = float(report["peak_rss_mb" if device == "cpu" else "peak_vram_mb"]) / 1024
    except (OSError, ValueError, KeyError, TypeError):
        return
    measured = load(path)
    entry = measured.setdefault(device, {}).setdefault(preset, {"seconds": {}, "memory_gb": 0.0})
    entry["seconds"].update(done)
    whole = set(PER_CAPTURE) <= set(done)
    entry["memory_gb"] = memory if whole else max(memory, entry["memory_gb"])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    temporary.replace(path)
