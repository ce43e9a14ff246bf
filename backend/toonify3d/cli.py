"""The command line of 3DToonify for Blender: from a phone video to a stylized 3D head.

Exit codes: 0 done; 1 a defect; 2 bad usage or bad input, one clear sentence; 3 cancelled.
Heavy imports happen inside the commands, so that ``--help`` and usage errors are instant.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from . import __version__
from .cli_bake import add_bake_command
from .cli_face import add_face_command
from .cli_portraits import add_portraits_command
from .cli_report import add_report_commands
from .cli_result import add_result_commands
from .errors import (
    EXIT_CANCELLED,
    EXIT_DEFECT,
    EXIT_INPUT,
    EXIT_OK,
    CancelledError,
    InputError,
    TrainingError,
    disk_sentence,
)

_CAPTURE = "video file, folder of images, COLMAP model with images, or transforms.json"


class _Parser(argparse.ArgumentParser):
    """argparse with one sentence instead of a usage block."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(EXIT_INPUT, f"toonify3d: {message} (see 'toonify3d --help')\n")


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # OpenMP threads that spin for long while waiting starve each other as soon as anything else
    # (Blender!) wants a core: the same small layers took 13 s instead of 1.3 s with one other
    # process busy. A short spin costs nothing on an idle machine; not spinning at all costs 30 %.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("KMP_BLOCKTIME", "1")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no defect
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _build_parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()  # here, where a closed pipe can be told from a defect
        return code
    except InputError as error:
        return _fail(str(error), EXIT_INPUT)
    except CancelledError:
        return _fail(f"Cancelled.{_way_on(options)}", EXIT_CANCELLED)
    except KeyboardInterrupt:
        return _fail(f"Stopped.{_way_on(options)}", EXIT_CANCELLED)
    except TrainingError as error:
        return _fail(str(error), EXIT_DEFECT)
    except BrokenPipeError:  # "toonify3d settings | head": whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        sentence = disk_sentence(error, getattr(options, "job", "the output"))
        if sentence is None:
            raise
        return _fail(sentence + _way_on(options), EXIT_INPUT)


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"toonify3d: {sentence}\n")
    return code


def _way_on(options: argparse.Namespace) -> str:
    """How a stopped job goes on; nothing for commands that make no job."""
    if options.run not in (_run_job, _demo):
        return ""
    try:
        there = (options.job / "job.json").is_file()
    except OSError:  # the name is too long, or the folder is closed to us
        there = False
    return f" Go on with: toonify3d resume {options.job}" if there else ""


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="toonify3d", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--version", action="version", version=f"toonify3d {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _add_check(commands)
    _add_stylize(commands)
    _add_reconstruct(commands)
    _add_restyle(commands)
    _add_refine(commands)
    _add_resume(commands)
    _add_demo(commands)
    _add_evaluate(commands)
    _add_settings(commands)
    add_result_commands(commands)
    add_report_commands(commands)
    add_portraits_command(commands)
    add_face_command(commands)
    add_bake_command(commands)
    doctor = commands.add_parser(
        "doctor", help="what is installed, what is missing and how to get it"
    )
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    doctor.set_defaults(run=_doctor)
    worker = commands.add_parser("worker", help="what the Blender add-on starts")
    worker.add_argument("--job", type=Path, required=True, help="folder holding request.json")
    worker.set_defaults(run=_worker)
    return parser


def _add_check(commands: _Commands) -> None:
    parser = commands.add_parser("check", help="is the capture good enough? (seconds)")
    parser.add_argument("capture", metavar="CAPTURE", help=_CAPTURE)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet")
    parser.set_defaults(run=_check)


def _add_stylize(commands: _Commands) -> None:
    parser = commands.add_parser("stylize", help="a video and one exemplar to a stylized 3D head")
    parser.add_argument("capture", metavar="CAPTURE", help=_CAPTURE)
    parser.add_argument("exemplar", metavar="EXEMPLAR", help="one stylized portrait image")
    parser.add_argument("--job", type=Path, required=True, help="job folder, made when missing")
    _add_run_options(parser, preset=True)
    _add_style_options(parser)
    parser.set_defaults(run=_run_job)


def _add_reconstruct(commands: _Commands) -> None:
    parser = commands.add_parser("reconstruct", help="stage I only: the photorealistic prior")
    parser.add_argument("capture", metavar="CAPTURE", help=_CAPTURE)
    parser.add_argument("--job", type=Path, required=True, help="job folder, made when missing")
    _add_run_options(parser, preset=True)
    parser.set_defaults(run=_run_job)


def _add_restyle(commands: _Commands) -> None:
    parser = commands.add_parser("restyle", help="another exemplar on a finished prior")
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder of an earlier run")
    parser.add_argument("exemplar", metavar="EXEMPLAR", help="one stylized portrait image")
    _add_run_options(parser, preset=False)
    _add_style_options(parser)
    parser.set_defaults(run=_run_job)


def _add_refine(commands: _Commands) -> None:
    parser = commands.add_parser("refine", help="a finished style again, trained longer")
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder of an earlier run")
    parser.add_argument("--style", help="which style; default: the last one")
    parser.add_argument(
        "--longer", type=float, default=2.0, help="how many times as long (default 2)"
    )
    _add_run_options(parser, preset=False)
    parser.set_defaults(run=_run_job)


def _add_resume(commands: _Commands) -> None:
    parser = commands.add_parser("resume", help="go on after a stop, a crash, a kill")
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder of an earlier run")
    parser.add_argument("--style", help="which style to go on with")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.set_defaults(run=_run_job)


def _add_demo(commands: _Commands) -> None:
    parser = commands.add_parser("demo", help="the main job on the bundled capture")
    parser.add_argument("--job", type=Path, default=Path("demo_job"), help="job folder")
    parser.add_argument("--exemplar", default="glossy", help="which bundled exemplar")
    _add_run_options(parser, preset=True, default_preset="preview")
    parser.set_defaults(run=_demo)


def _add_evaluate(commands: _Commands) -> None:
    parser = commands.add_parser("evaluate", help="distances to a known shape, as a table and JSON")
    parser.add_argument("job", metavar="JOB", type=Path, help="job folder of a finished run")
    parser.add_argument("--ground-truth", type=Path, required=True, help="folder with gt/")
    parser.add_argument("--style", help="evaluate this style's mesh too")
    parser.add_argument("--styled-truth", type=Path, help="mesh.npz of the known stylized shape")
    parser.set_defaults(run=_evaluate)


def _add_settings(commands: _Commands) -> None:
    parser = commands.add_parser("settings", help="every setting of a preset, with its meaning")
    parser.add_argument("--preset", default="standard", help="preview, standard, high or paper")
    parser.set_defaults(run=_settings)


def _add_run_options(
    parser: argparse.ArgumentParser, preset: bool, default_preset: str = "standard"
) -> None:
    if preset:
        parser.add_argument(
            "--preset", default=default_preset, help="preview, standard, high or paper"
        )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change one setting; 'toonify3d settings' lists them",
    )


