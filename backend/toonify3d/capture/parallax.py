"""Which pixels show something inside a ball, told from parallax alone.

A pixel of the person matches its neighbour views at a depth inside the ball round head and
shoulders, a pixel of the room at a depth beyond it (or before it). This needs no idea of what a
person looks like, so it holds from behind and for closed eyes; it says nothing where the picture
is plain, and there the segmentation model decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..scene import ByteImage, Camera, Float32Array, FloatArray
from .look_at import Ball, neighbours

TRUNCATION = 30.0
"""Grey levels; a worse match is as good as none (occluded, outside the other image)."""
DECISIVE = 6.0
"""Difference of matching cost in grey levels that decides a pixel (noise of a phone video: 3)."""
_HALF_PIXEL = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])


def ball_evidence(
    images: Sequence[ByteImage],
    cameras: Sequence[Camera],
    index: int,
    ball: Ball,
    farthest: float,
    planes: int = 44,
) -> Float32Array:
    """Evidence ``(h, w)`` in -1 to 1 that a pixel shows something inside the ball.

    Args:
        images: Small RGB images of all views, one size.
        cameras: Their cameras (any size of the same field of view).
        index: The view to judge.
        ball: Where the person is.
        farthest: Largest depth searched.
        planes: Planes of the sweep, evenly spread in inverse depth.
    """
    height, width = images[index].shape[:2]
    small = [camera.resized(width, height) for camera in cameras]
    enter, leave = _interval(small[index], ball)
    z0 = float(small[index].project(ball.center[None])[1][0])
    nearest = max(z0 - ball.radius, 0.15 * z0)
    groups = [g for g in neighbours(cameras, ball.center, index, (6.0, 12.0)) if g]
    within = np.full((height, width), TRUNCATION, np.float32)
    beyond = within.copy()
    for inverse in np.linspace(1.0 / nearest, 1.0 / max(farthest, 2.0 * z0), planes):
        costs = [_cost(images, small, index, group, inverse) for group in groups]
        if not costs:
            break
        best = np.minimum(np.minimum.reduce(costs), TRUNCATION)
        inside = (enter < 1.0 / inverse) & (leave > 1.0 / inverse)
        within = np.where(inside, np.minimum(within, best), within)
        beyond = np.where(inside, beyond, np.minimum(beyond, best))
    evidence = np.clip((beyond - within) / DECISIVE, -1.0, 1.0)
    return np.where(leave > enter, evidence, -1.0).astype(np.float32)


def _interval(camera: Camera, ball: Ball) -> tuple[FloatArray, FloatArray]:
    """Depths along z ``(h, w)`` where each pixel's ray enters and leaves the ball."""
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, rays = camera.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    toward = ball.center - origins[0]
    along = rays @ toward
    inside = along**2 - toward @ toward + ball.radius**2
    half = np.sqrt(np.maximum(inside, 0.0))
    z = rays @ camera.c2w[:3, 2]
    shape = columns.shape
    return ((along - half) * z).reshape(shape), ((along + half) * z).reshape(shape)


def _cost(
    images: Sequence[ByteImage],
    cameras: Sequence[Camera],
    index: int,
    group: Sequence[int],
    inverse: float,
) -> Float32Array:
    """Mean colour difference over 5 x 5 pixels and over a group of neighbours, one plane."""
    reference = images[index]
    total = np.zeros(reference.shape[:2], np.float32)
    for other in group:
        warped = cv2.warpPerspective(
            images[other],
            plane_homography(cameras[index], cameras[other], inverse),
            reference.shape[1::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(255, 255, 255),
        )
        difference = cv2.absdiff(warped, reference).astype(np.float32).sum(-1) / 3.0
        total += cv2.blur(np.minimum(difference, 2.0 * TRUNCATION), (5, 5))
    return total / np.float32(len(group))


def plane_homography(
    reference: Camera, other: Camera, inverse_depth: float
) -> npt.NDArray[np.float64]:
    """Homography ``(3, 3)`` of pixels (centres at integers) of ``reference`` to ``other``.

    By the plane ``z = 1 / inverse_depth`` of the reference camera (Hartley and Zisserman, 13.2).
    """
    rotation = other.w2c[:3, :3] @ reference.c2w[:3, :3]
    translation = other.w2c[:3, :3] @ reference.c2w[:3, 3] + other.w2c[:3, 3]
    plane = rotation + np.outer(translation, [0.0, 0.0, inverse_depth])
    points = other.K @ plane @ np.linalg.inv(reference.K)
    return np.asarray(np.linalg.inv(_HALF_PIXEL) @ points @ _HALF_PIXEL)
