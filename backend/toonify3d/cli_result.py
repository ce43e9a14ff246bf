"""The commands on a finished style: ``export`` and ``render``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeAlias

from .errors import EXIT_OK, InputError

_Commands: TypeAlias = "argparse._SubParsersAction[Any]"
_FORMATS = ("glb", "obj", "usd", "usda", "usdc", "usdz", "ply", "stl")
_SHADINGS = ("flat", "soft", "clay", "normal")


def add_result_commands(commands: _Commands) -> None:
    """Add ``export`` and ``render`` to the command line."""
    export = commands.add_parser("export", help="a finished style as GLB, OBJ, USD, PLY or STL")
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
    _add_render(commands)


def _add_render(commands: _Commands) -> None:
    render = commands.add_parser(
        "render",
        help="a finished style along a camera path, as video or pictures",
        description=(
            "Renders a finished style along a camera path. 'fields' volume-renders what was"
            " trained, as the paper does (seconds a picture without a GPU); 'mesh' shows the mesh"
            " with its albedo texture, as other programs will (many times faster; the normal map is"
            " not used)."
        ),
    )
    _add_job(render)
    render.add_argument(
        "--from",
        dest="source",
        choices=("fields", "mesh"),
        default="fields",
        help="what is rendered (fields)",
    )
    render.add_argument(
        "--subject",
        choices=("style", "person"),
        default="style",
        help="the stylized head, or the real person as learned from the video (fields only)",
    )
    render.add_argument(
        "--path",
        default="turntable",
        metavar="turntable|ellipse|FILE.json",
        help="the cameras; a file holds a list 'frames' of c2w or position and look_at, with fov"
        " or K, width and height, like a job's capture/cameras.json (turntable)",
    )
    render.add_argument("--frames", type=int, default=72, help="pictures of the path (72)")
    render.add_argument(
        "--size", help="width and height in pixels, N or WIDTHxHEIGHT (512, or the file's own)"
    )
    render.add_argument(
        "--shading",
        choices=_SHADINGS,
        help="flat: the albedo as it is (default for fields); soft: lit (default for mesh)",
    )
    render.add_argument("--device", default="auto", help="for fields: auto, cpu or cuda")
    render.add_argument(
        "--output",
        type=Path,
        metavar="FILE.mp4|FILE.png|DIR",
        help="a video (24 frames a second), one picture, or a folder of pictures; PNG have alpha;"
        " default: styles/NAME/render/PATH.mp4",
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
        endings = ", ".join(f".{name}" for name in _FORMATS)
        raise InputError(f"'{output.name}' must end in one of {endings}.", "bad_format")
    if kind is not None and ending and kind != ending:
        raise InputError(f"--format {kind} does not fit the file '{output}'.", "bad_format")
    return kind or ending or "glb"


def _render(options: argparse.Namespace) -> int:
    from .asset.paths import camera_path, parse_size
    from .devices import resolve_device
    from .finished import finished_style
    from .views import field_renderer, mesh_renderer, render_path

    size = None if options.size is None else parse_size(options.size)
    fields, person = options.source == "fields", options.subject == "person"
    if person and not fields:
        raise InputError("--subject person needs --from fields.", "bad_subject")
    item = finished_style(options.job, options.style)
    name = Path(options.path).stem + ("_person" if person else "")
    path: Path = options.output or item.folder.parent / "render" / f"{name}.mp4"
    if path.suffix and path.suffix.lower() not in (".mp4", ".png") and not path.is_dir():
        raise InputError(
            f"'{path.name}' is neither .mp4, .png nor a folder; only these can be written.",
            "bad_format",
        )
    cameras = camera_path(options.path, item.mesh, options.frames, size)
    shading = options.shading or ("flat" if fields else "soft")
    if fields:
        device = resolve_device(options.device)
        renderer = field_renderer(options.job, item, person, shading, device)
    else:
        renderer = mesh_renderer(item, shading)
    render_path(renderer, cameras, path, Terminal())
    sys.stdout.write(f"{path}\n")
    return EXIT_OK


class Terminal:
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
