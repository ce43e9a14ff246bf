"""Matches of portraits and photos, and what stage II makes of them."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, Painted, look_at, make_scene

from toonify3d.files import write_image
from toonify3d.scene import Frame, StylizedView
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.deformation import DisplacementLattice
from toonify3d.snr.rendering import render_view
from toonify3d.training.adaption_settings import GeometryAdaptionSettings
from toonify3d.training.bending import GeometryAdaption
from toonify3d.training.flow_guide import FlowGuide, matched

torch.set_num_threads(1)

YAWS = (-0.15, 0.15, math.pi - 0.1)


def _freckles(size: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    noise = cv2.GaussianBlur(rng.normal(size=(size, size, 3)).astype(np.float32), (0, 0), 3.0)
    return np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)


def test_a_recoloured_and_moved_pattern_is_found_again() -> None:
    size = 240
    photo = _freckles(size)
    row, column = np.indices((size, size), dtype=np.float32)
    mask = np.uint8(255) * ((row - 120) ** 2 + (column - 120) ** 2 < 90**2).astype(np.uint8)
    bump = 6.0 * np.exp(-((row - 120) ** 2 + (column - 110) ** 2) / (2 * 30.0**2))
    # The portrait's pixel shows what the photo has ``bump`` pixels further right, in other colours.
    moved = cv2.remap(photo, column + bump, row, cv2.INTER_LINEAR)
    portrait = np.clip(0.6 * moved + np.array([70, 40, 20]), 0, 255).astype(np.uint8)
    found, points = matched(portrait, mask, photo, mask)
    assert len(found) > 0.4 * (mask > 0).sum()
    assert (mask[found[:, 1], found[:, 0]] > 0).all()
    wanted = found + 0.5
    wanted[:, 0] += bump[found[:, 1], found[:, 0]]
    miss = np.linalg.norm(points - wanted, axis=1)
    before = np.linalg.norm(found + 0.5 - wanted, axis=1)
    assert np.median(miss) < 0.25 and np.percentile(miss, 95) < 1.0
    assert np.percentile(before, 95) > 4.0


def test_smooth_places_give_no_matches() -> None:
    flat = np.full((120, 120, 3), 140, np.uint8)
    mask = np.full((120, 120), 255, np.uint8)
    assert len(matched(flat, mask, flat, mask)[0]) == 0


class Freckled(BallPrior):
    """A ball with spots all over."""

    @staticmethod
    def pattern(x: torch.Tensor) -> torch.Tensor:
        waves = [torch.sin(f * x + f) for f in (17.0, 29.0, 43.0)]
        spots = sum(wave[:, :1] * wave[:, 2:] + wave[:, 1:2] * wave[:, 2:] for wave in waves)
        return (0.5 + 0.15 * spots * torch.tensor([1.0, 0.8, 0.6])).clamp(0.02, 0.98)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory):
    """Portraits of the bent ball, with photos of the ball that was not bent."""
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=160)
    plain = Painted(StylizedGeometry(Freckled(), _Still()), lambda y, color: color)
    toon = Painted(StylizedGeometry(Freckled(), KnownBend()), lambda y, color: 0.6 * color + 0.2)
    views = []
    for number, yaw in enumerate(YAWS):
        camera = look_at(yaw, 160)
        frame = Frame(f"{100 + number:04d}", 100 + number, camera, yaw)
        photo, view = (render_view(f, camera, scene.normalization) for f in (plain, toon))
        write_image(scene.root / "frames" / f"{frame.name}.png", photo.color)
        write_image(scene.root / "masks" / f"{frame.name}.png", photo.mask)
        sure = np.ones(view.mask.shape, np.float32)
        views.append(StylizedView(frame, view.color, view.mask, sure))
    return scene, views


class _Still(torch.nn.Module):
    initial = None

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(y)

    def with_jacobian(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(y), torch.zeros(len(y), 3, 3)


def test_matches_lead_from_the_bent_ball_to_the_ball(captured) -> None:
    scene, views = captured
    guide = FlowGuide(scene, Freckled(), views, 0)
    rays, place, sight = guide.draw(400, torch.Generator().manual_seed(0))
    assert float((place.norm(dim=1) - 0.5).abs().max()) < 2e-3
    truth = StylizedGeometry(Freckled(), KnownBend())
    distance = torch.full((len(rays),), 1.0)
    for _ in range(60):
        distance = distance + 0.7 * truth.sdf(rays.at(distance))
    y = rays.at(distance)
    miss = y + KnownBend()(y) - place
    miss = miss - (miss * sight).sum(1, keepdim=True) * sight
    unmoved = y - place
    unmoved = unmoved - (unmoved * sight).sum(1, keepdim=True) * sight
    assert float(miss.norm(dim=1).median()) < 0.35 * float(unmoved.norm(dim=1).median())


SMALL = GeometryAdaptionSettings(
    steps=10, rays=64, mask_rays=96, samples=6, coarse_resolution=40, search_steps=32
)


def test_they_count_to_the_end_beside_the_colours(captured) -> None:
    """Without them the strain would draw back what they had moved (bust and forehead)."""
    scene, views = captured
    run = GeometryAdaption(scene, Freckled(), views, None, SMALL)
    for fraction in (0.0, 0.99):
        shape = run.prepare(fraction)
        assert shape.bends == (fraction > SMALL.color_warmup)
        total, values = run.batch_losses()
        assert float(values["flow"]) > 0.0
        weighed = SMALL.flow_weight * float(values["flow"]) + float(values["color"])
        assert float(total.detach()) > weighed
        total.backward()
        assert float(run.deformation.out.bias.grad.abs().max()) > 0.0


def test_they_count_only_without_a_shape_change(captured) -> None:
    scene, views = captured
    off = GeometryAdaption(scene, Freckled(), views, None, replace(SMALL, flow_weight=0.0))
    assert off.guide is None
    lattice = DisplacementLattice(
        torch.zeros(4, 4, 4, 3), torch.full((3,), -1.0), torch.tensor(0.6)
    )
    assert GeometryAdaption(scene, Freckled(), views, lattice, SMALL).guide is None
