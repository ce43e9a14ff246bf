"""Equations 1 to 13 of the paper, each against a closed form or a plain float64 evaluation.

The references here are written from the paper's text with Python's ``math`` or numpy loops, not
with the functions they judge. ``docs/equations.md`` lists them.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from stage1_scene import make_scene

from toonify3d.progress import SilentProgress
from toonify3d.scene import Normalization
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.deformation import Deformation
from toonify3d.snr.fields import FieldSettings
from toonify3d.snr.prior import Prior
from toonify3d.snr.rendering import (
    Samples,
    accumulate,
    accumulate_weights,
    opacity,
    section_opacity,
    sphere_interval,
)
from toonify3d.snr.volume_texture import AppearanceReflection, VolumeTexture
from toonify3d.training import losses
from toonify3d.training.adaption_settings import (
    PAPER_GEOMETRY,
    PAPER_TEXTURE,
    TextureAdaptionSettings,
)
from toonify3d.training.discriminator import adversarial_weight, discriminator_loss, field_loss
from toonify3d.training.finetune import step_settings
from toonify3d.training.palette import Posterize
from toonify3d.training.settings import PAPER, TINY
from toonify3d.training.stage1 import PriorTrainer
from toonify3d.training.view_rays import Rays
from toonify3d.training.volume_texture import VolumeRendering, reflected_color

RAYS, COUNT = 7, 12


def cdf(value: float, inv_s: float) -> float:
    """The logistic distribution's cumulative function, in float64."""
    return 1.0 / (1.0 + math.exp(-inv_s * value))


def reference_weights(sdf: np.ndarray, inv_s: float) -> np.ndarray:
    """``T_i alpha_i`` of section ends ``(R, K + 1)``, straight from the text below eq. 1."""
    rays, ends = sdf.shape
    out = np.zeros((rays, ends - 1))
    for r in range(rays):
        passed = 1.0
        for i in range(ends - 1):
            before, after = cdf(sdf[r, i], inv_s), cdf(sdf[r, i + 1], inv_s)
            alpha = max((before - after) / before, 0.0)
            out[r, i] = passed * alpha
            passed *= 1.0 - alpha
    return out


@pytest.fixture(scope="module")
def rays() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Section ends of random surfaces, colours, distances, and the reference's weights."""
    generator = np.random.default_rng(0)
    distance = np.cumsum(0.02 + 0.03 * generator.random((RAYS, COUNT + 1)), axis=1)
    surface = 0.1 + 0.4 * generator.random((RAYS, 1))
    sdf = 0.9 * (surface - distance) + 0.02 * np.sin(20.0 * distance)
    colors = generator.random((RAYS, COUNT, 3))
    want = reference_weights(sdf, 40.0)
    tensors = (torch.tensor(value, dtype=torch.float64) for value in (sdf, colors, distance))
    return (*tensors, want)


def test_eq_01_opacity_and_transmittance(rays) -> None:
    """alpha = max((Phi(s_i) - Phi(s_i+1)) / Phi(s_i), 0), T_i = prod (1 - alpha_j)."""
    sdf, _, _, want = rays
    alpha = opacity(sdf[:, :-1], sdf[:, 1:], 40.0)
    got = accumulate_weights(alpha).numpy()
    # The stabiliser of 1e-5 in numerator and denominator is what is left.
    assert np.abs(got - want).max() < 2e-3
    assert np.abs(got.sum(1) - want.sum(1)).max() < 2e-4


def test_eq_01_midpoint_form_is_exact_for_planes() -> None:
    """NeuS's midpoint discretisation is the same number where the surface is a plane."""
    ends = torch.linspace(0.0, 1.0, COUNT + 1, dtype=torch.float64)[None]
    samples = Samples(0.5 * (ends[:, 1:] + ends[:, :-1]), ends[:, 1:] - ends[:, :-1])
    slope = -0.7
    middle = slope * (samples.distance - 0.45)
    gradient = torch.tensor([slope, 0.0, 0.0], dtype=torch.float64).expand(1, COUNT, 3)
    along = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    got = section_opacity(middle, gradient, along, samples.length, 25.0)
    want = opacity(slope * (ends[:, :-1] - 0.45), slope * (ends[:, 1:] - 0.45), 25.0)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)


def test_eq_01_depth_eq_05_color_eq_06_mask(rays) -> None:
    """D = sum T alpha d, C = sum T alpha c, M = sum T alpha."""
    sdf, colors, distance, want = rays
    middle = 0.5 * (distance[:, 1:] + distance[:, :-1])
    weights = accumulate_weights(opacity(sdf[:, :-1], sdf[:, 1:], 40.0))
    got = accumulate(weights, colors, middle)
    assert np.allclose(got.depth, (want * middle.numpy()).sum(1), atol=2e-3)
    assert np.allclose(got.color, (want[..., None] * colors.numpy()).sum(1), atol=2e-3)
    assert np.allclose(got.mask, want.sum(1), atol=2e-4)


