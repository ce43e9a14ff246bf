# SPDX-License-Identifier: GPL-3.0-or-later
"""A short run of the backend beside Blender: started, polled, read when it has ended."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO

from . import process

_TAIL_BYTES = 2048
_MAX_OUTPUT_BYTES = 4 << 20


class Task:
    """One command of the backend as a process that is polled, never waited for.

    Args:
        timeout_s: A run that takes longer is ended.
    """

    def __init__(self, timeout_s: float) -> None:
        self.exit_code: int | None = None
        self.output = ""
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._started = 0.0

    @property
    def running(self) -> bool:
        """True between :meth:`start` and the poll that sees the end."""
        return self._child is not None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def last_line(self) -> str:
        """The last line that the run has written so far."""
        if self._log is None:
            lines = self.output.split("\n")
        else:
            # A file of its own offset: the child writes through the same one.
            size = os.fstat(self._log.fileno()).st_size
            data = _read_at(self._log, max(0, size - _TAIL_BYTES), _TAIL_BYTES)
            lines = data.decode("utf-8", errors="replace").split("\n")
        rows = [line.rsplit("\r", 1)[-1].strip() for line in lines]
        return next((row for row in reversed(rows) if row), "")

    def start(self, python: str, arguments: Sequence[str]) -> None:
        """Run ``python -m toonify3d ARGUMENTS``, ending a run that is still going.

        Raises:
            OSError: The interpreter cannot be started.
        """
        self.launch([python, "-m", "toonify3d", *arguments])

    def launch(self, command: Sequence[str]) -> None:
        """Run any command with the backend importable, ending a run that is still going.

        Raises:
            OSError: The program cannot be started.
        """
        self.close()
        self.exit_code, self.output, self._started = None, "", time.monotonic()
        backend = process.backend_source()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        environment = process.scrubbed_environment(backend=backend)
        try:
            self._child = process.start(command, environment, self._log, cwd=backend)
        except OSError:
            self.close()
            raise

    def poll(self) -> bool:
        """True once, when the run has ended; :attr:`exit_code` and :attr:`output` are set then."""
        if self._child is None or self._log is None:
            return False
        code = self._child.poll()
        if code is None and self.elapsed_s < self._timeout_s:
            return False
        self.exit_code = code
        data = _read_at(self._log, 0, _MAX_OUTPUT_BYTES)
        self.output = data.decode("utf-8", errors="replace")
        self.close()
        return True

    def close(self) -> None:
        """End the run if it is still going; its output is not read."""
        if self._child is not None:
            process.end(self._child, force=True)
            process.close_stdin(self._child)
        if self._log is not None:
            self._log.close()
        self._child = self._log = None


def _read_at(log: IO[bytes], offset: int, size: int) -> bytes:
    """Bytes of a file without moving the position at which the child goes on writing."""
    if hasattr(os, "pread"):
        return os.pread(log.fileno(), size, offset)
    # Windows: parent and child have handles of their own there, with positions of their own.
    log.seek(offset)
    return log.read(size)
