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


@pytest.mark.parametrize("ending", ["transparent", "masked", "white"])
def test_blank_pages_are_left_out(subject, tmp_path, ending):
    """One blank page is told; nothing but blank pages is refused."""
    scene, _ = subject
    page = np.full((200, 160, 3), 255, np.uint8)
    frame, good = scene.frames[3], scene.frames[8]
    name = f"{frame.source_index:04d}"
    if ending == "transparent":
        page = np.dstack([page, page[..., 0] * 0])
    elif ending == "masked":
        page = scene.image(frame)
        write_image(tmp_path / f"{name}_mask.png", page[..., 0] * 0)
    write_image(tmp_path / f"{name}.png", page)
    assert _code(scene, tmp_path) == "portraits_blank"
    write_image(tmp_path / f"{good.source_index:04d}.png", scene.image(good))
    result, progress = _load(scene, tmp_path, tmp_path / "out")
    assert [v.frame.name for v in result.views] == [good.name]
    assert f"1 of 2 portraits show no person and are left out ({name}.png)" in progress.warnings[0]
    assert not (tmp_path / "out" / f"{frame.name}.png").exists()


def test_a_blank_page_of_a_close_view_has_no_mask():
    """Where nearly no background is seen, GrabCut alone would give back the photo's mask."""
    photo = np.random.default_rng(0).integers(0, 255, (200, 160, 3), np.uint8)
    mask = np.zeros((200, 160), np.uint8)
    mask[5:, 4:-4] = 255
    page = np.clip(np.random.default_rng(1).normal(250, 0.8, photo.shape), 0, 255).astype(np.uint8)
    assert painted_mask(page, photo, mask).max() == 0


def test_half_transparent_portraits_have_a_palette(subject, tmp_path):
    scene, _ = subject
    frame = scene.frames[8]
    alpha = np.where(scene.mask(frame) > 127, np.uint8(160), np.uint8(0))
    image = scene.image(frame)
    write_image(tmp_path / f"{frame.source_index:04d}.png", np.dstack([image, alpha]))
    palette = _load(scene, tmp_path)[0].palette.reshape(-1, 3).astype(int)
    assert np.abs(palette - np.median(image[alpha > 0], axis=0)).sum(1).min() < 30


def test_several_pictures_of_one_frame_are_refused(subject, tmp_path):
    """Which of them the artist means cannot be known: the plain name may be the photo."""
    scene, _ = subject
    frame = scene.frames[5]
    names = [f"{frame.source_index:04d}.jpg", f"{frame.source_index:04d}.png"]
    names.append(f"final_{frame.source_index:04d}.png")
    for name in names:
        write_image(tmp_path / name, scene.image(frame))
    with pytest.raises(InputError, match=", ".join(names)) as caught:
        _load(scene, tmp_path)
    assert caught.value.code == "portraits_twice"
    for name in names[:2]:
        (tmp_path / name).unlink()
    write_image(tmp_path / f"{frame.source_index:04d}_mask.png", scene.mask(frame))
    assert len(_load(scene, tmp_path)[0].views) == 1  # a mask beside it is no second picture


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


def _kept_room(skin):
    """A photo with noise, its mask, a portrait before the same wall, and its true coverage.

    The head grows upwards by 4.6 pixels; its new top is white with light, as the wall's bricks are.
    """
    rng = np.random.default_rng(4)
    width, height, fine = 160, 200, 8
    bricks = rng.integers(20, 255, (height // 8, width // 8, 1)) + rng.normal(0, 12, (25, 20, 3))
    wall = cv2.resize(bricks.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    # The wall behind the new top differs from it.
    wall[40:70] *= 0.55

    def head(up):
        big = np.zeros((fine * height, fine * width), np.uint8)
        centre = (fine * width // 2, round(fine * (110 - up / 2)))
        cv2.ellipse(big, centre, (fine * 40, round(fine * (50 + up / 2))), 0, 0, 360, 255, -1)
        return cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA) / 255.0

    before, after = head(0.0), head(4.6)
    face = np.empty((height, width, 3), np.float32)
    face[:] = skin
    face[:61] = (235, 232, 228)

    def picture(cover, color):
        return cover[..., None] * color + (1 - cover[..., None]) * wall

    photo = picture(before, face * 0.7) + rng.normal(0, 3, wall.shape)
    image = picture(after, face)
    as_bytes = [np.clip(part, 0, 255).round().astype(np.uint8) for part in (photo, image)]
    return (*as_bytes, (before > 0.5).astype(np.uint8) * np.uint8(255), after)


@pytest.mark.parametrize("skin", [(225, 150, 120), (120, 84, 66)])
def test_a_skull_that_grew_into_the_kept_room_is_found(skin):
    photo, image, old, truth = _kept_room(skin)
    found = painted_mask(image, photo, old) / 255.0
    new = (truth > 0.9) & (old == 0)
    assert new.sum() > 150 and (found[new] > 0.5).mean() > 0.98
    top = np.arange(truth.shape[0])[:, None] < 90
    border = (cv2.dilate(np.uint8(truth > 0.5), np.ones((3, 3))) > 0) & (truth < 0.5) & top
    # A mask of whole pixels is a quarter of a pixel off.
    assert np.abs(found - truth)[border | new].sum() / border.sum() < 0.15


def test_a_person_who_shrank_leaves_the_wall(subject):
    scene, _ = subject
    rng = np.random.default_rng(2)
    old = scene.mask(scene.frames[8])
    wall = cv2.GaussianBlur(rng.integers(0, 120, (200, 160, 3)).astype(np.uint8), (0, 0), 2)
    photo = wall.copy()
    photo[old > 0] = (205, 160, 135)
    kernel = np.ones((9, 9), np.uint8)
    new = cv2.erode(old, kernel)
    image = wall.copy()
    image[new > 0] = (240, 150, 90)
    found = painted_mask(image, photo, old) > 127
    assert (found & (new > 127)).sum() / (found | (new > 127)).sum() > 0.95
    assert ((old > 127) & (new > 127)).sum() / (old > 127).sum() < 0.9


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
