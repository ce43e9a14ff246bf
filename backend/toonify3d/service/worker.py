"""The process that Blender starts: runs ``JOB/request.json`` and reports over the socket.

The job folder holds the truth, so a lost socket never harms the job; :mod:`.link` ends the
process when Blender goes away, unless Blender asked for the opposite.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from pathlib import Path

from ..errors import (
    EXIT_CANCELLED,
    EXIT_DEFECT,
    EXIT_INPUT,
    EXIT_OK,
    CancelledError,
    InputError,
    ToonifyError,
    job_sentence,
)
from ..files import write_json
from .link import Link
from .protocol import REQUEST_FILE, STATUS_FILE
from .request import load_request


def work(root: Path) -> int:
    """Run the request in ``root`` and return the process's exit code."""
    link = Link.from_environment(root)
    try:
        return _work(root, link)
    finally:
        if link is not None:
            link.close()


def _work(root: Path, link: Link | None) -> int:
    try:
        request = load_request(root / REQUEST_FILE)
        from ..pipeline import run_request  # imports torch: Blender hears of us before that

        result = run_request(request, root, link, signals=True)
    except CancelledError:
        return EXIT_CANCELLED
    except ToonifyError as error:
        _report_problem(root, link, getattr(error, "code", "failed"), str(error))
        return EXIT_INPUT if isinstance(error, InputError) else EXIT_DEFECT
    except Exception as error:
        traceback.print_exc()  # into JOB/log.txt
        code, message = _diagnosis(error, root)
        _report_problem(root, link, code, message)
        return EXIT_DEFECT if code == "defect" else EXIT_INPUT
    if link is not None:
        link.send_result(result)
    return EXIT_OK


def _diagnosis(error: Exception, root: Path) -> tuple[str, str]:
    """Code and sentence for what no part of the pipeline has foreseen."""
    if not (root / REQUEST_FILE).exists():
        return "job_gone", f"The job folder '{root}' was deleted while the job ran; start it again."
    sentence = job_sentence(error, root)
    if sentence is not None:
        return "unwritable", sentence
    return "defect", f"{type(error).__name__}: {error}"


def _report_problem(root: Path, link: Link | None, code: str, message: str) -> None:
    """Tell Blender, and leave it in status.json for a Blender that comes later."""
    problem = {"code": code, "message": message}
    if code != "job_busy":  # the status belongs to the process that is working in the folder
        status = {"state": "failed", "problem": problem, "pid": os.getpid(), "message": message}
        with contextlib.suppress(OSError):  # disk full, folder gone: the socket still tells it
            write_json(root / STATUS_FILE, status | {"updated": time.time()})
    if link is not None:
        link.send_problem(problem)
