"""Runs a program of somebody else, cancellable, with its output in a log."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...orphans import orphan_guard
from ...progress import Progress

_LOOK_S = 0.3


def run_program(command: Sequence[str], folder: Path, code: str, progress: Progress) -> None:
    """Run ``command`` in ``folder`` and wait for its end.

    Its output goes to ``folder/NAME.log``. Nothing is known of how far it is, so ``progress``
    creeps towards the end. The program does not outlive this process however that ends.

    Raises:
        InputError: It cannot be started or ends with an error (``code``), with its last line.
        CancelledError: By ``progress``; the program has been ended.
    """
    name = Path(command[0]).name
    log = folder / f"{name}.log"
    with log.open("wb") as output, orphan_guard() as guard:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            raise InputError(f"{name} cannot be started: {error.strerror}.", code) from error
        guard.watch(process.pid)
        try:
            share = 0.0
            while process.poll() is None:
                progress.update(share, f"Depth: {name}")
                share += 0.002 * (1.0 - share)
                try:
                    process.wait(_LOOK_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        raise InputError(f"{name} failed (exit code {process.returncode}): {last[:300]}", code)
