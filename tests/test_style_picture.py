"""Whose lines and palette the texture takes: the exemplar's, or those of the model that painted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toonify3d.files import write_image
from toonify3d.pipeline import style_picture
from toonify3d.plan import Style
from toonify3d.scene import Camera, Frame, StylizedView
from toonify3d.settings import StyleSettings

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def view(yaw: float, color: tuple[int, int, int]) -> StylizedView:
    camera = Camera(np.eye(3), np.eye(4), 80, 80)
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 20:60] = 255
    image = np.full((80, 80, 3), color, np.uint8)
    return StylizedView(Frame("0000", 0, camera, yaw), image, mask, mask.astype(np.float32) / 255)


@pytest.fixture
def style(tmp_path) -> Style:
    path = tmp_path / "exemplar.png"
    write_image(path, np.full((80, 80, 3), RED, np.uint8))
    return Style("toon", path, "", "builtin", None, None, StyleSettings())


@pytest.mark.parametrize("stylizer", ["builtin", "folder"])
def test_the_exemplar_gives_the_look(style, stylizer):
    style = dataclasses.replace(style, stylizer=stylizer)
    np.testing.assert_array_equal(style_picture(style, [view(0.0, BLUE)])[40, 40], RED)


@pytest.mark.parametrize("stylizer", ["dct-net", "vtoonify", "onnx", "command"])
def test_a_model_gives_its_own(style, stylizer):
    style = dataclasses.replace(style, stylizer=stylizer)
    picture = style_picture(style, [view(3.1, GREEN), view(-0.1, BLUE), view(0.2, GREEN)])
    np.testing.assert_array_equal(picture[40, 40], BLUE)
    np.testing.assert_array_equal(picture[5, 5], (255, 255, 255))
    assert picture.dtype == np.uint8
