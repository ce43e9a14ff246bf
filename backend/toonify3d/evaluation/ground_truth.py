"""A :class:`Scene` from a capture whose cameras and shape are known (``data/captures/NAME``).

Benchmarks use it to judge one link of the chain alone: fields without SfM error, stylizers without
a trained prior, masks and depth against ray-cast truth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from ..files import write_image
from ..raycast import MeshQuery
from ..scene import (
    ByteImage,
    Camera,
    FloatArray,
    Frame,
    Normalization,
    Scene,
    SurfaceMesh,
)

# Blender cameras look along -z with y up; OpenCV's along +z with y down.
BLENDER_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def ground_truth_mesh(capture: Path) -> SurfaceMesh:
    """The true mesh of ``capture/gt/mesh.npz`` in its own world."""
    with np.load(capture / "gt" / "mesh.npz") as data:
        return SurfaceMesh(data["v"].astype(np.float64), data["f"].astype(np.int64))


def ground_truth_cameras(capture: Path) -> list[Camera]:
    """The true camera of every video frame (``capture/gt/cameras.json``)."""
    document = json.loads((capture / "gt" / "cameras.json").read_text(encoding="utf-8"))
    intrinsics = np.array(
        [
            [document["fx"], 0.0, document["cx"]],
            [0.0, document["fy"], document["cy"]],
            [0.0, 0.0, 1.0],
        ]
    )
    return [
        Camera(intrinsics, np.array(c2w) @ BLENDER_TO_OPENCV, document["width"], document["height"])
        for c2w in document["c2w_blender"]
    ]


def scene_from_ground_truth(
    capture: Path, root: Path, with_depth: bool = False, step: int = 1
) -> Scene:
    """Write frames, true masks and cameras of a ground-truth capture as a scene folder.

    Args:
        capture: Folder with ``capture.mp4`` and ``gt/``.
        root: Where the scene is written (``root/frames`` ...). Reused when complete.
        with_depth: Also write the true depth with confidence 1 (to test what depth is used for).
        step: Keep every ``step``-th frame.

    Returns:
        The scene in the ground truth's own world (metres, Z up, face along -Y).
    """
    mesh = ground_truth_mesh(capture)
    caster = MeshQuery(mesh.vertices, mesh.faces)
    center = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
    radius = 1.05 * float(np.linalg.norm(mesh.vertices - center, axis=1).max())
    head = np.array([0.0, 0.0])
    frames = []
    cameras = ground_truth_cameras(capture)
    for index, image in _numbered_frames(capture, step):
        camera = cameras[index]
        frame = Frame(f"{index:04d}", index, camera, _yaw(camera.center[:2] - head))
        depth = caster.depth(camera)
        write_image(root / "frames" / f"{frame.name}.png", image)
        write_image(root / "masks" / f"{frame.name}.png", (depth > 0).astype(np.uint8) * 255)
        if with_depth:
            (root / "depth").mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                root / "depth" / f"{frame.name}.npz",
                depth=depth,
                confidence=(depth > 0).astype(np.float32),
            )
        frames.append(frame)
    scene = Scene(root, frames, Normalization(center, radius))
    scene.save()
    return scene


def _numbered_frames(capture: Path, step: int) -> Iterator[tuple[int, ByteImage]]:
    for index, image in enumerate(iio.imiter(capture / "capture.mp4", plugin="FFMPEG")):
        if index % step == 0:
            yield index, np.asarray(image, dtype=np.uint8)


def _yaw(offset: FloatArray) -> float:
    """Angle round Z, 0 for a camera at -Y (in front of the face), positive towards +X."""
    return float(np.arctan2(offset[0], -offset[1]))
