#!/usr/bin/env python3
"""Build and validate the Blender extension: ``python build_addon.py [--output DIR]``.

The zip holds ``blender_addon/`` as it is, the backend's source under ``backend/`` and the lists of
packages the backend needs; no wheels and no executables. Versions that disagree are refused. When
Blender's own ``blender_ext.py`` is found (it is part of every ``bpy`` wheel), it validates the zip.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ADDON = ROOT / "blender_addon"
PACKAGE = ROOT / "backend" / "toonify3d"
PACKAGES = ROOT / "backend" / "packages"
CONSTRAINTS = ROOT / "constraints.txt"

# The zip is the same, byte for byte, whenever and wherever it is built from the same sources.
_DATE = (2026, 1, 1, 0, 0, 0)
_FORBIDDEN = {".so", ".pyd", ".dll", ".dylib", ".exe", ".whl", ".bat", ".cmd", ".sh"}
_SKIPPED = {".pyc", ".pyo", ".part"}
_MAX_ZIP_MB = 20


class BuildError(Exception):
    """The extension cannot be built: one sentence."""


def manifest_value(name: str) -> str:
    """A string value of ``blender_manifest.toml``.

    Raises:
        BuildError: It is not there.
    """
    text = (ADDON / "blender_manifest.toml").read_text(encoding="utf-8")
    return _match(rf'^{name}\s*=\s*"([^"]+)"', text, f"blender_manifest.toml has no {name}")


def backend_version() -> str:
    """``toonify3d.__version__``, read without importing it."""
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return _match(r'^__version__\s*=\s*"([^"]+)"', text, "toonify3d has no __version__")


def _match(pattern: str, text: str, complaint: str) -> str:
    found = re.search(pattern, text, flags=re.MULTILINE)
    if found is None:
        raise BuildError(complaint)
    return found.group(1)


def check_versions() -> str:
    """Compare manifest, package, project file, changelog and protocol; the common version.

    Raises:
        BuildError: Two of them disagree.
    """
    version = backend_version()
    if manifest_value("version") != version:
        stated = manifest_value("version")
        raise BuildError(f"the manifest says version {stated}, toonify3d says {version}")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    stated_there = re.search(r'^version\s*=\s*"([^"]+)"', project, flags=re.MULTILINE)
    if stated_there is not None and stated_there.group(1) != version:
        raise BuildError(f"pyproject.toml says version {stated_there.group(1)}, not {version}")
    ours, theirs = ADDON / "protocol.py", PACKAGE / "service" / "protocol.py"
    if ours.read_bytes() != theirs.read_bytes():
        raise BuildError(
            "blender_addon/protocol.py is not the backend's; run 'build_addon.py --sync-protocol'"
        )
    return version


def sync_protocol() -> None:
    """Copy the backend's protocol definition over the add-on's."""
    (ADDON / "protocol.py").write_bytes((PACKAGE / "service" / "protocol.py").read_bytes())


def check_lists() -> list[Path]:
    """The lists of packages that Set Up Backend installs, if they fit the project.

    Raises:
        BuildError: A dependency is missing from one, or has another version than in
            constraints.txt.
    """
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = _match(
        r"(?s)^dependencies\s*=\s*(\[.*?^\])", project, "pyproject.toml has no dependencies"
    )
    wanted, lists = ast.literal_eval(listed), sorted(PACKAGES.glob("*.txt"))
    if not lists:
        raise BuildError(f"there are no package lists in {PACKAGES}")
    for path in lists:
        found = _pins(path)
        for name in map(_canonical, wanted):
            version = found.get(name, "").partition("+")[0]
            if version != _pins(CONSTRAINTS).get(name, version) or not version:
                stated = f"has {name} {version}" if version else f"lacks {name}"
                raise BuildError(f"{path.name} {stated}; run backend/packages/lock.py")
    return lists


def _pins(path: Path) -> dict[str, str]:
    pairs = re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;#]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {_canonical(name): version for name, version in pairs}


def _base(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]


def _canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", _base(requirement)).lower()


def zip_entries() -> Iterator[tuple[str, bytes]]:
    """Name and content of everything in the zip, in order.

    Raises:
        BuildError: A compiled or executable file is among the sources.
    """
    for path in _sources(ADDON):
        yield path.relative_to(ADDON).as_posix(), path.read_bytes()
    for path in _sources(PACKAGE):
        yield f"backend/toonify3d/{path.relative_to(PACKAGE).as_posix()}", path.read_bytes()
    for path in check_lists():
        yield f"backend/packages/{path.name}", path.read_bytes()
    yield "LICENSE", (ROOT / "LICENSE").read_bytes()


def _sources(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not path.is_file() or hidden or "__pycache__" in path.parts or path.suffix in _SKIPPED:
            continue
        if path.suffix in _FORBIDDEN:
            raise BuildError(f"{path} must not go into the extension (compiled or executable)")
        found.append(path)
    return found


def build(output: Path) -> Path:
    """Write ``output/toonify3d-VERSION.zip``.

    Raises:
        BuildError: Versions disagree, or the zip would hold what it must not.
    """
    version = check_versions()
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{manifest_value('id')}-{version}.zip"
    temporary = path.with_suffix(".part")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in zip_entries():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    if temporary.stat().st_size > _MAX_ZIP_MB << 20:
        temporary.unlink()
        raise BuildError(f"the zip would be larger than {_MAX_ZIP_MB} MB")
    temporary.replace(path)
    return path


def blender_ext() -> Path | None:
    """Blender's extension tool from an installed ``bpy`` wheel, None without one."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.rglob("bl_pkg/cli/blender_ext.py"))
    return found[0] if found else None


def validate(path: Path, tool: Path) -> None:
    """Let Blender's own tool judge the zip.

    Raises:
        BuildError: It objects.
    """
    command = [sys.executable, str(tool), "validate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise BuildError(f"Blender refuses the extension: {(done.stdout + done.stderr).strip()}")


def main() -> int:
    """Build, validate, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the zip")
    parser.add_argument(
        "--sync-protocol", action="store_true", help="copy the backend's protocol first"
    )
    options = parser.parse_args()
    try:
        if options.sync_protocol:
            sync_protocol()
        path = build(options.output)
        tool = blender_ext()
        if tool is not None:
            validate(path, tool)
    except BuildError as error:
        sys.stderr.write(f"build_addon: {error}\n")
        return 1
    checked = "validated by Blender's tool" if tool else "not validated: no bpy wheel here"
    print(f"{path} ({path.stat().st_size / 1e6:.2f} MB, {checked})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
