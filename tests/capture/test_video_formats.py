"""Videos as phones make them, and as broken copies leave them: all made here with ffmpeg."""

from __future__ import annotations

import itertools
import subprocess
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from toonify3d.capture import tone, video
from toonify3d.capture.probe import parse_description, probe
from toonify3d.errors import InputError

# Signal values in BT.2020 of the patches that the HDR clips show.
PATCHES = {
    "HLG": ((0.5, 0.5, 0.5), (0.75, 0.75, 0.75), (0.55, 0.45, 0.40), (1.0, 1.0, 1.0)),
    "PQ": ((0.38, 0.38, 0.38), (0.58, 0.58, 0.58), (0.50, 0.44, 0.40), (0.7, 0.2, 0.2)),
    "SDR": ((0.25, 0.25, 0.25), (0.75, 0.75, 0.75), (0.70, 0.50, 0.45), (0.8, 0.3, 0.2)),
}
TRANSFERS = {"HLG": "arib-std-b67", "PQ": "smpte2084", "SDR": "bt2020-10"}


def ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *arguments]
    subprocess.run(command, check=True, timeout=60)


def moving_clip(path: Path, *output: str, count: int = 20, size: str = "160x96") -> Path:
    """A test picture that changes with every frame, with a tone beside it."""
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=24", "-f", "lavfi", "-i", "sine",
        "-frames:v", str(count), "-shortest", *output, str(path),
    )  # fmt: skip
    return path


CODECS = {
    "h264.mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac"),
    "h264.mov": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none:pools=1", "-tag:v", "hvc1"),
    "hevc10.mov": ("-c:v", "libx265", "-x265-params", "log-level=none:pools=1",
                   "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1"),
    "h264_10bit.mkv": ("-c:v", "libx264", "-pix_fmt", "yuv420p10le"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "1M", "-c:a", "libvorbis"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-an"),
}  # fmt: skip


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_and_container_gives_all_frames(name, tmp_path):
    clip = moving_clip(tmp_path / name, *CODECS[name])
    video.check_source(clip)
    frames = list(video.decode(clip, 80))
    assert [index for index, _ in frames] == list(range(20))
    assert all(frame.shape == (48, 80, 3) for _, frame in frames)
    moved = [float(np.abs(a[1].astype(int) - b[1]).mean()) for a, b in itertools.pairwise(frames)]
    assert min(moved) > 0.2 and frames[0][1].std() > 40
    info = probe(clip)
    assert info.size == (160, 96) and info.frames in range(18, 31)
    assert info.bits == (10 if "10" in name else 8) and info.hdr is None
    assert info.codec == name.split(".")[0].removesuffix("_10bit").removesuffix("10")


def test_every_nth_frame_is_the_same_frame_as_before(tmp_path):
    clip = moving_clip(tmp_path / "clip.mp4", *CODECS["h264.mp4"])
    every = dict(video.decode(clip, 80))
    third = dict(video.decode(clip, 80, every=3))
    assert list(third) == [0, 3, 6, 9, 12, 15, 18]
    for index, frame in third.items():
        np.testing.assert_array_equal(frame, every[index])


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("name", ["h264.mp4", "hevc10.mov"])
def test_rotation_metadata(name, degrees, tmp_path):
    plain = moving_clip(tmp_path / name, *CODECS[name], count=12)
    turned = tmp_path / f"turned{plain.suffix}"
    ffmpeg("-display_rotation", str(degrees), "-i", str(plain), "-c", "copy", str(turned))
    flat = next(iter(video.decode(plain, 160)))[1]
    upright = next(iter(video.decode(turned, 160)))[1]
    expected = np.rot90(flat, degrees // 90)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 6
    assert probe(turned).size == expected.shape[1::-1]


def hdr_clip(folder: Path, kind: str) -> Path:
    """Vertical bars of the patches, 10 bits, tagged as phones tag them."""
    bars = np.repeat(np.array(PATCHES[kind]), 32, axis=0)
    picture = (np.broadcast_to(bars, (64, 128, 3)) * 65535).round().astype("<u2")
    raw, clip = folder / "raw", folder / f"{kind}.mov"
    raw.write_bytes(picture.tobytes() * 13)
    tags = f"colorprim=bt2020:transfer={TRANSFERS[kind]}:colormatrix=bt2020nc"
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "128x64", "-r", "24", "-i", str(raw),
        "-vf", "scale=out_color_matrix=bt2020:out_range=tv", "-pix_fmt", "yuv420p10le",
        "-c:v", "libx265", "-crf", "4", "-tag:v", "hvc1",
        "-x265-params", f"log-level=none:pools=1:range=limited:{tags}", str(clip),
    )  # fmt: skip
    return clip


