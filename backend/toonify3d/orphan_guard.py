"""A small process that ends another one when the process that started both is gone.

Run as a script with the standard library only, so that it is there within milliseconds; see
:mod:`.orphans` for the other end. Standard input brings the number of the process to end, then
``done`` when it has been seen to its end. A pipe ends with the last process that holds it, however
that one ended: nothing has to be asked, and no signal can be missed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

GRACE_S = 3.0
"""How long a process that is asked to end may take before it is ended."""
_LOOK_S = 0.05


def end_tree(pid: int) -> None:
    """End a process and what it started: asked first, then by force (at once on Windows).

    Args:
        pid: Where it heads a group, the whole group is ended.
    """
    if sys.platform == "win32":
        # TerminateProcess would leave the program's children; taskkill /T takes the tree.
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NO_WINDOW,
            check=False,
        )
        return
    deadline = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError, PermissionError):
        _signal(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            _signal(pid, 0)  # raises when nothing is left
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    """Send a signal to a process, or to its group where it has one of its own.

    Raises:
        ProcessLookupError: There is neither.
    """
    if sys.platform == "win32":
        return
    try:
        os.killpg(pid, number)  # the group outlives its head
    except ProcessLookupError:
        os.kill(pid, number)


def main() -> None:
    """Wait until standard input ends."""
    said = sys.stdin.buffer.read().split()
    if said and said[-1] != b"done":
        end_tree(int(said[-1]))


if __name__ == "__main__":
    main()
