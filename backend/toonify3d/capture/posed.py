"""Captures whose cameras are known already: COLMAP models and ``transforms.json`` scenes.

Both are used as they are, without structure from motion: the pictures are undistorted to pin-holes
here, and the face alignment moves the world later, so the world of the file does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap

from ..errors import InputError
from ..scene import ByteImage, Camera, FloatArray
from .video import IMAGE_SUFFIXES, natural_key

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes: OpenGL and Blender (y up, z backward) to OpenCV and COLMAP, and back."""
_DISTORTION = {
    "SIMPLE_PINHOLE": (), "PINHOLE": (), "SIMPLE_RADIAL": ("k1",), "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}  # fmt: skip
_ORDER = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
"""Order of OpenCV's distortion coefficients."""


@dataclass(frozen=True)
class PosedImage:
    """A picture with its camera.

    Attributes:
        path: The image file.
        camera: The pin-hole part of the camera, for the size that the file states.
        distortion: ``(8,)`` OpenCV's k1 k2 p1 p2 k3 k4 k5 k6.
        mask: The mask file that the scene names, or None.
    """

    path: Path
    camera: Camera
    distortion: FloatArray
    mask: Path | None = None


@dataclass(frozen=True)
class PosedCapture:
    """Pictures with cameras in one arbitrary world, in natural order of their names.

    Attributes:
        kind: ``"COLMAP model"`` or ``"transforms.json"``.
        images: At least one.
        points: ``(N, 3)`` sparse points, none for ``transforms.json``.
    """

    kind: str
    images: list[PosedImage]
    points: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))


def is_posed(source: Path) -> bool:
    """Whether ``source`` is a scene with cameras rather than a video or plain images."""
    return _transforms_file(source) is not None or _model_folder(source) is not None


def load_posed(source: Path) -> PosedCapture:
    """Read a folder with ``transforms.json`` (or that file), or with a COLMAP model.

    A COLMAP model lies in the folder itself, in ``sparse/0``, ``sparse`` or ``colmap/sparse/0``
    (text or binary), its pictures in ``images`` or beside it.

    Raises:
        InputError: Damaged (``bad_cameras``), a lens that is no perspective lens (``lens_model``),
            or no picture where the file says (``no_images``).
    """
    transforms = _transforms_file(source)
    if transforms is not None:
        capture = _load_transforms(transforms)
    else:
        model = _model_folder(source)
        if model is None:
            raise InputError(f"{source.name} holds no cameras.", "bad_cameras")
        capture = _load_colmap(model, source)
    if not capture.images:
        raise InputError(
            f"None of the pictures that {source.name} names is there; keep them where its "
            f"{capture.kind} says.",
            "no_images",
        )
    capture.images.sort(key=lambda image: natural_key(image.path.name))
    return capture


def from_opengl(c2w: FloatArray) -> FloatArray:
    """Camera-to-world ``(4, 4)`` with OpenGL camera axes to OpenCV axes; scale is taken out.

    Raises:
        InputError: Not a rotation with a translation (``bad_cameras``).
    """
    out = np.asarray(c2w, np.float64)
    if out.shape == (3, 4):
        out = np.concatenate([out, [[0.0, 0.0, 0.0, 1.0]]])
    if out.shape != (4, 4) or not np.isfinite(out).all():
        raise InputError("A transform_matrix is not a 4 x 4 matrix of numbers.", "bad_cameras")
    out = out @ OPENGL
    scale = np.cbrt(max(np.linalg.det(out[:3, :3]), 0.0))
    if scale < 1e-9 or np.abs(out[:3, :3].T @ out[:3, :3] / scale**2 - np.eye(3)).max() > 1e-2:
        raise InputError(
            "A transform_matrix is mirrored or skewed, so it is no camera.", "bad_cameras"
        )
    out[:3, :3] /= scale
    return np.asarray(out, np.float64)


def c2w_from_colmap(cam_from_world: FloatArray) -> FloatArray:
    """COLMAP's ``(3, 4)`` world-to-camera to ``(4, 4)`` camera-to-world, OpenCV axes."""
    rotation, translation = cam_from_world[:, :3], cam_from_world[:, 3]
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation.T, -rotation.T @ translation
    return out


