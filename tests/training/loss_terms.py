"""The terms of eq. 9 and 12 in float64, and means to see what a training step took and teaches.

Written from the paper's text for ``test_totals_stage2.py`` and ``test_totals_stage3.py``.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from small_runs import PATCH

from toonify3d.scene import Normalization
from toonify3d.snr.fields import FieldSettings
from toonify3d.snr.prior import Prior

Calls = list[tuple[tuple[Any, ...], Any]]


def untrained(fields: FieldSettings) -> Prior:
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


def spread(module: torch.nn.Module, scale: float = 0.3) -> None:
    """Random parameters, so that what starts at 1, or at nothing, is there."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=scale, generator=generator)


# -- the terms, in float64 ------------------------------------------------------------------------


def flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def sigmoid(value: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-value))


def color_term(
    rendered: torch.Tensor, observed: torch.Tensor, mask: np.ndarray, channels: float = 3.0
) -> float:
    """Eq. 8 and 13: ``|M (C^ - C)|_1`` per masked ray and channel (``paper``: 1, per ray)."""
    off = np.abs(flat(rendered) - flat(observed)).sum(1)
    return float((mask * off).sum() / (channels * mask.sum()))


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
