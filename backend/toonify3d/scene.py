"""The plain data that the parts of the product hand to each other.

Coordinates (``docs/architecture.md``): the *world* is metres, Z up, the face looks along -Y, origin
at the neck base. Fields are trained in *unit* space, ``x_unit = (x_world - center) / radius``.
Cameras are OpenCV pin-holes (x right, y down, z forward) with pixel centres at half integers:
pixel ``(column i, row j)`` is seen through image point ``(i + 0.5, j + 0.5)``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .files import read_image, write_json

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
ByteImage = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Camera:
    """An undistorted pin-hole camera.

    Attributes:
        K: ``(3, 3)`` intrinsics in pixels.
        c2w: ``(4, 4)`` camera-to-world, OpenCV axes.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    K: FloatArray
    c2w: FloatArray
    width: int
    height: int

    @property
    def center(self) -> FloatArray:
        """Camera centre in the world, ``(3,)``."""
        return np.asarray(self.c2w[:3, 3])

    @property
    def w2c(self) -> FloatArray:
        """``(4, 4)`` world-to-camera."""
        rotation = self.c2w[:3, :3].T
        out = np.eye(4)
        out[:3, :3] = rotation
        out[:3, 3] = -rotation @ self.c2w[:3, 3]
        return out

    def project(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """World points ``(N, 3)`` to image points ``(N, 2)`` and depths ``(N,)`` along z."""
        local = points @ self.w2c[:3, :3].T + self.w2c[:3, 3]
        depth = local[:, 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        image = local @ self.K.T
        return image[:, :2] / safe[:, None], depth

    def rays(self, image_points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Origins and unit directions ``(N, 3)`` of the rays through image points ``(N, 2)``."""
        homogeneous = np.concatenate([image_points, np.ones((len(image_points), 1))], axis=1)
        local = homogeneous @ np.linalg.inv(self.K).T
        directions = local @ self.c2w[:3, :3].T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.broadcast_to(self.center, directions.shape).copy(), directions

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for an image resized to ``width`` x ``height``."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(scale @ self.K, self.c2w, width, height)

    def transformed(self, similarity: FloatArray) -> Camera:
        """The camera after a ``(4, 4)`` similarity of the world (c2w stays rigid)."""
        moved = similarity @ self.c2w
        scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
        c2w = moved.copy()
        c2w[:3, :3] /= scale
        return Camera(self.K, c2w, self.width, self.height)


@dataclass(frozen=True)
class Frame:
    """One registered frame of a capture.

    Attributes:
        name: File stem, ``"0007"``; image, mask and depth files share it.
        source_index: 0-based index of the decoded video frame (or of the sorted image).
        camera: Its camera in the aligned world.
        yaw: Angle in radians of the camera round the head, 0 in front of the face, +-pi behind,
            positive on the person's left.
    """

    name: str
    source_index: int
    camera: Camera
    yaw: float


def angle_apart(one: float, two: float = 0.0) -> float:
    """Between two angles round the head (:attr:`Frame.yaw`), 0 to pi."""
    return abs(float(np.angle(np.exp(1j * (one - two)))))


@dataclass(frozen=True)
class Normalization:
    """World to unit sphere: ``x_unit = (x_world - center) / radius``."""

    center: FloatArray
    radius: float

    def to_unit(self, points: FloatArray) -> FloatArray:
        """World points ``(N, 3)`` to unit space."""
        return (points - self.center) / self.radius

    def to_world(self, points: FloatArray) -> FloatArray:
        """Unit-space points ``(N, 3)`` to the world."""
        return points * self.radius + self.center


@dataclass
class Scene:
    """A finished capture: what stage I and the 2D stylizer read.

    Attributes:
        root: The ``JOB/capture`` folder holding ``frames/ masks/ depth/``.
        frames: Registered frames, in source order.
        normalization: World to unit sphere round head and shoulders.
        landmarks: ``(478, 3)`` face landmarks in the world (MediaPipe FaceMesh order, iris last;
            NaN rows where triangulation failed), or None when no face was found.
        crop_z: World height of the chest plane below which nothing is reconstructed.
    """

    root: Path
    frames: list[Frame]
    normalization: Normalization
    landmarks: FloatArray | None = None
    crop_z: float = -np.inf
    notes: list[str] = field(default_factory=list)

    def image(self, frame: Frame) -> ByteImage:
        """RGB image ``(H, W, 3)``."""
        path = self.root / "frames" / f"{frame.name}.png"
        return read_image(path, cv2.IMREAD_COLOR)[..., ::-1].copy()

    def mask(self, frame: Frame) -> ByteImage:
        """Foreground ``(H, W)``, 0 to 255."""
        return read_image(self.root / "masks" / f"{frame.name}.png", cv2.IMREAD_GRAYSCALE)

    def depth(self, frame: Frame) -> tuple[Float32Array, Float32Array] | None:
        """Depth along the camera's z in metres (0 = none) and confidence 0 to 1, both ``(h, w)``.

        May be smaller than the image (same field of view); None when the frame has no depth.
        """
        path = self.root / "depth" / f"{frame.name}.npz"
        if not path.exists():
            return None
        with np.load(path) as data:
            return data["depth"].astype(np.float32), data["confidence"].astype(np.float32)

    def save(self) -> None:
        """Write ``cameras.json`` (the contract's fields plus yaw and normalization)."""
        frames = [
            {
                "file": f"frames/{frame.name}.png",
                "source_index": frame.source_index,
                "width": frame.camera.width,
                "height": frame.camera.height,
                "K": frame.camera.K.tolist(),
                "c2w": frame.camera.c2w.tolist(),
                "yaw": frame.yaw,
            }
            for frame in self.frames
        ]
        landmarks = None if self.landmarks is None else _nan_to_none(self.landmarks)
        document = {
            "frames": frames,
            "normalization": {
                "center": self.normalization.center.tolist(),
                "radius": self.normalization.radius,
            },
            "landmarks": landmarks,
            "crop_z": self.crop_z if np.isfinite(self.crop_z) else None,
            "notes": self.notes,
        }
        write_json(self.root / "cameras.json", document)

    @classmethod
    def load(cls, root: Path) -> Scene:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: ``root/cameras.json`` is not there.
        """
        document = json.loads((root / "cameras.json").read_text(encoding="utf-8"))
        frames = [
            Frame(
                name=Path(item["file"]).stem,
                source_index=item["source_index"],
                camera=Camera(
                    np.array(item["K"]), np.array(item["c2w"]), item["width"], item["height"]
                ),
                yaw=item["yaw"],
            )
            for item in document["frames"]
        ]
        raw = document.get("landmarks")
        landmarks = None
        if raw is not None:
            landmarks = np.array(
                [[np.nan if value is None else value for value in row] for row in raw]
            )
        norm = document["normalization"]
        crop_z = document.get("crop_z")
        return cls(
            root=root,
            frames=frames,
            normalization=Normalization(np.array(norm["center"]), float(norm["radius"])),
            landmarks=landmarks,
            crop_z=-np.inf if crop_z is None else float(crop_z),
            notes=list(document.get("notes", [])),
        )


@dataclass(frozen=True)
class SurfaceMesh:
    """A triangle mesh in the aligned world.

    Attributes:
        vertices: ``(V, 3)`` metres.
        faces: ``(F, 3)`` int64, counter-clockwise seen from outside.
        colors: ``(V, 3)`` uint8 sRGB, or None.
    """

    vertices: FloatArray
    faces: npt.NDArray[np.int64]
    colors: ByteImage | None = None


@dataclass(frozen=True)
class StylizedView:
    """One 2D stylized portrait that supervises stages II and III.

    Attributes:
        frame: The capture frame it belongs to (same camera).
        image: RGB ``(H, W, 3)`` at the frame's size.
        mask: Foreground of the *stylized* person ``(H, W)``, 0 to 255.
        confidence: ``(H, W)`` in 0 to 1: how far stage III should believe each pixel.
    """

    frame: Frame
    image: ByteImage
    mask: ByteImage
    confidence: Float32Array


@dataclass(frozen=True)
class LabelledPoints:
    """Places with soft labels, such as skin, hair and clothes on the real person.

    Attributes:
        points: ``(N, 3)`` world metres.
        labels: ``(N, K)`` in 0 to 1; rows sum to 1.
        names: Of the K labels.
    """

    points: FloatArray
    labels: Float32Array
    names: tuple[str, ...]


@dataclass(frozen=True)
class Displacement:
    """The stylizer's 3D shape change, offered to stage II as its start.

    Attributes:
        points: ``(N, 3)`` control points on the real person, world metres.
        offsets: ``(N, 3)`` how far each moves, world metres.
        kernels: The whole map as rows ``(K, 8)``: number of the step, support, centre (3), weight
            (3), metres. Each step is ``x -> x + sum_i w_i phi(|x - c_i| / support)`` with
            Wendland's C2 kernel ``(1-r)^4 (4r+1)``. None where only the points are known.
    """

    points: FloatArray
    offsets: FloatArray
    kernels: FloatArray | None = None


def _nan_to_none(array: FloatArray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else float(v) for v in row] for row in array]
