# SPDX-License-Identifier: GPL-3.0-or-later
"""``toonify3d bake``: the avatar's textures on the artist's own mesh, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from .task import Task

TIMEOUT_S = 3600.0
MESH_FILE = "retopo.obj"


class Bake:
    """One bake at a time, polled."""

    def __init__(self) -> None:
        self.target = ""
        self.output = Path()
        self.problem = ""
        self._task = Task(TIMEOUT_S)

    @property
    def running(self) -> bool:
        """True while the backend bakes."""
        return self._task.running

    @property
    def message(self) -> str:
        """What the backend said last."""
        return self._task.last_line

    def start(self, python: str, result: Path, mesh: Path, size: int, target: str) -> None:
        """Bake onto ``mesh``; everything is written into the folder it lies in.

        Args:
            python: Interpreter of the backend environment.
            result: The result folder ``JOB/styles/NAME/result`` of the avatar.
            mesh: The artist's mesh as OBJ, in the avatar's space.
            size: Pixels of the textures.
            target: Name of the artist's object.

        Raises:
            OSError: The interpreter cannot be started.
        """
        self.target, self.output, self.problem = target, mesh.parent, ""
        style, job = result.parent.name, result.parents[2]
        options = ["--style", style, "--size", str(size), "--output", str(mesh.parent)]
        options += ["--up", "z"]
        self._task.start(python, ["bake", str(job), "--mesh", str(mesh), *options])

    def poll(self) -> bool:
        """True once, when the bake has ended; :attr:`problem` is empty when it worked."""
        if not self._task.poll():
            return False
        if self._task.exit_code is None:
            self.problem = "The bake took longer than an hour and was ended"
        elif self._task.exit_code != 0:
            said = self._task.last_line.removeprefix("toonify3d: ")
            self.problem = said or f"The bake ended with code {self._task.exit_code}"
        return True

    def close(self) -> None:
        """End a running bake."""
        self._task.close()
