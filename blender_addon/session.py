# SPDX-License-Identifier: GPL-3.0-or-later
"""The running state of the add-on: the job queue, the checks, the bake and the timer.

Everything happens in :func:`tick`, a plain function on one ``bpy.app.timers`` callback (timers
never fire in background mode, so tests call it themselves). No threads: Blender's Python does not
support them.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import bpy

from . import estimates, face_editor, faces, lookup, pictures, preferences, properties, requests
from .bake import Bake
from .capture_check import CaptureCheck
from .doctor import BackendCheck
from .face_check import FaceCheck
from .homes import Watch, scene_of
from .job import Job, JobQueue, JobState
from .portraits import PortraitExport
from .setup_backend import BackendSetup

logger = logging.getLogger(__name__)

PERIOD_S = 0.2
"""Seconds between two polls while something runs."""

queue = JobQueue()
check = BackendCheck()
setup = BackendSetup()
capture_check = CaptureCheck()
face_check = FaceCheck()
bake = Bake()
portrait_export = PortraitExport()
watch = Watch(queue)

_start_after_check = ""
_live_seen: tuple[object, ...] = ()
_measured: dict[str, Any] | None = None


def tick() -> bool:
    """Poll everything once without blocking; True when the panel should be redrawn."""
    changed = queue.poll()
    changed |= check.poll()
    changed |= _poll_setup()
    changed |= _poll_input_checks()
    changed |= _poll_bake()
    changed |= portrait_export.poll()
    for job in queue.jobs:
        if job.state is JobState.DONE and not job.imported and job.started_at:
            job.imported = True
            _remember_cost(job)
            _import_finished(job)
            changed = True
    if changed:
        _follow_live()
        redraw()
    return changed


def ensure_timer() -> None:
    """Start polling; the timer ends by itself when nothing is left to poll."""
    if not bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.register(_on_timer, first_interval=PERIOD_S, persistent=True)


def _on_timer() -> float | None:
    tick()
    others = (check, setup, capture_check, face_check, bake, portrait_export)
    busy = queue.busy or any(item.running for item in others)
    return PERIOD_S if busy else None


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
    scene = scene_of(job)
    if scene is None:  # another file is open: it must not get what it never asked for
        return
    try:
        # A timer has no window of its own, which the undo push needs.
        with _with_window(scene):
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


def _with_window(scene: bpy.types.Scene | None = None) -> Any:
    """A context with a window, which operators want and timers lack, and with that scene.

    A scene that no window shows comes without one.
    """
    manager = bpy.context.window_manager
    windows = list(manager.windows) if manager else []
    if scene is not None and windows and all(item.scene != scene for item in windows):
        # Never a window together with another scene than its own: Blender crashes (measured).
        return bpy.context.temp_override(scene=scene, view_layer=scene.view_layers[0])
    shown = (item for item in windows if scene is None or item.scene == scene)
    window = next(shown, None)
    return _NoOverride() if window is None else bpy.context.temp_override(window=window)


def start_check(scene: bpy.types.Scene, capture: Path, *, then_start: bool) -> None:
    """Check a capture and the exemplars; start the job that waits for it if nothing is wrong."""
    global _start_after_check
    _start_after_check = scene.name if then_start else ""
    python = preferences.python_path()
    if not (then_start and capture_check.answers(capture)):
        sheet = Path(bpy.app.tempdir) / "toonify3d-capture-check.png"
        capture_check.start(python, capture, sheet)
    unknown = unchecked_exemplars(scene)
    if unknown:
        face_check.start(python, unknown)
    ensure_timer()
    redraw()


def unchecked_exemplars(scene: bpy.types.Scene) -> list[Path]:
    """Exemplars whose face nobody has looked for yet, and needs to be found."""
    settings = scene.toonify3d
    wanted = [item for item in requests.exemplars(settings) if not faces.settled(settings, item)]
    paths = [properties.absolute(item) for item in wanted]
    return [path for path in paths if path and path.is_file() and not face_check.knows(path)]


def refused_exemplars(scene: bpy.types.Scene) -> list[str]:
    """Exemplars that the backend is known to refuse as they are. Touches no disk."""
    settings = scene.toonify3d
    return [
        item
        for item in requests.exemplars(settings)
        if not faces.settled(settings, item)
        and face_check.answer(properties.absolute(item) or Path()).code
    ]


def stop_check() -> None:
    """Give up a running check, and the job that waits for it."""
    global _start_after_check
    _start_after_check = ""
    capture_check.clear()
    face_check.stop()
    redraw()


def checking() -> bool:
    """True while a check of the inputs runs."""
    return capture_check.running or face_check.running


def starting() -> bool:
    """True while a job waits for the check of its inputs."""
    return bool(_start_after_check) and checking()


def _poll_input_checks() -> bool:
    """Take the checks' answers; inputs without fault go on by themselves."""
    global _start_after_check
    changed = capture_check.poll()
    changed |= face_check.poll()
    # A check that could not even be started has no end to be polled.
    if checking() or not _start_after_check:
        return changed
    scene, _start_after_check = bpy.data.scenes.get(_start_after_check), ""
    if scene is None or capture_check.verdict in {"stop", "warning"} or refused_exemplars(scene):
        return True
    try:
        with _with_window(scene):
            bpy.ops.toonify3d.stylize("EXEC_DEFAULT", anyway=True)
    except RuntimeError as error:
        capture_check.problem = str(error).removeprefix("Error: ").strip()
    return True


