"""ONNX models of every form of input, made by the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from portrait2d_person import made_up_photos

from toonify3d.errors import InputError
from toonify3d.portrait2d.adapters.base import Photo, open_stylizer, stylize_with
from toonify3d.portrait2d.adapters.settings import AdapterSettings
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def _model(path: Path, shape, nodes, constants=(), kind=FLOAT) -> Path:
    """A model from ``photo`` to ``toon``."""
    graph = helper.make_graph(
        [helper.make_node(op, names.split(), [out], **more) for op, names, out, more in nodes],
        "toonify",
        [helper.make_tensor_value_info("photo", kind, shape)],
        [helper.make_tensor_value_info("toon", kind, None)],
        [onnx.numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def _negative(path: Path, shape, white=0.0) -> Path:
    """``white - photo``: the negative where colours end at ``white`` (0: from -1 to 1)."""
    return _model(path, shape, [("Sub", "white photo", "toon", {})], [("white", white)])


def _convolution(path: Path, shape, weights) -> Path:
    """A 1 x 1 convolution, which knows that there are three colours and where they are."""
    kernel = np.asarray(weights, np.float32)[..., None, None]
    nodes = [("Conv", "photo kernel", "toon", {})]
    if shape[3] in ("c", 3):
        nodes = [
            ("Transpose", "photo", "first", {"perm": [0, 3, 1, 2]}),
            ("Conv", "first kernel", "drawn", {}),
            ("Transpose", "drawn", "toon", {"perm": [0, 2, 3, 1]}),
        ]
    return _model(path, shape, nodes, [("kernel", kernel)])


def _photo(scene, size=(560, 420)) -> Photo:
    """A picture of noise, so that any resampling shows."""
    noise = np.random.default_rng(3).integers(0, 255, (*size, 3), np.uint8)
    return Photo(scene.frames[0], noise, None)


def _run(path: Path, photo: Photo, **settings) -> np.ndarray:
    stylizer = open_stylizer("onnx", AdapterSettings(model=str(path), **settings), "cpu")
    return stylizer.stylize([photo], SilentProgress())[photo.frame.name].astype(int)


def _fed(stylizer, photo: Photo) -> np.ndarray:
    """What the model gets for a photo."""
    seen, session = [], stylizer.session

    class Spy:
        def run(self, outputs, inputs):
            seen.extend(inputs.values())
            return session.run(outputs, inputs)

    stylizer.session = Spy()
    stylizer.run(photo.image)
    return seen[-1]


FREE = [
    [1, 3, "h", "w"],
    [1, "h", "w", 3],
    ["n", "c", "h", "w"],
    [None, None, None, None],
    [2, 3, "h", "w"],
    [2, "h", "w", 3],
]


@pytest.mark.parametrize("shape", FREE, ids=str)
@pytest.mark.parametrize(
    ("value_range", "white"), [("-1..1", 0.0), ("0..1", 1.0), ("0..255", 255.0)]
)
def test_a_free_size_is_padded_never_scaled(subject, tmp_path, shape, value_range, white):
    photo = _photo(subject[0])
    made = _run(_negative(tmp_path / "m.onnx", shape, white), photo, value_range=value_range)
    assert np.abs(made - (255 - photo.image)).max() <= 1


@pytest.mark.parametrize(
    ("settings", "size"),
    [({}, (576, 448)), ({"multiple": 1}, (560, 420)), ({"multiple": 64}, (576, 448))],
)
def test_free_sides_are_padded_to_a_multiple(subject, tmp_path, settings, size):
    photo = _photo(subject[0])
    path = _negative(tmp_path / "m.onnx", [1, 3, "h", "w"])
    stylizer = open_stylizer("onnx", AdapterSettings(model=str(path), **settings), "cpu")
    fed = _fed(stylizer, photo)
    assert fed.shape == (1, 3, *size)
    inside = fed[0].transpose(1, 2, 0)[:560, :420]
    assert np.allclose((inside + 1) * 127.5, photo.image, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "settings", "size"),
    [
        ([1, 3, 256, "w"], {}, (256, 192)),
        ([1, 3, "h", 256], {}, (352, 256)),  # 341.3 rows, padded
        ([1, 3, "h", 256], {"size": 300}, (300, 256)),
        ([1, 3, "h", "w"], {"size": 128}, (128, 128)),
        ([1, 3, 256, 192], {"size": 128}, (256, 192)),  # the model's own wins
        ([2, 3, 256, 256], {}, (256, 256)),
        (["n", "c", 96, 256], {}, (96, 256)),
    ],
)
def test_sides_that_model_or_user_fix(subject, tmp_path, shape, settings, size):
    coarse = np.random.default_rng(5).integers(0, 255, (7, 5, 3), np.uint8)
    smooth = np.asarray(cv2.resize(coarse, (420, 560), interpolation=cv2.INTER_CUBIC))
    photo = Photo(subject[0].frames[0], smooth, None)
    path = _negative(tmp_path / "m.onnx", shape)
    stylizer = open_stylizer("onnx", AdapterSettings(model=str(path), **settings), "cpu")
    fed = _fed(stylizer, photo)
    assert fed.shape == (shape[0] if shape[0] == 2 else 1, 3, *size)
    made = stylizer.run(photo.image).astype(int)
    assert made.shape == photo.image.shape
    assert np.abs(made - (255 - photo.image)).max() < 12  # nothing shifted, cut off or bent


@pytest.mark.parametrize("shape", [["n", "c", "h", "w"], ["n", "h", "w", "c"], [1, None, 64, None]])
def test_the_colours_axis_is_found_where_the_shape_leaves_it_open(subject, tmp_path, shape):
    photo = _photo(subject[0], (64, 48))
    swap = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    made = _run(_convolution(tmp_path / "m.onnx", shape, swap), photo)
    assert np.abs(made - photo.image[..., ::-1]).max() <= 1


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_order_of_colours(subject, tmp_path, channels):
    """A model that raises its first channel by half the range."""
    raised = [("Add", "photo shift", "toon", {})]
    shift = [("shift", np.array([1.0, 0, 0]).reshape(1, 3, 1, 1))]
    path = _model(tmp_path / "m.onnx", [1, 3, "h", "w"], raised, shift)
    photo = _photo(subject[0], (64, 48))
    change = _run(path, photo, channels=channels) - photo.image
    first = 0 if channels == "rgb" else 2
    assert change[..., first].mean() > 50
    assert np.abs(np.delete(change, first, axis=2)).max() <= 1


def test_an_answer_larger_than_the_input(subject, tmp_path):
    path = _model(
        tmp_path / "m.onnx",
        [1, 3, 256, 256],
        [
            ("Neg", "photo", "negative", {}),
            ("Resize", "negative none scales", "toon", {"mode": "nearest"}),
        ],
        [("none", []), ("scales", [1, 1, 2, 2])],
    )
    photo = made_up_photos(subject[0], 1)[0]
    assert np.abs(_run(path, photo) - (255 - photo.image)).mean() < 4.0


def test_frames_without_numbers_are_left_out(subject, tmp_path):
    """A square root of the dark: NaN where a picture is blacker than 5 %."""
    scene, _ = subject
    root = [("Add", "photo shift", "lifted", {}), ("Sqrt", "lifted", "toon", {})]
    path = _model(tmp_path / "m.onnx", [1, 3, "h", "w"], root, [("shift", 0.9)])
    stylizer = open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")
    photos, progress = made_up_photos(scene), SilentProgress()
    black = Photo(photos[1].frame, np.zeros_like(photos[1].image), None)
    made = stylizer.stylize([photos[0], black, photos[2]], progress)
    assert list(made) == [photos[0].frame.name, photos[2].frame.name]
    assert f"1 of 3 frames is no picture (NaN) ({black.frame.name})" in progress.warnings[0]


def test_a_model_without_numbers_is_refused_before_the_job(tmp_path):
    nodes = [("Mul", "photo zero", "nothing", {}), ("Div", "nothing nothing", "toon", {})]
    path = _model(tmp_path / "m.onnx", [1, 3, "h", "w"], nodes, [("zero", 0.0)])
    with pytest.raises(InputError, match=r"NaN or infinity.*adapter\.value_range"):
        open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")


def test_a_model_that_answers_black_gets_a_sentence(subject, tmp_path):
    path = _model(
        tmp_path / "m.onnx",
        [1, 3, "h", "w"],
        [("Mul", "photo zero", "nothing", {}), ("Sub", "nothing one", "toon", {})],
        [("zero", 0.0), ("one", 1.0)],
    )
    stylizer = open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")
    with pytest.raises(InputError, match="No person is found in any"):
        stylize_with(
            stylizer, subject[0], tmp_path / "out", StylizeSettings(max_yaw=0.6), SilentProgress()
        )


def test_bad_files_are_refused_before_the_job(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing of the sort")
    gray = _negative(tmp_path / "gray.onnx", [1, 1, "h", "w"])
    rgba = _negative(tmp_path / "rgba.onnx", [1, "h", "w", 4])
    both = _convolution(tmp_path / "four.onnx", ["n", "c", "h", "w"], np.eye(4))
    mean = _model(tmp_path / "mean.onnx", FREE[0], [("GlobalAveragePool", "photo", "toon", {})])
    flat = _model(tmp_path / "flat.onnx", FREE[0], [("Flatten", "photo", "toon", {})])
    for path, sentence in (
        (tmp_path / "gone.onnx", "that exists"),
        (broken, "can read"),
        (gray, "three colours"),
        (rgba, "three colours"),
        (both, "model failed"),
        (mean, "256 x 256 with one of 1 x 1"),
        (flat, r"answers with \[1, \d+\], not"),
    ):
        with pytest.raises(InputError, match=sentence):
            open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")


def test_without_the_package(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        open_stylizer("onnx", AdapterSettings(model=str(path)), "cpu")
