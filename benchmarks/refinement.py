"""Do camera refinement and exposure compensation help stage I? True masks, spoiled inputs.

    python benchmarks/refinement.py --data ../shared/data --out /tmp/refinement [--steps 1000]

Every case runs stage I on ``lps`` with the same seed and without stereo:

* ``true``: true cameras, true colours; also with refinement on, which should do no harm;
* ``noisy cameras``: each turned by 0.1 degrees about a random axis and moved by 0.2 % of its
  distance from the head in a random direction; refinement off and on;
* ``focal length``: 0.5 % too long in all frames; refinement off and on;
* ``changing exposure``: each frame's brightness times a random gain of 0.9 to 1.1; compensation off
  and on; also on with true colours, which should do no harm.

Judged are the distance of the visible true surface to ours (percent of its box diagonal) and the
foreground PSNR of the held-out frames as they really are: true cameras, true colours. With
refinement also what is left of the cameras' errors, after the best common motion (their gauge).
A focal length that is too long makes the head too small: that shows in the distance.
Finished cases are read back from ``refinement.json``: delete it to start over.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from toonify3d.asset.pipeline import extract_mesh
from toonify3d.asset.settings import AssetSettings
from toonify3d.evaluation.ground_truth import scene_from_ground_truth
from toonify3d.evaluation.surface import evaluate_surface
from toonify3d.files import write_image, write_json
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera, FloatArray, Frame, Normalization, Scene
from toonify3d.training.settings import PRESETS
from toonify3d.training.stage1 import PriorTrainer
from toonify3d.training.stage1_preview import foreground_psnr

DEGREES, SHARE, GAIN, FOCAL = 0.1, 0.002, 0.1, 0.005
CELLS = AssetSettings(resolution=192, faces=0, face_detail=1.0)
SEED = 11


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        title: As it is printed.
        spoiled: What is wrong with the input: nothing, ``cameras``, ``focal`` or ``exposure``.
        settings: What differs from the preset.
    """

    title: str
    spoiled: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "true": Case("true"),
    "true_refined": Case("true, cameras refined", "", {"refine_cameras": True}),
    "cameras": Case("noisy cameras", "cameras"),
    "cameras_refined": Case("noisy cameras, refined", "cameras", {"refine_cameras": True}),
    "true_focal": Case("true, focal length refined", "", {"refine_focal": True}),
    "focal": Case("focal length 0.5 % too long", "focal"),
    "focal_refined": Case("the same, refined", "focal", {"refine_focal": True}),
    "focal_both": Case(
        "the same, cameras refined too", "focal", {"refine_focal": True, "refine_cameras": True}
    ),
    "true_exposure": Case("true, exposure compensated", "", {"refine_exposure": True}),
    "exposure": Case("changing exposure", "exposure"),
    "exposure_refined": Case(
        "changing exposure, compensated", "exposure", {"refine_exposure": True}
    ),
}


def noisy(scene: Scene) -> Scene:
    """The scene with its cameras turned and moved a little."""
    random = np.random.default_rng(SEED)
    frames = []
    for frame in scene.frames:
        axis, step = random.normal(size=(2, 3))
        turn = Rotation.from_rotvec(np.radians(DEGREES) * axis / np.linalg.norm(axis))
        c2w = frame.camera.c2w.copy()
        c2w[:3, :3] = turn.as_matrix() @ c2w[:3, :3]
        reach = np.linalg.norm(frame.camera.center - scene.normalization.center)
        c2w[:3, 3] += SHARE * reach * step / np.linalg.norm(step)
        camera = Camera(frame.camera.K, c2w, frame.camera.width, frame.camera.height)
        frames.append(Frame(frame.name, frame.source_index, camera, frame.yaw))
    return Scene(scene.root, frames, scene.normalization, scene.landmarks, scene.crop_z)


def too_long(scene: Scene) -> Scene:
    """The scene with a focal length that is too long by :data:`FOCAL`."""
    frames = []
    for frame in scene.frames:
        K = frame.camera.K.copy()
        K[[0, 1], [0, 1]] *= 1.0 + FOCAL
        camera = Camera(K, frame.camera.c2w, frame.camera.width, frame.camera.height)
        frames.append(replace(frame, camera=camera))
    return replace(scene, frames=frames)


def unevenly_exposed(scene: Scene, root: Path) -> Scene:
    """The scene with frames brightened and darkened at random, written under ``root``."""
    random = np.random.default_rng(SEED)
    (root / "frames").mkdir(parents=True, exist_ok=True)
    if not (root / "masks").exists():
        (root / "masks").symlink_to((scene.root / "masks").resolve())
    for frame in scene.frames:
        gain = random.uniform(1.0 - GAIN, 1.0 + GAIN)
        image = (scene.image(frame).astype(np.float64) * gain).round().clip(0, 255)
        write_image(root / "frames" / f"{frame.name}.png", image.astype(np.uint8))
    return Scene(root, scene.frames, scene.normalization, scene.landmarks, scene.crop_z)


