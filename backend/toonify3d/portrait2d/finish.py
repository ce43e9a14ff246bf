"""The last touches on a recoloured frame: flat tones, strokes, lines, background."""

from __future__ import annotations

import cv2
import numpy as np

from ..scene import ByteImage, Float32Array
from .celtones import flat_steps
from .colorspace import blur, smooth_edges, smoothstep, to_rgb
from .hatching import (
    DrawnFrame,
    contours,
    hair_lights,
    hatching,
    ranks,
    sharp_label,
    strands,
)
from .inkstrokes import Strokes, drawn_strokes
from .look import Look, Painted
from .tones import kept_shading

BACKGROUND = 245
_INK_EDGE = 0.75
"""Softness in pixels of the borders between ink and paper."""
_BESIDE_LINES = 0.7
_GRAIN = 0.9
"""Pixels over which the paper's grain breaks lines: finer, every frame breaks them elsewhere."""
_LOCKS = 25.0
"""CIELAB difference below which hair is smoothed before its strokes are laid."""
_STRANDS, _STRAND_RANGE = 0.42, 40.0
"""Share of a chalk drawing's hair that lines cover at its middle tone, and L per whole share."""
_CLOTH_LINES = 0.55
"""Share of a tone that hatching gives in clothes: full, it looks knitted."""
_CEL_STEP = 9.0
"""L between two flat tones of a cel drawing."""


def finish(
    look: Look, painted: Painted, strokes: Float32Array | None, marks: Float32Array | None = None
) -> ByteImage:
    """RGB ``(H, W, 3)`` on a plain background.

    Args:
        look: What all frames share.
        painted: The recoloured frame.
        strokes: ``(H, W, 3)`` CIELAB to add, or None.
        marks: ``(H, W, 3)`` opacities of contours, hatching and the hair's lights (drawings).
    """
    lab = painted.lab
    if look.kind == "cel":
        lab = _flat_tones(lab, painted)
    if strokes is not None:
        calm = 1 - 0.75 * painted.drawn[..., None]
        if look.kind == "hatch":  # the lines of hatching carry part of the tone
            calm = calm * _BESIDE_LINES
        lab = stroke_base(look, painted) + strokes * look.settings.strokes * calm
    if marks is not None:
        lab = (
            _ink(look, painted, marks) if look.kind == "ink" else _chalk(look, lab, strokes, marks)
        )
    lab = np.concatenate([np.clip(lab[..., :1], 0, 100), lab[..., 1:]], axis=2)
    cover = painted.cover[..., None]
    image = to_rgb(lab).astype(np.float32) * cover + BACKGROUND * (1 - cover)
    return np.asarray(np.clip(image + 0.5, 0, 255), np.uint8)


def stroke_base(look: Look, painted: Painted) -> Float32Array:
    """The smooth picture on which strokes are laid: eyes stay, the photo's fine texture goes."""
    smooth = smooth_edges(painted.lab, 9.0, 2.5)
    hair = painted.labels[..., 1:2]
    if look.kind == "paint" and hair.max() > 0.5:  # its locks are painted anew
        smooth = smooth + hair * (smooth_edges(painted.lab, _LOCKS, 2.5) - smooth)
    keep = painted.drawn[..., None]
    return np.asarray(smooth + (painted.lab - smooth) * keep, np.float32)


def _flat_tones(lab: Float32Array, painted: Painted) -> Float32Array:
    """L of hair and clothes in steps with narrow soft borders, as a cel is coloured."""
    flat = flat_steps(np.ascontiguousarray(lab[..., 0]), _CEL_STEP)
    own = np.maximum(painted.drawn, smoothstep(painted.labels[..., 0], 0.2, 0.6))
    out = lab.copy()
    out[..., 0] = flat + (lab[..., 0] - flat) * own
    return out


def _ink(look: Look, painted: Painted, marks: Float32Array) -> Float32Array:
    """Paper and ink only: hair is ink but for its lights, skin and clothes are lines on paper."""
    lines, hatching, lights = (marks[..., i] for i in range(3))
    hair = sharp_label(painted.labels[..., 1]) * (1 - smoothstep(lights, 0.35, 0.65))
    ramp = look.exemplar.hair_ramp
    black = look.line_lab if ramp is None else ramp[0]
    drawn = np.maximum(lines, hatching) * min(1.25 * look.settings.lines, 1.0)
    ink = np.maximum(hair, smoothstep(drawn, 0.25, 0.75))
    # Eyes, brows and mouth: whatever the exemplar's are, here they are ink or paper.
    middle = 0.5 * (float(look.skin_mean[0]) + float(black[0]))
    feature = smoothstep(painted.lab[..., 0], middle + 8, middle - 8)
    ink = ink + (feature - ink) * smoothstep(painted.drawn, 0.2, 0.6)
    # Frames see a border at different places of their pixels: without this it flickers.
    ink = blur(np.asarray(ink, np.float32), _INK_EDGE)[..., None]
    return np.asarray(look.skin_mean * (1 - ink) + black * ink, np.float32)


