"""The job folder: the truth about a job (docs/guide; design contract "The job folder").

``job.json`` holds what was asked, ``status.json`` where it is, and every step leaves ``step.json``
with a key made of its inputs and settings, so that finished work is never done twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import write_json
from .protocol import (
    ALIVE_FILE,
    CANCEL_FILE,
    FACES_FOLDER,
    LOG_FILE,
    REQUEST_FILE,
    STATUS_FILE,
)

JOB_FORMAT = 1
STEP_FILE = "step.json"
_PACKAGES = ("torch", "warp-lang", "numpy", "mediapipe", "pycolmap", "xatlas", "trimesh")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for item in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if item.is_file():
            if path.is_dir():
                digest.update(str(item.relative_to(path)).encode())
            with open(item, "rb") as handle:
                while chunk := handle.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"toonify3d": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


# Device names that Windows takes for no file, whatever ending follows (superscripts count too).
_RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3])")
# What no file system likes, what is not text, and what turns the reading order of a name round.
_UNSAFE = re.compile(
    r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069]'
)


def safe_name(text: str) -> str:
    """A folder name that is legal on Windows, Linux and macOS and keeps non-Latin letters."""
    # One spelling of a letter: macOS and Windows would make two folders of one name, or one of two.
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" .")[:60].strip(" .")
    if _RESERVED.fullmatch(name.split(".")[0].rstrip(" ").upper()):
        name = f"_{name}"
    return name or "style"


def check_style_name(name: str) -> str:
    """A style's name that the user gave.

    Raises:
        InputError: It is no folder name on every system.
    """
    safe = safe_name(name)
    if safe != unicodedata.normalize("NFC", name):
        raise InputError(
            f"--style {name!r} cannot be the name of a folder on every system; use '{safe}'.",
            "bad_style_name",
        )
    return safe


@dataclass(frozen=True)
class StepRecord:
    """What a finished step left behind."""

    key: str
    seconds: float
    warnings: tuple[str, ...]
    figures: dict[str, Any]


class JobFolder:
    """Reads and writes one job folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def capture(self) -> Path:
        """Frames, cameras, masks, depth."""
        return self.root / "capture"

    @property
    def prior(self) -> Path:
        """Stage I."""
        return self.root / "prior"

    def style(self, name: str) -> Path:
        """Folder of one style."""
        return self.root / "styles" / name

    @property
    def description(self) -> dict[str, Any]:
        """``job.json``.

        Raises:
            InputError: The folder holds no readable job (``no_job``, ``bad_job``), or one of
                another format (``job_version``).
        """
        if self.root.is_file():
            raise InputError(f"'{self.root}' is a file; give the folder of a job.", "no_job")
        try:
            document = json.loads((self.root / "job.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"'{self.root}' holds no job (no job.json); give the folder of an earlier"
                " 'stylize' or 'reconstruct'.",
                "no_job",
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"'{self.root / 'job.json'}' cannot be read: {why}.", "bad_job"
            ) from error
        if not isinstance(document, dict) or document.get("format") != JOB_FORMAT:
            raise InputError(
                f"'{self.root}' was written by another version of toonify3d; use that version, or"
                " start a new job.",
                "job_version",
            )
        if not _is_complete(document):
            raise self.damaged()
        return document

    def damaged(self) -> InputError:
        """What to raise when ``job.json`` does not hold what it should."""
        return InputError(
            f"'{self.root / 'job.json'}' is damaged; start a new job in another folder.", "bad_job"
        )

    def create(self, capture: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Make the folder, or re-open it when it holds the same capture and settings.

        Raises:
            InputError: Not writable, not empty, or another job's folder. Nothing is changed then.
        """
        wanted = {
            "format": JOB_FORMAT,
            "capture": {"path": str(capture.resolve()), "sha256": file_hash(capture)},
            "settings": settings,
            "styles": {},
            "versions": versions(),
        }
        if (self.root / "job.json").exists():
            return self._reopen(wanted)
        # Blender puts request.json, log.txt and clicked faces there before the worker starts, the
        # link its heartbeat.
        known = {REQUEST_FILE, LOG_FILE, FACES_FOLDER, STATUS_FILE, ALIVE_FILE, CANCEL_FILE}
        known.add("job.lock")
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"'{self.root}' is a file; give a folder for the job.", "bad_folder")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if any(item.name not in known for item in self.root.iterdir()):
                raise InputError(
                    f"'{self.root}' is not empty and holds no job; give a new or empty folder.",
                    "folder_not_empty",
                )
            write_json(self.root / "job.json", wanted)
        except OSError as error:
            raise InputError(
                f"The job folder '{self.root}' cannot be written ({error.strerror or error});"
                " choose another folder.",
                "unwritable",
            ) from error
        return wanted

    def _reopen(self, wanted: dict[str, Any]) -> dict[str, Any]:
        there = self.description
        if there["capture"]["sha256"] != wanted["capture"]["sha256"]:
            raise InputError(
                f"'{self.root}' already holds a job of another capture"
                f" ({there['capture']['path']}); give another folder.",
                "other_job",
            )
        if there["settings"] != json.loads(json.dumps(wanted["settings"])):
            raise InputError(
                f"'{self.root}' already holds this capture with other settings; give another"
                " folder, or use 'restyle' for another style and 'resume' to go on.",
                "other_settings",
            )
        return there

    def note_companions(self, digest: str) -> None:
        """Record the hash of files beside the capture (see ``companions.py``)."""
        document = self.description
        if document["capture"].get("companions_sha256", "") != digest:
            document["capture"]["companions_sha256"] = digest
            write_json(self.root / "job.json", document)

    def add_style(self, name: str, description: dict[str, Any]) -> None:
        """Record a style in ``job.json``.

        Raises:
            InputError: The name belongs to another exemplar already.
        """
        document = self.description
        alike = [other for other in document["styles"] if other.casefold() == name.casefold()]
        if alike and name not in alike:
            raise InputError(
                f"The job already has a style '{alike[0]}', which some systems cannot tell from"
                f" '{name}'; give another name with --style.",
                "style_exists",
            )
        earlier = document["styles"].get(name)
        if earlier is not None and earlier != json.loads(json.dumps(description)):
            raise InputError(
                f"The job already has a style '{name}' made from other inputs or settings;"
                " give another name with --style.",
                "style_exists",
            )
        document["styles"][name] = description
        write_json(self.root / "job.json", document)

    def free_style_name(self, wanted: str, description: dict[str, Any]) -> str:
        """``wanted``, or with a number when another exemplar took it."""
        styles = self.description["styles"]
        plain = json.loads(json.dumps(description))
        # Windows and macOS do not tell "Toon" from "toon".
        taken = {other.casefold(): other for other in styles}
        name, count = safe_name(wanted), 1
        while name.casefold() in taken and styles[taken[name.casefold()]] != plain:
            count += 1
            name = f"{safe_name(wanted)}-{count}"
        return str(taken.get(name.casefold(), name))

    def check_free(self) -> None:
        """See whether nobody else works in the folder, before anything in it is changed.

        Raises:
            InputError: Another live process does (``job_busy``).
        """
        owner = _lock_owner(self.root / "job.lock")
        if owner is not None and owner != os.getpid() and _alive(owner):
            raise InputError(
                f"Process {owner} is working in '{self.root}'; wait for it or cancel it first.",
                "job_busy",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of the folder.

        Raises:
            InputError: Another live process works in it.
        """
        lock = self.root / "job.lock"
        self.check_free()
        try:
            try:
                with open(lock, "x", encoding="utf-8") as handle:
                    handle.write(str(os.getpid()))
            except FileExistsError:  # a dead process's, or one that came a moment before us
                self.check_free()
                lock.write_text(str(os.getpid()), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"The job folder '{self.root}' cannot be written ({error.strerror}).", "unwritable"
            ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def step_key(name: str, *parts: Any) -> str:
    """Hash of what a step depends on; ``parts`` are dataclasses or JSON values."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) else p for p in parts]  # type: ignore[arg-type]
    text = json.dumps([name, __version__, *plain], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def finished_step(folder: Path, key: str) -> StepRecord | None:
    """The record of a finished step with this key, or None."""
    try:
        document = json.loads((folder / STEP_FILE).read_text(encoding="utf-8"))
        record = StepRecord(
            document["key"], document["seconds"], tuple(document["warnings"]), document["figures"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if record.key == key else None


def finish_step(folder: Path, record: StepRecord) -> None:
    """Mark a step as finished; written last, so that it is never true too early."""
    write_json(folder / STEP_FILE, dataclasses.asdict(record) | {"finished": time.time()})


def _is_complete(document: dict[str, Any]) -> bool:
    """Whether ``job.json`` has what every command relies on."""
    capture, styles = document.get("capture"), document.get("styles")
    return (
        isinstance(document.get("settings"), dict)
        and isinstance(capture, dict)
        and {"path", "sha256"} <= capture.keys()
        and isinstance(styles, dict)
        and all(isinstance(style, dict) for style in styles.values())
    )


def _lock_owner(lock: Path) -> int | None:
    try:
        return int(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _alive(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process on Windows
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # type: ignore[attr-defined]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
