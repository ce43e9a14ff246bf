"""The slider's other end: the mesh follows the person too, into hollows and round ridges."""

import numpy as np
import pytest
import torch

from toonify3d.asset.follow import (
    Person,
    aligned,
    fit_person,
    flipped_faces,
    sampled,
    sharpest,
    surface_distance,
)
from toonify3d.asset.levelset import ClippedField
from toonify3d.asset.mesh import check_mesh
from toonify3d.asset.morph import Bottom, morph_figures, on_the_person, person_of, persons_end
from toonify3d.asset.settings import AssetSettings
from toonify3d.asset.surface import extract_mesh, extract_surface
from toonify3d.asset.topology import Edges, split_edges
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery
from toonify3d.scene import Normalization, SurfaceMesh


class Pinched:
    """A smooth style whose person has a sharp hollow all round, as under a chin."""

    device = torch.device("cpu")

    def __init__(self, fields):
        self._person = fields.union(
            fields.ball((0.0, 0.0, 0.22), 0.36), fields.ball((0.0, 0.0, -0.22), 0.36)
        )

    def person(self):
        return self._person

    def to_prior(self, x):
        # The style is pulled up a little and turned round Z, so that nothing lines up by itself.
        turn = 0.15 * x[:, 2]
        c, s = torch.cos(turn), torch.sin(turn)
        return torch.stack(
            [c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1], x[:, 2] * 1.03 - 0.01], dim=1
        )

    def sdf(self, x):
        return self._person(self.to_prior(x))

    def color(self, x):
        return x * 0.5 + 0.5


def made(fields, follow):
    """Style's surface with or without its person in mind, and both ends' figures."""
    scene = fields.scene(crop_z=-0.45)
    style = Pinched(fields)
    settings = AssetSettings(resolution=96, faces=3000)
    fine = AssetSettings(resolution=192, faces=0)
    prior = extract_mesh(fields.AnalyticField(style.person()), scene, fine, SilentProgress())
    field = ClippedField.of_scene(style, scene, 0.99, -0.42, settings.resolution)
    person = person_of(style, prior, scene.normalization)
    given = person if follow else None
    surface = extract_surface(field, scene, settings, SilentProgress(), given)
    bottom = Bottom.of(field, surface.vertices, scene.normalization)
    end = on_the_person(style, surface.vertices, scene.normalization)
    if follow:
        end = persons_end(person, surface.vertices, surface.faces, bottom, scene.normalization)
    return surface, morph_figures(surface.vertices, end, surface.faces, prior, bottom)


def test_the_mesh_follows_the_person_into_a_sharp_hollow(fields):
    plain, before = made(fields, follow=False)
    surface, after = made(fields, follow=True)
    assert before["surface_max"] > 0.4  # edges cut the corner
    assert after["surface_max"] < 0.4 * before["surface_max"]
    assert after["surface_p95"] < 1.1 * before["surface_p95"]
    assert after["flipped_faces"] == 0 and surface.crossings[1] == 0
    assert surface.check.manifold and surface.check.euler == 2
    assert 0.99 * 3000 <= len(surface.faces) <= 3000 and len(plain.faces) <= 3000


def roof(columns=12):
    """A ridge along X, two planes meet."""
    x, y = np.meshgrid(np.arange(columns + 1.0), [-1.0, -0.01, 0.01, 1.0], indexing="ij")
    points = np.stack([x, y, -0.4 * np.abs(y)], axis=-1).reshape(-1, 3)
    faces = []
    for i in range(columns):
        for j in range(3):
            a, b = 4 * i + j, 4 * (i + 1) + j
            faces += [(a, b, b + 1), (a, b + 1, a + 1)]
    return points, np.array(faces)


def test_edges_turn_to_run_along_a_ridge():
    points, faces = roof()
    query = MeshQuery(points, faces)
    # Four places of a kite whose long diagonal crosses the ridge and cuts it off.
    kite = np.array([[3.0, -1.0, -0.4], [5.0, 0, 0], [5.5, 1.0, -0.4], [3.5, 0, 0]])
    crossing = np.array([[0, 1, 2], [0, 2, 3]])
    assert surface_distance(query, kite, crossing).max() > 0.3
    turned = aligned(crossing, np.zeros(2, np.int64), [(kite, query)], 1.0)
    assert surface_distance(query, kite, turned).max() < 0.05
    assert {tuple(sorted(face)) for face in turned} == {(0, 1, 3), (1, 2, 3)}
    normals = np.cross(
        kite[turned[:, 1]] - kite[turned[:, 0]], kite[turned[:, 2]] - kite[turned[:, 0]]
    )
    assert (normals[:, 2] > 0).all()  # wound as before
    # The flat cut belongs to neither surface.
    cut = aligned(crossing, np.ones(2, np.int64), [(kite, query)], 1.0)
    assert (cut == crossing).all()


def bowl(steps, radius=1.0):
    """A closed ball of the given fineness (octahedron, subdivided)."""
    v = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    f = np.array(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    for _ in range(steps):
        edges = Edges.of(f)
        middle = v[edges.ends].mean(axis=1)
        f, _ = split_edges(f, edges, np.ones(len(edges.ends), bool), len(v))
        v = np.concatenate([v, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
    return radius * v, f


def test_the_persons_end_is_lifted_until_the_surface_runs_through_the_triangles():
    low, faces = bowl(2)
    fine, triangles = bowl(5)
    person = Person.of(SurfaceMesh(fine, triangles), Normalization(np.zeros(3), 1.0), np.copy)
    wall = np.ones(len(faces), bool)
    before = surface_distance(person.query, low, faces).max()
    fitted = fit_person(low, low, faces, wall, person)
    after = surface_distance(person.query, fitted, faces).max()
    # A chord's error is all on one side; halved when it is shared between corners and middle.
    assert before == pytest.approx(0.056, abs=0.003) and after < 0.6 * before
    assert np.linalg.norm(fitted, axis=1).min() > 1.0
    none = fit_person(low, low, faces, np.zeros(len(faces), bool), person)
    assert (none == low).all()


def test_what_fits_already_stays_where_the_field_says():
    fine, triangles = bowl(4)
    person = Person.of(SurfaceMesh(fine, triangles), Normalization(np.zeros(3), 1.0), np.copy)
    out = fit_person(fine, fine, triangles, np.ones(len(triangles), bool), person)
    assert out is fine
    assert check_mesh(fine, triangles).manifold


def test_figures_look_inside_the_triangles():
    """Corners on the surface and middles too: only the sides of the triangle are off."""
    places = sampled(np.array([[0.0, 0, 0], [3, 0, 0], [0, 3, 0]]), np.array([[0, 1, 2]]))[0]
    assert len(places) == 13 and len(np.unique(places, axis=0)) == 13
    for place in ([0, 0, 0], [1.5, 1.5, 0], [1, 2, 0], [0, 1, 0], [1, 1, 0]):
        assert np.abs(places - place).sum(axis=1).min() < 1e-12


def test_triangles_that_turn_over_are_found():
    start = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    end = start * [1, -1, 1]
    assert flipped_faces(start, end, np.array([[0, 1, 2]])).all()
    corner = [start[None, k] for k in range(3)]
    assert sharpest(*corner)[0] == pytest.approx(np.sqrt(0.5))
