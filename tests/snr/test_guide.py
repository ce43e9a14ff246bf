"""The guide grid: what wrong depth carved away comes back."""

from __future__ import annotations

import torch

from toonify3d.snr.guide import BAND_CELLS, Guide

RADIUS = 0.5
SIDE = 41


def ball(points: torch.Tensor) -> torch.Tensor:
    return points.norm(dim=1) - RADIUS


def carved_guide() -> Guide:
    """A ball out of which wrong depth has taken a piece far deeper than the band."""
    guide = Guide.from_field(ball, SIDE, 0.1, torch.device("cpu"))
    axis = torch.linspace(-1.0, 1.0, SIDE)
    guide.values[axis > 0.1] = 2.0 * BAND_CELLS * guide.cell
    return guide


def met(guide: Guide) -> float:
    """Distance at which a ray along the axis meets the guide's surface."""
    t, _, _ = guide.intersect(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[-1.0, 0.0, 0.0]]))
    return float(t[0])


def test_what_was_carved_too_deep_comes_back_when_everything_is_looked_at() -> None:
    guide = carved_guide()
    for _ in range(10):
        guide.refresh(ball)
    assert met(guide) > 1.0 - RADIUS + BAND_CELLS * guide.cell  # the band does not get there
    guide.refresh(ball, everything=True)
    assert abs(met(guide) - (1.0 - RADIUS)) < 0.1 * guide.cell


def test_the_depths_keep_the_distances_that_hold_them() -> None:
    """Deep inside nothing trains: the field's values there must not become the guide's."""
    guide = Guide.from_field(ball, SIDE, 0.1, torch.device("cpu"))
    before = guide.values.clone()
    guide.refresh(lambda points: ball(points) + 0.3 * (points.norm(dim=1) < 0.2), everything=True)
    deep = before < -BAND_CELLS * guide.cell
    assert deep.sum() > 100 and torch.equal(guide.values[deep], before[deep])
