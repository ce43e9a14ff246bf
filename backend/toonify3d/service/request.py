"""What a user asks for: built by the CLI from arguments, by Blender as ``JOB/request.json``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

COMMANDS = ("stylize", "reconstruct", "restyle", "refine", "resume")


@dataclass(frozen=True)
class Request:
    """One job to run."""

    command: str
    """One of stylize, reconstruct, restyle, refine, resume."""
    capture: str | None = None
    """Video file or folder of images (stylize, reconstruct)."""
    exemplar: str | None = None
    """The stylized portrait (stylize, restyle)."""
    preset: str = "standard"
    """preview, standard, high or paper."""
    device: str = "auto"
    """auto, cpu or cuda."""
    stylizer: str = "builtin"
    """How the 2D portraits are made: builtin, folder (see portraits), dct-net, vtoonify, onnx or
    command (see the adapter settings)."""
    portraits: str | None = None
    """Folder of stylized frames NNNN.png, NNNN the source frame, for the folder stylizer."""
    exemplar_landmarks: str | None = None
    """JSON file with the exemplar's eyes, nose and mouth corners, for drawings in which no face is
    found (see docs/exemplars.md)."""
    strength: float | None = None
    """How far the shape goes towards the exemplar, 0 to 1.5; None keeps the preset's."""
    style: str | None = None
    """Name of the style's folder; None takes the exemplar's name (refine: the last style)."""
    overrides: tuple[str, ...] = ()
    """Further settings as NAME=VALUE, as 'toonify3d settings' lists them."""
    longer: float = 2.0
    """How many times as long stages II and III train (refine), above 1."""


def load_request(path: Path) -> Request:
    """Read ``request.json``.

    Raises:
        InputError: Missing, not JSON, or holding what no request has.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"'{path}' cannot be read as a request: {why}.", "bad_request") from error
    if not isinstance(document, dict) or document.get("command") not in COMMANDS:
        raise InputError(
            f"'{path}' must name a command, one of {', '.join(COMMANDS)}.", "bad_request"
        )
    known = {item.name for item in dataclasses.fields(Request)}
    values = {name: value for name, value in document.items() if name in known}
    for name, value in values.items():
        if not _fits(name, value):
            raise InputError(f"'{path}': {name} cannot be {json.dumps(value)}.", "bad_request")
    values["overrides"] = tuple(values.get("overrides", ()))
    return Request(**values)


def _fits(name: str, value: object) -> bool:
    """Whether a JSON value is of the kind that the field of :class:`Request` holds."""
    if name == "overrides":
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if name in ("strength", "longer"):
        return isinstance(value, int | float) or (value is None and name == "strength")
    optional = Request.__dataclass_fields__[name].default is None
    return isinstance(value, str) or (value is None and optional)
