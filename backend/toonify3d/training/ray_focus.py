"""More rays where the colours of the surface are still wrong.

A short run sees a pixel less than once: 1,000 steps of 1,024 rays draw one in six of a capture's
six million. What is easy (cheeks, skull) is settled long before the hard part (ears, corners of the
eyes), which few pixels show. Errors are remembered on the surface and not in the images, because a
place that is wrong is wrong in every view of it, and there are far fewer places than pixels.

Not in the paper. Drawing by error is an old idea for NeRFs (iMAP, Sucar et al. 2021, keeps it in
the images); the losses are not divided by the chance of a draw, the attention is what is wanted.
"""

from __future__ import annotations

from typing import Any

import torch

from ..snr.guide import Guide
from .data import RayBank

# Places per axis of the cube [-1, 1]: two centimetres on a head.
CELLS = 48
# Steps between two looks at the errors.
INTERVAL = 100
# Least and largest chance of a pixel relative to the mean.
LEAST, MOST = 0.25, 6.0
# Rays that a place needs before its mean error is believed.
ENOUGH = 3.0


class RayFocus:
    """Mean colour error by place on the surface, and the chances of pixels that follow from it.

    Args:
        bank: Whose draws are changed.
        guide: The followed surface: which place a block of pixels shows.
        share: Share of the rays that are drawn by error; the rest is drawn evenly.
    """

    def __init__(self, bank: RayBank, guide: Guide, share: float) -> None:
        self._bank, self._guide, self._share = bank, guide, share
        self._error = torch.zeros(CELLS**3, device=bank.device)
        self._count = torch.zeros(CELLS**3, device=bank.device)
        bank.focus(torch.ones(len(bank.block_centers()), device=bank.device), share)

    def note(self, points: torch.Tensor, error: torch.Tensor, weight: torch.Tensor) -> None:
        """Remember colour errors.

        Args:
            points: Where rays meet the surface ``(R, 3)``, unit space.
            error: Mean absolute difference of the colours ``(R,)``.
            weight: 1 where the ray's colour counts, else 0, ``(R,)``.
        """
        cell = _cell(points)
        self._error.index_add_(0, cell, error * weight)
        self._count.index_add_(0, cell, weight)

    def refresh(self) -> None:
        """Change the draws by what has been noted; older errors count half from now on."""
        bank = self._bank
        origins, directions = bank.rays(bank.block_centers())
        t, value, _ = self._guide.intersect(origins, directions)
        mean = (self._error.sum() / self._count.sum().clamp(min=1.0)).clamp(min=1e-6)
        here = self._error / self._count.clamp(min=1.0) / mean
        here = torch.where(self._count < ENOUGH, torch.ones_like(here), here.clamp(LEAST, MOST))
        weights = here[_cell(origins + directions * t[:, None])]
        # What misses the surface (the ring of background) keeps the mean chance.
        weights = torch.where(value <= self._guide.cell, weights, torch.ones_like(weights))
        bank.focus(weights, self._share)
        self._error *= 0.5
        self._count *= 0.5

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "error": self._error.clone(),
            "count": self._count.clone(),
            "chances": self._bank.chances.clone(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Back to what :meth:`state` gave."""
        self._error.copy_(state["error"])
        self._count.copy_(state["count"])
        self._bank.chances.copy_(state["chances"])


def _cell(points: torch.Tensor) -> torch.Tensor:
    """Number of the place ``(R,)`` of points ``(R, 3)``."""
    index = ((points + 1.0) * (0.5 * CELLS)).long().clamp(0, CELLS - 1)
    return (index[:, 0] * CELLS + index[:, 1]) * CELLS + index[:, 2]
