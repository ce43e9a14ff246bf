# SPDX-License-Identifier: GPL-3.0-or-later
"""One job as Blender sees it, and the queue of jobs.

A job's state is never stored: it is derived at every poll from its process and its job folder, so
the panel cannot be stuck on "processing".
"""

from __future__ import annotations

import enum
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import jobfolder, process, protocol
from .server import JobServer

TERMINATE_AFTER_S = 20.0
"""After a cancel: how long the worker may take to save before it is asked by signal."""

KILL_AFTER_S = 5.0
"""After that: how long until it is ended."""

START_GRACE_S = 3.0
"""A worker that has reported nothing has nothing to save: it gets less time."""

FILE_PERIOD_S = 1.0
"""How often ``status.json`` is read when the socket is silent."""

SOCKET_SILENCE_S = 3.0
"""Without a message for this long, ``status.json`` is read as well."""

FOREIGN_WINDOW_S = 60.0
"""A job started from a terminal has no heartbeat: a status newer than this counts as alive."""

EXIT_CANCELLED = 3
"""The worker's exit code after a cancel."""


class JobState(enum.Enum):
    """What the panel shows."""

    WAITING = "Waiting for another job"
    STARTING = "Starting"
    RUNNING = "Running"
    CANCELLING = "Stopping"
    DONE = "Done"
    FAILED = "Failed"
    CANCELLED = "Stopped"

    @property
    def finished(self) -> bool:
        """True when nothing more will happen by itself."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


_TERMINAL = {
    "done": JobState.DONE,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}


def derive_state(
    alive: bool, exit_code: int | None, status: protocol.Status | None, cancelling: bool
) -> JobState:
    """The state that process and job folder imply.

    Args:
        alive: The worker's process exists (or its heartbeat is fresh).
        exit_code: Of a worker that has ended, None when unknown.
        status: The last thing the worker reported.
        cancelling: The user has asked to stop.
    """
    terminal = None if status is None else _TERMINAL.get(status.state)
    if terminal is not None:
        return terminal
    if alive:
        if cancelling:
            return JobState.CANCELLING
        return JobState.STARTING if status is None else JobState.RUNNING
    stopped = cancelling or exit_code == EXIT_CANCELLED
    return JobState.CANCELLED if stopped else JobState.FAILED


class Job:
    """A job folder, and the worker in it if this Blender started one.

    Args:
        folder: The job folder.
        request: Written to ``request.json`` at the start; None to show what is already there.
        python: Interpreter of the backend environment.
        keep: The worker goes on when Blender closes.
        title: For lists; the folder's name by default.
        after: Starts only when this job is done; given up when that one fails.

    Attributes:
        home: File and scene that it was started in (:mod:`homes`); None for none that is open.
    """

    def __init__(
        self,
        folder: Path,
        request: Mapping[str, Any] | None = None,
        python: str = "",
        *,
        keep: bool = False,
        title: str = "",
        after: Job | None = None,
    ) -> None:
        self.folder = folder
        self.name = title or folder.name
        self.after = after
        self.request = dict(request) if request is not None else jobfolder.read_request(folder)
        self.state = JobState.WAITING
        self.status: protocol.Status | None = None
        self.problem: protocol.Problem | None = None
        self.preview: Path | None = None
        self.result: Path | None = None
        self.acknowledged = False
        self.imported = False
        self.home: tuple[str, str] | None = None
        self.started_at = 0.0
        self._python = python
        self._keep = keep
        self._waiting = request is not None
        self._child: subprocess.Popen[bytes] | None = None
        self._server: JobServer | None = None
        self._last_message = 0.0
        self._next_file_read = 0.0
        self._cancel_at: float | None = None
        self._signals = 0

    @property
    def active(self) -> bool:
        """True while a worker occupies the device for this job."""
        if self._child is not None:
            return self._child.poll() is None
        return not self._waiting and not self.state.finished

    @property
    def unfinished(self) -> bool:
        """True while something is still to come: it waits, runs, or its process has not ended."""
        return self.active or not self.state.finished

    @property
    def connected(self) -> bool:
        """True while the worker reports over the socket."""
        return self._server is not None and self._server.connected

    def start(self) -> None:
        """Write the request and start the worker; a failure becomes :attr:`problem`."""
        self._waiting = False
        self.started_at = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            jobfolder.clear_run_files(self.folder)
            jobfolder.write_request(self.folder, self.request or {})
            if (self.request or {}).get("command") == "resume":  # until there is a newer one
                self.preview = jobfolder.last_preview(self.folder)
            self._server = _open_server()
            port, token = (self._server.port, self._server.token) if self._server else (0, "")
            self._child = process.start_worker(
                self._python, self.folder, port, token, keep=self._keep
            )
            self.state = JobState.STARTING
        except OSError as error:
            self._fail(_start_problem(error, self._python))

    def poll(self) -> bool:
        """Look at socket, folder and process without blocking; True when something changed."""
        if self._waiting:
            return False
        before = self._snapshot()
        now = time.monotonic()
        exit_code = None if self._child is None else self._child.poll()
        # Read after looking at the process: what a dead worker has said is then complete.
        self._read_socket(now)
        ended = self._child is not None and exit_code is not None
        if ended or now >= self._next_file_read:
            self._read_folder(now, always=ended)
        if not (self.state is JobState.FAILED and self._child is None and self.problem):
            self._settle(ended, exit_code)
        self._escalate(now)
        return self._snapshot() != before

    def cancel(self) -> None:
        """Ask the worker to stop; :meth:`poll` insists if it does not."""
        if self._waiting:
            self._waiting = False
            self._fail(None, JobState.CANCELLED)
            return
        if self.state.finished or self._cancel_at is not None:
            return
        self._cancel_at = time.monotonic()
        if self._server is not None:
            self._server.send(protocol.Cancel())
        jobfolder.request_cancel(self.folder)
        self.state = JobState.CANCELLING

    def skip(self) -> None:
        """Give up a waiting job: the one it builds on has not been finished."""
        self._waiting = False
        text = "The job before it was not finished: resume that one, then restyle"
        self._fail(protocol.Problem("skipped", text), JobState.CANCELLED)

    def detach(self) -> None:
        """Blender closes or the add-on is disabled: hang up; the worker ends itself or goes on."""
        if self._server is not None:
            self._server.close()
        if self._child is not None and not self._keep:
            process.close_stdin(self._child)

    def _read_socket(self, now: float) -> None:
        if self._server is None:
            return
        for message in self._server.poll():
            self._last_message = now
            self._take(message)

    def _take(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Status):
            self._take_status(message)
        elif isinstance(message, protocol.Preview):
            self.preview = jobfolder.inside(self.folder, message.path) or self.preview
        elif isinstance(message, protocol.Result):
            self.result = jobfolder.inside(self.folder, message.folder) or self.result
        elif isinstance(message, protocol.Problem):
            self.problem = message
        elif isinstance(message, protocol.Acknowledged):
            self.acknowledged = True

    def _take_status(self, status: protocol.Status) -> None:
        self.status = status
        self.problem = status.problem or self.problem
        self.preview = jobfolder.inside(self.folder, status.preview) or self.preview
        self.result = jobfolder.inside(self.folder, status.result) or self.result

    def _read_folder(self, now: float, always: bool) -> None:
        self._next_file_read = now + FILE_PERIOD_S
        if not always and self.connected and now - self._last_message < SOCKET_SILENCE_S:
            return
        status = jobfolder.read_status(self.folder)
        if status is None:
            return
        if self.status is None or status.updated >= self.status.updated:
            self._take_status(status)

    def _settle(self, ended: bool, exit_code: int | None) -> None:
        alive = not ended if self._child is not None else self._seems_alive()
        self.state = derive_state(alive, exit_code, self.status, self._cancel_at is not None)
        if self.state is JobState.DONE and self.result is None:
            self.result = jobfolder.newest_result(self.folder)
        if self.state is JobState.FAILED and self.problem is None:
            self.problem = self._unexplained(exit_code)
        if ended and self._server is not None:
            self._server.close()
            self._server = None

    def _seems_alive(self) -> bool:
        """Of a worker that this Blender did not start: a heartbeat, or a status just written."""
        if jobfolder.is_alive(self.folder):
            return True
        return self.status is not None and time.time() - self.status.updated < FOREIGN_WINDOW_S

    def _unexplained(self, exit_code: int | None) -> protocol.Problem:
        tail = jobfolder.log_tail(self.folder, 1)
        last = f": {tail[0][:300]}" if tail else ""
        if exit_code is None:
            return protocol.Problem("lost", "The backend is no longer running; resume the job")
        if exit_code < 0:
            text = f"The backend was ended by signal {-exit_code}; the job can be resumed"
            return protocol.Problem("killed", text)
        return protocol.Problem("died", f"The backend ended with code {exit_code}{last}")

    def _escalate(self, now: float) -> None:
        """Insist on ending a worker that was cancelled, or that does not exit after its end."""
        if self._child is None or self._child.poll() is not None:
            return
        if self.state.finished and self._cancel_at is None:
            self._cancel_at = now
        if self._cancel_at is None:
            return
        grace = START_GRACE_S if self.status is None else TERMINATE_AFTER_S
        waited = now - self._cancel_at
        if self._signals == 0 and waited > grace:
            self._signals = 1
            process.end(self._child, force=False)
        elif self._signals == 1 and waited > grace + KILL_AFTER_S:
            self._signals = 2
            process.end(self._child, force=True)

    def _fail(self, problem: protocol.Problem | None, state: JobState = JobState.FAILED) -> None:
        self.state, self.problem = state, problem
        if self._server is not None:
            self._server.close()
            self._server = None

    def _snapshot(self) -> tuple[object, ...]:
        return (self.state, self.status, self.problem, self.preview, self.result, self.acknowledged)


def _open_server() -> JobServer | None:
    try:
        return JobServer()
    except OSError:
        # No loopback (firewall, sandbox): status.json and the cancel file do the work.
        return None


def _start_problem(error: OSError, python: str) -> protocol.Problem:
    name = str(getattr(error, "filename", "") or "")
    if not python or name == python:
        text = f"The backend's Python cannot be started ({error.strerror or error})"
        return protocol.Problem("no_python", text)
    return protocol.Problem("job_folder", f"The job folder cannot be used: {error}")


class JobQueue:
    """Jobs in order; one worker runs at a time."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.current: Job | None = None

    @property
    def busy(self) -> bool:
        """True while there is something to poll."""
        return any(job.unfinished for job in self.jobs)

    def submit(self, job: Job) -> None:
        """Add a job; it starts at once when no other runs, and the panel shows it.

        It takes the place of a finished job in the same folder (resume, restyle).
        """
        self.jobs = [item for item in self.jobs if item.folder != job.folder or item.unfinished]
        self.jobs.append(job)
        if self.current is None or self.current not in self.jobs or self.current.state.finished:
            self.current = job
        self.poll()

    def attach(self, folder: Path) -> Job:
        """Show a job folder (running or not) without starting anything."""
        for job in self.jobs:
            if job.folder == folder and not job.state.finished:
                self.current = job
                return job
        job = Job(folder)
        job.state = JobState.STARTING
        job.preview = jobfolder.last_preview(folder)
        job.poll()
        self.jobs.append(job)
        self.current = job
        return job

    def remove(self, job: Job) -> None:
        """Forget a job that is not running; one that waits is given up."""
        if job.active:
            return
        if not job.state.finished:
            job.cancel()
        self.jobs.remove(job)
        if self.current is job:
            self.current = self.jobs[-1] if self.jobs else None

    def poll(self) -> bool:
        """Poll every job and start the next; True when something changed."""
        changed = False
        for job in self.jobs:
            if job.unfinished:
                changed |= job.poll()
        if not any(job.active for job in self.jobs):
            changed |= self._start_next()
        return changed

    def _start_next(self) -> bool:
        """Start the first job that waits, unless what it builds on has failed."""
        for job in self.jobs:
            if job.state is not JobState.WAITING:
                continue
            if job.after is not None and job.after.state is not JobState.DONE:
                job.skip()
                continue
            if self.current is None or self.current.state.finished:
                self.current = job
            job.start()
            return True
        return False

    def close(self) -> None:
        """Hang up on every worker."""
        for job in self.jobs:
            job.detach()
        self.jobs.clear()
        self.current = None
