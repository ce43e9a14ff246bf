"""From a capture with known cameras to what structure from motion would have given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import Progress
from ..scene import ByteImage, Camera
from .cameras import SolvedCameras, point_colors
from .frame_store import stored
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
    source: Path, settings: CaptureSettings, folder: Path, progress: Progress
) -> tuple[FrameChoice, SolvedCameras, dict[int, ByteImage]]:
    """Read, undistort and shrink the pictures; cameras as the file has them.

    Args:
        source: See :func:`~.posed.load_posed`.
        settings: See :class:`CaptureSettings`.
        folder: Where the pictures are kept (:mod:`.frame_store`).
        progress: Gets updates.

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
    cameras: list[Camera] = []
    found = _pictures([capture.images[i] for i in indices], settings.long_side, cameras, progress)
    images = stored(found, len(indices), folder / "frames.raw")
    masks = _masks(capture, indices, (images[0].shape[1], images[0].shape[0]), settings)
    model = {"model": capture.kind, "focal_px": float(cameras[0].K[0, 0]), "k": 0.0}
    colors = point_colors(capture.points, cameras, images)
    solved = SolvedCameras(
        cameras, list(range(len(indices))), images, capture.points, colors, float("nan"), model
    )
    return FrameChoice(indices, count, 0, 0), solved, masks


def _pictures(
    chosen: Sequence[PosedImage], long_side: int, cameras: list[Camera], progress: Progress
) -> Iterator[ByteImage]:
    """The undistorted pictures one by one; their cameras are added to ``cameras``."""
    shape: tuple[int, ...] | None = None
    for done, posed in enumerate(chosen):
        image, camera = undistorted(*_small(posed, long_side))
        shape = shape or image.shape
        if image.shape != shape:
            raise InputError(
                f"The images have different sizes, {posed.path.name} differs from"
                " the first; export them all in one size.",
                "mixed_sizes",
            )
        cameras.append(camera)
        progress.update((done + 1) / len(chosen), "Reading images")
        yield image


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