def _chalk(
    look: Look, lab: Float32Array, strokes: Float32Array | None, marks: Float32Array
) -> Float32Array:
    """Part of the tone becomes hatching in the drawing's pigment, broken by the paper's grain."""
    lines, hatching, _ = (marks[..., i] for i in range(3))
    opacity = np.maximum(0.8 * hatching, lines)
    if strokes is not None:
        grain = blur(np.ascontiguousarray(strokes[..., 0]), _GRAIN)
        opacity = opacity * (0.45 + 0.55 * smoothstep(grain, 2.8, -4.8))
    opacity = np.clip(opacity * look.settings.lines, 0, 1)[..., None]
    return np.asarray(lab + (look.line_lab - lab) * opacity, np.float32)


def decided_marks(look: Look, painted: Painted) -> Float32Array:
    """What one frame decides and others take over, ``(H, W, 3)`` as for :func:`finish`.

    A chalk drawing's contours; the lights of inked hair.
    """
    frame = _drawn_frame(look, painted)
    nothing = np.zeros_like(painted.cover)
    if look.kind == "ink":
        lights = hair_lights(frame) if look.hair_lights else nothing
        return np.stack([nothing, nothing, lights], axis=2)
    return np.stack([contours(frame), nothing, nothing], axis=2)


def _drawn_frame(look: Look, painted: Painted) -> DrawnFrame:
    return DrawnFrame(
        painted.photo_light,
        painted.labels,
        painted.local,
        np.maximum(painted.drawn, painted.organs),
        painted.cover,
        look.layer.scale / 2,
    )


def surface_marks(look: Look, painted: Painted, lines: Strokes | None) -> Float32Array:
    """Opacity ``(H, W)`` of what lies on the surface whoever looks: hatching, lines of ink.

    Args:
        look: What the frames share.
        painted: The frame.
        lines: From :func:`.inklines.ink_strokes`; None for none.
    """
    marks = hatch_opacity(look, painted)
    if lines is None:
        return marks
    bare = smoothstep(painted.labels[..., 1], 0.6, 0.4)
    bare *= 1 - np.maximum(painted.drawn, painted.organs)
    # At the outline a line would be a row of dots: the surface is hardly seen there.
    inset = cv2.distanceTransform((painted.cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    bare *= smoothstep(inset, 1.0, 3.0)
    asked = bare > 0
    drawn = drawn_strokes(lines, painted.local, asked, look.layer.scale / 2)
    return np.maximum(marks, bare * drawn)


def hatch_opacity(look: Look, painted: Painted) -> Float32Array:
    """Hatching ``(H, W)`` wherever a chalk drawing has tone, and in the shadows of inked skin.

    Inked skin has none where the exemplar's is lines alone.
    """
    if look.tones is None or (look.kind == "ink" and not look.ink_shade):
        return np.zeros_like(painted.cover)
    free = 1 - np.maximum(painted.drawn, painted.organs)
    if look.kind == "ink":
        rank = ranks(painted.tone, look.tones.skin.source)
        dark = 0.5 * smoothstep(rank, 0.34, 0.06) * painted.labels[..., 0]
    else:
        curve = look.tones.skin
        paper, pigment = float(curve.goal[-1]), float(look.line_lab[0])
        dark = (paper - curve.light(painted.tone)) / max(paper - pigment, 10.0)
        dark = np.clip(1.1 * dark, 0, 0.8) * (1 - painted.labels[..., 1])
        dark = dark * (1 - (1 - _CLOTH_LINES) * painted.labels[..., 2])
    lines = hatching(painted.local, np.asarray(dark * free, np.float32))
    if look.kind == "ink" or look.hair_levels is None:
        return lines
    return np.maximum(lines, strands(painted.local, _hair_tone(look, painted)))


def _hair_tone(look: Look, painted: Painted) -> Float32Array:
    """Darkness ``(H, W)`` of a chalk drawing's hair: lines are wider where it is dark."""
    assert look.hair_levels is not None
    middle = kept_shading(look.settings.shading) * float(np.median(look.hair_levels))
    dark = np.clip(_STRANDS + (middle - painted.tone) / _STRAND_RANGE, 0.1, 0.65)
    return np.asarray(dark * smoothstep(painted.labels[..., 1], 0.5, 0.8), np.float32)
