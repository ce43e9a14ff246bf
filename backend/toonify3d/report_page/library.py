"""The 3D viewer's library, three.js (MIT): fetched once, checked, kept outside the repository.

Only what we wrote is in the repository, so the library comes from the npm registry, in one pinned
version, at set-up (``setup.sh``) or by ``toonify3d get-viewer``. Every file is checked against its
SHA-256 when it is fetched and whenever it is used.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import InputError
from ..files import write_bytes

VERSION = "0.180.0"
ARCHIVE = f"https://registry.npmjs.org/three/-/three-{VERSION}.tgz"
ARCHIVE_SHA256 = "ad66d724565ee29a2467277fa84daa5ed0211d6b8d446e9ef29f6bae0cd14144"
ARCHIVE_LIMIT = 32 << 20
# Name in the page's import map: file in the archive, SHA-256.
FILES = {
    "three-core": (
        "build/three.core.min.js",
        "61ba0df005b05991361d040d8ff670e1aadfd0ce7aeebd1fdb0725957a8957de",
    ),
    "three": (
        "build/three.module.min.js",
        "e2b5ee6bccd38fd6d8a2428546b83c5f2426d84b152ef82be8055556e3b40eb6",
    ),
    "geometry-utils": (
        "examples/jsm/utils/BufferGeometryUtils.js",
        "fda7e946b8e0b5ab39b779206589e7a1079a22eb24efb89d7223e03fdfb1f751",
    ),
    "gltf-loader": (
        "examples/jsm/loaders/GLTFLoader.js",
        "67ac5551fdafa6e349bd80c8f8e5e39c136d6b2fb1ad647db9abb21dc86f9e4a",
    ),
    "orbit-controls": (
        "examples/jsm/controls/OrbitControls.js",
        "b97879c748170baadeb3fb84cea1ffdf4674e283dc06042f34e2acb95a76042c",
    ),
    "room-environment": (
        "examples/jsm/environments/RoomEnvironment.js",
        "c20f0b4677f6128a138d7152b85cbef9091f4f45cdfa05adca04d40c1697c7ae",
    ),
    "licence": ("LICENSE", "bfe119ea4fd413f5f7ca3fcd63adb0c4a073ed39daa2fe7d3e6b769e21272601"),
}
# Modules in data: addresses have no place that a relative import could start from.
_RENAMED = {
    '"./three.core.min.js"': '"three-core"',
    "'../utils/BufferGeometryUtils.js'": "'geometry-utils'",
}
MISSING = (
    "report.html has no 3D viewer, because its library is not installed: run 'toonify3d get-viewer'"
    " once (it needs the network), then 'toonify3d report JOB'."
)


def library_folders() -> list[Path]:
    """Where the library may lie, best first: beside the package, or the user's cache."""
    package = Path(__file__).resolve().parents[1]
    return [package / ".cache" / f"three-{VERSION}", _user_cache() / f"three-{VERSION}"]


def _user_cache() -> Path:
    try:
        home = Path.home()
    except RuntimeError:  # no home folder is known
        return Path(__file__).resolve().parent / ".cache"
    return home / ".cache" / "toonify3d"


def find_library() -> dict[str, bytes] | None:
    """The library's files by name, or None when it is not installed (or not what was pinned)."""
    for folder in library_folders():
        found = _read(folder)
        if found is not None:
            return found
    return None


def _read(folder: Path) -> dict[str, bytes] | None:
    found = {}
    for name, (path, digest) in FILES.items():
        try:
            data = (folder / Path(path).name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        found[name] = data
    return found


def modules(library: dict[str, bytes]) -> dict[str, str]:
    """The JavaScript modules by the names under which they import each other."""
    out = {}
    for name, data in library.items():
        text = data.decode("utf-8")
        for relative, bare in _RENAMED.items():
            text = text.replace(relative, bare)
        if name != "licence":
            out[name] = text
    return out


def get_library(archive: Path | None = None) -> Path:
    """Fetch the library (or take it from a file), check it, and keep it.

    Args:
        archive: ``three-VERSION.tgz`` that was fetched by other means; None for the npm registry.

    Returns:
        The folder that holds it now.

    Raises:
        InputError: No network, another file, or no folder can be written.
    """
    for folder in library_folders() if archive is None else []:
        if _read(folder) is not None:
            return folder
    data = _download() if archive is None else _read_archive(archive)
    if hashlib.sha256(data).hexdigest() != ARCHIVE_SHA256:
        raise InputError(
            f"'{archive or ARCHIVE}' is not three {VERSION} as published (its SHA-256 differs);"
            " nothing was installed.",
            "bad_viewer",
        )
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        files = {path: _member(tar, path) for path, _ in FILES.values()}
    complaint = ""
    for folder in library_folders():
        try:
            for path, content in files.items():
                write_bytes(folder / Path(path).name, content)
        except OSError as error:
            complaint = f"'{folder}' cannot be written ({error.strerror})"
            continue
        return folder
    raise InputError(f"The viewer's library cannot be kept: {complaint}.", "unwritable")


def _member(tar: tarfile.TarFile, path: str) -> bytes:
    handle = tar.extractfile(f"package/{path}")
    return b"" if handle is None else handle.read()


def _read_archive(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.", "no_file") from error


def _download() -> bytes:
    try:
        with urllib.request.urlopen(ARCHIVE, timeout=60) as answer:
            return bytes(answer.read(ARCHIVE_LIMIT))
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"{ARCHIVE} cannot be fetched ({reason}); fetch that file by other means and give it"
            " with --archive.",
            "no_network",
        ) from error
