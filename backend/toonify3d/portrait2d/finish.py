"""The last touches on a recoloured frame: flat tones, strokes, lines, background."""

from __future__ import annotations

import cv2
import numpy as np

from ..scene import ByteImage, Float32Array, FloatArray
from .celtones import flat_steps
from .colorspace import blur, smooth_edges, smoothstep, to_rgb
from .hatching import (
    DrawnFrame,
    contours,
    hair_lights,
    hatching,
    jaw_line,
    line_scale,
    ranks,
    sharp_label,
    strands,
)
from .look import Look, Painted
from .tones import kept_shading

BACKGROUND = 245
_INK_EDGE = 0.75
"""Softness in pixels of the borders between ink and paper."""
FACE_UNITS, _FOUND = 2.3, 2.4
"""Width of a face in eye distances; of the lines that are found, in :func:`line_scale`."""
_CLEARER, _MORE_LINES = (1.0, 1.4, 2.0, 2.8, 4.0), 2.5
"""Contrasts of creases that are tried; lines on a face against the exemplar's."""
_OUTLINE = 2.0
"""Width of an inked jaw against other lines: from the front it is seen nearly edge on."""
_CHIN = -2.0
"""y of the face frame under which there is no face."""
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


def _as_wide(lines: Float32Array, look: Look) -> Float32Array:
    """Contours ``(H, W)`` grown to the width that the exemplar's lines have.

    They are found one or two pixels wide; lines so thin do not survive in the texture.
    """
    unit = look.layer.scale / 2
    grow = max(0.5 * (look.line_width * FACE_UNITS * unit - _FOUND * line_scale(unit)), 0.0)
    far = cv2.distanceTransform((lines < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return np.maximum(lines, smoothstep(far, grow + 1.0, grow))


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


def decided_marks(
    look: Look, painted: Painted, jaw: FloatArray | None = None, clear: float = 1.0
) -> Float32Array:
    """Contours and the hair's lights of one frame, ``(H, W, 3)`` as for :func:`finish`."""
    frame = _drawn_frame(look, painted, jaw)
    nothing = np.zeros_like(painted.cover)
    if look.kind == "ink":
        lights = hair_lights(frame) if look.hair_lights else nothing
        # Grown before they are carried: how thin lines are sampled would change their width.
        lines = _as_wide(contours(frame, clear=clear), look)
        return np.stack([lines, nothing, lights], axis=2)
    return np.stack([contours(frame, 0.6), nothing, nothing], axis=2)


def crease_contrast(look: Look, painted: Painted, jaw: FloatArray | None = None) -> float:
    """Contrast from which on a crease is inked, so that a face has no more lines than is usual.

    An old face in an exemplar's few bold lines would be all folds.

    Args:
        look: What the frames share.
        painted: The frame that shows the face best.
        jaw: As for :func:`surface_marks`.

    Returns:
        The argument ``clear`` of :func:`decided_marks`; 1 for all other looks.
    """
    if look.kind != "ink":
        return 1.0
    frame = _drawn_frame(look, painted, jaw)
    bare = (painted.labels[..., 0] > 0.5) & (painted.cover > 0.9) & (frame.taken < 0.5)
    bare &= frame.local[..., 1] > _CHIN
    if not bare.any():
        return _CLEARER[0]

    def share(clear: float) -> float:
        return float(_as_wide(contours(frame, clear=clear), look)[bare].mean())

    outlines = share(np.inf)  # of jaw and collar: they are drawn however many there are
    for clear in _CLEARER[:-1]:
        if share(clear) - outlines <= _MORE_LINES * look.inked:
            return clear
    return _CLEARER[-1]


def _drawn_frame(look: Look, painted: Painted, jaw: FloatArray | None = None) -> DrawnFrame:
    return DrawnFrame(
        painted.photo_light,
        painted.labels,
        painted.local,
        np.maximum(painted.drawn, painted.organs),
        painted.cover,
        look.layer.scale / 2,
        jaw,
    )


def surface_marks(look: Look, painted: Painted, jaw: FloatArray | None) -> Float32Array:
    """Opacity ``(H, W)`` of what lies on the surface whoever looks: hatching, a drawn jaw.

    Args:
        look: What the frames share.
        painted: The frame.
        jaw: ``(N, 3)`` the jaw's curve, face frame; None for no line.
    """
    marks = hatch_opacity(look, painted)
    if jaw is None:
        return marks
    width = _OUTLINE * look.line_width * FACE_UNITS
    return np.maximum(marks, jaw_line(_drawn_frame(look, painted, jaw), width))


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
