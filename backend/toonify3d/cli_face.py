"""The command that says whether the face of an exemplar is found, before anything long starts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TypeAlias

from .errors import EXIT_INPUT, EXIT_OK, InputError

_Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def add_face_command(commands: _Commands) -> None:
    """Add ``face`` to the command line."""
    parser = commands.add_parser(
        "face",
        help="is the face of an exemplar found? (seconds)",
        description=(
            "Looks for the face in each picture as 'stylize' would. With --json it prints where"
            " eyes, nose and mouth are, in the form that --exemplar-landmarks takes, or why the"
            " picture cannot be used. Exit code 2 when one of the pictures cannot."
        ),
    )
    parser.add_argument("exemplars", metavar="EXEMPLAR", nargs="+", help="stylized portrait image")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.set_defaults(run=_face)


def _face(options: argparse.Namespace) -> int:
    answers = [_answer(raw) for raw in options.exemplars]
    if options.json:
        sys.stdout.write(json.dumps({"exemplars": answers}, indent=1) + "\n")
    else:
        for answer in answers:
            sys.stdout.write(f"{answer['message']}\n")
    return EXIT_OK if all(answer["found"] for answer in answers) else EXIT_INPUT


def _answer(raw: str) -> dict[str, Any]:
    """What the detector says about one picture."""
    from .portrait2d.clicks import places_of
    from .portrait2d.exemplar import find_exemplar_face

    path = Path(raw)
    try:
        places = places_of(find_exemplar_face(path))
    except InputError as error:
        answer = {"found": False, "code": error.code, "message": str(error), "places": None}
    else:
        text = f"The face in {path.name} is found."
        answer = {"found": True, "code": "", "message": text, "places": places}
    return {"exemplar": raw, **answer}
