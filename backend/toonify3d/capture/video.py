"""Decoding of videos and image folders, always in the order and numbering of the source.

Videos go through the ffmpeg program that imageio-ffmpeg carries, as a stream of PPM pictures: every
picture then says its own size, rotation metadata is applied by ffmpeg, variable frame rates pass
through unchanged (``-fps_mode passthrough``), a broken end costs only the broken end, and a decoder
that stalls is given up. High dynamic range and BT.2020 colours become sRGB (:mod:`.tone`).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import cv2
import imageio_ffmpeg
import numpy as np

from ..errors import InputError
from ..scene import ByteImage
from .probe import VideoInfo, probe
from .tone import cube_file

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 1 << 27
"""Larger pictures (damaged headers) are not decoded; 8K has a quarter of it."""
STALLED = 60.0
"""Seconds without a frame after which a decoder is given up."""


def check_source(source: Path, min_frames: int = 12) -> None:
    """See in a second whether ``source`` can be a capture at all.

    Raises:
        InputError: Missing (``missing``), not a video or image folder (``not_a_video``), fewer
            than ``min_frames`` frames (``too_few_frames``), or images of several sizes
            (``mixed_sizes``).
    """
    if not source.exists():
        raise InputError(f"{source} does not exist.", "missing")
    if source.is_dir():
        images = image_files(source)
        check_count(source, len(images), min_frames, "image")
        for path in images[:: max(1, len(images) // 8)]:
            read_image(path)
        return
    if not source.is_file() or source.stat().st_size == 0:
        raise InputError(f"{source.name} is empty or no regular file.", "not_a_video")
    count = sum(frame is not None for frame in _video_frames(source, 64, limit=min_frames))
    check_count(source, count, min_frames, "frame")


def decode(
    source: Path, long_side: int, gray: bool = False, every: int = 1
) -> Iterator[tuple[int, ByteImage]]:
    """Decode every frame of a video, or every image of a folder in natural order of names.

    Args:
        source: Video file or folder.
        long_side: Larger frames are scaled down to this long side in pixels.
        gray: Yield ``(H, W)`` luma instead of ``(H, W, 3)`` RGB.
        every: Only every so many-th frame, counted from the first.

    Yields:
        0-based index in the source and the frame, uint8.

    Raises:
        InputError: Not a video, an unreadable image, or images of several sizes.
    """
    if source.is_dir():
        yield from _folder_images(source, long_side, gray, every)
        return
    for position, frame in enumerate(_video_frames(source, long_side, gray, every=every)):
        if frame is not None:
            yield position * every, frame


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, hidden files left out, ``2.png`` before ``10.png``."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def read_image(path: Path) -> ByteImage:
    """Read an image as RGB uint8, turned upright by its EXIF orientation.

    Raises:
        InputError: It cannot be read (``unreadable_image``).
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be read: {error.strerror}.", "unreadable_image"
        ) from (error)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise InputError(f"{path.name} is damaged or not an image.", "unreadable_image")
    return np.ascontiguousarray(image[..., ::-1])


