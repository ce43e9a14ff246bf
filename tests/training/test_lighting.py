"""How much of the light gets into the albedo: the same painted ball under three lights.

The chain of the job: the light is found on the person, taken out of the portraits and out of the
colours that F_tex starts from. The same run without that shows what it is worth.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import RADIUS, BallPrior, KnownBend, Painted, cartoon, make_scene, portraits
from test_stage3 import SETTINGS, YAWS, SavedBend, surface

from toonify3d.portrait2d.light_fit import LitPlaces, fit_light, sphere_directions
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery
from toonify3d.room_light import RoomLight, remove_light
from toonify3d.scene import Normalization
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.light_grid import LightGrid
from toonify3d.snr.rendering import render_view
from toonify3d.srgb import to_linear, to_srgb
from toonify3d.training.stage3 import adapt_texture, load_avatar

LIGHTS = ((-0.8, -0.6, 0.0), (0.8, -0.6, 0.0), (0.0, -0.6, 0.8))
AMBIENT, DIFFUSE = 0.5, 0.7
STEPS = dataclasses.replace(SETTINGS, steps=90)
HEAD = 0.1  # metres: the ball's radius as a head


def shading(normal, light):
    """Lambert with an ambient part, as factor on the linear albedo: 0.5 to 1.2."""
    return AMBIENT + DIFFUSE * np.clip(normal @ np.asarray(light), 0.0, None)


class LitPrior(BallPrior):
    """The ball as it is filmed under one light."""

    def __init__(self, light):
        self.light = light

    def color(self, x):
        normal = torch.nn.functional.normalize(x, dim=1).numpy().astype(np.float64)
        plain = to_linear(self.pattern(x).numpy())
        return torch.tensor(to_srgb(plain * shading(normal, self.light)[:, None])).float()

    def radiance(self, x, sample, direction):
        return self.color(x)


def found_light(light):
    """The light as the job finds it, from the lit colours of places on the person."""
    normals = sphere_directions(6000)
    x = torch.tensor(RADIUS * normals, dtype=torch.float32)
    skin = normals[:, 2] < 0.2
    fit = fit_light(
        LitPlaces(
            HEAD * normals,
            normals,
            to_linear(LitPrior(light).color(x).numpy()),
            np.where(skin, 0, 1),
            ((normals[:, 2] < 0.2) | (normals[:, 2] > 0.4)).astype(float),
            skin & (normals[:, 1] < 0),
        ),
        MeshQuery(np.zeros((3, 3)), np.array([[0, 1, 2]])),  # a ball casts no shadow on itself
    )
    return RoomLight(HEAD * normals, fit.gain, {})


def lit(views, geometry, scene, light, room):
    """The same portraits drawn from frames under one light, from which ``room`` was taken."""
    out = []
    for view in views:
        drawn = render_view(Painted(geometry, cartoon), view.frame.camera, scene.normalization)
        factor = shading(drawn.normal.astype(np.float64) / 127.5 - 1.0, light)
        image = to_srgb(to_linear(view.image / 255.0) * factor[..., None])
        if room is not None:
            normal = drawn.normal.reshape(-1, 3).astype(np.float64) / 127.5 - 1.0
            gain = room.at(HEAD * normal / np.linalg.norm(normal, axis=1, keepdims=True))
            image = remove_light(image, gain.reshape(image.shape))
        inside = view.mask[..., None] > 127
        image = np.where(inside, 255.0 * image + 0.5, view.image)
        out.append(dataclasses.replace(view, image=image.astype(np.uint8)))
    return out


def _albedos(folder, without_light):
    """Points, and under each light: the albedo found and the portraits' paint with its light."""
    scene = make_scene(folder / "scene", size=64)
    geometry = StylizedGeometry(BallPrior(), SavedBend())
    views = portraits(scene, KnownBend(), YAWS)
    points = surface(geometry)
    found, painted, avatars = [], [], []
    normal = torch.nn.functional.normalize(geometry.sdf_gradient(points), dim=1).detach().numpy()
    truth = cartoon(points, BallPrior().color(geometry.to_prior(points))).numpy()
    for number, light in enumerate(LIGHTS):
        torch.manual_seed(0)
        room = found_light(light) if without_light else None
        grid = None
        if room is not None:
            grid = LightGrid.of(room, Normalization(np.zeros(3), HEAD / RADIUS), "cpu")
        filmed = StylizedGeometry(LitPrior(light), SavedBend())
        avatar = adapt_texture(
            scene,
            filmed,
            lit(views, geometry, scene, light, room),
            views[1].image,
            folder / f"run{number}",
            STEPS,
            "cpu",
            SilentProgress(),
            light=grid,
        )
        with torch.no_grad():
            found.append(avatar.color(points).numpy())
        painted.append(to_srgb(to_linear(truth) * shading(normal, light)[:, None]))
        avatars.append((avatar, filmed, folder / f"run{number}"))
    return points, found, painted, avatars


