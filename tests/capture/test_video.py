"""Decoding and its errors, on videos made here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from toonify3d.capture import video
from toonify3d.errors import InputError
from toonify3d.files import write_image


def numbered_frame(index: int, width: int, height: int) -> np.ndarray:
    """A smooth picture whose brightness tells its number; left half darker than the right."""
    image = np.full((height, width, 3), 20 + 5 * index, np.uint8)
    image[:, width // 2 :] += 60
    return image


def make_video(path: Path, count: int, width: int = 96, height: int = 64, *extra: str) -> Path:
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=12, codec="libx264", quality=9, macro_block_size=1,
        output_params=list(extra), ffmpeg_log_level="error",
    )  # fmt: skip
    writer.send(None)
    for index in range(count):
        writer.send(np.ascontiguousarray(numbered_frame(index, width, height)))
    writer.close()
    return path


def ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *arguments]
    subprocess.run(command, check=True, timeout=60)


def code_of(source: Path) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        video.check_source(source)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return caught.value.code, message


def test_every_frame_comes_in_order(tmp_path):
    path = make_video(tmp_path / "clip.mp4", 30)
    decoded = list(video.decode(path, 1000))
    assert [index for index, _ in decoded] == list(range(30))
    assert all(image.shape == (64, 96, 3) for _, image in decoded)
    levels = [float(image[:, :40].mean()) for _, image in decoded]
    np.testing.assert_allclose(levels, 20 + 5 * np.arange(30), atol=4)


def test_gray_frames_have_the_same_brightness(tmp_path):
    path = make_video(tmp_path / "clip.mp4", 14)
    for (_, color), (_, gray) in zip(
        video.decode(path, 96), video.decode(path, 96, gray=True), strict=True
    ):
        assert gray.shape == (64, 96)
        assert abs(float(gray.mean()) - float(color.mean())) < 12  # limited range counts a little


def test_large_frames_are_scaled_down_and_small_ones_kept(tmp_path):
    path = make_video(tmp_path / "clip.mp4", 12, 96, 64)
    assert next(iter(video.decode(path, 48)))[1].shape == (32, 48, 3)
    assert next(iter(video.decode(path, 400)))[1].shape == (64, 96, 3)


def test_rotation_metadata_turns_the_frames(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", 12)
    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", str(plain), "-c", "copy", str(turned))
    frame = next(iter(video.decode(turned, 400)))[1]
    assert frame.shape == (96, 64, 3)
    # Turned counter-clockwise: what was on the right (bright) is now at the top.
    assert frame[:40].mean() > frame[-40:].mean() + 30


def test_variable_frame_rate_keeps_every_frame_once(tmp_path):
    plain = make_video(tmp_path / "plain.mp4", 24)
    uneven = tmp_path / "uneven.mkv"
    ffmpeg(
        "-i", str(plain), "-vf", "setpts='PTS*(1+0.5*mod(N,3))'", "-fps_mode", "vfr", str(uneven)
    )
    expected = sum(1 for _ in video.decode(uneven, 96))
    levels = [image[:, :40].mean() for _, image in video.decode(uneven, 96)]
    assert expected >= 12 and np.all(np.diff(levels) > 2)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_truncated_video_gives_its_whole_part(tmp_path, share):
    path = make_video(tmp_path / "clip.ts", 60, 96, 64, "-g", "6", "-f", "mpegts")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    count = sum(1 for _ in video.decode(path, 96))
    assert 0.3 * share * 60 < count < 60


def test_missing_file(tmp_path):
    code, message = code_of(tmp_path / "nothing.mp4")
    assert code == "missing" and "nothing.mp4" in message


@pytest.mark.parametrize("content", [b"", b"this is no video", bytes(range(256)) * 40])
def test_not_a_video(tmp_path, content):
    path = tmp_path / "note.mp4"
    path.write_bytes(content)
    code, message = code_of(path)
    assert code == "not_a_video" and "note.mp4" in message


def test_damaged_headers_never_hang_or_trace(tmp_path):
    data = bytearray(make_video(tmp_path / "clip.mp4", 14).read_bytes())
    rng = np.random.default_rng(0)
    for trial in range(4):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 40 * (trial + 1)):
            broken[place] = int(rng.integers(0, 256))
        path = tmp_path / f"broken{trial}.mp4"
        path.write_bytes(broken)
        try:
            frames = list(video.decode(path, 96))
        except InputError as error:
            assert error.code == "not_a_video"
        else:
            assert 0 < len(frames) <= 20


def test_short_video_says_how_many_frames(tmp_path):
    code, message = code_of(make_video(tmp_path / "short.mp4", 3))
    assert code == "too_few_frames" and " 3 frames" in message


def test_long_enough_video_passes(tmp_path):
    video.check_source(make_video(tmp_path / "clip.mp4", 12))


def write_folder(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    for index, (width, height) in enumerate(sizes):
        write_image(folder / f"{index + 1}.png", numbered_frame(index, width, height))
    return folder


def test_image_folder_in_natural_order(tmp_path):
    folder = write_folder(tmp_path / "images", [(60, 40)] * 14)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"junk")
    video.check_source(folder)
    levels = [int(image[0, 0, 0]) for _, image in video.decode(folder, 100)]
    assert levels == [20 + 5 * index for index in range(14)]


def test_mixed_sizes_are_named(tmp_path):
    folder = write_folder(tmp_path / "images", [(60, 40)] * 12 + [(40, 60)])
    with pytest.raises(InputError) as caught:
        list(video.decode(folder, 100))
    assert caught.value.code == "mixed_sizes"
    assert "60 x 40" in str(caught.value) and "13.png is 40 x 60" in str(caught.value)


def test_damaged_image_is_named(tmp_path):
    folder = write_folder(tmp_path / "images", [(60, 40)] * 12)
    (folder / "1.png").write_bytes(b"\x89PNG not really")
    code, message = code_of(folder)
    assert code == "unreadable_image" and "1.png" in message


def test_empty_folder(tmp_path):
    code, message = code_of(tmp_path)
    assert code == "too_few_frames" and "no images" in message


def test_exif_orientation_is_applied(tmp_path):
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(numbered_frame(0, 60, 40))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it upright
    path = tmp_path / "turned.jpg"
    picture.save(path, exif=exif, quality=95)
    upright = video.read_image(path)
    assert upright.shape == (60, 40, 3)
    assert upright[-20:].mean() > upright[:20].mean() + 30


def test_shrink_never_enlarges():
    image = np.zeros((30, 50, 3), np.uint8)
    assert video.shrink(image, 100) is image
    assert video.shrink(image, 25).shape == (15, 25, 3)
