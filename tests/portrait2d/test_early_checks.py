"""What the user's stylizer lacks is said before the capture is worked on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from fake_vtoonify import make_checkout
from frozen_graph import dctnet_graph

from toonify3d import pipeline
from toonify3d.cli import main
from toonify3d.files import write_image

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A wall that pans by; its capture fails because nobody is in it."""
    path = tmp_path_factory.mktemp("video") / "wall.mp4"
    coarse = np.random.default_rng(0).integers(0, 255, (90, 200, 3), np.uint8)
    wall = cv2.resize(coarse, (1600, 720))
    frames = [wall[:320, 8 * i : 8 * i + 240] for i in range(40)]
    iio.imwrite(path, np.stack(frames), fps=12, codec="libx264", plugin="FFMPEG")
    return path


def _stylize(capsys, video, job, stylizer, **settings) -> tuple[int, str]:
    arguments = ["stylize", video, sorted(DEMO.glob("exemplar_*.png"))[0], "--job", job]
    arguments += ["--stylizer", stylizer, "--preset", "tiny"]
    for name, value in settings.items():
        arguments += ["--set", f"adapter.{name}={value}"]
    code = main([str(item) for item in arguments])
    return code, capsys.readouterr().err


def _no_weights(folder):
    return "dct-net", {"model": folder}, "cartoon_h.pb"


def _foreign_graph(folder):
    for name in ("cartoon_h.pb", "cartoon_bg.pb"):
        dctnet_graph(folder / name, (32, 32), 1, skip="Conv_4")
    write_image(folder / "alpha.jpg", np.zeros((8, 8), np.uint8))
    return "dct-net", {"model": folder}, "generator/Conv_4/weights"


def _no_program(folder):
    return "command", {"command": f"{folder}/toon {{input}} {{output}}"}, "adapter.command"


def _no_python(folder):
    model = make_checkout(folder)
    settings = {"checkout": folder, "model": model, "trust_pickles": "true"}
    return "vtoonify", settings | {"python": folder / "venv" / "python"}, "adapter.python"


def _no_consent(folder):
    model = make_checkout(folder)
    return "vtoonify", {"checkout": folder, "model": model}, "trust_pickles=true"


def _pickled_checkpoint(folder):
    model = make_checkout(folder, pickled=True, styles=0)
    return "vtoonify", {"checkout": folder, "model": model}, "trust_pickles=true"


def _no_model(folder):
    return "onnx", {"model": folder / "gone.onnx"}, "that exists"


CASES = [_no_weights, _foreign_graph, _no_program, _no_python]
CASES += [_no_consent, _pickled_checkpoint, _no_model]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
def test_missing_things_are_told_before_any_work(capsys, tmp_path, video, monkeypatch, case):
    worked = []
    monkeypatch.setattr(pipeline, "run_capture", lambda *a: worked.append(a))
    stylizer, settings, word = case(tmp_path)
    code, said = _stylize(capsys, video, tmp_path / "job", stylizer, **settings)
    lines = [line for line in said.splitlines() if line.startswith("toonify3d: ")]
    assert (code, len(lines)) == (2, 1), said
    assert word in lines[0] and "Traceback" not in said
    assert not worked and not (tmp_path / "job").exists()


def test_the_licence_is_told_before_the_capture(capsys, tmp_path, video):
    model = make_checkout(tmp_path / "clone")
    settings = {"checkout": tmp_path / "clone", "model": model, "trust_pickles": "true"}
    code, said = _stylize(capsys, video, tmp_path / "job", "vtoonify", **settings)
    assert code == 2 and "person" in said  # the capture ran, and nobody is in it
    assert 0 <= said.index("non-commercial use only") < said.index("capture 0%")
    status = json.loads((tmp_path / "job" / "status.json").read_text(encoding="utf-8"))
    assert any("non-commercial" in warning for warning in status["warnings"])


def test_other_stylizers_tell_no_licence(capsys, tmp_path, video):
    settings = {"command": f"'{sys.executable}' {{input}} {{output}}"}
    _, said = _stylize(capsys, video, tmp_path / "job", "command", **settings)
    assert "person" in said and "non-commercial" not in said
