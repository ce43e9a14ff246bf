"""How long-running code tells its caller where it is, without knowing who is listening."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Progress(Protocol):
    """Receives progress of one step. Implementations: terminal, job folder, socket, tests."""

    def update(self, fraction: float, message: str = "") -> None:
        """Report that ``fraction`` (0 to 1) of the step is done.

        Call it often (several times a second is fine; listeners throttle).

        Raises:
            CancelledError: The user asked to stop. Let it escape after saving what is worth it.
        """

    def warn(self, message: str) -> None:
        """Record that something degraded (a fallback, lost frames). Shown and put in the report."""

    def preview(self, image: npt.NDArray[np.uint8]) -> None:
        """Offer a picture of the current state, RGB ``(H, W, 3)``."""


class SilentProgress:
    """Listens to nothing but keeps the warnings; for tests and library use."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def update(self, fraction: float, message: str = "") -> None:
        """See :class:`Progress`."""

    def warn(self, message: str) -> None:
        """See :class:`Progress`."""
        self.warnings.append(message)

    def preview(self, image: npt.NDArray[np.uint8]) -> None:
        """See :class:`Progress`."""


class SubProgress:
    """Maps a sub-step's 0..1 onto ``[start, stop]`` of its parent."""

    def __init__(self, parent: Progress, start: float, stop: float) -> None:
        self._parent, self._start, self._stop = parent, start, stop

    def update(self, fraction: float, message: str = "") -> None:
        """See :class:`Progress`."""
        self._parent.update(self._start + fraction * (self._stop - self._start), message)

    def warn(self, message: str) -> None:
        """See :class:`Progress`."""
        self._parent.warn(message)

    def preview(self, image: npt.NDArray[np.uint8]) -> None:
        """See :class:`Progress`."""
        self._parent.preview(image)
