"""A knitted sweater with a ribbed collar over chest, shoulders and upper arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fields import (
    Array,
    Mesh,
    ellipsoid,
    fractal_noise,
    mix,
    polygonize,
    refine,
    smax,
    smin,
    smoothstep,
    tube,
)
from head import mirror, srgb


@dataclass(frozen=True)
class Sweater:
    """Colours and measures (cm) of the sweater."""

    base: str = "#2f4a63"
    stripe: str = "#e3d5b8"
    accent: str = "#b4532f"
    period: float = 5.2
    broad: float = 0.9
    collar: float = 6.7
    rise: float = 0.0


def collar_height(p: Array) -> Array:
    """Height of the collar's ring at ``p``: lower in front."""
    return np.asarray(-14.9 + 0.28 * (p[:, 1] - 2.4))


def sweater_field(p: Array, style: Sweater) -> Array:
    """The garment as a solid with a hole for the neck."""
    q = mirror(p)
    b = style.broad
    yoke = [(2.0, 3.2, -18.2), (9.0 * b, 3.4, -19.6), (16.5 * b, 3.0, -22.8)]
    f = tube(q, yoke, (5.6, 4.8, 5.0))
    f = smin(f, ellipsoid(q, (4.5 * b, 2.0, -36), (12.5 * b, 10.0, 17)), 5.0)
    f = smin(f, tube(q, [(0, 2.5, -40), (0, 2.5, -75)], (13.5 * b, 14.5 * b)), 6.0)
    arm = [(17.5 * b, 3.0, -24.5), (21 * b, 3.5, -38), (22 * b, 1.0, -56)]
    f = smin(f, tube(q, arm, (5.2, 4.6, 4.2)), 2.0)
    f = smin(f, tube(q, [(0, 5.0, -16.4), (0, 3.5, -24)], (3.9, 6.5)), 2.5)
    folds = np.stack([p[:, 0] * 0.16, p[:, 1] * 0.2, p[:, 2] * 0.09 + 0.12 * q[:, 0]], axis=1)
    f = f + 0.55 * fractal_noise(folds * 1.4, 71, 2) * smoothstep(-17, -24, p[:, 2])
    radial = np.hypot(p[:, 0], p[:, 1] - 2.4)
    hole = np.maximum(radial - style.collar, collar_height(p) - 0.5 - p[:, 2])
    f = smax(f, -hole, 0.5)
    along = np.sqrt((radial - style.collar) ** 2 + (0.8 * (p[:, 2] - collar_height(p))) ** 2)
    rib = 0.05 * np.cos(44 * np.arctan2(p[:, 0], p[:, 1] - 2.4))
    return smin(f, along - 0.72 + rib, 0.4)


def build_sweater(style: Sweater) -> Mesh:
    """Mesh and paint the sweater."""
    low, high = (-28.0, -13.0, -52.0), (28.0, 18.0, -11.0)

    def cloth(q: Array) -> Array:
        return sweater_field(q, style)

    def edges(q: Array) -> Array:
        return 0.22 + 0.25 * smoothstep(-19, -26, q[:, 2])

    vertices, faces = polygonize(cloth, low, high, 0.5)
    vertices, faces = refine(cloth, vertices, faces, edges)
    colors = _paint(vertices, style)
    return Mesh(vertices + np.array([0.0, 0.0, style.rise]), faces, colors)


def _paint(p: Array, style: Sweater) -> Array:
    q = mirror(p)
    wave = p[:, 2] + 0.25 * q[:, 0] + 0.25 * fractal_noise(p * 0.4, 81, 2)
    phase = (wave / style.period) % 1.0
    c = np.broadcast_to(np.asarray(srgb(style.base)), p.shape)
    c = mix(
        c,
        np.asarray(srgb(style.stripe)),
        smoothstep(0.40, 0.44, phase) * smoothstep(0.78, 0.74, phase),
    )
    c = mix(
        c,
        np.asarray(srgb(style.accent)),
        smoothstep(0.86, 0.88, phase) * smoothstep(0.96, 0.94, phase),
    )
    radial = np.hypot(p[:, 0], p[:, 1] - 2.4)
    near = (radial < style.collar + 1.0) & (np.abs(p[:, 2] - collar_height(p)) < 1.3)
    c = np.where(near[:, None], np.asarray(srgb(style.base)) * 0.8, c)
    heather = 1 + 0.16 * fractal_noise(p * np.array([2.2, 2.2, 5.0]), 91, 2)
    return np.clip(c * heather[:, None], 0, 1)
