"""Runs a program of the user's to its end, or ends it and everything it started."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ...errors import InputError
from ...orphan_guard import GRACE_S, end_tree
from ...orphans import OrphanGuard, orphan_guard
from ...progress import Progress

_LOOK_S = 0.2
"""How often the program and the wish to cancel are looked at."""
_USUAL_S = 60.0
"""After so long ``progress``, which cannot know how far the program is, stands at one half."""


def split_command(command: str, windows: bool = os.name == "nt") -> list[str]:
    """Program and arguments as a POSIX shell would tell them apart.

    On Windows a backslash parts the folders of a path and so escapes nothing.

    Raises:
        ValueError: A quote is not closed.
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if windows:
        lexer.escape = ""
    return list(lexer)


def check_program(program: str, setting: str) -> None:
    """See early whether a program can be started.

    Args:
        program: Path, or a name on ``PATH``.
        setting: Where the user named it.

    Raises:
        InputError: It is not there or not executable (``no_program``).
    """
    if shutil.which(program) is None:
        raise InputError(
            f"The program '{program}' cannot be started: it does not exist or may not be run"
            f" (--set {setting}=...; no shell takes part, so put pipes and variables into a"
            " script).",
            "no_program",
        )


def run_program(
    words: Sequence[str],
    timeout: float,
    progress: Progress,
    message: str,
    folder: Path | None = None,
) -> None:
    """Run a program to its end, or to ours: it does not outlive this process however that ends.

    Args:
        words: Program and arguments.
        timeout: Seconds.
        progress: Asked several times a second; creeps, because nothing is known of how far the
            program is.
        message: For ``progress``.
        folder: Working folder; None is ours.

    Raises:
        InputError: Not found (``no_program``), too slow (``program_slow``), or it failed
            (``program_failed``; its last line is quoted).
        CancelledError: By ``progress``. The program and all it started have been ended.
    """
    # A pipe that nobody empties would stop the program.
    with tempfile.TemporaryFile() as output, orphan_guard() as guard:
        process = _start(words, output, folder, guard)
        try:
            _wait(process, words[0], timeout, progress, message)
        except BaseException:  # Ctrl-C too
            _end(process)
            raise
        if process.returncode:
            said = _last_line(output)
            raise InputError(
                f"The program '{words[0]}' failed with {process.returncode}{said}",
                "program_failed",
            )


def _start(
    words: Sequence[str], output: IO[bytes], folder: Path | None, guard: OrphanGuard
) -> subprocess.Popen[bytes]:
    """Start the program as the head of a group of its own, so that all of it can be ended."""
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        process = subprocess.Popen(
            list(words),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            creationflags=flags,
            start_new_session=sys.platform != "win32",
        )
    except OSError as error:
        raise InputError(
            f"The program '{words[0]}' cannot be started: {error.strerror}.", "no_program"
        ) from error
    guard.watch(process.pid)
    return process


def _wait(
    process: subprocess.Popen[bytes], name: str, timeout: float, progress: Progress, message: str
) -> None:
    started = time.monotonic()
    while process.poll() is None:
        spent = time.monotonic() - started
        if spent > timeout:
            raise InputError(
                f"The program '{name}' did not end within {timeout:.0f} s"
                " (--set adapter.timeout=SECONDS).",
                "program_slow",
            )
        progress.update(spent / (spent + _USUAL_S), message)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(_LOOK_S, max(timeout - spent, 0.01)))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything it started: asked first, then by force."""
    if sys.platform == "win32":
        end_tree(process.pid)
        process.kill()
        process.wait()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    # The group outlives its head: a child may not have heard, or may not have obeyed.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ", without a word"
