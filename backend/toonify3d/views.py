"""Pictures and films of a finished style along any camera path, from its fields or its mesh."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from .asset.field_render import FieldView, render_field
from .asset.levelset import ClippedField
from .asset.render import BACKGROUND, Renderable, render_view
from .errors import InputError
from .files import write_atomic, write_image
from .finished import FinishedStyle
from .meshes import load_mesh
from .progress import Progress
from .scene import ByteImage, Camera, Scene
from .service.job import JobFolder
from .training.refined_cameras import with_refined_cameras
from .training.stage1 import load_prior
from .training.stage2 import load_geometry
from .training.stage3 import load_avatar

FPS = 24
PICTURES = (".png",)
# One picture: RGB and coverage of what a camera sees, on a background.
Renderer = Callable[[Camera, tuple[int, int, int]], tuple[ByteImage, ByteImage]]


def mesh_renderer(item: FinishedStyle, shading: str) -> Renderer:
    """Pictures of the baked mesh with its albedo texture: what other programs show."""
    shown = Renderable(item.mesh, item.albedo, item.atlas.uv, item.atlas.faces)
    return lambda camera, background: render_view(shown, camera, shading, background=background)


def field_renderer(
    job: Path, item: FinishedStyle, person: bool, shading: str, device: str
) -> Renderer:
    """Pictures of the fields by volume rendering.

    Args:
        job: The job folder.
        item: The style.
        person: The real person (stage I's colours, averaged over views) instead of the style.
        shading: One of :data:`.asset.render.SHADINGS`.
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: The fields are gone or damaged.
    """
    view = field_view(job, item, person, device)
    return lambda camera, background: render_field(view, camera, shading, background=background)


def field_view(job: Path, item: FinishedStyle, person: bool, device: str) -> FieldView:
    """A finished style's fields ready for :func:`.render_field`; see :func:`field_renderer`."""
    folder = JobFolder(job)
    try:
        scene = with_refined_cameras(Scene.load(folder.capture), folder.prior)
        prior = load_prior(folder.prior, device)
        sharpness = float(prior.inv_s)
        if person:
            mesh = load_mesh(folder.prior / "mesh.npz")
            lowest = float(mesh.vertices[:, 2].min())
            cut = ClippedField.of_scene(prior, scene, item.ball_radius, lowest)
            return FieldView(cut, mesh, scene.normalization, sharpness)
        style = folder.style(item.name)
        geometry = load_geometry(prior, style / "geometry", device)
        avatar = load_avatar(geometry, style / "texture", device)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        words = str(error).split("\n")[0].rstrip(".")
        raise InputError(
            f"The fields of style '{item.name}' cannot be read ({words}); use --from mesh, or"
            f" 'toonify3d resume' to make them again.",
            "no_fields",
        ) from error
    cut = ClippedField.of_scene(avatar, scene, item.ball_radius, item.bottom)
    return FieldView(cut, item.mesh, scene.normalization, sharpness)


def render_path(
    renderer: Renderer,
    cameras: Sequence[Camera],
    path: Path,
    progress: Progress,
    background: tuple[int, int, int] = BACKGROUND,
) -> None:
    """Render a camera path as MP4, as one PNG, or as a folder of PNG; PNG have alpha.

    Args:
        renderer: Makes the pictures.
        cameras: One per picture.
        path: ``.mp4``, ``.png`` (a single camera), else a folder that gets ``0000.png`` and so on.
        progress: Told how far it is.
        background: Of the video.

    Raises:
        InputError: The cameras do not suit the kind of file.
        OSError: Not writable; a file already there stays whole.
    """
    kind = path.suffix.lower()
    if kind == ".mp4":
        _check_video(cameras)
        write_atomic(path, lambda part: _encode(renderer, cameras, part, progress, background))
        return
    if kind in PICTURES:
        if len(cameras) != 1:
            raise InputError(
                f"'{path.name}' holds one picture, not {len(cameras)}; give a folder, an .mp4 or"
                " --frames 1.",
                "bad_frames",
            )
        write_image(path, _with_alpha(renderer, cameras[0]))
        progress.update(1.0, "done")
        return
    path.mkdir(parents=True, exist_ok=True)
    for index, camera in enumerate(cameras):
        write_image(path / f"{index:04d}.png", _with_alpha(renderer, camera))
        progress.update((index + 1) / len(cameras), f"view {index + 1} of {len(cameras)}")


def _with_alpha(renderer: Renderer, camera: Camera) -> ByteImage:
    return straight_alpha(*renderer(camera, (0, 0, 0)))


def _encode(
    renderer: Renderer,
    cameras: Sequence[Camera],
    path: Path,
    progress: Progress,
    background: tuple[int, int, int],
) -> None:
    size = (cameras[0].width, cameras[0].height)
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=FPS, macro_block_size=2, quality=8, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for index, camera in enumerate(cameras):
            image, _ = renderer(camera, background)
            try:
                writer.send(np.ascontiguousarray(image))
            except OSError:  # ffmpeg has ended, mostly on a full disk; the count below tells
                break
            progress.update((index + 1) / len(cameras), f"view {index + 1} of {len(cameras)}")
    finally:
        writer.close()
    if _count_frames(path) != len(cameras):
        full = shutil.disk_usage(path.parent).free < 1 << 20
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code), str(path))


def _count_frames(path: Path) -> int:
    """Frames of a video file; 0 when ffmpeg cannot open it (the disk was full at once)."""
    try:
        return int(imageio_ffmpeg.count_frames_and_secs(str(path))[0])
    except (RuntimeError, OSError):
        return 0


def _check_video(cameras: Sequence[Camera]) -> None:
    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) > 1:
        raise InputError(
            "The cameras have pictures of different sizes; give one --size for a video.", "bad_size"
        )
    if any(side % 2 for size in sizes for side in size):
        raise InputError("Width and height (--size) must be even for a video.", "bad_size")


def straight_alpha(over_black: ByteImage, alpha: ByteImage) -> ByteImage:
    """RGBA ``(H, W, 4)`` with unassociated alpha (PNG) from a picture over black."""
    share = np.maximum(alpha, 1)[..., None] / 255.0
    color = np.clip(np.round(over_black / share), 0, 255).astype(np.uint8)
    return np.concatenate([color, alpha[..., None]], axis=2)
