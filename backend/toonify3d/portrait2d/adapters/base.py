"""The interface of the stylizers that the user brings, and what happens around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...capture.landmarks import FaceLandmarker
from ...errors import InputError
from ...progress import Progress, SubProgress
from ...scene import ByteImage, FloatArray, Frame, Scene, StylizedView, angle_apart
from ..folder import (
    fit_picture,
    inset_confidence,
    painted_mask,
    same_aspect,
    views_palette,
    without_blank,
)
from ..pipeline import select_frames
from ..settings import StylizeSettings
from ..store import StylizedSet, save_palette, save_view
from .settings import AdapterSettings


@dataclass(frozen=True)
class Photo:
    """One frame to be stylized.

    Attributes:
        frame: Of the scene.
        image: RGB ``(H, W, 3)``.
        landmarks: ``(478, 2)`` image points of the face, None where no face is seen.
    """

    frame: Frame
    image: ByteImage
    landmarks: FloatArray | None


class FrameStylizer(Protocol):
    """What an adapter offers."""

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """Stylize the frames.

        Args:
            photos: All frames of the job, so that one style code or one program call can serve
                them all.
            progress: Listener; told what degrades.

        Returns:
            Frame name to RGB picture, any size of the frame's aspect; frames that cannot be done
            are left out (and ``progress`` is told).

        Raises:
            InputError: The model or program cannot be used.
        """
        ...


def open_stylizer(name: str, settings: AdapterSettings, device: str) -> FrameStylizer:
    """Load the adapter ``dct-net``, ``vtoonify``, ``onnx`` or ``command``.

    Raises:
        InputError: What the user brought is missing or does not fit; the sentence says what to do.
    """
    if name == "dct-net":
        from .dctnet import DctNet

        return DctNet(Path(settings.model), device)
    if name == "onnx":
        from .onnx_model import OnnxModel

        return OnnxModel(settings)
    if name == "vtoonify":
        from .vtoonify import Vtoonify

        return Vtoonify(settings, device)
    if name == "command":
        from .command import Command

        return Command(settings)
    raise InputError(f"There is no stylizer '{name}'.", "bad_stylizer")


def licence_notice(name: str) -> str | None:
    """What the user must know of a stylizer's licence before the job starts."""
    if name == "vtoonify":
        from .vtoonify import LICENCE

        return LICENCE
    return None


def stylize_with(
    stylizer: FrameStylizer,
    scene: Scene,
    folder: Path,
    settings: StylizeSettings,
    progress: Progress,
) -> StylizedSet:
    """Stylize the front and back frames with what the user brought.

    Masks are found anew in what came back (a stylizer may change the outline), and the palette is
    that of the pictures: the style is the model's, whatever the exemplar says.

    Args:
        stylizer: See :func:`open_stylizer`.
        scene: The finished capture.
        folder: Where ``NNNN.png`` and the rest are written.
        settings: Which frames.
        progress: Listener.

    Raises:
        InputError: Nothing came back (``nothing_stylized``), pictures of another aspect
            (``portraits_size``), or nobody is seen in any of them (``portraits_blank``).
    """
    photos = read_photos(scene, select_frames(scene, settings, progress))
    made = stylizer.stylize(photos, SubProgress(progress, 0.0, 0.9))
    pairs = [
        (f"{p.frame.name}.png", _view(scene, p, made[p.frame.name]))
        for p in photos
        if p.frame.name in made
    ]
    if not pairs:
        raise InputError(
            "The stylizer gave back no picture for any frame; try it on one of the frames"
            " ('toonify3d portraits JOB --export DIR' writes them).",
            "nothing_stylized",
        )
    if len(pairs) < len(photos):
        progress.warn(f"{len(photos) - len(pairs)} of {len(photos)} frames were not stylized.")
    advice = "the stylizer made blank pictures, or changed the background as much as the person"
    views = without_blank(scene, pairs, advice, progress)
    palette = views_palette(views)
    for view in views:
        save_view(folder, view)
    save_palette(folder, palette)
    progress.update(1.0, f"{len(views)} portraits stylized")
    return StylizedSet(views, None, palette)


def read_photos(scene: Scene, frames: Sequence[Frame]) -> list[Photo]:
    """The frames with the face points that adapters crop by."""
    landmarker = FaceLandmarker()
    photos = []
    for frame in frames:
        image = scene.image(frame)
        facing = angle_apart(frame.yaw) < 1.2
        found = landmarker.detect(image) if facing else None
        photos.append(Photo(frame, image, None if found is None else found.points[:, :2]))
    return photos


def _view(scene: Scene, photo: Photo, image: ByteImage) -> StylizedView:
    width, height = photo.frame.camera.width, photo.frame.camera.height
    if not same_aspect(image, width, height):
        raise InputError(
            f"The stylizer made a picture of {image.shape[1]} x {image.shape[0]} from a frame of"
            f" {width} x {height}: it must keep the aspect ratio.",
            "portraits_size",
        )
    fitted = fit_picture(image, width, height)
    mask = painted_mask(fitted, photo.image, scene.mask(photo.frame))
    return StylizedView(photo.frame, fitted, mask, inset_confidence(mask))
