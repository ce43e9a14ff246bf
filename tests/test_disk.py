"""A full disk: one sentence with the right file, and nothing that was there is harmed."""

from __future__ import annotations

import errno
import json
import types
from pathlib import Path

import numpy as np
import pytest

from toonify3d import pipeline, views
from toonify3d.files import write_atomic
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera


def full(path: Path) -> None:
    """What a write onto a full disk does: part of the file is there, and the error names none."""
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_error_names_the_file_that_was_wanted(tmp_path):
    path = tmp_path / "avatar.glb"
    path.write_bytes(b"whole")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, full)
    assert caught.value.filename == str(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_is_passed_on(tmp_path):
    def reads(path: Path) -> None:
        (tmp_path / "none.png").read_bytes()

    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "copy.png", reads)
    assert str(caught.value.filename).endswith("none.png")


def test_a_job_on_a_full_disk_is_no_defect(tmp_path, monkeypatch):
    def steps(context, settings, style):
        full(tmp_path / "frame.png")

    monkeypatch.setattr(pipeline, "_steps", steps)
    reporter = pipeline.Reporter(tmp_path, [("capture", 1.0)])
    context = pipeline.RunContext(pipeline.JobFolder(tmp_path), "cpu", reporter, "preview")
    with pytest.raises(OSError, match="No space left"):
        pipeline._run(context, None, None)
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert status["problem"]["code"] == "unwritable"
    assert str(tmp_path) in status["problem"]["message"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full disk at hand")
def test_a_film_that_ffmpeg_could_not_write_is_told(tmp_path, monkeypatch):
    """Without room ffmpeg leaves a file that it cannot open itself."""
    camera = Camera(np.diag([50.0, 50.0, 1.0]), np.eye(4), 32, 32)
    blank = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    monkeypatch.setattr(views.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    write_frames = views.imageio_ffmpeg.write_frames

    def into_nothing(path, *arguments, **options):
        return write_frames("/dev/full", *arguments, **options, output_params=["-f", "mp4"])

    monkeypatch.setattr(views.imageio_ffmpeg, "write_frames", into_nothing)
    path = tmp_path / "film.mp4"
    with pytest.raises(OSError, match="No space left") as caught:
        views.render_path(lambda *_: blank, [camera] * 3, path, SilentProgress())
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []
