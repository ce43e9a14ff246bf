"""The commands ``report`` (the page of a result) and ``get-viewer`` (its 3D viewer's library)."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path
from typing import Any, TypeAlias

from .errors import EXIT_OK

_Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def add_report_commands(commands: _Commands) -> None:
    """Add ``report`` and ``get-viewer`` to the command line."""
    report = commands.add_parser(
        "report", help="the page of a finished style (report.html) with pictures and 3D viewer"
    )
    report.add_argument("job", metavar="JOB", type=Path, help="job folder of a finished run")
    report.add_argument("--style", help="which style, when the job has several")
    report.add_argument("--open", action="store_true", help="show it in the browser")
    report.set_defaults(run=_report)
    viewer = commands.add_parser(
        "get-viewer", help="fetch the 3D viewer's library for report.html (once; needs the network)"
    )
    viewer.add_argument(
        "--archive", type=Path, metavar="FILE.tgz", help="take it from a file fetched elsewhere"
    )
    viewer.set_defaults(run=_get_viewer)


def _report(options: argparse.Namespace) -> int:
    from .finished import finished_result
    from .report_page.page import refresh_page

    name, folder, _ = finished_result(options.job, options.style)
    page = refresh_page(options.job, name, folder)
    sys.stdout.write(f"{page}\n")
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    return EXIT_OK


def _get_viewer(options: argparse.Namespace) -> int:
    from .report_page.library import get_library

    sys.stdout.write(f"{get_library(options.archive)}\n")
    return EXIT_OK
