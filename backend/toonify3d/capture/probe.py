"""What a video file says about itself, read from ffmpeg's description of it.

imageio-ffmpeg carries no ffprobe, so the lines that ``ffmpeg -i`` writes are parsed; whatever they
do not tell is None.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

HDR_TRANSFERS = {"arib-std-b67": "HLG", "smpte2084": "PQ"}
"""ffmpeg's names of the transfer functions of ITU-R BT.2100."""
_FIRST_BOXES = {b"ftyp", b"mdat", b"moov", b"free", b"skip", b"wide", b"pnot"}
PROBE_SECONDS = 60.0
"""A file that ffmpeg cannot describe in this time is given up."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says.

    Attributes:
        size: Upright width and height in pixels.
        seconds: Length.
        frames: Guess of the number of frames, 0 when unknown.
        rotation: Degrees by which players turn the picture.
        codec: ffmpeg's name (``"hevc"``).
        bits: Bits per colour value.
        primaries: ffmpeg's name of the colour primaries (``"bt2020"``).
        transfer: ffmpeg's name of the transfer function (``"arib-std-b67"``).
        problem: The container's own complaint when it cannot be read at all, else empty.
    """

    size: tuple[int, int] | None = None
    seconds: float | None = None
    frames: int = 0
    rotation: float = 0.0
    codec: str | None = None
    bits: int = 8
    primaries: str | None = None
    transfer: str | None = None
    problem: str = ""

    @property
    def hdr(self) -> str | None:
        """``"HLG"`` or ``"PQ"`` for high dynamic range, else None."""
        return HDR_TRANSFERS.get(self.transfer or "")

    @property
    def wide_gamut(self) -> bool:
        """Whether the colours are BT.2020, which a screen with sRGB would show too pale."""
        return self.hdr is not None or self.primaries == "bt2020"


def probe(path: Path) -> VideoInfo:
    """Describe a video file; an empty description when ffmpeg cannot or does not in time."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner"]
    command += ["-i", str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return VideoInfo(problem="it takes too long to open")
    found = parse_description(done.stderr.decode("utf-8", "replace"))
    # ffmpeg goes by the ending and misses the index in any text that is called .mp4, too.
    return found if _is_container(path) else dataclasses.replace(found, problem="")


def parse_description(text: str) -> VideoInfo:
    """Parse what ``ffmpeg -i FILE`` writes."""
    length = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    seconds = None
    if length:
        hours, minutes, rest = length.groups()
        seconds = 3600.0 * int(hours) + 60.0 * int(minutes) + float(rest)
    line = _video_line(text)
    found = re.search(r"[ ,](\d{2,5})x(\d{2,5})[ ,\n]", line + "\n")
    size = (int(found[1]), int(found[2])) if found else None
    turned = re.search(r"rotation of (-?[\d.]+) degrees", text)
    rotation = float(turned[1]) if turned else 0.0
    if size and round(rotation / 90) % 2:
        size = (size[1], size[0])
    rate = re.search(r"([\d.]+) fps", line)
    frames = round((seconds or 0.0) * float(rate[1])) if rate else 0
    codec = re.search(r"Video: (\w+)", line)
    depth = re.search(r"\b[a-z]+\d*p(\d\d)(?:le|be)\b", line)
    primaries, transfer = _colour(line)
    return VideoInfo(
        size, seconds, frames, rotation, codec[1] if codec else None,
        int(depth[1]) if depth else 8, primaries, transfer, _problem(text),
    )  # fmt: skip


def _video_line(text: str) -> str:
    """The line of the stream that is decoded: cover pictures of the file are none."""
    lines = [part for part in text.splitlines() if " Video: " in part]
    return next((part for part in lines if "attached pic" not in part), "")


def _colour(line: str) -> tuple[str | None, str | None]:
    """Primaries and transfer out of ``yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67)``.

    ffmpeg writes one name when matrix, primaries and transfer have the same.
    """
    three = re.search(r"[(,] ?[\w-]+/([\w-]+)/([\w-]+)[,)]", line)
    if three:
        names = [None if name in ("unknown", "reserved") else name for name in three.groups()]
        return names[0], names[1]
    one = re.search(r"\((?:(?:tv|pc), ?)?(bt709|bt2020|smpte170m)[,)]", line)
    return (one[1], one[1]) if one else (None, None)


def _is_container(path: Path) -> bool:
    """Whether the file begins as MP4 and MOV do (ISO 14496-12: a box's size, then its type)."""
    with open(path, "rb") as handle:
        return handle.read(8)[4:] in _FIRST_BOXES


def _problem(text: str) -> str:
    if "moov atom not found" in text:
        return "it was cut off while being written or copied (its index is missing)"
    return ""
