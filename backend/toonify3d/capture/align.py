"""From the arbitrary world of structure from motion to the head's own.

World (``docs/architecture.md``): metres, Z up, the face looks along -Y, origin at the neck base.

* *Up* is gravity, judged from the cameras (nobody holds a phone rolled to one side all the way
  round); the face only decides when that is far from its own up.
* *Front* is the horizontal part of the face's plane of symmetry.
* *Scale* is the distance between the pupils.
* *Origin*: :data:`NECK_DROP` below and :data:`NECK_BACK` behind the chin, measured in distances
  between the pupils: where the neck meets the shoulders of an upright adult head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..scene import Camera, FloatArray
from . import landmarks as lm
from .landmarks import FaceLandmarks

NECK_DROP = 1.3
NECK_BACK = 1.75
MAX_YAW = np.radians(65.0)
"""Detections seen farther from the side are not used: half of their points are guesses."""
MIN_VIEWS = 3
UP_TOLERANCE = np.radians(30.0)
_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Alignment:
    """How to move structure from motion's world.

    Attributes:
        similarity: ``(4, 4)`` from the old world to the aligned one.
        landmarks: ``(478, 3)`` in the aligned world, NaN where unknown, or None without a face.
        error: Median reprojection error of the landmarks in pixels, NaN without a face.
        views: How many frames the landmarks come from.
        notes: What was decided that the user should know.
    """

    similarity: FloatArray
    landmarks: FloatArray | None
    error: float
    views: int
    notes: tuple[str, ...] = ()


def align(
    cameras: Sequence[Camera],
    faces: Sequence[FaceLandmarks | None],
    interpupillary_distance: float = 0.063,
) -> Alignment | None:
    """Align by the face.

    Args:
        cameras: Cameras of all frames, any world.
        faces: What was detected in each frame.
        interpupillary_distance: Metres.

    Returns:
        The alignment, or None when too few frames show the face to triangulate it.
    """
    points, error, views = triangulate_face(cameras, faces)
    if points is None:
        return None
    rotation, notes = _face_rotation(points, gravity(cameras))
    eyes = points[[lm.RIGHT_IRIS[0], lm.LEFT_IRIS[0]]]
    scale = interpupillary_distance / float(np.linalg.norm(eyes[1] - eyes[0]))
    turned = scale * points @ rotation.T
    chin = turned[lm.CHIN]
    middle = float(np.nanmean(turned[list(lm.NOSE_RIDGE), 0]))
    unit = interpupillary_distance
    origin = np.array([middle, chin[1] + NECK_BACK * unit, chin[2] - NECK_DROP * unit])
    similarity = np.eye(4)
    similarity[:3, :3] = scale * rotation
    similarity[:3, 3] = -origin
    return Alignment(similarity, turned - origin, error, views, notes)


def align_without_face(cameras: Sequence[Camera], size: float = 0.25) -> Alignment:
    """Align by gravity and the orbit alone; the first frame decides where the front is.

    Args:
        cameras: Cameras of all frames, any world.
        size: Head height in metres; the head is taken to be a quarter of the orbit's radius high.

    Returns:
        Alignment whose origin is under the point that the cameras look at.
    """
    up = gravity(cameras)
    target = look_at_point(cameras)
    back = target - cameras[0].center
    back -= up * (back @ up)
    back /= np.linalg.norm(back)
    rotation = np.stack([np.cross(back, up), back, up])
    radius = float(np.median([np.linalg.norm(c.center - target) for c in cameras]))
    scale = size / (0.25 * radius)
    similarity = np.eye(4)
    similarity[:3, :3] = scale * rotation
    similarity[:3, 3] = -scale * rotation @ target + np.array([0.0, 0.0, 0.5 * size])
    note = (
        "No face was found: the first frame is taken for the front, and the scale is a guess; give "
        "the number of a frame that shows the front with capture.front_frame"
    )
    return Alignment(similarity, None, float("nan"), 0, (note,))


def turned(alignment: Alignment, angle: float) -> Alignment:
    """The alignment with its front turned by ``angle`` radians towards the person's left."""
    if angle == 0.0:
        return alignment
    # What was at this yaw comes to the front (-Y): the world turns the other way.
    cos, sin = np.cos(-angle), np.sin(-angle)
    turn = np.eye(4)
    turn[:2, :2] = [[cos, -sin], [sin, cos]]
    points = alignment.landmarks
    return replace(
        alignment,
        similarity=turn @ alignment.similarity,
        landmarks=None if points is None else points @ turn[:3, :3].T,
    )


