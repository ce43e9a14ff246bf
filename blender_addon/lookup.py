# SPDX-License-Identifier: GPL-3.0-or-later
"""What the disk says of chosen files, for panels: it is asked rarely, as they are drawn often."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOK_EVERY_S = 2.0
"""How long an answer is taken for true."""

_MAX_KNOWN = 64
_known: dict[tuple[Callable[[Path], Any], str], tuple[float, Any]] = {}


def is_there(path: Path) -> bool:
    """True when a file or folder existed at the last look, at most some seconds ago."""
    return bool(recent(_exists, path))


def recent(look: Callable[[Path], Any], path: Path) -> Any:
    """What ``look`` said of a path at the last look, at most some seconds ago.

    Args:
        look: A function of a module (not a new one at every call), which raises nothing.
        path: A file or folder.
    """
    question, now = (look, str(path)), time.monotonic()
    looked, found = _known.get(question, (-LOOK_EVERY_S, None))
    if now - looked < LOOK_EVERY_S:
        return found
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    found = look(path)
    _known[question] = (now, found)
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a drive that does not answer
        return False


def forget() -> None:
    """Look again at the next question."""
    _known.clear()
