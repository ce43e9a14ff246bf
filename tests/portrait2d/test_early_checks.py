"""What the user's stylizer lacks is said before the capture is worked on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
from fake_vtoonify import make_checkout
from frozen_graph import dctnet_graph
from portrait2d_person import made_up_job, make_subject

from toonify3d import pipeline, plan
from toonify3d.cli import main
from toonify3d.errors import CancelledError
from toonify3d.files import write_image
from toonify3d.plan import step_keys
from toonify3d.service.job import JobFolder, StepRecord, finish_step
from toonify3d.settings import preset_settings

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


def _stylize(capsys, video, job, stylizer, *more, **settings) -> tuple[int, str]:
    arguments = ["stylize", video, sorted(DEMO.glob("exemplar_*.png"))[0], "--job", job]
    arguments += ["--stylizer", stylizer, "--preset", "tiny", *more]
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


# -- and again when the job goes on --------------------------------------------------------------


def _weights_go(folder):
    for name in ("cartoon_h.pb", "cartoon_bg.pb"):
        dctnet_graph(folder / name, (32, 32), 1)
    write_image(folder / "alpha.jpg", np.zeros((8, 8), np.uint8))
    return "dct-net", (), {"model": folder}, (folder / "cartoon_h.pb").unlink, "cartoon_h.pb"


def _program_goes(folder):
    program = folder / "toon"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    settings = {"command": f"'{program}' {{input}} {{output}}"}
    return "command", (), settings, program.unlink, "adapter.command"


def _clone_goes(folder):
    settings = {"checkout": folder, "model": make_checkout(folder), "trust_pickles": "true"}
    missed = (folder / "model" / "vtoonify.py").unlink
    return "vtoonify", (), settings, missed, "adapter.checkout"


def _pickle_comes(folder):
    """Other weights in the same place, which nobody has consented to."""
    model = make_checkout(folder, styles=0)
    pickled = make_checkout(folder / "other", pickled=True, styles=0)

    def swap():
        shutil.copyfile(folder / "other" / pickled, folder / model)

    return "vtoonify", (), {"checkout": folder, "model": model}, swap, "trust_pickles=true"


def _model_breaks(folder):
    onnx = pytest.importorskip("test_onnx_adapter")
    model = onnx._negative(folder / "toon.onnx", [1, 3, 64, 64])

    def damage():
        model.write_bytes(b"no network")

    return "onnx", (), {"model": model}, damage, "toon.onnx"


def _portraits_go(folder):
    picture = folder / "painted" / "0007.png"
    write_image(picture, np.zeros((8, 8, 3), np.uint8))
    return "folder", ("--portraits", picture.parent), {}, picture.unlink, "no picture in"


GOING = [_weights_go, _program_goes, _clone_goes, _pickle_comes, _model_breaks, _portraits_go]


@pytest.mark.parametrize("case", GOING, ids=lambda case: case.__name__.strip("_"))
def test_what_has_gone_is_told_when_a_job_is_resumed(capsys, tmp_path, video, monkeypatch, case):
    worked = []

    def stop(*arguments):
        worked.append(arguments)
        raise CancelledError("Cancelled; the job can be resumed.")

    monkeypatch.setattr(pipeline, "run_capture", stop)
    (tmp_path / "brought").mkdir()
    stylizer, more, settings, lose, word = case(tmp_path / "brought")
    job = tmp_path / "job"
    assert _stylize(capsys, video, job, stylizer, *more, **settings)[0] == 3
    assert main(["resume", str(job)]) == 3 and len(worked) == 2  # nothing has gone yet
    lose()
    before = (job / "job.json").read_bytes()
    capsys.readouterr()
    code = main(["resume", str(job)])
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("toonify3d: ")]
    assert (code, len(lines)) == (2, 1), said
    assert word.lower() in lines[0].lower() and "Traceback" not in said
    assert len(worked) == 2 and (job / "job.json").read_bytes() == before


@pytest.fixture
def painted_job(tmp_path, monkeypatch):
    """A job that has read its film, its portraits being painted; what trains is only counted."""
    worked = []

    def stop(*arguments):
        worked.append(arguments)
        raise CancelledError("Cancelled; the job can be resumed.")

    monkeypatch.setattr(pipeline, "train_prior", stop)
    scene, painted = made_up_job(tmp_path / "job"), tmp_path / "painted"
    frame = scene.frames[3]
    write_image(painted / f"{frame.source_index:04d}.png", scene.image(frame))
    return tmp_path / "job", painted, worked


def _restyle(capsys, job, painted) -> tuple[int, str]:
    exemplar = sorted(DEMO.glob("exemplar_*.png"))[0]
    arguments = ["restyle", job, exemplar, "--stylizer", "folder", "--portraits", painted]
    code = main([str(item) for item in arguments])
    return code, capsys.readouterr().err


def _misname(picture):
    picture.rename(picture.with_name("0001.png"))


def _crop(picture):
    write_image(picture, np.zeros((100, 200, 3), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "word"), [(_misname, "used source frame (such as 0000.png)"), (_crop, "200 x 100")]
)
def test_portraits_are_held_against_the_frames_at_once(capsys, painted_job, spoil, word):
    job, painted, worked = painted_job
    (picture,) = painted.iterdir()
    kept = picture.read_bytes()
    spoil(picture)
    before = (job / "job.json").read_bytes()
    code, said = _restyle(capsys, job, painted)
    assert code == 2 and word in said and not worked
    assert (job / "job.json").read_bytes() == before  # no style that cannot be finished
    for path in painted.iterdir():
        path.unlink()
    picture.write_bytes(kept)
    assert _restyle(capsys, job, painted)[0] == 3 and len(worked) == 1
    spoil(picture)
    assert main(["resume", str(job)]) == 2 and word in capsys.readouterr().err
    assert len(worked) == 1


def test_portraits_of_another_film_are_told_before_stage_one(capsys, tmp_path, video, monkeypatch):
    """Which frames a film gives is known when it has been read."""
    trained = []

    def read(source, root, *_):
        scene, _ = make_subject(root)
        scene.save()
        return scene

    monkeypatch.setattr(pipeline, "run_capture", read)
    monkeypatch.setattr(pipeline, "train_prior", lambda *given: trained.append(given))
    write_image(tmp_path / "painted" / "0001.png", np.zeros((200, 160, 3), np.uint8))
    job, more = tmp_path / "job", ("--portraits", tmp_path / "painted")
    code, said = _stylize(capsys, video, job, "folder", *more)
    assert code == 2 and "used source frame (such as 0000.png)" in said and not trained
    status = json.loads((job / "status.json").read_text(encoding="utf-8"))
    assert status["problem"]["code"] == "portraits_names"


def test_finished_portraits_need_nothing_any_more(capsys, painted_job):
    job, painted, worked = painted_job
    assert _restyle(capsys, job, painted)[0] == 3
    (style,) = json.loads((job / "job.json").read_text(encoding="utf-8"))["styles"]
    shutil.rmtree(painted)
    before = (job / "job.json").read_bytes()
    for command in ("resume", "refine"):
        assert main([command, str(job)]) == 2 and "does not exist" in capsys.readouterr().err
    assert (job / "job.json").read_bytes() == before
    folder, settings = JobFolder(job), preset_settings("tiny")[0]
    stored = plan._stored_style(folder, style)
    key = step_keys(folder, settings, stored)["portraits"]
    finish_step(folder.style(style) / "portraits2d", StepRecord(key, 1.0, (), {}))
    assert main(["resume", str(job)]) == 3 and len(worked) == 2