@pytest.mark.parametrize("kind", PATCHES)
def test_high_dynamic_range_is_tone_mapped_as_the_standards_say(kind, tmp_path):
    clip = hdr_clip(tmp_path, kind)
    info = probe(clip)
    assert info.wide_gamut and info.bits == 10
    assert info.hdr == (None if kind == "SDR" else kind)
    frame = next(iter(video.decode(clip, 128)))[1]
    gray = next(iter(video.decode(clip, 128, gray=True)))[1]
    for place, patch in enumerate(PATCHES[kind]):
        shown = frame[20:44, 32 * place + 8 : 32 * place + 24].reshape(-1, 3).mean(0)
        expected = 255 * tone.to_srgb(np.array(patch), kind)
        # Chroma subsampling, compression, and the table's interpolation.
        np.testing.assert_allclose(shown, expected, atol=6)
        light = gray[20:44, 32 * place + 8 : 32 * place + 24].mean()
        assert abs(light - shown @ (0.299, 0.587, 0.114)) < 20


def test_reference_levels_of_the_standards():
    # BT.2408: 75 % HLG and 58 % PQ are paper white, 203 cd/m2; 100 % HLG is the peak.
    assert tone.hlg_light(np.full(3, 0.75))[0] == pytest.approx(203, rel=0.01)
    assert tone.hlg_light(np.ones(3))[0] == pytest.approx(1000, rel=1e-3)
    assert tone.pq_light(np.full(3, 0.5807))[0] == pytest.approx(203, rel=0.01)
    assert tone.pq_light(np.ones(3))[0] == pytest.approx(10000, rel=1e-6)
    np.testing.assert_allclose(tone.BT2020_TO_709.sum(1), 1.0, atol=1e-3)  # white stays white


@pytest.mark.parametrize("kind", PATCHES)
def test_tone_mapping_keeps_greys_grey_and_order(kind):
    steps = np.linspace(0, 1, 200)
    out = tone.to_srgb(np.repeat(steps[:, None], 3, axis=1), kind)
    assert np.ptp(out, axis=1).max() < 2e-3
    assert (np.diff(out[:, 0]) >= -1e-9).all() and out[0, 0] < 0.01 and out[-1, 0] > 0.99
    random = tone.to_srgb(np.random.default_rng(0).uniform(0, 1, (5000, 3)), kind)
    assert random.min() >= 0 and random.max() <= 1 and np.isfinite(random).all()


def test_the_table_is_close_to_the_formula():
    for kind in PATCHES:
        rows = np.array(
            [line.split() for line in tone.cube_file(kind).splitlines()[1:]], np.float64
        )
        size = tone.TABLE_SIZE
        table = rows.reshape(size, size, size, 3)  # blue, green, red
        middle = (table[:-1, :-1, :-1] + table[1:, 1:, 1:]) / 2  # on the diagonal of each cell
        at = (np.arange(size - 1) + 0.5) / (size - 1)
        blue, green, red = np.meshgrid(at, at, at, indexing="ij")
        exact = tone.to_srgb(np.stack([red, green, blue], axis=-1), kind)
        assert np.abs(middle - exact).mean() < 0.006


