"""Where a job is: terminal, ``status.json`` and Blender's socket told from one place."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..errors import CancelledError
from ..files import write_image, write_json

STATUS_INTERVAL = 0.5
PREVIEW_INTERVAL = 2.0
PREVIEW_SIDE = 512
"""Blender decodes preview pictures between two of its frames: at most so many pixels wide."""


class Listener(Protocol):
    """What the reporter needs of the socket to Blender (:mod:`.link`)."""

    @property
    def cancel_requested(self) -> bool:
        """Whether Blender asked to stop."""

    def send_status(self, status: dict[str, Any]) -> object:
        """Forward one status document."""

    def send_preview(self, path: str) -> object:
        """Say that a new preview picture lies at ``path``."""


class Reporter:
    """Follows a job through its stages and implements :class:`~toonify3d.progress.Progress`.

    Args:
        root: The job folder.
        stages: ``(name, expected seconds)`` of the stages that will run, in order.
        listener: The link to Blender, if any.
    """

    def __init__(
        self, root: Path, stages: Sequence[tuple[str, float]], listener: Listener | None = None
    ) -> None:
        self._root = root
        self._names = [name for name, _ in stages]
        self._expected = [seconds for _, seconds in stages]
        self._listener = listener
        self._index = -1
        self._fraction = 0.0
        self._message = ""
        self._started = time.monotonic()
        self._stage_started = self._started
        self._last_status = self._last_preview = 0.0
        self._cancelled = False
        self._preview: str | None = None
        self._bar: tqdm[Any] | None = None
        self._last_plain = 0.0
        self.warnings: list[str] = []
        self.stage_warnings: list[str] = []

    # -- stages -------------------------------------------------------------------------------

    def begin(self, name: str) -> None:
        """Enter a stage named at construction."""
        self._close_bar()
        self._index = self._names.index(name)
        self._fraction, self._message = 0.0, ""
        self._stage_started = time.monotonic()
        self.stage_warnings = []
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=100.0,
                desc=f"[{self._index + 1}/{len(self._names)}] {name}",
                bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining} {postfix}",
                dynamic_ncols=True,
            )
        self._publish("running", force=True)
        self._plain(force=True)

    def end(self) -> float:
        """Leave the current stage.

        Returns:
            Seconds since :meth:`begin`.
        """
        self._fraction = 1.0
        self._publish("running", force=True)
        self._close_bar()
        return time.monotonic() - self._stage_started

    def request_cancel(self) -> None:
        """Make the next :meth:`update` raise."""
        self._cancelled = True

    # -- Progress -----------------------------------------------------------------------------

    def update(self, fraction: float, message: str = "") -> None:
        """See :class:`~toonify3d.progress.Progress`."""
        # Never backwards: a stage that repeats work (a step back after NaN) stands still instead.
        self._fraction = max(self._fraction, min(float(fraction), 1.0))
        self._message = message or self._message
        if self._bar is not None:
            self._bar.n = round(100 * self._fraction, 1)
            self._bar.set_postfix_str(self._message[:60], refresh=False)
            self._bar.update(0)
        self._publish("running")
        self._plain()
        if self._cancelled or (self._listener is not None and self._listener.cancel_requested):
            raise CancelledError("Cancelled; the job can be resumed.")

    def warn(self, message: str) -> None:
        """See :class:`~toonify3d.progress.Progress`."""
        if message in self.stage_warnings:
            return
        self.stage_warnings.append(message)
        self.warnings.append(message)
        self._say(f"Warning: {message}")
        self._publish("running", force=True)

    def preview(self, image: npt.NDArray[np.uint8]) -> None:
        """See :class:`~toonify3d.progress.Progress`."""
        now = time.monotonic()
        if now - self._last_preview < PREVIEW_INTERVAL:
            return
        self._last_preview = now
        write_image(self._root / "preview" / "current.png", _small(image))
        self._preview = "preview/current.png"
        if self._listener is not None:
            self._listener.send_preview(self._preview)

    # -- the end ------------------------------------------------------------------------------

    def done(self, result: Path) -> None:
        """The job finished; ``result`` is its folder."""
        self._close_bar()
        self._fraction = 1.0
        relative = result.relative_to(self._root).as_posix()
        self._publish("done", force=True, result=relative)

    def failed(self, code: str, message: str) -> None:
        """The job stopped for a reason the user should read."""
        self._close_bar()
        self._publish("failed", force=True, problem={"code": code, "message": message})

    def cancelled(self) -> None:
        """The user stopped it; it can be resumed."""
        self._close_bar()
        self._publish("cancelled", force=True)

    # -- inside -------------------------------------------------------------------------------

    def eta_seconds(self) -> float | None:
        """Time left: the expected rest, scaled by how fast the work so far went."""
        if self._index < 0:
            return None
        here = self._expected[self._index]
        spent = time.monotonic() - self._stage_started
        if self._fraction > 0.05:
            left_here = spent * (1 - self._fraction) / self._fraction
            pace = spent / (self._fraction * here) if here > 0 else 1.0
        else:
            left_here, pace = max(here - spent, 0.0), 1.0
        return float(left_here + min(max(pace, 0.3), 5.0) * sum(self._expected[self._index + 1 :]))

    def overall_fraction(self) -> float:
        """Share of the expected work that is done."""
        if self._index < 0:
            return 0.0
        total = sum(self._expected) or 1.0
        done = sum(self._expected[: self._index]) + self._fraction * self._expected[self._index]
        return done / total

    def _publish(self, state: str, force: bool = False, **extra: Any) -> None:
        now = time.monotonic()
        if not force and now - self._last_status < STATUS_INTERVAL:
            return
        self._last_status = now
        eta = self.eta_seconds() if state == "running" else None
        status = {
            "state": state,
            "stage": self._names[self._index] if self._index >= 0 else "",
            "stage_index": self._index + 1,
            "stage_count": len(self._names),
            "fraction": 1.0 if state == "done" else round(self.overall_fraction(), 4),
            "step_fraction": round(self._fraction, 4),
            "eta_s": None if eta is None else round(eta, 1),
            "elapsed_s": round(now - self._started, 1),
            "message": self._message,
            "problem": None,
            "pid": os.getpid(),
            "updated": time.time(),
            "preview": self._preview,
            "result": None,
            "warnings": list(self.warnings),
        } | extra
        write_json(self._root / "status.json", status)
        if self._listener is not None:
            self._listener.send_status(status)

    def _plain(self, force: bool = False) -> None:
        """One line now and then where there is no terminal for a bar."""
        now = time.monotonic()
        if self._bar is not None or (not force and now - self._last_plain < 10.0):
            return
        self._last_plain = now
        eta = self.eta_seconds()
        left = "" if eta is None else f", about {eta:.0f} s left"
        name = self._names[self._index]
        self._say(
            f"[{self._index + 1}/{len(self._names)}] {name} {100 * self._fraction:.0f}%{left}"
            + (f": {self._message}" if self._message else "")
        )

    def _say(self, line: str) -> None:
        if self._bar is not None:
            tqdm.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.n = round(100 * self._fraction, 1)
            self._bar.refresh()
            self._bar.close()
            self._bar = None


def cancel_on_signals(reporter: Reporter) -> None:
    """First Ctrl-C (or SIGTERM) stops cleanly at the next update; a second one at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        reporter.request_cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def _small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``image`` shrunk to at most :data:`PREVIEW_SIDE` pixels on its longer side."""
    scale = PREVIEW_SIDE / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size = [max(1, round(scale * side)) for side in (image.shape[1], image.shape[0])]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
