"""High dynamic range and wide gamut video to sRGB, as one table for ffmpeg's ``lut3d`` filter.

Phones film HLG (iPhone) or PQ (HDR10) in BT.2020 colours; read as they are, such frames look grey
and pale and every colour learned from them is wrong. The table does in one step what a player does:
to display light (ITU-R BT.2100-2, tables 4 and 5), to the primaries of sRGB (BT.2087), highlights
rolled off, and sRGB's own curve. What lies below half of the reference white, which is the skin in
most pictures, keeps the brightness that a player without high dynamic range would give it.
"""

from __future__ import annotations

import numpy as np

from .. import srgb
from ..scene import FloatArray

REFERENCE_WHITE = 203.0
"""Light of white paper in cd/m2 (ITU-R BT.2408)."""
PEAK = 1000.0
"""Light in cd/m2 that becomes sRGB's white: the nominal peak of HLG, and of most PQ masters."""
KNEE = 0.5
"""Share of the reference white below which light is kept as it is."""
TABLE_SIZE = 33
"""Places of the table along each axis."""

# BT.2020 to BT.709 primaries, both with white D65 (ITU-R BT.2087-0, the inverse of its eq. 2).
BT2020_TO_709: FloatArray = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
_LUMA_2020: FloatArray = np.array([0.2627, 0.6780, 0.0593])


def to_srgb(values: FloatArray, kind: str) -> FloatArray:
    """Signal values in BT.2020 to sRGB's.

    Args:
        values: ``(..., 3)`` in 0 to 1, as they are in the file.
        kind: ``"HLG"``, ``"PQ"``, or ``"SDR"`` for BT.2020 with an ordinary transfer function.

    Returns:
        ``(..., 3)`` in 0 to 1.
    """
    if kind == "SDR":
        return srgb.to_srgb(_into_gamut(srgb.to_linear(values)))
    light = hlg_light(values) if kind == "HLG" else pq_light(values)
    return srgb.to_srgb(np.clip(roll_off(_into_gamut(light / REFERENCE_WHITE)), 0.0, 1.0))


def hlg_light(values: FloatArray) -> FloatArray:
    """Display light in cd/m2 of an HLG signal on a display of :data:`PEAK` (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    values = np.clip(values, 0.0, 1.0)
    scene = np.where(values <= 0.5, values**2 / 3.0, (np.exp((values - c) / a) + b) / 12.0)
    luminance = scene @ _LUMA_2020
    gamma = 1.2
    return np.asarray(PEAK * np.maximum(luminance, 1e-9)[..., None] ** (gamma - 1.0) * scene)


def pq_light(values: FloatArray) -> FloatArray:
    """Display light in cd/m2 of a PQ signal (SMPTE ST 2084, BT.2100 table 4)."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = np.clip(values, 0.0, 1.0) ** (1.0 / m2)
    return np.asarray(
        10000.0 * (np.maximum(power - c1, 0.0) / (c2 - c3 * power)) ** (1.0 / m1), np.float64
    )


def roll_off(light: FloatArray) -> FloatArray:
    """Compress light (1 = reference white) so that :data:`PEAK` becomes 1; hue is kept.

    Unchanged up to :data:`KNEE`, from there Reinhard's extended curve (Reinhard et al. 2002, eq. 4)
    of the largest channel, with which the other channels shrink.
    """
    largest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    x = np.maximum(largest - KNEE, 0.0) / (1.0 - KNEE)
    top = (PEAK / REFERENCE_WHITE - KNEE) / (1.0 - KNEE)
    x = np.minimum(x, top)
    curved = KNEE + (1.0 - KNEE) * x * (1.0 + x / top**2) / (1.0 + x)
    return np.asarray(light * np.where(largest > KNEE, curved / largest, 1.0))


def cube_file(kind: str, size: int = TABLE_SIZE) -> str:
    """The text of a ``.cube`` table for :func:`to_srgb` (red varies fastest)."""
    steps = np.linspace(0.0, 1.0, size)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    table = to_srgb(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1), kind)
    rows = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in table)
    return f"LUT_3D_SIZE {size}\n{rows}\n"


def _into_gamut(light: FloatArray) -> FloatArray:
    """BT.2020 to BT.709 light; colours outside come nearer to grey until they are inside."""
    out = light @ BT2020_TO_709.T
    luminance = (light @ _LUMA_2020)[..., None]
    lowest = out.min(-1, keepdims=True)
    share = np.where(lowest < 0, luminance / np.maximum(luminance - lowest, 1e-12), 1.0)
    return np.asarray(np.maximum(luminance + share * (out - luminance), 0.0))
