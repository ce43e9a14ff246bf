# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the backend's environment: a Python of its own with PyTorch and the other packages.

Blender runs this as its own process ("Set Up Backend" in the preferences). By hand:

    python bootstrap.py --folder ~/toonify3d-env

It needs nothing but Python 3.8 or newer to run. It looks for a Python that the backend works with
(uv fetches one when uv is installed and no such Python is), makes an environment in the folder and
installs exactly the packages of its list, each checked against its SHA-256. Stopped or failed, it
goes on at the same package when it is started again. The output of pip is in FOLDER/setup-log.txt.

Without network: on a machine of the same kind that has one, "bootstrap.py --download WHEELS" fills
a folder; take it over and run "bootstrap.py --folder DIR --wheels WHEELS".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARKER = "toonify3d-setup.json"
LOG = "setup-log.txt"
ITEM = "setup-item.txt"
OWN_FILES = (MARKER, LOG, ITEM, "setup-progress.txt")

OLDEST_DRIVER = {"linux": 580, "windows": 528}
"""NVIDIA driver that the list's CUDA needs: 13.0 on Linux (PyPI's torch), 12.6 on Windows."""

WINDOWS_PATH = 90
"""Longest folder on Windows: torch's own paths take the rest of the 260 characters."""

# Settings of the user's that would put packages elsewhere than into the environment.
_DROPPED = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH")


class SetupError(Exception):
    """The environment cannot be made: one sentence for the user."""


class Requirement:
    """One package of a list: ``name``, ``version``, the ``text`` for pip, size in ``megabytes``."""

    def __init__(self, text: str, megabytes: float) -> None:
        found = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", text)
        if found is None or "--hash=sha256:" not in text:
            raise SetupError(f"The package list is damaged: {text[:60]!r}")
        self.name, self.version = found.groups()
        self.text, self.megabytes = text, megabytes


class PackageList:
    """A list made by ``backend/packages/lock.py``.

    Attributes:
        requirements: What is installed, in this order.
        pythons: Versions of Python that it is for, the preferred one first.
        index: PyTorch's package channel, empty for none.
        disk_gb: Disk space that setting up takes.
        key: Hash of the list.
    """

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(f"There is no package list: {error}") from error
        self.key = hashlib.sha256(text.encode("utf-8")).hexdigest()
        self.pythons = [
            tuple(int(part) for part in version.split("."))
            for version in _header(text, "python").split()
        ]
        self.index = _header(text, "index")
        self.disk_gb = float(_header(text, "disk-gb") or 0)
        self.requirements = []
        megabytes = 0.0
        for entry in text.replace("\\\n", " ").splitlines():
            size = re.match(r"# ([\d.]+) MB", entry)
            if size:
                megabytes = float(size.group(1))
            elif entry.strip() and not entry.startswith("#"):
                self.requirements.append(Requirement(entry, megabytes))
        if not self.requirements or not self.pythons:
            raise SetupError(f"The package list {path.name} is empty")


def _header(text: str, name: str) -> str:
    found = re.search(rf"(?m)^# {name}:[ \t]*(.*)$", text)
    return found.group(1).strip() if found else ""


class Teller:
    """Says how far it is: sentences, or one JSON object per line for Blender."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def __call__(self, message: str, **fields: Any) -> None:
        """One line for whoever started this."""
        if self.as_json:
            line = json.dumps(dict(fields, message=message))
        else:
            share = "{:3.0f}%  ".format(100 * fields["fraction"]) if "fraction" in fields else ""
            line = share + message
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def environment_python(folder: Path) -> Path:
    """The interpreter inside an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def interpreter_version(command: list[str]) -> tuple[int, int]:
    """``(major, minor)`` of an interpreter, ``(0, 0)`` when it does not run or makes no venvs."""
    code = "import sys, ensurepip, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            [*command, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
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