def _vectors(seed: int, *shape: int) -> tuple[np.ndarray, torch.Tensor]:
    value = np.random.default_rng(seed).random(shape)
    return value, torch.tensor(value, dtype=torch.float64)


MASK = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
REDUCTIONS = {"mean": 1.0, "rays": 1.0, "sum": 3.0}
"""What a mean over MASK's three rays is to be multiplied by."""


def test_eq_02_depth_loss() -> None:
    """|M (D^ - D)|_1 per masked ray, or summed as printed."""
    (a, rendered), (b, observed) = _vectors(1, 5), _vectors(2, 5)
    want = sum(m * abs(x - y) for m, x, y in zip(MASK, a, b, strict=True)) / MASK.sum()
    for reduction, factor in REDUCTIONS.items():
        got = losses.depth_loss(rendered, observed, torch.tensor(MASK), reduction)
        assert float(got) == pytest.approx(factor * want, rel=1e-5), reduction


def test_eq_03_surface_loss() -> None:
    """|F_geo(x_d)|_1 per lifted point."""
    value, sdf = _vectors(3, 5)
    signed = sdf - 0.5
    want = sum(m * abs(v - 0.5) for m, v in zip(MASK, value, strict=True)) / MASK.sum()
    for reduction, factor in REDUCTIONS.items():
        got = losses.surface_loss(signed, torch.tensor(MASK), reduction)
        assert float(got) == pytest.approx(factor * want, rel=1e-5), reduction


def test_eq_04_weights_of_the_sum() -> None:
    """L_prior = L_color + 0.5 L_mvs + 0.5 L_mask + 0.1 L_reg with the paper's numbers.

    That the step adds them so is tested on a whole batch in ``test_eq_04_total_is_the_sum``.
    """
    assert (PAPER.weight_mvs, PAPER.weight_mask, PAPER.weight_eikonal) == (0.5, 0.5, 0.1)
    assert PAPER.mvs_until == 0.0 and PAPER.weight_empty == 0.0


def test_eq_04_total_is_the_sum(tmp_path) -> None:
    """The step's total is eq. 4 of its own terms, stereo included."""

    scene = make_scene(tmp_path / "capture", count=4, size=24, with_depth=True)
    settings = replace(TINY, steps=1, hull_steps=3, weight_empty=0.0, holdout_frames=0)
    trainer = PriorTrainer(scene, tmp_path, settings, torch.device("cpu"), SilentProgress())
    batch = trainer.bank.sample(64, trainer.generator)
    terms = trainer.renderer.losses(batch, 60.0, 0.5)
    want = (
        float(terms.color)
        + 0.5 * float(terms.stereo)
        + settings.weight_mask * float(terms.mask)
        + settings.weight_eikonal * float(terms.eikonal)
    )
    assert float(terms.stereo) > 0
    assert float(terms.total) == pytest.approx(want, rel=1e-5)


def test_eq_05_08_13_masked_color_loss() -> None:
    """|M (C^ - C)|_1, the same function in all three stages.

    Per masked ray and channel, as the L1 norm per masked ray (NeuS), or summed as printed.
    """
    (a, rendered), (b, observed) = _vectors(4, 5, 3), _vectors(5, 5, 3)
    want = 0.0
    for ray in range(5):
        for channel in range(3):
            want += MASK[ray] * abs(a[ray, channel] - b[ray, channel])
    mask = torch.tensor(MASK)
    for reduction, divisor in {"mean": 9.0, "rays": 3.0, "sum": 1.0}.items():
        got = losses.color_loss(rendered, observed, mask, reduction)
        assert float(got) == pytest.approx(want / divisor, rel=1e-5), reduction
    assert losses.color_loss(rendered, observed, mask) == losses.color_loss(
        rendered, observed, mask, "mean"
    )


@pytest.mark.parametrize("stage", [PAPER, PAPER_GEOMETRY, PAPER_TEXTURE], ids=["I", "II", "III"])
def test_the_paper_preset_sums_channels_as_neus_does(stage) -> None:
    assert stage.reduction == "rays"
    assert type(stage)().reduction == "mean"  # the fast presets' figures hang on it


def test_eq_06_binary_cross_entropy() -> None:
    """-(M log M^ + (1 - M) log(1 - M^)), mean over rays."""
    value, rendered = _vectors(6, 5)
    want = -np.mean(
        [math.log(v) if m else math.log(1 - v) for v, m in zip(value, MASK, strict=True)]
    )
    assert float(losses.mask_loss(rendered, torch.tensor(MASK))) == pytest.approx(want, rel=1e-6)


