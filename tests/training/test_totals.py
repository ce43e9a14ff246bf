"""Eq. 9 and 12 as sums: every method's total against its parts, added up apart in float64.

What a step draws and renders is noted while it runs (how that is rendered is tested elsewhere); the
terms and their sum are written here from the paper's text, and the gradients show which of the
terms teach what.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, make_scene, portraits

from toonify3d.progress import SilentProgress
from toonify3d.scene import Displacement, Normalization, Scene, StylizedView
from toonify3d.snr.adapted import AdaptedGeometry
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.deformation import Deformation
from toonify3d.snr.fields import FieldSettings
from toonify3d.snr.prior import Prior
from toonify3d.training import finetune, volume_texture
from toonify3d.training.adaption_settings import (
    PAPER_GEOMETRY,
    PAPER_TEXTURE,
    GeometryAdaptionSettings,
    TextureAdaptionSettings,
)
from toonify3d.training.bending import GeometryAdaption, start_lattice
from toonify3d.training.finetune import JOINT_PATCH, FieldFinetune
from toonify3d.training.surface_texture import TextureAdaption, prepare
from toonify3d.training.view_rays import locate
from toonify3d.training.volume_texture import VolumeAdaption

torch.set_num_threads(1)

PATCH = 8
NETWORKS = FieldSettings(
    encoding="frequency",
    octaves=3,
    direction_octaves=2,
    geometry_layers=2,
    geometry_width=32,
    features=8,
    appearance_layers=2,
    appearance_width=16,
    activation="softplus",
    share_encoding=False,
    weight_norm=True,
)
GRID = FieldSettings(levels=3, base_resolution=8, finest_resolution=32, log2_table=12)
BEND = GeometryAdaptionSettings(
    rays=128, mask_rays=96, samples=6, coarse_resolution=32, search_steps=24, width=16
)
# The published weights, on fewer rays and samples and with small networks.
TUNE = replace(PAPER_GEOMETRY, rays=96, coarse_samples=8, fine_samples=8)
PAINT = replace(
    PAPER_TEXTURE,
    rays=256,
    coarse_samples=8,
    fine_samples=8,
    layers=2,
    width=16,
    patch=PATCH,
    patches=2,
    warm_steps=3,
)
SURFACE = TextureAdaptionSettings(
    points=512,
    levels=3,
    base_resolution=16,
    finest_resolution=64,
    log2_table=12,
    side_views=2,
    patches=4,
    patch=PATCH,
    discriminator_every=3,
)
Captured = tuple[Scene, list[StylizedView]]
Calls = list[tuple[tuple[Any, ...], Any]]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=48)
    return scene, portraits(scene, KnownBend(), (-0.2, 0.2, math.pi))


@pytest.fixture(autouse=True)
def short_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """F_tex's start is not what is looked at here."""
    for module in (finetune, volume_texture):
        monkeypatch.setattr(module, "WARM_POINTS", 300)


def _prior(fields: FieldSettings) -> Prior:
    torch.manual_seed(0)
    prior = Prior(fields, Normalization(np.zeros(3), 1.0))
    with torch.no_grad():
        prior.variance.fill_(math.log(120.0) / 10.0)
    return prior.eval()


def noted(owner: Any, name: str) -> Calls:
    """From now on all arguments and results of a method."""
    calls: Calls = []
    inner = getattr(owner, name)

    def call(*given: Any, **named: Any) -> Any:
        result = inner(*given, **named)
        calls.append((given, result))
        return result

    setattr(owner, name, call)
    return calls


# -- the terms, in float64 ------------------------------------------------------------------------


def flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def sigmoid(value: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-value))


def color_term(rendered: torch.Tensor, observed: torch.Tensor, mask: np.ndarray) -> float:
    """Eq. 8 and 13: ``|M (C^ - C)|_1`` per masked ray and channel."""
    off = np.abs(flat(rendered) - flat(observed)).sum(1)
    return float((mask * off).sum() / (3.0 * mask.sum()))


def mask_term(covered: torch.Tensor, mask: torch.Tensor) -> float:
    """Eq. 6."""
    m, inside = flat(mask), np.clip(flat(covered), 1e-3, 1.0 - 1e-3)
    return float(-np.mean(m * np.log(inside) + (1.0 - m) * np.log(1.0 - inside)))


def eikonal_term(gradient: np.ndarray) -> float:
    """Eq. 7."""
    return float(np.mean((np.sqrt((gradient**2).sum(1)) - 1.0) ** 2))


