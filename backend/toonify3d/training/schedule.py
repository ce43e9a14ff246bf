"""What changes during training: learning rate, sharpness, guidance, active grid levels."""

from __future__ import annotations

import math

from .settings import PriorSettings


def learning_rate_factor(step: int, settings: PriorSettings) -> float:
    """Factor on the learning rates: warm-up, exponential decay to ``lr_final``, cool-down."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    progress = step / max(1, settings.steps)
    cool = min(1.0, (1.0 - progress) / settings.cooldown) if settings.cooldown else 1.0
    return float(warm * cool * settings.lr_final**progress)


def sharpness(step: int, settings: PriorSettings) -> float:
    """Scheduled inv_s: log-linear from start to end over the first 80 % of the steps."""
    progress = min(1.0, step / max(1.0, 0.8 * settings.steps))
    low, high = math.log(settings.inv_s_start), math.log(settings.inv_s_end)
    return math.exp(low + progress * (high - low))


def stereo_weight(step: int, settings: PriorSettings) -> float:
    """Weight of the stereo terms: constant, or faded linearly to zero at ``mvs_until``."""
    if settings.mvs_until <= 0.0:
        return settings.weight_mvs
    return settings.weight_mvs * max(0.0, 1.0 - step / (settings.mvs_until * settings.steps))


def active_levels(step: int, settings: PriorSettings) -> int:
    """Grid levels in use: ``base_levels`` at first, all of them after ``levels_until``."""
    levels = settings.fields.levels
    first = min(settings.base_levels, levels)
    span = settings.levels_until * settings.steps
    if span <= 0 or step >= span:
        return levels
    return min(levels, first + int((levels - first + 1) * step / span))


def view_strength(step: int, settings: PriorSettings) -> float:
    """0 while colours ignore the view direction, then rising linearly to 1 over as many steps."""
    span = settings.view_from * settings.steps
    if span <= 0.0:
        return 1.0
    return min(1.0, max(0.0, step / span - 1.0))
