"""The reporter: status.json, time left, cancel."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from toonify3d.errors import CancelledError
from toonify3d.progress import SubProgress
from toonify3d.service.reporter import Reporter


class Listener:
    def __init__(self):
        self.cancel_requested = False
        self.statuses = []
        self.previews = []

    def send_status(self, status):
        self.statuses.append(status)

    def send_preview(self, path):
        self.previews.append(path)


def status_of(root):
    return json.loads((root / "status.json").read_text(encoding="utf-8"))


def test_status_follows_the_stages(tmp_path):
    listener = Listener()
    reporter = Reporter(tmp_path, [("capture", 100.0), ("prior", 300.0)], listener)
    reporter.begin("capture")
    assert status_of(tmp_path)["stage"] == "capture"
    reporter.end()
    reporter.begin("prior")
    reporter.update(0.5, "halfway")
    reporter.warn("two frames lost")
    status = status_of(tmp_path)
    assert status["stage_index"] == 2
    assert status["stage_count"] == 2
    assert status["fraction"] == pytest.approx((100 + 150) / 400)
    assert status["warnings"] == ["two frames lost"]
    reporter.end()
    reporter.done(tmp_path / "styles" / "toon" / "result")
    status = status_of(tmp_path)
    assert status["state"] == "done"
    assert status["result"] == "styles/toon/result"
    assert listener.statuses[-1] == status


def test_time_left_follows_the_pace(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("toonify3d.service.reporter.time.monotonic", lambda: now[0])
    reporter = Reporter(tmp_path, [("a", 100.0), ("b", 100.0)])
    reporter.begin("a")
    now[0] += 100.0
    reporter.update(0.5)  # half of a took 100 s: twice as slow as expected
    assert reporter.eta_seconds() == pytest.approx(100 + 200)


def test_cancel_from_the_listener_and_from_a_signal(tmp_path):
    listener = Listener()
    reporter = Reporter(tmp_path, [("a", 1.0)], listener)
    reporter.begin("a")
    reporter.update(0.1)
    listener.cancel_requested = True
    with pytest.raises(CancelledError):
        reporter.update(0.2)
    listener.cancel_requested = False
    reporter.request_cancel()
    with pytest.raises(CancelledError):
        SubProgress(reporter, 0.5, 1.0).update(0.3)
    reporter.cancelled()
    assert status_of(tmp_path)["state"] == "cancelled"


def test_warnings_belong_to_their_stage_and_are_said_once(tmp_path):
    reporter = Reporter(tmp_path, [("a", 1.0), ("b", 1.0)])
    reporter.begin("a")
    reporter.warn("x")
    reporter.warn("x")
    assert reporter.stage_warnings == ["x"]
    reporter.begin("b")
    assert reporter.stage_warnings == []
    assert reporter.warnings == ["x"]


def test_preview_is_written_and_announced(tmp_path):
    listener = Listener()
    reporter = Reporter(tmp_path, [("a", 1.0)], listener)
    reporter.begin("a")
    reporter.preview(np.zeros((4, 6, 3), np.uint8))
    assert (tmp_path / "preview" / "current.png").exists()
    assert listener.previews == ["preview/current.png"]


def test_problem_is_in_the_status(tmp_path):
    reporter = Reporter(tmp_path, [("a", 1.0)])
    reporter.failed("no_face", "No face was found.")
    status = status_of(tmp_path)
    assert status["state"] == "failed"
    assert status["problem"] == {"code": "no_face", "message": "No face was found."}


def test_progress_never_goes_back_within_a_stage(tmp_path):
    reporter = Reporter(tmp_path, [("a", 1.0)])
    reporter.begin("a")
    reporter.update(0.6)
    reporter.update(0.2)
    reporter.warn("stepped back")
    assert status_of(tmp_path)["step_fraction"] == 0.6


def test_preview_pictures_are_small(tmp_path):
    reporter = Reporter(tmp_path, [("prior", 1.0)], Listener())
    reporter.preview(np.full((996, 1992, 3), 7, np.uint8))
    picture = cv2.imread(str(tmp_path / "preview" / "current.png"))
    assert picture.shape == (256, 512, 3)
