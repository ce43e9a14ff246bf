# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets up the backend's environment; standard library only, any Python from 3.8 on.

Blender starts it as its own process ("Set Up Backend" in the preferences). By hand::

    python bootstrap.py --folder ~/toonify3d-env --requirements backend/requirements.txt

It finds a suitable Python (``uv`` fetches one when it is installed), creates an environment in the
folder, and installs the pinned packages. Nothing goes into Blender's own Python. Started again, it
goes on where it stopped; pip keeps what it has downloaded. Progress is one JSON object per line.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITABLE = ((3, 11), (3, 12), (3, 10))
MARKER = "toonify3d-setup.json"
OWN_FILES = (MARKER, "setup-log.txt", "setup-progress.txt")
TORCH_INDEX = "https://download.pytorch.org/whl/"
CUDA_CHANNEL = "cu126"


class SetupError(Exception):
    """The environment cannot be made: one sentence for the user."""


def say(**fields: object) -> None:
    """One line for whoever started this."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def environment_python(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def interpreter_version(command: list) -> tuple:
    """``(major, minor)`` of an interpreter, ``(0, 0)`` when it does not run."""
    code = "import sys, ensurepip, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            [*command, "-c", code], capture_output=True, text=True, timeout=30, check=True
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0


def find_uv() -> str:
    """Path of ``uv``, empty when it is not installed."""
    home = Path.home()
    places = (home / ".local/bin/uv", home / ".cargo/bin/uv", Path("/opt/homebrew/bin/uv"))
    known = next((str(path) for path in places if path.is_file()), "")
    return shutil.which("uv") or known


def find_python(wanted: str) -> list:
    """Command of a Python that the backend runs on and that can make environments.

    Raises:
        SetupError: There is none.
    """
    names = ["python{}.{}".format(*version) for version in SUITABLE]
    candidates = [[wanted]] if wanted else [[name] for name in (*names, "python3", "python")]
    if os.name == "nt" and not wanted:
        candidates = [["py", "-{}.{}".format(*version)] for version in SUITABLE] + candidates
    if not wanted:
        candidates.append([sys.executable])
    for command in candidates:
        if shutil.which(command[0]) and interpreter_version(command) in SUITABLE:
            return command
    raise SetupError(
        "No suitable Python was found: install Python 3.11 from python.org (or uv), then try again"
    )


def torch_channel(choice: str) -> str:
    """Name of PyTorch's package channel for this machine, empty for the ordinary index."""
    if sys.platform == "darwin":
        return ""
    if choice == "auto":
        choice = "cuda" if shutil.which("nvidia-smi") else "cpu"
    return {"cpu": "cpu", "cuda": CUDA_CHANNEL}[choice]


def run(command: list, log: Path, complaint: str) -> None:
    """Run a command with its output in the log.

    Raises:
        SetupError: It failed; the sentence ends with its last line.
    """
    with open(log, "ab") as handle:
        handle.write(("$ " + " ".join(map(str, command)) + "\n").encode("utf-8"))
        handle.flush()
        try:
            code = subprocess.call(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise SetupError(f"{complaint}: {error}") from error
    if code != 0:
        rows = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SetupError(f"{complaint}: {rows[-1][:300]}")


def create(options: argparse.Namespace, log: Path) -> str:
    """Create the environment unless it is there; the ``uv`` used, or empty.

    Raises:
        SetupError: It cannot be created.
    """
    uv = "" if options.python or options.wheels else find_uv()
    folder = options.folder
    if interpreter_version([str(environment_python(folder))]) in SUITABLE:
        return uv
    foreign = [item for item in folder.iterdir() if item.name not in OWN_FILES]
    if foreign and not (folder / "pyvenv.cfg").is_file():
        raise SetupError(f"{folder} is not empty: choose a new folder")
    if uv:
        command = [uv, "venv", "--seed", "--allow-existing", "--python", "3.11", folder]
    else:
        command = [*find_python(options.python), "-m", "venv", folder]
    run(command, log, "The environment cannot be created")
    return uv


def install(options: argparse.Namespace, log: Path, uv: str) -> None:
    """Install the pinned packages into the environment.

    Raises:
        SetupError: It failed (no network, disk full, no such package).
    """
    python = environment_python(options.folder)
    pip = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    if not uv:
        pip += ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    if options.wheels:
        pip += ["--no-index", "--find-links", options.wheels]
    elif torch_channel(options.device):
        pip += ["--extra-index-url", TORCH_INDEX + torch_channel(options.device)]
    run([*pip, "-r", options.requirements], log, "The packages cannot be installed")


def set_up(options: argparse.Namespace) -> Path:
    """Do all of it; the environment's interpreter.

    Raises:
        SetupError: One sentence.
    """
    folder = options.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"The folder cannot be made: {error}") from error
    log = folder / OWN_FILES[1]
    key = hashlib.sha256(options.requirements.read_bytes()).hexdigest() + options.device
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")).get("key") == key:
        say(step=3, message="Already set up")
        return environment_python(folder)
    say(step=1, message="Creating the environment")
    uv = create(options, log)
    say(step=2, message="Downloading and installing PyTorch and the other packages")
    install(options, log, uv)
    marker.write_text(json.dumps({"key": key}), encoding="utf-8")
    say(step=3, message="Set up")
    return environment_python(folder)


def main(arguments: "list | None" = None) -> int:
    """The command line; 0 when the environment is ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the environment goes")
    parser.add_argument("--requirements", type=Path, required=True, help="pinned package list")
    parser.add_argument("--python", default="", help="base interpreter (default: search)")
    parser.add_argument("--wheels", default="", help="install from this folder, without network")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    try:
        say(python=str(set_up(options)))
    except (SetupError, OSError, ValueError) as error:
        say(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