def _add_style_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stylizer",
        default="builtin",
        help="builtin, folder (see --portraits), dct-net, vtoonify, onnx or command"
        " (see the adapter settings)",
    )
    parser.add_argument(
        "--portraits", help="for the folder stylizer: NNNN.png, NNNN the source frame"
    )
    parser.add_argument(
        "--exemplar-landmarks",
        metavar="FILE.json",
        help="where eyes, nose and mouth are in a drawing whose face is not found:"
        " see docs/exemplars.md",
    )
    parser.add_argument("--strength", type=float, help="shape change, 0 to 1.5")
    parser.add_argument("--style", help="name of the style; default: the exemplar's")


# -- the commands -----------------------------------------------------------------------------


def _run_job(options: argparse.Namespace) -> int:
    from .pipeline import run_request
    from .service.request import Request

    request = Request(
        command=options.command,
        capture=getattr(options, "capture", None),
        exemplar=getattr(options, "exemplar", None),
        preset=getattr(options, "preset", "standard"),
        device=options.device,
        stylizer=getattr(options, "stylizer", "builtin"),
        portraits=getattr(options, "portraits", None),
        exemplar_landmarks=getattr(options, "exemplar_landmarks", None),
        strength=getattr(options, "strength", None),
        style=getattr(options, "style", None),
        overrides=tuple(getattr(options, "overrides", ())),
        longer=getattr(options, "longer", 2.0),
    )
    result = run_request(request, options.job, signals=True)
    sys.stdout.write(f"{result}\n")
    return EXIT_OK


def _check(options: argparse.Namespace) -> int:
    from .capture.check import measure_capture
    from .capture.check_sheet import contact_sheet
    from .capture.findings import judge, refused
    from .capture.settings import CaptureSettings
    from .files import write_image

    if options.sheet is not None and options.sheet.suffix.lower() != ".png":
        raise InputError("--sheet needs a file name that ends in .png.", "bad_sheet")
    settings, source, measured = CaptureSettings(), Path(options.capture), None
    try:
        measured = measure_capture(source, settings)
    except InputError as error:
        report = refused(source.name, error.code, str(error))
    else:
        report = judge(measured, settings.min_frames)
    sys.stdout.write((report.to_json() if options.json else report.to_text()) + "\n")
    if options.sheet is not None and measured is not None:
        write_image(options.sheet, contact_sheet(measured, report))
    return EXIT_INPUT if report.stops else EXIT_OK


def _demo(options: argparse.Namespace) -> int:
    folder = Path(__file__).resolve().parents[2] / "assets" / "demo"
    capture = folder / "capture.mp4"
    exemplars = {path.stem.removeprefix("exemplar_"): path for path in folder.glob("exemplar_*")}
    if not capture.exists():
        raise InputError(
            "The demo's files are not here; they come with the source repository, not the package.",
            "no_demo",
        )
    if options.exemplar not in exemplars:
        raise InputError(
            f"There is no demo exemplar '{options.exemplar}'; use one of"
            f" {', '.join(sorted(exemplars))}.",
            "no_demo",
        )
    options.command, options.capture = "stylize", str(capture)
    options.exemplar = str(exemplars[options.exemplar])
    return _run_job(options)


def _evaluate(options: argparse.Namespace) -> int:
    from .evaluation.report import evaluate_job, format_table

    figures = evaluate_job(options.job, options.ground_truth, options.style, options.styled_truth)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    sys.stderr.write(format_table(figures) + "\n")
    return EXIT_OK


def _settings(options: argparse.Namespace) -> int:
    from .settings import preset_settings
    from .settings_doc import describe

    for group in preset_settings(options.preset):
        for name, value, doc in describe(group):
            sys.stdout.write(f"{name} = {value}\n    {' '.join(doc.split())}\n")
    return EXIT_OK


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine, format_findings

    findings = examine()
    if options.json:
        sys.stdout.write(json.dumps([f.__dict__ for f in findings], indent=1) + "\n")
    else:
        sys.stdout.write(format_findings(findings) + "\n")
    return EXIT_OK if all(f.ok or f.optional for f in findings) else EXIT_INPUT


def _worker(options: argparse.Namespace) -> int:
    from .service.worker import work

    return work(options.job)
