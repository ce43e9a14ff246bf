"""Marks of drawings: hatching that follows the form, contours, the lights in inked hair.

Hatching is where parallel planes cut the surface, so every line bends with the form and lies at the
same place of the surface in every frame; its width gives the tone (the principle of engravings).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import Float32Array
from .colorspace import blur, fill_holes, smooth_edges, smoothstep

PERIOD = 0.1
"""Eye distances from one line of hatching to the next."""
PLANES = (np.array([0.62, 0.78, 0.1]), np.array([-0.80, 0.58, 0.15]))
"""Normals (face frame) of the planes of the first and of the crossing lines."""
_GRAZED = (0.65, 0.9)
"""Cosine between a surface and the planes that cut it from which on the lines part, until they are
rings round the place where a plane touches: there the other planes take over."""
_FACET = 0.06
"""Eye distances over which the form is evened to tell how the planes cut it."""
_WOBBLE, _WAVE = 0.22, 2.3
AXIS, _TEMPLES = -1.5, 1.6
"""z of the axis round which hair falls, and its distance from the temples, eye distances."""
_CURL, _CURLS = 1.1, 3.4
"""Swing of a strand in strands, and turns of its wave per eye distance."""
_SOFT = 1.2
"""Half the width in pixels of a line's border."""
_CROSSED = 0.5
"""Darkness from which a second set of lines crosses the first."""
_CREASE = 1.3
"""CIELAB by which a crease is darker than what lies round it."""
_STRANDS_COUNT = 0.6
"""How much strands of hair count as creases."""
_LIGHTS = 0.9
"""Share of the hair that is ink at least."""


@dataclass(frozen=True)
class DrawnFrame:
    """What marks are made from.

    Attributes:
        light: ``(H, W)`` L of the photo.
        labels: ``(H, W, 3)`` skin, hair, rest.
        local: ``(H, W, 3)`` the surface in the face frame.
        taken: ``(H, W)`` 0..1 where eyes, brows and lips are drawn already.
        cover: ``(H, W)`` 0..1 the person.
        unit: Pixels between the eyes.
    """

    light: Float32Array
    labels: Float32Array
    local: Float32Array
    taken: Float32Array
    cover: Float32Array
    unit: float


def hatching(local: Float32Array, darkness: Float32Array, period: float = PERIOD) -> Float32Array:
    """Opacity ``(H, W)`` of lines that cover as much of the surface as ``darkness`` says.

    Args:
        local: ``(H, W, 3)`` points of the surface in the face frame.
        darkness: ``(H, W)`` 0..1.
        period: Distance of two lines, in the face frame's units.
    """
    first, second = np.minimum(darkness, _CROSSED), 0.8 * np.maximum(darkness - _CROSSED, 0)
    grazed, other = (_grazed(local, plane) for plane in PLANES)
    shares = (
        np.maximum(first * (1 - grazed), second * other),
        np.maximum(second * (1 - other), first * grazed),
    )
    out = np.zeros(darkness.shape, np.float32)
    for share, plane in zip(shares, PLANES, strict=True):
        along = local @ np.cross(plane, [0.0, 0.0, 1.0]).astype(np.float32)
        swing = _WOBBLE * np.sin(_WAVE * along + 1.7 * np.sin(1.3 * local[..., 1]))
        phase = np.asarray(local @ plane.astype(np.float32) / period + swing, np.float32)
        out = np.maximum(out, _ruled(phase, share))
    return np.asarray(out, np.float32)


def strand_phase(local: Float32Array, period: float = PERIOD) -> Float32Array:
    """Which strand ``(H, W)`` a point of the hair lies on: whole numbers are strands.

    They fall from the crown all round, straight where the head is round, wavier below.

    Args:
        local: ``(H, W, 3)`` points of the surface in the face frame.
        period: Distance of two strands at the temples, in the face frame's units.
    """
    around = np.arctan2(local[..., 0], local[..., 2] - AXIS)
    height, count = local[..., 1], 2 * np.pi * _TEMPLES / period
    # Behind the axis the angle jumps by a whole turn: an even number of strands goes round.
    count = 2 * round(0.5 * count)
    wave = np.sin(_CURLS * height + 2.3 * np.sin(2.0 * around) + 0.9 * local[..., 0])
    return np.asarray(around * count / (2 * np.pi) + _CURL * wave, np.float32)


