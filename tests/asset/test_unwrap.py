"""Cutting and flattening: disks without folds, one face chart, the seam behind."""

import numpy as np
import pytest
import torch

from toonify3d.asset.cuts import BASE, FACE, REST, disk_of, label_regions, seam_path, split_at
from toonify3d.asset.flatten import border_loop, flatten
from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.mesh import decimate, face_components, largest_component
from toonify3d.asset.raster import overlapping_faces
from toonify3d.asset.uv import _Chart, _without_overlaps, crossing_borders, unwrap
from toonify3d.progress import SilentProgress


def bust(fields):
    """A head on a neck on shoulders, cut flat below; the face looks along -Y."""
    head = fields.ball((0.0, 0.0, 0.45), 0.35)
    shoulders = fields.ball((0.0, 0.05, -0.45), 0.5)

    def distance(x):
        neck = x[:, :2].norm(dim=1) - 0.2
        neck = torch.maximum(neck, (x[:, 2] - 0.05).abs() - 0.4)
        return torch.stack([head(x), shoulders(x), neck]).amin(dim=0)

    field = ClippedField(fields.AnalyticField(distance), crop_z=-0.4)
    v, f = extract_level_set(field, 64, SilentProgress())
    v, f, _ = largest_component(v, f)
    v, f = decimate(v, f, 4000, SilentProgress())
    center = v[f].mean(axis=1)
    face = (np.linalg.norm(center[:, [0, 2]] - [0, 0.45], axis=1) < 0.24) & (center[:, 1] < 0)
    return v, f, face


def signed(uv, faces):
    a, b, c = (uv[faces[:, k]] for k in range(3))
    u, w = b - a, c - a
    return 0.5 * (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0])


def grid_patch(rows=20, columns=30):
    """A developable patch: a quarter of a cylinder of radius 1."""
    turn, height = np.meshgrid(
        np.linspace(0, np.pi / 2, columns), np.linspace(0, 1, rows), indexing="ij"
    )
    v = np.stack([np.cos(turn), np.sin(turn), height], -1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(columns, rows)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    f = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
    return v, f


def test_a_cylinder_unrolls_without_any_stretch():
    v, f = grid_patch()
    uv = flatten(v, f, rounds=100)
    edges = np.unique(np.sort(f[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    space = np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1)
    plane = np.linalg.norm(uv[edges[:, 0]] - uv[edges[:, 1]], axis=1)
    assert np.abs(plane / space - 1).max() < 0.05
    assert signed(uv, f).min() > 0


def test_what_is_no_disk_is_refused():
    v, f = grid_patch()
    assert flatten(v, np.delete(f, [400, 401], axis=0)) is None  # a hole: two borders
    tetra = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    assert border_loop(tetra) is None
    assert flatten(v[:4], tetra) is None


def test_a_bowl_keeps_its_orientation_and_nearly_its_area():
    v, f = grid_patch(40, 40)
    bowl = np.column_stack([v[:, 1] * 2 - 1, v[:, 2] * 2 - 1])
    z = 0.8 * np.exp(-2 * (bowl**2).sum(axis=1))
    v = np.column_stack([bowl, z])
    if signed(bowl, f).sum() < 0:
        f = f[:, ::-1]
    uv = flatten(v, f)
    area = signed(uv, f)
    corner = v[f]
    space = 0.5 * np.linalg.norm(
        np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1
    )
    assert area.min() > 0
    assert np.percentile(np.sqrt(area / space), [2, 98]) == pytest.approx([1, 1], abs=0.5)


def test_regions_of_a_bust(fields):
    v, f, face = bust(fields)
    labels = label_regions(v, f, face)
    for label in (FACE, BASE):
        part = f[labels == label]
        assert border_loop(part) is not None and face_components(part)[0] == 1
    normal = np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]])
    assert (normal[labels == BASE, 2] < 0).mean() > 0.95
    assert (face[labels == FACE]).mean() > 0.9


def test_the_seam_runs_behind_and_opens_the_rest_into_a_disk(fields):
    v, f, face = bust(fields)
    labels = label_regions(v, f, face)
    seam = seam_path(v, f, labels)
    points = v[np.unique(seam)]
    low = points[points[:, 2] < 0.45]
    assert len(low) > 5 and (low[:, 1] > 0).all()
    assert np.abs(points[:, 0]).max() < 0.15
    corners, source = split_at(f, labels, seam)
    assert (source[corners] == f).all()
    rest = corners[labels == REST]
    assert face_components(rest)[0] == 1 and border_loop(rest) is not None


def test_a_bust_is_few_charts_with_the_face_in_one(fields):
    v, f, face = bust(fields)
    atlas = unwrap(v, f, 512, 4, SilentProgress(), face, 2.0)
    assert atlas.overlap == 0 and atlas.charts <= 8
    assert atlas.face_density == pytest.approx(2.0, rel=0.01)
    inner = disk_of(f, face)
    count, _ = face_components(atlas.faces[inner])
    assert count == 1
    # What is up on the head is up in the face's chart.
    uv, z = atlas.uv[atlas.faces[inner]].mean(axis=1), v[f[inner]].mean(axis=1)[:, 2]
    assert np.corrcoef(uv[:, 1], z)[0, 1] > 0.95
    assert abs(np.corrcoef(uv[:, 0], z)[0, 1]) < 0.3


def test_overlapping_faces_are_named():
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.2, 0.1], [0.9, 0.2], [0.3, 0.9]])
    assert overlapping_faces(uv, np.array([[0, 1, 2], [3, 4, 5]]), 64).tolist() == [[0, 1]]
    assert not len(overlapping_faces(uv, np.array([[0, 1, 2]]), 64))


def open_ring(turn, columns=240):
    """A strip round a circle of ``turn`` radians, two triangles wide, all turning one way."""
    angle = np.linspace(0.0, turn, columns)
    radius = np.array([0.5, 1.0])
    uv = np.stack([np.cos(angle)[:, None] * radius, np.sin(angle)[:, None] * radius], -1)
    index = np.arange(2 * columns).reshape(columns, 2)
    a, b, c, d = index[:-1, 0], index[:-1, 1], index[1:, 1], index[1:, 0]
    f = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return uv.reshape(-1, 2), f


@pytest.mark.parametrize("past", [1e-4, 0.3])
def test_a_border_that_crosses_itself_is_found_however_thin_the_overlap(past):
    uv, f = open_ring(2 * np.pi + past)
    pairs = crossing_borders(uv, f)
    assert len(pairs)
    rim = {*range(6), *range(len(f) // 2 - 12, len(f) // 2 + 12), *range(len(f) - 12, len(f))}
    assert set(pairs.reshape(-1)) <= rim or past > 0.1
    if past < 0.1:  # between the texel centres it passes unseen
        assert not len(overlapping_faces((uv + 1.0) / 2.0, f, 64))
    for part in _without_overlaps(
        np.c_[uv, 0 * uv[:, :1]], _Chart(np.arange(len(f)), np.arange(len(uv)), f, uv)
    ):
        assert not len(crossing_borders(part.uv, part.faces))


def test_touching_and_open_borders_do_not_cross():
    for turn in (2 * np.pi - 1e-4, np.pi):
        uv, f = open_ring(turn)
        assert not len(crossing_borders(uv, f))
