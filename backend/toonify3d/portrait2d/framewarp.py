"""One frame seen through the bent surface: where each pixel comes from, and what lies under it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..raycast import MeshQuery
from ..scene import ByteImage, Camera, Float32Array, FloatArray, SurfaceMesh
from .colorspace import clean_foreground, sample, smoothstep
from .outline import outline, without_splinters


@dataclass(frozen=True)
class BentSurface:
    """The prior mesh before and after the shape change.

    Attributes:
        mesh: The person as filmed.
        bent: ``(V, 3)`` vertices after the change.
        caster: Rays against the person as filmed.
        bent_caster: Rays against the changed person.
        attributes: ``(V, K)`` float32 values to carry into the frames.
        closed: The surface has no border: where it ends, the person ends.
    """

    mesh: SurfaceMesh
    bent: FloatArray
    caster: MeshQuery
    bent_caster: MeshQuery
    attributes: Float32Array
    closed: bool = True


@dataclass(frozen=True)
class WarpedFrame:
    """A frame bent to the stylized shape.

    Attributes:
        photo: ``(H, W, 3)`` float32 RGB 0..255, background continued from the person.
        mask: ``(H, W)`` uint8 of the bent person, anti-aliased.
        hit: ``(H, W)`` the ray meets the bent surface.
        seen: ``(H, W)`` 0..1, the photo really shows this surface point.
        facing: ``(H, W)`` cosine between surface normal and view.
        attributes: ``(H, W, K)``, continued beyond the surface's outline.
        source: ``(H, W, 2)`` photo's image points.
    """

    photo: Float32Array
    mask: ByteImage
    hit: npt.NDArray[np.bool_]
    seen: Float32Array
    facing: Float32Array
    attributes: Float32Array
    source: Float32Array


def warp_frame(
    surface: BentSurface, camera: Camera, image: ByteImage, mask: ByteImage
) -> WarpedFrame:
    """Bend photo and mask by the surface's change of shape.

    Each pixel's ray meets the bent surface at a point whose place on the person as filmed is known
    exactly (same triangle, same barycentric coordinates); that place projects into the photo.
    """
    shape = (camera.height, camera.width)
    face, weights, facing = _cast(surface, camera)
    hit = face >= 0
    corners = surface.mesh.faces[face[hit]]
    filmed = (surface.mesh.vertices[corners] * weights[hit][..., None]).sum(1)
    own = _pixel_centers(camera)
    source = own.copy()
    source[hit] = camera.project(filmed)[0]
    attributes = np.zeros((len(face), surface.attributes.shape[1]), np.float32)
    carried = surface.attributes[corners] * weights[hit][..., None]
    attributes[hit] = carried.sum(1)
    nearest = _nearest_hit(hit.reshape(shape))
    shift = (source - own)[nearest]
    source = (own + shift).reshape(*shape, 2)
    seen = np.zeros(len(face), np.float32)
    seen[hit] = _seen(surface, camera, filmed, source.reshape(-1, 2)[hit])
    photo = sample(clean_foreground(image, without_splinters(mask)), source)
    bent_mask = np.clip(sample(mask, source) + 0.5, 0, 255).astype(np.uint8)
    if surface.closed:
        bent_mask = outline(hit.reshape(shape), bent_mask, lambda at: _meets(surface, camera, at))
    return WarpedFrame(
        photo,
        bent_mask,
        hit.reshape(shape),
        np.asarray(cv2.blur(seen[nearest].reshape(shape), (3, 3)), np.float32),
        facing.reshape(shape).astype(np.float32),
        np.asarray(attributes[nearest], np.float32).reshape(*shape, -1),
        source.astype(np.float32),
    )


def _pixel_centers(camera: Camera) -> FloatArray:
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    return np.stack([columns.ravel(), rows.ravel()], axis=1)


def _cast(
    surface: BentSurface, camera: Camera
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Face, barycentric weights ``(N, 3)`` and cosine to the view of every pixel's ray."""
    origins, directions = camera.rays(_pixel_centers(camera))
    hits = surface.bent_caster.cast(origins, directions)
    face, hit = hits.face, hits.face >= 0
    a, b, c = np.moveaxis(surface.bent[surface.mesh.faces[face[hit]]], 1, 0)
    normal = np.cross(b - a, c - a)
    weights = np.zeros((len(face), 3))
    weights[hit] = np.clip(hits.weights[hit], 0, 1)
    weights[hit] /= weights[hit].sum(1, keepdims=True)
    cosine = np.zeros(len(face))
    length = np.maximum(np.linalg.norm(normal, axis=1), 1e-15)
    cosine[hit] = np.abs((normal * directions[hit]).sum(1)) / length
    return face, weights, cosine


def _meets(surface: BentSurface, camera: Camera, image_points: FloatArray) -> npt.NDArray[np.bool_]:
    return np.asarray(surface.bent_caster.cast(*camera.rays(image_points)).face >= 0)


def _nearest_hit(hit: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Flat index of the nearest hit pixel for every pixel."""
    if not hit.any():
        return np.arange(hit.size)
    _, labels = cv2.distanceTransformWithLabels(
        (~hit).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    where = np.zeros(int(labels.max()) + 1, np.int64)
    where[labels[hit]] = np.flatnonzero(hit)
    return np.asarray(where[labels.ravel()])


def _seen(
    surface: BentSurface, camera: Camera, filmed: FloatArray, image_points: FloatArray
) -> Float32Array:
    """1 where the filmed point is the first thing on its own ray of the photo."""
    away = filmed - camera.center
    distance = np.linalg.norm(away, axis=1)
    first = surface.caster.cast(
        np.broadcast_to(camera.center, filmed.shape).copy(), away / distance[:, None]
    )
    inside = (image_points >= 0) & (image_points < [camera.width, camera.height])
    behind = np.where(first.face >= 0, distance - first.distance, 0.0)
    return np.asarray(inside.all(1) * smoothstep(behind, 0.012, 0.004), np.float32)
