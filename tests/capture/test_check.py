"""What ``toonify3d check`` says about good and bad captures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from toonify3d.capture.check import (
    Look,
    Measured,
    Person,
    measure_capture,
    perceived_blur,
)
from toonify3d.capture.findings import judge
from toonify3d.capture.landmarks import FaceLandmarks
from toonify3d.capture.probe import VideoInfo, parse_description
from toonify3d.capture.selection import FrameChoice
from toonify3d.capture.settings import CaptureSettings
from toonify3d.capture.subject import SubjectMotion
from toonify3d.capture.turn import Step, Turn
from toonify3d.cli import main

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo" / "capture.mp4"
STILL = Step(0.0, 0.0, 1.0, 0.0)


def measured(**changes):
    """Figures of a good capture, with some changed."""
    points = np.random.default_rng(0).uniform(0, 1, (478, 3)) * (160, 200, 1) + (200, 150, 0)
    points[263, 2] = points[33, 2] = 0.0
    face = FaceLandmarks(points, 0.9, 640, 480)
    picture = np.zeros((480, 640, 3), np.uint8)
    values = {
        "name": "walk.mp4",
        "is_video": True,
        "size": (1920, 1080),
        "seconds": 25.0,
        "frames": 750,
        "choice": FrameChoice(list(range(250)), 250, 0, 0),
        "steps": [Step(2.0, 3.0, 0.9, 0.0)] * 250,
        "turn": Turn(np.linspace(0, 2 * np.pi, 250), True, "face returns"),
        "looks": [Look(i, 3 * i, picture, face) for i in range(20)],
        "person": Person(0.3, 0.0, 0.0),
        "blur": 0.3,
        "textured": 900.0,
        "room_points": 500.0,
        "room_cells": 0.9,
    }
    return Measured(**(values | changes))


def severities(**changes):
    report = judge(measured(**changes), 12)
    return {item.code: item.severity for item in report.findings}, report


def test_a_good_capture_is_all_ok():
    found, report = severities()
    assert set(found.values()) == {"ok"}
    assert not report.stops


@pytest.mark.parametrize(
    ("changes", "code", "severity"),
    [
        ({"choice": FrameChoice([0, 1], 250, 248, 0)}, "length", "stop"),
        ({"frames": 30, "choice": FrameChoice(list(range(30)), 30, 0, 0)}, "length", "warning"),
        ({"steps": [Step(2.0, 3.0, 0.9, 0.0)] * 120 + [STILL] * 130}, "length", "hint"),
        ({"size": (320, 240)}, "resolution", "warning"),
        ({"size": (854, 480)}, "resolution", "hint"),
        ({"size": None}, "resolution", "hint"),
        ({"blur": 0.7}, "sharpness", "warning"),
        ({"steps": [Step(2.0, 3.0, 0.9, 0.02)] * 250}, "exposure", "warning"),
        ({"turn": Turn(np.linspace(0, 0.2, 250), True, "face")}, "coverage", "stop"),
        ({"turn": Turn(np.linspace(0, 0.2, 250), False, "typical lens"), "looks": []},
         "coverage", "warning"),
        ({"looks": []}, "face", "warning"),
        ({"person": None, "looks": [], "goes_round": False}, "person", "stop"),
        ({"person": None, "looks": [], "goes_round": True}, "person", "warning"),
        ({"subject": SubjectMotion(2.0, 0.4, 8)}, "subject", "warning"),
        ({"person": Person(0.3, 0.5, 0.0)}, "cut_off", "warning"),
        ({"person": Person(0.04, 0.0, 0.0), "looks": []}, "distance", "warning"),
        ({"hdr": "HLG"}, "hdr", "hint"),
        ({"textured": 10.0}, "background", "stop"),
        ({"room_points": 20.0}, "background", "warning"),
        ({"room_cells": 0.4}, "background", "hint"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_reason_and_remedy(changes, code, severity):
    found, report = severities(**changes)
    assert found[code] == severity
    item = next(item for item in report.findings if item.code == code)
    assert report.stops == (severity == "stop")
    assert item.what.endswith(".")
    if changes != {"size": None}:
        assert item.why.endswith(".") and item.what_to_do.endswith(".")


def test_the_missing_arc_is_named_in_degrees_and_clock_position():
    # Filmed from the person's right over the front to the left: the back is missing.
    turn = Turn(np.radians(np.linspace(-130, 110, 250)), True, "face")
    _, report = severities(turn=turn)
    (item,) = [item for item in report.findings if item.code == "coverage"]
    assert item.severity == "warning"
    assert "107 degrees" in item.what and "6 o'clock" in item.what and "behind" in item.what
    (arc,) = report.figures["missing_arcs"]
    assert arc["clock"] == 6


def test_a_plain_room_is_not_mistaken_for_a_camera_on_the_spot():
    good = measured()
    looks = [
        Look(look.place, look.source_index, look.image, look.face if i < 6 else None)
        for i, look in enumerate(good.looks)
    ]
    found, report = severities(turn=Turn(np.zeros(250), True, "typical lens"), looks=looks)
    assert found["coverage"] == "hint"
    assert report.figures["missing_arcs"] == []  # nothing is claimed that was not measured


def test_images_in_no_order_claim_no_turn():
    steps = [Step(100.0, 0.0, 0.03, 0.0)] * 250
    found, report = severities(is_video=False, steps=steps)
    assert found["coverage"] == "hint" and report.figures["missing_arcs"] == []


def test_blur_metric_rises_with_blur():
    image = np.random.default_rng(0).uniform(0, 255, (120, 160))
    values = [
        perceived_blur(cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image)
        for sigma in (0, 1, 3)
    ]
    assert values[0] < values[1] < values[2] <= 1.0
    assert perceived_blur(np.zeros((20, 20))) == 1.0


def test_ffmpegs_description_is_read():
    text = (
        "  Duration: 00:01:04.50, start: 0.0, bitrate: 1 kb/s\n"
        "  Stream #0:0[0x1](und): Video: hevc (Main) (hvc1 / 0x31637668), yuv420p, 1920x1080 "
        "[SAR 1:1 DAR 16:9], 900 kb/s, 30 fps, 30 tbr\n"
        "      displaymatrix: rotation of -90.00 degrees\n"
    )
    info = parse_description(text)
    assert (info.size, info.seconds, info.frames) == ((1080, 1920), 64.5, 1935)
    assert parse_description("nothing") == VideoInfo()


def test_the_demo_capture_passes_with_its_turn_measured(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    code = main(["check", str(DEMO), "--json", "--sheet", str(sheet)])
    report = json.loads(capsys.readouterr().out)
    assert code == 0 and not report["stops"]
    assert {item["severity"] for item in report["findings"]} <= {"ok", "hint"}
    figures = report["figures"]
    assert figures["turn_measured_by"] == "face returns"
    assert abs(figures["turn_degrees"] - 356) < 15 and figures["missing_arcs"] == []
    assert len(figures["faces"]) > 5
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape[1] == 1440


def test_half_a_circle_is_noticed(tmp_path):
    half = tmp_path / "half.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(DEMO)]
    command += ["-frames:v", "48", "-vf", "scale=324:-2", str(half)]
    subprocess.run(command, check=True, timeout=60)
    report = judge(measure_capture(half, CaptureSettings()), 12)
    (item,) = [item for item in report.findings if item.code == "coverage"]
    assert item.severity == "warning" and not report.stops
    # The demo walks from the face to the person's left and round the back: the right is missing.
    (arc,) = report.figures["missing_arcs"]
    assert 130 < arc["degrees"] < 210 and arc["clock"] in (2, 3, 4)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_what_cannot_be_a_capture_stops_with_a_sentence(tmp_path, capsys, flags):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    assert main(["check", str(path), *flags]) == 2
    out = capsys.readouterr().out
    assert "text.mp4 is not a video" in out
    if flags:
        assert json.loads(out)["findings"][0]["severity"] == "stop"


def test_frames_written_twice_are_no_pause():
    found, _ = severities(steps=[Step(2.0, 3.0, 0.9, 0.0), STILL, STILL] * 83)
    assert found["length"] == "ok"


def test_a_dark_room_round_a_lit_thing_claims_no_turn():
    # Neighbours show the same thing, but nothing of the room to tell the turn by.
    steps = [Step(30.0, 0.0, 0.3, 0.0, room=False)] * 60
    found, report = severities(is_video=False, steps=steps, turn=Turn(np.zeros(60), False, "face"))
    assert found["coverage"] == "hint" and not report.stops
