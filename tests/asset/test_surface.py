"""What no frame shows, crossing triangles, open necks, the slider's figures."""

import numpy as np
import pytest

from toonify3d.asset.cuts import label_regions
from toonify3d.asset.flatten import border_loop
from toonify3d.asset.intersect import crossing_faces, untangle
from toonify3d.asset.levelset import ClippedField
from toonify3d.asset.mesh import check_mesh
from toonify3d.asset.morph import Bottom, morph_figures
from toonify3d.asset.settings import AssetSettings
from toonify3d.asset.surface import extract_surface
from toonify3d.asset.unseen import calm_colors, flat_bottom, seen_points, spread
from toonify3d.asset.uv import unwrap
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery
from toonify3d.scene import Camera, Normalization, SurfaceMesh

SETTINGS = AssetSettings(resolution=64, faces=3000)


def ball_mesh(fields, distance=None, crop_z=-np.inf):
    distance = distance or fields.ball((0.0, 0, 0), 0.5)
    field = ClippedField(fields.AnalyticField(distance), crop_z=crop_z)
    return field, extract_surface(field, fields.scene(), SETTINGS, SilentProgress())


def ring_of_cameras(height=0.3, count=12):
    """Cameras round Z that look at the origin a little from above."""
    out = []
    for turn in np.linspace(0, 2 * np.pi, count, endpoint=False):
        center = np.array([2 * np.sin(turn), -2 * np.cos(turn), height])
        z = -center / np.linalg.norm(center)
        x = np.cross(z, [0.0, 0, 1.0])
        x /= np.linalg.norm(x)
        c2w = np.eye(4)
        c2w[:3, :3], c2w[:3, 3] = np.stack([x, np.cross(z, x), z], 1), center
        out.append(Camera(np.array([[400.0, 0, 200], [0, 400, 200], [0, 0, 1]]), c2w, 400, 400))
    return out


def test_seen_points_of_a_ball(fields):
    _, surface = ball_mesh(fields)
    v = surface.vertices
    normals = v / np.linalg.norm(v, axis=1, keepdims=True)
    seen = seen_points(v, normals, MeshQuery(v, surface.faces), ring_of_cameras())
    assert (seen[np.abs(v[:, 2]) < 0.2] > 0).all()
    assert (seen[v[:, 2] < -0.45] == 0).all()
    one = seen_points(v, normals, MeshQuery(v, surface.faces), ring_of_cameras(count=1))
    assert (one[v[:, 1] > 0.1] == 0).all()


def test_the_bottom_is_cut_where_sight_ends(fields):
    _, surface = ball_mesh(fields)
    mesh = SurfaceMesh(surface.vertices, surface.faces)
    cut = flat_bottom(mesh, ring_of_cameras())
    # Seen at less than 80 degrees from (2, 0.3): by hand between -0.5 and -0.38.
    assert -0.5 < cut < -0.38
    assert flat_bottom(mesh, []) is None
    below = [*ring_of_cameras(), *ring_of_cameras(height=-3.0)]
    assert flat_bottom(mesh, below) is None


def test_unseen_parts_take_the_colours_round_them(fields):
    _, surface = ball_mesh(fields)
    v, f = surface.vertices, surface.faces
    seen = v[:, 2] > -0.3
    colors = np.where(seen[:, None], [0.8, 0.6, 0.5], [0.0, 0.1, 0.9])
    calm = calm_colors(v, f, seen, colors)
    assert np.abs(calm.colors[~seen] - [0.8, 0.6, 0.5]).max() < 1e-9
    assert (calm.weight[~seen] == 1).all() and calm.weight[v[:, 2] > 0].max() == 0
    speck = np.ones(len(v), bool)
    speck[:3] = False
    assert calm_colors(v, f, speck, colors) is None
    crown = v[:, 2] > 0.49  # half a percent: what a camera at eye level misses
    colors = np.where(crown[:, None], [0.1, 0.1, 0.1], [0.8, 0.6, 0.5])
    calm = calm_colors(v, f, ~crown, colors)
    assert np.abs(calm.colors[crown] - [0.8, 0.6, 0.5]).max() < 1e-9