def with_front(
    alignment: Alignment, cameras: Sequence[Camera], sources: Sequence[int], front: int
) -> Alignment:
    """The alignment with the front where the user says.

    Args:
        alignment: By the face, or without one.
        cameras: Cameras in the old world.
        sources: Source index of each camera.
        front: Source index of the frame that shows the front; the nearest that has a camera is
            taken, and another note says so.
    """
    nearest = int(np.abs(np.asarray(sources) - front).argmin())
    yaw = camera_yaw(cameras[nearest].transformed(alignment.similarity))
    notes = tuple(note for note in alignment.notes if "front_frame" not in note)
    if alignment.landmarks is None:
        notes += ("No face was found: the scale is a guess",)
    if sources[nearest] != front:
        notes += (f"Frame {front} has no camera: frame {sources[nearest]} is the front instead",)
    return replace(turned(alignment, yaw), notes=notes)


def camera_yaw(camera: Camera) -> float:
    """Angle round the head in the aligned world: 0 in front, positive on the person's left."""
    return float(np.arctan2(camera.center[0], -camera.center[1]))


def triangulate_face(
    cameras: Sequence[Camera], faces: Sequence[FaceLandmarks | None]
) -> tuple[FloatArray | None, float, int]:
    """Face landmarks in space from all frames that show the face well.

    Two rounds: the second one knows which points face which camera and trusts those only.

    Returns:
        Points ``(478, 3)`` (NaN where fewer than three views agree), the median reprojection error
        in pixels, and the number of views; ``(None, nan, 0)`` with too few views or no agreement.
    """
    chosen = [
        (camera, face)
        for camera, face in zip(cameras, faces, strict=True)
        if face is not None and abs(face.rough_yaw) < MAX_YAW
    ]
    if len(chosen) < MIN_VIEWS:
        return None, float("nan"), 0
    views = [camera for camera, _ in chosen]
    image = np.stack([face.points[:, :2] for _, face in chosen])
    scores = np.array([face.score for _, face in chosen])
    weights = np.repeat(scores[:, None], image.shape[1], axis=1)
    sigma = 0.02 * float(np.median([np.ptp(face.points[:, 1]) for _, face in chosen]))
    points = triangulate(views, image, weights, sigma)
    if np.isnan(points[[lm.RIGHT_EYE[0], lm.LEFT_EYE[0], lm.CHIN]]).any():
        return None, float("nan"), 0
    for _ in range(2):
        facing = _facing(points, views)
        points = triangulate(views, image, weights * facing, sigma)
    error = _residuals(views, image, points)
    middle = float(np.nanmedian(error[weights * _facing(points, views) > 0.1]))
    if np.isnan(points).mean() > 0.3 or middle > 4 * sigma:
        return None, float("nan"), 0
    return points, middle, len(views)


def triangulate(
    cameras: Sequence[Camera], image: FloatArray, weights: FloatArray, sigma: float
) -> FloatArray:
    """Robust triangulation of many points seen in many views.

    Linear least squares on the normalised image equations (DLT, Hartley and Zisserman 12.2),
    reweighted to minimise a Cauchy loss of the reprojection error.

    Args:
        cameras: ``V`` cameras.
        image: ``(V, P, 2)`` image points.
        weights: ``(V, P)``, 0 leaves an observation out.
        sigma: Scale of the Cauchy loss in pixels.

    Returns:
        ``(P, 3)``; NaN for points with fewer than :data:`MIN_VIEWS` weighted observations.
    """
    projections = np.stack([camera.K @ camera.w2c[:3] for camera in cameras])
    # Two equations per observation, linear in the point: (u P3 - P1) X = 0, (v P3 - P2) X = 0.
    rows = image[..., None] * projections[:, None, None, 2] - projections[:, None, :2]
    usable = weights > 0
    current = weights.copy()
    points = np.full((image.shape[1], 3), np.nan)
    enough = usable.sum(0) >= MIN_VIEWS
    depth = np.ones_like(weights)
    for _ in range(12):
        factor = np.sqrt(current) / depth
        system = rows * factor[..., None, None]
        a, b = system[..., :3], -system[..., 3]
        normal = np.einsum("vpki,vpkj->pij", a, a)
        right = np.einsum("vpki,vpk->pi", a, b)
        points[enough] = np.linalg.solve(normal[enough], right[enough][..., None])[..., 0]
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        depth = np.einsum("vj,pj->vp", projections[:, 2], homogeneous)
        depth = np.where(np.abs(np.nan_to_num(depth)) < 1e-9, 1.0, np.nan_to_num(depth, nan=1.0))
        error = np.nan_to_num(_residuals(cameras, image, points), nan=0.0)
        current = weights / (1.0 + (error / sigma) ** 2)
    agreeing = ((error < 3 * sigma) & usable & (depth > 0)).sum(0)
    points[agreeing < MIN_VIEWS] = np.nan
    return points