def strands(local: Float32Array, darkness: Float32Array) -> Float32Array:
    """Opacity ``(H, W)`` of the lines with which a draughtsman draws hair.

    Args:
        local: ``(H, W, 3)`` points of the surface in the face frame.
        darkness: ``(H, W)`` 0..1, share of the surface that they cover.
    """
    phase = strand_phase(local)
    swell = 0.75 + 0.25 * np.sin(0.85 * phase + 1.1 * local[..., 1])
    share = np.asarray(darkness * swell, np.float32)
    # Where the hair turns away every second strand ends.
    return np.maximum(_ruled(phase, share), _ruled(0.5 * phase, 0.5 * share))


def _ruled(phase: Float32Array, share: Float32Array) -> Float32Array:
    """Opacity ``(H, W)`` of lines at whole numbers of ``phase``, a ``share`` of their gap wide."""
    across, down = (cv2.Sobel(phase, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    slope = np.hypot(across, down) / 8
    pixels = np.clip(1 / np.maximum(slope, 1e-3), 1.0, 30.0)  # from one line to the next
    far = np.abs(phase - np.round(phase)) * pixels
    # Soft borders: narrower ones flicker where frames sample them differently.
    line = smoothstep(0.5 * share * pixels - far, -_SOFT, _SOFT)
    apart = smoothstep(pixels, 2.2, 3.4)  # closer ones cannot be told apart: they are a tone
    line = line * apart + share * (1 - apart)
    return np.asarray(line * smoothstep(share, 0.02, 0.08), np.float32)


def _grazed(local: Float32Array, plane: npt.NDArray[np.float64]) -> Float32Array:
    """0..1 ``(H, W)`` where parallel planes nearly touch the surface instead of cutting it."""
    across, down = (cv2.Sobel(local, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    pixel = float(np.median(np.linalg.norm(across, axis=2))) / 8
    normal = blur(np.cross(across, down).astype(np.float32), _FACET / max(pixel, 1e-4))
    length = np.maximum(np.linalg.norm(normal, axis=2), 1e-9)
    return smoothstep(np.abs(normal @ plane.astype(np.float32)) / length, *_GRAZED)


def line_scale(unit: float) -> float:
    """Pixels to scale lines by in a picture whose eyes are ``unit`` pixels apart."""
    return float(np.clip(unit / 70.0, 0.6, 2.5))


def creased(light: Float32Array, scale: float) -> Float32Array:
    """CIELAB ``(H, W)`` by which a place is darker than what lies round it.

    The difference of Gaussians of XDoG (Winnemoeller 2012).

    Args:
        light: ``(H, W)`` L of a photo.
        scale: From :func:`line_scale`.
    """
    light = smooth_edges(light, 10.0, 1.5 * scale)
    return np.asarray(blur(light, 2.6 * scale) - blur(light, 1.3 * scale), np.float32)


def contours(frame: DrawnFrame) -> Float32Array:
    """Opacity ``(H, W)`` of lines along dark creases, edges of clothes and of parts in front.

    Creases (:func:`creased`) with hysteresis (Canny 1986): a line begins where it is clear and runs
    on while it is faint; what stays short is a spot and is dropped.
    """
    scale = line_scale(frame.unit)
    dark = creased(frame.light, scale)
    skin, hair, clothes = (frame.labels[..., i] for i in range(3))
    # The smoother the cloth is drawn, the better: its folds are no lines.
    dark = dark * (skin + 0.3 * clothes + _STRANDS_COUNT * hair)
    jump = _in_front(frame, scale)
    strong, weak = dark > 1.7 * _CREASE, dark > 0.75 * _CREASE
    inset = cv2.distanceTransform((frame.cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    low = smoothstep(frame.local[..., 1], -2.4, -2.0)  # chest and shoulders: folds, not features
    dark, jump = dark * low, jump * low * smoothstep(inset, 6.0 * scale, 9.0 * scale)
    strong, weak = strong | (jump > 0.6), weak | (jump > 0.3)
    weak &= (frame.taken < 0.5) & (inset > 4)
    kept = _long(weak, strong, 0.16 * frame.unit)
    lines = blur(smoothstep(np.maximum(dark / _CREASE, 2 * jump), 0.5, 1.3) * kept, 0.6)
    collar = smoothstep(edge_distance(skin - clothes, 0.0), 1.6 * scale, 0.8 * scale)
    lines = np.maximum(lines, collar * smoothstep(np.minimum(skin, clothes), 0.2, 0.3))
    lines = lines * (1 - frame.taken) * smoothstep(inset, 2.0, 4.0)
    return np.asarray(lines * (1 - (1 - _STRANDS_COUNT) * smoothstep(hair, 0.3, 0.6)), np.float32)


def edge_distance(label: Float32Array, level: float | Float32Array) -> Float32Array:
    """Pixels ``(H, W)`` to where a soft label crosses a level, from its slope (small ones only)."""
    across, down = (cv2.Sobel(label, cv2.CV_32F, *axis) / 8 for axis in ((1, 0), (0, 1)))
    return np.asarray(np.abs(label - level) / np.maximum(np.hypot(across, down), 5e-3), np.float32)


def sharp_label(label: Float32Array, width: float = 1.0) -> Float32Array:
    """A soft label with a border ``width`` pixels wide."""
    far = edge_distance(label, 0.5) * np.sign(label - 0.5)
    return np.asarray(np.clip(0.5 + far / width, 0, 1), np.float32)


def _in_front(frame: DrawnFrame, scale: float) -> Float32Array:
    """0..1 where one part of the person hides another (jaw before neck)."""
    depth = blur(frame.local[..., 2], 0.7 * scale)
    size = 2 * round(scale) + 1
    kernel = np.ones((size, size), np.uint8)
    step = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)
    return smoothstep(step, 0.16, 0.3)


def _long(
    weak: npt.NDArray[np.bool_], strong: npt.NDArray[np.bool_], length: float
) -> npt.NDArray[np.float32]:
    """Connected marks that are clear somewhere and extend farther than ``length`` pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(weak.astype(np.uint8))
    extent = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    clear = np.bincount(labels[strong & weak], minlength=count) > 3
    chosen = (extent > length) & clear
    chosen[0] = False
    return np.asarray(chosen[labels], np.float32)


def hair_lights(frame: DrawnFrame) -> Float32Array:
    """Opacity ``(H, W)`` of streaks left white in inked hair.

    What is lighter than the hair around it, at most a tenth of the hair, no specks, and nothing at
    the hair's edge, which must stay closed.
    """
    hair = frame.labels[..., 1] > 0.6
    if hair.sum() < 200:
        return np.zeros(hair.shape, np.float32)
    light = smooth_edges(fill_holes(frame.light, hair.astype(np.float32)), 10.0, 2.0)
    ridge = blur(light, 0.03 * frame.unit) - blur(light, 0.35 * frame.unit)
    limit = max(float(np.quantile(ridge[hair], _LIGHTS)), 4.0)
    inset = cv2.distanceTransform((hair & (frame.cover > 0.6)).astype(np.uint8), cv2.DIST_L2, 5)
    streak = smoothstep(ridge, limit, limit + 3.0) * smoothstep(inset, 3.0, 7.0)
    streak *= _long(streak > 0.3, streak > 0.7, 0.3 * frame.unit)
    return blur(streak, 0.8)


def ranks(values: Float32Array, levels: Sequence[float] | Float32Array) -> Float32Array:
    """Share of ``levels`` (quantiles) below each value, 0 to 1."""
    return np.asarray(np.interp(values, levels, np.linspace(0, 1, len(levels))), np.float32)
