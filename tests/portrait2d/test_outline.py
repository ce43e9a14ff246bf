from __future__ import annotations

import cv2
import numpy as np

from toonify3d.portrait2d.outline import outline, without_splinters
from toonify3d.portrait2d.surface import is_closed

SIZE, MIDDLE, RADIUS = 420, (200.3, 190.7), 120.0


def _hits(points: np.ndarray) -> np.ndarray:
    return ((points - np.array(MIDDLE)) ** 2).sum(1) < RADIUS**2


def _disc() -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    return _hits(np.stack([columns.ravel(), rows.ravel()], 1)).reshape(SIZE, SIZE)


def _torn() -> np.ndarray:
    """The disc's mask as captures give it: two values, jagged, with bits torn from behind."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)).astype(np.float32), (0, 0), 1.5)
    inside = cv2.distanceTransform(_disc().astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~_disc()).astype(np.uint8), cv2.DIST_L2, 5)
    mask = np.asarray((inside - outside + 5 * noise > 0) * 255, np.uint8)
    mask[100:104, 300:330] = 255
    return mask


def _share() -> np.ndarray:
    """How much of every pixel the disc covers, by 64 points."""
    steps = (np.arange(8) + 0.5) / 8
    total = np.zeros((SIZE, SIZE))
    for dy in steps:
        for dx in steps:
            columns, rows = np.meshgrid(np.arange(SIZE) + dx, np.arange(SIZE) + dy)
            total += _hits(np.stack([columns.ravel(), rows.ravel()], 1)).reshape(SIZE, SIZE)
    return total / 64


def test_the_outline_is_the_surfaces_to_a_fraction_of_a_pixel():
    found = outline(_disc(), _torn(), _hits) / 255.0
    assert np.abs(found - _share()).max() < 0.15
    rough = _torn() / 255.0
    assert np.abs(rough - _share()).mean() > 20 * np.abs(found - _share()).mean()


def test_what_the_surface_lacks_comes_from_the_mask():
    mask = _torn()
    mask[280:, 150:260] = 255  # a body below the surface's end
    found = outline(_disc(), mask, _hits)
    assert (found[330:415, 160:250] > 250).all()
    assert found[330, 100] == 0 and found[330, 300] == 0
    assert np.abs(found[:200].astype(float) - 255 * _share()[:200]).max() < 40


def test_what_covers_the_surface_is_cut_out():
    mask = _torn()
    mask[150:200, 250:] = 0  # a hand before the face
    found = outline(_disc(), mask, _hits)
    assert (found[165:185, 275:] < 10).all()
    assert (found[150:200, 150:230] > 250).all()


def test_without_a_surface_the_mask_stays():
    mask = _torn()
    assert outline(np.zeros((SIZE, SIZE), bool), mask, _hits) is mask


def test_splinters_go_and_the_rest_keeps_its_soft_edge():
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.circle(mask, (200, 200), 100, 255.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5).astype(np.uint8)
    torn = mask.copy()
    torn[199:202, 290:340] = 255
    cleaned = without_splinters(torn)
    assert (cleaned[199:202, 306:340] == 0).all()
    assert np.abs(cleaned.astype(int) - mask)[:190].max() < 60
    assert np.abs(cleaned.astype(int) - mask)[:190].mean() < 0.2


def test_a_border_is_noticed():
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    assert is_closed(tetrahedron)
    assert not is_closed(tetrahedron[:3]) and not is_closed(tetrahedron[:2])