def _poll_bake() -> bool:
    """Follow the bake; put what it made on the mesh as one undo step."""
    if not bake.poll():
        return False
    if not bake.problem:
        try:
            with _with_window():
                bpy.ops.toonify3d.bake_apply(
                    "EXEC_DEFAULT", True, folder=str(bake.output), target=bake.target
                )
        except RuntimeError as error:
            bake.problem = str(error).removeprefix("Error: ").strip()
    return True


# -- what jobs cost here ----------------------------------------------------------------------


def _measured_file() -> Path:
    folder = bpy.utils.extension_path_user(str(__package__), path="", create=True)
    return Path(folder) / "measured.json"


def measured() -> dict[str, Any]:
    """What finished jobs took on this computer."""
    global _measured
    if _measured is None:
        try:
            _measured = estimates.load(_measured_file())
        except (OSError, ValueError):  # no user folder, or not run as an extension
            _measured = {}
    return _measured


def _remember_cost(job: Job) -> None:
    global _measured
    if job.result is None:
        return
    try:
        estimates.record(_measured_file(), job.result, str((job.request or {}).get("command")))
    except (OSError, ValueError) as error:
        logger.warning("the job's cost was not remembered: %s", error)
    _measured = None


def device_kind() -> str:
    """What jobs will run on, as far as it is known: the backend check says it, else a job did."""
    device = (check.report or {}).get("device")
    if isinstance(device, dict) and "kind" in device:
        return str(device["kind"])
    return next((kind for kind in ("cuda", "mps") if kind in measured()), "cpu")


# -- the running job in the viewport ----------------------------------------------------------


def _follow_live() -> None:
    """When the current job has come to another step, show what it has made so far."""
    global _live_seen
    job = queue.current
    if job is None:
        return
    seen = (job, job.state, job.status.stage if job.status else "")
    if seen != _live_seen:
        _live_seen = seen
        scene = scene_of(job)
        if scene is not None:
            show_live(scene)


def show_live(scene: bpy.types.Scene) -> None:
    """Show or remove the running job's mesh, cameras and points, as the scene's settings say."""
    from .scene import live

    job, settings = queue.current, scene.toonify3d
    folder = None if job is None else job.folder
    mesh = settings.live_mesh and job is not None and not job.state.finished
    live.update(scene, folder, mesh=mesh, cameras=settings.live_cameras)


def close() -> None:
    """Stop polling and hang up on the workers (the add-on is being disabled)."""
    global _live_seen, _measured
    if bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.unregister(_on_timer)
    watch.stop()
    queue.close()
    check.close()
    setup.cancel()
    stop_check()
    face_check.close()
    face_editor.close()
    bake.close()
    portrait_export.close()
    pictures.close()
    lookup.forget()
    _live_seen, _measured = (), None


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
