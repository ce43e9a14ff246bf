"""What artists do beside the main path, in every Blender version that is here."""

import os

import pytest
from harness import ROOT, run_in_bpy
from test_features import fake_python


@pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script")
def test_what_artists_do(extension_zip, tmp_path, version):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    source = ROOT / "assets" / "demo" / "exemplar_cel.png"
    (folder / "toon.png").write_bytes(source.read_bytes())
    (folder / "my film.mp4").write_bytes(b"film")
    result = run_in_bpy(
        "artist",
        tmp_path,
        version=version,
        zip=str(extension_zip),
        python=fake_python(folder),
        folder=str(folder),
    )
    _the_panel(result, folder)
    _files_and_undo(result)
    _colors(result)
    _moved_folders(result)
    assert result["renamed"] == "Großmutter"
    assert result["left"] == []


def _the_panel(result, folder):
    shown, operators = result["first"]
    assert shown.index("First set up") < shown.index("1. The Film") < shown.index("2. The Style")
    assert shown.index("2. The Style") < shown.index("3. The Avatar")
    assert shown.count("First set up") == 1 and "toonify3d.open_preferences" in operators
    assert "my film.mp4" in result["unsaved"] and "toon.png" in result["unsaved"]
    assert "First set up" not in result["unsaved"]
    assert "Jobs go to " in result["unsaved"]
    assert result["unsaved"] != result["saved"]  # beside the .blend now
    for name in ("none.png", "none.mp4"):
        assert f"{name} is not there: choose it again" in result["missing"]
    assert "is not there" not in result["own_output"]
    wanted = f"Jobs go to {folder / 'jobs'} Restyle"
    assert wanted.replace(" ", "") in result["own_output"].replace(" ", "")  # over several lines
    assert result["reset_poll"] == [False, True]
    assert "Features (2 changed)" in result["changed"]
    assert result["reset"] == [*result["start"], False]
    assert not result["restyle_busy"][0] and result["restyle_free"]
    assert "Restyle can start when the job is over" in result["restyle_busy"][1]


def _files_and_undo(result):
    knows, strength = result["after_undo"]
    assert knows and strength != 0.3
    assert result["reopened"] == ["DONE", 1]
    assert result["two"] == ["DONE", "DONE", 3]
    state, count, (shown, operators) = result["elsewhere"]
    assert (state, count) == ("DONE", 0)
    assert "It was started in another file" in shown
    assert "toonify3d.import_result" in operators and result["brought"] == 1
    assert result["seen"] == [False, True, False]


def _colors(result):
    assert result["shown_poll"] == [False, True]
    sentence = "This viewport shows the shape without its colors"
    assert sentence in result["gray"][0] and sentence not in result["shown_panel"][0]
    assert "toonify3d.show_avatar" in result["shown_panel"][1]
    shading, perspective, middle, distance, behind, up = result["shown"]
    assert (shading, perspective) == ("MATERIAL", "PERSP")
    assert middle == pytest.approx([3.05, 2.0, 1.05], abs=1e-5)  # of the fake's triangle
    assert 0.05 < distance < 0.5  # 0.1 m are seen whole, and large
    assert behind == [0.0, -1.0, 0.0] and up == [0.0, 0.0, 1.0]  # the eye is at -Y
    assert result["kept_shading"] == "SOLID"
    shown, operators = result["agx"]
    assert "The view transform AgX makes" in shown and "toonify3d.true_colors" in operators
    name, (shown, operators) = result["standard"]
    assert name == "Standard"
    assert "AgX" not in shown and "toonify3d.true_colors" not in operators


def _moved_folders(result):
    for shown, operators in (result["gone"], result["gone_last"]):
        assert "is gone: open it where it is now" in shown and "toonify3d.attach" in operators
    assert "toonify3d.remove_job" in result["gone"][1]
    allowed, shown = result["gone_restyle"]
    assert not allowed and "Restyle needs the job's folder, which is gone" in shown
    assert "choose a folder with a job.json" in result["no_job"]
    assert result["found"] == [True, True, True, True]
    assert len(result["others"]) == 2 and not any(result["others"])
