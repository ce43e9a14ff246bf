"""Equations 1, 5 and 6, samplers and tracing against closed forms and analytic fields."""

import math

import numpy as np
import pytest
import torch

from toonify3d.scene import Camera, Normalization
from toonify3d.snr.guide import Guide
from toonify3d.snr.rendering import (
    accumulate,
    accumulate_weights,
    opacity,
    render_view,
    sample_along,
    sample_around,
    section_opacity,
    sections,
    sphere_interval,
    trace,
)


class Ball:
    """A sphere of radius 0.5, coloured by position."""

    device = torch.device("cpu")

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=1) - 0.5

    def sdf_gradient(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x, dim=1)

    def color(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1) / 2


def _camera(size: int = 64) -> Camera:
    c2w = np.array([[1.0, 0, 0, 0], [0, 0, 1, -3], [0, -1, 0, 0], [0, 0, 0, 1]])
    K = np.array([[1.5 * size, 0, size / 2], [0, 1.5 * size, size / 2], [0, 0, 1.0]])
    return Camera(K, c2w, size, size)


def test_opacity_is_the_logistic_cdf_ratio() -> None:
    entry, leave = torch.tensor([0.1, 0.01, -0.2]), torch.tensor([0.05, -0.03, -0.1])
    got = opacity(entry.double(), leave.double(), 30.0)
    for value, a, b in zip(got.tolist(), entry.tolist(), leave.tolist(), strict=True):
        before, after = 1 / (1 + math.exp(-30 * a)), 1 / (1 + math.exp(-30 * b))
        assert value == pytest.approx(max((before - after) / before, 0.0), abs=2e-3)
    assert got[2] <= 2e-2  # leaving the object is transparent


def test_weights_are_transmittance_times_opacity() -> None:
    torch.manual_seed(0)
    alpha = torch.rand((5, 9), dtype=torch.float64)
    weights = accumulate_weights(alpha)
    for ray in range(5):
        transmittance = 1.0
        for i in range(9):
            assert float(weights[ray, i]) == pytest.approx(
                transmittance * float(alpha[ray, i]), abs=1e-5
            )
            transmittance *= 1.0 - float(alpha[ray, i])
    rendered = accumulate(weights, torch.ones((5, 9, 3)), torch.full((5, 9), 2.0))
    torch.testing.assert_close(rendered.mask, weights.sum(1))
    torch.testing.assert_close(rendered.depth, 2.0 * weights.sum(1))
    torch.testing.assert_close(rendered.color, weights.sum(1)[:, None].expand(5, 3))


def test_accumulated_weight_over_a_plane_has_a_closed_form() -> None:
    """Through a plane, sum of T alpha telescopes to 1 - Phi(end) / Phi(start)."""
    samples = sections(torch.linspace(1.0, 2.0, 65, dtype=torch.float64)[None])
    sdf = 0.8 * (1.4 - samples.distance)
    gradient = torch.tensor([0.0, -0.8, 0.0], dtype=torch.float64).expand(1, 64, 3)
    direction = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    alpha = section_opacity(sdf, gradient, direction, samples.length, 20.0)
    weights = accumulate_weights(alpha)

    def cdf(distance: float) -> float:
        return 1 / (1 + math.exp(-20.0 * distance))

    want = 1.0 - cdf(0.8 * (1.4 - 2.0)) / cdf(0.8 * (1.4 - 1.0))
    assert float(weights.sum()) == pytest.approx(want, abs=2e-3)
    sharp = accumulate_weights(section_opacity(sdf, gradient, direction, samples.length, 400.0))
    assert float((sharp * samples.distance).sum() / sharp.sum()) == pytest.approx(1.4, abs=2e-3)


