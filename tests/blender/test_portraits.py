"""Portraits that the artist paints: in bpy with a stand-in, and with the real backend."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from blender_addon import jobfolder
from blender_addon.portraits import PortraitExport, complaint, misfit, numbered
from harness import ROOT, run_in_bpy
from test_features import fake_python, follow

from toonify3d import plan
from toonify3d.errors import InputError
from toonify3d.portrait2d import folder as backend_folder
from toonify3d.progress import SilentProgress
from toonify3d.service.request import load_request
from toonify3d.settings import preset_settings

posix = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script")
DEMO = ROOT / "assets" / "demo" / "exemplar_cel.png"


@posix
def test_painted_portraits_in_blender(extension_zip, tmp_path, version):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    (folder / "faceless.png").write_bytes(DEMO.read_bytes())
    result = run_in_bpy(
        "portraits",
        tmp_path,
        version=version,
        zip=str(extension_zip),
        python=fake_python(folder),
        folder=str(folder),
    )
    _handed_out(result)
    _refused(result)
    _used(result, folder)
    assert result["left"] == []


def _handed_out(result):
    assert result["poll"] == [False, False, True]
    running, pressable, shown, operators = result["running"]
    assert running and not pressable and "Writing the portraits" in shown
    assert "toonify3d.stop_portraits" in operators and result["tick_ms"] < 50.0
    shown, operators = result["exported"]
    assert "3 portraits to paint are in to paint Ü" in shown
    assert {"wm.path_open", "toonify3d.choose_portraits"} <= set(operators)
    assert result["fresh"] == ["0003.png", "0008.png", "0021.png", "arguments.json"]
    assert result["second"] == "good.film-001-portraits-001" and result["untouched"]
    assert "no stylized portraits yet" in result["no_style"]
    assert result["style"][-2:] == ["--style", "clay"]
    assert "No frame looks at the front of the head." in result["failed"][0]
    assert "toonify3d:" not in result["failed"][0]
    assert "cannot be written" in result["unwritable"]
    assert result["cancelled"][0] is False


def _refused(result):
    shown, operators, stylize, restyle, started = result["empty"]
    assert "There is no portrait in empty" in shown and "used" not in shown
    assert {"toonify3d.choose_portraits", "toonify3d.clear_portraits"} <= set(operators)
    assert "There is no portrait in empty" in stylize and "no portrait" in restyle
    assert started == 0
    shown, operators, stylize, started = result["gone"]
    assert "The folder gone is not there" in shown and "not there" in stylize and started == 0
    assert "toonify3d.choose_portraits" in operators
    chosen, shown, _ = result["cleared"]
    assert chosen == "" and "is not there" not in shown


def _used(result, folder):
    shown, operators = result["used"]
    fresh = folder / "to paint Ü"
    assert "Painted Portraits (3 used)" in shown and "Palette Only" in shown
    assert "toonify3d.mark_face" not in operators and result["searched"] is False
    wanted = {"stylizer": "folder", "portraits": str(fresh), "command": "stylize"}
    assert result["request"] == wanted and result["state"] == "DONE"
    code, drawn = result["late"]
    assert code == "portraits_names" and "names they were exported" in drawn.replace("', '", " ")
    assert result["resumed"] == ["DONE", "restyle", str(fresh)]
    assert result["opened"] == str(fresh)
    assert result["old"] == [0.25, ["stylize.eyes_weight=1.5"], False]


# -- the same rules here and in the backend -------------------------------------------------------


def test_what_counts_as_a_portrait_is_what_the_backend_takes(tmp_path):
    """Every picture that this side counts is one that the backend does not overlook."""
    names = ("0003.png", "toon 21.JPG", "7.webp", "0003_mask.png", "0007_confidence.png",
             "notes.txt", "head.png", "8.psd")  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(b"")

    scene = SimpleNamespace(frames=[SimpleNamespace(source_index=n) for n in (3, 7, 8, 21)])
    taken = backend_folder.match_pictures(scene, tmp_path, SilentProgress())
    assert numbered(tmp_path) == sorted(path.name for _, path in taken)
    assert complaint(tmp_path) == ""
    assert "is not there" in complaint(tmp_path / "none")


def test_names_are_held_against_the_frames_as_the_backend_does(tmp_path):
    """Its sentence, where the job's film has been read; before that, and where in doubt, none."""
    sys.path.insert(0, str(ROOT / "tests" / "portrait2d"))
    from portrait2d_person import made_up_job

    scene, folder = made_up_job(tmp_path / "job"), tmp_path / "painted"
    folder.mkdir()
    (folder / "toon 0001.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        backend_folder.match_pictures(scene, folder, SilentProgress())
    assert misfit(folder, tmp_path / "job") == str(caught.value)
    assert misfit(folder, tmp_path / "none") == "" == misfit(tmp_path / "gone", tmp_path / "job")
    (folder / f"{scene.frames[3].source_index:04d}.jpg").write_bytes(b"")
    assert misfit(folder, tmp_path / "job") == ""  # one fits: the backend tells of the other
    (folder / f"{scene.frames[3].source_index:04d}.jpg").unlink()
    (tmp_path / "job" / "capture" / "cameras.json").write_text("{")
    assert misfit(folder, tmp_path / "job") == ""


def test_the_backend_takes_the_request(tmp_path):
    """Blender's request with a folder, planned by the real backend: no face is looked for."""
    folder = tmp_path / "painted"
    folder.mkdir()
    (folder / "0003.png").write_bytes(b"painted")
    request = {"command": "restyle", "exemplar": str(DEMO), "stylizer": "folder",
               "portraits": str(folder)}  # fmt: skip
    jobfolder.write_request(tmp_path, request)
    _, settings = preset_settings("preview")
    style = plan._style_from_request(load_request(tmp_path / "request.json"), settings)
    assert style.stylizer == "folder" and style.portraits == folder


def test_the_real_export_is_understood(tmp_path):
    """A job whose film is not read yet: the backend's own sentence; then one with frames."""
    (tmp_path / "job.json").write_text(
        json.dumps(
            {
                "format": 1,
                "capture": {"path": "x", "sha256": "y"},
                "settings": {"preset": "preview"},
                "styles": {},
            }
        )
    )
    export = PortraitExport()
    export.start(sys.executable, tmp_path, tmp_path / "out")
    follow(export, 120)
    assert "no finished capture yet" in export.problem and export.count == 0
    sys.path.insert(0, str(ROOT / "tests" / "portrait2d"))
    from portrait2d_person import make_subject

    scene, _ = make_subject(tmp_path / "capture")
    scene.save()
    (tmp_path / "capture" / "step.json").write_text("{}")
    export.start(sys.executable, tmp_path, tmp_path / "Ünï out")
    follow(export, 120)
    assert export.problem == ""
    names = numbered(tmp_path / "Ünï out")
    assert len(names) == export.count >= 4
    frames = {f"{frame.source_index:04d}.png" for frame in scene.frames}
    assert set(names) <= frames
    with pytest.raises(OSError):
        export.start(str(Path(tmp_path / "none")), tmp_path, tmp_path / "out")
    assert not export.running
