"""Eq. 12 as a sum: every method's total against its parts, added up apart in float64.

What a step draws and renders is noted while it runs (how that is rendered is tested elsewhere); the
terms (``loss_terms.py``) and their sum are written from the paper's text, and the gradients show
which of the terms teach what.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import KnownBend, make_scene, portraits
from loss_terms import (
    color_term,
    flat,
    images,
    judged,
    noted,
    off_gray,
    off_white,
    sigmoid,
    slopes,
    spread,
    untaught,
    untrained,
)
from small_runs import GRID, NETWORKS, PATCH, SURFACE

from toonify3d.scene import Scene, StylizedView
from toonify3d.snr.adapted import AdaptedGeometry
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.deformation import Deformation
from toonify3d.training import volume_texture
from toonify3d.training.adaption_settings import PAPER_TEXTURE, TextureAdaptionSettings
from toonify3d.training.surface_texture import TextureAdaption, prepare
from toonify3d.training.volume_texture import VolumeAdaption

torch.set_num_threads(1)

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
Captured = tuple[Scene, list[StylizedView]]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=48)
    return scene, portraits(scene, KnownBend(), (-0.2, 0.2, math.pi))


@pytest.fixture(autouse=True)
def short_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """F_tex's start is not what is looked at here."""
    monkeypatch.setattr(volume_texture, "WARM_POINTS", 300)


def mute(discriminator: torch.nn.Module) -> None:
    """Let it answer 0 whatever it is shown."""
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.zero_()


# -- eq. 12, as published -------------------------------------------------------------------------


def _painting(captured: Captured, settings: TextureAdaptionSettings) -> VolumeAdaption:
    scene, views = captured
    shape = AdaptedGeometry(untrained(NETWORKS), untrained(NETWORKS))
    shape.adapted.requires_grad_(True)  # whatever keeps F_geo as it is, it is not this
    run = VolumeAdaption(scene, shape, views, views[0].image, settings)
    spread(run.reflection.appearance.layers[-1])
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
    fit = color_term(color, target, counted, channels=1.0)
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
    # Nor do the fields hear D's own side: unweighted, a D without an opinion changes nothing.
    mute(run.discriminator)
    run.generator.set_state(state)
    deaf = slopes(run.losses(0.1)[0], run.texture, run.reflection)
    torch.testing.assert_close(deaf, fields[0], rtol=1e-5, atol=1e-8)


# -- eq. 12, fast ---------------------------------------------------------------------------------


def _texturing(captured: Captured, settings: TextureAdaptionSettings) -> TextureAdaption:
    scene, views = captured
    geometry = StylizedGeometry(untrained(GRID), Deformation())
    run = prepare(scene, geometry, views, views[0].image, settings)
    spread(run.texture.local)
    spread(run.reflection.out)
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
    mute(run.discriminator)
    run.generator.set_state(state)
    for _ in range(SURFACE.discriminator_every):
        run.prepare(0.1)
    deaf = slopes(run.batch_losses()[0], *learned)
    torch.testing.assert_close(deaf, fields[0], rtol=1e-5, atol=1e-8)
