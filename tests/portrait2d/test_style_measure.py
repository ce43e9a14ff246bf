"""The benchmark's style distances: zero for the exemplar itself, larger for every known fault."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from portrait2d_person import draw_face, face_landmarks

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import stylizer_regions
import stylizer_style as style

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.exemplar import analyse
from toonify3d.portrait2d.surface import visible
from toonify3d.progress import SilentProgress


def painted(seed: int = 0, wall: int = 255) -> style.Portrait:
    """A head of grained skin under grained hair, with eyes, before a wall; face 96 px wide."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(0, 40, (200, 160, 3)).astype(np.float32), (0, 0), 1.5)
    regions = np.zeros((200, 160), np.uint8)
    cv2.ellipse(regions, (80, 90), (64, 80), 0, 0, 360, (style.HAIR,), -1)
    cv2.ellipse(regions, (80, 110), (48, 60), 0, 0, 360, (style.SKIN,), -1)
    for x in (60, 100):
        cv2.ellipse(regions, (x, 100), (13, 7), 0, 0, 360, (style.EYES,), -1)
    tone = {style.HAIR: (90, 60, 40), style.SKIN: (220, 170, 140), style.EYES: (250, 250, 250)}
    image = np.full((200, 160, 3), float(wall))
    for region, colour in tone.items():
        image[regions == region] = colour
    cv2.circle(image, (60, 100), 5, (20, 20, 20), -1)
    cv2.circle(image, (100, 100), 5, (20, 20, 20), -1)
    image[regions > 0] += grain[regions > 0]
    return style.Portrait(np.clip(image, 0, 255).astype(np.uint8), regions)


def blurred(item: style.Portrait, sigma: float) -> style.Portrait:
    return replace(item, image=cv2.GaussianBlur(item.image, (0, 0), sigma))


def distance(goal: style.Portrait, item: style.Portrait) -> style.Closeness:
    return style.closeness(goal, [item])[0]


def test_the_exemplar_itself_is_at_zero_and_its_like_nearby() -> None:
    goal = painted()
    same = distance(goal, goal)
    assert same.patches == 0 and same.palette == 0
    like = distance(goal, painted(seed=1)).patches
    flipped = distance(goal, goal.mirrored()).patches
    flat = distance(goal, blurred(goal, 3.0)).patches
    assert like < 0.35 * flat and flipped < 0.35 * flat


@pytest.mark.parametrize(
    "spoil",
    [
        lambda item, much: blurred(item, much),
        lambda item, much: replace(
            item,
            image=np.clip(
                item.image + np.random.default_rng(5).normal(0, 8 * much, item.image.shape), 0, 255
            ).astype(np.uint8),
        ),
    ],
    ids=["blur", "grain"],
)
def test_blur_and_grain_raise_the_distance_of_patches(spoil) -> None:
    goal = painted()
    steps = [distance(goal, spoil(painted(seed=1), much)).patches for much in (0.01, 1.0, 2.0)]
    assert steps[1] > 1.3 * steps[0] and steps[2] > 1.2 * steps[1]


def test_a_wrong_colour_raises_the_palette_of_its_region_only() -> None:
    goal, other = painted(), painted(seed=1)
    wrong = other.image.copy()
    wrong[other.regions == style.HAIR, 2] = 200
    before, after = style.closeness(goal, [other, replace(other, image=wrong)])
    assert after.palette > before.palette + 10
    assert after.by_region[style.HAIR][1] > before.by_region[style.HAIR][1] + 20
    assert after.by_region[style.SKIN][1] == before.by_region[style.SKIN][1]


def test_the_wall_does_not_count() -> None:
    goal, other = painted(), painted(seed=1)
    behind = other.image.copy()
    behind[other.regions == style.NOBODY] = (30, 90, 10)
    one, two = style.closeness(goal, [other, replace(other, image=behind)])
    assert one.patches == pytest.approx(two.patches, rel=1e-6)
    assert one.palette == two.palette


