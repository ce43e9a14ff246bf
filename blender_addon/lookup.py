# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a chosen file is there, for panels: the disk is asked rarely, as they are drawn often."""

from __future__ import annotations

import time
from pathlib import Path

LOOK_EVERY_S = 2.0
"""How long an answer is taken for true."""

_MAX_KNOWN = 64
_known: dict[str, tuple[float, bool]] = {}


def is_there(path: Path) -> bool:
    """True when a file or folder existed at the last look, at most some seconds ago."""
    name, now = str(path), time.monotonic()
    looked, found = _known.get(name, (-LOOK_EVERY_S, False))
    if now - looked < LOOK_EVERY_S:
        return found
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    try:
        found = path.exists()
    except OSError:  # a drive that does not answer
        found = False
    _known[name] = (now, found)
    return found


def forget() -> None:
    """Look again at the next question."""
    _known.clear()
