# SPDX-License-Identifier: GPL-3.0-or-later
"""The running state of the add-on: the job queue, the backend check, the timer and the pictures.

Everything happens in :func:`tick`, a plain function on one ``bpy.app.timers`` callback (timers
never fire in background mode, so tests call it themselves). No threads: Blender's Python does not
support them.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import bpy

from . import preferences
from .doctor import BackendCheck
from .job import Job, JobQueue, JobState
from .setup_backend import BackendSetup

logger = logging.getLogger(__name__)

PERIOD_S = 0.2
"""Seconds between two polls while something runs."""

queue = JobQueue()
check = BackendCheck()
setup = BackendSetup()

_previews: bpy.utils.previews.ImagePreviewCollection | None = None
_preview_key = ""


def tick() -> bool:
    """Poll everything once without blocking; True when the panel should be redrawn."""
    changed = queue.poll()
    changed |= check.poll()
    changed |= _poll_setup()
    for job in queue.jobs:
        if job.state is JobState.DONE and not job.imported and job.started_at:
            job.imported = True
            _import_finished(job)
            changed = True
    if changed:
        redraw()
    return changed


def ensure_timer() -> None:
    """Start polling; the timer ends by itself when nothing is left to poll."""
    if not bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.register(_on_timer, first_interval=PERIOD_S, persistent=True)


def _on_timer() -> float | None:
    tick()
    return PERIOD_S if queue.busy or check.running or setup.running else None


def _poll_setup() -> bool:
    """Follow the setup; when it is done, use what it made and check it."""
    changed = setup.poll()
    settings = preferences.get()
    if changed and not setup.running and setup.python and settings is not None:
        settings.python = setup.python
        check.start(setup.python, Path(setup.python).parent)
    return changed


def redraw() -> None:
    """Redraw the sidebars of all 3D views (and the preferences)."""
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "PREFERENCES"}:
                area.tag_redraw()


def _import_finished(job: Job) -> None:
    """Bring a finished result into the scene as one undo step, if the artist wants that."""
    settings = preferences.get()
    if job.result is None or (settings is not None and not settings.auto_import):
        return
    manager = bpy.context.window_manager
    window = manager.windows[0] if manager and len(manager.windows) else None
    try:
        # A timer has no window of its own, which the undo push needs.
        with bpy.context.temp_override(window=window) if window else _NoOverride():
            bpy.ops.toonify3d.import_result("EXEC_DEFAULT", True, folder=str(job.result))
    except RuntimeError as error:
        # The operator has reported it; the result stays on disk and "Import" stays in the panel.
        logger.warning("the finished result was not imported: %s", error)


class _NoOverride:
    """Stands in for a context override where there is no window (background, tests)."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def preview_icon(path: Path | None) -> int:
    """Icon number of a picture file for ``template_icon``, 0 for none; reloads what changed."""
    global _previews, _preview_key
    if path is None:
        return 0
    try:
        key = f"{path}|{path.stat().st_mtime_ns}"
    except OSError:
        return 0
    if _previews is None:
        import bpy.utils.previews

        _previews = bpy.utils.previews.new()
    if key != _preview_key:
        _previews.clear()
        _preview_key = key
        _previews.load(key, str(path), "IMAGE")
    return int(_previews[key].icon_id)


def close() -> None:
    """Stop polling and hang up on the workers (the add-on is being disabled)."""
    global _previews, _preview_key
    if bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.unregister(_on_timer)
    queue.close()
    check.close()
    setup.cancel()
    if _previews is not None:
        bpy.utils.previews.remove(_previews)
        _previews, _preview_key = None, ""


def seconds_text(seconds: float | None) -> str:
    """``"3 min 20 s"``; empty for unknown."""
    if seconds is None or seconds < 0:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def elapsed_text(job: Job) -> str:
    """How long ago the job was started here."""
    return seconds_text(time.monotonic() - job.started_at) if job.started_at else ""
