"""Sharp rims, even triangles, and the slider near the cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from toonify3d.asset.crease import cut_faces, onto_rim, sharpen_rim
from toonify3d.asset.intersect import crossing_faces
from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.mesh import check_mesh, vertex_normals
from toonify3d.asset.morph import Bottom, above_the_persons_cut, morph_figures, on_the_person
from toonify3d.asset.remesh import wanted_length
from toonify3d.asset.settings import AssetSettings
from toonify3d.asset.surface import extract_mesh, extract_surface
from toonify3d.asset.topology import Edges, apart, apart_on_mesh, split_edges
from toonify3d.progress import SilentProgress

EVEN = AssetSettings(resolution=96, faces=3000)
# A cylinder along Z meets a cut at a right angle: marching cubes would chamfer its rim.
RADIUS = 0.4


def cylinder(x):
    """Round above, straight down to -0.5."""
    along = x[:, 2].clamp(-0.5, 0.2)
    return torch.stack([x[:, 0], x[:, 1], x[:, 2] - along], dim=1).norm(dim=1) - RADIUS


def roundness(vertices, faces):
    """1 for equilateral triangles."""
    corners = vertices[faces]
    sides = ((corners - np.roll(corners, 1, axis=1)) ** 2).sum(axis=(1, 2))
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return 2 * np.sqrt(3) * np.linalg.norm(cross, axis=1) / sides


def rim_error(field, vertices, faces):
    """How far the edges between cut and wall are from the true circle."""
    edges = Edges.of(faces)
    cut = cut_faces(field, vertices, faces)
    rim = edges.ends[cut[edges.sides[:, 0]] != cut[edges.sides[:, 1]]]
    places = vertices[np.unique(rim)]
    away = np.abs(np.linalg.norm(places[:, :2], axis=1) - RADIUS)
    return max(away.max(), np.abs(places[:, 2] - field.crop_z).max()), len(rim)


def test_a_cut_has_a_sharp_rim(fields):
    field = ClippedField.of_scene(
        fields.AnalyticField(cylinder), fields.scene(crop_z=-0.22), 0.99, resolution=64
    )
    cell = 2.0 / 64
    assert -0.22 <= field.crop_z < -0.22 + cell
    assert ((field.crop_z + 1) / cell) % 1 == pytest.approx(0.5)  # this coarse it is moved
    vertices, faces = extract_level_set(field, 64, SilentProgress())
    before, _ = rim_error(field, vertices, faces)
    sharp, triangles = sharpen_rim(field, vertices, faces, cell)
    after, count = rim_error(field, sharp, triangles)
    assert before > 0.1 * cell and after < 1e-3 * cell and count > 60
    assert check_mesh(sharp, triangles).manifold and not crossing_faces(sharp, triangles).any()


@pytest.mark.parametrize("crop", [-0.22, -0.2, -0.19921875, -0.1977])
def test_the_cut_is_where_it_was_asked_for(fields, crop):
    scene = fields.scene(center=(0.0, 0, 0.1), radius=0.5, crop_z=crop)
    field = ClippedField.of_scene(fields.AnalyticField(cylinder), scene, 0.99, resolution=128)
    assert field.height(scene.normalization) == pytest.approx(crop, abs=1e-12)
    vertices, faces = extract_level_set(field, 128, SilentProgress())
    sharp, _ = sharpen_rim(field, vertices, faces, 2.0 / 128)
    assert scene.normalization.to_world(sharp)[:, 2].min() == pytest.approx(crop, abs=1e-6)
    # Round above, so the top shows that the grid's move has not moved the shape.
    assert sharp[:, 2].max() == pytest.approx(0.2 + RADIUS, abs=1e-4)


def test_without_a_cut_nothing_is_sharpened(fields):
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)))
    vertices, faces = extract_level_set(field, 32, SilentProgress())
    same, triangles = sharpen_rim(field, vertices, faces, 1 / 16)
    assert same is vertices and triangles is faces


@pytest.mark.parametrize("shape", ["ball", "cut ball", "torus"])
def test_triangles_are_even_and_on_the_surface(fields, shape):
    distance = fields.torus(0.5, 0.2) if shape == "torus" else fields.ball((0.0, 0, 0), 0.5)
    crop = -0.3 if shape == "cut ball" else -np.inf
    scene = fields.scene(crop_z=crop)
    field = ClippedField.of_scene(
        fields.AnalyticField(distance), scene, 0.99, resolution=EVEN.resolution
    )
    surface = extract_surface(field, scene, EVEN, SilentProgress())
    check = surface.check
    assert check.manifold and check.euler == (0 if shape == "torus" else 2)
    assert surface.crossings == (0, 0)
    assert EVEN.faces - 2 <= len(surface.faces) <= EVEN.faces
    good = roundness(surface.vertices, surface.faces)
    assert np.percentile(good, 5) > 0.75 and np.median(good) > 0.93
    assert np.abs(field.sdf(surface.vertices)).max() < 4e-3
    if shape == "cut ball":
        cut = cut_faces(field, surface.vertices, surface.faces)
        assert 0.01 < cut.mean() < 0.08  # the flat cut takes a quarter of the surface
        flat = surface.vertices[surface.faces[cut]]
        assert np.abs(flat[..., 2] - field.crop_z).max() < 1e-6


def test_more_triangles_where_the_surface_bends(fields):
    thin = fields.union(fields.ball((0.0, 0, 0), 0.5), fields.ball((0.0, 0, 0.55), 0.12))
    field = ClippedField(fields.AnalyticField(thin))
    surface = extract_surface(field, fields.scene(), EVEN, SilentProgress())
    center = surface.vertices[surface.faces].mean(axis=1)
    corners = surface.vertices[surface.faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    knob = center[:, 2] > 0.58
    assert np.median(area[knob]) < 0.5 * np.median(area[center[:, 2] < 0.3])


def test_length_follows_curvature(fields):
    field = ClippedField(fields.AnalyticField(fields.torus(0.5, 0.15)))
    v, f = extract_level_set(field, 64, SilentProgress())
    length = wanted_length(v, f, vertex_normals(v, f), np.ones(len(v)))
    assert length.min() > 0.3 and length.max() < 1.5
    halved = wanted_length(v, f, vertex_normals(v, f), np.full(len(v), 0.5))
    assert np.abs(halved / length - 0.5).max() < 1e-9


def test_splitting_edges_keeps_the_surface_closed():
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    edges = Edges.of(faces)
    assert len(edges.ends) == 6 and edges.inner.all()
    for pattern in range(64):
        chosen = (pattern >> np.arange(6) & 1).astype(bool)
        out, owner = split_edges(faces, edges, chosen, 4)
        points = np.zeros((4 + chosen.sum(), 3))
        check = check_mesh(points, out)
        assert check.manifold and check.euler == 2
        assert len(out) == 4 + 2 * chosen.sum() == len(owner)


def test_independent_sets_share_nothing():
    rank = np.array([3.0, 1.0, 2.0, 0.5])
    groups = np.array([[0, 1], [1, 2], [2, 3], [4, 5]])
    assert apart(np.arange(4), rank, groups, 6).tolist() == [1, 3]
    strip = np.array([[i, i + 1, i + 2] for i in range(12)])
    edges = Edges.of(strip)
    rows = np.arange(len(edges.ends))
    rank = np.random.default_rng(0).permutation(len(rows)).astype(float)
    taken = apart_on_mesh(rows, rank, edges, 14)
    ends = edges.ends[taken]
    assert len(taken) >= 2 and np.argmin(rank) in taken
    touched = [set(np.flatnonzero(np.isin(strip, pair).any(axis=1))) for pair in ends]
    assert all(a.isdisjoint(b) for i, a in enumerate(touched) for b in touched[:i])


class Lifted:
    """A style that lies 0.01 higher than the person: its way back leads down."""

    device = torch.device("cpu")

    def sdf(self, x):
        return cylinder(self.to_prior(x))

    def color(self, x):
        return x * 0.5 + 0.5

    def to_prior(self, x):
        return x - torch.tensor([0.0, 0.0, 0.01])


def test_the_slider_ends_on_the_person_down_to_the_rim(fields):
    scene = fields.scene(crop_z=-0.2)
    whole = replace(EVEN, faces=0, resolution=128)
    person = extract_mesh(fields.AnalyticField(cylinder), scene, whole, SilentProgress())
    style = Lifted()
    height = above_the_persons_cut(style, person, scene, None)
    # Cut at the person's height the style's rim would lie 0.01 below the person's.
    assert person.vertices[:, 2].min() + 0.008 < height <= person.vertices[:, 2].min() + 0.0101
    even = replace(EVEN, faces=6000, resolution=128)
    field = ClippedField.of_scene(style, scene, 0.99, height, even.resolution)
    surface = extract_surface(field, scene, even, SilentProgress())
    bottom = Bottom.of(field, surface.vertices, scene.normalization)
    real = on_the_person(style, surface.vertices, scene.normalization)
    figures = morph_figures(surface.vertices, real, surface.faces, person, bottom)
    assert figures["surface_max"] < 0.1 and figures["flipped_faces"] == 0
    assert bottom.faces(surface.vertices, surface.faces).sum() > 20


def test_rim_points_far_away_stay(fields):
    field = ClippedField(fields.AnalyticField(cylinder), crop_z=-0.2)
    near, far = [RADIUS - 0.01, 0.0, -0.19], [0.1, 0.0, 0.3]
    out = onto_rim(field, np.array([near, far]), 0.05)
    assert np.abs(out[0] - [RADIUS, 0, -0.2]).max() < 1e-5
    assert (out[1] == far).all()


def test_a_cut_that_grazes_the_surface_leaves_no_vertex_outside(fields):
    # Just above its lowest point a ball is nearly parallel to the cut.
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)), crop_z=-0.49)
    out = onto_rim(field, np.array([[0.08, 0.0, -0.49], [0.0, 0.11, -0.492]]), 0.04)
    assert np.abs(field.sdf(out)).max() < 1e-5
