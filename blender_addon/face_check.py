# SPDX-License-Identifier: GPL-3.0-or-later
"""``toonify3d face`` before anything long starts: is the face of every exemplar found? (seconds)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .capture_check import file_stamp, report_list
from .task import Task

TIMEOUT_S = 120.0
NO_FACE = "exemplar_no_face"
"""The backend's code for a picture without a face that it finds."""


@dataclass(frozen=True)
class FaceAnswer:
    """What the backend says about one exemplar.

    Attributes:
        code: Why the exemplar cannot be used as it is; empty when it can, or when that is unknown.
        message: The same in one sentence.
    """

    code: str = ""
    message: str = ""


def read_answers(output: str) -> dict[str, FaceAnswer]:
    """The answers in the output of ``toonify3d face --json``, by exemplar.

    Raises:
        ValueError: There is no report in it.
    """
    return dict(_answer(item) for item in report_list(output, "exemplars"))


def _answer(item: Any) -> tuple[str, FaceAnswer]:
    if not isinstance(item, dict) or not isinstance(item.get("exemplar"), str):
        raise ValueError("an answer without exemplar")
    if item.get("found"):
        return item["exemplar"], FaceAnswer()
    code, message = str(item.get("code") or "unknown"), str(item.get("message", ""))
    return item["exemplar"], FaceAnswer(code, message)


class FaceCheck:
    """The check of some exemplars, as a process that is polled; answers are kept by file."""

    def __init__(self) -> None:
        self.problem = ""
        self._task = Task(TIMEOUT_S)
        self._asked: list[Path] = []
        self._known: dict[Path, tuple[object, FaceAnswer]] = {}

    @property
    def running(self) -> bool:
        """True while the answer is awaited."""
        return self._task.running

    def knows(self, exemplar: Path) -> bool:
        """True when the check, or its failure, is about this file as it is now on disk."""
        return exemplar in self._known and self._known[exemplar][0] == file_stamp(exemplar)

    def answer(self, exemplar: Path) -> FaceAnswer:
        """What was said about this file; an empty answer for nothing yet. Touches no disk."""
        return self._known[exemplar][1] if exemplar in self._known else FaceAnswer()

    def start(self, python: str, exemplars: Sequence[Path]) -> None:
        """Look for the faces in some pictures."""
        self.stop()
        self.problem, self._asked = "", list(exemplars)
        for path in self._asked:
            self._known.pop(path, None)
        try:
            self._task.start(python, ["face", "--json", *map(str, self._asked)])
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def poll(self) -> bool:
        """Take the answers when they are there; True when something changed."""
        if not self._task.poll():
            return False
        try:
            answers = read_answers(self._task.output)
        except ValueError:
            self._give_up(self._task.last_line[:200] or "no answer")
            return True
        for path in self._asked:
            self._known[path] = (file_stamp(path), answers.get(str(path), FaceAnswer()))
        return True

    def stop(self) -> None:
        """End a running check."""
        self._task.close()

    def close(self) -> None:
        """End a running check and forget everything."""
        self.stop()
        self.problem, self._asked = "", []
        self._known.clear()

    def _give_up(self, reason: str) -> None:
        """A check that cannot run keeps no job from starting."""
        self.problem = f"The exemplars were not checked ({reason})"
        for path in self._asked:
            self._known[path] = (file_stamp(path), FaceAnswer())
