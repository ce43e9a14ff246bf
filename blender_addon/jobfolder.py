# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing a job folder: the truth about a job, with or without a socket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import protocol

ALIVE_WINDOW_S = 5 * protocol.ALIVE_PERIOD_S
"""A worker whose heartbeat is older than this is dead."""

_MAX_STATUS_BYTES = 1 << 20
_MAX_NAME_CHARS = 40
_PREVIEW = "preview/current.png"


def safe_name(text: str, fallback: str = "avatar") -> str:
    """``text`` as a short folder name that every file system takes; letters of any script stay."""
    normal = unicodedata.normalize("NFC", text)
    cleaned = re.sub(r"[^\w.-]+", "-", normal, flags=re.UNICODE).strip("-._ ")
    return cleaned[:_MAX_NAME_CHARS].rstrip("-._ ") or fallback


def create_job_folder(output: Path, capture: Path) -> Path:
    """Make a new folder ``output/<capture>-NNN`` that belongs to no other job.

    Raises:
        OSError: ``output`` cannot be written.
    """
    return create_numbered_folder(output, capture.stem)


def create_numbered_folder(parent: Path, name: str) -> Path:
    """Make a new folder ``parent/<name>-NNN``.

    Raises:
        OSError: ``parent`` cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    stem = safe_name(name)
    for number in range(1, 10000):
        folder = parent / f"{stem}-{number:03d}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise OSError(f"{parent} already holds 9999 folders called {stem}")


def write_request(job: Path, request: Mapping[str, Any]) -> None:
    """Write ``request.json`` whole or not at all.

    Raises:
        OSError: The folder cannot be written.
    """
    path = job / protocol.REQUEST_FILE
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        text = json.dumps(dict(request), indent=1, ensure_ascii=True)
        with open(temporary, "w", encoding="utf-8") as handle:
            handle.write(text + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_face(job: Path, exemplar: str, places: Mapping[str, Any]) -> Path:
    """Write an exemplar's clicked places where the backend reads them.

    The name holds a digest of the places: a job that waits keeps those it was started with.

    Raises:
        OSError: The folder cannot be written.
    """
    text = json.dumps(dict(places), indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    folder = job / protocol.FACES_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{safe_name(Path(exemplar).stem)}-{digest}.json"
    temporary = path.with_suffix(".part")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_request(job: Path) -> dict[str, Any] | None:
    """What ``request.json`` says, None when it is missing or damaged."""
    try:
        document = json.loads((job / protocol.REQUEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def clear_run_files(job: Path) -> None:
    """Remove what an earlier run left behind, so that it is not taken for this run's.

    Raises:
        OSError: The folder cannot be written.
    """
    for name in (protocol.STATUS_FILE, protocol.CANCEL_FILE, protocol.ALIVE_FILE):
        (job / name).unlink(missing_ok=True)


def read_status(job: Path) -> protocol.Status | None:
    """The last status the worker wrote, None when there is none (yet) or it is damaged."""
    try:
        with open(job / protocol.STATUS_FILE, "rb") as handle:
            data = handle.read(_MAX_STATUS_BYTES)
        return protocol.status_from_json(data)
    except (OSError, protocol.ProtocolError):
        return None


def request_cancel(job: Path) -> bool:
    """Ask the worker to stop through the job folder; False when it cannot be written."""
    try:
        (job / protocol.CANCEL_FILE).touch()
    except OSError:
        return False
    return True


def is_alive(job: Path, now: float | None = None) -> bool:
    """True while a worker that this Blender did not start shows a heartbeat in the folder."""
    try:
        beat = (job / protocol.ALIVE_FILE).stat().st_mtime
    except OSError:
        return False
    return (time.time() if now is None else now) - beat < ALIVE_WINDOW_S


def log_tail(job: Path, lines: int = 20) -> list[str]:
    """The last lines of the worker's log."""
    try:
        with open(job / protocol.LOG_FILE, "rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 16384))
            text = handle.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    # Progress bars overwrite their line with carriage returns: the last state of each counts.
    rows = [row.rsplit("\r", 1)[-1].rstrip() for row in text.split("\n")]
    return [row for row in rows if row][-lines:]


def inside(job: Path, relative: str | None) -> Path | None:
    """``job/relative`` when that is an existing path inside the job folder, else None."""
    if not relative:
        return None
    try:
        path = (job / relative).resolve()
        if path.is_relative_to(job.resolve()) and path.exists():
            return path
    except (OSError, ValueError):
        return None
    return None


def last_preview(job: Path) -> Path | None:
    """The newest picture of the head that an earlier run has left, None without one."""
    return inside(job, _PREVIEW)


def newest_result(job: Path) -> Path | None:
    """The result folder written last, whichever style it belongs to."""
    found = [path.parent for path in job.glob("styles/*/result/report.json")]
    return max(found, key=lambda folder: (folder / "report.json").stat().st_mtime, default=None)


def newest_portraits(job: Path) -> str:
    """Name of the style whose portraits were finished last; empty without any."""
    found = list(job.glob("styles/*/portraits2d/step.json"))
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return "" if newest is None else newest.parents[1].name