def gravity(cameras: Sequence[Camera]) -> FloatArray:
    """Unit vector up, judged from the cameras.

    A camera held without roll has a horizontal x axis: up is the direction most perpendicular to
    all x axes. With a short arc that alone would be weak across the view direction, so the mean of
    the cameras' own up breaks near-ties. Robust to some rolled frames by reweighting.
    """
    across = np.stack([camera.c2w[:3, 0] for camera in cameras])
    upward = -np.stack([camera.c2w[:3, 1] for camera in cameras]).mean(0)
    upward /= np.linalg.norm(upward)
    weights = np.ones(len(across))
    up = upward
    for _ in range(10):
        matrix = (across.T * weights) @ across / weights.sum()
        matrix += 1e-2 * (np.eye(3) - np.outer(upward, upward))
        up = np.linalg.eigh(matrix)[1][:, 0]
        weights = 1.0 / (1.0 + (across @ up / 0.3) ** 2)
    return np.asarray(up * np.sign(up @ upward))


def goes_round(cameras: Sequence[Camera], least: float = np.radians(40.0)) -> bool:
    """Whether the cameras look at one place from directions at least ``least`` radians apart."""
    target = look_at_point(cameras)
    toward = target - np.stack([camera.center for camera in cameras])
    directions = toward / np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 1e-12)
    axes = np.stack([camera.c2w[:3, 2] for camera in cameras])
    if float(np.median((directions * axes).sum(1))) < np.cos(np.radians(35.0)):
        return False  # panning from one place: the axes meet behind the cameras or beside them
    return bool((directions @ directions.T).min() < np.cos(least))


def look_at_point(cameras: Sequence[Camera]) -> FloatArray:
    """The point nearest to all optical axes in the least-squares sense, ``(3,)``."""
    axes = np.stack([camera.c2w[:3, 2] for camera in cameras])
    centers = np.stack([camera.center for camera in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    return np.asarray(
        np.linalg.lstsq(across.sum(0), np.einsum("nij,nj->i", across, centers), rcond=None)[0]
    )


def _face_axes(points: FloatArray) -> FloatArray:
    """Rows: the person's left, back (away from the face) and up, of the face itself."""
    pairs = points[lm.MIRROR] - points
    pairs = pairs[248:468] * -1.0  # from the right half to the left half
    pairs = pairs[~np.isnan(pairs).any(1)]
    left = pairs.sum(0)
    left /= np.linalg.norm(left)
    # Reweighted once: lips and brows move on one side only.
    agreement = pairs @ left / np.maximum(np.linalg.norm(pairs, axis=1), 1e-12)
    left = (pairs * (agreement > np.cos(np.radians(20)))[:, None]).sum(0)
    left /= np.linalg.norm(left)
    up = points[lm.FOREHEAD] - points[lm.CHIN]
    if np.isnan(up).any():
        up = np.nanmean(points[[lm.RIGHT_EYE[0], lm.LEFT_EYE[0]]], axis=0) - points[lm.CHIN]
    up -= left * (up @ left)
    up /= np.linalg.norm(up)
    return np.stack([left, np.cross(up, left), up])


def _face_rotation(points: FloatArray, up: FloatArray) -> tuple[FloatArray, tuple[str, ...]]:
    """Rows X, Y, Z of the world in the old one, and notes."""
    face = _face_axes(points)
    notes: tuple[str, ...] = ()
    if np.arccos(np.clip(face[2] @ up, -1, 1)) > UP_TOLERANCE:
        up = face[2]
        notes = ("The camera was not held upright: the face decides which way is up",)
    left = face[0] - up * (face[0] @ up)
    left /= np.linalg.norm(left)
    return np.stack([left, np.cross(up, left), up]), notes


def _facing(points: FloatArray, cameras: Sequence[Camera]) -> FloatArray:
    """Weights ``(V, P)`` 0 to 1: how much each point faces each camera.

    Normals are those of an ellipsoid behind the face, good enough to tell near from far side.
    """
    axes = _face_axes(points)
    eyes = points[[lm.RIGHT_EYE[0], lm.LEFT_EYE[0]]]
    width = float(np.linalg.norm(eyes[1] - eyes[0]))
    center = np.nanmean(points, axis=0) + 0.9 * width * axes[1]
    local = (points - center) @ axes.T / np.array([1.0, 1.0, 1.4])
    normals = (local / np.array([1.0, 1.0, 1.4])) @ axes
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    views = np.stack([camera.center for camera in cameras])[:, None] - points
    views /= np.linalg.norm(views, axis=2, keepdims=True)
    cosine = np.einsum("vpi,pi->vp", views, normals)
    return np.asarray(np.nan_to_num(np.clip((cosine - 0.1) / 0.4, 0.0, 1.0)), np.float64)


def _residuals(cameras: Sequence[Camera], image: FloatArray, points: FloatArray) -> FloatArray:
    """Reprojection errors ``(V, P)`` in pixels."""
    errors = [
        np.linalg.norm(camera.project(points)[0] - seen, axis=1)
        for camera, seen in zip(cameras, image, strict=True)
    ]
    return np.asarray(np.stack(errors), np.float64)