def find_python(wanted: str, versions: list[tuple[int, int]], own: bool = True) -> list[str]:
    """Command of a Python of one of these versions that can make environments; empty for none.

    Args:
        wanted: The only one to try, empty to search.
        versions: ``(major, minor)``, the preferred one first.
        own: Whether the Python that runs this may be taken; Blender's own may not, because an
            update of Blender removes it.
    """
    if wanted:
        candidates = [[wanted]]
    else:
        named = ["{}.{}".format(*version) for version in versions]
        candidates = [["python" + version] for version in named]
        if os.name == "nt":
            candidates = [["py", "-" + version] for version in named] + candidates
        candidates += [["python3"], ["python"]] + ([[sys.executable]] if own else [])
    for command in candidates:
        program = shutil.which(command[0])
        foreign = own or not program or not Path(program).samefile(sys.executable)
        if program and foreign and interpreter_version(command) in versions:
            return command
    return []


def nvidia_driver() -> int:
    """Major version of the NVIDIA driver, 0 without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )
        return int(done.stdout.decode("ascii", "replace").split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def list_name(
    device: str, system: str = sys.platform, driver: Callable[[], int] = nvidia_driver
) -> tuple[str, str]:
    """Name of the package list for this machine, and a remark for the user.

    Raises:
        SetupError: CUDA was asked for and there is none, or the system is not supported.
    """
    if system == "darwin":
        if device == "cuda":
            raise SetupError("There is no CUDA on macOS; choose another device")
        return "macos-metal", "PyTorch for Apple's Metal"
    kind = "windows" if system == "win32" else "linux"
    if not (system == "win32" or system.startswith("linux")):
        raise SetupError(f"There are no packages for the system {system}")
    version = 0 if device == "cpu" else driver()
    if version >= OLDEST_DRIVER[kind]:
        return kind + "-cuda", f"PyTorch with CUDA (NVIDIA driver {version})"
    if not version:
        if device == "cuda":
            raise SetupError("No NVIDIA driver was found; choose the processor instead")
        return kind + "-cpu", "PyTorch for the processor"
    old = f"the NVIDIA driver {version} is older than {OLDEST_DRIVER[kind]}"
    if device == "cuda":
        raise SetupError(f"CUDA cannot be used: {old}; update the driver")
    return kind + "-cpu", f"PyTorch for the processor: {old}"


def run(command: list[Any], log: Path, complaint: str) -> None:
    """Run a command with its output in the log.

    Raises:
        SetupError: It failed; the sentence ends with the reason found in its output.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    with open(str(log), "ab") as handle:
        handle.write(("$ " + " ".join(map(str, command)) + "\n").encode("utf-8"))
        handle.flush()
        begin = handle.tell()
        try:
            code = subprocess.call(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        except OSError as error:
            raise SetupError(f"{complaint}: {error}") from error
    if code != 0:
        with open(str(log), "rb") as handle:
            handle.seek(begin)
            output = handle.read().decode("utf-8", "replace")
        raise SetupError("{}: {}".format(complaint, reason_in(output) or f"code {code}"))


def reason_in(output: str) -> str:
    """What pip's output says went wrong, in one sentence."""
    if "DO NOT MATCH THE HASHES" in output:
        return "its hash is not the expected one, so it was refused"
    if "No space left on device" in output:
        return "the disk is full"
    network = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "Network is unreach")
    if any(word in output for word in network):
        return "the network cannot be reached"
    rows = [row.strip() for row in output.splitlines() if row.strip()]
    errors = [row for row in rows if row.upper().startswith("ERROR")]
    return (errors or rows or [""])[-1][:300]


