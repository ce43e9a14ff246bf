# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ``bootstrap.py`` in its own process and follows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from . import process

BOOTSTRAP = Path(__file__).resolve().parent / "bootstrap.py"
STEPS = 3


class BackendSetup:
    """The setup as a process that is polled."""

    def __init__(self) -> None:
        self.step = 0
        self.message = ""
        self.error = ""
        self.python = ""
        self.folder: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: IO[bytes] | None = None

    @property
    def running(self) -> bool:
        """True while the setup works."""
        return self._child is not None

    def start(
        self, folder: Path, requirements: Path, wheels: str = "", interpreter: str = ""
    ) -> None:
        """Start it; a failure to start becomes :attr:`error`.

        Args:
            folder: Where the environment goes.
            requirements: The pinned package list.
            wheels: Folder of wheels for a setup without network, empty for none.
            interpreter: Base interpreter; empty to search.
        """
        self.cancel()
        self.step, self.message, self.error, self.python = 0, "Starting", "", ""
        self.folder = folder
        command = [sys.executable, str(BOOTSTRAP), "--folder", str(folder)]
        command += ["--requirements", str(requirements)]
        command += ["--wheels", wheels] if wheels else []
        command += ["--python", interpreter] if interpreter else []
        output = folder / "setup-progress.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(output, "wb") as log:
                self._child = process.start(command, process.scrubbed_environment(), log)
            self._reader = open(output, "rb")  # noqa: SIM115 - closed when the setup ends
        except OSError as error:
            self.error = f"The setup cannot be started: {error}"
            self.cancel()

    def poll(self) -> bool:
        """Take what it has said; True when something changed."""
        if self._child is None or self._reader is None:
            return False
        ended = self._child.poll() is not None
        lines = self._reader.readlines()
        for line in lines:
            self._take(line)
        if ended:
            if not (self.python or self.error):
                self.error = f"The setup ended with code {self._child.returncode}"
            self._close()
        return bool(lines) or ended

    def cancel(self) -> None:
        """End a running setup; what is installed stays and is reused next time."""
        if self._child is not None:
            process.end(self._child, force=os.name == "nt")
            self.error = "The setup was stopped; it can go on later"
        self._close()

    def _take(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except ValueError:
            # Not ours: a warning of the interpreter.
            self.message = line.decode("utf-8", "replace").strip()[:200]
            return
        self.step = int(fields.get("step", self.step))
        self.message = str(fields.get("message", self.message))
        self.error = str(fields.get("error", self.error))
        self.python = str(fields.get("python", self.python))

    def _close(self) -> None:
        if self._child is not None:
            process.close_stdin(self._child)
        if self._reader is not None:
            self._reader.close()
        self._child = self._reader = None
