#!/usr/bin/env python3
"""Make the lists of packages that Set Up Backend installs: exact versions with their SHA-256.

    pip install uv packaging && python backend/packages/lock.py

Run it after a change of ``dependencies`` in pyproject.toml or of constraints.txt, and commit what
it writes: one list for each system and build of PyTorch (``TARGETS``), pure wheels only. ``uv``
resolves for all systems at once and tells every wheel's hash and size; the wheels of other systems
and Pythons are left out, so that a list stays short. The versions are those of constraints.txt.

PyTorch's own channels are no part of PyPI: the hashes of those few wheels stand in
``CHANNEL_WHEELS``. On a new version of torch look them up at the channel's index page, or
``pip download --no-deps --index-url CHANNEL torch==...`` and ``sha256sum``.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib
from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHONS = ("3.11", "3.12")
"""Of the environments that Set Up Backend makes. The first is the one tested."""

EXTRA = ("pip",)  # first in every list: old ones neither resume a download nor know new wheels


def disk_gb(megabytes: float) -> float:
    """Disk space for a download: Linux (CPU) takes 3.5 times its 737 MB, measured.

    What is beyond that size is CUDA's libraries, which shrink less in their wheels: an estimate.
    """
    return (3.6 * min(megabytes, 800) + 2.5 * max(megabytes - 800, 0)) / 1000


@dataclass(frozen=True)
class Target:
    """A system and a build of torch.

    Attributes:
        name: Of the list, ``NAME.txt``.
        platform: Regular expression of the wheels' platform tags.
        environment: What markers are evaluated with.
        channel: PyTorch's package channel, empty for PyPI.
    """

    name: str
    platform: str
    environment: dict[str, str]
    channel: str = ""


_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
_WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"}
_MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}
CHANNEL = "https://download.pytorch.org/whl/"
TARGETS = (
    Target("linux-cpu", r"manylinux\S*_x86_64|any", _LINUX, "cpu"),
    Target("linux-cuda", r"manylinux\S*_x86_64|any", _LINUX),
    Target("windows-cpu", r"win_amd64|any", _WINDOWS),
    Target("windows-cuda", r"win_amd64|any", _WINDOWS, "cu126"),
    Target("macos-metal", r"macosx_\d+_\d+_(arm64|universal2)|any", _MACOS),
)

CHANNEL_WHEELS = {
    ("2.13.0", "cpu"): (
        192,
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",  # cp311, summed by us
        "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",  # cp312
    ),
    ("2.13.0", "cu126"): (
        2595,
        "8095729db14e7fd5178a39676fdd679208eff4041407ea34e3d898336c90f5c5",  # cp311
        "380081ea098bf2b9e727aa85205d94790d884d17c62df3bb00a4f6a1047010a2",  # cp312
    ),
}
"""Of torch: version and channel to size in MB and hashes. Of the four only the first could be
checked against a file here (the channel's host was out of reach); the others are what several
public projects pin. A wrong one would make pip refuse the wheel, never take another."""

_CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton$")


@dataclass(frozen=True)
class Pin:
    """One line of a list."""

    requirement: str
    megabytes: float
    hashes: tuple[str, ...]

    def text(self) -> str:
        """As pip reads it; the size before it is for bootstrap.py."""
        hashes = "".join(f" \\\n    --hash=sha256:{value}" for value in self.hashes)
        return f"# {self.megabytes:.1f} MB\n{self.requirement}{hashes}\n"


def dependencies() -> list[str]:
    """``dependencies`` of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"(?s)^dependencies\s*=\s*(\[.*?^\])", text, flags=re.MULTILINE)
    if found is None:
        raise SystemExit("pyproject.toml has no dependencies")
    listed: list[str] = ast.literal_eval(found.group(1))
    return listed


def resolve() -> list[dict[str, Any]]:
    """All packages for all systems, as ``pylock.toml`` tells them."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in constraints if line and not line.startswith(("#", "bpy=="))]
    project = [
        '[project]\nname = "lists"\nversion = "0"',
        f'requires-python = ">={PYTHONS[0]},<{_next_minor(PYTHONS[-1])}"',
        f"dependencies = {json.dumps([*dependencies(), *EXTRA])}",
        f"[tool.uv]\nconstraint-dependencies = {json.dumps(pinned)}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text("\n".join(project), encoding="utf-8")
        command = ["uv", "export", "--quiet", "--no-emit-project", "--format", "pylock.toml"]
        command += ["--default-index", "https://pypi.org/simple", "--python", sys.executable]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    packages: list[dict[str, Any]] = tomllib.loads(done.stdout)["packages"]
    return packages


def _next_minor(version: str) -> str:
    major, minor = version.split(".")
    return f"{major}.{int(minor) + 1}"


def python_marker(package: dict[str, Any], target: Target) -> str | None:
    """The marker for the Pythons that want the package, None when none does."""
    marker = Marker(package.get("marker", "python_version > '3'"))
    wanted = [
        version
        for version in PYTHONS
        if marker.evaluate(
            {
                **target.environment,
                "python_version": version,
                "python_full_version": f"{version}.9",
                "implementation_name": "cpython",
            }
        )
    ]
    if not wanted:
        return None
    return "" if len(wanted) == len(PYTHONS) else f' ; python_version == "{wanted[0]}"'


def fits(wheel: str, target: Target) -> bool:
    """Whether a wheel's file name is for the target and one of our Pythons."""
    python, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    if re.fullmatch(target.platform, platform.split(".")[-1]) is None:
        return False
    tags = {"cp" + version.replace(".", "") for version in PYTHONS}
    if abi == "abi3":
        return all(int(tag[3:]) <= 11 for tag in python.split("."))
    return abi in {*tags, "none"} and any(tag in {*tags, "py3"} for tag in python.split("."))


def pins(packages: list[dict[str, Any]], target: Target) -> list[Pin]:
    """The list of one target: pip first, then by falling size."""
    found = []
    for package in packages:
        name, version = package["name"], package["version"]
        marker = python_marker(package, target)
        if marker is None or (target.channel and _CUDA_ONLY.match(name)):
            continue
        if name == "torch" and target.channel:
            size, *hashes = CHANNEL_WHEELS[version, target.channel]
            found.append(Pin(f"torch=={version}+{target.channel}{marker}", size, tuple(hashes)))
            continue
        wheels = [
            wheel
            for wheel in package.get("wheels", [])
            if fits(wheel["url"].rsplit("/", 1)[-1], target)
        ]
        if not wheels:
            raise SystemExit(f"{target.name}: {name} {version} has no wheel")
        size = max(wheel["size"] for wheel in wheels) / 1e6
        hashes = sorted(wheel["hashes"]["sha256"] for wheel in wheels)
        found.append(Pin(f"{name}=={version}{marker}", size, tuple(hashes)))
    return sorted(found, key=lambda pin: (not pin.requirement.startswith("pip=="), -pin.megabytes))


def main() -> None:
    """Write every list."""
    packages = resolve()
    for target in TARGETS:
        listed = pins(packages, target)
        total = sum(pin.megabytes for pin in listed)
        lines = [
            "# Made by backend/packages/lock.py; do not edit.",
            f"# python: {' '.join(PYTHONS)}",
            f"# index: {CHANNEL + target.channel if target.channel else ''}".rstrip(),
            f"# disk-gb: {disk_gb(total):.1f}",
        ]
        text = "\n".join(lines) + "\n" + "".join(pin.text() for pin in listed)
        (HERE / f"{target.name}.txt").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{target.name}: {len(listed)} packages, {total:.0f} MB\n")


if __name__ == "__main__":
    main()
