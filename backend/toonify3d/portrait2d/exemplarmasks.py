"""Masks of a picture's face: contours of landmarks, grown and shrunk."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..capture import landmarks as lm
from ..scene import Float32Array, FloatArray

_LINE, _STREAK = 0.03, 0.06
"""Half the width, in face widths, of a drawn line and of a streak of light in hair."""
_RIM = 0.05
"""Face widths from a face's outline within which its outline's line may lie."""
_LEAST_INK = 60
"""Pixels of ink by which the width of lines can be told."""

_EVEN_WALL = 6.0
"""CIELAB unrest of a background up to which it is one colour."""
_LEAST_WALL = 300
"""Pixels of background to tell its colour by."""


def polygon(shape: tuple[int, ...], contour: FloatArray, grow: float) -> Float32Array:
    """1 inside a contour ``(n, 2)`` of image points, grown by ``grow`` pixels; ``(H, W)``."""
    canvas = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(canvas, [np.round(contour).astype(np.int32)], (255,))
    mask = np.asarray(canvas / 255.0, np.float32)
    return dilate(mask, grow) if grow >= 1 else mask


def face_outline(points: FloatArray) -> FloatArray:
    """Contour ``(n, 2)`` round a pictured face, pixels, from landmarks ``(478, 3)``.

    The landmarks' own oval runs over the cheek when a head is turned: what lies beyond it there, up
    to a fifth of the face, is face as well.
    """
    seen = np.asarray(points[: lm.RIGHT_IRIS[0], :2], np.float32)
    return np.asarray(cv2.convexHull(seen)[:, 0], np.float64)


def organ_mask(shape: tuple[int, ...], points: FloatArray, grow: float) -> Float32Array:
    """Eyes, brows and lips with a margin."""
    out = np.zeros(shape[:2], np.float32)
    for part in lm.ORGANS:
        out = np.maximum(out, polygon(shape, points[list(part), :2], grow))
    return out


def light_in_hair(labels: Float32Array, points: FloatArray) -> float:
    """Share of drawn hair that is left light: what lies in its mass and is none of its colour.

    Args:
        labels: ``(H, W, 3)`` skin, hair, the rest.
        points: ``(478, 3)`` landmarks.
    """
    oval = face_outline(points)
    unit = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    hair = np.asarray(labels[..., 1] > 0.5, np.float32)
    mass = dilate(erode(hair, _LINE * unit), _LINE * unit)  # without outlines
    closed = erode(dilate(mass, _STREAK * unit), _STREAK * unit)
    light = closed * (1 - hair) * (1 - polygon(hair.shape, oval, 0.0))
    return float(light.sum() / max(float(mass.sum()), 1.0))


def ink_on_skin(
    lab: Float32Array, labels: Float32Array, points: FloatArray, ink: float, paper: float
) -> tuple[float, float]:
    """How a drawn face, without its organs and its hair, is inked.

    Args:
        lab: ``(H, W, 3)`` CIELAB.
        labels: ``(H, W, 3)`` skin, hair, the rest.
        points: ``(478, 3)`` landmarks.
        ink: L of lines.
        paper: L of skin.

    Returns:
        The share that is nearer to ink than to paper (a nose and a few folds cover 3 %, hatching
        and solid shadows far more); the mean width of its lines in face widths, NaN without any.
    """
    unit = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    oval = polygon(lab.shape, face_outline(points), 0.0)
    organs = organ_mask(lab.shape, points, _LINE * unit) > 0.5
    # Black lines count as hair by their colour: only a mass of hair is hair.
    hair = np.asarray(labels[..., 1] > 0.5, np.float32)
    dark = np.asarray(lab[..., 0] < 0.5 * (ink + paper))
    bare = (erode(oval, _RIM * unit) > 0.5) & ~organs & ~_mass(hair, unit)
    share = float(dark[bare].mean()) if bare.any() else 0.0
    return share, _width(dark & bare & ~_mass(dark.astype(np.float32), unit)) / unit


def _mass(mask: Float32Array, unit: float) -> npt.NDArray[np.bool_]:
    """What of a mask is no line, with what lies beside it."""
    return np.asarray(dilate(erode(mask, _RIM * unit), 1.2 * _RIM * unit) > 0.5)


def _width(lines: npt.NDArray[np.bool_]) -> float:
    """Mean width of lines in pixels; NaN when there are next to none."""
    if lines.sum() < _LEAST_INK:
        return float("nan")
    edges = (np.diff(lines.astype(np.int8), axis=axis) for axis in (0, 1))
    # Pixel edges: pi / 4 of their number is the length of borders that run at all angles.
    border = np.pi / 4 * sum(float(np.abs(edge).sum()) for edge in edges)
    return 2 * float(lines.sum()) / border


def like_wall(lab: Float32Array, person: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where ``(H, W)`` the colour is that of an even background.

    A back that melts into it, or a mask that reaches too far, is none of the clothes' colours.

    Args:
        lab: ``(H, W, 3)`` CIELAB.
        person: ``(H, W)``.
    """
    wall = lab[~person]
    if len(wall) < _LEAST_WALL:
        return np.zeros(person.shape, bool)
    middle = np.median(wall, axis=0)
    unrest = float(np.median(np.linalg.norm(wall - middle, axis=1)))
    if unrest > _EVEN_WALL:
        return np.zeros(person.shape, bool)
    return np.asarray(np.linalg.norm(lab - middle, axis=2) < max(2 * unrest, _EVEN_WALL))


def dilate(mask: Float32Array, radius: float) -> Float32Array:
    """1 within ``radius`` pixels of a mask ``(H, W)``."""
    outside = cv2.distanceTransform((mask < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(outside <= radius, np.float32)


def erode(mask: Float32Array, radius: float) -> Float32Array:
    """A mask ``(H, W)`` without what is within ``radius`` pixels of its rim."""
    inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(mask * (inside > radius), np.float32)