def test_eq_07_eikonal() -> None:
    """(|grad F_geo| - 1)^2, mean over points; zero for a true distance field."""
    value, gradient = _vectors(7, 20, 3)
    want = np.mean([(math.sqrt(sum(c * c for c in row)) - 1.0) ** 2 for row in value])
    for reduction, factor in {"mean": 1.0, "rays": 1.0, "sum": 20.0}.items():
        got = losses.eikonal_loss(gradient, reduction)
        assert float(got) == pytest.approx(factor * want, rel=1e-9), reduction
    unit = gradient / gradient.norm(dim=1, keepdim=True)
    assert float(losses.eikonal_loss(unit)) == pytest.approx(0.0, abs=1e-14)


def test_eq_09_stage_two_adds_no_stereo() -> None:
    """L_geo = L_color + 0.5 L_mask + 0.1 L_reg."""

    step = step_settings(PAPER_GEOMETRY)
    assert (step.weight_mask, step.weight_eikonal, step.weight_mvs) == (0.5, 0.1, 0.0)
    # As printed: nothing forgiven, nothing divided, every sample coloured.
    assert not step.divide_color and step.enough_coverage == 0.0 and step.color_threshold == 0.0
    assert step.reduction == "rays"


def test_eq_10_reflection_times_albedo_along_the_ray() -> None:
    """C~ = sum T alpha (s o c'), against a loop over rays and samples in float64."""

    torch.manual_seed(0)
    fields = FieldSettings(
        encoding="frequency",
        octaves=2,
        geometry_layers=2,
        geometry_width=16,
        features=4,
        appearance_width=8,
        activation="softplus",
        share_encoding=False,
    )
    prior = Prior(fields, Normalization(np.zeros(3), 1.0)).requires_grad_(False)
    shape = StylizedGeometry(prior, Deformation().requires_grad_(False))
    settings = TextureAdaptionSettings(sampler="hierarchical", coarse_samples=8, fine_samples=8)
    rendering = VolumeRendering(shape, settings)
    origin = torch.tensor([[0.0, -2.0, 0.1], [0.2, -2.0, 0.0], [-0.1, 2.0, 0.2]])
    toward = torch.nn.functional.normalize(-origin + 0.1, dim=1)
    rays = Rays(origin, toward)
    texture, reflection = VolumeTexture(4, 1, 8), AppearanceReflection(prior.appearance)
    torch.nn.init.normal_(reflection.appearance.layers[-1].weight)
    with torch.no_grad():
        got, _ = reflected_color(rendering, reflection, texture, rays, None)
        samples = rendering._samples(rays, None)
        points = rays.at(samples.distance)
    assert bool(sphere_interval(origin, toward)[2].all())
    for ray in range(3):
        passed, color = 1.0, np.zeros(3)
        for i in range(samples.distance.shape[1]):
            x = points[ray, i][None]
            with torch.no_grad():
                here = shape.evaluate(x)
                s = reflection(x, here.gradient, toward[ray][None], here.feature)[0]
                c = texture(x, here.feature)[0]
            cosine = min(float(here.gradient[0] @ toward[ray]), 0.0)
            half = 0.5 * cosine * float(samples.length[ray, i])
            before = cdf(float(here.sdf[0]) - half, rendering.inv_s)
            after = cdf(float(here.sdf[0]) + half, rendering.inv_s)
            alpha = max((before - after) / before, 0.0)
            color += passed * alpha * s.double().numpy() * c.double().numpy()
            passed *= 1.0 - alpha
        assert np.abs(got[ray].numpy() - color).max() < 5e-3


def test_eq_11_discriminator_and_posterize() -> None:
    """E log D(kappa(C_t)) + E log(1 - D(C~)); kappa takes the nearest palette colour."""
    value, logits = _vectors(8, 4, 1, 2, 2)
    other, fake = _vectors(9, 4, 1, 2, 2)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-x))

    want = np.log(sigmoid(value)).mean() + np.log(1.0 - sigmoid(other)).mean()
    assert float(discriminator_loss(logits, fake)) == pytest.approx(-want, rel=1e-9)
    assert float(field_loss(fake)) == pytest.approx(-np.log(sigmoid(other)).mean(), rel=1e-9)
    kappa = Posterize(np.array([[10, 10, 10], [240, 240, 240], [200, 30, 30]], np.uint8))
    drawn = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9], [0.75, 0.2, 0.2]])
    want_colors = torch.tensor([[10, 10, 10], [240, 240, 240], [200, 30, 30]]) / 255.0
    assert torch.allclose(kappa(drawn), want_colors)
    assert torch.equal(kappa(kappa(drawn)), kappa(drawn))


def test_eq_12_weights_and_what_has_no_gradient() -> None:
    """L_tex with lambda_ds = 1 throughout; F_geo is fixed, so mask and eikonal are left out."""

    assert [adversarial_weight(f, PAPER_TEXTURE) for f in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]
    fast = TextureAdaptionSettings()
    assert adversarial_weight(0.1, fast) == 0.0
    assert adversarial_weight(0.35, fast) == pytest.approx(0.5 * fast.discriminator_weight)
    assert adversarial_weight(0.9, fast) == fast.discriminator_weight
