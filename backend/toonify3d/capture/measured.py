"""The findings of ``check`` once more, after structure from motion: measured instead of guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from ..progress import Progress
from ..scene import FloatArray
from .align import Alignment
from .findings import MEASURED, CheckReport, Finding, gap_findings, subject_finding
from .subject import SubjectMotion
from .turn import clock_position, missing_arcs

FINDINGS_FILE = "findings.json"


def judge_cameras(
    capture: str,
    frames: int,
    yaws: FloatArray,
    alignment: Alignment,
    motion: SubjectMotion | None,
    front_given: bool = False,
) -> CheckReport:
    """Findings from solved cameras.

    Args:
        capture: File or folder name.
        frames: How many frames were chosen.
        yaws: ``(N,)`` radians round the head, of the frames that have a camera.
        alignment: How the world was aligned.
        motion: What :func:`~.subject.measured_motion` says.
        front_given: The user said which frame is the front.
    """
    twelve = "the face"
    if alignment.landmarks is None:
        twelve = "the front" if front_given else "the first frame"
    findings = [
        _cameras(frames, len(yaws)),
        *gap_findings(yaws, twelve),
        _face(alignment),
        *subject_finding(motion, MEASURED),
    ]
    figures: dict[str, Any] = {
        "frames": frames,
        "cameras": len(yaws),
        "covered_degrees": 360.0 - sum(gap.width for gap in missing_arcs(yaws, smallest=0.0)),
        "missing_arcs": [
            {
                "degrees": gap.width,
                "middle_degrees": gap.middle,
                "clock": clock_position(gap.middle),
            }
            for gap in missing_arcs(yaws)
        ],
        "face_views": alignment.views,
        "subject_motion": None if motion is None else vars(motion),
    }
    return CheckReport(capture, findings, figures)


def publish(report: CheckReport, root: Path, progress: Progress) -> None:
    """Write ``findings.json`` under ``root``, and warn of what the user can do better.

    Lost frames and a missing face were told when they were noticed.
    """
    write_text(root / FINDINGS_FILE, report.to_json())
    for item in report.findings:
        if item.severity in ("warning", "stop") and item.code in ("coverage", "subject"):
            progress.warn(f"{item.what} {item.what_to_do}")


def _cameras(frames: int, found: int) -> Finding:
    if found == frames:
        return Finding("cameras", "ok", f"All {frames} frames found their camera.")
    what = f"{frames - found} of {frames} frames did not find their camera."
    why = "They do not help; where several in a row are lost the head is seen from too few sides."
    redo = "Walk slower there, with more light and more things in the background."
    return Finding("cameras", "hint" if found >= 0.9 * frames else "warning", what, why, redo)


def _face(alignment: Alignment) -> Finding:
    if alignment.landmarks is None:
        what = "No face could be measured, so front and size of the head are guesses."
        redo = "Give the number of a frame that shows the front with capture.front_frame."
        why = "The exemplar's features are placed by the face."
        return Finding("face", "warning", what, why, redo)
    known = int(np.isfinite(alignment.landmarks).all(1).sum())
    what = f"The face was measured from {alignment.views} frames ({known} of 478 points)."
    return Finding("face", "ok", what)
