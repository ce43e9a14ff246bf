"""Eyes and brows of a clean drawing, each laid on the stylized face whole and by a map of its own.

One warp for the whole face would have to squeeze a big open eye into a shut lid: it folds between
lid and brow, and whatever lies there is torn. So every organ is a sticker: its own scales along and
across its axis, over all of its reach, told from its neighbours in the exemplar and not in a fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import Float32Array, FloatArray
from .colorspace import blur, sample, smoothstep
from .paper import Paper

Mask = npt.NDArray[np.bool_]
REACH = 0.3
"""How far beyond its landmarks, in eye distances, a drawn eye or brow may reach."""
_DRAWN = 0.35
"""How surely something must be drawn: the white of an eye lies on light skin."""
_LEAST = 0.25
"""Share of the contour that a shape must at least fill."""
_SPUR = 0.4
"""Share of a brow's thickness below which what hangs on it is a spur: a strand of hair."""
_ROUNDED = 0.4
"""Share of a brow's thickness over which its rim is evened."""
_EVEN = 0.015
"""Eye distances over which the corners of a brow's landmarks are evened."""
_BESIDE = 0.1
"""Eye distances beyond a brow's landmarks at which what is drawn is hardly a brow."""
_HIDDEN = 2.0
"""How much worse a brow counts that a fringe runs into."""
_TURNED = 2.0
"""How much worse, per radian of the head's turn, the farther brow counts."""


@dataclass(frozen=True)
class OrganMap:
    """Layer coordinates (face frame, y up) to the exemplar's image points: a scale along the
    organ's axis, one across, and a turn. A free affine fit would shear the iris.

    Attributes:
        matrix: ``(2, 2)``.
        center: ``(2,)`` of the organ on the face.
        middle: ``(2,)`` of the organ in the picture.
    """

    matrix: FloatArray
    center: FloatArray
    middle: FloatArray

    def __call__(self, places: FloatArray) -> FloatArray:
        """Image points ``(..., 2)`` of places ``(..., 2)``."""
        return np.asarray(self.middle + (places - self.center) @ self.matrix.T)

    def back(self, points: FloatArray) -> FloatArray:
        """Places ``(n, 2)`` of image points ``(n, 2)``."""
        return np.asarray(self.center + (points - self.middle) @ np.linalg.inv(self.matrix).T)


def organ_map(
    place: FloatArray,
    drawn: FloatArray,
    ends: tuple[int, int],
    mirrored: bool = False,
    extent: FloatArray | None = None,
) -> OrganMap:
    """The map that lays one contour on another.

    Args:
        place: ``(n, 2)`` contour on the face.
        drawn: ``(n, 2)`` contour in the picture.
        ends: Indices of two points that lie on the organ's axis.
        mirrored: The picture's organ is the one of the other side.
        extent: ``(2,)`` along and across, instead of the place's own.
    """
    center, middle = place.mean(0), drawn.mean(0)
    along, goal_along = (p[ends[1]] - p[ends[0]] for p in (place, drawn))
    along, goal_along = (v / np.linalg.norm(v) for v in (along, goal_along))
    across = np.array([-along[1], along[0]])
    goal_across = np.array([goal_along[1], -goal_along[0]])  # image rows grow downwards
    if mirrored:
        goal_across = -goal_across
    own = extents(place, ends) if extent is None else extent
    matrix = np.zeros((2, 2))
    for axis, goal_axis, size in ((along, goal_along, own[0]), (across, goal_across, own[1])):
        ratio = np.abs((drawn - middle) @ goal_axis).mean() / max(float(size), 1e-6)
        matrix += ratio * np.outer(goal_axis, axis)
    return OrganMap(matrix, center, middle)


def extents(contour: FloatArray, ends: tuple[int, int]) -> FloatArray:
    """Mean distance ``(2,)`` of a contour's points ``(n, 2)`` from its middle, along and across."""
    axis = contour[ends[1]] - contour[ends[0]]
    axis = axis / np.linalg.norm(axis)
    off = contour - contour.mean(0)
    parts = np.stack([off @ axis, off @ np.array([-axis[1], axis[0]])])
    return np.asarray(np.abs(parts).mean(1))


@dataclass(frozen=True)
class Sticker:
    """One drawn organ on the layer.

    Attributes:
        color: ``(H, W, 3)`` CIELAB of the picture round it.
        drawn: ``(H, W)`` how surely a pixel differs from skin.
        inside: ``(H, W)`` signed distance to the organ's contour as it was found in the picture.
        opacity: ``(H, W)`` of the whole drawn shape; None when none hangs together here.
        fault: How badly shape and contour agree, for the choice between two brows.
    """

    color: Float32Array
    drawn: Float32Array
    inside: Float32Array
    opacity: Float32Array | None
    fault: float


