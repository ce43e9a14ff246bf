# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's end of the loopback connection: a listening socket that is polled, never waited for."""

from __future__ import annotations

import hmac
import secrets
import socket
import time

from . import protocol

_HELLO_TIMEOUT_S = 5.0
_MAX_PENDING = 8
_MAX_READS_PER_POLL = 4
_READ_BYTES = 65536


class _Peer:
    """One non-blocking connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.deadline = time.monotonic() + _HELLO_TIMEOUT_S
        self.open = True
        self._lines = protocol.LineBuffer()
        self._outgoing = b""

    def receive(self) -> list[protocol.Message]:
        """The messages that have arrived; a broken peer is closed, never raises."""
        messages: list[protocol.Message] = []
        try:
            for _ in range(_MAX_READS_PER_POLL):
                chunk = self.connection.recv(_READ_BYTES)
                if not chunk:
                    self.close()
                    break
                messages += [protocol.decode(line) for line in self._lines.feed(chunk)]
        except (BlockingIOError, InterruptedError):
            pass
        except (OSError, protocol.ProtocolError):
            self.close()
        return messages

    def send(self, message: protocol.Message) -> None:
        """Queue a message and send what the kernel takes."""
        self._outgoing += protocol.encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what is queued without blocking."""
        if not (self._outgoing and self.open):
            return
        try:
            sent = self.connection.send(self._outgoing)
            self._outgoing = self._outgoing[sent:]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self.open = False
        self.connection.close()


class JobServer:
    """Listens on 127.0.0.1 for the one worker that knows the token.

    Raises:
        OSError: No loopback socket can be opened (the job then reports by file alone).
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(32)
        self.refused = 0
        self._worker: _Peer | None = None
        self._pending: list[_Peer] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # The literal address and port 0: no resolver, no fixed port to collide with.
            self._listener.bind(("127.0.0.1", 0))
            self._listener.listen(_MAX_PENDING)
            self._listener.setblocking(False)
        except OSError:
            self._listener.close()
            raise

    @property
    def port(self) -> int:
        """The port that the system chose."""
        return int(self._listener.getsockname()[1])

    @property
    def connected(self) -> bool:
        """True while the worker is connected."""
        return self._worker is not None and self._worker.open

    def poll(self) -> list[protocol.Message]:
        """Accept, read and write whatever can be done at once; the worker's messages in order."""
        self._accept()
        for peer in list(self._pending):
            self._greet(peer)
        if self._worker is None:
            return []
        self._worker.flush()
        messages = self._worker.receive()
        if not self._worker.open:
            self._worker = None
        return messages

    def send(self, message: protocol.Message) -> bool:
        """Send to the worker; False when none is connected."""
        if not self.connected or self._worker is None:
            return False
        self._worker.send(message)
        return self._worker.open

    def close(self) -> None:
        """Close everything; safe to call twice."""
        for peer in (*self._pending, *([self._worker] if self._worker else [])):
            peer.close()
        self._pending.clear()
        self._worker = None
        self._listener.close()

    def _accept(self) -> None:
        while len(self._pending) < _MAX_PENDING:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # Nothing is waiting (BlockingIOError), or the connection is gone already.
                return
            self._pending.append(_Peer(connection))

    def _greet(self, peer: _Peer) -> None:
        """Read a new connection's first line; let the worker in and everybody else out."""
        messages = peer.receive()
        if messages:
            self._pending.remove(peer)
            self._admit(peer, messages[0])
        elif not peer.open or time.monotonic() > peer.deadline:
            peer.close()
            self._pending.remove(peer)
            self.refused += 1

    def _admit(self, peer: _Peer, first: protocol.Message) -> None:
        problem = self._objection(first)
        if problem is not None:
            peer.send(problem)
            peer.close()
            self.refused += 1
            return
        if self._worker is not None:
            self._worker.close()
        self._worker = peer
        peer.send(protocol.Welcome())

    def _objection(self, first: protocol.Message) -> protocol.Refused | None:
        if not isinstance(first, protocol.Hello):
            return protocol.Refused("no_hello", "the first message must be hello")
        # As bytes: compare_digest takes no non-ASCII strings. Constant time.
        if not hmac.compare_digest(first.token.encode("utf-8", "replace"), self.token.encode()):
            return protocol.Refused("wrong_token", "this is not the token of this job")
        if first.protocol != protocol.PROTOCOL_VERSION:
            text = f"backend speaks protocol {first.protocol}, Blender {protocol.PROTOCOL_VERSION}"
            return protocol.Refused("wrong_protocol", text)
        return None
