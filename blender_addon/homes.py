# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file and scene a job was started in: that is where its avatar comes by itself.

Artists undo, save, and open other files while a job runs. Undo would take back that a scene knows
its job; another file must not get an avatar that it never asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy

from .job import Job, JobQueue


def belongs_here(job: Job, scene: bpy.types.Scene) -> None:
    """Note that a job was started, or opened, in this scene of the open file."""
    job.home = (bpy.data.filepath, scene.name)
    scene.toonify3d.job = str(job.folder)


def scene_of(job: Job) -> bpy.types.Scene | None:
    """The scene of the open file that the job belongs to; None when the file does not know it."""
    folder = job.folder
    for scene in bpy.data.scenes:
        known = scene.toonify3d.job.strip()
        if known and Path(bpy.path.abspath(known)) == folder:
            return scene
    return None if job.home is None else bpy.data.scenes.get(job.home[1])


class Watch:
    """Follows loading, saving and undo for the jobs of a queue."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._handlers: list[tuple[list[Callable[..., None]], Callable[..., None]]] = []

    def start(self) -> None:
        """Listen; a second call changes nothing."""
        if self._handlers:
            return
        of = bpy.app.handlers
        for listeners, action in (
            (of.load_post, self._loaded),
            (of.save_post, self._saved),
            (of.undo_post, self._undone),
            (of.redo_post, self._undone),
        ):
            handler = _persistent(action)
            listeners.append(handler)
            self._handlers.append((listeners, handler))

    def stop(self) -> None:
        """Listen no longer."""
        for listeners, handler in self._handlers:
            if handler in listeners:
                listeners.remove(handler)
        self._handlers.clear()

    def _loaded(self) -> None:
        path = bpy.data.filepath
        for job in self._queue.jobs:
            if job.home is not None and (not path or job.home[0] != path):
                job.home = None

    def _saved(self) -> None:
        for job in self._queue.jobs:
            if job.home is not None:
                job.home = (bpy.data.filepath, job.home[1])

    def _undone(self) -> None:
        """The jobs run on: undo does not make a scene forget its newest."""
        newest = {job.home[1]: job for job in self._queue.jobs if job.home is not None}
        for name, job in newest.items():
            scene = bpy.data.scenes.get(name)
            if scene is not None and scene.toonify3d.job != str(job.folder):
                scene.toonify3d.job = str(job.folder)


def _persistent(action: Callable[[], None]) -> Callable[..., None]:
    """A handler that stays when another file is opened."""

    @bpy.app.handlers.persistent
    def handler(*_: object) -> None:
        action()

    return handler
