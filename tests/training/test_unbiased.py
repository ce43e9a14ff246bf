"""What stage I compares is least wrong at the true surface, not outside of it.

An analytic ball is its own field, shifted outwards and inwards: every term must be least where the
ball has its true radius. Distances are in unit space (head: 1 is about 0.4 m).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from toonify3d.snr.fields import SurfaceSample
from toonify3d.snr.guide import Guide
from toonify3d.training.corrections import FrameCorrections
from toonify3d.training.data import RayBatch
from toonify3d.training.settings import PAPER, PRESETS, PriorSettings
from toonify3d.training.stage1_step import StepRenderer

RADIUS = 0.3
# Centre of projection, and how far from the outline the mask's ring reaches.
BACK, BAND = 2.0, 0.03
SHIFTS = np.linspace(-3e-3, 3e-3, 13)


class Ball:
    """An analytic field whose colours are a fixed pattern of space."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=1) - self.radius

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        length = x.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return SurfaceSample(length[:, 0] - self.radius, x / length, x)

    def radiance(
        self, x: torch.Tensor, sample: SurfaceSample, direction: torch.Tensor
    ) -> torch.Tensor:
        return _pattern(x)


def _pattern(x: torch.Tensor) -> torch.Tensor:
    return 0.5 + 0.4 * torch.sin(20.0 * x + torch.tensor([0.0, 1.0, 2.0]))


def _seen_ball(count: int) -> RayBatch:
    """Rays through a disc a little wider than the ball's outline, with exact observations."""
    generator = torch.Generator().manual_seed(0)
    outline = RADIUS / (1.0 - (RADIUS / BACK) ** 2) ** 0.5
    place = (torch.rand((count, 2), generator=generator) * 2.0 - 1.0) * (outline + BAND)
    off = place.norm(dim=1)
    place, off = place[off < outline + BAND], off[off < outline + BAND]
    raw = torch.cat([place, torch.full((len(place), 1), BACK)], dim=1)
    directions = torch.nn.functional.normalize(raw, dim=1)
    origins = torch.tensor([0.0, 0.0, -BACK]).expand(len(place), 3).contiguous()
    middle = -(origins * directions).sum(1)
    squared = RADIUS**2 - (BACK**2 - middle.square())
    hit = (squared > 0).float()
    depth = (middle - squared.clamp(min=0.0).sqrt()) * hit
    color = _pattern(origins + directions * depth[:, None]) * hit[:, None]
    return RayBatch(
        origins,
        directions,
        color,
        hit,
        (off < outline - 2.5e-3).float(),
        off < outline - BAND,
        depth,
        hit,
        torch.zeros(len(place), dtype=torch.int64),
    )


def _least(settings: PriorSettings, inv_s: float) -> dict[str, float]:
    """The outward shift of the ball at which each term of eq. 4 is least."""
    batch, terms = _seen_ball(16000), {"color": [], "mask": [], "stereo": []}
    for shift in SHIFTS:
        field = Ball(RADIUS + float(shift))
        guide = Guide.from_field(field.sdf, 96, 0.02, torch.device("cpu"))
        generator = torch.Generator().manual_seed(1)
        renderer = StepRenderer(
            field, guide, settings, FrameCorrections(1, False, False), generator
        )
        with torch.no_grad():
            losses = renderer.losses(batch, inv_s, 0.5)
        for name, values in terms.items():
            values.append(float(getattr(losses, name)))
    return {name: float(SHIFTS[int(np.argmin(values))]) for name, values in terms.items()}


@pytest.mark.parametrize("name", ["preview", "standard"])
def test_every_term_is_least_at_the_true_surface(name: str) -> None:
    settings = replace(PRESETS[name], free_points=8)
    least = _least(settings, settings.inv_s_end)
    # One shift of the scan is 0.0005, a fifth of a millimetre on a head.
    assert all(abs(shift) <= 5.1e-4 for shift in least.values()), least


def test_depth_as_printed_swells_the_surface() -> None:
    """Eq. 2 undivided: density missing near an outline is distance missing."""
    assert not PAPER.divide_depth
    literal = replace(PRESETS["standard"], free_points=8, divide_depth=False)
    assert _least(literal, literal.inv_s_end)["stereo"] >= 1e-3


def test_a_ray_that_misses_has_no_depth() -> None:
    """Its distance is nothing divided by nothing: only the mask may pull the surface there."""
    batch = _seen_ball(2000)
    settings = replace(PRESETS["standard"], free_points=8)
    field = Ball(0.5 * RADIUS)
    guide = Guide.from_field(field.sdf, 96, 0.02, torch.device("cpu"))
    renderer = StepRenderer(
        field,
        guide,
        settings,
        FrameCorrections(1, False, False),
        torch.Generator().manual_seed(1),
    )
    rendered = renderer.render(batch.origins, batch.directions, 1000.0)
    missed = rendered.mask < 0.01
    assert int((missed & (batch.mask > 0.5)).sum()) > 200
    kept = renderer._depth(rendered, batch, batch.confidence)
    alone = renderer._depth(rendered, batch, batch.confidence * (~missed).float())
    assert float(kept) == pytest.approx(float(alone), rel=1e-4)
