"""Bad input: one clear sentence, exit code 2, no traceback, nothing overwritten."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest

from toonify3d.cli import main
from toonify3d.errors import disk_sentence

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo"


def run(capsys, *arguments: object) -> tuple[int, str]:
    try:
        code = main([str(item) for item in arguments])
    except SystemExit as error:  # argparse
        code = int(error.code or 0)
    return code, capsys.readouterr().err


def assert_one_sentence(code: int, text: str, *words: str) -> None:
    lines = [line for line in text.splitlines() if line.startswith("toonify3d: ")]
    assert code == 2, text
    assert len(lines) == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word.lower() in lines[0].lower(), lines[0]


@pytest.fixture(scope="module")
def exemplar() -> Path:
    found = sorted(DEMO.glob("exemplar_*.png"))
    assert found, "the demo exemplars are part of the repository"
    return found[0]


@pytest.fixture(scope="module")
def noise_video(tmp_path_factory) -> Path:
    """A sharp textured wall that pans by, 40 frames, nobody in it."""
    path = tmp_path_factory.mktemp("video") / "wall.mp4"
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (90, 200, 3), np.uint8), (1600, 720))
    frames = [wall[:320, 8 * i : 8 * i + 240] for i in range(40)]
    iio.imwrite(path, np.stack(frames), fps=12, codec="libx264", plugin="FFMPEG")
    return path


@pytest.fixture
def exemplar_without_face(tmp_path) -> Path:
    path = tmp_path / "wall.png"
    wall = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(wall, (512, 512)))
    return path


def test_missing_capture(capsys, tmp_path, exemplar):
    done = run(capsys, "stylize", tmp_path / "no.mp4", exemplar, "--job", tmp_path / "job")
    assert_one_sentence(*done, "no.mp4")
    assert not (tmp_path / "job").exists()


def test_capture_that_is_no_video(capsys, tmp_path, exemplar):
    path = tmp_path / "text.mp4"
    path.write_text("this is no video")
    done = run(capsys, "stylize", path, exemplar, "--job", tmp_path / "job")
    assert_one_sentence(*done, "text.mp4")
    assert "index" not in done[1]  # ffmpeg misses it in any text that is called .mp4


def test_video_of_three_frames(capsys, tmp_path, exemplar):
    path = tmp_path / "short.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (3, 120, 96, 3), np.uint8)
    iio.imwrite(path, frames, fps=12, plugin="FFMPEG")
    done = run(capsys, "stylize", path, exemplar, "--job", tmp_path / "job")
    assert_one_sentence(*done, "3", "frames")


def test_video_with_no_person(capsys, tmp_path, exemplar, noise_video):
    done = run(capsys, "stylize", noise_video, exemplar, "--job", tmp_path / "job")
    assert_one_sentence(*done, "person")
    status = json.loads((tmp_path / "job" / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "failed"


def test_exemplar_without_a_face_fails_before_the_long_work(
    capsys, tmp_path, noise_video, exemplar_without_face
):
    job = tmp_path / "job"
    done = run(capsys, "stylize", noise_video, exemplar_without_face, "--job", job)
    assert_one_sentence(*done, "face")
    assert not job.exists()


def test_tiny_missing_and_broken_exemplars(capsys, tmp_path, noise_video):
    tiny = tmp_path / "tiny.png"
    cv2.imwrite(str(tiny), np.zeros((20, 20, 3), np.uint8))
    job = tmp_path / "job"
    assert_one_sentence(*run(capsys, "stylize", noise_video, tiny, "--job", job), "20")
    missing = tmp_path / "none.png"
    assert_one_sentence(*run(capsys, "stylize", noise_video, missing, "--job", job), "none.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG but not really")
    assert_one_sentence(*run(capsys, "stylize", noise_video, broken, "--job", job), "broken.png")
    assert not job.exists()


def test_unwritable_job_folder(capsys, tmp_path, exemplar, noise_video):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"mine")
    done = run(capsys, "stylize", noise_video, exemplar, "--job", blocked / "job")
    assert_one_sentence(*done, "file")
    assert blocked.read_bytes() == b"mine"


def test_folder_of_another_job(capsys, tmp_path, exemplar, noise_video):
    job = tmp_path / "job"
    job.mkdir()
    document = {"format": 1, "capture": {"path": "x", "sha256": "y"}, "settings": {}, "styles": {}}
    (job / "job.json").write_text(json.dumps(document))
    done = run(capsys, "stylize", noise_video, exemplar, "--job", job)
    assert_one_sentence(*done, "another capture")
    assert json.loads((job / "job.json").read_text()) == document
    assert [item.name for item in job.iterdir()] == ["job.json"]


def test_folder_with_other_files(capsys, tmp_path, exemplar, noise_video):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "mine.txt").write_text("mine")
    done = run(capsys, "stylize", noise_video, exemplar, "--job", tmp_path / "job")
    assert_one_sentence(*done, "not empty")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--preset", "fastest"], "preset"),
        (["--strength", "7"], "strength"),
        (["--set", "prior.nonsense=1"], "nonsense"),
        (["--device", "toaster"], "toaster"),
        (["--stylizer", "folder"], "portraits"),
        (["--stylizer", "crayon"], "crayon"),
        (["--portraits", "."], "--stylizer folder"),
        (["--set", "prior.steps=0"], "prior.steps"),
        (["--set", "capture.features=walls"], "walls"),
        (["--set", "capture.masks.folder=/none/such"], "/none/such"),
    ],
)
def test_bad_options(capsys, tmp_path, exemplar, noise_video, arguments, word):
    job = tmp_path / "job"
    done = run(capsys, "stylize", noise_video, exemplar, "--job", job, *arguments)
    assert_one_sentence(*done, word)
    assert not job.exists()


@pytest.mark.parametrize("command", [["resume"], ["restyle"], ["refine"]])
def test_commands_on_a_folder_without_a_job(capsys, tmp_path, exemplar, command):
    extra = [exemplar] if command == ["restyle"] else []
    assert_one_sentence(*run(capsys, *command, tmp_path, *extra), "no job")


def test_a_job_that_somebody_works_in_is_left_alone(capsys, tmp_path, exemplar):
    document = {"format": 1, "capture": {"path": "x", "sha256": "y"}, "settings": {}, "styles": {}}
    text = json.dumps(document)
    (tmp_path / "job.json").write_text(text)
    (tmp_path / "job.lock").write_text(str(os.getppid()))
    assert_one_sentence(*run(capsys, "restyle", tmp_path, exemplar), str(os.getppid()))
    assert (tmp_path / "job.json").read_text() == text
    assert sorted(item.name for item in tmp_path.iterdir()) == ["job.json", "job.lock"]


@pytest.mark.parametrize(
    "change",
    [{"styles": []}, {"settings": None}, {"capture": {}}, {"styles": {"toon": 1}}, {"format": 2}],
)
@pytest.mark.parametrize("command", ["resume", "refine", "export", "report"])
def test_damaged_and_newer_jobs(capsys, tmp_path, command, change):
    document = {"format": 1, "capture": {"path": "x", "sha256": "y"}, "settings": {}, "styles": {}}
    (tmp_path / "job.json").write_text(json.dumps(document | change))
    assert_one_sentence(*run(capsys, command, tmp_path), "new job")


def test_results_go_into_no_file(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"mine")
    assert_one_sentence(*run(capsys, "resume", blocked), "is a file")
    mended = disk_sentence(NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "job")
    assert mended is not None and "'a/b'" in mended
    assert disk_sentence(ConnectionError(errno.ECONNRESET, "reset"), "job") is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_no_text_or_too_long(capsys, tmp_path, exemplar, noise_video):
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    strange.write_bytes(noise_video.read_bytes())
    assert_one_sentence(*run(capsys, "reconstruct", strange, "--job", tmp_path / "job"), "rename")
    assert_one_sentence(*run(capsys, "reconstruct", noise_video, "--job", strange), "rename")
    long = tmp_path / ("x" * 300)
    assert_one_sentence(*run(capsys, "reconstruct", noise_video, "--job", long), "too long")
    assert sorted(item.name for item in tmp_path.iterdir()) == [strange.name]


def test_a_reader_that_has_enough_is_no_defect():
    command = [sys.executable, "-m", "toonify3d", "settings", "--preset", "preview"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=120) == 0, complaint
    assert "Error" not in complaint


def test_usage_errors_and_help(capsys, tmp_path):
    assert run(capsys)[0] == 2
    assert run(capsys, "stylize", "only-one")[0] == 2
    assert run(capsys, "--help")[0] == 0


def test_doctor_says_what_is_there(capsys):
    code = main(["doctor", "--json"])
    findings = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert findings["field kernels"]["ok"]
    assert findings["one OpenCV"]["ok"]
    assert code == 0


def test_settings_are_listed_with_their_meaning(capsys):
    assert main(["settings", "--preset", "preview"]) == 0
    text = capsys.readouterr().out
    assert "prior." in text
    assert "stylize.strength" in text