def test_spread_is_linear_where_it_can_be():
    line = np.arange(21)
    faces = np.stack([line[:-2], line[1:-1], line[2:]], 1)
    inner = (line > 1) & (line < 19)
    out = spread(faces, inner, np.where(inner, 99.0, line)[:, None].astype(float))
    assert np.abs(out[:, 0] - line).max() < 0.2


def test_crossing_triangles_are_found_and_smoothed_apart(fields):
    _, surface = ball_mesh(fields)
    v, f = surface.vertices, surface.faces
    assert not crossing_faces(v, f).any()
    two = np.concatenate([v, v + np.array([0.7, 0, 0])])
    both = np.concatenate([f, f + len(v)])
    crossing = crossing_faces(two, both)
    center = two[both].mean(axis=1)
    # Two balls of radius 0.5, 0.7 apart, meet in a circle in the plane x = 0.35.
    assert crossing.sum() > 50 and np.abs(center[crossing, 0] - 0.35).max() < 0.08
    pulled = v.copy()
    pulled[np.argmax(v[:, 0])] = [-0.9, 0.05, 0.02]  # one vertex through the whole ball
    assert crossing_faces(pulled, f).any()
    fixed, before, after = untangle(pulled, f)
    assert before > 0 and after == 0
    assert np.linalg.norm(fixed, axis=1).max() < 0.56


@pytest.mark.parametrize("neck", ["flat", "open"])
def test_neck_closed_or_open(fields, neck):
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)), crop_z=-0.3)
    settings = AssetSettings(resolution=64, faces=3000, neck=neck)
    surface = extract_surface(field, fields.scene(), settings, SilentProgress())
    check = check_mesh(surface.vertices, surface.faces)
    assert check.components == 1 and check.crowded_edges == 0
    if neck == "flat":
        assert check.manifold and check.euler == 2
    else:
        loop = border_loop(surface.faces)
        assert check.euler == 1 and loop is not None
        assert np.abs(surface.vertices[loop, 2] + 0.3).max() < 0.05
        assert (label_regions(surface.vertices, surface.faces, None) == 2).all()
        atlas = unwrap(surface.vertices, surface.faces, 512, 4, SilentProgress())
        assert atlas.overlap == 0 and atlas.charts <= 6


def test_open_without_a_cut_stays_closed_and_says_so(fields):
    said = []
    progress = SilentProgress()
    progress.warn = said.append
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)))
    settings = AssetSettings(resolution=48, faces=1000, neck="open")
    surface = extract_surface(field, fields.scene(), settings, progress)
    assert check_mesh(surface.vertices, surface.faces).manifold
    assert any("no flat bottom" in text for text in said)


def test_the_cut_is_no_part_of_the_persons_surface(fields):
    field, surface = ball_mesh(fields, crop_z=-0.3)
    norm = Normalization(np.zeros(3), 1.0)
    bottom = Bottom.of(field, surface.vertices, norm)
    v = surface.vertices
    assert bottom.height == pytest.approx(-0.3)
    assert (np.abs(v[bottom.inner, 2] + 0.3) < 0.02).all()
    assert (np.linalg.norm(v[~bottom.inner], axis=1) > 0.49).all()
    _, whole = ball_mesh(fields)
    prior = SurfaceMesh(whole.vertices, whole.faces)
    figures = morph_figures(v, v, surface.faces, prior, bottom)
    assert figures["surface_max"] < 0.6 and figures["flipped_faces"] == 0
    assert morph_figures(v, v, surface.faces, prior)["surface_max"] > 5.0
    assert Bottom.of(ClippedField(field.field), v, norm) is None
