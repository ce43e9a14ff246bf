"""The job folder: what may be re-opened, what is refused, and that nothing is overwritten."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from toonify3d.errors import InputError
from toonify3d.service.job import (
    JobFolder,
    StepRecord,
    check_style_name,
    file_hash,
    finish_step,
    finished_step,
    safe_name,
    step_key,
)


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "capture.mp4"
    path.write_bytes(b"video")
    return path


def code_of(error: pytest.ExceptionInfo[InputError]) -> str:
    return error.value.code


def test_create_writes_the_inputs_with_their_hash(tmp_path, capture):
    job = JobFolder(tmp_path / "Ünï çødé 空間" / "job")
    job.create(capture, {"preset": "preview"})
    document = json.loads((job.root / "job.json").read_text(encoding="utf-8"))
    assert document["capture"]["sha256"] == file_hash(capture)
    assert document["settings"] == {"preset": "preview"}


def test_the_same_job_reopens_and_another_capture_is_refused(tmp_path, capture):
    job = JobFolder(tmp_path / "job")
    job.create(capture, {"preset": "preview"})
    before = (job.root / "job.json").read_bytes()
    job.create(capture, {"preset": "preview"})
    other = tmp_path / "other.mp4"
    other.write_bytes(b"another video")
    with pytest.raises(InputError) as error:
        job.create(other, {"preset": "preview"})
    assert code_of(error) == "other_job"
    with pytest.raises(InputError) as error:
        job.create(capture, {"preset": "high"})
    assert code_of(error) == "other_settings"
    assert (job.root / "job.json").read_bytes() == before


def test_a_folder_with_other_files_is_left_alone(tmp_path, capture):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError) as error:
        JobFolder(root).create(capture, {})
    assert code_of(error) == "folder_not_empty"
    assert [item.name for item in root.iterdir()] == ["holiday.jpg"]


def test_unwritable_folder_and_file_in_its_place(tmp_path, capture):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(InputError) as error:
        JobFolder(blocked).create(capture, {})
    assert code_of(error) == "bad_folder"
    with pytest.raises(InputError) as error:
        JobFolder(blocked / "below").create(capture, {})
    assert code_of(error) == "unwritable"


def test_no_job_and_damaged_job(tmp_path):
    with pytest.raises(InputError) as error:
        _ = JobFolder(tmp_path).description
    assert code_of(error) == "no_job"
    (tmp_path / "job.json").write_text("{not json")
    with pytest.raises(InputError) as error:
        _ = JobFolder(tmp_path).description
    assert code_of(error) == "bad_job"


def test_styles_keep_their_names(tmp_path, capture):
    job = JobFolder(tmp_path / "job")
    job.create(capture, {})
    assert job.free_style_name("toon", {"sha": "a"}) == "toon"
    job.add_style("toon", {"sha": "a"})
    assert job.free_style_name("toon", {"sha": "a"}) == "toon"
    assert job.free_style_name("toon", {"sha": "b"}) == "toon-2"
    with pytest.raises(InputError) as error:
        job.add_style("toon", {"sha": "b"})
    assert code_of(error) == "style_exists"


def test_only_one_live_process_works_in_a_job(tmp_path):
    job = JobFolder(tmp_path)
    (tmp_path / "job.lock").write_text(str(os.getppid()))
    with pytest.raises(InputError) as error, job.locked():
        pass
    assert code_of(error) == "job_busy"
    (tmp_path / "job.lock").write_text("99999999")  # nobody: a crash left it
    with job.locked():
        assert (tmp_path / "job.lock").read_text() == str(os.getpid())
    assert not (tmp_path / "job.lock").exists()


def test_steps_are_finished_only_for_their_own_key(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        steps: int

    key = step_key("prior", "abc", Settings(10))
    assert key != step_key("prior", "abc", Settings(11)) != step_key("capture", "abc", Settings(11))
    assert finished_step(tmp_path, key) is None
    finish_step(tmp_path, StepRecord(key, 1.5, ("lost frames",), {"psnr": 30}))
    record = finished_step(tmp_path, key)
    assert record is not None
    assert record.figures == {"psnr": 30}
    assert record.warnings == ("lost frames",)
    assert finished_step(tmp_path, "other") is None


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a/b:c", "a_b_c"),
        ("CON", "_CON"),
        ("con.toon", "_con.toon"),
        ("com¹", "_com¹"),
        ("conman", "conman"),
        ("COM10", "COM10"),
        ("toon. .", "toon"),
        ("x" * 59 + ".y", "x" * 59),
        ("bad\u202egnp.exe", "bad_gnp.exe"),
        ("lone \ud800", "lone _"),
        ("U\u0308n", "Ün"),
        (" . ", "style"),
        ("空間", "空間"),
        ("x" * 99, "x" * 60),
    ],
)
def test_style_names_are_safe_on_windows(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["../up", "a/b", "NUL", "toon.", "", " ", "a\nb", "x" * 61])
def test_given_style_names_are_refused_not_bent(name):
    with pytest.raises(InputError, match="--style") as caught:
        check_style_name(name)
    assert "\n" not in str(caught.value)
    assert check_style_name("Ünï 空間") == "Ünï 空間"


def test_styles_that_differ_in_case_only_are_kept_apart(tmp_path):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    job = JobFolder(tmp_path / "job")
    job.create(video, {})
    job.add_style("Toon", {"exemplar": 1})
    assert job.free_style_name("toon", {"exemplar": 2}) == "toon-2"
    assert job.free_style_name("toon", {"exemplar": 1}) == "Toon"
    with pytest.raises(InputError, match="cannot tell"):
        job.add_style("toon", {"exemplar": 1})
