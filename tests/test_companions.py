"""Changed masks, and changed pictures of a scene file, make the capture run again."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from toonify3d.companions import companion_files
from toonify3d.files import write_image
from toonify3d.plan import prepare, step_keys
from toonify3d.service.job import JobFolder
from toonify3d.service.request import Request

COUNT = 12


@pytest.fixture
def scene_file(tmp_path):
    """A ``transforms.json`` with pictures and masks beside it."""
    frames = []
    for index in range(COUNT):
        write_image(tmp_path / "scene" / f"{index}.png", np.full((40, 30, 3), index, np.uint8))
        write_image(tmp_path / "cut" / f"{index}.png", np.full((40, 30), 255, np.uint8))
        frames.append(
            {
                "file_path": f"{index}.png",
                "mask_path": f"../cut/{index}.png",
                "transform_matrix": np.eye(4).tolist(),
            }
        )
    path = tmp_path / "scene" / "transforms.json"
    path.write_text(json.dumps({"fl_x": 50.0, "w": 30, "h": 40, "frames": frames}))
    return path


def capture_key(job, request):
    settings, _ = prepare(request, job)
    return step_keys(job, settings, None)["capture"]


def reconstruct(capture, masks=""):
    overrides = (f"capture.masks.folder={masks}",) if masks else ()
    return Request("reconstruct", capture=str(capture), preset="preview", overrides=overrides)


def test_a_changed_mask_changes_the_key_and_a_deleted_folder_does_not(tmp_path, scene_file):
    folder = tmp_path / "masks"
    for index in range(COUNT):
        write_image(folder / f"{index}.png", np.full((40, 30), 255, np.uint8))
    job, request = JobFolder(tmp_path / "job"), reconstruct(scene_file, folder)
    first = capture_key(job, request)
    assert capture_key(job, request) == first
    write_image(folder / "3.png", np.zeros((40, 30), np.uint8))
    second = capture_key(job, request)
    assert second != first
    shutil.rmtree(folder)
    assert capture_key(job, Request("resume")) == second


@pytest.mark.parametrize("changed", ["scene/5.png", "cut/5.png"])
def test_what_a_scene_file_names_belongs_to_the_key(tmp_path, scene_file, changed):
    job, request = JobFolder(tmp_path / "job"), reconstruct(scene_file)
    first = capture_key(job, request)
    write_image(tmp_path / changed, np.full((40, 30, 3), 99, np.uint8))
    assert capture_key(job, request) != first


def test_a_folder_capture_has_no_companions(scene_file):
    assert companion_files(scene_file.parent, "") == []
    assert len(companion_files(scene_file, "")) == 2 * COUNT
    assert companion_files(scene_file, "/masks")[0].name == "masks"


def test_an_unreadable_scene_file_has_none(tmp_path):
    path = tmp_path / "transforms.json"
    path.write_text("{")
    assert companion_files(path, "") == []


def test_old_jobs_without_the_entry_still_open(tmp_path, scene_file):
    job, request = JobFolder(tmp_path / "job"), reconstruct(scene_file.parent)
    key = capture_key(job, request)
    document = job.description
    document["capture"].pop("companions_sha256", None)
    (tmp_path / "job" / "job.json").write_text(json.dumps(document))
    assert capture_key(job, dataclasses.replace(request)) == key