def test_descriptions_of_phones():
    hlg = (
        "  Duration: 00:00:24.03, start: 0.0, bitrate: 25 kb/s\n"
        "  Stream #0:0(und): Video: mjpeg, yuvj420p(pc), 640x360, 90k tbr (attached pic)\n"
        "  Stream #0:1[0x1](und): Video: hevc (Main 10) (hvc1 / 0x31637668), yuv420p10le(tv, "
        "bt2020nc/bt2020/arib-std-b67, progressive), 3840x2160, 26 kb/s, 29.98 fps, 30 tbr\n"
        "      Display Matrix: rotation of -90.00 degrees\n"
    )
    info = parse_description(hlg)
    assert (info.size, info.hdr, info.bits) == ((2160, 3840), "HLG", 10)
    assert info.codec == "hevc" and info.rotation == -90 and info.frames == 720
    plain = "  Stream #0:0: Video: h264 (High), yuv420p(tv, bt709, progressive), 1920x1080, 30 fps"
    info = parse_description(plain)
    assert (info.primaries, info.hdr, info.wide_gamut) == ("bt709", None, False)


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "h264_10bit.mkv", "vp8.webm"])
def test_truncated_files_give_their_whole_part_or_say_why(name, tmp_path):
    extra = ("-movflags", "+faststart") if name.endswith("mp4") else ()
    whole = moving_clip(tmp_path / name, *CODECS[name], "-g", "8", *extra, count=48)
    true = dict(video.decode(whole, 160))
    data = whole.read_bytes()
    cut = tmp_path / f"cut{whole.suffix}"
    for share in (0.95, 0.7):
        cut.write_bytes(data[: int(share * len(data))])
        frames = dict(video.decode(cut, 160))
        assert 0.4 * share * 48 < len(frames) < 48
        # No half decoded picture at the end: all are as in the whole file (the last may have come
        # before pictures that are shown earlier and are lost, so its number may be less).
        for i, frame in frames.items():
            near = [true[j] for j in range(i, min(i + 6, 48))]
            assert min(np.abs(frame.astype(int) - other).mean() for other in near) < 2


def test_a_recording_without_its_index_is_explained(tmp_path):
    clip = moving_clip(tmp_path / "clip.mp4", *CODECS["h264.mp4"], count=40)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(InputError, match="index is missing") as caught:
        video.check_source(clip)
    assert caught.value.code == "not_a_video"


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "h264_10bit.mkv", "vp9.webm"])
def test_random_damage_never_traces_back_or_hangs(name, tmp_path):
    data = moving_clip(tmp_path / name, *CODECS[name], count=24).read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / f"broken.{name.split('.')[1]}"
    for trial in range(6):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 3 * 4**trial):
            broken[place] = int(rng.integers(0, 256))
        if trial % 2:
            del broken[int(rng.integers(0, len(data))) :]
        path.write_bytes(broken)
        started = time.monotonic()
        try:
            frames = [frame for _, frame in video.decode(path, 96)]
        except InputError as error:
            assert error.code == "not_a_video" and "\n" not in str(error)
        else:
            assert frames and len({frame.shape for frame in frames}) == 1
        assert time.monotonic() - started < 40


def test_a_stalling_decoder_is_given_up(tmp_path, monkeypatch):
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeper.chmod(0o755)
    clip = moving_clip(tmp_path / "clip.mp4", *CODECS["h264.mp4"], count=12)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(sleeper))
    monkeypatch.setattr(video, "STALLED", 0.3)
    monkeypatch.setattr("toonify3d.capture.probe.PROBE_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(InputError, match="takes too long to open"):
        list(video.decode(clip, 96))
    assert time.monotonic() - started < 10


def test_a_sound_file_is_no_video(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", str(tmp_path / "sound.m4a"))
    with pytest.raises(InputError) as caught:
        video.check_source(tmp_path / "sound.m4a")
    assert caught.value.code == "not_a_video"
