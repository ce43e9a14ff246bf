"""From a capture with known cameras to what structure from motion would have given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import Progress
from ..scene import ByteImage
from .cameras import SolvedCameras, point_colors
from .posed import PosedCapture, PosedImage, load_posed, undistorted
from .selection import FrameChoice
from .settings import CaptureSettings
from .user_data import read_mask, user_masks
from .video import check_count, read_image, shrink


def check_posed(source: Path, min_frames: int) -> PosedCapture:
    """Load a capture with cameras and see whether it has enough of them.

    Raises:
        InputError: See :func:`~.posed.load_posed`; or ``too_few_frames``.
    """
    capture = load_posed(source)
    check_count(source, len(capture.images), min_frames, "image")
    return capture


def solved_from_posed(
    source: Path, settings: CaptureSettings, progress: Progress
) -> tuple[FrameChoice, SolvedCameras, dict[int, ByteImage]]:
    """Read, undistort and shrink the pictures; cameras as the file has them.

    Returns:
        The choice (evenly spread when there are more than ``settings.max_frames``), the cameras
        with their pictures, and the user's masks by source index, undistorted too.

    Raises:
        InputError: Bad cameras, pictures or masks, or pin-holes of several sizes (``mixed_sizes``).
    """
    capture = check_posed(source, settings.min_frames)
    count = len(capture.images)
    spread = np.linspace(0, count - 1, min(count, settings.max_frames)).round()
    indices = [int(i) for i in np.unique(spread)]
    images, cameras = [], []
    for done, index in enumerate(indices):
        image, camera = undistorted(*_small(capture.images[index], settings.long_side))
        images.append(image)
        cameras.append(camera)
        if image.shape != images[0].shape:
            raise InputError(
                f"The images have different sizes, {capture.images[index].path.name} differs from"
                " the first; export them all in one size.",
                "mixed_sizes",
            )
        progress.update((done + 1) / len(indices), "Reading images")
    masks = _masks(capture, indices, (images[0].shape[1], images[0].shape[0]), settings)
    model = {"model": capture.kind, "focal_px": float(cameras[0].K[0, 0]), "k": 0.0}
    colors = point_colors(capture.points, cameras, images)
    solved = SolvedCameras(
        cameras, list(range(len(indices))), images, capture.points, colors, float("nan"), model
    )
    return FrameChoice(indices, count, 0, 0), solved, masks


def _small(posed: PosedImage, long_side: int) -> tuple[ByteImage, PosedImage]:
    image = read_image(posed.path)
    height, width = image.shape[:2]
    stated = posed.camera
    if abs(width * stated.height - height * stated.width) > 0.01 * width * stated.height:
        raise InputError(
            f"{posed.path.name} is {width} x {height}, but its camera is for {stated.width} x "
            f"{stated.height}; give the pictures that the cameras were made with.",
            "bad_cameras",
        )
    return shrink(image, long_side), posed


def _masks(
    capture: PosedCapture, indices: list[int], size: tuple[int, int], settings: CaptureSettings
) -> dict[int, ByteImage]:
    files = [image.path for image in capture.images]
    given = user_masks(files, indices, size, settings.masks)
    if not settings.masks.folder:
        for index in indices:
            path = capture.images[index].mask
            if index not in given and path is not None and path.is_file():
                given[index] = read_mask(path, size)
    return {i: undistorted(mask, capture.images[i])[0] for i, mask in given.items()}
