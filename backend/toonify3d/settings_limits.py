"""What values settings may have, so that a wrong one is refused before anything is written.

Without an entry here a number must be finite and not negative, which suits weights, rates, widths
and seeds. Settings that check themselves (``asset``, ``geometry.method``) have no entry.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from .errors import InputError
from .portrait2d.exemplarkind import LOOKS
from .portrait2d.shape import REFERENCES

CHOICES: dict[str, tuple[object, ...]] = {
    "prior.fields.encoding": ("grid", "frequency"),
    "prior.fields.activation": ("relu", "softplus"),
    "prior.fields.view_input": ("direction", "reflection"),
    "prior.fields.level_features": (2, 4, 8),
    "prior.sampler": ("guided", "hierarchical"),
    "prior.reduction": ("mean", "rays", "sum"),
    "stylize.look": LOOKS,
    "stylize.relative_to": REFERENCES,
}
_ANY = (-math.inf, math.inf)
_AT_LEAST_ONE = (1, math.inf)
_SHARE = (0.0, 1.0)
_BETA = (0.0, 0.999999)
_ABOVE_ZERO = (1e-30, 1.0)
_SIDE = (32, 8192)
LIMITS: dict[str, tuple[float, float]] = {
    "capture.max_frames": (3, 10_000),
    "capture.min_frames": (3, 10_000),
    "capture.long_side": _SIDE,
    "capture.photo_side": _SIDE,
    "capture.front_frame": (-1, math.inf),
    "capture.front_yaw": (-360.0, 360.0),
    "capture.max_features": (100, 100_000),
    "capture.interpupillary_distance": (0.001, 10.0),
    "capture.min_registered": _SHARE,
    "capture.masks.vote_long_side": _SIDE,
    "capture.masks.refine_long_side": _SIDE,
    "capture.masks.grid": (16, 512),
    "capture.masks.vote_views": (2, math.inf),
    "capture.masks.outvoted": _SHARE,
    "capture.masks.min_seen": _SHARE,
    "capture.masks.band": (0.001, 0.5),
    "capture.depth.external_side": _SIDE,
    "capture.depth.long_side": _SIDE,
    "capture.depth.frame_step": _AT_LEAST_ONE,
    "capture.depth.planes": (3, 1024),
    "capture.depth.window": (3, 63),
    "prior.fields.levels": (1, 32),
    "prior.fields.base_resolution": (2, 4096),
    "prior.fields.finest_resolution": (2, 65_536),
    "prior.fields.log2_table": (4, 26),
    "prior.fields.geometry_width": _AT_LEAST_ONE,
    "prior.fields.appearance_width": _AT_LEAST_ONE,
    "prior.fields.features": _AT_LEAST_ONE,
    "prior.fields.initial_radius": (0.01, 1.0),
    "prior.steps": _AT_LEAST_ONE,
    "prior.rays": _AT_LEAST_ONE,
    "prior.samples": (2, math.inf),
    "prior.coarse_samples": (2, math.inf),
    "prior.error_guided": _SHARE,
    "prior.adam_beta2": _BETA,
    "prior.adam_epsilon": _ABOVE_ZERO,
    "prior.lr_final": _SHARE,
    "prior.cooldown": _SHARE,
    "prior.inv_s_start": _AT_LEAST_ONE,
    "prior.inv_s_end": _AT_LEAST_ONE,
    "prior.mvs_until": _SHARE,
    "prior.enough_coverage": _SHARE,
    "prior.view_from": _SHARE,
    "prior.base_levels": _AT_LEAST_ONE,
    "prior.levels_until": _SHARE,
    "prior.guide_resolution": (8, 1024),
    "prior.guide_interval": _AT_LEAST_ONE,
    "prior.hull_inset": _ANY,
    "prior.silhouette_band": _SHARE,
    "stylize.strength": (0.0, 1.5),
    "stylize.oval_weight": (0.0, 2.0),
    "stylize.jaw_weight": (0.0, 2.0),
    "stylize.eyes_weight": (0.0, 2.0),
    "stylize.brows_weight": (0.0, 2.0),
    "stylize.nose_weight": (0.0, 2.0),
    "stylize.mouth_weight": (0.0, 2.0),
    "stylize.expression": _SHARE,
    "stylize.max_yaw": (0.0, math.pi),
    "stylize.min_frames": _AT_LEAST_ONE,
    "stylize.max_frames": _AT_LEAST_ONE,
    "stylize.side_frames": (0, 100),
    "stylize.shading": (0.0, 2.0),
    "stylize.delight": _SHARE,
    "stylize.exemplar_detail": _SHARE,
    "stylize.chroma_variation": _SHARE,
    "stylize.strokes": (0.0, 2.0),
    "stylize.stroke_size": (0.5, 3.0),
    "stylize.lines": _SHARE,
    "adapter.multiple": (1, 4096),
    "adapter.style_degree": _SHARE,
    "geometry.steps": _AT_LEAST_ONE,
    "geometry.rays": _AT_LEAST_ONE,
    "geometry.silhouette_band": _SHARE,
    "geometry.adam_beta2": _BETA,
    "geometry.adam_epsilon": _ABOVE_ZERO,
    "geometry.samples": (2, math.inf),
    "geometry.search_steps": (2, math.inf),
    "geometry.coarse_resolution": (8, 1024),
    "geometry.width": _AT_LEAST_ONE,
    "geometry.fine_from": _SHARE,
    "geometry.color_warmup": _SHARE,
    "geometry.lr_final": _SHARE,
    "geometry.sharpness_start": _AT_LEAST_ONE,
    "geometry.sharpness_end": _AT_LEAST_ONE,
    "geometry.displacement_support": (0.001, 10.0),
    "geometry.coarse_samples": (2, math.inf),
    "texture.steps": _AT_LEAST_ONE,
    "texture.points": _AT_LEAST_ONE,
    "texture.max_points": _AT_LEAST_ONE,
    "texture.coarse_resolution": (8, 1024),
    "texture.levels": (1, 32),
    "texture.base_resolution": (2, 4096),
    "texture.finest_resolution": (2, 65_536),
    "texture.log2_table": (4, 26),
    "texture.feature_dropout": _SHARE,
    "texture.facing_low": _SHARE,
    "texture.facing_high": _SHARE,
    "texture.discriminator_every": _AT_LEAST_ONE,
    "texture.patch": (2, 256),
    "texture.patches": _AT_LEAST_ONE,
    "texture.discriminator_width": _AT_LEAST_ONE,
    "texture.palette_colors": (2, 256),
    "texture.discriminator_from": _SHARE,
    "texture.discriminator_ramp": _SHARE,
    "texture.lr_final": _SHARE,
    "texture.rays": _AT_LEAST_ONE,
    "texture.silhouette_band": _SHARE,
    "texture.adam_beta2": _BETA,
    "texture.adam_epsilon": _ABOVE_ZERO,
    "texture.samples": (2, math.inf),
    "texture.coarse_samples": (2, math.inf),
    "texture.width": _AT_LEAST_ONE,
}


def check_limits(settings: Any) -> None:
    """See whether every value of a group of settings (a dataclass of them) can be worked with.

    Raises:
        InputError: The first that cannot (``bad_setting``).
    """
    for name, value in leaves(settings):
        _check(name, value)


def leaves(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value


def _check(name: str, value: Any) -> None:
    allowed = CHOICES.get(name)
    if allowed is not None and value not in allowed:
        words = ", ".join(str(word) for word in allowed)
        raise InputError(f"{name} is one of {words}, not '{value}'.", "bad_setting")
    low, high = LIMITS.get(name, (0.0, math.inf))
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float) and not (
            math.isfinite(number) and low <= number <= high
        ):
            raise InputError(f"{name} must be {_range(low, high)}, not {number}.", "bad_setting")


def _range(low: float, high: float) -> str:
    if (low, high) == _ANY:
        return "a finite number"
    if high == math.inf:
        return f"a number of at least {low:g}"
    return f"between {low:g} and {high:g}"
