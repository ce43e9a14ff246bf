"""The last touches on a recoloured frame: flat tones, strokes, lines, background."""

from __future__ import annotations

import cv2
import numpy as np

from ..scene import ByteImage, Float32Array
from .colorspace import blur, smooth_edges, smoothstep, to_rgb
from .look import Look, Painted

BACKGROUND = 245
_CEL_STEP = 9.0
"""L between two flat tones of a cel drawing."""


def finish(look: Look, painted: Painted, strokes: Float32Array | None) -> ByteImage:
    """RGB ``(H, W, 3)`` on a plain background.

    Args:
        look: What all frames share.
        painted: The recoloured frame.
        strokes: ``(H, W, 3)`` CIELAB to add, or None.
    """
    lab = painted.lab
    if look.kind == "cel":
        lab = _flat_tones(lab, painted)
    elif look.kind == "ink":
        lab = _ink(look, painted)
    if strokes is not None:
        calm = 1 - 0.75 * painted.drawn[..., None]
        lab = stroke_base(look, painted) + strokes * look.settings.strokes * calm
    if look.kind in ("hatch", "ink"):
        lines = edge_lines(painted) * (1 - painted.drawn)
        if look.kind == "ink":
            lines = smoothstep(lines, 0.35, 0.55)
        elif strokes is not None:  # chalk: broken by the paper's grain
            lines = lines * (0.35 + 0.65 * smoothstep(strokes[..., 0], 3.0, -9.0))
        lines = lines * look.settings.lines
        lab = lab + (look.line_lab - lab) * np.clip(lines, 0, 1)[..., None]
    lab = np.concatenate([np.clip(lab[..., :1], 0, 100), lab[..., 1:]], axis=2)
    cover = painted.cover[..., None]
    image = to_rgb(lab).astype(np.float32) * cover + BACKGROUND * (1 - cover)
    return np.asarray(np.clip(image + 0.5, 0, 255), np.uint8)


def stroke_base(look: Look, painted: Painted) -> Float32Array:
    """The smooth picture on which strokes are laid: eyes stay, the photo's fine texture goes."""
    smooth = smooth_edges(painted.lab, 9.0, 2.5)
    keep = painted.drawn[..., None]
    return np.asarray(smooth + (painted.lab - smooth) * keep, np.float32)


def _flat_tones(lab: Float32Array, painted: Painted) -> Float32Array:
    """L in steps with narrow soft borders, as a cel is coloured."""
    light = smooth_edges(np.ascontiguousarray(lab[..., 0]), 8.0, 3.0) / _CEL_STEP
    step = np.floor(light)
    flat = (step + smoothstep(light - step, 0.4, 0.6)) * _CEL_STEP
    out = lab.copy()
    out[..., 0] = flat + (lab[..., 0] - flat) * painted.drawn
    return out


def _ink(look: Look, painted: Painted) -> Float32Array:
    """Paper and ink only: hair is ink but for its highlights, all else is paper."""
    hair = painted.labels[..., 1]
    ink = hair.copy()
    if look.hair_levels is not None:
        bright = smooth_edges(painted.photo_light, 8.0, 2.0)
        high, low = float(look.hair_levels[-3]), float(look.hair_levels[-6])
        ink = hair * (1 - smoothstep(bright, low, max(high, low + 2.0)))
    ink = smoothstep(ink, 0.35, 0.65)[..., None]
    ramp = look.exemplar.hair_ramp
    black = look.line_lab if ramp is None else ramp[0]
    out = look.skin_mean * (1 - ink) + black * ink
    return np.asarray(out + (painted.lab - out) * painted.drawn[..., None], np.float32)


def edge_lines(painted: Painted) -> Float32Array:
    """Opacity of lines: dark creases of the photo, and borders of the regions.

    A difference of Gaussians with a soft threshold (XDoG: Winnemoeller 2012). The outline against
    the background gets none: it is another place of the surface in every view.
    """
    light = smooth_edges(painted.photo_light, 10.0, 1.5)
    dark = blur(light, 2.4) - blur(light, 1.2)
    lines = smoothstep(dark, 0.9, 2.4) * (1 - 0.7 * painted.labels[..., 1])
    skin, hair, clothes = (painted.labels[..., i] for i in range(3))
    border = 4 * np.maximum(skin * clothes, 0.7 * skin * hair)
    lines = np.maximum(lines, smoothstep(border, 0.6, 0.95))
    inset = cv2.distanceTransform((painted.cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(lines * smoothstep(inset, 2.0, 4.0), np.float32)
