"""How much of the light gets into the albedo: the same painted ball under three lights."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, Painted, cartoon, make_scene, portraits
from test_stage3 import SETTINGS, YAWS, SavedBend, surface

from toonify3d.progress import SilentProgress
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.rendering import render_view
from toonify3d.training.stage3 import adapt_texture

LIGHTS = ((-0.8, -0.6, 0.0), (0.8, -0.6, 0.0), (0.0, -0.6, 0.8))
AMBIENT, DIFFUSE = 0.7, 0.45


def shading(normal, light):
    """Lambert with an ambient part, as factor on the albedo: 0.7 to 1.15."""
    return AMBIENT + DIFFUSE * np.clip(normal @ np.asarray(light), 0.0, None)


def lit(views, geometry, scene, light):
    """The same portraits under one light."""
    out = []
    for view in views:
        drawn = render_view(Painted(geometry, cartoon), view.frame.camera, scene.normalization)
        factor = shading(drawn.normal.astype(np.float64) / 127.5 - 1.0, light)
        inside = view.mask[..., None] > 127
        image = np.where(inside, np.clip(view.image * factor[..., None], 0, 255), view.image)
        out.append(dataclasses.replace(view, image=image.astype(np.uint8)))
    return out


@pytest.fixture(scope="module")
def albedos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lighting")
    scene = make_scene(folder / "scene", size=64)
    views = portraits(scene, KnownBend(), YAWS)
    geometry = StylizedGeometry(BallPrior(), SavedBend())
    points = surface(geometry)
    found = []
    for number, light in enumerate(LIGHTS):
        torch.manual_seed(0)
        avatar = adapt_texture(
            scene,
            geometry,
            lit(views, geometry, scene, light),
            views[1].image,
            folder / f"run{number}",
            SETTINGS,
            "cpu",
            SilentProgress(),
        )
        with torch.no_grad():
            found.append(avatar.color(points).numpy())
    normal = torch.nn.functional.normalize(geometry.sdf_gradient(points), dim=1).detach().numpy()
    truth = cartoon(points, BallPrior().color(geometry.to_prior(points))).numpy()
    painted = [np.clip(truth * shading(normal, light)[:, None], 0, 1) for light in LIGHTS]
    return points.numpy(), found, painted


def _spread(colors, chosen):
    """Mean difference between the three lights."""
    a, b, c = (color[chosen] for color in colors)
    return float(np.mean([np.abs(a - b), np.abs(b - c), np.abs(a - c)]))


def test_reflection_takes_nearly_half_of_the_light_out_of_the_albedo(albedos):
    """Measured 0.54; 1 would be all of it baked in. The bound on s keeps the rest (decisions)."""
    points, found, painted = albedos
    front = points[:, 1] < -0.3
    assert _spread(painted, front) > 0.05  # the lights do differ
    assert _spread(found, front) < 0.62 * _spread(painted, front)