def camera_errors(trainer: PriorTrainer, truth: Scene) -> dict[str, float]:
    """Median error of the training cameras as corrected.

    ``turn_deg`` and ``shift_percent`` (of the distance from the head) compare the poses after their
    mean turn and shift. A turn and a shift that undo each other in the picture cannot be told from
    it, so neither of them shows how well the cameras fit; ``pixels`` does: the distance in the
    image between points of the head seen by the true camera and by ours, after the motion and
    scaling of the whole world that makes it least (the gauge). ``focal_percent`` is signed.
    """
    frames = trainer.training
    ours = trainer.corrections.corrected([f.camera for f in frames], truth.normalization)
    by_name = {frame.name: frame.camera for frame in truth.frames}
    true = [by_name[frame.name] for frame in frames]
    turns = [
        Rotation.from_matrix(a.c2w[:3, :3] @ b.c2w[:3, :3].T).as_rotvec()
        for a, b in zip(ours, true, strict=True)
    ]
    moves = [
        (a.center - b.center) / np.linalg.norm(b.center - truth.normalization.center)
        for a, b in zip(ours, true, strict=True)
    ]
    focal = [a.K[0, 0] / b.K[0, 0] - 1.0 for a, b in zip(ours, true, strict=True)]
    return {
        "turn_deg": float(np.degrees(_median_length(np.array(turns)))),
        "shift_percent": 100.0 * _median_length(np.array(moves)),
        "pixels": pixel_error(ours, true, truth.normalization),
        "focal_percent": 100.0 * float(np.median(focal)),
    }


def _median_length(vectors: FloatArray) -> float:
    return float(np.median(np.linalg.norm(vectors - vectors.mean(0), axis=1)))


def pixel_error(ours: list[Camera], true: list[Camera], normalization: Normalization) -> float:
    """Median distance in pixels, see :func:`camera_errors`."""
    points = 0.4 * normalization.radius * _ball(40) + normalization.center

    def seen(motion: FloatArray) -> FloatArray:
        turn = Rotation.from_rotvec(motion[:3]).as_matrix()
        center = normalization.center
        moved = np.exp(motion[6]) * (points - center) @ turn.T + center + motion[3:6]
        return np.concatenate([camera.project(moved)[0] for camera in ours])

    wanted = np.concatenate([camera.project(points)[0] for camera in true])
    motion = np.zeros(7)
    for _ in range(3):  # Gauss-Newton; the errors are small, so it is nearly linear
        here = seen(motion)
        columns = [(seen(motion + step) - here).ravel() / 1e-5 for step in 1e-5 * np.eye(7)]
        motion += np.linalg.lstsq(np.stack(columns, 1), (wanted - here).ravel(), rcond=None)[0]
    return float(np.median(np.linalg.norm(wanted - seen(motion), axis=1)))


def _ball(count: int) -> FloatArray:
    directions = np.random.default_rng(0).normal(size=(count, 3))
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


class Bench:
    """The scenes and settings that the cases share.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.out: Path = options.out
        self.capture: Path = options.data / "captures" / "lps"
        root = self.out / "scene"
        done = (root / "cameras.json").exists()
        self.scene = Scene.load(root) if done else scene_from_ground_truth(self.capture, root)
        self.settings = replace(
            PRESETS[options.preset],
            weight_mvs=0.0,
            refine_cameras=False,
            preview_seconds=1e9,
            seed=options.seed,
        )
        self.rate: float = options.rate or self.settings.lr_cameras
        if options.steps:
            self.settings = replace(self.settings, steps=options.steps)

    def run(self, name: str) -> dict[str, Any]:
        """Train and judge one case."""
        case, scene = CASES[name], self.scene
        if case.spoiled == "cameras":
            scene = noisy(scene)
        elif case.spoiled == "focal":
            scene = too_long(scene)
        elif case.spoiled == "exposure":
            scene = unevenly_exposed(scene, self.out / "exposure")
        settings = replace(self.settings, **case.settings, lr_cameras=self.rate)
        folder = self.out / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        started = time.process_time()
        trainer = PriorTrainer(scene, folder, settings, torch.device("cpu"), SilentProgress())
        before = camera_errors(trainer, self.scene)
        prior = trainer.run()
        seconds = time.process_time() - started
        mesh = extract_mesh(prior, scene, CELLS, SilentProgress())
        figures = evaluate_surface(mesh, scene, self.capture / "gt", samples=20_000)
        held = {frame.name for frame in trainer.heldout}
        psnr = [
            foreground_psnr(prior, trainer.guide, self.scene, frame)
            for frame in self.scene.frames
            if frame.name in held
        ]
        seen = figures["truth_to_result"]["visible"]
        return {
            "title": case.title,
            "steps": settings.steps,
            "median": seen["median"],
            "p95": seen["p95"],
            "psnr": float(np.mean(psnr)),
            "cameras_before": before,
            "cameras_after": camera_errors(trainer, self.scene),
            "cpu_s": round(seconds, 1),
        }


def table(document: dict[str, Any]) -> str:
    """The finished cases as Markdown."""
    lines = [
        "| case | truth to ours, median | 95 % | PSNR, dB | cameras' turn, ° | shift, % | pixels |"
        " focal, % | CPU s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in (document[name] for name in CASES if name in document):
        after = row["cameras_after"]
        lines.append(
            f"| {row['title']} | {row['median']:.3f} | {row['p95']:.3f} | {row['psnr']:.2f} |"
            f" {after['turn_deg']:.3f} | {after['shift_percent']:.3f} | {after['pixels']:.2f} |"
            f" {after['focal_percent']:+.2f} | {row['cpu_s']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="preview", choices=list(PRESETS))
    parser.add_argument("--steps", type=int, default=0, help="instead of the preset's")
    parser.add_argument("--rate", type=float, default=0.0, help="instead of prior.lr_cameras")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    path = options.out / "refinement.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    bench = Bench(options)
    for name in options.only:
        if name not in document:
            document[name] = bench.run(name)
            write_json(path, document)
            print(name, json.dumps(document[name]), flush=True)
    print(table(document))


if __name__ == "__main__":
    main()
