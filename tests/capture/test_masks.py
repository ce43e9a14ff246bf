from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from toonify3d.capture import masks as person_masks
from toonify3d.capture.colour_model import COLOURS, histogram, learn_palette, local_ratio
from toonify3d.capture.look_at import look_at_ball, neighbours
from toonify3d.capture.mask_settings import MaskSettings
from toonify3d.capture.masks import compute_masks
from toonify3d.capture.object_start import circles_something, look_at_ball_of_cameras
from toonify3d.capture.parallax import Ball, ball_evidence, plane_homography
from toonify3d.capture.segmentation import PersonSegmenter, Window
from toonify3d.errors import InputError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera

sys.path.insert(0, str(Path(__file__).parent))
import made_up_capture as made_up

SETTINGS = MaskSettings(vote_long_side=160, refine_long_side=160, grid=48)


@pytest.fixture(scope="module")
def capture():
    return made_up.make(36)


class BadSegmenter:
    """Answers like the real one at its worst: loses the chest from behind, adds clutter."""

    def __init__(self, masks):
        self.masks = masks
        self.calls = 0

    def __call__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def probability(self, image, window=None):
        index, self.calls = self.calls, self.calls + 1
        out = cv2.GaussianBlur(self.masks[index].astype(np.float32) / 255, (0, 0), 3)
        if index % 4 == 0:
            out[100:] = 0.0
        if index % 5 == 1:
            out[110:, 20:100] = 0.95
        return out


@pytest.fixture(scope="module")
def result(capture):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(person_masks, "PersonSegmenter", BadSegmenter(capture.masks))
        return compute_masks(capture.images, capture.cameras, None, SETTINGS, SilentProgress())


def test_views_correct_each_other(result, capture):
    bad = BadSegmenter(capture.masks)
    before = [made_up.iou((bad.probability(None) > 0.5) * 255, true) for true in capture.masks]
    after = [made_up.iou(mask, true) for mask, true in zip(result, capture.masks, strict=True)]
    assert min(before) < 0.85
    assert np.mean(after) > 0.96
    assert min(after) > 0.93


def test_masks_are_not_too_wide_or_narrow(result, capture):
    """In pixels of outline, on the mean of all views; the frame's border is no outline."""
    pairs = list(zip(result, capture.masks, strict=True))
    wrong = sum(float((mask / 255.0 - (true > 127)).sum()) for mask, true in pairs)
    kernel = np.ones((3, 3), np.uint8)
    rims = [(true > 127) & (cv2.erode(true, kernel) <= 127) for _, true in pairs]
    assert abs(wrong / sum(int(rim.sum()) for rim in rims)) < 0.15


def test_masks_are_crisp_and_whole(result):
    for mask in result:
        assert mask.dtype == np.uint8
        assert ((mask > 12) & (mask < 243)).mean() < 0.06
        solid = (mask > 127).astype(np.uint8)
        assert cv2.connectedComponents(solid)[0] == 2
        assert cv2.connectedComponents(1 - solid, connectivity=4)[0] <= 3


def test_answer_has_the_images_size(capture, monkeypatch):
    large = [cv2.resize(image, (240, 320)) for image in capture.images]
    cameras = [camera.resized(240, 320) for camera in capture.cameras]
    monkeypatch.setattr(person_masks, "PersonSegmenter", BadSegmenter(capture.masks))
    monkeypatch.setattr(
        BadSegmenter,
        "probability",
        lambda self, image, window=None: cv2.resize(
            self.masks[0].astype(np.float32) / 255, image.shape[1::-1]
        ),
    )
    masks = compute_masks(large, cameras, None, SETTINGS, SilentProgress())
    assert all(mask.shape == (320, 240) for mask in masks)


