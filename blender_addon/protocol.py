"""The wire protocol between Blender and the training backend.

JSON lines over a loopback TCP connection: Blender listens, the backend connects back, says
:class:`Hello` with the job's token, and is answered by :class:`Welcome` or :class:`Refused`.
After that the backend sends :class:`Status`, :class:`Preview`, :class:`Result` and
:class:`Problem`; Blender sends :class:`Cancel`, which is answered by :class:`Acknowledged`.
:class:`Status` is also the schema of ``JOB/status.json``.

Standard library only. ``blender_addon/protocol.py`` is a byte-for-byte copy of this file (a test
and ``build_addon.py`` prove it), so this module imports nothing of either package.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROTOCOL_VERSION = 1
"""Raised whenever an older peer could misunderstand a newer one."""

MAX_LINE_BYTES = 65536
"""A longer line ends the connection: nothing we send comes near it."""

ENV_PORT = "TOONIFY3D_PORT"
"""Environment variable: the loopback port that Blender listens on."""

ENV_TOKEN = "TOONIFY3D_TOKEN"
"""Environment variable: the job's secret; never on a command line, where every user sees it."""

ENV_KEEP = "TOONIFY3D_KEEP"
"""Environment variable: ``1`` lets the worker go on after Blender closes."""

REQUEST_FILE = "request.json"
"""In the job folder: what Blender asks the worker to do."""

STATUS_FILE = "status.json"
"""In the job folder: the last :class:`Status`, written by the worker."""

LOG_FILE = "log.txt"
"""In the job folder: standard output and error of the worker."""

CANCEL_FILE = "cancel"
"""In the job folder: its presence asks the worker to stop (works without a socket)."""

FACES_FOLDER = "faces"
"""In the job folder: where Blender puts the clicked eyes, noses and mouths of drawn exemplars
(``exemplar_landmarks`` of the request)."""

ALIVE_FILE = "alive"
"""In the job folder: touched by the worker every :data:`ALIVE_PERIOD_S` while it lives."""

ALIVE_PERIOD_S = 2.0
"""Seconds between two touches of :data:`ALIVE_FILE`."""

STATES = ("running", "done", "failed", "cancelled")
"""Values of :attr:`Status.state`."""


class ProtocolError(ValueError):
    """A line is too long, is not JSON, or is not a message of this protocol."""


@dataclass(frozen=True)
class Hello:
    """First message of the backend."""

    token: str
    protocol: int
    version: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Welcome:
    """Blender accepts the connection."""

    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class Refused:
    """Blender declines the connection and closes it."""

    code: str
    message: str


@dataclass(frozen=True)
class Problem:
    """Why a job failed: a stable code for fix buttons and one sentence for the user."""

    code: str
    message: str


@dataclass(frozen=True)
class Status:
    """Where a job is; also the content of ``status.json``.

    Attributes:
        state: One of :data:`STATES`.
        stage: Name of the running step.
        stage_index: 1-based number of the running step, 0 before the first.
        stage_count: How many steps there are.
        fraction: Of the whole job, 0 to 1.
        step_fraction: Of the running step, 0 to 1.
        eta_s: Seconds left for the whole job, None when unknown.
        message: One line for the user.
        problem: Set when ``state`` is ``failed``.
        pid: Process that writes this.
        updated: Unix time of writing.
        preview: Path of the newest preview picture, relative to the job folder.
        result: Path of the finished result folder, relative to the job folder.
        warnings: What degraded so far.
    """

    state: str
    stage: str = ""
    stage_index: int = 0
    stage_count: int = 0
    fraction: float = 0.0
    step_fraction: float = 0.0
    eta_s: float | None = None
    message: str = ""
    problem: Problem | None = None
    pid: int = 0
    updated: float = 0.0
    preview: str | None = None
    result: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ProtocolError(f"unknown job state {self.state!r}")


@dataclass(frozen=True)
class Preview:
    """A new preview picture, path relative to the job folder."""

    path: str


