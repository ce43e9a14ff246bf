"""Eq. 9 as a sum: every method's total against its parts, added up apart in float64.

What a step draws and renders is noted while it runs (how that is rendered is tested elsewhere); the
terms (``loss_terms.py``) and their sum are written from the paper's text, and the gradients show
which of the terms teach what.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, make_scene, portraits
from loss_terms import (
    Calls,
    color_term,
    eikonal_term,
    flat,
    images,
    judged,
    mask_term,
    noted,
    off_gray,
    off_white,
    slopes,
    spread,
    untrained,
)
from small_runs import NETWORKS, PATCH

from toonify3d.progress import SilentProgress
from toonify3d.scene import Displacement, Scene, StylizedView
from toonify3d.training import joint_colors
from toonify3d.training.adaption_settings import (
    PAPER_GEOMETRY,
    PAPER_TEXTURE,
    GeometryAdaptionSettings,
)
from toonify3d.training.bending import GeometryAdaption, start_lattice
from toonify3d.training.discriminator import adversarial_weight
from toonify3d.training.finetune import FieldFinetune
from toonify3d.training.joint_colors import JointTexture
from toonify3d.training.view_rays import locate

torch.set_num_threads(1)

BEND = GeometryAdaptionSettings(
    rays=128, mask_rays=96, samples=6, coarse_resolution=32, search_steps=24, width=16
)
# The published weights, on fewer rays and samples and with small networks.
TUNE = replace(PAPER_GEOMETRY, rays=96, coarse_samples=8, fine_samples=8)
Captured = tuple[Scene, list[StylizedView]]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=48)
    return scene, portraits(scene, KnownBend(), (-0.2, 0.2, math.pi))


@pytest.fixture(autouse=True)
def no_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """F_tex's start is not what is looked at here."""
    monkeypatch.setattr(joint_colors, "WARM_POINTS", 10)
    monkeypatch.setattr(joint_colors, "fit_albedo", lambda *_: None)


# -- eq. 9, as published --------------------------------------------------------------------------


def _tuned_terms(
    drawn: Calls, rendered: Calls, evaluated: Calls, patch: torch.Tensor | None = None
) -> float:
    """With the colours of ``patch``'s rays, which lie on the person, after the drawn ones."""
    _, color, mask, _ = drawn[0][1]
    mask = (mask > 0.5).to(mask.dtype)
    if patch is not None:
        color, mask = torch.cat([color, patch]), torch.cat([mask, torch.ones(len(patch))])
    shown, surface = rendered[0][1], evaluated[0][1]
    fit = color_term(shown.color, color, flat(mask), channels=1.0)
    return fit + 0.5 * mask_term(shown.mask, mask) + 0.1 * eikonal_term(flat(surface.gradient))


def _tuning(
    captured: Captured, texture: JointTexture | None = None
) -> tuple[FieldFinetune, Calls, Calls, Calls]:
    scene, views = captured
    run = FieldFinetune(scene, untrained(NETWORKS), views, TUNE, texture)
    drawn, rendered = noted(run.rays, "draw_evenly"), noted(run.renderer, "_render")
    return run, drawn, rendered, noted(run.renderer.prior, "evaluate")


def test_eq_09_published_total(captured: Captured) -> None:
    """L_geo = L_color + 0.5 L_mask + 0.1 L_reg, all three of which teach F_geo."""
    run, *calls = _tuning(captured)
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
    settings = replace(PAPER_TEXTURE, layers=2, width=16, patch=PATCH, patches=2)
    run, *calls = _tuning(captured, JointTexture(settings, captured[1][0].image))
    colors = run.colors
    assert colors is not None
    spread(colors.reflection.appearance.layers[-1])
    shades, patches = noted(colors.reflection, "forward"), noted(colors.patches, "draw")
    total, _ = run.losses(0.3)
    shade = flat(shades[0][1])
    penalties = 0.1 * off_white(shade) + 0.1 * off_gray(shade)
    assert penalties > 0.005
    shown, other = patches[0][1][1], patches[1][1][1]
    fake = images(calls[1][0][1].color[-len(shown) :])
    own, fields = judged(
        colors.discriminator, images(colors.posterize(other)), fake, settings.r1_weight
    )
    style = adversarial_weight(0.3, settings)
    assert style > 0
    want = _tuned_terms(*calls, shown) + penalties + own + style * fields
    assert float(total.detach()) == pytest.approx(want, rel=1e-5)


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
    spread(run.deformation.out, 0.2)
    spread(run.head.out)
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
