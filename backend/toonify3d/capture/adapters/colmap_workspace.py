"""Writes a scene as a COLMAP text model with images and masks, for programs that compute depth.

The sparse points are places on the visual hull with the views that see them: enough for a program
to choose neighbours and the range of depths by, and found without matching a single feature.
Formats: COLMAP's documentation, "Output Format" (cameras.txt, images.txt, points3D.txt).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from ...files import write_image
from ...scene import Camera, Float32Array, FloatArray, Scene
from ..hull import Hull

_COARSE = 48
"""Long side of the hull's depth maps that points are taken from and checked in."""
_SOURCES = 16
"""Views that points are taken from."""


@dataclass(frozen=True)
class Workspace:
    """What was written.

    Attributes:
        folder: Holds ``images/``, ``masks/`` and ``sparse/``.
        cameras: One per frame of the scene, for the size of the written images.
        names: File names of the images, in the same order.
        ranges: Smallest and largest depth of the hull in each view ``(n, 2)``, widened; 0, 0 where
            a view does not see it.
    """

    folder: Path
    cameras: list[Camera]
    names: list[str]
    ranges: FloatArray


def write_workspace(scene: Scene, hull: Hull, folder: Path, long_side: int) -> Workspace:
    """Write images (at most ``long_side`` pixels long), masks and model of a scene.

    Masks are 8 bit grey, 0 = to be ignored, once as ``NAME.mask.png`` and once as
    ``NAME.png.mask.png``: releases of OpenMVS differ in whether the suffix stays.
    """
    cameras, names = [], []
    for frame in scene.frames:
        scale = min(1.0, long_side / max(frame.camera.width, frame.camera.height))
        size = (round(frame.camera.width * scale), round(frame.camera.height * scale))
        name = f"{frame.name}.png"
        image = cv2.resize(scene.image(frame), size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(scene.mask(frame), size, interpolation=cv2.INTER_AREA)
        grown = np.asarray(cv2.dilate((mask > 127).astype(np.uint8) * 255, np.ones((3, 3))))
        write_image(folder / "images" / name, np.asarray(image, np.uint8))
        for stem in (frame.name, name):
            write_image(folder / "masks" / f"{stem}.mask.png", grown.astype(np.uint8))
        cameras.append(frame.camera.resized(*size))
        names.append(name)
    fronts = [_front(hull, camera) for camera in cameras]
    points, seen = _points_and_views(cameras, fronts, 0.02 * hull.normalization.radius)
    _write_model(folder / "sparse", cameras, names, points, seen)
    margin = 0.1 * hull.normalization.radius
    ranges = [
        (max(1e-3, float(f[f > 0].min()) - margin), float(f.max()) + 3.0 * margin)
        if (f > 0).any()
        else (0.0, 0.0)
        for f in fronts
    ]
    return Workspace(folder, cameras, names, np.array(ranges))


def _front(hull: Hull, camera: Camera) -> Float32Array:
    scale = _COARSE / max(camera.width, camera.height)
    return hull.depth(camera, round(camera.width * scale), round(camera.height * scale))


def _points_and_views(
    cameras: list[Camera], fronts: list[Float32Array], tolerance: float
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Places on the hull ``(P, 3)`` and which views see them ``(views, P)``; seen by 3 at least."""
    chosen = np.unique(np.linspace(0, len(cameras) - 1, min(_SOURCES, len(cameras))).astype(int))
    parts = []
    for index in chosen:
        front = fronts[index]
        rows, columns = np.nonzero(front > 0)
        small = cameras[index].resized(front.shape[1], front.shape[0])
        origins, rays = small.rays(np.column_stack([columns + 0.5, rows + 0.5]))
        z = rays @ small.c2w[:3, 2]
        parts.append(origins + rays * (front[rows, columns] / z)[:, None])
    points = np.concatenate(parts)
    seen = np.zeros((len(cameras), len(points)), bool)
    for row, (camera, front) in enumerate(zip(cameras, fronts, strict=True)):
        height, width = front.shape
        image, depth = camera.resized(width, height).project(points)
        x, y = np.floor(image).astype(int).T
        inside = (depth > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        shown = front[y.clip(0, height - 1), x.clip(0, width - 1)]
        seen[row] = inside & (shown > 0) & (np.abs(shown - depth) < tolerance)
    usable = seen.sum(0) >= 3
    return points[usable], seen[:, usable]


def _write_model(
    folder: Path,
    cameras: list[Camera],
    names: list[str],
    points: FloatArray,
    seen: npt.NDArray[np.bool_],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lenses, views = ["# Camera list"], ["# Image list"]
    places = np.zeros(seen.shape, int)  # position of each point in the list of each view
    for index, (camera, name) in enumerate(zip(cameras, names, strict=True)):
        K = camera.K
        lens = " ".join(f"{v:.12g}" for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
        lenses.append(f"{index + 1} PINHOLE {camera.width} {camera.height} {lens}")
        x, y, z, w = Rotation.from_matrix(camera.w2c[:3, :3]).as_quat()
        shift = " ".join(f"{value:.12g}" for value in camera.w2c[:3, 3])
        views.append(f"{index + 1} {w:.12g} {x:.12g} {y:.12g} {z:.12g} {shift} {index + 1} {name}")
        own = np.flatnonzero(seen[index])
        places[index, own] = np.arange(len(own))
        image, _ = camera.project(points[own])
        observed = zip(image, own, strict=True)
        views.append(" ".join(f"{u:.4f} {v:.4f} {point + 1}" for (u, v), point in observed))
    cloud = ["# 3D point list"]
    for number, (x, y, z) in enumerate(points):
        track = " ".join(f"{i + 1} {places[i, number]}" for i in np.flatnonzero(seen[:, number]))
        cloud.append(f"{number + 1} {x:.9g} {y:.9g} {z:.9g} 128 128 128 0.5 {track}")
    for stem, lines in (("cameras", lenses), ("images", views), ("points3D", cloud)):
        (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
