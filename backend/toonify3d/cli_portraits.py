"""The command that hands out the frames to be stylized, for an artist or another program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .cli_result import Terminal
from .errors import EXIT_OK, InputError

if TYPE_CHECKING:
    from .portrait2d.settings import StylizeSettings
    from .service.job import JobFolder

_Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def add_portraits_command(commands: _Commands) -> None:
    """Add ``portraits`` to the command line."""
    parser = commands.add_parser(
        "portraits",
        help="the frames that a stylizer gets, to paint or stylize elsewhere",
        description=(
            "Writes the front and back frames (with --style all portraits of that style) as"
            " NNNN.png. Paint them or run any other tool on"
            " them, keep names and aspect ratio, and read them back with: toonify3d restyle JOB"
            " EXEMPLAR --stylizer folder --portraits DIR"
        ),
    )
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder with a finished capture")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", required=True, help="folder, new or empty"
    )
    parser.add_argument(
        "--style", help="write this style's portraits instead of the photos, to touch them up"
    )
    parser.set_defaults(run=_portraits)


def _portraits(options: argparse.Namespace) -> int:
    from .portrait2d.hand_out import hand_out
    from .scene import Scene
    from .service.job import JobFolder

    job = JobFolder(options.job)
    styles = job.description["styles"]
    if not (job.capture / "step.json").is_file():
        raise InputError(
            f"'{options.job}' has no finished capture yet; run 'toonify3d reconstruct' first.",
            "not_finished",
        )
    folder = None
    if options.style is not None:
        folder = job.style(options.style) / "portraits2d"
        if options.style not in styles or not (folder / "step.json").is_file():
            raise InputError(
                f"The job has no style '{options.style}' with finished portraits.", "no_style"
            )
    scene, settings = Scene.load(job.capture), _stylize_settings(job)
    names = hand_out(scene, folder, options.export, settings, Terminal())
    sys.stdout.write("".join(f"{options.export / name}\n" for name in names))
    return EXIT_OK


def _stylize_settings(job: JobFolder) -> StylizeSettings:
    """Those of the job's newest style; of its preset while there is none.

    Raises:
        InputError: ``job.json`` is damaged (``bad_job``).
    """
    from .settings import StyleSettings, preset_settings
    from .settings_doc import from_dict

    description = job.description
    styles = list(description["styles"].values())
    try:
        if styles:
            return from_dict(StyleSettings, styles[-1]["settings"]).stylize
        return preset_settings(description["settings"]["preset"])[1].stylize
    except (KeyError, TypeError) as error:
        raise job.damaged() from error