def shrink(image: ByteImage, long_side: int) -> ByteImage:
    """The image, scaled down if needed so that its longer side is at most ``long_side``."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def check_count(source: Path, count: int, min_frames: int, noun: str) -> None:
    """Refuse a source of fewer than ``min_frames`` pictures.

    Raises:
        InputError: ``too_few_frames``.
    """
    if count == 0:
        raise InputError(
            f"There are no {noun}s in {_name(source)}; give a video, or a folder of {min_frames} "
            f"or more {noun}s of one slow turn around the head.",
            "too_few_frames",
        )
    if count < min_frames:
        plural = "" if count == 1 else "s"
        raise InputError(
            f"{_name(source)} has only {count} {noun}{plural}; at least {min_frames} {noun}s of "
            "one slow turn around the head are needed (20 to 30 seconds of video are best).",
            "too_few_frames",
        )


def _name(source: Path) -> str:
    """What the user knows it by; the current folder is given as a dot."""
    return source.name or str(source.resolve())


def _folder_images(
    folder: Path, long_side: int, gray: bool, every: int
) -> Iterator[tuple[int, ByteImage]]:
    size: tuple[int, ...] | None = None
    first = ""
    for index, path in list(enumerate(image_files(folder)))[::every]:
        image = read_image(path)
        if size is None:
            size, first = image.shape[:2], path.name
        elif image.shape[:2] != size:
            raise InputError(
                f"The images have different sizes: {first} is {size[1]} x {size[0]}, {path.name} "
                f"is {image.shape[1]} x {image.shape[0]}; export them all in one size.",
                "mixed_sizes",
            )
        if gray:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        yield index, shrink(image, long_side)


def _video_frames(
    path: Path, long_side: int, gray: bool = False, limit: int | None = None, every: int = 1
) -> Iterator[ByteImage | None]:
    """Decode with ffmpeg; at the first place where it cannot go on the video just ends.

    Yields:
        Frames of one size; None for a frame of another size (damaged files have them).

    Raises:
        InputError: Not a single frame could be decoded.
    """
    info = probe(path)
    with tempfile.TemporaryDirectory(prefix="toonify3d-") as scratch:
        command = _command(path, info, Path(scratch), long_side, gray, limit, every)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=scratch
        )
        assert process.stdout is not None
        shape: tuple[int, ...] | None = None
        try:
            while (frame := _read_in_time(process)) is not None:
                shape = shape or frame.shape
                yield frame if frame.shape == shape else None
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.kill()
            process.wait()
    if shape is None:
        why = f": {info.problem}" if info.problem else ""
        raise InputError(
            f"{path.name} is not a video that can be decoded{why}; give an MP4, MOV, MKV or WebM "
            "file or a folder of images.",
            "not_a_video",
        )


def _command(
    path: Path,
    info: VideoInfo,
    scratch: Path,
    long_side: int,
    gray: bool,
    limit: int | None,
    every: int,
) -> list[str]:
    """ffmpeg's arguments; writes the colour table that they name into ``scratch``."""
    fit = f"min(1,{long_side}/max(iw,ih))"
    filters = [f"select='not(mod(n,{every}))'"] if every > 1 else []
    scale = f"scale='max(1,round(iw*{fit}))':'max(1,round(ih*{fit}))':flags=area"
    if info.wide_gamut:
        (scratch / "tone.cube").write_text(cube_file(info.hdr or "SDR"), encoding="ascii")
        filters += [
            f"{scale}:in_color_matrix=bt2020",
            "format=gbrp16le",
            "lut3d=file=tone.cube:interp=tetrahedral",
            "setparams=color_primaries=bt709:color_trc=iec61966-2-1",
        ]
    else:
        filters.append(scale)
    return [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"),
        # Half a packet at the end of a truncated file would become a half grey frame.
        *("-fflags", "+discardcorrupt", "-max_pixels", str(MAX_PIXELS)),
        # V: no cover pictures.
        *("-i", str(path.absolute()), "-map", "0:V:0", "-fps_mode", "passthrough"),
        *("-vf", ",".join(filters)),
        *(("-frames:v", str(limit)) if limit else ()),
        *("-pix_fmt", "gray" if gray else "rgb24"),
        *("-c:v", "pgm" if gray else "ppm", "-f", "image2pipe", "-"),
    ]


def _read_in_time(process: subprocess.Popen[bytes]) -> ByteImage | None:
    """The next picture; the process is killed when it gives none for :data:`STALLED` seconds."""
    assert process.stdout is not None
    watchdog = threading.Timer(STALLED, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        return _read_pnm(process.stdout)
    finally:
        watchdog.cancel()


def _read_pnm(stream: IO[bytes]) -> ByteImage | None:
    """One binary PGM or PPM picture; None at the end of the stream or of its whole part."""
    magic = stream.readline().strip()
    if magic not in (b"P5", b"P6"):
        return None
    size = stream.readline().split()
    stream.readline()
    if len(size) != 2:
        return None
    width, height, channels = int(size[0]), int(size[1]), 3 if magic == b"P6" else 1
    data = stream.read(width * height * channels)
    if len(data) < width * height * channels:
        return None
    shape = (height, width, 3) if channels == 3 else (height, width)
    return np.frombuffer(data, np.uint8).reshape(shape).copy()


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``2.png`` before ``10.png``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]
