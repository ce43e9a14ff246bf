"""The backend's end of the loopback connection to Blender.

Nothing here ever raises into training: when the socket dies, ``status.json`` (written by the job)
takes over and the work goes on. Blender may also be busy for minutes (a render blocks its timers),
so nothing here blocks either: one background thread does all reading and writing, and statuses
that Blender has not fetched yet are replaced by newer ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from . import protocol

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
"""How long to try to reach Blender before going on without it."""

PARENT_GONE_GRACE_S = 30.0
"""After Blender has died: how long the pipeline may take to save before the process is ended."""

_MAX_MESSAGE_CHARS = 1000
_MAX_WARNINGS = 20


class Link:
    """Sends progress to Blender and hears its wish to cancel.

    Args:
        port: Port on 127.0.0.1 that Blender listens on, None for no socket at all.
        token: The job's secret.
        job: The job folder, for the heartbeat file and the cancel file; None for neither.
        watch_stdin: Treat the end of standard input as the death of Blender.
        end_process: Called :data:`PARENT_GONE_GRACE_S` after Blender's death when the process
            still lives; tests replace it.
    """

    def __init__(
        self,
        port: int | None,
        token: str,
        job: Path | None = None,
        *,
        watch_stdin: bool = False,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._job = job
        self._cancel = threading.Event()
        self._parent_gone = threading.Event()
        self._closing = threading.Event()
        self._connected = threading.Event()
        self._lock = threading.Lock()
        self._latest: dict[str, bytes] = {}
        self._queue: deque[bytes] = deque()
        self._outgoing = b""
        self._lines = protocol.LineBuffer()
        self._end_process = end_process
        self._socket = None if port is None else _connect(port)
        if self._socket is not None:
            self._outgoing = protocol.encode(
                protocol.Hello(token, protocol.PROTOCOL_VERSION, __version__, os.getpid())
            )
        self._thread = threading.Thread(target=self._run, name="toonify3d-link", daemon=True)
        self._thread.start()
        if watch_stdin:
            threading.Thread(target=self._watch_stdin, name="stdin-eof", daemon=True).start()

    @classmethod
    def from_environment(cls, job: Path | None = None) -> Link | None:
        """The link that Blender asked for, or None when Blender did not start this process.

        Args:
            job: The job folder. Give it: without it cancel works over the socket only.
        """
        port = os.environ.get(protocol.ENV_PORT, "")
        if not port:
            return None
        keep = os.environ.get(protocol.ENV_KEEP, "") == "1"
        number = int(port) if port.isdecimal() and 0 < int(port) < 65536 else None
        if number is None:
            logger.warning("%s=%r is not a port; reporting by file only", protocol.ENV_PORT, port)
        token = os.environ.get(protocol.ENV_TOKEN, "")
        return cls(number, token, job, watch_stdin=not keep)

    @property
    def cancel_requested(self) -> bool:
        """True once Blender asked to stop (socket or cancel file), or has died."""
        return self._cancel.is_set()

    @property
    def parent_gone(self) -> bool:
        """True once Blender has died (end of standard input)."""
        return self._parent_gone.is_set()

    @property
    def connected(self) -> bool:
        """True while Blender has accepted the connection and it stands."""
        return self._connected.is_set()

    def wait_connected(self, timeout: float) -> bool:
        """Wait until Blender has accepted the connection; False when it has not in time."""
        return self._connected.wait(timeout)

    def send_status(self, status: Mapping[str, Any]) -> None:
        """Report the fields of ``status.json``; replaces a status not fetched yet."""
        try:
            message = protocol.status_from_document(_trimmed(status))
        except protocol.ProtocolError as error:
            logger.warning("status not sent: %s", error)
            return
        self._post(message, slot="status")

    def send_preview(self, path: str | Path) -> None:
        """Announce a preview picture, absolute or relative to the job folder."""
        self._post(protocol.Preview(self._relative(path)), slot="preview")

    def send_result(self, result: Mapping[str, Any] | str | Path) -> None:
        """Announce the finished result: its folder, or ``{"folder": ...}``."""
        folder = result["folder"] if isinstance(result, Mapping) else result
        self._post(protocol.Result(self._relative(folder)))

    def send_problem(self, problem: Mapping[str, Any]) -> None:
        """Announce a failure: ``{"code": ..., "message": ...}``."""
        code = str(problem.get("code", "defect"))
        text = str(problem.get("message", ""))[:_MAX_MESSAGE_CHARS]
        self._post(protocol.Problem(code, text))

    def close(self, flush_s: float = 2.0) -> None:
        """Send what is left (at most ``flush_s`` seconds), then close. Safe to call twice."""
        deadline = time.monotonic() + flush_s
        while self._has_unsent() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._closing.set()
        self._thread.join(timeout=1.0)
        if self._job is not None:
            with contextlib.suppress(OSError):
                (self._job / protocol.ALIVE_FILE).unlink(missing_ok=True)

    def _relative(self, path: str | Path) -> str:
        path = Path(path)
        if self._job is not None and path.is_absolute():
            with contextlib.suppress(ValueError):
                path = path.resolve().relative_to(self._job.resolve())
        return path.as_posix()

    def _post(self, message: protocol.Message, slot: str | None = None) -> None:
        try:
            line = protocol.encode(message)
        except protocol.ProtocolError as error:
            logger.warning("message not sent: %s", error)
            return
        with self._lock:
            if self._socket is None:
                return
            if slot is not None:
                self._latest[slot] = line
            else:
                # The last status goes out before the result or the problem that follows it.
                self._queue.extend(self._latest.values())
                self._latest.clear()
                self._queue.append(line)

    def _has_unsent(self) -> bool:
        with self._lock:
            return self._socket is not None and bool(self._queue or self._latest or self._outgoing)

    def _run(self) -> None:
        next_beat = 0.0
        while not self._closing.is_set():
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + protocol.ALIVE_PERIOD_S / 4
                self._beat()
            if self._socket is None:
                self._closing.wait(0.1)
            else:
                try:
                    self._exchange(self._socket)
                except (OSError, ValueError) as error:
                    self._drop(f"connection to Blender lost ({error}); reporting by file")
        self._drop(None)

    def _exchange(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._outgoing and self._connected.is_set():
                self._outgoing = self._next_line()
        writers = [connection] if self._outgoing else []
        readable, writable, _ = select.select([connection], writers, [], 0.05)
        if writable:
            sent = connection.send(self._outgoing)
            with self._lock:
                self._outgoing = self._outgoing[sent:]
        if readable:
            chunk = connection.recv(16384)
            if not chunk:
                raise ConnectionResetError("closed by Blender")
            for line in self._lines.feed(chunk):
                self._receive(protocol.decode(line))

    def _next_line(self) -> bytes:
        if self._queue:
            return self._queue.popleft()
        for slot in list(self._latest):
            return self._latest.pop(slot)
        return b""

    def _receive(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Welcome):
            self._connected.set()
        elif isinstance(message, protocol.Cancel):
            self._cancel.set()
            self._post(protocol.Acknowledged("cancel"))
        elif isinstance(message, protocol.Refused):
            raise ConnectionRefusedError(message.message)

    def _drop(self, reason: str | None) -> None:
        with self._lock:
            connection, self._socket = self._socket, None
            self._outgoing = b""
            self._queue.clear()
            self._latest.clear()
        self._connected.clear()
        if reason is not None:
            logger.warning("%s", reason)
        if connection is not None:
            connection.close()

    def _beat(self) -> None:
        """Show that the process lives, and look for the cancel file."""
        if self._job is None:
            return
        try:
            (self._job / protocol.ALIVE_FILE).touch()
            if (self._job / protocol.CANCEL_FILE).exists():
                self._cancel.set()
        except OSError:
            # Folder deleted or disk full: the pipeline's own writes report that properly.
            return

    def _watch_stdin(self) -> None:
        try:
            while os.read(sys.stdin.fileno(), 4096):
                pass
        except (OSError, ValueError):
            logger.warning("standard input cannot be watched; Blender's death will not be noticed")
            return
        self._parent_gone.set()
        self._cancel.set()
        logger.warning("Blender has closed; stopping (the job can be resumed)")
        if not self._closing.wait(PARENT_GONE_GRACE_S):
            self._end_process(3)


def _connect(port: int) -> socket.socket | None:
    try:
        # The literal address: "localhost" needs a resolver, which fails on some machines.
        connection = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S)
    except OSError as error:
        logger.warning("cannot reach Blender (%s); reporting by file", error)
        return None
    connection.setblocking(False)
    return connection


def _trimmed(status: Mapping[str, Any]) -> dict[str, Any]:
    document = dict(status)
    document["message"] = str(document.get("message") or "")[:_MAX_MESSAGE_CHARS]
    warnings = document.get("warnings") or ()
    document["warnings"] = [str(item)[:_MAX_MESSAGE_CHARS] for item in warnings][-_MAX_WARNINGS:]
    return document
