"""Does stereo depth help stage I, and does it ever hurt? True cameras, our own masks and depth.

    python benchmarks/guidance.py --data ../shared/data --out /tmp/guidance [--only lps f2 lps-12]

For every case (a capture, or a capture cut down to so many views: ``lps-12``) stage I runs once per
way of guidance and is measured on its way, at ``--milestones``:

* ``none``: no stereo at all (``weight_mvs=0``);
* ``faded``: as the fast presets do, weighted by confidence and faded to zero;
* ``constant``: weighted by confidence, never faded (``mvs_until=0``).

Distances are percent of the true bounding box's diagonal, from points of the true surface that a
camera sees to the result (``evaluation/surface.py``). Also judges the depth maps themselves.
Finished runs are read back from ``guidance.json``: delete it to start over.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mcubes
import numpy as np
import torch

from toonify3d.capture.depth import compute_depth
from toonify3d.capture.depth_settings import DepthSettings
from toonify3d.capture.mask_settings import MaskSettings
from toonify3d.capture.masks import compute_masks
from toonify3d.evaluation.ground_truth import ground_truth_mesh, scene_from_ground_truth
from toonify3d.evaluation.surface import evaluate_surface
from toonify3d.files import write_image, write_json
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery
from toonify3d.scene import Frame, Scene, SurfaceMesh
from toonify3d.snr.prior import Prior
from toonify3d.training.settings import PRESETS, PriorSettings
from toonify3d.training.stage1 import PriorTrainer
from toonify3d.training.stage1_preview import foreground_psnr

WAYS: dict[str, dict[str, float]] = {
    "none": {"weight_mvs": 0.0},
    "faded": {},
    "constant": {"mvs_until": 0.0},
}
RESOLUTION = 192
SHARES = (0.5, 0.6, 0.7, 0.8)


def prepare(
    capture: Path, root: Path, views: int | None
) -> tuple[Scene, list[Frame], dict[str, Any]]:
    """Scene with true cameras, our masks (of all frames) and our depth (of the chosen views).

    Also the frames to measure the PSNR on when stage I holds none out itself (few views).
    """
    name = capture.name
    whole = root / name
    if not (whole / "cameras.json").exists():
        _with_own_masks(scene_from_ground_truth(capture, whole))
    scene, unseen = Scene.load(whole), []
    if views is not None:
        chosen = np.linspace(0, len(scene.frames), views, endpoint=False).astype(int)
        part = root / f"{name}-{views}"
        part.mkdir(parents=True, exist_ok=True)
        for folder in ("frames", "masks"):
            if not (part / folder).exists():
                (part / folder).symlink_to((whole / folder).resolve())
        frames = [scene.frames[i] for i in chosen]
        between = len(scene.frames) // (2 * views)
        unseen = [scene.frames[i + between] for i in chosen[:: max(1, views // 4)]]
        scene = Scene(part, frames, scene.normalization, scene.landmarks, scene.crop_z)
        scene.save()
    progress, seconds = SilentProgress(), 0.0
    if not (scene.root / "depth").is_dir():
        started = time.process_time()
        compute_depth(scene, DepthSettings(), "cpu", progress)
        seconds = time.process_time() - started
    figures = judge_depth(scene, capture) | {"cpu_s": seconds, "warnings": progress.warnings}
    return scene, unseen, figures


def _with_own_masks(scene: Scene) -> None:
    images = [scene.image(frame) for frame in scene.frames]
    cameras = [frame.camera for frame in scene.frames]
    masks = compute_masks(images, cameras, None, MaskSettings(), SilentProgress())
    for frame, mask in zip(scene.frames, masks, strict=True):
        write_image(scene.root / "masks" / f"{frame.name}.png", mask)


def judge_depth(scene: Scene, capture: Path) -> dict[str, Any]:
    """Errors of the maps in percent of the diagonal, also at the most confident shares."""
    mesh = ground_truth_mesh(capture)
    diagonal = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    caster = MeshQuery(mesh.vertices, mesh.faces)
    errors, trust, total, maps = [], [], 0, 0
    for frame in scene.frames:
        stored = scene.depth(frame)
        if stored is None:
            continue
        depth, confidence = stored
        true = caster.depth(frame.camera.resized(depth.shape[1], depth.shape[0]))
        both = (depth > 0) & (true > 0)
        errors.append(100.0 * (depth - true)[both] / diagonal)
        trust.append(confidence[both])
        total += int((true > 0).sum())
        maps += 1
    if not maps:
        return {"maps": 0}
    error, order = np.concatenate(errors), np.argsort(-np.concatenate(trust), kind="stable")
    out: dict[str, Any] = {"maps": maps, "completeness": len(error) / total}
    for share in SHARES:
        part = error[order[: int(share * total)]]
        if len(part) >= int(share * total):
            out[f"most confident {share:.0%} of the foreground"] = {
                "median": float(np.median(np.abs(part))),
                "p90": float(np.percentile(np.abs(part), 90)),
                "signed_median": float(np.median(part)),
            }
    return out


class Watcher(SilentProgress):
    """Measures the trainer it watches when it passes a milestone."""

    def __init__(self, milestones: list[int], unseen: list[Frame], truth: Path) -> None:
        super().__init__()
        self.milestones, self.unseen, self.truth = milestones, unseen, truth
        self.trainer: PriorTrainer | None = None
        self.rows: list[dict[str, float]] = []
        self.away = 0.0
        self.started = time.process_time()

    def update(self, fraction: float, message: str = "") -> None:
        trainer = self.trainer
        if trainer is None or not self.milestones or trainer.step < self.milestones[0]:
            return
        self.milestones.pop(0)
        began = time.process_time()
        row = measure(trainer, trainer.heldout or self.unseen, self.truth)
        self.rows.append(row | {"cpu_s": began - self.started - self.away})
        self.away += time.process_time() - began
        print("   ", {name: round(value, 4) for name, value in self.rows[-1].items()}, flush=True)


def measure(trainer: PriorTrainer, frames: list[Frame], truth: Path) -> dict[str, float]:
    scene, guide = trainer.scene, trainer.guide
    kept = guide.values.clone()
    with torch.no_grad():
        guide.refresh(trainer.prior.sdf)
    psnr = np.mean([foreground_psnr(trainer.prior, guide, scene, frame) for frame in frames])
    guide.values.copy_(kept)
    report = evaluate_surface(mesh_of(trainer.prior, scene), scene, truth, 40_000)
    seen, ours = report["truth_to_result"]["visible"], report["result_to_truth"]["all"]
    return {
        "step": float(trainer.step),
        "psnr": float(psnr),
        "median": seen["median"],
        "p95": seen["p95"],
        "mean": seen["mean"],
        "result_median": ours["median"],
    }


def mesh_of(prior: Prior, scene: Scene) -> SurfaceMesh:
    """Marching cubes with the field evaluated near its surface only; the largest piece."""
    import trimesh

    with torch.no_grad():
        axis = torch.linspace(-1.0, 1.0, 64)
        cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        coarse = prior.sdf(cube).reshape(1, 1, 64, 64, 64)
        size = (RESOLUTION,) * 3
        fine = torch.nn.functional.interpolate(
            coarse, size=size, mode="trilinear", align_corners=True
        )[0, 0]
        near = (fine.abs() < 0.06).nonzero()
        parts = near.split(1 << 17)
        values = [prior.sdf(part.float() * (2.0 / (RESOLUTION - 1)) - 1.0) for part in parts]
        fine[near[:, 0], near[:, 1], near[:, 2]] = torch.cat(values)
    vertices, faces = mcubes.marching_cubes(fine.numpy().astype(np.float64), 0.0)
    mesh = trimesh.Trimesh(vertices, faces[:, ::-1], process=False)
    largest = max(mesh.split(only_watertight=False), key=lambda piece: len(piece.faces))
    unit = np.asarray(largest.vertices) * (2.0 / (RESOLUTION - 1)) - 1.0
    return SurfaceMesh(scene.normalization.to_world(unit), np.asarray(largest.faces, np.int64))


def train(
    scene: Scene,
    unseen: list[Frame],
    settings: PriorSettings,
    folder: Path,
    milestones: list[int],
    truth: Path,
) -> list[dict[str, float]]:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sorted({step for step in milestones if step < settings.steps} | {settings.steps})
    watcher = Watcher(wanted, unseen, truth)
    watcher.trainer = PriorTrainer(scene, folder, settings, torch.device("cpu"), watcher)
    watcher.trainer.run()
    return watcher.rows


def table(document: dict[str, Any]) -> str:
    lines = [
        "| case | guidance | step | CPU s | median | p95 | PSNR |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for case, content in document.items():
        for way, rows in content["ways"].items():
            for row in rows:
                name = f"{case} | {way} | {row['step']:.0f} | {row['cpu_s']:.0f}"
                lines.append(
                    f"| {name} | {row['median']:.4f} | {row['p95']:.3f} | {row['psnr']:.2f} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["lps", "f2", "lps-12", "f2-12"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--preset", default="preview", choices=list(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--milestones", nargs="+", type=int, default=[200, 600, 1500])
    arguments = parser.parse_args()
    path = arguments.out / "guidance.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    for case in arguments.only:
        name, _, views = case.partition("-")
        capture = arguments.data / "captures" / name
        scene, unseen, depth = prepare(capture, arguments.out, int(views) if views else None)
        print(case, json.dumps(depth, indent=1), flush=True)
        content = document.setdefault(case, {"depth": depth, "ways": {}})
        for way in arguments.ways:
            label = way if arguments.seed == 0 else f"{way}, seed {arguments.seed}"
            if label in content["ways"]:
                continue
            print(case, label, flush=True)
            settings = replace(PRESETS[arguments.preset], seed=arguments.seed, refine_cameras=False)
            settings = replace(settings, **WAYS[way])
            folder = arguments.out / "runs" / f"{case}_{way}_{arguments.seed}"
            content["ways"][label] = train(
                scene, unseen, settings, folder, arguments.milestones, capture / "gt"
            )
            write_json(path, document)
    print(table(document))


if __name__ == "__main__":
    main()
