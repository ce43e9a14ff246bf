"""Outlines to a fraction of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from toonify3d.capture.edges import refine_edge
from toonify3d.capture.silhouettes import silhouette, subpixel_distance
from toonify3d.scene import Camera
from toonify3d.srgb import to_linear, to_srgb

SIDE = 120


def disc(radius, side=SIDE, center=(60.3, 59.6)):
    """Distance of pixel centres to a circle, positive outside."""
    y, x = np.mgrid[0:side, 0:side] + 0.5
    return (np.hypot(x - center[0], y - center[1]) - radius).astype(np.float32)


def radius_of(distance):
    """Radius of the disc with the area that signed distances cover."""
    return np.sqrt(np.clip(0.5 - distance, 0.0, 1.0).sum() / np.pi)


@pytest.mark.parametrize("radius", [30.0, 30.25, 30.5, 30.75])
def test_distance_is_finer_than_a_pixel(radius):
    field = 7.0 * disc(radius) + 0.1 * disc(radius) ** 2
    found = subpixel_distance(field)
    near = np.abs(disc(radius)) < 0.7
    assert np.abs(found - disc(radius))[near].mean() < 0.06
    assert radius_of(found) == pytest.approx(radius, abs=0.04)


def painting(radius, person, room, seed=0):
    """A disc on a room: light mixed at its edge, then blurred and noisy as a video is.

    Darker to its rim.
    """
    distance = disc(radius)
    share = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    shade = np.clip(1.0 + 0.02 * np.minimum(distance, 0.0) + 0.2, 0.6, 1.0)[..., None]
    lit, unlit = (to_linear(np.array(color) / 255.0) for color in (person * shade, room))
    picture = 255.0 * to_srgb(share * lit + (1.0 - share) * unlit)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.6)
    picture += np.random.default_rng(seed).normal(0.0, 3.0, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("off", [-1.2, -0.5, 0.0, 0.6, 1.3])
@pytest.mark.parametrize(
    ("person", "room"), [((190, 150, 130), (60, 80, 90)), ((50,) * 3, (200,) * 3)]
)
def test_edge_goes_to_where_the_picture_shows_it(off, person, room):
    found = refine_edge(painting(30.4, person, room), disc(30.4 + off) < 0, lambda mask: mask)
    assert radius_of(found) == pytest.approx(30.4, abs=0.1)


def filmed(radius, person, room, blur=0.8, big=8):
    """A disc whose light the lens blurs, and whose sRGB values the codec blurs as much."""
    center = (60.3 * big, 59.6 * big)
    share = (disc(radius * big, SIDE * big, center) < 0).astype(np.float32)
    share = cv2.GaussianBlur(share, (0, 0), blur * big)
    share = share.reshape(SIDE, big, SIDE, big).mean((1, 3))[..., None]
    sides = [to_linear(np.array(color) / 255.0) for color in (person, room)]
    picture = 255.0 * to_srgb(share * sides[0] + (1.0 - share) * sides[1])
    return cv2.GaussianBlur(picture, (0, 0), blur).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("person", "room"), [((235, 215, 200), (40, 45, 50)), ((40, 45, 50), (235, 215, 200))]
)
def test_bright_heads_before_dark_rooms_are_not_too_fat(person, room):
    """The lens mixes light: by sRGB values alone the bright side reaches too far."""
    found = refine_edge(filmed(30.4, person, room), disc(30.4) < 0, lambda mask: mask)
    assert radius_of(found) == pytest.approx(30.4, abs=0.15)


def rimmed(radius, person, room, rim=6.0, dimmest=0.55, seed=0):
    """A disc that darkens to ``dimmest`` of its sRGB values over its last ``rim`` pixels."""
    distance = disc(radius)
    shade = np.clip(dimmest - (1.0 - dimmest) * distance / rim, dimmest, 1.0)[..., None]
    share = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    picture = share * shade * np.array(person, float) + (1.0 - share) * np.array(room, float)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.7)
    picture += np.random.default_rng(seed).normal(0.0, 2.0, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("room", [(90, 84, 90), (50, 95, 80), (120, 70, 90)])
def test_a_dark_rim_before_a_dark_room_is_the_persons(room):
    """Seen on lps: the underside of the bust is as dark as the room, but not of its hue."""
    picture = rimmed(30.4, (150, 112, 100), room)
    found = refine_edge(picture, disc(28.4) < 0, lambda mask: mask)
    assert radius_of(found) == pytest.approx(30.4, abs=0.45)


def test_a_dark_stripe_of_another_hue_is_no_rim():
    """As wide as a rim, beside the person, and the room's."""
    picture = painting(30.4, np.array((190, 150, 130)), np.array((90, 110, 130)))
    stripe = (disc(30.4) > 0.5) & (disc(30.4) < 3.5)
    picture[stripe] = (50, 70, 95)
    found = refine_edge(picture, disc(30.9) < 0, lambda mask: mask)
    assert radius_of(found) == pytest.approx(30.4, abs=0.3)


def test_no_mask_has_no_edge():
    picture = painting(30.4, np.array((190, 150, 130)), np.array((90, 110, 130)))
    assert (refine_edge(picture, np.zeros((SIDE, SIDE), bool), lambda mask: mask) > 0).all()


def test_edge_stays_where_both_sides_look_alike():
    picture = painting(30.0, (120, 110, 100), (120, 110, 100))
    picture = np.full_like(picture, 115)
    found = refine_edge(picture, disc(31.5) < 0, lambda mask: mask)
    assert radius_of(found) == pytest.approx(31.5, abs=0.1)


def test_what_is_filled_or_removed_has_no_edge():
    """A bright hole in the disc that ``whole`` fills stays filled."""
    picture = painting(30.0, (190, 150, 130), (60, 80, 90))
    picture[56:62, 57:63] = (60, 80, 90)

    def whole(mask):
        filled = mask.copy()
        filled[50:70, 50:70] = True
        return filled

    solid = disc(30.0) < 0
    solid[57:61, 58:62] = False
    found = refine_edge(picture, solid, whole)
    assert (found[52:68, 52:68] < 0).all()


@pytest.mark.parametrize("count", [48, 96])
def test_silhouette_of_a_ball_is_not_too_wide(count):
    axis = np.linspace(-1.0, 1.0, count, dtype=np.float32)
    mesh = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    sdf = torch.from_numpy((np.linalg.norm(mesh, axis=-1) - 0.6).astype(np.float32))
    K = np.array([[300.0, 0.0, 60.0], [0.0, 300.0, 60.0], [0.0, 0.0, 1.0]])
    c2w = np.eye(4)
    c2w[2, 3] = -4.0
    found = silhouette(sdf, np.zeros(3), 1.0, Camera(K, c2w, 120, 120), 120, 120)
    # The cone that touches the ball has the half angle asin(0.6 / 4).
    expected = 300.0 * np.tan(np.arcsin(0.6 / 4.0))
    assert radius_of(found) == pytest.approx(expected, abs=0.12)
    y, x = np.mgrid[0:120, 0:120] + 0.5
    exact = np.hypot(x - 60, y - 60) - expected
    assert np.abs(found - exact)[np.abs(exact) < 1.0].max() < 0.3
