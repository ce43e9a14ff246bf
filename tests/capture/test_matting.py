"""Masks by models that the user brings: loading, forms, what is said when something is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import cv2
import numpy as np
import pytest

from toonify3d.capture.adapters import matting, matting_worker
from toonify3d.capture.adapters.matting import check_mask_source, external_masks
from toonify3d.capture.mask_settings import MaskSettings
from toonify3d.capture.masks import compute_masks
from toonify3d.errors import CancelledError, InputError
from toonify3d.progress import SilentProgress


def pictures(count=3, size=(48, 64)):
    """A red "person" on blue, one column farther right in every picture; and the true masks."""
    images, masks = [], []
    for index in range(count):
        image = np.zeros((*size, 3), np.uint8)
        image[..., 2] = 200
        image[10:, 20 + index : 40 + index] = (220, 30, 30)
        images.append(image)
        masks.append(((image[..., 0] > 100) * 255).astype(np.uint8))
    return images, masks


def red_is_person(path, shape, elem="FLOAT", channels=3, rgba=True):
    """An ONNX graph of BSHM's form whose matte is the red channel over 128."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    axis = 1 if len(shape) == 4 and shape[1] == channels else len(shape) - 1
    constants = [
        helper.make_tensor("from", kind.INT64, [1], [0]),
        helper.make_tensor("to", kind.INT64, [1], [1]),
        helper.make_tensor("axis", kind.INT64, [1], [axis]),
        helper.make_tensor("limit", kind.FLOAT, [], [128.0]),
        helper.make_tensor("full", kind.FLOAT, [], [255.0]),
    ]
    nodes = [
        helper.make_node("Slice", ["input_image:0", "from", "to", "axis"], ["red"]),
        helper.make_node("Greater", ["red", "limit"], ["is"]),
        helper.make_node("Cast", ["is"], ["one"], to=kind.FLOAT),
        helper.make_node("Mul", ["one", "full"], ["alpha"]),
        helper.make_node("Concat", ["input_image:0", "alpha"], ["output_png:0"], axis=axis),
    ]
    entry = helper.make_tensor_value_info("input_image:0", getattr(kind, elem), shape)
    name = "output_png:0" if rgba else "alpha"
    out = helper.make_tensor_value_info(name, kind.FLOAT, None)
    graph = helper.make_graph(nodes, "bshm", [entry], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return MaskSettings(source="bshm", model=str(path))


def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("shape", "rgba"),
    [(["h", "w", 3], True), ([1, 3, "h", "w"], True), ([1, "h", "w", 3], False)],
)
def test_onnx_graph_of_bshms_form(tmp_path, shape, rgba, monkeypatch):
    one_thread(monkeypatch)
    settings = red_is_person(tmp_path / "bshm.onnx", shape, rgba=rgba)
    images, truth = pictures()
    masks = external_masks(images, settings, SilentProgress())
    for mask, true in zip(masks, truth, strict=True):
        np.testing.assert_array_equal(mask, true)


def test_onnx_graph_of_fixed_size_is_fed_that_size(tmp_path):
    settings = red_is_person(tmp_path / "bshm.onnx", [1, 3, 96, 128])
    images, truth = pictures(1)
    (mask,) = external_masks(images, settings, SilentProgress())
    assert mask.shape == truth[0].shape
    assert ((mask > 127) == (truth[0] > 127)).mean() > 0.97


def test_compute_masks_hands_over_to_the_model(tmp_path):
    settings = red_is_person(tmp_path / "bshm.onnx", ["h", "w", 3])
    images, truth = pictures(2)
    masks = compute_masks(images, [], None, settings, SilentProgress())
    np.testing.assert_array_equal(masks[1], truth[1])


def test_model_that_sees_nobody(tmp_path):
    settings = red_is_person(tmp_path / "bshm.onnx", ["h", "w", 3])
    with pytest.raises(InputError) as caught:
        external_masks([np.zeros((40, 40, 3), np.uint8)], settings, SilentProgress())
    assert caught.value.code == "no_person"


def test_model_of_another_form_is_named(tmp_path):
    settings = red_is_person(tmp_path / "other.onnx", ["h", "w", 1], channels=1)
    with pytest.raises(InputError, match=r"other\.onnx is no matting model") as caught:
        external_masks(pictures(1)[0], settings, SilentProgress())
    assert caught.value.code == "mask_weights"


def test_damaged_model_gives_one_sentence(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bshm.onnx").write_bytes(b"no model")
    settings = MaskSettings(source="bshm", model=str(tmp_path / "bshm.onnx"))
    with pytest.raises(InputError) as caught:
        external_masks(pictures(1)[0], settings, SilentProgress())
    assert caught.value.code == "mask_model"
    assert "\n" not in str(caught.value)


def test_missing_weights_say_whence_and_whither(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        check_mask_source(MaskSettings(source="bshm"))
    assert caught.value.code == "mask_weights"
    assert "modelscope.cn" in str(caught.value)
    assert str(tmp_path / ".toonify3d" / "models" / "tf_graph.pb") in str(caught.value)


def test_weights_in_the_home_folder_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".toonify3d" / "models"
    folder.mkdir(parents=True)
    (folder / "tf_graph.pb").write_bytes(b"")
    check_mask_source(MaskSettings(source="bshm"))
    assert matting.bshm_file(MaskSettings()).name == "tf_graph.pb"
    (folder / "bshm.onnx").write_bytes(b"")
    assert matting.bshm_file(MaskSettings()).name == "bshm.onnx"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (MaskSettings(source="magic"), "mask_source"),
        (MaskSettings(source="folder"), "no_masks"),
        (MaskSettings(source="rembg", python="/no/python"), "mask_package"),
    ],
)
def test_what_cannot_be_used_is_said_early(settings, code):
    with pytest.raises(InputError) as caught:
        check_mask_source(settings)
    assert caught.value.code == code


