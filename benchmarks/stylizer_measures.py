"""How near stylized portraits are to an exemplar, to each other, and to the person."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from stylizer_shape import dlib_model
from stylizer_style import Portrait, sliced_distance

from toonify3d.capture import landmarks as lm
from toonify3d.portrait2d.colorspace import sample, to_lab
from toonify3d.portrait2d.surface import visible
from toonify3d.raycast import MeshQuery
from toonify3d.scene import ByteImage, Displacement, Frame, StylizedView, SurfaceMesh

FloatArray = npt.NDArray[np.float64]
FACE_WIDTH = 64
"""Pixels to which faces are brought before patches are compared."""


def at_face_width(
    image: ByteImage, mask: npt.NDArray[np.bool_], width: float
) -> tuple[ByteImage, npt.NDArray[np.bool_]]:
    """Scale a picture whose face is ``width`` pixels wide to :data:`FACE_WIDTH`."""
    small = Portrait(image, mask.astype(np.uint8)).at_width(width, FACE_WIDTH)
    return small.image, small.regions > 0


def texture_distance(
    one: tuple[ByteImage, npt.NDArray[np.bool_]], two: tuple[ByteImage, npt.NDArray[np.bool_]]
) -> float:
    """Mean over three Laplacian levels of the distance of 7 x 7 patches (CIELAB)."""
    first, second = _levels(*one), _levels(*two)
    return float(np.mean([sliced_distance(a, b) for a, b in zip(first, second, strict=True)]))


def _levels(image: ByteImage, mask: npt.NDArray[np.bool_]) -> list[FloatArray]:
    lab, cover, out = to_lab(image), mask.astype(np.uint8), []
    for _ in range(3):
        height, width = cover.shape
        low = cv2.pyrDown(lab)
        band = lab - cv2.pyrUp(low, dstsize=(width, height))
        inner = cv2.erode(cover, np.ones((7, 7), np.uint8), borderValue=0) > 0
        inner[:3] = inner[-3:] = False
        inner[:, :3] = inner[:, -3:] = False
        rows, columns = np.nonzero(inner)
        step = max(1, len(rows) // 6000)
        rows, columns = rows[::step], columns[::step]
        around = range(-3, 4)
        patches = [band[rows + y, columns + x] for y in around for x in around]
        out.append(np.concatenate(patches, axis=1).astype(float))
        lab, cover = low, cv2.resize(cover, low.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return out


def palette_distance(
    one: tuple[ByteImage, npt.NDArray[np.bool_]], two: tuple[ByteImage, npt.NDArray[np.bool_]]
) -> float:
    """Sliced distance of the colours themselves (CIELAB)."""
    first, second = (to_lab(image)[mask].astype(float) for image, mask in (one, two))
    return sliced_distance(first, second)


def consistency(
    scene_image: Any, views: Sequence[StylizedView], mesh: SurfaceMesh, shift: Displacement
) -> float:
    """Neighbouring frames' difference at the same surface points, stylized over photographed.

    Photos are compared through the stage-I surface, stylized frames through the bent one.
    """
    near, index = cKDTree(shift.points).query(mesh.vertices, k=4)
    weight = 1.0 / np.maximum(near, 1e-6)
    weight /= weight.sum(1, keepdims=True)
    bent = mesh.vertices + (shift.offsets[index] * weight[..., None]).sum(1)
    ratio = []
    ordered = sorted(views, key=lambda v: v.frame.yaw)
    for one, two in itertools.pairwise(ordered):
        if abs(one.frame.yaw - two.frame.yaw) > 0.3:
            continue
        photo, _ = point_difference(one.frame, two.frame, scene_image, mesh, mesh.vertices)
        images = {v.frame.name: v.image for v in (one, two)}
        style, _ = point_difference(one.frame, two.frame, lambda f, i=images: i[f.name], mesh, bent)
        ratio.append(style / max(photo, 1e-6))
    return float(np.mean(ratio)) if ratio else float("nan")


def point_difference(
    one: Frame,
    two: Frame,
    image: Any,
    mesh: SurfaceMesh,
    vertices: FloatArray,
    weights: FloatArray | None = None,
) -> tuple[float, int]:
    """Root mean square CIELAB difference at the surface points that both frames see well.

    Args:
        one: A frame.
        two: Another.
        image: Called with a frame, gives its picture.
        mesh: Triangles.
        vertices: ``(V, 3)`` where the pictures show them.
        weights: ``(V,)`` how much each counts; None: all alike.

    Returns:
        The difference (NaN without points) and the number of points.
    """
    query = MeshQuery(vertices, mesh.faces)
    colors, both = [], np.ones(len(vertices), bool)
    a, b, c = (vertices[mesh.faces[:, i]] for i in range(3))
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, mesh.faces[:, corner], np.cross(b - a, c - a))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    for frame in (one, two):
        points, seen = visible(frame.camera, query.depth(frame.camera), vertices, 0.003)
        away = frame.camera.center - vertices
        facing = (normals * away).sum(1) / np.linalg.norm(away, axis=1)
        both &= seen & (facing > 0.5)
        colors.append(sample(to_lab(image(frame)), points))
    if not both.any():
        return float("nan"), 0
    difference = ((colors[0] - colors[1])[both] ** 2).sum(1)
    counts = None if weights is None else weights[both]
    return float(np.sqrt(np.average(difference, weights=counts))), int(both.sum())


class Identity:
    """128 numbers per face by dlib's network (face_recognition_models); benchmark only."""

    def __init__(self) -> None:
        import dlib

        self._dlib = dlib
        self._shape = dlib.shape_predictor(dlib_model("shape_predictor_5_face_landmarks.dat"))
        network = dlib_model("dlib_face_recognition_resnet_model_v1.dat")
        self._network = dlib.face_recognition_model_v1(network)

    def __call__(self, image: ByteImage, landmarks: lm.FaceLandmarks) -> FloatArray:
        """Embedding ``(128,)`` of a face with known landmarks, averaged with its mirror image's."""
        x0, y0, x1, y1 = (int(v) for v in landmarks.box)
        width, out = image.shape[1], []
        for view, left, right in (
            (image, x0, x1),
            (np.ascontiguousarray(image[:, ::-1]), width - x1, width - x0),
        ):
            shape = self._shape(view, self._dlib.rectangle(left, y0, right, y1))
            out.append(np.array(self._network.compute_face_descriptor(view, shape)))
        return np.asarray(np.mean(out, axis=0))


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.2f}"
    return str(value)
