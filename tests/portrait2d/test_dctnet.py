"""DCT-Net's torch twin against OpenCV's own reader and executor of TensorFlow graphs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from frozen_graph import GraphWriter, dctnet_graph

from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.portrait2d.adapters.dctnet import (
    DctNet,
    box_transform,
    guided_filter,
    load_unet,
    run_graph,
    scaled_output,
)
from toonify3d.portrait2d.adapters.graphdef import read_constants

SIZE = (48, 32)


def _picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def test_the_whole_graph_equals_an_independent_executor(tmp_path):
    """From ``input_image`` to the picture: network, guided filter, clip, scale, cast."""
    path = tmp_path / "cartoon_h.pb"
    dctnet_graph(path, SIZE, seed=1)
    bgr = _picture(*SIZE)
    graph = cv2.dnn.readNetFromTensorflow(str(path))
    graph.setInput(cv2.dnn.blobFromImage(bgr.astype(np.float32)))
    theirs = graph.forward("scaled_output")[0].transpose(1, 2, 0)
    net = load_unet(path)
    ours = scaled_output(net, bgr, "cpu")
    assert ours.shape == theirs.shape == (*SIZE, 3)
    assert theirs.std() > 20  # the picture is not flat, so that equality means something
    assert 0.02 < ((theirs < 0.001) | (theirs > 254.9)).mean() < 0.5  # and the clip takes part
    assert np.abs(ours - theirs).max() < 1e-3
    sure = np.abs(theirs - np.round(theirs)) > 1e-3
    assert sure.mean() > 0.7
    bytes_ = run_graph(net, bgr, "cpu")
    assert np.array_equal(bytes_[sure], theirs.astype(np.uint8)[sure])
    assert bytes_.max() == 254  # 0.999999 is cut off below white, as in the published graph


def test_guided_filter_equals_box_means():
    rng = np.random.default_rng(2)
    guide, x = rng.normal(size=(2, 20, 17))

    def mean(v):
        total = cv2.boxFilter(v, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        one = np.ones_like(v)
        return total / cv2.boxFilter(
            one, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
        )

    slope = (mean(guide * x) - mean(guide) * mean(x)) / (
        mean(guide * guide) - mean(guide) ** 2 + 1e-2
    )
    expected = mean(slope) * guide + mean(mean(x) - slope * mean(guide))
    found = guided_filter(torch.from_numpy(guide)[None, None], torch.from_numpy(x)[None, None])
    assert np.allclose(found[0, 0].numpy(), expected, atol=1e-10)


def test_wrong_shapes_and_missing_nodes_are_listed(tmp_path):
    path = tmp_path / "cartoon_h.pb"
    dctnet_graph(path, SIZE, seed=1, skip="Conv_9", missing="block_2/conv1")
    with pytest.raises(InputError) as caught:
        load_unet(path)
    sentence = str(caught.value)
    assert "node 'generator/Conv_9/weights' is [7, 7, 32, 4]" in sentence
    assert "node 'generator/Conv_9/biases' is [4]" in sentence
    assert "node 'generator/block_2/conv1/weights' is missing" in sentence
    assert sentence.count("node '") == 3


def test_every_node_of_a_foreign_graph_is_listed(tmp_path):
    path, writer = tmp_path / "cartoon_h.pb", GraphWriter()
    writer.const("generator/Conv/weights", np.zeros((7, 7, 3, 16)))
    path.write_bytes(writer.graph.SerializeToString())
    with pytest.raises(InputError) as caught:
        load_unet(path)
    scopes = ["Conv", *(f"Conv_{i}" for i in range(1, 10))]
    scopes += [f"block_{i}/conv{j}" for i in range(4) for j in (1, 2)]
    for scope in scopes:
        for kind in ("weights", "biases"):
            assert f"node 'generator/{scope}/{kind}' is" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\x13 not a graph", b"\x0a\x03\x0a\x01a"])
def test_files_that_are_no_graphs(tmp_path, content):
    path = tmp_path / "cartoon_h.pb"
    path.write_bytes(content)
    with pytest.raises(InputError, match="frozen TensorFlow graph"):
        read_constants(path)


def test_missing_weights_name_files_and_setting(tmp_path):
    with pytest.raises(InputError, match=r"cartoon_h\.pb.*adapter\.model"):
        DctNet(tmp_path, "cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dctnet")
    dctnet_graph(folder / "cartoon_anime_h.pb", (288, 288), seed=3)
    dctnet_graph(folder / "cartoon_bg.pb", SIZE, seed=4)
    ramp = cv2.GaussianBlur(np.pad(np.full((160, 160), 255, np.uint8), 64), (0, 0), 12)
    write_image(folder / "alpha.jpg", ramp)
    return folder


def _landmarks(center, distance):
    points = np.zeros((478, 2)) + center
    points[468] = center + np.array([-distance / 2, 0])
    points[473] = center + np.array([distance / 2, 0])
    points[1] = center + np.array([0, 0.55 * distance])
    points[61] = center + np.array([-0.42 * distance, 1.1 * distance])
    points[291] = center + np.array([0.42 * distance, 1.1 * distance])
    return points


def test_head_is_drawn_in_its_box_over_the_background(weights):
    model = DctNet(weights, "cpu")
    image = _picture(150, 130, 5)
    landmarks = _landmarks(np.array([65.0, 70.0]), 18.0)
    plain = model.cartoonize(image, None)
    drawn = model.cartoonize(image, landmarks)
    padded = np.pad(image[..., ::-1], ((0, 10), (0, 14), (0, 0)), constant_values=255)
    whole = run_graph(model.background, np.ascontiguousarray(padded), "cpu")[:150, :130, ::-1]
    assert np.abs(plain.astype(float) - whole).max() <= 1.0
    assert np.array_equal(drawn[:5], plain[:5])  # far from the face nothing changes
    middle = np.s_[66:80, 58:72]
    matrix = box_transform(landmarks[[468, 473, 1, 61, 291]])
    head = cv2.warpAffine(image[..., ::-1], matrix, (288, 288), borderValue=(255, 255, 255))
    expected = cv2.warpAffine(
        run_graph(model.head, np.asarray(head, np.uint8), "cpu"),
        cv2.invertAffineTransform(matrix),
        (130, 150),
    )[..., ::-1]
    assert np.abs(drawn[middle].astype(float) - expected[middle]).mean() < 3.0
    assert np.abs(drawn[middle].astype(float) - plain[middle]).mean() > 10.0


def test_box_transform_puts_the_face_where_the_authors_do():
    """Eyes level; 35.237 px apart in the 112 template, 75 % of it, times 288/112."""
    points = np.array([[40.0, 50], [80, 50], [60, 73], [43, 96], [77, 96]])
    matrix = box_transform(points)
    eyes = points[:2] @ matrix[:, :2].T + matrix[:, 2]
    assert np.hypot(*(eyes[1] - eyes[0])) == pytest.approx(35.237 * 0.75 * 288 / 112, rel=0.05)
    template = (30.2946 + 65.5318) / 2 + 1 + 8
    assert eyes[:, 0].mean() == pytest.approx(((template - 56) * 0.75 + 56) * 288 / 112, abs=2.0)
