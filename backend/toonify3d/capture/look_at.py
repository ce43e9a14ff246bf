"""Where the cameras of a capture look: the ball that holds the person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..scene import Camera, FloatArray

BoolImage = npt.NDArray[np.bool_]
NO_PERSON = (
    "No person was found in the video; film the head and shoulders of one person from all around."
)


@dataclass(frozen=True)
class Ball:
    """A ball in the world."""

    center: FloatArray
    radius: float


def look_at_ball(masks: Sequence[BoolImage], cameras: Sequence[Camera]) -> Ball:
    """Ball round what masks ``(h, w)`` of any size show, from the rays through their middles.

    Raises:
        InputError: Nearly nothing in most frames (``no_person``).
    """
    usable = [i for i, mask in enumerate(masks) if mask.mean() > 0.005]
    if len(usable) < max(3, len(masks) // 3):
        raise InputError(NO_PERSON, "no_person")
    origins, rays = [], []
    for i in usable:
        rows, columns = np.nonzero(masks[i])
        middle = np.array([[np.median(columns) + 0.5, np.median(rows) + 0.5]])
        origin, ray = cameras[i].resized(*masks[i].shape[::-1]).rays(middle)
        origins.append(origin[0])
        rays.append(ray[0])
    center = nearest_point(np.array(origins), np.array(rays))
    extents = [_extent(masks[i], cameras[i], center) for i in usable]
    return Ball(center, 1.1 * float(np.percentile(extents, 75)))


def nearest_point(origins: FloatArray, rays: FloatArray, iterations: int = 10) -> FloatArray:
    """The point nearest to rays in the sense of least absolute distances (reweighting)."""
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    weights = np.ones(len(origins))
    point = origins.mean(0)
    for _ in range(iterations):
        matrix = (across * weights[:, None, None]).sum(0)
        target = np.einsum("n,nij,nj->i", weights, across, origins)
        point = np.asarray(np.linalg.solve(matrix, target))
        distance = np.linalg.norm(np.einsum("nij,nj->ni", across, point - origins), axis=1)
        weights = 1.0 / (distance + 1e-3 * float(np.median(distance)) + 1e-12)
    return np.asarray(point, np.float64)


def _extent(mask: BoolImage, camera: Camera, center: FloatArray) -> float:
    small = camera.resized(mask.shape[1], mask.shape[0])
    (middle,), (depth,) = small.project(center[None])
    rows, columns = np.nonzero(mask)
    reach = np.percentile(np.hypot(columns - middle[0], rows - middle[1]), 99)
    return float(reach * depth / small.K[0, 0])


def view_angles(cameras: Sequence[Camera], center: FloatArray, index: int) -> FloatArray:
    """Angles ``(n,)`` in degrees of all views to view ``index``, seen from ``center``."""
    directions = np.stack([camera.center - center for camera in cameras])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = np.clip(directions @ directions[index], -1.0, 1.0)
    return np.asarray(np.degrees(np.arccos(cosine)))


def useful_angle(
    cameras: Sequence[Camera], center: FloatArray, usual: float = 28.0, largest: float = 42.0
) -> float:
    """Largest angle in degrees at which views are compared: more when the views stand far apart."""
    return float(np.clip(1.3 * spacing(cameras, center), usual, largest))


def spacing(cameras: Sequence[Camera], center: FloatArray) -> float:
    """Median angle in degrees from a view to the nearest other one, seen from ``center``."""
    nearest = []
    for index in range(len(cameras)):
        angles = np.delete(view_angles(cameras, center, index), index)
        nearest.append(float(angles.min(initial=180.0)))
    return max(1e-3, float(np.median(nearest)))


def neighbours(
    cameras: Sequence[Camera],
    center: FloatArray,
    index: int,
    targets: Sequence[float],
    largest: float = 30.0,
) -> tuple[list[int], list[int]]:
    """Views to the left and to the right, one near each target angle (degrees), none twice."""
    angles = view_angles(cameras, center, index)
    offsets = np.stack([camera.center - cameras[index].center for camera in cameras])
    side = offsets @ cameras[index].c2w[:3, 0]
    out: tuple[list[int], list[int]] = ([], [])
    for chosen, sign in zip(out, (-1.0, 1.0), strict=True):
        usable = (side * sign > 0) & (angles > 1.0) & (angles < largest)
        for target in targets:
            candidates = [int(i) for i in np.flatnonzero(usable) if int(i) not in chosen]
            if candidates:
                chosen.append(min(candidates, key=lambda i: abs(float(angles[i]) - target)))
    return out
