"""Programs of other people that must not outlive us, even when we are killed without warning."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SCRIPT = Path(__file__).with_name("orphan_guard.py")
_PATIENCE_S = 5.0


class OrphanGuard:
    """Ends a program when this process is gone; a process of its own (:mod:`.orphan_guard`).

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        self._process = subprocess.Popen(
            # Without site-packages and PYTHONPATH: nothing of theirs can delay or stop it.
            [sys.executable, "-I", "-S", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=flags,
            start_new_session=sys.platform != "win32",  # Blender ends our whole group by force
        )

    def watch(self, pid: int) -> None:
        """Name the program, right after it was started."""
        self._say(f"{pid}\n")

    def close(self) -> None:
        """The program has ended, or was ended: it is left alone from now on."""
        self._say("done\n")
        pipe = self._process.stdin
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, text: str) -> None:
        pipe = self._process.stdin
        with contextlib.suppress(OSError):  # somebody ended the guard: the program runs unguarded
            if pipe is not None:
                pipe.write(text.encode())
                pipe.flush()


@contextlib.contextmanager
def orphan_guard() -> Iterator[OrphanGuard]:
    """A guard for one program, to be started before it.

    Raises:
        OSError: The guard cannot be started.
    """
    guard = OrphanGuard()
    try:
        yield guard
    finally:
        guard.close()
