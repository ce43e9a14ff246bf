"""Findings after structure from motion."""

from __future__ import annotations

import json

import numpy as np

from toonify3d.capture.align import Alignment
from toonify3d.capture.measured import judge_cameras, publish
from toonify3d.capture.subject import SubjectMotion
from toonify3d.progress import SilentProgress

FACE = Alignment(np.eye(4), np.zeros((478, 3)), 0.5, 20)
NO_FACE = Alignment(np.eye(4), None, float("nan"), 0)


def report(degrees, frames=None, alignment=FACE, motion=None, given=False):
    yaws = np.radians(np.asarray(degrees, float))
    return judge_cameras("walk.mp4", frames or len(yaws), yaws, alignment, motion, given)


def test_a_full_circle_has_no_findings_and_no_warnings(tmp_path):
    progress = SilentProgress()
    found = report(np.arange(0, 360, 4), motion=SubjectMotion(0.8, 0.4, 12))
    publish(found, tmp_path, progress)
    assert {item.severity for item in found.findings} == {"ok"} and not progress.warnings
    written = json.loads((tmp_path / "findings.json").read_text())
    assert written["figures"]["covered_degrees"] == 360 and not written["stops"]
    assert written["figures"]["subject_motion"]["person"] == 0.8


def test_the_measured_gap_is_warned_of_with_degrees_and_clock(tmp_path):
    progress = SilentProgress()
    found = report(np.arange(-130, 111, 3))
    publish(found, tmp_path, progress)
    (warning,) = progress.warnings
    assert "107 degrees" in warning and "6 o'clock" in warning and "face at 12" in warning
    (arc,) = found.figures["missing_arcs"]
    assert arc["clock"] == 6 and abs(found.figures["covered_degrees"] - 253) < 2


def test_without_a_face_the_clock_says_what_it_counts_from():
    half = np.arange(-90, 91, 3)
    texts = [" ".join(i.what for i in r.findings) for r in (
        report(half, alignment=NO_FACE), report(half, alignment=NO_FACE, given=True))]  # fmt: skip
    assert "the first frame at 12" in texts[0] and "the front at 12" in texts[1]
    assert any("front_frame" in i.what_to_do for i in report(half, alignment=NO_FACE).findings)


def test_lost_frames_and_a_moving_person_are_findings(tmp_path):
    circle = np.arange(0, 360, 6)
    severity = {
        frames: next(i for i in report(circle, frames).findings if i.code == "cameras").severity
        for frames in (60, 63, 90)
    }
    assert severity == {60: "ok", 63: "hint", 90: "warning"}
    progress = SilentProgress()
    publish(report(circle, motion=SubjectMotion(4.0, 0.5, 9)), tmp_path, progress)
    assert len(progress.warnings) == 1 and "moves while being filmed" in progress.warnings[0]
