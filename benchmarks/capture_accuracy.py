"""Cameras and alignment of captures whose cameras are known, as a table and JSON.

    python benchmarks/capture_accuracy.py --data ../shared/data --out /tmp/capture [--only lps ...]

* ``lps``, ``f2``: 96 rendered frames with true cameras. Targets: all registered, rotation median
  0.15 degrees, centre median 0.3 % of the orbit's radius, 60 s on 2 cores, yaw within 3 degrees.
* ``skull``: 66 real photos against the poses that came with them (COLMAP's, from pictures 2.7 times
  as large). Targets: 64 registered, 0.3 degrees, 0.6 %.

Errors are after a similarity alignment of the camera centres by least squares. Processor seconds
are given beside the wall's: on a busy machine only they can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from toonify3d.capture.align import align, camera_yaw
from toonify3d.capture.cameras import SolvedCameras, moved, solve_cameras
from toonify3d.capture.landmarks import FaceLandmarker
from toonify3d.capture.posed import load_posed
from toonify3d.capture.settings import CaptureSettings
from toonify3d.capture.video import decode
from toonify3d.evaluation.ground_truth import ground_truth_cameras
from toonify3d.evaluation.surface import umeyama
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera


def compare(found: list[Camera], true: list[Camera]) -> dict[str, float]:
    """Rotation in degrees and centres in percent of the orbit's radius."""
    ours = np.stack([camera.center for camera in found])
    theirs = np.stack([camera.center for camera in true])
    similarity = umeyama(ours, theirs)
    rotation = similarity[:3, :3] / np.cbrt(np.linalg.det(similarity[:3, :3]))
    apart = np.linalg.norm(ours @ similarity[:3, :3].T + similarity[:3, 3] - theirs, axis=1)
    radius = float(np.median(np.linalg.norm(theirs - theirs.mean(0), axis=1)))
    turns = []
    for one, other in zip(found, true, strict=True):
        relative = (rotation @ one.c2w[:3, :3]).T @ other.c2w[:3, :3]
        turns.append(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))
    return {
        "rotation_median_deg": float(np.median(turns)),
        "rotation_max_deg": float(np.max(turns)),
        "centre_median_percent": 100 * float(np.median(apart)) / radius,
        "centre_max_percent": 100 * float(np.max(apart)) / radius,
    }


def solve(source: Path, settings: CaptureSettings) -> tuple[SolvedCameras, dict[str, Any]]:
    """Structure from motion of all frames, timed."""
    images = [image for _, image in decode(source, settings.long_side)]
    finer = None
    if source.is_dir():
        finer = (image for _, image in decode(source, settings.photo_side))
    progress = SilentProgress()
    started, before = time.monotonic(), os.times()
    with tempfile.TemporaryDirectory() as folder:
        solved = solve_cameras(
            images, Path(folder) / "sfm", settings, progress, source.is_file(), pictures=finer
        )
    after = os.times()
    figures = {
        "frames": len(images),
        "registered": len(solved.kept),
        "wall_s": time.monotonic() - started,
        "cpu_s": after.user + after.system - before.user - before.system,
        "reprojection_px": solved.error,
        "warnings": progress.warnings,
    }
    return solved, figures


def yaw_errors(solved: SolvedCameras, true: list[Camera]) -> dict[str, float]:
    """Yaw of every frame by the face against the truth (whose faces look along -Y)."""
    landmarker = FaceLandmarker()
    faces = [landmarker.detect(image) for image in solved.images]
    landmarker.close()
    alignment = align(solved.cameras, faces)
    if alignment is None:
        return {"yaw_max_deg": float("nan")}
    found = [camera_yaw(camera) for camera in moved(solved, alignment.similarity).cameras]
    apart = np.angle(np.exp(1j * (np.array(found) - [camera_yaw(camera) for camera in true])))
    return {
        "yaw_median_deg": float(np.degrees(np.median(np.abs(apart)))),
        "yaw_max_deg": float(np.degrees(np.abs(apart).max())),
        "face_views": alignment.views,
    }


def bench_rendered(folder: Path, settings: CaptureSettings) -> dict[str, Any]:
    solved, figures = solve(folder / "capture.mp4", settings)
    cameras = ground_truth_cameras(folder)
    true = [cameras[index] for index in solved.kept]
    return figures | compare(solved.cameras, true) | yaw_errors(solved, true)


def bench_photos(folder: Path, settings: CaptureSettings) -> dict[str, Any]:
    solved, figures = solve(folder / "images", settings)
    posed = load_posed(folder).images
    return figures | compare(solved.cameras, [posed[index].camera for index in solved.kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=("lps", "f2", "skull"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "capture_accuracy.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.only or ("lps", "f2", "skull"):
        settings = CaptureSettings()
        if name == "skull":
            results[name] = bench_photos(options.data / "photos_skull", settings)
        else:
            results[name] = bench_rendered(options.data / "captures" / name, settings)
        path.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(results[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
