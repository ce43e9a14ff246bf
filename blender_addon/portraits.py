# SPDX-License-Identifier: GPL-3.0-or-later
"""Portraits painted by hand or with any other program: handed out, and used for a style."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy

from . import lookup, properties
from .task import Task

TIMEOUT_S = 600.0
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
_NUMBERED = re.compile(r".*\d$", re.DOTALL)
_NUMBER = re.compile(r"\d+$")


def numbered(folder: Path) -> list[str]:
    """Names of the pictures in a folder that end in the number of a frame, as ``0007.png``.

    Raises:
        OSError: The folder is not there, or cannot be read.
    """
    pictures = (path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return sorted(path.name for path in pictures if _NUMBERED.match(path.stem))


def chosen(settings: bpy.types.PropertyGroup) -> Path | None:
    """The folder of painted portraits that makes the style; None when the exemplar does."""
    return properties.absolute(settings.portraits)


def complaint(folder: Path) -> str:
    """Why a folder cannot be used, in one sentence; empty when it can."""
    try:
        if numbered(folder):
            return ""
    except OSError:
        return f"The folder {folder.name or folder} is not there: choose it again"
    return (
        f"There is no portrait in {folder.name or folder}: choose the folder of your pictures,"
        " which keep the names they were exported with, such as 0007.png"
    )


def misfit(folder: Path, job: Path) -> str:
    """Why a job that has read its film cannot use a folder, in the backend's sentence.

    Empty when it can, and where that is not known yet: the backend then has the last word.
    """
    return _misfit(folder, _names(folder), frames(job))


def _misfit(folder: Path, names: list[str], known: tuple[int, ...]) -> str:
    numbers = {int(found[0]) for name in names if (found := _NUMBER.search(Path(name).stem))}
    if not known or not numbers or not numbers.isdisjoint(known):
        return ""
    return (
        f"No picture in {folder} is named after a used source frame (such as {known[0]:04d}.png)."
    )


def frames(job: Path) -> tuple[int, ...]:
    """Numbers of the frames that a job uses of its film; empty before it has read it."""
    try:
        if not (job / "capture" / "step.json").is_file():
            return ()
        document = json.loads((job / "capture" / "cameras.json").read_text(encoding="utf-8"))
        return tuple(int(item["source_index"]) for item in document["frames"])
    except (OSError, ValueError, KeyError, TypeError):  # damaged: the backend will say
        return ()


def recent_complaint(folder: Path, job: Path | None = None) -> str:
    """:func:`complaint`, else :func:`misfit`, for panels: the disk is asked rarely."""
    found = str(lookup.recent(complaint, folder))
    if found or job is None:
        return found
    return _misfit(folder, lookup.recent(_names, folder), lookup.recent(frames, job))


def recent_count(folder: Path) -> int:
    """How many portraits there are, for panels."""
    return int(lookup.recent(_count, folder))


def _count(folder: Path) -> int:
    return len(_names(folder))


def _names(folder: Path) -> list[str]:
    """:func:`numbered`; none where there is no folder."""
    try:
        return numbered(folder)
    except OSError:
        return []


def apply(request: dict[str, Any], settings: bpy.types.PropertyGroup) -> None:
    """Put into a request the folder that makes its style, or take an earlier one out.

    Raises:
        FileNotFoundError: There is no portrait in it; the message is one sentence.
    """
    request.pop("stylizer", None)
    request.pop("portraits", None)
    folder = chosen(settings)
    if folder is None:
        return
    reason = complaint(folder)
    if reason:
        raise FileNotFoundError(reason)
    request |= {"stylizer": "folder", "portraits": str(folder)}


def concerns(request: Mapping[str, Any]) -> bool:
    """True when a request's style comes from painted portraits."""
    return "portraits" in request


class PortraitExport:
    """``toonify3d portraits JOB --export DIR`` as a process that is polled."""

    def __init__(self) -> None:
        self.folder = Path()
        self.count = 0
        self.problem = ""
        self._task = Task(TIMEOUT_S)

    @property
    def running(self) -> bool:
        """True while the backend writes."""
        return self._task.running

    def start(self, python: str, job: Path, folder: Path, style: str = "") -> None:
        """Write a job's portraits.

        Args:
            python: Interpreter of the backend environment.
            job: Its capture is finished.
            folder: New or empty.
            style: Whose portraits; empty for the film's own pictures.

        Raises:
            OSError: The interpreter cannot be started.
        """
        self.close()
        self.folder = folder
        options = ["--style", style] if style else []
        self._task.start(python, ["portraits", str(job), "--export", str(folder), *options])

    def poll(self) -> bool:
        """True once, when it has ended; :attr:`problem` is empty when it worked."""
        if not self._task.poll():
            return False
        lookup.forget()
        if self._task.exit_code == 0:
            self.count = _count(self.folder)
        else:
            said = self._task.last_line.removeprefix("toonify3d: ")[:300]
            self.problem = said or "The portraits were not written"
        return True

    def close(self) -> None:
        """End a running export and forget what was said about the last one."""
        self._task.close()
        self.count, self.problem = 0, ""
