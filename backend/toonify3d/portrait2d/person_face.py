"""Where the person's face lies: face frame, and landmarks brought onto the stage-I surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..capture import landmarks as lm
from ..errors import InputError
from ..raycast import MeshQuery
from ..scene import FloatArray, Frame, Scene
from . import shape

_FRONTAL = 0.35
"""Radians from the front within which a frame says from where the face is looked at."""
_TRUSTED, _REFUSED = 0.12, 0.18
"""Eye distances between a landmark and the surface: up to the first it is brought all the way, from
the second on not at all. What lies farther in front is hair that hangs over the face; what lies
farther behind is the cheek beside a nostril. In between the share fades, or neighbours would be
torn apart."""


def locate_face(scene: Scene, caster: MeshQuery) -> tuple[shape.FaceFrame, FloatArray]:
    """The face frame and the landmarks ``(478, 3)`` in the world, on the surface.

    Args:
        scene: The capture with triangulated landmarks.
        caster: The stage-I surface.

    Raises:
        InputError: The capture shows no face (``no_face``).
    """
    if scene.landmarks is None:
        raise InputError(
            "No face was found in the capture: film the face from the front in good light.",
            "no_face",
        )
    seen = shape.complete_landmarks(scene.landmarks)
    frame = shape.face_frame(seen)
    return frame, on_surface(seen, frame.unit, frontal_viewpoint(scene.frames), caster)


def frontal_viewpoint(frames: Sequence[Frame]) -> FloatArray:
    """Mean centre ``(3,)`` of the cameras in front of the face; the most frontal one's if none is.

    Args:
        frames: At least one.
    """
    nearest = min(abs(frame.yaw) for frame in frames)
    chosen = [f.camera.center for f in frames if abs(f.yaw) <= max(_FRONTAL, nearest)]
    return np.asarray(np.mean(chosen, axis=0))


def on_surface(
    landmarks: FloatArray, unit: float, viewpoint: FloatArray, caster: MeshQuery
) -> FloatArray:
    """Landmarks moved along their lines of sight onto the surface (method_anchors B2, step 1).

    The detector is right about where a landmark is seen and wrong about how far away it is, and
    triangulation keeps the better half of that: moving along the frontal line of sight leaves every
    point where the frontal frames show it, while the closest point of a slope would shift it
    sideways, on the left half otherwise than on the right. Irises and lids go along: the surface
    is what the frames show of them, a shut lid included. The face's outline stays, for it is no
    place on the surface but where the detector sees the face end, in pictures of the person and of
    the exemplar alike; under hair and on receding temples the line of sight would carry it off.

    Args:
        landmarks: ``(478, 3)`` in the world.
        unit: Metres between the eyes.
        viewpoint: ``(3,)`` from where the face is seen from the front.
        caster: The surface.

    Returns:
        ``(478, 3)``; unchanged where the surface is too far off (:data:`_REFUSED`) or missed.
    """
    away = landmarks - viewpoint
    reach = np.linalg.norm(away, axis=1)
    sight = away / np.maximum(reach, 1e-12)[:, None]
    # Not from the viewpoint: hair or a hand far in front must not hide the face.
    start = np.maximum(reach - _REFUSED * unit, 0.0)
    hits = caster.cast(viewpoint + sight * start[:, None], sight, 2 * _REFUSED * unit)
    move = np.where(hits.face >= 0, start + hits.distance - reach, 0.0)
    share = np.clip((_REFUSED - np.abs(move) / unit) / (_REFUSED - _TRUSTED), 0.0, 1.0)
    share[list(lm.FACE_OVAL)] = 0.0
    return np.asarray(landmarks + sight * (share * move)[:, None])
