# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures in panels: exemplar thumbnails, the contact sheet, the running job's preview."""

from __future__ import annotations

import time
from pathlib import Path

import bpy

LOOK_EVERY_S = 1.0
"""How often a drawn picture's file is looked at again."""

_MAX_PICTURES = 32

_collection: bpy.utils.previews.ImagePreviewCollection | None = None
_known: dict[str, tuple[float, str]] = {}


def icon(path: Path | str | None) -> int:
    """Icon number of a picture file for ``template_icon``, 0 for none; reloads what changed."""
    if not path:
        return 0
    name, now = str(path), time.monotonic()
    looked, key = _known.get(name, (0.0, ""))
    if now - looked > LOOK_EVERY_S:
        key = _load(name, key)
        if len(_known) > _MAX_PICTURES:
            close()
            key = _load(name, "")
        _known[name] = (now, key)
    if not key or _collection is None:
        return 0
    return int(_collection[key].icon_id)


def _load(name: str, before: str) -> str:
    """Load a picture whose file is new or has changed; its key, empty without a file."""
    global _collection
    try:
        key = f"{name}|{Path(name).stat().st_mtime_ns}"
    except OSError:
        key = ""
    if key == before:
        return key
    if _collection is None:
        import bpy.utils.previews

        _collection = bpy.utils.previews.new()
    if before in _collection:
        del _collection[before]
    if key and key not in _collection:
        _collection.load(key, name, "IMAGE")
    return key


def close() -> None:
    """Free every picture."""
    global _collection
    _known.clear()
    if _collection is not None:
        bpy.utils.previews.remove(_collection)
        _collection = None
