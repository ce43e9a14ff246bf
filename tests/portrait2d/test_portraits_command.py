"""``toonify3d portraits`` and ``face`` as a user runs them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from portrait2d_person import make_subject

from toonify3d.cli import main
from toonify3d.files import write_image, write_json
from toonify3d.portrait2d.pipeline import select_frames
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.settings import StyleSettings, preset_settings

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"


def _run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(item) for item in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def _style(**changes) -> dict:
    settings = StyleSettings(stylize=StylizeSettings(**changes))
    return {"stylizer": "builtin", "settings": dataclasses.asdict(settings)}


@pytest.fixture(scope="module")
def made_job(tmp_path_factory):
    """A job with a finished capture, no style yet."""
    root = tmp_path_factory.mktemp("job")
    scene, _ = make_subject(root / "capture")
    scene.save()
    write_json(root / "capture" / "step.json", {})
    return root


@pytest.fixture
def job(made_job):
    """The job and what writes its styles."""

    def describe(**styles: dict) -> Path:
        settings = dataclasses.asdict(preset_settings("preview")[0])
        capture = {"path": "x.mp4", "sha256": "y"}
        document = {"format": 1, "capture": capture, "settings": settings, "styles": styles}
        write_json(made_job / "job.json", document)
        return made_job

    return describe


def _expected(root: Path, settings: StylizeSettings) -> list[str]:
    frames = select_frames(Scene.load(root / "capture"), settings, SilentProgress())
    return [f"{frame.source_index:04d}.png" for frame in frames]


def test_a_job_without_a_style_hands_out_its_presets_frames(capsys, job, tmp_path):
    root = job()
    code, out, _ = _run(capsys, "portraits", root, "--export", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert code == 0
    assert names == _expected(root, StylizeSettings())
    assert out.splitlines() == [str(tmp_path / "out" / name) for name in names]


def test_the_newest_styles_settings_choose_the_frames(capsys, job, tmp_path):
    root = job(first=_style(), second=_style(max_yaw=1.0, max_frames=8, min_frames=1))
    assert _run(capsys, "portraits", root, "--export", tmp_path / "out")[0] == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == _expected(root, StylizeSettings(max_yaw=1.0, max_frames=8, min_frames=1))
    assert names != _expected(root, StylizeSettings())


def test_a_styles_portraits_are_handed_out_with_their_sides(capsys, job, tmp_path):
    root = job(toon=_style())
    scene = Scene.load(root / "capture")
    folder = root / "styles" / "toon" / "portraits2d"
    sides = [f for f in scene.frames if 1.0 < abs(f.yaw) < 2.0]
    painted = {f.source_index: f for f in [*scene.frames[8:10], *sides]}
    for frame in painted.values():
        write_image(folder / f"{frame.name}.png", 255 - scene.image(frame))
    arguments = ("portraits", root, "--style", "toon", "--export", tmp_path / "out")
    code, _, said = _run(capsys, *arguments)
    assert code == 2 and "no style 'toon' with finished portraits" in said
    write_json(folder / "step.json", {})
    assert _run(capsys, *arguments)[0] == 0
    assert len(sides) >= 4
    written = {path.name: cv2.imread(str(path)) for path in (tmp_path / "out").iterdir()}
    assert sorted(written) == [f"{index:04d}.png" for index in sorted(painted)]
    for index, frame in painted.items():
        expected = 255 - scene.image(frame)[..., ::-1]
        assert np.array_equal(written[f"{index:04d}.png"], expected)


def test_what_cannot_be_handed_out_gets_a_sentence(capsys, job, tmp_path):
    root = job(toon={"settings": []})
    (tmp_path / "0000.png").write_bytes(b"painted")
    for folder, arguments, sentence in (
        (root, ("--export", tmp_path / "out"), "damaged"),
        (job(), ("--export", tmp_path), "not an empty folder"),
        (root, ("--export", tmp_path / "out", "--style", "ink"), "no style 'ink'"),
        (tmp_path, ("--export", tmp_path / "out"), "no job"),
    ):
        document = {"toon": {"settings": []}} if sentence == "damaged" else {}
        job(**document)
        code, out, said = _run(capsys, "portraits", folder, *arguments)
        assert (code, out) == (2, "")
        assert said.startswith("toonify3d: ") and sentence in said and said.count("\n") == 1
    assert (tmp_path / "0000.png").read_bytes() == b"painted"
    assert not (tmp_path / "out").exists()


def test_a_capture_that_is_not_finished(capsys, tmp_path):
    document = {"format": 1, "capture": {"path": "x", "sha256": "y"}, "settings": {}, "styles": {}}
    (tmp_path / "job.json").write_text(json.dumps(document), encoding="utf-8")
    code, _, said = _run(capsys, "portraits", tmp_path, "--export", tmp_path / "out")
    assert code == 2 and "no finished capture" in said


# -- face -------------------------------------------------------------------------------------


@pytest.fixture
def wall(tmp_path):
    path = tmp_path / "wall.png"
    coarse = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    write_image(path, np.asarray(cv2.resize(coarse, (512, 512))))
    return path


@pytest.fixture(scope="module")
def exemplar():
    return sorted(DEMO.glob("exemplar_*.png"))[0]


def test_a_face_that_is_found(capsys, exemplar):
    code, out, _ = _run(capsys, "face", exemplar)
    assert (code, out) == (0, f"The face in {exemplar.name} is found.\n")


def test_faces_as_json(capsys, exemplar, wall, tmp_path):
    """The places can be given back with ``--exemplar-landmarks``."""
    from toonify3d.portrait2d.clicks import read_landmarks

    gone = tmp_path / "gone.png"
    code, out, _ = _run(capsys, "face", "--json", exemplar, wall, gone)
    good, without, missing = json.loads(out)["exemplars"]
    assert code == 2
    assert (good["found"], without["found"], missing["found"]) == (True, False, False)
    assert (good["exemplar"], good["code"]) == (str(exemplar), "")
    assert without["places"] is None and without["code"] and "face" in without["message"]
    assert missing["code"] == "exemplar_missing" and "gone.png" in missing["message"]
    places = good["places"]
    height, width = cv2.imread(str(exemplar)).shape[:2]
    right, left = np.array(places["right_eye"]), np.array(places["left_eye"])
    mouth = (np.array(places["mouth_right"]) + np.array(places["mouth_left"])) / 2
    assert 0 < right[0] < left[0] < width  # the person's right is on the picture's left
    assert 0 < right[1] < places["nose"][1] < mouth[1] < height
    file = tmp_path / "face.json"
    file.write_text(json.dumps(places), encoding="utf-8")
    assert read_landmarks(file, 1.0).shape == (478, 3)


def test_a_picture_without_a_face_ends_with_2(capsys, exemplar, wall):
    code, out, _ = _run(capsys, "face", wall, exemplar)
    first, second = out.splitlines()
    assert code == 2
    assert "face" in first and "is found" not in first
    assert second == f"The face in {exemplar.name} is found."
