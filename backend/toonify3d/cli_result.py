"""The commands on a finished style: ``export`` and ``render``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeAlias

from .errors import EXIT_OK, InputError

_Commands: TypeAlias = "argparse._SubParsersAction[Any]"
_FORMATS = ("glb", "obj", "ply", "stl")
_SHADINGS = ("flat", "soft", "clay", "normal")


def add_result_commands(commands: _Commands) -> None:
    """Add ``export`` and ``render`` to the command line."""
    export = commands.add_parser("export", help="a finished style as GLB, OBJ, PLY or STL")
    _add_job(export)
    export.add_argument(
        "--format",
        dest="kind",
        choices=_FORMATS,
        help="default: the output's ending, else glb; STL is in millimetres, the rest in metres",
    )
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="default: styles/NAME/export/NAME.FORMAT"
    )
    export.set_defaults(run=_export)
    render = commands.add_parser(
        "render",
        help="a turntable of a finished style as video or pictures",
        description=(
            "One turn round a finished style. It shows the baked mesh with its albedo texture (what"
            " other programs show too), not the neural fields; the normal map is not used."
        ),
    )
    _add_job(render)
    render.add_argument("--frames", type=int, default=72, help="pictures in one turn (72)")
    render.add_argument("--size", type=int, default=512, help="width and height in pixels (512)")
    render.add_argument(
        "--shading", choices=_SHADINGS, default="soft", help="soft light, or flat: albedo as it is"
    )
    render.add_argument(
        "--output",
        type=Path,
        metavar="FILE.mp4|DIR",
        help="a video (24 frames a second), or a folder of PNG with alpha;"
        " default: styles/NAME/render/turntable.mp4",
    )
    render.set_defaults(run=_render)


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder of a finished run")
    parser.add_argument("--style", help="which style, when the job has several")


def _export(options: argparse.Namespace) -> int:
    from .finished import export_style, finished_style

    kind = _kind(options.kind, options.output)
    item = finished_style(options.job, options.style)
    path = options.output or item.folder.parent / "export" / f"{item.name}.{kind}"
    if path.is_dir():
        path = path / f"{item.name}.{kind}"
    for written in export_style(item, kind, path):
        sys.stdout.write(f"{written}\n")
    return EXIT_OK


def _kind(kind: str | None, output: Path | None) -> str:
    """The format asked for; it must fit the file's ending."""
    ending = "" if output is None or output.is_dir() else output.suffix.lower().removeprefix(".")
    if output is not None and not output.is_dir() and ending not in _FORMATS:
        raise InputError(f"'{output.name}' must end in .glb, .obj, .ply or .stl.", "bad_format")
    if kind is not None and ending and kind != ending:
        raise InputError(f"--format {kind} does not fit the file '{output}'.", "bad_format")
    return kind or ending or "glb"


def _render(options: argparse.Namespace) -> int:
    from .finished import finished_style, render_turntable

    item = finished_style(options.job, options.style)
    path = options.output or item.folder.parent / "render" / "turntable.mp4"
    if path.suffix and path.suffix.lower() != ".mp4" and not path.is_dir():
        raise InputError(
            f"'{path.name}' is neither an .mp4 nor a folder; only these can be written.",
            "bad_format",
        )
    render_turntable(item, path, options.frames, options.size, options.shading, _Terminal())
    sys.stdout.write(f"{path}\n")
    return EXIT_OK


class _Terminal:
    """Progress as one line that is written over, when somebody watches."""

    def update(self, fraction: float, message: str = "") -> None:
        """See :class:`~.progress.Progress`."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{message}" + ("\n" if fraction >= 1 else ""))

    def warn(self, message: str) -> None:
        """See :class:`~.progress.Progress`."""
        sys.stderr.write(f"toonify3d: {message}\n")

    def preview(self, image: object) -> None:
        """See :class:`~.progress.Progress`."""
