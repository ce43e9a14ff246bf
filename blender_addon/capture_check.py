# SPDX-License-Identifier: GPL-3.0-or-later
"""``toonify3d check`` before anything long starts: is the film good enough? (seconds)"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .task import Task

TIMEOUT_S = 300.0
SEVERITIES = ("stop", "warning", "hint", "ok")
"""From grave to fine."""


@dataclass(frozen=True)
class Finding:
    """One answer of the check.

    Attributes:
        severity: One of :data:`SEVERITIES`.
        what: What was found, one sentence.
        why: Why it matters; may be empty.
        what_to_do: How to do better; may be empty.
    """

    severity: str
    what: str
    why: str = ""
    what_to_do: str = ""


def report_list(output: str, name: str) -> list[Any]:
    """The list ``name`` of the JSON report in a command's output.

    Raises:
        ValueError: There is no report in it, or no such list in the report.
    """
    start = output.find("\n{\n") + 1 if not output.startswith("{\n") else 0
    document = json.JSONDecoder().raw_decode(output[start:])[0]
    if not isinstance(document, dict) or not isinstance(document.get(name), list):
        raise ValueError(f"no {name}")
    found: list[Any] = document[name]
    return found


def read_findings(output: str) -> list[Finding]:
    """The findings in the output of ``toonify3d check --json``, the gravest first.

    Raises:
        ValueError: There is no report in it.
    """
    found = [_finding(item) for item in report_list(output, "findings")]
    return sorted(found, key=lambda item: SEVERITIES.index(item.severity))


def _finding(item: Any) -> Finding:
    if not isinstance(item, dict) or item.get("severity") not in SEVERITIES:
        raise ValueError("a finding without severity")
    return Finding(
        item["severity"],
        str(item.get("what", "")),
        str(item.get("why", "")),
        str(item.get("what_to_do", "")),
    )


class CaptureCheck:
    """The check of one capture, as a process that is polled."""

    def __init__(self) -> None:
        self.capture = ""
        self.findings: list[Finding] = []
        self.problem = ""
        self.sheet: Path | None = None
        self._stamp: tuple[int, int] | None = None
        self._task = Task(TIMEOUT_S)

    @property
    def running(self) -> bool:
        """True while the answer is awaited."""
        return self._task.running

    @property
    def verdict(self) -> str:
        """The gravest severity found; empty without a (readable) report."""
        return self.findings[0].severity if self.findings else ""

    def answers(self, capture: Path) -> bool:
        """True when the check, or its failure, is about this file as it is now on disk."""
        known = bool(self.findings or self.problem) and not self.running
        return known and self.capture == str(capture) and self._stamp == file_stamp(capture)

    def start(self, python: str, capture: Path, sheet: Path) -> None:
        """Check ``capture``; a contact sheet is written to ``sheet`` (a PNG)."""
        self.clear()
        self.capture, self._stamp, self.sheet = str(capture), file_stamp(capture), sheet
        with contextlib.suppress(OSError):  # still open in a viewer, on Windows
            sheet.unlink()
        try:
            self._task.start(python, ["check", str(capture), "--json", "--sheet", str(sheet)])
        except OSError as error:
            self.problem = f"The capture was not checked ({error.strerror or error})"

    def poll(self) -> bool:
        """Take the answer when it is there; True when something changed."""
        if not self._task.poll():
            return False
        try:
            self.findings = read_findings(self._task.output)
        except ValueError:
            last = self._task.last_line[:200] or "no answer"
            self.problem = f"The capture was not checked ({last})"
        return True

    def clear(self) -> None:
        """Forget everything and end a running check."""
        self._task.close()
        self.capture, self.findings, self.problem = "", [], ""
        self.sheet = self._stamp = None


def file_stamp(path: Path) -> tuple[int, int] | None:
    """Time and length of a file, by which another one is noticed; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