@pytest.mark.parametrize("kind", ["room", "noise", "black"])
def test_no_person_is_said(capture, kind):
    """With the real model: an empty room, noise, and black frames."""
    rng = np.random.default_rng(0)
    images = {
        "room": [image[:40] for image in capture.images],
        "noise": [rng.integers(0, 255, im.shape, np.uint8) for im in capture.images],
        "black": [np.zeros_like(image) for image in capture.images],
    }[kind]
    images = [cv2.resize(image, (120, 160)) for image in images]
    with pytest.raises(InputError) as caught:
        compute_masks(images, capture.cameras, None, SETTINGS, SilentProgress())
    assert caught.value.code == "no_person"


@pytest.mark.shared
def test_segmenter_finds_a_real_face(shared_portrait):
    with PersonSegmenter() as segmenter:
        whole = segmenter.probability(shared_portrait)
        part = segmenter.probability(shared_portrait, Window(0, 0, 300, 300))
    height, width = shared_portrait.shape[:2]
    assert whole.shape == (height, width)
    assert whole[height // 4 : height // 3, width * 2 // 5 : width // 2].mean() > 0.8
    assert (part[301:] == 0.5).all()


@pytest.fixture
def shared_portrait(shared_data):
    path = shared_data / "portraits" / "astronaut.png"
    if not path.exists():
        pytest.skip(f"needs {path}, which is not here")
    return cv2.imread(str(path))[..., ::-1].copy()


class BlindSegmenter(BadSegmenter):
    """Sees a person nowhere, as with a skull, a bust or a mannequin."""

    def probability(self, image, window=None):
        return np.full(image.shape[:2], 0.02, np.float32)


@pytest.mark.parametrize(("height", "distance"), [(0.03, 0.9), (0.12, 0.55)])
def test_a_thing_that_is_no_person_is_masked_with_a_warning(height, distance, monkeypatch):
    """Also where the cameras stand nearer and look higher, so that the lower ball is cut off."""
    thing = made_up.make(30, center=(0.0, 0.0, height), distance=distance)
    assert all(mask[-1].any() == (height > 0.1) for mask in thing.masks)
    monkeypatch.setattr(person_masks, "PersonSegmenter", BlindSegmenter(thing.masks))
    progress = SilentProgress()
    masks = compute_masks(thing.images, thing.cameras, None, SETTINGS, progress)
    overlap = [made_up.iou(mask, true) for mask, true in zip(masks, thing.masks, strict=True)]
    assert np.mean(overlap) > 0.95
    assert min(overlap) > 0.92
    assert progress.warnings == [person_masks.NOT_A_PERSON]


def test_ball_of_cameras_holds_the_thing(capture):
    ball = look_at_ball_of_cameras(capture.cameras, None)
    assert np.linalg.norm(ball.center - [0.0, 0.0, 0.03]) < 0.01
    assert 0.25 < ball.radius < 0.6
    rng = np.random.default_rng(0)
    cluster = rng.normal(size=(300, 3)) * 0.05 + [0.0, 0.0, 0.03]
    smaller = look_at_ball_of_cameras(capture.cameras, cluster)
    assert 0.08 < smaller.radius < 0.8 * ball.radius


def test_walking_round_a_thing_is_told_from_a_pan(capture):
    assert circles_something(capture.images) is True
    coarse = np.random.default_rng(0).integers(0, 255, (45, 150, 3), np.uint8)
    wall = cv2.resize(coarse, (1200, 360))
    pan = [wall[:, 9 * i : 9 * i + 270] for i in range(14)]
    assert circles_something(pan) is False
    assert circles_something([np.full((90, 120, 3), 40, np.uint8)] * 8) is None


def test_parallax_tells_person_from_room(capture):
    ball = Ball(np.array([0.0, 0.0, 0.02]), 0.3)
    evidence = ball_evidence(capture.images, capture.cameras, 5, ball, 6.0)
    person = capture.masks[5] > 0
    inner = cv2.erode(person.astype(np.uint8), np.ones((7, 7))) > 0
    outer = cv2.dilate(person.astype(np.uint8), np.ones((9, 9))) == 0
    assert (evidence[inner] > 0).mean() > 0.9
    assert (evidence[outer] < 0).mean() > 0.8


def test_parallax_is_silent_on_plain_pictures(capture):
    plain = [np.full_like(image, 90) for image in capture.images]
    ball = Ball(np.array([0.0, 0.0, 0.02]), 0.3)
    evidence = ball_evidence(plain, capture.cameras, 5, ball, 6.0)
    assert np.abs(evidence[70:90, 50:70]).max() < 0.2


def test_homography_of_a_plane_moves_its_points(capture):
    one, two = capture.cameras[0], capture.cameras[2]
    local = np.array([[0.05, -0.03, 0.8, 1.0], [-0.1, 0.08, 0.8, 1.0]])
    world = (local @ one.c2w.T)[:, :3]
    source, target = one.project(world)[0] - 0.5, two.project(world)[0] - 0.5
    mapped = np.column_stack([source, np.ones(2)]) @ plane_homography(one, two, 1 / 0.8).T
    assert mapped[:, :2] / mapped[:, 2:] == pytest.approx(target)


def test_ball_is_where_the_person_is(capture):
    ball = look_at_ball([mask > 127 for mask in capture.masks], capture.cameras)
    assert np.linalg.norm(ball.center - [0, 0, 0.02]) < 0.06
    for center, radius in made_up.BALLS:
        assert np.linalg.norm(ball.center - center) + radius < 1.25 * ball.radius


def test_ball_scales_with_the_world(capture):
    masks = [mask > 127 for mask in capture.masks]
    moved = [camera.transformed(np.diag([7.0, 7.0, 7.0, 1.0])) for camera in capture.cameras]
    one, two = look_at_ball(masks, capture.cameras), look_at_ball(masks, moved)
    assert two.radius == pytest.approx(7 * one.radius, rel=1e-3)


def test_neighbours_are_on_their_side(capture):
    left, right = neighbours(capture.cameras, np.zeros(3), 0, (10.0, 20.0))
    assert {len(left), len(right)} == {2}
    assert not set(left) & set(right)
    x = capture.cameras[0].c2w[:3, 0]
    at = capture.cameras[0].center
    assert all((capture.cameras[i].center - at) @ x < 0 for i in left)
    assert all((capture.cameras[i].center - at) @ x > 0 for i in right)


def test_colour_ratio_prefers_the_near_colour():
    image = np.zeros((60, 60, 3), np.uint8)
    image[:, :30] = (200, 30, 30)
    image[:, 30:] = (30, 30, 200)
    palette = learn_palette([image])
    labels = palette(image)
    left = np.zeros((60, 60), bool)
    left[:, :20] = True
    right = left[:, ::-1]
    person, room = histogram(labels, left), histogram(labels, right)
    assert person.shape == (COLOURS,)
    ratio = local_ratio(
        labels, left, right, person / person.sum(), room / room.sum(), reach=10, block=4
    )
    assert ratio[30, 25] > 1
    assert ratio[30, 35] < -1


def test_progress_only_rises(capture, monkeypatch):
    seen = []

    class Recorder(SilentProgress):
        def update(self, fraction, message=""):
            seen.append(fraction)

    monkeypatch.setattr(person_masks, "PersonSegmenter", BadSegmenter(capture.masks))
    compute_masks(capture.images, capture.cameras, None, SETTINGS, Recorder())
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_camera_without_the_person_gets_an_empty_mask(capture, monkeypatch):
    """One frame looks away: the others must not suffer."""
    turned = capture.cameras[7].c2w.copy()
    turned[:3, :3] = turned[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    old = capture.cameras[7]
    cameras = list(capture.cameras)
    cameras[7] = Camera(old.K, turned, old.width, old.height)
    image, mask, _ = made_up.render(cameras[7])
    images, truth = list(capture.images), list(capture.masks)
    images[7], truth[7] = image, mask * 0
    monkeypatch.setattr(person_masks, "PersonSegmenter", BadSegmenter(truth))
    masks = compute_masks(images, cameras, None, SETTINGS, SilentProgress())
    assert not masks[7].any()
    assert np.mean([made_up.iou(masks[i], truth[i]) for i in (0, 6, 8, 20)]) > 0.95
