"""Reading pictures: very large ones, and CMYK in both of its forms."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from toonify3d.errors import InputError
from toonify3d.portrait2d import picture
from toonify3d.portrait2d.picture import longest_side, read_picture

COLOURS = ((230, 40, 30), (40, 160, 60), (30, 60, 200), (240, 220, 200), (20, 20, 20))


def _bars(width: int, height: int) -> np.ndarray:
    """Five bars of plain colours, dark below."""
    image = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        image[:, i * width // 5 : (i + 1) * width // 5] = colour
    image[height * 3 // 4 :] //= 2
    return image


def _means(image: np.ndarray) -> np.ndarray:
    """``(5, 3)`` colour of the middle of each bar's upper part."""
    height, width = image.shape[:2]
    rows = slice(height // 4, height // 2)
    at = [(2 * i + 1) * width // 10 for i in range(5)]
    return np.array([image[rows, x - 2 : x + 3].reshape(-1, 3).mean(0) for x in at])


@pytest.mark.parametrize("size", [(400, 300), (3000, 2700)])
@pytest.mark.parametrize("name", ["print.jpg", "print.tif"])
def test_cmyk_files_have_their_colours(tmp_path, name, size):
    """A CMYK JPEG holds its inks the wrong way round, as Adobe's programs do; a TIFF does not."""
    path = tmp_path / name
    Image.fromarray(_bars(*size)).convert("CMYK").save(path, quality=95)
    assert (b"Adobe" in path.read_bytes()[:200]) == (name == "print.jpg")
    with Image.open(path) as file:
        assert file.mode == "CMYK"
    image, alpha = read_picture(path)
    assert alpha is None and longest_side(path) == size[0]
    assert np.abs(_means(image) - COLOURS).max() < 6


def test_pillows_own_limit_does_not_decide_and_stays(tmp_path, monkeypatch):
    """Pillow refuses from 179 megapixels on, the documentation promises 200."""
    path = tmp_path / "large.png"
    Image.fromarray(_bars(400, 300)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert read_picture(path)[0].shape == (300, 400, 3)
    assert longest_side(path) == 400
    assert Image.MAX_IMAGE_PIXELS == 1000


def _claims(width: int, height: int) -> bytes:
    """A PNG file whose header says this size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0")
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_beyond_the_promised_size_is_refused_unread(tmp_path):
    path = tmp_path / "huge.png"
    for size in ((14_200, 14_200), (60_000, 60_000)):
        path.write_bytes(_claims(*size))
        with pytest.raises(InputError) as caught:
            read_picture(path)
        assert caught.value.code == "exemplar_too_large" and "12000" in str(caught.value)
    path.write_bytes(_claims(14_000, 14_000))  # 196 megapixels: read, and found cut off
    with pytest.raises(InputError) as caught:
        read_picture(path)
    assert caught.value.code == "exemplar_unreadable"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "I", "F"])
def test_very_large_pictures_are_reduced_and_look_the_same(tmp_path, monkeypatch, mode):
    image = _bars(1500, 1300)
    path = tmp_path / ("big.tif" if mode in ("CMYK", "I", "F") else "big.png")
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if mode in ("RGBA", "LA"):
        alpha = np.full(gray.shape, 255, np.uint8)
        alpha[:, :300] = 0
        Image.fromarray(np.dstack([image, alpha])).convert(mode).save(path)
    elif mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        Image.fromarray(gray.astype(kind) * kind(200)).save(path)
    else:
        Image.fromarray(image).convert(mode).save(path)
    whole, cover = read_picture(path)
    monkeypatch.setattr(picture, "_LARGE", 1_000_000)
    monkeypatch.setattr(picture, "WORKING_SIDE", 150)
    small, sparse = read_picture(path)
    assert max(small.shape) < 0.3 * max(whole.shape) and min(small.shape[:2]) >= 300
    size = (small.shape[1], small.shape[0])
    seen = np.ones(small.shape[:2], bool) if sparse is None else sparse > 250
    want = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small.astype(int) - want)[seen].mean() < 2
    assert (cover is None) == (sparse is None)
    if cover is not None:
        want = cv2.resize(cover, size, interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(sparse.astype(int) - want).mean() < 1