@pytest.fixture(scope="module")
def delit(tmp_path_factory):
    return _albedos(tmp_path_factory.mktemp("delit"), True)


@pytest.fixture(scope="module")
def baked(tmp_path_factory):
    return _albedos(tmp_path_factory.mktemp("baked"), False)


def _spread(colors, chosen):
    """Mean difference between the three lights, but for the exposure.

    How light a skin is and how much light falls on it cannot be told apart: one factor is free.
    """
    level = np.median(to_linear(colors[0][chosen]))
    a, b, c = (
        to_srgb(to_linear(color[chosen]) * level / np.median(to_linear(color[chosen])))
        for color in colors
    )
    return float(np.mean([np.abs(a - b), np.abs(b - c), np.abs(a - c)]))


def _left(albedos, side):
    """Share of the lights' difference that is in the albedo; ``side`` -1 front, 1 back."""
    points, found, painted, _ = albedos
    chosen = (side * points[:, 1] > 0.1).numpy()
    return _spread(found, chosen) / _spread(painted, chosen)


def test_at_most_a_quarter_of_the_light_gets_into_the_albedo(delit):
    points, _, painted, _ = delit
    assert _spread(painted, (points[:, 1] < -0.1).numpy()) > 0.08  # the lights do differ
    assert _left(delit, -1) < 0.25, _left(delit, -1)


def test_without_it_most_of_the_light_is_baked_in(baked):
    """The test above would fail: reflection alone takes out less than half."""
    assert _left(baked, -1) > 0.4, _left(baked, -1)


def test_the_light_does_not_come_back_on_the_sides(delit, baked):
    """Where no portrait looks, the colours come from the person's, lit ones in the film."""
    points = delit[0]
    side = ((points[:, 1] > -0.15) & (points[:, 1] < 0.2)).numpy()
    assert _spread(delit[1], side) < 0.5 * _spread(baked[1], side)


def test_the_texture_keeps_its_light_in_its_file(delit):
    points, found, _, avatars = delit
    avatar, geometry, folder = avatars[0]
    again = load_avatar(geometry, folder, "cpu")
    with torch.no_grad():
        assert np.abs(again.color(points).numpy() - found[0]).max() < 0.01
    assert torch.equal(again.texture.light.values, avatar.texture.light.values)


def test_the_persons_colours_lose_the_light_when_asked(delit):
    points, _, _, avatars = delit
    avatar, geometry, folder = avatars[0]
    plain = BallPrior.pattern(geometry.to_prior(points)).numpy()
    again = load_avatar(geometry, folder, "cpu")

    def off():
        person = to_linear(again.color_pair(points)[:, 3:].numpy())
        ratio = np.log((person + 0.01) / (to_linear(plain) + 0.01))
        return float(np.abs(ratio - np.median(ratio, axis=0)).mean())

    before = off()
    again.person_light = avatar.texture.light
    assert off() < 0.35 * before


def test_grid_says_what_the_places_say():
    room = found_light(LIGHTS[0])
    normalization = Normalization(np.array([0.1, -0.2, 0.05]), 2.0)
    grid = LightGrid.of(room, normalization, "cpu")
    places = torch.tensor(normalization.to_unit(room.points[::7]), dtype=torch.float32)
    assert np.abs(grid.gain(places).numpy() - room.gain[::7]).max() < 0.05
    color = torch.rand(len(places), 3)
    expected = remove_light(color.numpy(), grid.gain(places).numpy())
    assert np.abs(grid(places, color).numpy() - expected).max() < 1e-3
    state = grid.export_state()
    assert torch.equal(LightGrid.from_state(state).gain(places), grid.gain(places))
    assert LightGrid.from_state(None) is None


def test_rendering_as_the_paper_does_multiplies_by_the_reflection(baked):
    """Eq. 10 with what was learned, read from the file, and with a reflection that darkens."""
    points, found, _, avatars = baked
    avatar, geometry, folder = avatars[0]
    toward = torch.nn.functional.normalize(-points, dim=1)
    again = load_avatar(geometry, folder, "cpu")
    color, gradient = again.shade(points, toward)
    learned, _ = avatar.shade(points, toward)
    assert (color - learned).abs().max() < 0.01  # the residual is kept in half precision
    assert torch.equal(gradient, avatar.sdf_gradient(points))
    darker = again.texture.reflection
    with torch.no_grad():
        darker.out.weight.zero_()
        darker.out.bias.fill_(-0.5)
        darker.strength.zero_()
    expected = 2.0 / (1.0 + np.exp(0.5)) * found[0]
    assert np.abs(again.shade(points, toward)[0].numpy() - expected).max() < 0.01
    again.texture.reflection = None
    assert torch.equal(again.shade(points, toward)[0], again.color(points))
