"""Masks and EXIF that come with the user's pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from toonify3d.capture import pipeline
from toonify3d.capture.cameras import SolvedCameras
from toonify3d.capture.mask_settings import MaskSettings
from toonify3d.capture.settings import CaptureSettings
from toonify3d.capture.user_data import check_mask_folder, exif_focal, user_masks
from toonify3d.capture.video import image_files
from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera

SIZE = (60, 40)


def photo(path, tags, size=SIZE, orientation=1):
    picture = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update(tags)
    path.parent.mkdir(exist_ok=True)
    picture.save(path, exif=exif)


def half_mask(value=255):
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[:, :30] = value
    return mask


def test_focal_length_of_the_35_mm_equivalent(tmp_path):
    photo(tmp_path / "p" / "1.jpg", {0xA405: 26})
    photo(tmp_path / "p" / "2.jpg", {0xA405: 26}, orientation=6)
    assert exif_focal(tmp_path / "p") == pytest.approx(26 / 36)


def test_focal_length_of_the_sensor_resolution(tmp_path):
    # 60 pixels over a 36 mm sensor, in pixels per centimetre; 50 mm lens.
    tags = {0x920A: IFDRational(50, 1), 0xA20E: IFDRational(600, 36), 0xA210: 3}
    photo(tmp_path / "p" / "1.jpg", tags)
    assert exif_focal(tmp_path / "p") == pytest.approx(50 / 36, rel=1e-3)


@pytest.mark.parametrize("tags", [{}, {0xA405: 0}, {0x920A: IFDRational(4, 0)}])
def test_no_or_senseless_exif_tells_nothing(tmp_path, tags):
    photo(tmp_path / "p" / "1.jpg", tags)
    assert exif_focal(tmp_path / "p") is None
    assert exif_focal(tmp_path / "p" / "1.jpg") is None  # not a folder


def folder_with_alpha(folder):
    for index in range(3):
        rgba = np.full((40, 60, 4), 90, np.uint8)
        rgba[..., 3] = half_mask() if index != 1 else 255
        write_image(folder / f"{index}.png", rgba)
    return folder


def test_alpha_is_the_mask_where_it_says_something(tmp_path):
    source = folder_with_alpha(tmp_path / "p")
    masks = user_masks(image_files(source), [0, 1, 2], (30, 20), MaskSettings())
    assert sorted(masks) == [0, 2]
    assert masks[0].shape == (20, 30)
    assert (masks[0][:, :15] == 255).all() and (masks[0][:, 15:] == 0).all()


def test_the_mask_folder_wins_over_alpha(tmp_path):
    source = folder_with_alpha(tmp_path / "p")
    for name, mask in {"0": half_mask()[:, ::-1], "1.png": half_mask(1)}.items():
        write_image(tmp_path / "m" / f"{name}.png", mask)
    masks = user_masks(
        image_files(source), [0, 1, 2], SIZE, MaskSettings(folder=str(tmp_path / "m"))
    )
    assert sorted(masks) == [0, 1]
    assert (masks[0][:, :30] == 0).all() and (masks[0][:, 30:] == 255).all()
    assert (masks[1][:, :30] == 255).all()  # labels 0 and 1


def test_masks_of_a_video_go_by_frame_number(tmp_path):
    write_image(tmp_path / "m" / "0007.png", half_mask())
    settings = MaskSettings(folder=str(tmp_path / "m"))
    assert sorted(user_masks([], [3, 7, 9], SIZE, settings)) == [7]


def test_bad_masks_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist") as caught:
        check_mask_folder(MaskSettings(folder=str(tmp_path / "no")))
    assert caught.value.code == "no_masks"
    write_image(tmp_path / "m" / "0007.png", half_mask())
    settings = MaskSettings(folder=str(tmp_path / "m"))
    with pytest.raises(InputError, match="belongs to a frame"):
        user_masks([], [3], SIZE, settings)
    with pytest.raises(InputError, match=r"0007\.png is 60 x 40"):
        user_masks([], [7], (40, 60), settings)
    (tmp_path / "m" / "0007.png").write_bytes(b"junk")
    with pytest.raises(InputError, match="damaged"):
        user_masks([], [7], SIZE, settings)


def test_users_masks_win_and_only_the_others_are_computed(monkeypatch):
    K = np.array([[50.0, 0, 30], [0, 50.0, 20], [0, 0, 1]])
    camera, image = Camera(K, np.eye(4), *SIZE), np.zeros((40, 60, 3), np.uint8)
    empty = np.zeros((0, 3))
    solved = SolvedCameras(
        [camera] * 2, [0, 1], [image] * 2, empty, empty.astype(np.uint8), 0.0, {"k": 0.0}
    )
    calls = []
    other = np.full((40, 60), 7, np.uint8)
    monkeypatch.setattr(pipeline, "compute_masks", lambda *_: calls.append(1) or [other, other])
    progress = SilentProgress()
    both = pipeline._masks(solved, [half_mask(), half_mask()], CaptureSettings(), progress)
    assert not calls and not progress.warnings
    np.testing.assert_array_equal(both[1], half_mask())
    one, two = pipeline._masks(solved, [half_mask(), None], CaptureSettings(), progress)
    np.testing.assert_array_equal(one, half_mask())
    np.testing.assert_array_equal(two, other)
    assert "1 of 2" in progress.warnings[0]
