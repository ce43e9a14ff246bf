"""A real job from portraits painted in Blender: exported, painted, refused, mended, imported."""

import json
import sys
from pathlib import Path

import harness
import pytest
from harness import ROOT, run_in_bpy

sys.path.insert(0, str(ROOT / "tests" / "portrait2d"))
from portrait2d_person import HAIR, SKIN, made_up_job

EXEMPLAR = ROOT / "assets" / "demo" / "exemplar_cel.png"


@pytest.fixture(scope="module")
def painted(extension_zip, tmp_path_factory):
    """What happened in Blender, the folder it was in, and the made-up person's scene.

    Only the film is not real: what is read from one is written by ``made_up_job``.
    """
    if not harness.HAS_BPY:
        pytest.skip("bpy is not installed")
    folder = tmp_path_factory.mktemp("Ünï çødé 空間")
    scene = made_up_job(folder / "job")
    result = run_in_bpy(
        "painted",
        folder,
        timeout=600,
        zip=str(extension_zip),
        python=sys.executable,
        folder=str(folder),
        job=str(folder / "job"),
        exemplar=str(EXEMPLAR),
        photo="0003.png",
        larger="0024.png",
        unwanted="0051.png",
    )
    return result, folder, scene


def test_names_of_another_film_are_told_before_the_start(painted):
    result, folder, _ = painted
    sentence = f"No picture in {folder / 'wrong'} is named after a used source frame"
    shown, operators, said = result["wrong"]
    assert _plain(sentence) in _plain(shown) and "used)" not in shown
    assert {"toonify3d.choose_portraits", "toonify3d.clear_portraits"} <= set(operators)
    assert sentence in said and result["wrong_left"]
    assert "Painted Portraits (6 used)" in result["chosen"]


def test_what_goes_while_the_backend_starts_is_told_and_asked_again(painted):
    result, folder, _ = painted
    where = folder / "gemalt Ü"
    for what, code, sentence in (
        ("names", "portraits_names", f"No picture in {where} is named after a used source frame"),
        ("missing", "portraits_missing", f"There is no picture in {where}."),
    ):
        state, problem, shown, operators = result[what]
        assert state == "FAILED" and problem[0] == code and problem[1].startswith(sentence)
        assert problem[1].count(". ") == 0 and problem[1].endswith(".")  # one sentence
        assert _plain(sentence) in _plain(shown) and "then Resume" in shown
        assert {"toonify3d.choose_portraits", "toonify3d.resume"} <= set(operators)
        assert result[f"{what}_job"]  # no style that cannot be finished
    assert result["names"][1][1] in result["names_again"]
    assert "There is no portrait in gemalt Ü" in result["missing_again"]
    assert result["kept"]


def test_blender_and_the_backend_say_the_same_of_names(painted):
    """The add-on looks before the backend is started; the two sentences must not part."""
    result, folder, _ = painted
    _, _, said = result["wrong"]
    told = result["names"][1][1].replace(str(folder / "gemalt Ü"), str(folder / "wrong"))
    assert told in said


def test_the_pictures_of_the_right_frames_are_used(painted):
    result, _, scene = painted
    assert result["end"][0] == "DONE", (result["end"], result["output"])
    names = {f"{frame.source_index:04d}.png": frame for frame in scene.frames}
    used = [names[name].name for name in result["exported"] if name != "0051.png"]
    style = Path(result["result"]).parent
    pictures = [path.stem for path in (style / "portraits2d").glob("[0-9]???.png")]
    assert sorted(pictures) == sorted(used) and len(used) == 6
    report = json.loads((style / "result" / "report.json").read_text("utf-8"))
    assert report["views_stylized"] == 6


def test_the_avatar_has_the_painted_colors(painted):
    """Red and blue were exchanged in front and behind; the sides nobody painted are the photo's."""
    result, _, _ = painted
    assert len(result["objects"]) == 1
    for side, color in (("front", SKIN[::-1]), ("back", HAIR[::-1]), ("side", SKIN)):
        count, *found = result[side]
        assert count > 20
        assert (found[2] - found[0]) * (color[2] - color[0]) > 0, (side, found)
    _, red, _, blue = result["front"]
    assert blue - red > 40  # of 70 in the paint: far from the photo's -70


def _plain(text):
    """Without the line breaks of a narrow panel."""
    return "".join(text.split())