def undistorted(image: ByteImage, posed: PosedImage) -> tuple[ByteImage, Camera]:
    """A picture or mask of this camera as its pin-hole sees it, with that pin-hole.

    Args:
        image: RGB ``(H, W, 3)`` or gray ``(H, W)`` of any size with the camera's aspect ratio.
        posed: Whose lens is taken out.

    Returns:
        The picture in the same size, and the pin-hole camera of that size.
    """
    camera = posed.camera.resized(image.shape[1], image.shape[0])
    if not posed.distortion.any():
        return image, camera
    lens = camera.K.copy()
    lens[:2, 2] -= 0.5  # OpenCV counts from pixel centres
    size = (camera.width, camera.height)
    maps = cv2.initUndistortRectifyMap(lens, posed.distortion, np.eye(3), lens, size, cv2.CV_32FC1)
    plain = cv2.remap(image, *maps, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(plain, np.uint8), camera


def _transforms_file(source: Path) -> Path | None:
    if source.suffix.lower() == ".json" and source.is_file():
        return source
    inside = source / "transforms.json"
    return inside if inside.is_file() else None


def _model_folder(source: Path) -> Path | None:
    if not source.is_dir():
        return None
    for name in (".", "sparse/0", "sparse", "colmap/sparse/0"):
        for suffix in (".bin", ".txt"):
            if all((source / name / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return source / name
    return None


def _load_colmap(model: Path, source: Path) -> PosedCapture:
    try:
        reconstruction = pycolmap.Reconstruction(str(model))
    except (ValueError, RuntimeError, IndexError) as error:
        raise InputError(
            f"The COLMAP model in {model} cannot be read; export it again.", "bad_cameras"
        ) from error
    folders = [source / "images", source, model / "images", model.parent / "images"]
    images = []
    for item in reconstruction.images.values():
        path = next((f / item.name for f in folders if (f / item.name).is_file()), None)
        if path is None or not item.has_pose:
            continue
        lens = reconstruction.cameras[item.camera_id]
        c2w = c2w_from_colmap(np.asarray(item.cam_from_world().matrix()))
        camera = Camera(np.asarray(lens.calibration_matrix()), c2w, lens.width, lens.height)
        images.append(PosedImage(path, camera, _colmap_distortion(lens)))
    points = np.array([point.xyz for point in reconstruction.points3D.values()]).reshape(-1, 3)
    return PosedCapture("COLMAP model", images, points)


def _colmap_distortion(lens: Any) -> FloatArray:
    name = lens.model.name
    if name not in _DISTORTION:
        raise InputError(
            f"The COLMAP model has a {name} lens; undistort it with 'colmap image_undistorter'.",
            "lens_model",
        )
    extra = [lens.params[i] for i in lens.extra_params_idxs()]
    return _coefficients(dict(zip(_DISTORTION[name], extra, strict=True)))


def _load_transforms(path: Path) -> PosedCapture:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        frames = document["frames"]
        images = [_frame(path.parent, {**document, **frame}) for frame in frames]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} is damaged or no transforms.json of nerfstudio or instant-ngp "
            f"({type(error).__name__}: {error}).",
            "bad_cameras",
        ) from error
    return PosedCapture("transforms.json", [image for image in images if image is not None])


def _frame(folder: Path, frame: dict[str, Any]) -> PosedImage | None:
    """One frame, its own entries before the document's; None when its picture is not there."""
    model = str(frame.get("camera_model", "OPENCV"))
    if model not in _DISTORTION or frame.get("is_fisheye"):
        raise InputError(
            f"transforms.json has a {model} lens; undistort the pictures first.", "lens_model"
        )
    path = _picture(folder / frame["file_path"])
    if path is None:
        return None
    if "w" in frame and "h" in frame:
        width, height = int(frame["w"]), int(frame["h"])
    else:
        height, width = _size(path)
    if "fl_x" in frame:
        across = float(frame["fl_x"])
    else:
        across = width / 2 / np.tan(float(frame["camera_angle_x"]) / 2)
    if "fl_y" in frame:
        down = float(frame["fl_y"])
    elif "camera_angle_y" in frame:
        down = height / 2 / np.tan(float(frame["camera_angle_y"]) / 2)
    else:
        down = across
    cx, cy = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    K = np.array([[across, 0.0, cx], [0.0, down, cy], [0.0, 0.0, 1.0]])
    c2w = from_opengl(np.array(frame["transform_matrix"], np.float64))
    mask = folder / frame["mask_path"] if frame.get("mask_path") else None
    camera = Camera(K, c2w, width, height)
    return PosedImage(path, camera, _coefficients(frame), mask)


def _coefficients(named: dict[str, Any]) -> FloatArray:
    return np.array([float(named.get(name) or 0.0) for name in _ORDER])


def _picture(path: Path) -> Path | None:
    """The picture; NeRF's own scenes leave its suffix out."""
    candidates: Sequence[Path] = [path]
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        candidates = [path.with_name(path.name + suffix) for suffix in (".png", ".jpg", ".jpeg")]
    return next((item for item in candidates if item.is_file()), None)


def _size(path: Path) -> tuple[int, int]:
    image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path.name} is damaged or not an image.", "unreadable_image")
    return image.shape[0], image.shape[1]