def test_sphere_interval() -> None:
    origins = torch.tensor([[0.0, -3.0, 0.0], [0.0, -3.0, 2.0], [0.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    directions = torch.tensor([[0.0, 1.0, 0.0]]).expand(4, 3)
    near, far, crosses = sphere_interval(origins, directions)
    assert crosses.tolist() == [True, False, True, False]
    assert near[0] == pytest.approx(2.0) and far[0] == pytest.approx(4.0)
    assert near[2] == 0.0 and far[2] == pytest.approx(1.0)


def test_samplers_cover_the_surface() -> None:
    generator = torch.Generator().manual_seed(0)
    center = torch.full((100,), 2.5)
    samples = sample_around(center, 0.1, 16, generator, tail=0.5)
    assert (samples.length > 0).all()
    assert ((samples.distance.min(1).values < 2.45) & (samples.distance.max(1).values > 2.55)).all()
    origins = torch.tensor([[0.05, -3.0, 0.1]]).expand(100, 3)
    directions = torch.tensor([[0.0, 1.0, 0.0]]).expand(100, 3)
    near, far, _ = sphere_interval(origins, directions)
    fine = sample_along(Ball(), origins, directions, near, far, 32, 32, generator=generator)
    assert fine.distance.shape[1] == 64 and (fine.length >= 0).all()
    true = 3.0 - math.sqrt(0.25 - 0.05**2 - 0.1**2)
    assert ((fine.distance - true).abs() < 0.03).sum(1).min() >= 16


def test_trace_finds_the_sphere() -> None:
    torch.manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn((500, 3)), dim=1) * 3.0
    target = (torch.rand((500, 3)) - 0.5) * 1.4
    directions = torch.nn.functional.normalize(target - origins, dim=1)
    t, hit = trace(Ball(), origins, directions)
    middle = -(origins * directions).sum(1)
    squared = 0.25 - (origins.square().sum(1) - middle.square())
    clear = squared.abs() > 5e-3
    assert torch.equal(hit[clear], (squared > 0)[clear])
    both = hit & (squared > 5e-3)
    torch.testing.assert_close(t[both], (middle - squared.sqrt())[both], atol=5e-3, rtol=0)


def test_render_view_shows_the_ball() -> None:
    view = render_view(Ball(), _camera(), Normalization(np.zeros(3), 1.0))
    assert view.color.shape == (64, 64, 3) and view.mask.dtype == np.uint8
    # Apparent radius of the ball: tangent of asin(r / distance), in pixels.
    radius = 1.5 * 64 * math.tan(math.asin(0.5 / 3.0))
    assert (view.mask > 0).sum() == pytest.approx(math.pi * radius**2, rel=0.03)
    assert view.depth[32, 32] == pytest.approx(2.5, abs=1e-2)
    assert view.color[32, 32, 1] == pytest.approx(64, abs=2)  # y = -0.5 -> a quarter
    assert (view.color[0, 0] == 255).all()


def _disc_masks(cameras: list[Camera]) -> list[np.ndarray]:
    masks = []
    for camera in cameras:
        view = render_view(Ball(), camera, Normalization(np.zeros(3), 1.0))
        masks.append(view.mask)
    return masks


def _ring(count: int) -> list[Camera]:
    cameras = []
    for k in range(count):
        angle = 2 * np.pi * k / count
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        base = _camera(96)
        cameras.append(Camera(base.K, turn @ base.c2w, 96, 96))
    return cameras


def test_guide_is_the_visual_hull_and_follows_a_field() -> None:
    cameras = _ring(12)
    guide = Guide.from_masks(
        cameras, _disc_masks(cameras), Normalization(np.zeros(3), 1.0), 49, torch.device("cpu")
    )
    angle = torch.rand(200) * 6.28
    equator = torch.stack([angle.cos(), angle.sin(), torch.zeros(200)], 1)
    # Seen from a ring, the hull touches the ball's equator; a voxel of slack each way.
    assert guide.distance(equator * 0.5).abs().max() < 2.0 * guide.cell
    assert (guide.distance(equator * 0.7) > 0.1).all()

    class Smaller(Ball):
        def sdf(self, x: torch.Tensor) -> torch.Tensor:
            return x.norm(dim=1) - 0.42

    for _ in range(3):
        guide.refresh(Smaller().sdf)
    origins = equator * 3.0
    t, value, slope = guide.intersect(origins, -equator)
    torch.testing.assert_close(t, torch.full((200,), 2.58), atol=0.25 * guide.cell, rtol=0)
    assert (value <= 1e-6).all() and (slope < -0.9).all()
    t, value, _ = guide.intersect(origins + torch.tensor([0.0, 0.0, 0.9]), -equator)
    assert (value > 0.1).all()


def test_a_wrong_mask_does_not_carve_everything() -> None:
    cameras = _ring(50)
    masks = _disc_masks(cameras)
    masks[3] = np.zeros_like(masks[3])
    guide = Guide.from_masks(
        cameras, masks, Normalization(np.zeros(3), 1.0), 33, torch.device("cpu")
    )
    assert float(guide.distance(torch.zeros((1, 3)))) < -0.3


def test_depth_cuts_hollows_that_the_masks_cannot_show() -> None:
    class Smaller(Ball):
        def sdf(self, x: torch.Tensor) -> torch.Tensor:
            return x.norm(dim=1) - 0.42

    normalization = Normalization(np.array([0.1, 0.0, 1.0]), 0.5)
    cameras = [
        camera.transformed(
            np.array([[0.5, 0, 0, 0.1], [0, 0.5, 0, 0], [0, 0, 0.5, 1.0], [0, 0, 0, 1.0]])
        )
        for camera in _ring(12)
    ]
    masks = [render_view(Ball(), camera, normalization).mask for camera in cameras]
    guide = Guide.from_masks(cameras, masks, normalization, 49, torch.device("cpu"))
    depths = []
    for camera in cameras:
        depth = render_view(Smaller(), camera, normalization).depth
        depths.append((depth, (depth > 0).astype(np.float32)))
    guide.carve_with_depth(cameras, depths, normalization)
    angle = torch.rand(100) * 6.28
    equator = torch.stack([angle.cos(), angle.sin(), torch.zeros(100)], 1)
    assert float(guide.distance(equator * 0.42).abs().mean()) < 0.5 * guide.cell
    assert (guide.hull_distance(equator * 0.42) < -guide.cell).all()
