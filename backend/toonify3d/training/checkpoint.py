"""Checkpoints: one file, written whole or not at all, loadable with ``weights_only=True``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomic

NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values in dicts and lists) as ``folder/checkpoint.pt``.

    Raises:
        OSError: Disk full or folder not writable; an older checkpoint stays as it was.
    """
    write_atomic(folder / NAME, lambda path: torch.save(state, path))


def load_checkpoint(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The checkpoint of ``folder``, or None when there is none or it cannot be read.

    Only tensors and plain values are unpickled, so a foreign file cannot run code.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError, KeyError):
        return None
    return state


class Timer:
    """Says when something that happens at most every so many seconds is due."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the time has passed; if so, it starts again."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
