"""The command that bakes a finished style onto the artist's own mesh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeAlias

from .errors import EXIT_OK

_Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def add_bake_command(commands: _Commands) -> None:
    """Add ``bake`` to the command line."""
    parser = commands.add_parser(
        "bake",
        help="the avatar's textures on your own mesh",
        description=(
            "Projects albedo, normals (tangent space of your mesh, MikkTSpace, OpenGL) and the real"
            " person's colours of a finished style onto your own mesh with UVs, and writes a heat"
            " map and a report of how far the mesh lies from the surface."
        ),
    )
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder with a finished style")
    parser.add_argument(
        "--mesh", type=Path, required=True, metavar="FILE", help="OBJ, GLB, glTF or PLY with UVs"
    )
    parser.add_argument("--style", help="which style; needed when the job has several")
    parser.add_argument("--size", type=int, default=2048, help="pixels: 512 to 8192 (2048)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: styles/NAME/bake/MESH")
    parser.add_argument(
        "--up", choices=("auto", "z", "y"), default="auto", help="axis that is up in the file"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="metres per unit of the file (1)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(run=_bake)


def _bake(options: argparse.Namespace) -> int:
    from .asset.bake_to_mesh import bake_to_mesh, write_bake
    from .asset.settings import AssetSettings
    from .asset.target import check_uvs, read_target
    from .cli_result import Terminal
    from .devices import resolve_device
    from .finished import finished_style
    from .service.job import JobFolder
    from .settings_doc import from_dict
    from .views import field_view

    item = finished_style(options.job, options.style)
    check_uvs(read_target(options.mesh))  # before the fields are read, which takes seconds
    device = resolve_device(options.device)
    view = field_view(options.job, item, False, device)
    stored = JobFolder(options.job).description["styles"][item.name]["settings"]["asset"]
    settings = from_dict(AssetSettings, stored)
    result = bake_to_mesh(
        view.field,
        view.normalization,
        item.mesh,
        options.mesh,
        options.size,
        settings,
        Terminal(),
        options.up,
        options.scale,
        "cuda:0" if device == "cuda" else "cpu",
    )
    folder = options.output or item.folder.parent / "bake" / options.mesh.stem
    files = write_bake(result, folder)
    figures = result.report["distance_mm"]
    sys.stderr.write(
        f"{result.report['mesh']['faces']} triangles, {result.report['up'].upper()} up; distance to"
        f" the surface: median {figures['median']:.2f} mm, 95 % below {figures['p95']:.2f} mm, at"
        f" most {figures['max']:.2f} mm; {100 * result.report['coverage']:.2f} % of the texels"
        " found it.\n"
    )
    sys.stdout.write("".join(f"{path}\n" for path in files))
    return EXIT_OK
