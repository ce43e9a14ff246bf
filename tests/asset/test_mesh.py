"""Level set and mesh: area, genus, closedness, choice of piece, decimation, repair."""

import numpy as np
import pytest

from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.mesh import (
    Lens,
    check_mesh,
    decimate,
    largest_component,
    repair,
    signed_volume,
    vertex_normals,
)
from toonify3d.asset.pipeline import extract_mesh
from toonify3d.asset.settings import AssetSettings
from toonify3d.errors import InputError, TrainingError
from toonify3d.progress import SilentProgress


def area(vertices, faces):
    corner = vertices[faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    return 0.5 * np.linalg.norm(cross, axis=1).sum()


def surface(fields, distance, resolution=96, **clip):
    field = ClippedField(fields.AnalyticField(distance), **clip)
    return extract_level_set(field, resolution, SilentProgress())


def test_sphere_area_volume_radius_and_orientation(fields):
    v, f = surface(fields, fields.ball((0.1, 0.0, -0.2), 0.5))
    check = check_mesh(v, f)
    assert check.manifold and check.components == 1 and check.euler == 2
    assert area(v, f) == pytest.approx(4 * np.pi * 0.25, rel=2e-3)
    assert signed_volume(v, f).sum() / 6 == pytest.approx(4 / 3 * np.pi * 0.125, rel=3e-3)
    radius = np.linalg.norm(v - [0.1, 0.0, -0.2], axis=1)
    assert np.abs(radius - 0.5).max() < 3e-4
    normals = vertex_normals(v, f)
    truth = (v - [0.1, 0.0, -0.2]) / radius[:, None]
    assert np.einsum("ij,ij->i", normals, truth).min() > 0.99


def test_torus_keeps_its_hole_through_decimation(fields):
    v, f = surface(fields, fields.torus(0.55, 0.2))
    assert check_mesh(v, f).euler == 0
    assert area(v, f) == pytest.approx(4 * np.pi**2 * 0.55 * 0.2, rel=3e-3)
    low_v, low_f = decimate(v, f, 2000, SilentProgress())
    check = check_mesh(low_v, low_f)
    assert check.manifold and check.euler == 0
    assert abs(len(low_f) - 2000) <= 20
    assert area(low_v, low_f) == pytest.approx(4 * np.pi**2 * 0.55 * 0.2, rel=1e-2)


def test_sparse_evaluation_equals_dense_and_is_much_cheaper(fields):
    import mcubes

    asked = []

    def counting(x):
        asked.append(len(x))
        return fields.torus(0.5, 0.22)(x)

    v, f = surface(fields, counting, 128)
    axis = np.linspace(-1, 1, 129)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    dense = ClippedField(fields.AnalyticField(fields.torus(0.5, 0.22))).sdf(grid)
    dv, df = mcubes.marching_cubes(dense.reshape(129, 129, 129), 0.0)
    assert len(v) == len(dv) and len(f) == len(df)
    assert area(v, f) == pytest.approx(area(dv * (2 / 128), df), rel=1e-6)
    assert sum(asked) < 0.25 * 129**3


def test_steep_field_is_followed_by_its_surface(fields):
    # Ten times too large distances: the first test misses most blocks.
    v, f = surface(fields, lambda x: 10 * fields.ball((0.0, 0, 0), 0.6)(x), 96)
    check = check_mesh(v, f)
    assert check.manifold and check.euler == 2
    assert area(v, f) == pytest.approx(4 * np.pi * 0.36, rel=2e-3)


def test_floaters_and_inner_surfaces_are_dropped(fields):
    hollow = fields.shell(fields.ball((0.0, 0, 0), 0.5), fields.ball((0.0, 0, 0), 0.3))
    v, f = surface(fields, fields.union(hollow, fields.ball((0.0, 0, 0.75), 0.1)))
    assert check_mesh(v, f).components == 3
    v, f, dropped = largest_component(v, f)
    assert dropped == 2
    assert check_mesh(v, f).components == 1
    assert area(v, f) == pytest.approx(4 * np.pi * 0.25, rel=2e-3)


def test_closed_by_ball_and_chest_plane(fields):
    v, f = surface(fields, lambda x: x[:, 0].abs() - 0.4, ball_radius=0.9, crop_z=-0.3)
    check = check_mesh(v, f)
    assert check.manifold and check.components == 1 and check.euler == 2
    assert v[:, 2].min() == pytest.approx(-0.3, abs=1e-6)
    assert np.linalg.norm(v, axis=1).max() < 0.9 + 1e-3


def test_empty_and_broken_fields_are_explained(fields):
    with pytest.raises(TrainingError, match="no surface was found"):
        surface(fields, lambda x: x.norm(dim=1) + 1.0)
    with pytest.raises(TrainingError, match="not numbers"):
        surface(fields, lambda x: x.norm(dim=1) * float("nan"))


def test_repair_closes_holes_and_untangles(fields):
    v, f = surface(fields, fields.ball((0.0, 0, 0), 0.6), 48)
    f = largest_component(v, f)[1]
    torn = np.delete(f, [5, 6, 100, 101, 102, 400], axis=0)
    # A fin on an edge, and a second copy of a face turned round.
    torn = np.concatenate([torn, [[f[50, 0], f[50, 1], f[300, 0]]], f[70:71, ::-1]])
    assert not check_mesh(v, torn).watertight
    rv, rf = repair(v, torn)
    check = check_mesh(rv, rf)
    assert check.manifold and check.components == 1 and check.euler == 2
    assert area(rv, rf) == pytest.approx(4 * np.pi * 0.36, rel=1e-2)


def test_check_finds_touching_fans():
    tetra = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    both = np.concatenate([tetra, np.where(tetra == 0, 0, tetra + 3)])
    check = check_mesh(np.random.default_rng(0).random((7, 3)), both)
    assert check.watertight and not check.manifold


def test_decimation_gives_the_focus_more_faces(fields):
    v, f = surface(fields, fields.ball((0.0, 0, 0), 0.7), 96)
    counts = []
    for focus in (None, (np.array([0, -0.7, 0]), 0.4, 2.0)):
        low_v, low_f = decimate(v, f, 3000, SilentProgress(), focus)
        assert check_mesh(low_v, low_f).manifold
        center = low_v[low_f].mean(axis=1)
        counts.append((np.linalg.norm(center - [0, -0.7, 0], axis=1) < 0.3).sum())
    assert counts[1] > 1.3 * counts[0]


def test_lens_is_inverted():
    points = np.random.default_rng(1).normal(size=(500, 3)) * 2
    lens = Lens(np.array([0.1, -0.2, 0.3]), 0.4, 3.0)
    assert np.abs(lens.shrink(lens.magnify(points)) - points).max() < 1e-5


def test_extract_mesh_in_metres_with_colours(fields):
    field = fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5))
    scene = fields.scene(center=(0.0, 0.0, 0.2), radius=0.3)
    settings = AssetSettings(resolution=64, faces=1500)
    mesh = extract_mesh(field, scene, settings, SilentProgress())
    radius = np.linalg.norm(mesh.vertices - [0, 0, 0.2], axis=1)
    assert np.abs(radius - 0.15).max() < 1e-3
    expected = ((mesh.vertices - [0, 0, 0.2]) / 0.3 * 0.5 + 0.5) * 255
    assert np.abs(mesh.colors - expected).max() <= 0.51


@pytest.mark.parametrize("bad", [{"resolution": 8}, {"faces": 3}, {"texture_size": 1000}])
def test_settings_are_checked(bad):
    with pytest.raises(InputError):
        AssetSettings(**bad)
