"""How creased the person's surface is: gathered once from the photos, not frame by frame.

A crease that every frame finds for itself lies at another place of the surface in each. Here all
photos that look at a place say together how dark a crease it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..raycast import MeshQuery
from ..scene import Float32Array, FloatArray, Frame, Scene, SurfaceMesh
from .colorspace import clean_foreground, sample, smoothstep, to_lab
from .hatching import creased, line_scale
from .shape import FaceFrame
from .surface import vertex_normals, visible

_FACING = (0.3, 0.6)
"""Cosine between surface and ray from which on a photo is asked about a place, and from which on it
is believed."""
_EDGE = (6.0, 9.0)
"""Pixels (:func:`.hatching.line_scale`) from the person's outline: nearer than the first a photo
tells nothing."""
_LEAST = 0.05
"""Sum of the photos' weights under which a place counts as hardly seen: its crease fades."""


def crease_darkness(
    scene: Scene,
    frames: Sequence[Frame],
    mesh: SurfaceMesh,
    caster: MeshQuery,
    face: FaceFrame,
) -> FloatArray:
    """CIELAB ``(V,)`` by which each vertex is darker than what lies round it.

    The mean over the photos that see it, those that face it most counting most.

    Args:
        scene: The capture.
        frames: Whose photos are asked.
        mesh: The person as filmed, triangles of about a pixel.
        caster: Rays against it.
        face: The face frame.
    """
    normals = vertex_normals(mesh.vertices, mesh.faces)
    dark, believed = np.zeros(len(mesh.vertices)), np.zeros(len(mesh.vertices))
    for frame in frames:
        away = frame.camera.center - mesh.vertices
        facing = (normals * away).sum(1) / np.linalg.norm(away, axis=1)
        points, seen = visible(frame.camera, caster.depth(frame.camera), mesh.vertices)
        seen &= facing > _FACING[0]
        found, sure = _in_photo(scene, frame, face)
        share = sample(sure, points[seen]) * smoothstep(facing[seen], *_FACING) * facing[seen] ** 2
        dark[seen] += share * sample(found, points[seen])
        believed[seen] += share
    return np.asarray(dark / np.maximum(believed, _LEAST))


def _in_photo(scene: Scene, frame: Frame, face: FaceFrame) -> tuple[Float32Array, Float32Array]:
    """How dark a crease one photo shows, ``(H, W)`` CIELAB, and 0..1 where it can be believed."""
    away = abs(float(frame.camera.project(face.origin[None])[1][0]))
    scale = line_scale(float(frame.camera.K[0, 0]) * face.unit / max(away, 1e-6))
    mask = scene.mask(frame)
    light = to_lab(clean_foreground(scene.image(frame), mask))[..., 0]
    inset = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5) / scale
    return creased(light, scale), smoothstep(inset, *_EDGE)