@pytest.fixture
def bare_python(tmp_path):
    """An interpreter without any package."""
    path = tmp_path / "bare"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("source", ["bshm", "rembg"])
def test_missing_package_says_how_to_get_it(tmp_path, bare_python, source):
    (tmp_path / "tf_graph.pb").write_bytes(b"")
    model = str(tmp_path / "tf_graph.pb") if source == "bshm" else ""
    settings = MaskSettings(source=source, model=model, python=bare_python)
    with pytest.raises(InputError, match="pip install pillow") as caught:
        external_masks(pictures(1)[0], settings, SilentProgress())
    assert caught.value.code == "mask_package"
    assert ("tensorflow-cpu" if source == "bshm" else "rembg[cpu]") in str(caught.value)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow, which is optional"
)
def test_frozen_graph_of_bshms_form(tmp_path):
    script = (
        "import sys, tensorflow as t; tf = t.compat.v1; g = tf.Graph()\n"
        "with g.as_default():\n"
        "    x = tf.placeholder(tf.float32, [None, None, 3], 'input_image')\n"
        "    a = 255.0 * tf.cast(x[..., :1] > 128.0, tf.float32)\n"
        "    tf.cast(tf.concat([x, a], -1), tf.uint8, name='output_png')\n"
        "open(sys.argv[1], 'wb').write(g.as_graph_def().SerializeToString())\n"
    )
    path = tmp_path / "tf_graph.pb"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    images, truth = pictures(2)
    settings = MaskSettings(source="bshm", model=str(path))
    masks = external_masks(images, settings, SilentProgress())
    np.testing.assert_array_equal(masks[1], truth[1])


def test_rembg_is_called_as_its_interface_says(tmp_path, monkeypatch):
    """A package of the same interface as rembg 2.0: new_session(name), remove(..., only_mask)."""
    (tmp_path / "rembg.py").write_text(
        "import numpy as np\n"
        "def new_session(name):\n"
        "    assert name == 'u2net_human_seg'\n"
        "    return name\n"
        "def remove(data, session=None, only_mask=False):\n"
        "    assert only_mask and session == 'u2net_human_seg' and data.dtype == np.uint8\n"
        "    return ((data[..., 0] > 128) * 255).astype(np.uint8)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    images, truth = pictures(2)
    masks = external_masks(images, MaskSettings(source="rembg"), SilentProgress())
    np.testing.assert_array_equal(masks[0], truth[0])


def test_cancelling_ends_the_process(tmp_path, monkeypatch):
    (tmp_path / "rembg.py").write_text(
        "import os, time\n"
        "def new_session(name):\n"
        "    open(os.environ['PID_FILE'], 'w').write(str(os.getpid()))\n"
        "def remove(data, session=None, only_mask=False):\n"
        "    time.sleep(0.2)\n"
        "    return data[..., 0]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))

    class Stop(SilentProgress):
        def update(self, fraction, message=""):
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        external_masks(pictures(3)[0], MaskSettings(source="rembg"), Stop())
    psutil = pytest.importorskip("psutil")
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    "output",
    [
        np.full((1, 5, 6, 1), 0.5, np.float32),
        np.full((4, 5, 6), 128.0),
        np.full((5, 6), 127.5),
        np.dstack([np.zeros((5, 6, 3), np.uint8), np.full((5, 6), 128, np.uint8)]),
    ],
)
def test_alpha_is_found_in_every_form(output):
    alpha = matting_worker.alpha_of(output)
    assert alpha.shape == (5, 6)
    assert alpha.dtype == np.uint8
    assert np.abs(alpha.astype(int) - 127).max() <= 1


def test_alpha_of_something_else_is_refused():
    with pytest.raises(matting_worker.WrongFormError):
        matting_worker.alpha_of(np.zeros((5, 6, 3), np.uint8))


def test_large_pictures_are_shrunk_for_the_model(tmp_path):
    settings = red_is_person(tmp_path / "bshm.onnx", ["h", "w", 3])
    images, truth = pictures(1)
    large = cv2.resize(images[0], (1600, 1200), interpolation=cv2.INTER_NEAREST)
    (mask,) = external_masks([large], settings, SilentProgress())
    true = cv2.resize(truth[0], (1600, 1200), interpolation=cv2.INTER_NEAREST)
    assert mask.shape == true.shape
    assert ((mask > 127) == (true > 127)).mean() > 0.99
