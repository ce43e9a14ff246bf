"""Skin, hair and clothes where hardly any frame looks: they belong to what surrounds them."""

import numpy as np
import pytest
from portrait2d_person import CLOTH, HAIR, SKIN, face_landmarks

from toonify3d.portrait2d.colorspace import to_lab
from toonify3d.portrait2d.regions import classify
from toonify3d.portrait2d.surface import Observations

RADIUS, MIDDLE = 1.5, -1.2
TOP, SHOULDER, BOTTOM = 1.6, -1.8, -3.4


def body(fine=1):
    """A closed column with a round head in the face frame: vertices, normals, faces."""
    count, rows = 72 * fine, 49 * fine
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    rise = np.linspace(0, np.pi / 2, 13 * fine + 1)[:-1]
    height = np.concatenate([np.linspace(-5, TOP, rows + 1)[:-1], TOP + RADIUS * np.sin(rise)])
    around = np.concatenate([np.full(rows, RADIUS), RADIUS * np.cos(rise)])
    rings = np.stack(
        [
            around[:, None] * np.sin(angle),
            np.repeat(height[:, None], count, axis=1),
            MIDDLE + around[:, None] * np.cos(angle),
        ],
        axis=2,
    ).reshape(-1, 3)
    vertices = np.concatenate([rings, [[0, TOP + RADIUS, MIDDLE], [0, -5, MIDDLE]]])
    i, j = np.meshgrid(np.arange(len(height) - 1), np.arange(count), indexing="ij")
    a, b = (i * count + j).ravel(), (i * count + (j + 1) % count).ravel()
    faces = [np.stack([a, b, b + count], 1), np.stack([a, b + count, a + count], 1)]
    last, turn = len(rings) - count + np.arange(count), (np.arange(count) + 1) % count
    faces += [np.stack([last, len(rings) - count + turn, np.full(count, len(rings))], 1)]
    faces += [np.stack([turn, np.arange(count), np.full(count, len(rings) + 1)], 1)]
    out = vertices - np.stack(
        [np.zeros(len(vertices)), np.minimum(vertices[:, 1], TOP), np.full(len(vertices), MIDDLE)],
        1,
    )
    return vertices, out / np.linalg.norm(out, axis=1, keepdims=True), np.concatenate(faces)


def labels(colors, seen, fine=1):
    vertices, normals, faces = body(fine)
    noise = np.random.default_rng(0).normal(0, 5, (len(vertices), 3))
    lab = to_lab(np.clip(colors + noise, 0, 255).astype(np.uint8)).reshape(-1, 3)
    observed = Observations(lab, np.zeros(len(lab), np.float32), seen)
    found = classify(vertices, normals, faces, observed, face_landmarks())
    return vertices, np.stack([found.skin, found.hair, found.clothes], 1).argmax(axis=1)


@pytest.mark.parametrize("dressed", [False, True])
def test_an_unseen_bottom_belongs_to_what_surrounds_it(dressed):
    height = body()[0][:, 1]
    colors = np.tile(SKIN, (len(height), 1))
    if dressed:
        colors[height < SHOULDER] = CLOTH
    unseen = height < BOTTOM
    colors[unseen] = 12  # what the field paints where no frame looks
    seen = np.where(unseen, 0, 20)
    _, label = labels(colors, seen)
    assert (label[unseen] == (2 if dressed else 0)).mean() > 0.99
    assert (label[(height > SHOULDER + 0.3)] == 0).mean() > 0.99


def test_hair_and_clothes_are_told_from_skin():
    vertices = body()[0]
    height, depth = vertices[:, 1], vertices[:, 2]
    hair = (height > 1.7) | ((depth < MIDDLE - 0.3) & (height > -0.5))
    colors = np.tile(SKIN, (len(height), 1))
    colors[hair], colors[height < SHOULDER] = HAIR, CLOTH
    _, label = labels(colors, np.full(len(height), 20))
    wanted = np.where(hair, 1, np.where(height < SHOULDER, 2, 0))
    assert (label == wanted).mean() > 0.97


def test_a_collar_of_the_hairs_colour_that_the_hair_touches_is_no_hair():
    vertices, normals, _ = body(3)
    height, behind = vertices[:, 1], normals[:, 2] < 0
    colors = np.tile(SKIN, (len(height), 1))
    colors[height < SHOULDER] = CLOTH
    long = behind & (height > SHOULDER - 0.5)
    hair = long | (height > TOP + 0.6)
    collar = (height < SHOULDER) & (height > SHOULDER - 0.15)
    colors[hair | collar] = HAIR
    _, found = labels(colors, np.full(len(height), 20), fine=3)
    assert (found[hair] == 1).mean() > 0.97
    front = collar & (normals[:, 2] > 0.3)
    assert (found[front] == 1).mean() < 0.03
    inner = long & (normals[:, 2] < -0.2)
    assert (found[inner] == 1).mean() > 0.99


def test_one_portrait_alone_has_regions_too():
    vertices, normals, _ = body()
    height, front = vertices[:, 1], normals[:, 2] > 0
    hair = height > 1.7
    colors = np.tile(SKIN, (len(height), 1))
    colors[hair], colors[height < SHOULDER] = HAIR, CLOTH
    _, label = labels(colors, front.astype(int))
    wanted = np.where(hair, 1, np.where(height < SHOULDER, 2, 0))
    assert (label == wanted)[front].mean() > 0.95
