# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the backend's environment in its own process and turns the answer into a checklist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .task import Task

PYTHON_MIN, PYTHON_MAX = (3, 10), (3, 12)
MIN_FREE_DISK_GB = 5.0
MIN_FREE_GPU_GB = 4.0
TIMEOUT_S = 120.0
_PROBE = Path(__file__).resolve().parent / "probe.py"

CHOOSE, SET_UP = "toonify3d.choose_python", "toonify3d.set_up_backend"
OUTPUT, SOLID = "toonify3d.choose_output", "toonify3d.free_gpu"
_FIX_TEXTS = {
    CHOOSE: "Choose...",
    SET_UP: "Set Up",
    OUTPUT: "Choose...",
    SOLID: "Solid View",
}


@dataclass(frozen=True)
class CheckLine:
    """One line of the checklist.

    Attributes:
        title: What was looked at.
        ok: Whether it will do.
        detail: What was found, or what to do.
        fix: Identifier of the operator that mends it, empty for none.
    """

    title: str
    ok: bool
    detail: str
    fix: str = ""

    @property
    def fix_text(self) -> str:
        """What stands on the button."""
        return _FIX_TEXTS.get(self.fix, "Fix")


NOT_CHOSEN = CheckLine("Environment", False, "none yet: set one up below, or choose one", CHOOSE)
"""Stands in the checklist until there is an environment."""


def checklist(report: dict[str, Any]) -> list[CheckLine]:
    """The lines for a report of ``probe.py``: environment, Python, torch, device, rest, disk."""
    missing = [str(name) for name in report.get("missing", [])]
    device = report.get("device")
    others = [name for name in missing if name not in {"torch", "pycolmap"}]
    return [
        _line("Environment", bool(report.get("prefix")), str(report.get("prefix", "?")), CHOOSE),
        _python_line(report),
        _torch_line(device),
        *_device_lines(device, report),
        _line("pycolmap", "pycolmap" not in missing, _version(report, "pycolmap"), SET_UP),
        _line(
            "Other packages",
            not others,
            "missing: " + ", ".join(others) if others else "all installed",
            SET_UP,
        ),
        _disk_line(float(report.get("free_disk_gb", 0.0))),
    ]


def _line(title: str, ok: bool, detail: str, fix: str) -> CheckLine:
    return CheckLine(title, ok, detail, "" if ok else fix)


def _version(report: dict[str, Any], name: str) -> str:
    return str(report.get("versions", {}).get(name, "not installed"))


def _python_line(report: dict[str, Any]) -> CheckLine:
    version = tuple(report.get("version_info", (0, 0)))
    fits = PYTHON_MIN <= version <= PYTHON_MAX
    wanted = f", needs {_dotted(PYTHON_MIN)} to {_dotted(PYTHON_MAX)}"
    return _line("Python", fits, str(report.get("python", "?")) + ("" if fits else wanted), CHOOSE)


def _torch_line(device: dict[str, Any] | None) -> CheckLine:
    if device is None:
        return CheckLine("PyTorch", False, "not installed", SET_UP)
    if "error" in device:
        return CheckLine("PyTorch", False, f"does not load ({device['error']})", SET_UP)
    return CheckLine("PyTorch", True, str(device["torch"]))


def _device_lines(device: dict[str, Any] | None, report: dict[str, Any]) -> list[CheckLine]:
    """Where the work runs, and how much of the GPU's memory is free."""
    if device is None or "error" in device:
        return [CheckLine("Device", False, "known when PyTorch works", SET_UP)]
    driver = str(report.get("nvidia_driver", ""))
    if device.get("kind") == "cpu" and driver:
        text = f"processor only, though there is an NVIDIA GPU (driver {driver})"
        return [CheckLine("Device", False, text, SET_UP)]
    lines = [CheckLine("Device", True, str(device["name"]))]
    if "free_gb" in device:
        free, total = float(device["free_gb"]), float(device["total_gb"])
        text = f"{free:.1f} of {total:.1f} GB free"
        lines.append(_line("GPU memory", free >= MIN_FREE_GPU_GB, text, SOLID))
    return lines


def _disk_line(free: float) -> CheckLine:
    roomy = free >= MIN_FREE_DISK_GB
    note = "" if roomy else f", a job may need {MIN_FREE_DISK_GB:.0f} GB"
    return _line("Disk", roomy, f"{free:.0f} GB free{note}", OUTPUT)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


class BackendCheck:
    """The check as a process that is polled."""

    def __init__(self) -> None:
        self.lines: list[CheckLine] = []
        self.report: dict[str, Any] | None = None
        self._task = Task(TIMEOUT_S)

    @property
    def running(self) -> bool:
        """True while the answer is awaited."""
        return self._task.running

    @property
    def ok(self) -> bool:
        """True when a check has passed in every line."""
        return bool(self.lines) and all(line.ok for line in self.lines)

    def start(self, python: str, folder: Path) -> None:
        """Ask the interpreter ``python``; ``folder`` is where jobs go (disk space)."""
        self.lines, self.report = [], None
        try:
            self._task.launch([python, str(_PROBE), str(folder)])
        except OSError as error:
            detail = f"cannot be started ({error.strerror or error})"
            self.lines = [CheckLine("Environment", False, detail, CHOOSE)]

    def poll(self) -> bool:
        """Take the answer when it is there; True when the checklist changed."""
        if not self._task.poll():
            return False
        if self._task.exit_code is None:
            self.lines = [CheckLine("Environment", False, "no answer in two minutes", CHOOSE)]
        else:
            self._read(self._task.output.strip())
        return True

    def close(self) -> None:
        """End a running check."""
        self._task.close()

    def _read(self, text: str) -> None:
        last = text.rsplit("\n", 1)[-1]
        try:
            report = json.loads(last)
            self.lines = checklist(report)
            self.report = report
        except (ValueError, TypeError, AttributeError, KeyError):
            detail = f"this is not a Python that works ({last[:120] or 'no answer'})"
            self.lines = [CheckLine("Environment", False, detail, CHOOSE)]