@dataclass(frozen=True)
class Result:
    """The finished result, folder relative to the job folder."""

    folder: str


@dataclass(frozen=True)
class Cancel:
    """Blender asks the backend to stop at the next safe place."""


@dataclass(frozen=True)
class Acknowledged:
    """The backend has received a request and acts on it."""

    what: str = "cancel"


Message = Hello | Welcome | Refused | Status | Preview | Result | Problem | Cancel | Acknowledged

_TYPES: dict[str, type[Any]] = {
    "hello": Hello,
    "welcome": Welcome,
    "refused": Refused,
    "status": Status,
    "preview": Preview,
    "result": Result,
    "problem": Problem,
    "cancel": Cancel,
    "acknowledged": Acknowledged,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}


def encode(message: Message) -> bytes:
    """One line of UTF-8 JSON with its line feed.

    Raises:
        ProtocolError: The line would be longer than :data:`MAX_LINE_BYTES`, or a number is not
            finite.
    """
    document = {"type": _NAMES[type(message)], **dataclasses.asdict(message)}
    try:
        # ASCII escapes keep lone surrogates (undecodable file names on Linux) transportable.
        text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise ProtocolError(str(error)) from error
    line = text.encode("ascii") + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"message of {len(line)} bytes is over {MAX_LINE_BYTES}")
    return line


def decode(line: bytes) -> Message:
    """The message on one line (with or without its line feed).

    Unknown fields are ignored, so that a newer peer may add some.

    Raises:
        ProtocolError: Not a message of this protocol.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"line of {len(line)} bytes is over {MAX_LINE_BYTES}")
    document = _parse(line)
    kind = document.get("type")
    cls = _TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ProtocolError(f"unknown message type {str(kind)[:40]!r}")
    message: Message = _build(cls, document)
    return message


def status_from_document(document: Mapping[str, Any]) -> Status:
    """A :class:`Status` from the fields of ``status.json``.

    Raises:
        ProtocolError: A field is missing or has the wrong type.
    """
    status: Status = _build(Status, document)
    return status


def status_to_document(status: Status) -> dict[str, Any]:
    """The fields of ``status.json``."""
    document = dataclasses.asdict(status)
    document["warnings"] = list(status.warnings)
    return document


def status_from_json(data: bytes) -> Status:
    """A :class:`Status` from the bytes of ``status.json``.

    Raises:
        ProtocolError: Not JSON, or not a status.
    """
    return status_from_document(_parse(data))


class LineBuffer:
    """Cuts a byte stream into lines without ever holding more than one message."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add received bytes; the complete lines, without line feeds, in order.

        Raises:
            ProtocolError: A line is longer than :data:`MAX_LINE_BYTES`. The buffer is useless
                afterwards: close the connection.
        """
        self._data += chunk
        *lines, rest = bytes(self._data).split(b"\n")
        self._data = bytearray(rest)
        if max((len(part) for part in (*lines, rest)), default=0) >= MAX_LINE_BYTES:
            raise ProtocolError(f"line over {MAX_LINE_BYTES} bytes")
        return [line for line in lines if line.strip()]


def _parse(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProtocolError("not a JSON object")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _build(cls: type[Any], document: Mapping[str, Any]) -> Any:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in document:
            # Annotations are strings here (PEP 563), which makes them usable as keys.
            values[field.name] = _convert(str(field.type), document[field.name], field.name)
        elif field.default is dataclasses.MISSING:
            raise ProtocolError(f"{_NAMES[cls]} lacks {field.name!r}")
    return cls(**values)


def _convert(annotation: str, value: Any, name: str) -> Any:
    if value is None and annotation.endswith("| None"):
        return None
    kind = annotation.removesuffix(" | None")
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and _is_finite(value):
        return float(value)
    if kind == "Problem" and isinstance(value, Mapping):
        return _build(Problem, value)
    if kind == "tuple[str, ...]" and _are_strings(value):
        return tuple(value)
    raise ProtocolError(f"{name!r} is not {annotation}")


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e300 and math.isfinite(value)


def _are_strings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
