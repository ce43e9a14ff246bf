# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ``bootstrap.py`` in its own process and follows it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import IO

from . import process

BOOTSTRAP = Path(__file__).resolve().parent / "bootstrap.py"
LOG = "setup-log.txt"
_TAIL_BYTES = 4096


class BackendSetup:
    """The setup as a process that is polled."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self.message = ""
        self.error = ""
        self.python = ""
        self.tail: list[str] = []
        self.folder: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: IO[bytes] | None = None
        self._log_size = -1

    @property
    def running(self) -> bool:
        """True while the setup works."""
        return self._child is not None

    @property
    def log(self) -> Path | None:
        """pip's output, None before the first setup."""
        return None if self.folder is None else self.folder / LOG

    def start(self, folder: Path, packages: Path, device: str = "auto", wheels: str = "") -> None:
        """Start it; a failure to start becomes :attr:`error`.

        Args:
            folder: Where the environment goes.
            packages: Folder of the package lists.
            device: ``auto``, ``cpu`` or ``cuda``: which build of PyTorch.
            wheels: Folder of wheels for a setup without network, empty for none.
        """
        self.cancel()
        self.fraction, self.message, self.error, self.python = 0.0, "Starting", "", ""
        self.folder, self.tail, self._log_size = folder, [], -1
        command = [process.helper_python(), *arguments(folder, packages, device, wheels)]
        output = folder / "setup-progress.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(output, "wb") as log:
                self._child = process.start(
                    [*command, "--blender"], process.scrubbed_environment(), log
                )
            self._reader = open(output, "rb")  # noqa: SIM115 - closed when the setup ends
        except OSError as error:
            self.error = f"The setup cannot be started: {error}"
            self._close()

    def poll(self) -> bool:
        """Take what it has said; True when something changed."""
        if self._child is None or self._reader is None:
            return False
        ended = self._child.poll() is not None
        lines = self._reader.readlines()
        grown = self._read_log()
        for line in lines:
            self._take(line)
        if ended:
            if not (self.python or self.error):
                self.error = f"The setup ended with code {self._child.returncode}"
            self._close()
        return bool(lines) or grown or ended

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
        self.fraction = float(fields.get("fraction", self.fraction))
        self.message = str(fields.get("message", self.message))
        self.error = str(fields.get("error", self.error))
        self.python = str(fields.get("python", self.python))

    def _read_log(self) -> bool:
        """Keep the last lines of pip's output; True when there are new ones."""
        if self.log is None or not self.log.is_file():
            return False
        with open(self.log, "rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            if size == self._log_size:
                return False
            self._log_size = size
            handle.seek(max(0, size - _TAIL_BYTES))
            text = handle.read().decode("utf-8", "replace")
        # The commands themselves are long and say nothing to an artist.
        rows = [row.strip() for row in text.splitlines()[1 if size > _TAIL_BYTES else 0 :]]
        self.tail = [row for row in rows if row and not row.startswith("$")][-4:]
        return True

    def _close(self) -> None:
        if self._child is not None:
            process.close_stdin(self._child)
        if self._reader is not None:
            self._reader.close()
        self._child = self._reader = None


def arguments(folder: Path, packages: Path, device: str, wheels: str) -> list[str]:
    """The bootstrap's command line, without the interpreter."""
    command = [str(BOOTSTRAP), "--folder", str(folder), "--packages", str(packages)]
    command += ["--device", device]
    return command + (["--wheels", wheels] if wheels else [])