def create(options: argparse.Namespace, packages: PackageList, log: Path) -> None:
    """Create the environment unless it is there.

    Raises:
        SetupError: It cannot be created.
    """
    folder = options.folder
    if interpreter_version([str(environment_python(folder))]) in packages.pythons:
        return
    foreign = [item for item in folder.iterdir() if item.name not in OWN_FILES]
    if foreign and not (folder / "pyvenv.cfg").is_file():
        raise SetupError(f"{folder} is not empty: choose a new folder")
    in_venv = sys.prefix != sys.base_prefix  # then what runs this is not Blender's own
    python = find_python(options.python, packages.pythons, not options.blender or in_venv)
    uv = "" if options.python or options.wheels else find_uv()
    wanted = " or ".join("{}.{}".format(*version) for version in packages.pythons)
    if python:
        command = [*python, "-m", "venv", folder]
    elif uv:
        version = "{}.{}".format(*packages.pythons[0])
        command = [uv, "venv", "--seed", "--allow-existing", "--python", version, folder]
    elif options.python:
        raise SetupError(f"{options.python} is not a Python {wanted} with venv")
    else:
        raise SetupError(f"No Python {wanted} was found: install it (python.org), or uv")
    run(command, log, "The environment cannot be created")


class Progress:
    """What has been installed already, in the environment's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MARKER
        self.installed: dict[str, str] = {}
        self.complete = ""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self.installed, self.complete = dict(found["installed"]), str(found["complete"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a new folder, or one of an older version: everything is installed again

    def save(self) -> None:
        """Write it, whole or not at all."""
        part = self.path.with_suffix(".part")
        document = {"installed": self.installed, "complete": self.complete}
        part.write_text(json.dumps(document, indent=1), encoding="utf-8")
        part.replace(self.path)


def pip_command(
    action: str,
    item: Requirement,
    packages: PackageList,
    options: argparse.Namespace,
    installed: dict[str, str],
) -> list[Any]:
    """pip's arguments for one requirement, whose text is in the file ``ITEM``."""
    command: list[Any] = ["-m", "pip", action, "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-cache-dir"]
    pip = installed.get("pip", "0").split(".")[0]
    if int(pip) >= 26:  # goes on inside a file after a broken connection
        command += ["--resume-retries", "10"]
    if options.wheels:
        command += ["--no-index", "--find-links", options.wheels]
    elif "+" in item.version:  # only the builds of PyTorch come from its channel
        command += ["--extra-index-url", packages.index]
    if action == "install":
        # A package that was half written when the setup was stopped has no list of its files and
        # cannot be uninstalled: it is written over. An older one is replaced properly.
        known = item.name in installed
        command.append("--force-reinstall" if known else "--ignore-installed")
    return command


def each(packages: PackageList, done: dict[str, str]) -> Iterator[tuple[int, Requirement, float]]:
    """Requirements that are not done yet, with the share of the whole that is."""
    total = sum(item.megabytes + 1 for item in packages.requirements)
    before = 0.0
    for number, item in enumerate(packages.requirements, 1):
        if done.get(item.name) != item.version:
            yield number, item, before / total
        before += item.megabytes + 1


def install(options: argparse.Namespace, packages: PackageList, tell: Teller, log: Path) -> None:
    """Install the list into the environment, package by package.

    Raises:
        SetupError: It failed (no network, disk full, a wrong hash).
    """
    python, progress = environment_python(options.folder), Progress(options.folder)
    count = len(packages.requirements)
    for number, item, fraction in each(packages, progress.installed):
        size = f" ({item.megabytes:.0f} MB)" if item.megabytes >= 1 else ""
        what = f"{item.name} {item.version}"
        tell(f"Installing {what}{size}, {number} of {count}", fraction=fraction)
        (options.folder / ITEM).write_text(item.text + "\n", encoding="utf-8")
        command = pip_command("install", item, packages, options, progress.installed)
        run([python, *command, "-r", options.folder / ITEM], log, what + " cannot be installed")
        progress.installed[item.name] = item.version
        progress.save()
    check = [python, "-m", "pip", "--disable-pip-version-check", "check"]
    run(check, log, "The packages do not fit together")
    progress.complete = packages.key
    progress.save()


def check_folder(folder: Path) -> None:
    """Refuse a folder that would be lost or cannot work.

    Raises:
        SetupError: It lies inside the add-on, is too long for Windows, or cannot be made.
    """
    if folder == HERE or HERE in folder.parents:
        raise SetupError("Choose a folder outside the add-on's: an update removes that one")
    if os.name == "nt" and len(str(folder)) > WINDOWS_PATH:
        raise SetupError(f"Choose a shorter path than {folder}, for example C:\\toonify")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"The folder cannot be made: {error}") from error


