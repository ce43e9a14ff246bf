"""The exemplar's lips on the person's mouth: the person's form, the exemplar's colour and line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray
from .colorspace import blur, fill_holes, smoothstep
from .paper import Paper

_MARGIN = 0.03
"""How far beyond the lips' landmarks, in eye distances, something drawn belongs to them."""
_EDGE = 0.012
"""Half the softness of a lip's rim, eye distances."""
_FILLED = 0.45
"""Drawn share of the lips above which a mouth is a shape, and below which it is a line."""
_UPPER = (0.6, 0.85)
"""Drawn share of the upper lip from which on there is one in the drawing."""
_THINNEST, _THICKEST = 0.008, 0.03
"""Half the width of a mouth's line, eye distances."""


def lay_mouth(
    paper: Paper,
    color: Float32Array,
    drawn: Float32Array,
    skin: Float32Array,
    targets: FloatArray,
    contrast: float,
    expression: float,
    ink: Float32Array,
) -> tuple[Float32Array, Float32Array]:
    """Colour ``(H, W, 3)`` and opacity ``(H, W)`` of the mouth.

    A toon's mouth is a dark shape that stands for lips, teeth and gap alike; laid in full on a shut
    mouth it reads as lipstick, and a smile's corners stick out of it like horns. The person's lips
    therefore take a part of its colour, the gap all of it, and their form is the person's own as
    far as no expression is asked for (of two lips, or of the lower one, as the exemplar has them).

    Args:
        paper: The layer.
        color: ``(H, W, 3)`` the exemplar, bent onto the face.
        drawn: ``(H, W)`` how surely it differs from skin.
        skin: ``(H, W, 3)`` the skin's colour.
        targets: ``(478, 3)`` stylized landmarks.
        contrast: Largest CIELAB difference between lips and skin.
        expression: 0 keeps the person's form, 1 takes what is drawn.
        ink: ``(3,)`` colour of lines, for mouths that are not drawn at all.
    """
    inside = paper.signed(targets[list(lm.LIPS_OUTER)])
    shape = drawn * smoothstep(inside, -_MARGIN, -0.5 * _MARGIN)
    core, near = inside > 0.0, smoothstep(inside, -_MARGIN - 0.05, -_MARGIN)[..., None]
    if not core.any():
        return color, shape
    found = (drawn > 0.5) & (inside > -_MARGIN)
    if (drawn[core] > 0.5).mean() > _FILLED:
        own = _lips(paper, targets, drawn)
        sure = np.asarray((found & core), np.float32) * smoothstep(drawn, 0.6, 0.95)
        bent = fill_holes(color, sure)
        gap = np.median(np.linalg.norm(bent - skin, axis=2)[core])
        part = min(1.0, contrast / max(float(gap), 1e-6))
        new = skin + (bent - skin) * part
        full = np.median(bent[core], axis=0)
        line = mouth_line(paper, targets)
        new = new + (full - new) * line[..., None]
    else:
        line = own = _drawn_line(paper, targets, found)
        tint = np.median(color[found], axis=0) if found.any() else ink
        new = np.broadcast_to(tint, color.shape)
        new = new + (color - new) * expression
    opacity = np.maximum(own + (shape - own) * expression, line)
    return np.asarray(color + (new - color) * near, np.float32), np.asarray(opacity, np.float32)


def _lips(paper: Paper, targets: FloatArray, drawn: Float32Array) -> Float32Array:
    """Opacity of the person's lips; the upper one only where the exemplar has drawn it.

    A shape that hangs from the mouth's line covers no more of the upper lip than its corners.
    """
    outer, middle = targets[list(lm.LIPS_OUTER), :2], _between(targets)
    out = np.zeros(paper.shape, np.float32)
    for rim, always in ((outer[:11], True), (np.concatenate([outer[:1], outer[:9:-1]]), False)):
        inside = paper.signed(np.concatenate([rim, middle[::-1]]))
        part = smoothstep(blur(inside, _EDGE * paper.scale), -_EDGE, _EDGE)
        covered = float((drawn[inside > 0] > 0.5).mean()) if (inside > 0).any() else 0.0
        out = np.maximum(out, part * (1.0 if always else smoothstep(covered, *_UPPER)))
    return np.asarray(out, np.float32)


def _between(targets: FloatArray) -> FloatArray:
    """The middle ``(11, 2)`` between the lips, from the right corner to the left one."""
    inner = targets[list(lm.LIPS_INNER), :2]
    return np.asarray(0.5 * (inner[:11] + np.concatenate([inner[:1], inner[:9:-1]])))


def mouth_line(
    paper: Paper, targets: FloatArray, thin: float = 0.008, more: float = 0.014
) -> Float32Array:
    """Opacity of the gap between the lips: a stroke when shut, the whole gap when open."""
    inner = targets[list(lm.LIPS_INNER), :2]
    gap = smoothstep(paper.signed(inner), 0.0, 0.02)
    return np.maximum(gap, paper.stroke(_between(targets), thin, more))


def _drawn_line(paper: Paper, targets: FloatArray, found: npt.NDArray[np.bool_]) -> Float32Array:
    """The line of a mouth that is drawn as one, about as thick as it is drawn."""
    width = float(np.ptp(targets[list(lm.LIPS_OUTER), 0])) * paper.scale
    half = 0.5 * float(found.sum()) / max(width, 1.0) / paper.scale
    half = float(np.clip(half, _THINNEST, _THICKEST))
    return mouth_line(paper, targets, 0.6 * half, 0.6 * half)