def lay_organ(
    paper: Paper,
    lay: OrganMap,
    lab: Float32Array,
    feature: Float32Array,
    contours: tuple[FloatArray, list[FloatArray]],
    brow: bool,
) -> Sticker:
    """Lay one organ.

    Args:
        paper: The layer.
        lay: Its map.
        lab: ``(h, w, 3)`` the picture.
        feature: ``(h, w)`` where it differs from skin.
        contours: ``(n, 2)`` image points of the organ, and of the other eyes and brows.
        brow: Leave out spurs and even the rim.
    """
    at = lay(paper.places())
    color, drawn = sample(lab, at), sample(feature, at)
    inside = paper.signed(lay.back(contours[0]))
    rest = np.max([paper.signed(lay.back(other)) for other in contours[1]], axis=0)
    shape = whole_shape(inside, drawn, rest, brow)
    if shape is None and brow:
        return _half_hidden(paper, color, drawn, inside)
    if shape is None:
        return Sticker(color, drawn, inside, None, np.inf)
    away = cv2.distanceTransform((~shape).astype(np.uint8), cv2.DIST_L2, 5)
    opacity = smoothstep(drawn, 0.1, 0.5) * smoothstep(away, 3.0, 1.0)
    beside = float((shape & (inside < -_BESIDE)).sum()) / float(shape.sum())
    missing = float((~shape)[inside > 0].mean()) if (inside > 0).any() else 1.0
    return Sticker(color, drawn, inside, np.asarray(opacity, np.float32), beside + missing)


def whole_shape(
    inside: Float32Array, drawn: Float32Array, rest: Float32Array, brow: bool
) -> Mask | None:
    """The whole drawn shape ``(H, W)`` that a contour touches, however far it reaches beyond it.

    None when there is no such shape, or when it runs on (hair, glasses, a shadow).

    Args:
        inside: Signed distance to the contour.
        drawn: How surely a pixel is drawn.
        rest: Largest signed distance to the other eyes and brows.
        brow: Leave out spurs and even the rim.
    """
    shape = _touching(inside, (drawn > _DRAWN) & (inside > -REACH) & (inside >= rest))
    if brow and shape.any():
        shape = _touching(inside, _without_spurs(shape))
    if shape.sum() < _LEAST * (inside > 0).sum():
        return None
    if (shape & ((inside < 0.02 - REACH) | (inside < rest + 0.01))).sum() > 0.03 * shape.sum():
        return None
    return _rounded(shape) if brow else shape


def _half_hidden(
    paper: Paper, color: Float32Array, drawn: Float32Array, inside: Float32Array
) -> Sticker:
    """A brow that hair runs into: its colour in its contour, since its form cannot be seen."""
    core = inside > 0
    seen = core & (drawn > 0.5)
    if seen.sum() < 0.5 * core.sum() or not seen.any():
        return Sticker(color, drawn, inside, None, np.inf)
    even = blur(inside, _EVEN * paper.scale) * paper.scale
    plain = np.broadcast_to(np.median(color[seen], axis=0), color.shape)
    share = float(seen.sum()) / float(core.sum())
    return Sticker(plain, drawn, inside, smoothstep(even, -0.7, 0.7), _HIDDEN - share)


def _touching(inside: Float32Array, shape: Mask) -> Mask:
    """The parts of a shape that lie in the contour, at least in part."""
    _, parts = cv2.connectedComponents(shape.astype(np.uint8))
    kept = np.unique(parts[(inside > 0) & shape])
    return np.asarray(np.isin(parts, kept[kept > 0]))


def better_brow(right: Sticker, left: Sticker, yaw: float) -> int:
    """0 for the right brow, 1 for the left one: which of the two is drawn whole and clean.

    ``yaw`` is the head's turn in radians, positive showing its left half.
    """
    return int(left.fault + _TURNED * max(-yaw, 0.0) < right.fault + _TURNED * max(yaw, 0.0))


def _without_spurs(shape: Mask) -> Mask:
    """A shape without what is much thinner than its thickest part (morphological opening)."""
    depth = cv2.distanceTransform(shape.astype(np.uint8), cv2.DIST_L2, 5)
    radius = _SPUR * float(depth.max())
    thick = np.asarray(depth > radius)
    away = cv2.distanceTransform((~thick).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(shape & (away <= 1.05 * radius + 0.5))


def _rounded(shape: Mask) -> Mask:
    """A shape whose rim is even: no stumps of spurs."""
    depth = cv2.distanceTransform(shape.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(blur(shape.astype(np.float32), _ROUNDED * float(depth.max())) > 0.5)
