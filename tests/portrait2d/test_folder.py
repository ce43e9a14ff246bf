from __future__ import annotations

import cv2
import numpy as np
import pytest

from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.portrait2d.folder import load_folder_views, painted_mask
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.store import load_stylized
from toonify3d.progress import SilentProgress


def _painted(scene, frame, grow=4):
    """The frame recoloured, its person grown by ``grow`` pixels, and the true new mask."""
    kernel = np.ones((2 * grow + 1, 2 * grow + 1), np.uint8)
    mask = cv2.dilate(scene.mask(frame), kernel)
    return scene.image(frame), mask


def _load(scene, directory, folder=None, exemplar=None):
    progress = SilentProgress()
    result = load_folder_views(scene, directory, exemplar, StylizeSettings(), progress, folder)
    return result, progress


def test_alpha_gives_the_mask(subject, tmp_path):
    scene, _ = subject
    for frame in (scene.frames[8], scene.frames[0]):
        image, mask = _painted(scene, frame)
        write_image(tmp_path / f"{frame.source_index:04d}.png", np.dstack([image, mask]))
    result, _ = _load(scene, tmp_path)
    assert [v.frame.name for v in result.views] == [scene.frames[0].name, scene.frames[8].name]
    assert np.array_equal(result.views[0].mask, _painted(scene, scene.frames[0])[1])
    assert result.displacement is None


def test_names_follow_the_source_frame_not_the_order(subject, tmp_path):
    scene, _ = subject
    frame = scene.frames[5]
    write_image(tmp_path / f"toon_{frame.source_index}.jpg", scene.image(frame))
    write_image(tmp_path / "9999.png", scene.image(frame))
    result, progress = _load(scene, tmp_path)
    assert [v.frame.name for v in result.views] == [frame.name]
    assert "9999.png" in progress.warnings[0]


@pytest.mark.parametrize("background", ["plain", "photo", "painted"])
def test_masks_are_found_in_what_was_painted(subject, background):
    scene, _ = subject
    rng = np.random.default_rng(1)
    frame = scene.frames[8]
    photo = rng.integers(0, 90, (200, 160, 3)).astype(np.uint8)
    old = scene.mask(frame)
    photo[old > 0] = (205, 160, 135)
    new = _painted(scene, frame, 5)[1]
    image = photo.copy()
    if background == "plain":
        image[:] = 240
    elif background == "painted":
        image = cv2.GaussianBlur(photo // 2, (0, 0), 3)
    image[new > 0] = (240, 150, 90)
    found = painted_mask(image, photo, old) > 127
    union = (found | (new > 127)).sum()
    assert (found & (new > 127)).sum() / union > 0.95
    assert ((old > 127) & (new > 127)).sum() / union < 0.93  # the photo's mask would not do


def test_larger_pictures_are_scaled_and_kept(subject, tmp_path):
    scene, _ = subject
    frame = scene.frames[3]
    big = cv2.resize(scene.image(frame), (320, 400))
    write_image(tmp_path / "in" / f"{frame.source_index:04d}.png", big)
    result, _ = _load(scene, tmp_path / "in", tmp_path / "out")
    assert result.views[0].image.shape == (200, 160, 3)
    again = load_stylized(tmp_path / "out", scene)
    assert np.array_equal(again.views[0].mask, result.views[0].mask)


def _code(scene, directory):
    with pytest.raises(InputError) as caught:
        _load(scene, directory)
    return caught.value.code


def test_bad_folders(subject, tmp_path):
    scene, _ = subject
    frame = scene.frames[3]
    assert _code(scene, tmp_path / "none") == "portraits_missing"
    for name in ("empty", "names", "size", "broken"):
        (tmp_path / name).mkdir()
    assert _code(scene, tmp_path / "empty") == "portraits_missing"
    write_image(tmp_path / "names" / "0001.png", scene.image(frame))
    assert _code(scene, tmp_path / "names") == "portraits_names"
    name = f"{frame.source_index:04d}.png"
    write_image(tmp_path / "size" / name, np.zeros((100, 200, 3), np.uint8))
    assert _code(scene, tmp_path / "size") == "portraits_size"
    (tmp_path / "broken" / name).write_bytes(b"nothing")
    assert _code(scene, tmp_path / "broken") == "portraits_unreadable"
