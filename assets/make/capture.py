"""The demo capture: a hand-held turn round a person sitting in a room, as an H.264 video."""

from __future__ import annotations

import time
from pathlib import Path

import bpy
import imageio.v2 as imageio
import numpy as np
from blender import add_camera, bake_light, look_at, new_scene, render, set_render
from clothes import Sweater
from fields import Array
from hair import HairStyle
from head import Person
from person import Finish, add_person
from room import build_room

WIDTH, HEIGHT, FRAMES, FPS, SAMPLES = 432, 576, 96, 15, 8
BAKE_SAMPLES = 2
LENS = 1.38  # focal length over picture height


def camera_path(frame: int) -> tuple[Array, Array, float]:
    """Place, target (metres) and roll (radians) of the hand-held camera."""
    t = frame / FRAMES
    turn = 2 * np.pi * t + 0.035 * np.sin(6 * np.pi * t + 0.4) - 0.035 * np.sin(0.4)

    def sway(seed: int, slow: float, fast: float) -> float:
        phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, 4)
        waves = slow * np.sin(2 * np.pi * t * np.array([1, 2]) + phase[:2])
        jitter = fast * np.sin(2 * np.pi * t * np.array([7, 17]) + phase[2:])
        return float(waves.sum() + jitter.sum())

    radius = 1.0 + sway(1, 0.03, 0.006)
    height = 0.02 + sway(2, 0.045, 0.006)
    place = np.array([radius * np.sin(turn), -radius * np.cos(turn), height])
    target = np.array([sway(3, 0.008, 0.004), sway(4, 0.008, 0.004), -0.045 + sway(5, 0.01, 0.005)])
    return place, target, sway(6, 0.012, 0.006)


def build_scene(folder: Path, threads: int = 0) -> None:
    """Person and room with their light baked, kept as a file in ``folder`` to resume from."""
    file = folder / "scene.blend"
    if file.exists():
        bpy.ops.wm.open_mainfile(filepath=str(file))
    else:
        new_scene()
        set_render(WIDTH, HEIGHT, SAMPLES, threads)
        build_room()
        add_person(Person(), HairStyle(), Sweater(), Finish())
        bake_light(BAKE_SAMPLES)
        bpy.ops.wm.save_as_mainfile(filepath=str(file))
    set_render(WIDTH, HEIGHT, SAMPLES, threads)
    bpy.context.scene.cycles.use_denoising = False


def render_frames(folder: Path, frames: list[int], threads: int = 0) -> list[Path]:
    """Render those frames that are not in ``folder`` yet; returns the files of all."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:04d}.png" for i in frames]
    missing = [(i, f) for i, f in zip(frames, files, strict=True) if not f.exists()]
    if missing:
        build_scene(folder, threads)
        camera = add_camera(LENS)
    for done, (i, file) in enumerate(missing):
        start = time.process_time()
        camera.matrix_world = look_at(*camera_path(i))
        render(file)
        cost = time.process_time() - start
        print(f"frame {i} ({done + 1} of {len(missing)}): {cost:.1f} CPU s", flush=True)
    return files


def write_video(files: list[Path], target: Path, quality: int = 20) -> None:
    """Encode frames as H.264 (yuv420p), constant rate factor ``quality``."""
    part = target.with_name(f".{target.stem}.part.mp4")
    options = ["-crf", str(quality), "-preset", "slow", "-movflags", "+faststart"]
    with imageio.get_writer(
        part, fps=FPS, codec="libx264", pixelformat="yuv420p", quality=None,
        macro_block_size=2, output_params=options, ffmpeg_log_level="error",
    ) as writer:  # fmt: skip
        for file in files:
            writer.append_data(imageio.imread(file)[..., :3])
    part.replace(target)
