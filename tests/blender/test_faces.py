"""Faces that are not found: the editor in bpy, the check, the error of a job, the hand-over."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from blender_addon import jobfolder
from blender_addon.face_check import FaceCheck, read_answers
from harness import ROOT, run_in_bpy
from PIL import Image

from toonify3d import plan
from toonify3d.errors import InputError
from toonify3d.portrait2d.clicks import CLICKS, places_of, read_landmarks
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.picture import read_picture
from toonify3d.service.job import JobFolder
from toonify3d.service.request import Request, load_request
from toonify3d.settings import preset_settings

FAKE = ROOT / "tests" / "blender" / "fake_worker.py"
DEMO = ROOT / "assets" / "demo" / "exemplar_cel.png"
posix = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script")

FACE = {
    "right_eye": [360.5, 476.25],
    "left_eye": [538.25, 472.75],
    "nose": [445.0, 595.0],
    "mouth_right": [387.75, 640.5],
    "mouth_left": [507.0, 641.0],
}
"""In the demo's cel exemplar, as the detector finds them."""

ODD = {f"turned{n}.jpg": n for n in range(1, 9)}


def fake_python(folder):
    path = folder / "python"
    text = f'#!/bin/sh\nFAKE_PACE=0.003 exec "{sys.executable}" "{FAKE}" "$@"\n'
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def write_odd_pictures(folder):
    """Pictures in which something is easily mistaken: turned, transparent, 16 bit, CMYK, huge."""
    rows, columns = np.mgrid[0:90, 0:160]
    picture = np.dstack([columns, 2 * rows, 255 - columns]).astype(np.uint8)
    picture[:30, :40] = (250, 20, 20)
    image = Image.fromarray(picture)
    for name, orientation in ODD.items():
        exif = Image.Exif()
        exif[274] = orientation
        image.save(folder / name, exif=exif, quality=98, subsampling=0)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.clip(columns * 2, 0, 255).astype(np.uint8)))
    clear.save(folder / "clear.png")
    clear.save(folder / "clear.webp", lossless=True)
    image.convert("L").save(folder / "gray.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=98)
    deep = np.linspace(0, 65535, 160)[None].repeat(90, 0).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    image.resize((6000, 3000), Image.Resampling.NEAREST).save(folder / "huge.png", compress_level=1)
    return [*ODD, "clear.png", "clear.webp", "gray.png", "palette.png", "cmyk.jpg", "deep.png",
            "huge.png"]  # fmt: skip


@posix
def test_faces_in_blender(extension_zip, tmp_path, version):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    for name in ("toon", "faceless Ünï", "faceless Zwei", "unchecked"):
        (folder / f"{name}.png").write_bytes(DEMO.read_bytes())
    Image.new("RGB", (300, 200), (9, 90, 200)).save(folder / "small.png")
    (folder / "text.png").write_text("no picture")
    pictures = write_odd_pictures(folder)
    result = run_in_bpy(
        "faces", tmp_path, version=version, zip=str(extension_zip), python=fake_python(folder),
        folder=str(folder), face=FACE, pictures=pictures,
    )  # fmt: skip
    _operator(result)
    _pixels(result, folder, pictures)
    _before_the_start(result)
    _several(result)
    _the_jobs_error(result)
    assert result["unchecked"][0] == "DONE"
    assert "were not checked" in result["unchecked"][1]
    assert result["opened_again"] == FACE and result["same_size"]
    assert "another picture" in result["other_picture"]
    assert result["left"] == []


def _operator(result):
    assert result["opened"] == ["RUNNING_MODAL"] and result["poll"] == [True, False]
    passed, kept = "PASS_THROUGH", "RUNNING_MODAL"
    assert result["passed"] == [passed, passed, kept, passed]
    assert not result["too_early"] and result["done"] == "FINISHED"
    assert result["marked"] == FACE
    assert result["entry"] == [[896, 896], str(DEMO.stat().st_size), 1]
    assert result["images_left"] == 0 and result["closed"]
    assert result["given_up"] == "CANCELLED" and result["kept"]
    assert result["changed"] != FACE["mouth_left"] and result["one_entry"] == 1
    assert result["ended"] == [True, "CANCELLED", "CANCELLED"]
    missing, text = result["refused"]
    assert "does not exist" in missing and "cannot be read as a picture" in text


def _pixels(result, folder, pictures):
    """What the artist clicks on lies where the backend looks."""
    for name in pictures:
        image, alpha = read_picture(folder / name)
        wanted = image.astype(float) / 255
        if alpha is not None:
            cover = alpha[..., None] / 255
            wanted = wanted * cover + 1 - cover
        got = np.load(folder / f"{name}.npy")
        with Image.open(folder / name) as file:
            longest = max(file.size)
        assert max(result["shown"][name]) == longest, name
        if name == "huge.png":  # both show it smaller, the points are of the file
            assert result["shown"][name] == [6000, 3000] and max(got.shape) == 2048
            assert np.abs(got[10, 10] - wanted[10, 10]).max() < 0.02
            continue
        assert got.shape == wanted.shape, name
        assert result["shown"][name] == [got.shape[1], got.shape[0]]
        if name != "cmyk.jpg":  # its conversion to RGB is a matter of taste
            assert np.abs(got - wanted).mean() < 0.02, name


def _before_the_start(result):
    assert "Looking for the exemplar's face" in result["searching"]
    count, shown, operators = result["stopped"]
    assert count == 0 and "No face was found in faceless Ünï.png" in shown
    assert "five clicks" in shown and "--set" not in shown
    assert {"toonify3d.mark_face", "toonify3d.colors_only"} <= set(operators)
    assert result["still_stopped"] == [0, False]
    shown, operators, buttons = result["mended"]
    assert "No face" not in shown and "toonify3d.clear_face" in operators
    assert any("Face Marked" in text for text in buttons)
    assert result["job"] == ["DONE", None] and result["handed"] == FACE
    assert Path(result["handed_in"]).parent.as_posix() == "faces"
    found = places_of(read_landmarks(Path(result["handed_file"]), 1.0))
    for name in CLICKS:
        assert np.allclose(found[name], FACE[name], atol=2.0), name
    assert result["colors"] == ["stylize.look=colour"]
    assert "Colors and Strokes Only" in result["colors_panel"] and result["marks_stay"]
    assert result["cleared"] == [False, 1]  # the other exemplar keeps its marks
    assert "No face was found" in result["asked_again"]
    settled, overrides, (shown, operators) = result["look_colors"]
    assert settled and overrides == ["stylize.look=colour"]
    assert "No face" not in shown and "Colors and Strokes Only" in shown
    assert "toonify3d.clear_face" not in operators  # there is nothing to take back
    assert result["look_of_one"] == ["stylize.look=colour"]
    assert result["look_of_all"] == ["stylize.look=ink"]


def _several(result):
    assert len(result["two_refused"]) == 2
    assert result["queue"] == ["DONE"] * 3
    assert result["queue_landmarks"] == {
        "faceless Ünï": True, "toon": True, "faceless Zwei": False
    }  # fmt: skip
    assert result["queue_overrides"] == {
        "faceless Ünï": None, "toon": None, "faceless Zwei": ["stylize.look=colour"]
    }  # fmt: skip


def _the_jobs_error(result):
    state, code, shown, operators = result["failed"]
    assert (state, code) == ("FAILED", "exemplar_no_face")
    assert "No face was found in faceless Ünï.png" in shown and "--set" not in shown
    assert {"toonify3d.mark_face", "toonify3d.colors_only"} <= set(operators)
    assert "Resume starts it again" in result["failed_mended"]
    assert result["resumed"] == ["DONE", True, ["stylize.look=colour"]]
    assert result["restyle_failed"] == "exemplar_no_face"
    assert result["restyle_resumed"] == ["DONE", "restyle", "faceless Zwei"]


# -- the real backend -----------------------------------------------------------------------------


def follow(check, seconds=120):
    deadline = time.monotonic() + seconds
    while check.running and time.monotonic() < deadline:
        check.poll()
        time.sleep(0.02)
    assert not check.running


def test_the_real_check_is_understood(tmp_path):
    """A face that is found, a picture without one, a file that is no picture."""
    blank, broken = tmp_path / "blank Ünï.png", tmp_path / "broken.png"
    Image.new("RGB", (200, 200), (240, 200, 180)).save(blank)
    broken.write_text("no picture")
    check = FaceCheck()
    check.start(sys.executable, [DEMO, blank, broken])
    assert check.running and not check.knows(DEMO)
    follow(check)
    codes = [check.answer(path).code for path in (DEMO, blank, broken)]
    assert codes == ["", "exemplar_no_face", "exemplar_unreadable"], check.problem
    assert check.knows(blank)
    blank.write_bytes(DEMO.read_bytes())
    assert not check.knows(blank)


@pytest.mark.parametrize("text", ["", "Traceback", "{}", '{"exemplars": [1]}', "{\n"])
def test_other_output_is_no_report(text):
    with pytest.raises(ValueError):
        read_answers(text)


def test_a_check_that_cannot_start_says_so(tmp_path):
    check = FaceCheck()
    check.start(str(tmp_path / "none"), [DEMO])
    assert not check.running and "were not checked" in check.problem
    assert check.knows(DEMO) and check.answer(DEMO).code == ""


def test_the_backend_takes_what_blender_hands_over(tmp_path):
    """A new job folder with clicked faces in it, and a picture without a face."""
    folder, capture = tmp_path / "job", tmp_path / "film.mp4"
    folder.mkdir()
    capture.write_bytes(b"film")
    Image.new("RGB", (200, 200), (240, 200, 180)).save(tmp_path / "blank.png")
    places = jobfolder.write_face(folder, str(DEMO), FACE)
    assert jobfolder.write_face(folder, str(DEMO), FACE) == places
    jobfolder.write_request(
        folder,
        {"command": "stylize", "exemplar": str(DEMO), "exemplar_landmarks": str(places)},
    )
    job = JobFolder(folder)
    job.create(capture, {})
    request = load_request(folder / "request.json")
    _, settings = preset_settings("preview")
    style = plan._record_style(job, plan._style_from_request(request, settings), None)
    assert style.landmarks is not None and style.landmarks.read_bytes() == places.read_bytes()
    blank = Request("stylize", exemplar=str(tmp_path / "blank.png"))
    with pytest.raises(InputError) as caught:
        plan._style_from_request(blank, settings)
    assert caught.value.code == "exemplar_no_face"
    blank = dataclasses.replace(blank, overrides=("stylize.look=colour",))
    _, settings = plan._with_overrides(preset_settings("preview")[0], blank)
    assert plan._style_from_request(blank, settings).landmarks is None


def test_clicked_and_found_agree(tmp_path):
    """The marks' form is what the command line prints, and what the stylizer takes."""
    path = tmp_path / "face.json"
    path.write_text(json.dumps(FACE))
    clicked = load_exemplar(DEMO, path).points
    found = load_exemplar(DEMO).points
    width = np.ptp(found[:, 0])
    assert np.median(np.linalg.norm((clicked - found)[:, :2], axis=1)) < 0.06 * width
    with pytest.raises(InputError) as caught:
        path.write_text(json.dumps(FACE | {"nose": FACE["right_eye"]}))
        load_exemplar(DEMO, path)
    assert caught.value.code == "exemplar_landmarks"