def off_white(shade: np.ndarray) -> float:
    """How far ``s`` is from 1."""
    return float(np.abs(shade - 1.0).mean())


def off_gray(shade: np.ndarray) -> float:
    """How far the channels of ``s`` are from their mean."""
    return float(np.abs(shade - shade.mean(1, keepdims=True)).mean())


def images(colors: torch.Tensor, side: int = PATCH) -> torch.Tensor:
    """Rays of patches, one after the other and row by row, as ``(B, 3, P, P)`` float64."""
    rows = flat(colors)
    out = np.full((len(rows) // side**2, 3, side, side), np.nan)
    for number, color in enumerate(rows):
        patch, within = divmod(number, side**2)
        out[patch, :, within // side, within % side] = color
    return torch.tensor(out)


def judged(
    discriminator: torch.nn.Module, real: torch.Tensor, fake: torch.Tensor, r1_weight: float
) -> tuple[float, float]:
    """Eq. 11 on images: what D descends, R1 included, and what the fields descend."""
    judge = copy.deepcopy(discriminator).double().requires_grad_(False)
    patches = real.clone().requires_grad_(True)
    logits = judge(patches)
    (slope,) = torch.autograd.grad(logits.sum(), patches)
    penalty = float((slope**2).sum() / len(real))
    on_real, on_fake = flat(logits), flat(judge(fake))
    own = -np.log(sigmoid(on_real)).mean() - np.log(1.0 - sigmoid(on_fake)).mean()
    return float(own + r1_weight * penalty), float(-np.log(sigmoid(on_fake)).mean())


def slopes(loss: torch.Tensor, *modules: torch.nn.Module) -> torch.Tensor:
    """Gradient of a loss by all parameters of some modules, zero where there is none."""
    parameters = [p for module in modules for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, found, strict=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs]
    )


def untaught(loss: torch.Tensor, *modules: torch.nn.Module) -> bool:
    """Whether no path leads from a loss to any parameter of ``modules``, though all could learn."""
    parameters = [p for module in modules for p in module.parameters()]
    assert parameters and all(p.requires_grad for p in parameters)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return all(gradient is None for gradient in found)


# -- eq. 9, as published --------------------------------------------------------------------------


def _tuned_terms(drawn: Calls, rendered: Calls, evaluated: Calls) -> float:
    _, color, mask, _ = drawn[0][1]
    shown, surface = rendered[0][1], evaluated[0][1]
    fit = color_term(shown.color, color, (flat(mask) > 0.5).astype(float))
    return fit + 0.5 * mask_term(shown.mask, mask) + 0.1 * eikonal_term(flat(surface.gradient))


def _tuning(
    captured: Captured, settings: GeometryAdaptionSettings
) -> tuple[FieldFinetune, Calls, Calls, Calls]:
    scene, views = captured
    run = FieldFinetune(scene, _prior(NETWORKS), views, settings)
    drawn, rendered = noted(run.rays, "draw_evenly"), noted(run.renderer, "_render")
    return run, drawn, rendered, noted(run.renderer.prior, "evaluate")


def test_eq_09_published_total(captured: Captured) -> None:
    """L_geo = L_color + 0.5 L_mask + 0.1 L_reg, all three of which teach F_geo."""
    run, *calls = _tuning(captured, TUNE)
    state = run.generator.get_state()
    total, _ = run.losses(0.3)
    assert float(total.detach()) == pytest.approx(_tuned_terms(*calls), rel=1e-5)
    geometry = run.adapted.geometry

    def taught(**weights: float) -> torch.Tensor:
        run.generator.set_state(state)
        run.renderer.settings = replace(run.renderer.settings, **weights)
        return slopes(run.losses(0.3)[0], geometry)

    alone = taught(weight_mask=0.0, weight_eikonal=0.0)
    assert float(alone.abs().max()) > 0
    for name in ("weight_mask", "weight_eikonal"):
        others = dict.fromkeys(("weight_mask", "weight_eikonal"), 0.0)
        assert float((taught(**(others | {name: 0.5})) - alone).abs().max()) > 1e-4, name


def test_eq_12_joint_total(captured: Captured) -> None:
    """Without PSA: eq. 9's terms, both sides of eq. 11 and the penalties on ``s`` in one sum."""
    run, *calls = _tuning(captured, replace(TUNE, joint=True))
    colors = run.colors
    assert colors is not None
    _spread(colors.reflection.appearance.layers[-1])
    shades, patches = noted(colors.reflection, "forward"), noted(colors.patches, "draw")
    total, _ = run.losses(0.3)
    shade = flat(shades[0][1])
    penalties = 0.5 * off_white(shade) + 0.5 * off_gray(shade)
    assert penalties > 0.02
    real = images(colors.posterize(patches[0][1][1]), JOINT_PATCH)
    fake = images(calls[1][1][1].color, JOINT_PATCH)
    own, fields = judged(colors.discriminator, real, fake, 0.5)
    want = _tuned_terms(*calls) + penalties + own + fields
    assert float(total.detach()) == pytest.approx(want, rel=1e-5)


def _spread(module: torch.nn.Module, scale: float = 0.3) -> None:
    """Random parameters, so that what starts at 1, or at nothing, is there."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=scale, generator=generator)


# -- eq. 9, fast ----------------------------------------------------------------------------------


def _bending(captured: Captured, with_start: bool) -> GeometryAdaption:
    """Bent so far that it folds in places, with matches as a stylizer without shape change has."""
    scene, views = captured
    generator = torch.Generator().manual_seed(0)
    lattice = None
    settings = replace(BEND, flow_weight=0.0)
    if with_start:
        points = torch.randn((60, 3), generator=generator, dtype=torch.float64)
        points = 0.5 * torch.nn.functional.normalize(points, dim=1).numpy()
        given = Displacement(points, 0.05 * points)
        lattice = start_lattice(scene, given, settings, SilentProgress())
    run = GeometryAdaption(scene, BallPrior(), views, lattice, settings)
    run.settings = BEND
    _spread(run.deformation.out, 0.2)
    _spread(run.head.out)
    rays, _, _ = run.rays.draw(50, generator, (1.0, 0.0, 0.0))
    place = rays.at(locate(run.coarse, rays, BEND.search_steps)[0])
    place = place + 0.02 * torch.randn((50, 3), generator=generator)
    run.guide = SimpleNamespace(draw=lambda *_: (rays, place, rays.direction))
    return run


def _round_length(vectors: np.ndarray, still: float) -> float:
    return float(np.mean(np.sqrt((vectors**2).sum(1) + still**2) - still))


def _bend_terms(run: GeometryAdaption, y: torch.Tensor) -> tuple[float, float, float, float]:
    """Eikonal, strain, magnitude and fold terms at band points ``y``, by autograd in float64."""
    bend = copy.deepcopy(run.deformation).double()

    def jacobian(function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        rows = torch.autograd.functional.jacobian(lambda p: function(p).sum(0), y)
        return flat(rows.permute(1, 0, 2))

    place = y.clone().requires_grad_(True)
    (normal,) = torch.autograd.grad(run.prior.sdf(place + bend(place)).sum(), place)
    learned, whole = jacobian(bend.residual), jacobian(bend)
    even = np.trace(learned, axis1=1, axis2=2) ** 2 / 3.0
    symmetric = ((0.5 * (learned + learned.transpose(0, 2, 1))) ** 2).sum((1, 2))
    growth = run.settings.growth_strain
    turning = (learned**2).sum((1, 2)) - symmetric
    strain = 1.1 * (symmetric - (1.0 - growth) * even) + 0.1 * turning
    least = 0.2 * np.clip(np.linalg.det(np.eye(3) + whole - learned), 0.05, 1.0)
    fold = np.maximum(least - np.linalg.det(np.eye(3) + whole), 0.0) ** 2
    magnitude = _round_length(flat(bend.residual(y)), 1e-3)
    return eikonal_term(flat(normal)), float(strain.mean()), magnitude, float(fold.mean())


@pytest.mark.parametrize("with_start", [False, True])
def test_eq_09_fast_total(captured: Captured, with_start: bool) -> None:
    """L_color + 0.5 L_mask + 0.1 L_reg, and what holds the deformation together."""
    run = _bending(captured, with_start)
    drawn, shown, covered = (
        noted(owner, name)
        for owner, name in ((run.rays, "draw"), (run, "_render"), (run, "_coverage"))
    )
    band = noted(run.deformation, "residual_with_jacobian")
    total, values = run.losses(0.5)
    (_, color, inside), (_, _, mask) = drawn[0][1], drawn[1][1]
    eikonal, strain, magnitude, fold = _bend_terms(run, band[0][0][0].double())
    rays, place, sight = run.guide.draw()
    y = rays.at(locate(run.coarse, rays, BEND.search_steps)[0])
    miss = flat(y + run.deformation(y) - place)
    across = miss - (miss * flat(sight)).sum(1, keepdims=True) * flat(sight)
    want = {
        "color": color_term(shown[0][1], color, flat(inside)),
        "mask": 0.5 * mask_term(covered[0][1], mask),
        "eikonal": 0.1 * eikonal,
        "strain": BEND.strain_weight * strain,
        "magnitude": BEND.magnitude_weight * magnitude,
        "fold": BEND.fold_weight * fold,
        "flow": BEND.flow_weight * _round_length(across, 4e-3),
    }
    assert min(want.values()) > 1e-3, want
    assert float(total.detach()) == pytest.approx(sum(want.values()), rel=2e-5)
    assert float(values["eikonal"]) == pytest.approx(eikonal, rel=1e-4)


WEIGHTS = ("mask", "eikonal", "strain", "magnitude", "fold", "flow")


def test_eq_09_fast_terms_all_bend_the_shape(captured: Captured) -> None:
    """The gradient of the deformation is linear in every weight and grows with each of them."""
    run = _bending(captured, True)
    state = run.generator.get_state()

    def bent(**weights: float) -> torch.Tensor:
        run.generator.set_state(state)
        run.settings = replace(BEND, **(dict.fromkeys(NAMES, 0.0) | weights))
        return slopes(run.losses(0.5)[0], run.deformation)

    NAMES = [f"{name}_weight" for name in WEIGHTS]
    alone = bent()
    assert float(alone.abs().max()) > 1e-4  # colours bend too
    for name in NAMES:
        once, twice = bent(**{name: 1.0}) - alone, bent(**{name: 2.0}) - alone
        assert float(once.abs().max()) > 1e-4, name
        torch.testing.assert_close(twice, 2.0 * once, rtol=1e-3, atol=1e-5)


# -- eq. 12, as published -------------------------------------------------------------------------


def _painting(captured: Captured, settings: TextureAdaptionSettings) -> VolumeAdaption:
    scene, views = captured
    shape = AdaptedGeometry(_prior(NETWORKS), _prior(NETWORKS))
    shape.adapted.requires_grad_(True)  # whatever keeps F_geo as it is, it is not this
    run = VolumeAdaption(scene, shape, views, views[0].image, settings)
    _spread(run.reflection.appearance.layers[-1])
    return run


def test_eq_12_published_total(captured: Captured) -> None:
    """L_color + 1 L_ds, D's own side of eq. 11 and 0.1 of both penalties on ``s``."""
    run = _painting(captured, PAINT)
    drawn, patches = noted(run.rays, "draw_evenly"), noted(run.patches, "draw")
    rendered = noted(run, "render")
    total, _ = run.losses(0.05)
    _, target, mask, _ = drawn[0][1]
    inside = 2 * PATCH**2
    assert len(target) == PAINT.rays - inside  # the patches' rays count among the 512
    color, shade = rendered[0][1]
    target = torch.cat([target, patches[0][1][1]])
    counted = np.concatenate([flat(mask) > 0.5, np.ones(inside)])
    real = images(run.posterize(patches[1][1][1]))
    own, fields = judged(run.discriminator, real, images(color[-inside:]), 0.5)
    s = flat(shade)
    assert min(off_white(s), off_gray(s)) > 0.02
    fit = color_term(color, target, counted)
    want = fit + 0.1 * off_white(s) + 0.1 * off_gray(s) + own + 1.0 * fields
    assert float(total.detach()) == pytest.approx(want, rel=1e-5)


def test_eq_12_published_style_weight_teaches_the_fields_and_nothing_else(
    captured: Captured,
) -> None:
    """F_tex and the reflection follow ``lambda_ds L_ds``; D does not, and F_geo has no gradient."""
    # The weight is 0, then a half, then 1 of what is set.
    settings = replace(PAINT, discriminator_weight=0.6, discriminator_from=0.2)
    settings = replace(settings, discriminator_ramp=0.3)
    run = _painting(captured, settings)
    rendered, state = noted(run, "render"), run.generator.get_state()
    fields, own = [], []
    for fraction in (0.1, 0.35, 0.9):
        run.generator.set_state(state)
        total, _ = run.losses(fraction)
        fields.append(slopes(total, run.texture, run.reflection))
        own.append(slopes(total, run.discriminator))
        assert untaught(total, run.geometry.prior, run.geometry.adapted)
    fake = rendered[-1][1][0][-2 * PATCH**2 :].view(2, PATCH, PATCH, 3).permute(0, 3, 1, 2)
    style = -torch.log(torch.sigmoid(run.discriminator(fake))).mean()
    want = slopes(style, run.texture, run.reflection)
    assert float(want.abs().max()) > 1e-4 and float(own[0].abs().max()) > 1e-4
    for got, weight in zip(fields[1:], (0.3, 0.6), strict=True):
        torch.testing.assert_close(got - fields[0], weight * want, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(own[1], own[0], rtol=0, atol=0)
    torch.testing.assert_close(own[2], own[0], rtol=0, atol=0)


# -- eq. 12, fast ---------------------------------------------------------------------------------


def _texturing(captured: Captured, settings: TextureAdaptionSettings) -> TextureAdaption:
    scene, views = captured
    geometry = StylizedGeometry(_prior(GRID), Deformation())
    run = prepare(scene, geometry, views, views[0].image, settings)
    _spread(run.texture.local)
    _spread(run.reflection.out)
    with torch.no_grad():
        run.reflection.strength.fill_(0.4)
    return run


def _rounded_l1(difference: np.ndarray, weight: torch.Tensor) -> float:
    """Eq. 13 with soft masks, rounded off below 0.02."""
    rows, w = (np.sqrt(difference**2 + 0.02**2) - 0.02).mean(1), flat(weight)
    return float((rows * w).sum() / w.sum())


def _painted_terms(run: TextureAdaption, row: Any, logits: dict[str, np.ndarray]) -> float:
    """All of the fast total but eq. 11."""
    strength, target = 0.4, flat(row["target"])
    shade = 2.0 * sigmoid(logits["shade"] + 2.0 * strength * flat(row["glance"]))
    coarse = _rounded_l1(shade * sigmoid(logits["dropped"]) - target, row["trust"])
    full = sigmoid(logits["whole"] + logits["local"])
    color = _rounded_l1(shade * full - target, row["weight"])
    learned = 2.0 * sigmoid(logits["shade"])
    assert min(off_white(learned), off_gray(learned)) > 0.02
    penalties = 0.5 * off_white(learned) + 0.5 * off_gray(learned)
    return coarse + color + 2e-4 * float((logits["local"] ** 2).mean()) + penalties


@pytest.mark.parametrize("turn", [False, True], ids=["between", "turn"])
def test_eq_12_fast_total(captured: Captured, turn: bool) -> None:
    """Reconstruction, penalties, and every third step both sides of eq. 11, three times as much."""
    run = _texturing(captured, SURFACE)
    rows, shown = noted(run._rows, "take"), noted(run.texture.global_map, "forward")
    local, shades = noted(run.texture.local, "forward"), noted(run.reflection, "network")
    windows, fakes = noted(run, "_draw"), noted(run, "_fake")
    for _ in range(SURFACE.discriminator_every if turn else 1):
        run.prepare(0.35)
    total, _ = run.batch_losses()
    logits = {
        "dropped": flat(shown[0][1]),
        "whole": flat(shown[1][1]),
        "local": flat(local[0][1]),
        "shade": flat(shades[0][1]),
    }
    want = _painted_terms(run, rows[0][1], logits)
    assert bool(fakes) == turn
    if turn:
        target = run.points.target[windows[0][1].reshape(-1)]
        real, fake = images(run.posterize(target)), fakes[0][1].double()
        own, fields = judged(run.discriminator, real, fake, SURFACE.r1_weight)
        want += own + 0.5 * SURFACE.discriminator_weight * 3 * fields
    assert float(total.detach()) == pytest.approx(want, rel=1e-5)


def test_eq_12_fast_style_weight_teaches_the_fields_and_nothing_else(captured: Captured) -> None:
    """As published: the fields follow the weight, D does not, and the shape has no gradient."""
    run = _texturing(captured, replace(SURFACE, discriminator_weight=0.6))
    fakes, state = noted(run, "_fake"), run.generator.get_state()
    learned = (run.texture.global_map, run.texture.local, run.reflection)
    fields, own = [], []
    for fraction in (0.1, 0.35, 0.9):
        run.generator.set_state(state)
        for _ in range(SURFACE.discriminator_every):
            run.prepare(fraction)
        total, _ = run.batch_losses()
        fields.append(slopes(total, *learned))
        own.append(slopes(total, run.discriminator))
    style = -torch.log(torch.sigmoid(run.discriminator(fakes[-1][1]))).mean()
    parts = [slopes(style, module) for module in learned]
    assert all(float(part.abs().max()) > 1e-5 for part in parts)
    want = torch.cat(parts)
    for got, weight in zip(fields[1:], (0.3, 0.6), strict=True):
        torch.testing.assert_close(got - fields[0], 3 * weight * want, rtol=1e-3, atol=1e-6)
    assert float(own[0].abs().max()) > 1e-4
    assert torch.equal(own[0], own[1]) and torch.equal(own[0], own[2])