def test_what_only_one_picture_shows_does_not_count() -> None:
    goal, bald = painted(), painted(seed=1)
    crown = bald.regions == style.HAIR
    regions, image = bald.regions.copy(), bald.image.copy()
    regions[crown], image[crown] = style.SKIN, (220, 170, 140)
    found = distance(goal, style.Portrait(image, regions))
    assert set(found.by_region) == {style.SKIN, style.EYES}
    area = [(regions == r).sum() for r in (style.SKIN, style.EYES)]
    parts = [found.by_region[r][1] for r in (style.SKIN, style.EYES)]
    assert found.palette == pytest.approx(np.average(parts, weights=area))


def test_small_organs_count_as_skin() -> None:
    goal, other = painted(), painted(seed=1)
    regions = other.regions.copy()
    regions[regions == style.EYES] = style.SKIN
    regions[100:105, 58:63] = style.EYES
    assert style.EYES not in distance(goal, replace(other, regions=regions)).by_region


def test_nothing_in_common_is_said() -> None:
    goal = painted()
    hairless = replace(goal, regions=np.where(goal.regions == style.HAIR, style.HAIR, 0))
    skinless = replace(goal, regions=np.where(goal.regions == style.SKIN, style.SKIN, 0))
    with pytest.raises(ValueError, match="no region in common"):
        distance(hairless, skinless)


def test_scaling_brings_the_face_to_the_common_width() -> None:
    item = painted()
    small = item.at_width(48.0, 24.0)
    assert small.image.shape[:2] == small.regions.shape == (100, 80)
    assert set(np.unique(small.regions)) <= set(np.unique(item.regions))


def test_regions_of_a_drawing_follow_its_face() -> None:
    image, points = draw_face(face_landmarks(), 512, 110.0)
    cv2.line(image, (240, 270), (272, 270), (150, 70, 20), 3)  # a nose in the hair's colour
    found = stylizer_regions.exemplar_portrait(analyse(image, None, points))
    unit = np.ptp(points[list(lm.FACE_OVAL), 0])
    at = points[:, :2] * style.FACE_WIDTH / unit
    middle = {
        style.EYES: at[list(lm.LEFT_EYE)].mean(0),
        style.LIPS: at[list(lm.LIPS_OUTER)].mean(0),
        style.BROWS: at[list(lm.RIGHT_BROW)].mean(0),
        style.SKIN: np.array([256, 270]) * style.FACE_WIDTH / unit,
        style.HAIR: np.array([256, 100]) * style.FACE_WIDTH / unit,
        style.NOBODY: np.array([20, 20]) * style.FACE_WIDTH / unit,
    }
    for region, (x, y) in middle.items():
        assert found.regions[int(y), int(x)] == region, style.NAMES[region]


def test_regions_of_a_frame_are_those_of_the_surface(subject) -> None:
    scene, mesh = subject[:2]
    person = pipeline.study_person(scene, mesh, SilentProgress())
    frame = min(scene.frames, key=lambda f: abs(f.yaw))
    count = len(person.mesh.vertices) + len(person.world)
    arguments = person, frame.camera, scene.image(frame), scene.mask(frame)
    as_filmed = stylizer_regions.frame_portrait(*arguments, None)
    unmoved = stylizer_regions.frame_portrait(*arguments, np.zeros((count, 3)))
    assert (as_filmed.regions == unmoved.regions).mean() > 0.999
    unit = np.ptp(frame.camera.project(person.world)[0][list(lm.FACE_OVAL), 0])
    image_points, seen = visible(
        frame.camera, person.caster.depth(frame.camera), person.mesh.vertices, 0.003
    )
    for labels, region in ((person.regions.hair, style.HAIR), (person.regions.skin, style.SKIN)):
        sure = seen & (labels > 0.95) & (person.regions.beard < 0.1)
        at = np.floor(image_points[sure] * style.FACE_WIDTH / unit).astype(int)
        codes = as_filmed.regions[at[:, 1], at[:, 0]]
        known = ~np.isin(codes, (*style.ORGANS, style.OTHER, style.NOBODY))
        assert known.sum() > 50 and (codes[known] == region).mean() > 0.95
