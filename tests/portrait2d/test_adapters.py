"""Stylizers that the user brings: the real loading code on small files of the same form."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_vtoonify import make_checkout

from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.portrait2d.adapters.base import Photo, open_stylizer, stylize_with
from toonify3d.portrait2d.adapters.settings import AdapterSettings, absolute_paths
from toonify3d.portrait2d.hand_out import hand_out
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.store import load_stylized
from toonify3d.progress import SilentProgress


def _photos(scene, count=3, face=True):
    photos = []
    for frame in scene.frames[:count]:
        image = scene.image(frame)
        height, width = image.shape[:2]
        points = np.tile([width / 2, height / 2], (478, 1))
        points[[468, 473]] += [[-20, 0], [20, 0]]
        points[[61, 291]] += [[-12, 30], [12, 30]]
        photos.append(Photo(frame, image, points if face else None))
    return photos


# -- command ----------------------------------------------------------------------------------

NEGATIVE = (
    "import sys, cv2, pathlib\n"
    "a, b = map(pathlib.Path, sys.argv[1:3])\n"
    "pairs = [(p, b / p.name) for p in a.iterdir()] if a.is_dir() else [(a, b)]\n"
    "[cv2.imwrite(str(y), 255 - cv2.imread(str(x))) for x, y in pairs]\n"
)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "a program.py"
    path.write_text(NEGATIVE, encoding="utf-8")
    return f"'{sys.executable}' '{path}'"


@pytest.mark.parametrize("marks", ["{input} {output}", "{input_dir} {output_dir}"])
def test_command_stylizes_every_frame(subject, program, marks):
    scene, _ = subject
    photos = _photos(scene)
    stylizer = open_stylizer("command", AdapterSettings(command=f"{program} {marks}"), "cpu")
    made = stylizer.stylize(photos, SilentProgress())
    assert list(made) == [photo.frame.name for photo in photos]
    for photo in photos:
        assert np.array_equal(made[photo.frame.name], 255 - photo.image)


def test_a_whole_set_goes_through_masks_and_files(subject, program, tmp_path):
    scene, _ = subject
    stylizer = open_stylizer(
        "command", AdapterSettings(command=f"{program} {{input_dir}} {{output_dir}}"), "cpu"
    )
    made = stylize_with(
        stylizer, scene, tmp_path / "out", StylizeSettings(max_yaw=0.6), SilentProgress()
    )
    again = load_stylized(tmp_path / "out", scene)
    assert len(again.views) == len(made.views) >= 4
    for view in again.views:
        truth = scene.mask(view.frame) > 127
        found = view.mask > 127
        assert (truth & found).sum() / (truth | found).sum() > 0.9
        assert np.array_equal(view.image, 255 - scene.image(view.frame))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "needs a program"),
        ("tool {input}", "needs a program"),
        ("tool 'x {input} {output}", "cannot be read"),
        ("/no/such/tool {input} {output}", "cannot be started"),
        (
            f"{sys.executable} -c 'raise SystemExit(\"no GPU here\")' {{input}} {{output}}",
            "failed with 1: no GPU here",
        ),
    ],
)
def test_bad_commands_get_a_sentence(subject, command, sentence):
    scene, _ = subject
    with pytest.raises(InputError, match=sentence):
        open_stylizer("command", AdapterSettings(command=command), "cpu").stylize(
            _photos(scene), SilentProgress()
        )


def test_a_program_that_hangs_is_stopped(subject):
    scene, _ = subject
    command = f"{sys.executable} -c 'import time; time.sleep(60)' {{input}} {{output}}"
    settings = AdapterSettings(command=command, timeout=0.5)
    with pytest.raises(InputError, match="did not end within"):
        open_stylizer("command", settings, "cpu").stylize(_photos(scene), SilentProgress())


def test_a_program_that_writes_nothing(subject, tmp_path):
    scene, _ = subject
    settings = AdapterSettings(command=f"{sys.executable} -c pass {{input}} {{output}}")
    with pytest.raises(InputError, match="gave back no picture"):
        stylize_with(
            open_stylizer("command", settings, "cpu"),
            scene,
            tmp_path,
            StylizeSettings(max_yaw=0.6),
            SilentProgress(),
        )


# -- ONNX -------------------------------------------------------------------------------------


def _onnx_model(path: Path, shape, last: bool, enlarge: int = 1) -> Path:
    """A model that turns ``x`` into ``-x`` (the negative in -1..1), of any layout and size."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes, extra = [helper.make_node("Neg", ["photo"], ["negative"])], []
    if enlarge > 1:
        scales = np.array([1, 1, enlarge, enlarge], np.float32)
        extra = [onnx.numpy_helper.from_array(scales, "scales")]
        nodes.append(
            helper.make_node("Resize", ["negative", "", "scales"], ["toon"], mode="nearest")
        )
    else:
        nodes.append(helper.make_node("Identity", ["negative"], ["toon"]))
    free = [1, "h", "w", 3] if last else [1, 3, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "negative",
        [helper.make_tensor_value_info("photo", kind, shape)],
        [helper.make_tensor_value_info("toon", kind, free if enlarge == 1 else None)],
        extra,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value_range", ["-1..1"])
def test_onnx_models_of_either_layout(subject, tmp_path, last, value_range):
    scene, _ = subject
    shape = [1, "h", "w", 3] if last else [1, 3, "h", "w"]
    model = _onnx_model(tmp_path / "model.onnx", shape, last)
    settings = AdapterSettings(model=str(model), value_range=value_range, channels="bgr")
    photo = _photos(scene, 1)[0]
    made = open_stylizer("onnx", settings, "cpu").stylize([photo], SilentProgress())
    assert np.abs(made[photo.frame.name].astype(int) - (255 - photo.image)).max() <= 1


def test_onnx_models_of_a_fixed_size_and_a_larger_answer(subject, tmp_path):
    scene, _ = subject
    photo = _photos(scene, 1)[0]
    model = _onnx_model(tmp_path / "model.onnx", [1, 3, 256, 256], False, enlarge=2)
    made = open_stylizer("onnx", AdapterSettings(model=str(model)), "cpu").stylize(
        [photo], SilentProgress()
    )[photo.frame.name]
    assert made.shape == photo.image.shape
    assert np.abs(made.astype(int) - (255 - photo.image)).mean() < 4.0


def test_onnx_bad_files(subject, tmp_path):
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing of the sort")
    gray = _onnx_model(tmp_path / "gray.onnx", [1, 1, "h", "w"], False)
    for path, sentence in (
        (tmp_path / "gone.onnx", "that exists"),
        (broken, "cannot|can read"),
        (gray, "three colours"),
    ):
        with pytest.raises(InputError, match=sentence):
            open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")


def test_onnx_without_the_package(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")


# -- VToonify ---------------------------------------------------------------------------------


def _vtoonify(folder, **changes):
    model = make_checkout(folder, changes.pop("pickled", False), changes.pop("styles", 3))
    settings = AdapterSettings(checkout=str(folder), model=str(model), trust_pickles=True)
    return dataclasses.replace(settings, **changes)


def test_vtoonify_runs_the_users_clone(subject, tmp_path):
    scene, _ = subject
    photos = _photos(scene, 2)
    settings = _vtoonify(tmp_path, style_id=1, style_degree=0.5)
    progress = SilentProgress()
    made = open_stylizer("vtoonify", settings, "cpu").stylize(photos, progress)
    assert any("non-commercial" in warning for warning in progress.warnings)
    photo = photos[0]
    height, width = photo.image.shape[:2]
    middle = np.s_[height // 2 - 10 : height // 2 + 10, width // 2 - 10 : width // 2 + 10]
    expected = photo.image[middle][..., ::-1] + 0.5 * 0.4 * 127.5  # red and blue swapped, lifted
    found = made[photo.frame.name][middle].astype(float)
    assert np.abs(found - np.clip(expected, 0, 255)).mean() < 12.0


def test_vtoonify_leaves_out_frames_without_a_face(subject, tmp_path):
    scene, _ = subject
    photos = [*_photos(scene, 2), *_photos(scene, 4, face=False)[2:]]
    progress = SilentProgress()
    settings = _vtoonify(tmp_path, styles=0)
    made = open_stylizer("vtoonify", settings, "cpu").stylize(photos, progress)
    assert set(made) == {photo.frame.name for photo in photos[:2]}
    assert any("2 frames without a face" in warning for warning in progress.warnings)


def test_vtoonify_pickles_need_consent(subject, tmp_path):
    scene, _ = subject
    for pickled, styles in ((True, 0), (False, 3)):
        folder = tmp_path / f"{pickled}"
        settings = _vtoonify(folder, pickled=pickled, styles=styles, trust_pickles=False)
        with pytest.raises(InputError, match=r"Python pickle.*trust_pickles=true"):
            open_stylizer("vtoonify", settings, "cpu").stylize(_photos(scene), SilentProgress())


def test_vtoonify_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="your clone"):
        open_stylizer("vtoonify", AdapterSettings(), "cpu")
    settings = _vtoonify(tmp_path)
    (tmp_path / "checkpoint" / "encoder.pt").unlink()
    with pytest.raises(InputError, match=r"encoder\.pt' is missing"):
        open_stylizer("vtoonify", settings, "cpu")


# -- handing out ------------------------------------------------------------------------------


def test_frames_handed_out_are_read_back(subject, tmp_path):
    from toonify3d.portrait2d.folder import load_folder_views

    scene, _ = subject
    names = hand_out(scene, None, tmp_path / "out", StylizeSettings(max_yaw=0.6), SilentProgress())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    views = load_folder_views(
        scene, tmp_path / "out", None, StylizeSettings(), SilentProgress()
    ).views
    assert len(views) == len(names) >= 4
    assert all(np.array_equal(v.image, scene.image(v.frame)) for v in views)


def test_painted_pictures_are_never_written_over(subject, tmp_path):
    scene, _ = subject
    write_image(tmp_path / "0001.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="not an empty folder"):
        hand_out(scene, None, tmp_path, StylizeSettings(), SilentProgress())


def test_paths_in_a_job_hold_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_paths(AdapterSettings(model="a.onnx")).model == str(tmp_path / "a.onnx")
    clone = absolute_paths(AdapterSettings(checkout="clone", model="checkpoint/x.pt"))
    assert (clone.checkout, clone.model) == (str(tmp_path / "clone"), "checkpoint/x.pt")