def check_disk(folder: Path, packages: PackageList, progress: Progress) -> None:
    """Refuse to begin what cannot end.

    Raises:
        SetupError: There is too little space for what is left to install.
    """
    left = 1 - next((fraction for *_, fraction in each(packages, progress.installed)), 1.0)
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < left * packages.disk_gb:
        needed = f"{left * packages.disk_gb:.1f} GB are needed, {free:.1f} GB are free"
        raise SetupError(f"There is too little space in {folder}: {needed}")


def set_up(options: argparse.Namespace, tell: Teller) -> Path:
    """Do all of it; the environment's interpreter.

    Raises:
        SetupError: One sentence.
    """
    name, remark = list_name(options.device)
    packages = PackageList(options.packages / (name + ".txt"))
    check_folder(options.folder)
    progress, python = Progress(options.folder), environment_python(options.folder)
    ready = progress.complete == packages.key
    if ready and interpreter_version([str(python)]) in packages.pythons:
        return python  # set up already
    check_disk(options.folder, packages, progress)
    tell("Creating the environment: " + remark, fraction=0.0)
    create(options, packages, options.folder / LOG)
    install(options, packages, tell, options.folder / LOG)
    return python


def download(options: argparse.Namespace, tell: Teller) -> Path:
    """Fill a folder with the list's wheels, for a machine without network.

    Raises:
        SetupError: One sentence.
    """
    name, remark = list_name(options.device)
    packages, folder = PackageList(options.packages / (name + ".txt")), options.download
    check_folder(folder)
    python = find_python(options.python, packages.pythons)
    if not python:
        raise SetupError("No suitable Python was found to download with")
    tell("Downloading: " + remark, fraction=0.0)
    for number, item, fraction in each(packages, {}):
        tell(f"{item.name} {item.version} ({number})", fraction=fraction)
        (folder / ITEM).write_text(item.text + "\n", encoding="utf-8")
        command = pip_command("download", item, packages, options, {})
        command = [*python, *command, "--dest", folder, "-r", folder / ITEM]
        run(command, folder / LOG, item.name + " cannot be downloaded")
    (folder / ITEM).unlink()
    return folder


def end_with_parent() -> None:
    """End this process and what it has started when standard input ends: Blender is gone."""

    def watch() -> None:
        # Not sys.stdin: Python's shutdown fails while a thread holds that one's lock.
        while os.read(0, 4096):
            pass
        if os.name == "nt":
            subprocess.call(["taskkill", "/F", "/T", "/PID", str(os.getpid())])
        else:
            os.killpg(os.getpgid(0), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside = HERE / "backend" / "packages"
    lists = beside if beside.is_dir() else HERE.parent / "backend" / "packages"
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--folder", type=Path, help="where the environment goes")
    goal.add_argument("--download", type=Path, help="only fill this folder with wheels")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--python", default="", help="base interpreter (default: search)")
    parser.add_argument("--wheels", default="", help="install from this folder, without network")
    parser.add_argument("--packages", type=Path, default=lists, help="folder of package lists")
    parser.add_argument("--blender", action="store_true", help="started by Blender: report in JSON")
    options = parser.parse_args(arguments)
    for name in ("folder", "download", "packages"):
        path = getattr(options, name)
        if path is not None:
            setattr(options, name, Path(os.path.abspath(str(path.expanduser()))))  # noqa: PTH100
    return options


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when the environment is ready."""
    options = parse(arguments)
    tell = Teller(options.blender)
    if options.blender:
        end_with_parent()
    try:
        made = set_up(options, tell) if options.folder else download(options, tell)
    except (SetupError, OSError, ValueError) as error:
        tell(str(error), error=str(error))
        return 1
    tell(f"Ready: {made}", fraction=1.0, python=str(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
