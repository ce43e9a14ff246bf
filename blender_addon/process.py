# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and ending the backend's process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from . import protocol

BUNDLED = Path(__file__).resolve().parent / "backend"
"""The backend's source inside the installed extension."""

# Whatever would make the child load Blender's, or somebody else's, Python modules.
_DROPPED = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONEXECUTABLE",
    "PYTHONUSERBASE",
    "PYTHONPLATLIBDIR",
    "PYTHONINSPECT",
    "PYTHONBREAKPOINT",
    "PYTHONWARNINGS",
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
)


def backend_source() -> Path | None:
    """Folder that holds the ``toonify3d`` package: in the extension, or beside it in a checkout."""
    for folder in (BUNDLED, Path(__file__).resolve().parent.parent / "backend"):
        if (folder / "toonify3d" / "__init__.py").is_file():
            return folder
    return None


def package_lists() -> Path | None:
    """Folder of the pinned package lists: in the extension, or in a checkout."""
    for folder in (BUNDLED, Path(__file__).resolve().parent.parent / "backend"):
        if any((folder / "packages").glob("*.txt")):
            return folder / "packages"
    return None


def helper_python() -> str:
    """A Python for scripts that need the standard library only; empty when there is none.

    Usually Blender's own. Some builds of Blender give no interpreter, or their own program, as
    ``sys.executable``: then whatever Python the system has.
    """
    names = ["python.exe"] if os.name == "nt" else ["python3", "python"]
    candidates = [sys.executable, *(str(Path(sys.prefix) / "bin" / name) for name in names)]
    candidates += [shutil.which(name) or "" for name in names]
    for path in candidates:
        if path and Path(path).stem.lower().startswith("python") and Path(path).is_file():
            return path
    return ""


def scrubbed_environment(
    base: Mapping[str, str] | None = None, backend: Path | None = None
) -> dict[str, str]:
    """The environment for the backend's Python: nothing of Blender's Python, UTF-8 everywhere.

    Args:
        base: Environment to start from, this process's by default.
        backend: The only folder on ``PYTHONPATH``, so that the code that runs is the code that
            came with this add-on.
    """
    source = os.environ if base is None else base
    environment = {
        name: value
        for name, value in source.items()
        if name not in _DROPPED and not name.startswith("TOONIFY3D_")
    }
    environment["PYTHONNOUSERSITE"] = "1"
    environment["PYTHONUTF8"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    environment["PYTHONUNBUFFERED"] = "1"
    if backend is not None:
        environment["PYTHONPATH"] = str(backend)
    return environment


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: IO[bytes] | int,
    *,
    cwd: Path | None = None,
    keep: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process in its own group; output goes to ``log`` from the first byte.

    Args:
        command: Argument list; never a shell string.
        environment: The whole environment of the child.
        log: Receives standard output and error.
        cwd: Working folder.
        keep: Without it the child gets a pipe as standard input, whose end tells it that Blender
            has gone, however Blender ended.

    Raises:
        OSError: The program cannot be started.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL if keep else subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=None if cwd is None else str(cwd),
        creationflags=flags,
        start_new_session=sys.platform != "win32",
    )


def start_worker(
    python: str, job: Path, port: int, token: str, *, keep: bool = False
) -> subprocess.Popen[bytes]:
    """Start ``python -m toonify3d worker --job JOB`` with ``JOB/log.txt`` as its log.

    Args:
        python: The backend environment's interpreter.
        job: The job folder, with ``request.json`` in it.
        port: Loopback port to report to, 0 for none.
        token: The job's secret.
        keep: Let it go on when Blender closes.

    Raises:
        OSError: The interpreter cannot be started or the log cannot be written.
    """
    backend = backend_source()
    environment = scrubbed_environment(backend=backend)
    environment[protocol.ENV_PORT] = str(port)
    environment[protocol.ENV_TOKEN] = token
    if keep:
        environment[protocol.ENV_KEEP] = "1"
    # `-m` puts the working folder first on the module path: it must hold nothing else.
    cwd = job if backend is None else backend
    with open(job / protocol.LOG_FILE, "ab") as log:
        command = [python, "-m", "toonify3d", "worker", "--job", str(job)]
        return start(command, environment, log, cwd=cwd, keep=keep)


def close_stdin(child: subprocess.Popen[bytes]) -> None:
    """Let the child see the end of its standard input, as if Blender had closed."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


def end(child: subprocess.Popen[bytes], *, force: bool) -> None:
    """Ask the child and its own children to end (``force``: end them). Does not wait."""
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        # TerminateProcess would leave the child's children; taskkill /T takes the tree.
        command = ["taskkill", "/T", "/PID", str(child.pid), *(["/F"] if force else [])]
        subprocess.Popen(command, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL if force else signal.SIGTERM)
