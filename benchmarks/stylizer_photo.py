"""A single portrait photo as a one-frame scene, so that the stylizer can be tried on it.

The relief is FaceMesh's own depth inside the face, carried on smoothly over the rest of the person;
it is good for the frontal view only.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from toonify3d.capture import landmarks as lm
from toonify3d.capture.segmentation import PersonSegmenter
from toonify3d.files import write_image
from toonify3d.portrait2d.colorspace import blur, fill_holes
from toonify3d.portrait2d.picture import read_picture
from toonify3d.scene import Camera, Frame, Normalization, Scene, SurfaceMesh

_EYES = 0.063
_SIDE = 560


def photo_scene(path: Path, root: Path) -> tuple[Scene, SurfaceMesh]:
    """Scene with one frame, written to ``root``, and the relief."""
    image = read_picture(path)[0]
    scale = _SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    finder = lm.FaceLandmarker()
    found = finder.detect(image, thorough=True)
    finder.close()
    if found is None:
        raise SystemExit(f"no face in {path}")
    with PersonSegmenter() as segmenter:
        cover = np.asarray(segmenter.probability(image), np.float32)
    mask = np.asarray(np.clip(cover * 2 - 0.5, 0, 1) * 255, np.uint8)
    points = found.points
    eyes = points[list(lm.LEFT_EYE)].mean(0) - points[list(lm.RIGHT_EYE)].mean(0)
    per_metre = float(np.linalg.norm(eyes)) / _EYES
    focal = 5.0 * _SIDE
    camera = Camera(
        np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]]),
        np.array([[1.0, 0, 0, 0], [0, 0, 1, -focal / per_metre], [0, -1, 0, 0], [0, 0, 0, 1]]),
        *size,
    )
    world = _lift(points[:, :2], points[:, 2] / per_metre, camera)
    frame = Frame("0000", 0, camera, 0.0)
    write_image(root / "frames" / "0000.png", image)
    write_image(root / "masks" / "0000.png", mask)
    mesh = _relief(points, mask, camera, per_metre)
    return Scene(root, [frame], Normalization(np.zeros(3), 0.3), world), mesh


def _lift(at: np.ndarray, depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Image points and depths against the face's plane (metres, larger is farther) to the world."""
    origin, rays = camera.rays(at)
    reach = (depth - origin[:, 1]) / rays[:, 1]
    return origin + rays * reach[:, None]


def _relief(points: np.ndarray, mask: np.ndarray, camera: Camera, per_metre: float) -> SurfaceMesh:
    height, width = mask.shape
    step = 2
    columns, rows = np.meshgrid(np.arange(0, width, step), np.arange(0, height, step))
    at = np.stack([columns, rows], -1).reshape(-1, 2) + 0.5
    oval = np.zeros((height, width), np.uint8)
    cv2.fillPoly(oval, [np.round(points[list(lm.FACE_OVAL), :2]).astype(np.int32)], (1,))
    ids = [i for i in range(468) if i % 2 == 0 or i in lm.FACE_OVAL]
    spline = RBFInterpolator(points[ids, :2], points[ids, 2], neighbors=40, smoothing=1.0)
    inside = oval[rows, columns].astype(bool)
    depth = np.zeros(rows.shape, np.float32)
    depth[inside] = spline(np.stack([columns[inside], rows[inside]], -1).astype(float)) / per_metre
    depth = fill_holes(depth, inside.astype(np.float32))
    edge = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5)[rows, columns]
    fall = np.clip(1 - edge / (0.35 * _EYES * per_metre), 0, 1) ** 2 * 0.5 * _EYES
    depth = np.where(inside, depth, blur(depth + fall.astype(np.float32), 1.5))
    front = _lift(at, depth.ravel(), camera)
    back = _lift(at, np.full(len(at), depth.max() + _EYES), camera)
    n, m = rows.shape
    index = np.arange(n * m).reshape(n, m)
    keep = cv2.dilate((mask > 60).astype(np.uint8), np.ones((3, 3)))[rows, columns] > 0
    quad = keep[:-1, :-1] & keep[1:, :-1] & keep[:-1, 1:] & keep[1:, 1:]
    a, b = index[:-1, :-1][quad], index[:-1, 1:][quad]
    c, d = index[1:, :-1][quad], index[1:, 1:][quad]
    # Seen from the front, x runs right and z up: a above c, b beside a.
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    both = np.concatenate([faces, faces[:, ::-1] + n * m])
    used, compact = np.unique(both, return_inverse=True)
    vertices = np.concatenate([front, back])[used]
    return SurfaceMesh(vertices, compact.reshape(-1, 3).astype(np.int64))
