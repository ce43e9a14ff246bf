"""Masks and stereo depth against ray-cast truth, with true cameras, as JSON.

    python benchmarks/masks_depth.py --data ../shared/data --out /tmp/masks [--only lps f2]

The frames of the rendered captures with their true cameras; masks and depth are made as in a job.

* masks: intersection over union with the true silhouette, mean and worst frame (targets 0.975 and
  0.94), and the net bias: area too much or too little per pixel of outline, against the silhouette
  at four times the size, the pictures' borders left out.
* depth: at the most confident 60 % of the foreground, in percent of the diagonal of the true mesh's
  box (target 0.25); ``complete`` is the share of the foreground that has any.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from toonify3d.capture.depth import compute_depth
from toonify3d.capture.depth_settings import DepthSettings
from toonify3d.capture.mask_settings import MaskSettings
from toonify3d.capture.masks import compute_masks
from toonify3d.evaluation.ground_truth import ground_truth_mesh, scene_from_ground_truth
from toonify3d.evaluation.images import mask_iou
from toonify3d.files import write_image, write_json
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery
from toonify3d.scene import Camera, Scene

# The silhouette is cast at this multiple of the picture's size before its area is counted.
FINER = 4
# Part of the foreground, by confidence, whose depth is judged.
SHARE = 0.6

Floats = npt.NDArray[np.float32]


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def true_coverage(caster: MeshQuery, camera: Camera) -> Floats:
    """How much of every pixel the head covers, ``(H, W)`` 0 to 1."""
    fine = caster.depth(camera.resized(camera.width * FINER, camera.height * FINER)) > 0
    size = (camera.width, camera.height)
    return cv2.resize(fine.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def net_bias(mask: npt.NDArray[np.uint8], covered: Floats) -> float:
    """Area of the mask minus the true one, per pixel of true outline (pixels, outwards > 0)."""
    inside = (covered > 0.5).astype(np.uint8)
    outline = inside - cv2.erode(inside, np.ones((3, 3), np.uint8))
    border = np.ones(covered.shape, dtype=bool)
    border[5:-5, 5:-5] = False
    surplus = np.where(border, 0.0, mask / 255.0 - covered)
    return float(surplus.sum() / max(1, int((outline[5:-5, 5:-5] > 0).sum())))


def judge_masks(scene: Scene, caster: MeshQuery) -> dict[str, Any]:
    """Make masks with the true cameras, judge them, and leave them in the scene."""
    images = [scene.image(frame) for frame in scene.frames]
    cameras = [frame.camera for frame in scene.frames]
    progress, before = SilentProgress(), cpu_seconds()
    masks = compute_masks(images, cameras, None, MaskSettings(), progress)
    spent = cpu_seconds() - before
    covered = [true_coverage(caster, camera) for camera in cameras]
    overlap = [mask_iou(mask, truth) for mask, truth in zip(masks, covered, strict=True)]
    for frame, mask in zip(scene.frames, masks, strict=True):
        write_image(scene.root / "masks" / f"{frame.name}.png", mask)
    return {
        "frames": len(masks),
        "iou_mean": float(np.mean(overlap)),
        "iou_worst": float(np.min(overlap)),
        "worst_frame": scene.frames[int(np.argmin(overlap))].name,
        "net_bias_px": float(
            np.mean([net_bias(m, c) for m, c in zip(masks, covered, strict=True)])
        ),
        "cpu_s": spent,
        "warnings": progress.warnings,
    }


def judge_depth(scene: Scene, caster: MeshQuery, diagonal: float) -> dict[str, Any]:
    """Make depth from the scene's masks and compare it with the ray-cast one."""
    progress, before = SilentProgress(), cpu_seconds()
    compute_depth(scene, DepthSettings(), torch.device("cpu"), progress)
    spent, errors, complete = cpu_seconds() - before, [], []
    for frame in scene.frames:
        stored = scene.depth(frame)
        if stored is None:
            continue
        depth, confidence = stored
        truth = caster.depth(frame.camera.resized(depth.shape[1], depth.shape[0]))
        foreground, known = truth > 0, (truth > 0) & (depth > 0) & (confidence > 0)
        complete.append(float(known.sum() / foreground.sum()))
        wanted = min(int(known.sum()), int(SHARE * foreground.sum()))
        best = np.argsort(-confidence[known], kind="stable")[:wanted]
        errors.append((depth[known] - truth[known])[best] / diagonal * 100)
    signed = np.concatenate(errors)
    return {
        "maps": len(errors),
        "median_percent": float(np.median(np.abs(signed))),
        "signed_median_percent": float(np.median(signed)),
        "complete": float(np.mean(complete)),
        "cpu_s_per_map": spent / len(errors),
        "warnings": progress.warnings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=("lps", "f2"), default=["lps", "f2"])
    parser.add_argument("--step", type=int, default=1, help="keep every so many frames")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name in options.only:
        capture, root = options.data / "captures" / name, options.out / name
        shutil.rmtree(root, ignore_errors=True)
        scene = scene_from_ground_truth(capture, root, step=options.step)
        mesh = ground_truth_mesh(capture)
        caster = MeshQuery(mesh.vertices, mesh.faces)
        diagonal = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
        results[name] = {"masks": judge_masks(scene, caster)}
        results[name]["depth"] = judge_depth(scene, caster, diagonal)
        print(name, json.dumps(results[name], indent=1), flush=True)
        write_json(options.out / "masks_depth.json", results)


if __name__ == "__main__":
    main()
