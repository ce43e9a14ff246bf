# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the backend's environment in its own process and turns the answer into a checklist."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import process

PYTHON_MIN, PYTHON_MAX = (3, 10), (3, 12)
MIN_FREE_DISK_GB = 5.0
TIMEOUT_S = 120.0
_PROBE = Path(__file__).resolve().parent / "probe.py"


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


def checklist(report: dict[str, Any]) -> list[CheckLine]:
    """The lines for a report of ``probe.py``."""
    version = tuple(report.get("version_info", (0, 0)))
    fits = PYTHON_MIN <= version <= PYTHON_MAX
    wanted = f"needs {_dotted(PYTHON_MIN)} to {_dotted(PYTHON_MAX)}"
    python = str(report.get("python", "?"))
    lines = [CheckLine("Python", fits, python if fits else f"{python}, {wanted}", _fix(fits))]
    missing = [str(name) for name in report.get("missing", [])]
    packages = "all installed" if not missing else "missing: " + ", ".join(missing)
    lines.append(CheckLine("Packages", not missing, packages, _fix(not missing)))
    lines.append(_device_line(report.get("device")))
    disk = float(report.get("free_disk_gb", 0.0))
    roomy = disk >= MIN_FREE_DISK_GB
    note = f"{disk:.0f} GB free" + ("" if roomy else f", a job may need {MIN_FREE_DISK_GB:.0f} GB")
    lines.append(CheckLine("Disk", roomy, note))
    return lines


def _fix(ok: bool) -> str:
    return "" if ok else "toonify3d.choose_python"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _device_line(device: dict[str, Any] | None) -> CheckLine:
    if device is None:
        return CheckLine("Device", False, "PyTorch is not installed", _fix(False))
    if "error" in device:
        return CheckLine("Device", False, f"PyTorch does not load ({device['error']})", _fix(False))
    name = f"{device['name']}, torch {device['torch']}"
    if "free_gb" in device:
        name += f", {device['free_gb']:.1f} of {device['total_gb']:.1f} GB free"
    return CheckLine("Device", True, name)


class BackendCheck:
    """The check as a process that is polled."""

    def __init__(self) -> None:
        self.lines: list[CheckLine] = []
        self.report: dict[str, Any] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._deadline = 0.0

    @property
    def running(self) -> bool:
        """True while the answer is awaited."""
        return self._child is not None

    @property
    def ok(self) -> bool:
        """True when a check has passed in every line."""
        return bool(self.lines) and all(line.ok for line in self.lines)

    def start(self, python: str, folder: Path) -> None:
        """Ask the interpreter ``python``; ``folder`` is where jobs go (disk space)."""
        self.close()
        self.lines, self.report = [], None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._deadline = time.monotonic() + TIMEOUT_S
        environment = process.scrubbed_environment(backend=process.backend_source())
        try:
            command = [python, str(_PROBE), str(folder)]
            self._child = process.start(command, environment, self._output)
        except OSError as error:
            detail = f"cannot be started ({error.strerror or error})"
            self.lines = [CheckLine("Python", False, detail, _fix(False))]
            self.close()

    def poll(self) -> bool:
        """Take the answer when it is there; True when the checklist changed."""
        if self._child is None or self._output is None:
            return False
        if self._child.poll() is None:
            if time.monotonic() < self._deadline:
                return False
            self.lines = [CheckLine("Python", False, "no answer in two minutes", _fix(False))]
        else:
            self._read()
        self.close()
        return True

    def close(self) -> None:
        """End a running check."""
        if self._child is not None:
            process.end(self._child, force=True)
            process.close_stdin(self._child)
        if self._output is not None:
            self._output.close()
        self._child = self._output = None

    def _read(self) -> None:
        assert self._output is not None
        self._output.seek(0)
        text = self._output.read().decode("utf-8", errors="replace").strip()
        last = text.rsplit("\n", 1)[-1]
        try:
            report = json.loads(last)
            self.lines = checklist(report)
            self.report = report
        except (ValueError, TypeError, AttributeError, KeyError):
            detail = f"this is not a Python that works ({last[:120] or 'no answer'})"
            self.lines = [CheckLine("Python", False, detail, _fix(False))]
