"""Time to quality of stage I: the plain NeuS recipe against the fast presets, true cameras given.

    OMP_NUM_THREADS=1 python benchmarks/baseline.py --data ../shared/data --out /tmp/baseline \
        [--run neus preview] [--seconds 600] [--rays 64]

``neus`` is the ``paper`` preset without stereo: frequency MLP 8 x 256, 64 + 64 samples, learned
sharpness, started from a sphere; at NeuS's own learning rate (5e-4, without its warm-up, which
alone would outlast the budget) and with fewer rays per step than its 512, because small steps are
what helps it most at the start. ``preview`` is the preset of that name. Both learn from the same
frames and true masks. The clock is this process's CPU time inside training; cutting and measuring
meshes is left out of it. A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toonify3d.asset.pipeline import extract_mesh
from toonify3d.asset.settings import AssetSettings
from toonify3d.errors import CancelledError, TrainingError
from toonify3d.evaluation.ground_truth import scene_from_ground_truth
from toonify3d.evaluation.surface import evaluate_surface
from toonify3d.files import write_json
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.training.checkpoint import load_checkpoint
from toonify3d.training.settings import PAPER, PREVIEW, PriorSettings
from toonify3d.training.stage1 import PriorTrainer

# Growth of the time between two measurements.
GROWTH = 1.35


def settings_of(run: str, rays: int) -> PriorSettings:
    """The settings of a run."""
    common: dict[str, Any] = {"weight_mvs": 0.0, "preview_seconds": 1e9, "holdout_frames": 0}
    if run == "neus":
        return replace(PAPER, rays=rays, lr_network=5e-4, **common)
    return replace(PREVIEW, refine_cameras=False, **common)


class Clock(SilentProgress):
    """Counts CPU time without the measurements, and takes those when they are due.

    Args:
        record: Where the rows are kept; read back when the run goes on.
        scene: The capture.
        truth: Its ``gt`` folder.
        budget: CPU seconds after which the run is stopped.
    """

    def __init__(self, record: Path, scene: Scene, truth: Path, budget: float) -> None:
        super().__init__()
        self.record, self.scene, self.truth, self.budget = record, scene, truth, budget
        self.rows: list[dict[str, float]] = []
        if record.exists():
            self.rows = json.loads(record.read_text(encoding="utf-8"))
        self.spent = self.rows[-1]["cpu_s"] if self.rows else 0.0
        self.due = self.spent * GROWTH if self.rows else 4.0
        self.since = time.process_time()
        self.trainer: PriorTrainer | None = None

    def update(self, fraction: float, message: str = "") -> None:
        """Called after every step."""
        now = self.spent + time.process_time() - self.since
        if now >= self.due or fraction >= 1.0:
            self.measure(now)
        if now >= self.budget:
            raise CancelledError("the budget is spent")

    def measure(self, now: float) -> None:
        """Cut a mesh, compare it with the truth, add a row."""
        trainer = self.trainer
        assert trainer is not None
        paper = trainer.settings.fields.encoding == "frequency"
        cells = AssetSettings(resolution=64 if paper else 192, faces=0, face_detail=1.0)
        row = {"cpu_s": round(now, 1), "step": float(trainer.step)}
        try:
            mesh = extract_mesh(trainer.prior, self.scene, cells, SilentProgress())
            figures = evaluate_surface(mesh, self.scene, self.truth, samples=8000)
            row |= {key: figures["truth_to_result"]["visible"][key] for key in ("median", "p95")}
        except TrainingError:
            row |= {"median": float("nan"), "p95": float("nan")}
        self.rows.append(row)
        write_json(self.record, self.rows)
        trainer.save()
        print(json.dumps(row), flush=True)
        self.spent, self.since, self.due = now, time.process_time(), now * GROWTH


def train(run: str, scene: Scene, truth: Path, out: Path, budget: float, rays: int) -> None:
    """One run up to its budget (or its end)."""
    clock = Clock(out / f"{run}.json", scene, truth, budget)
    trainer = PriorTrainer(scene, out / run, settings_of(run, rays), torch.device("cpu"), clock)
    clock.trainer = trainer
    state = load_checkpoint(out / run, "cpu")
    if state is not None and not state["done"]:
        trainer.restore(state)
    with contextlib.suppress(CancelledError):
        trainer.run()


def table(out: Path) -> dict[str, Any]:
    """Both curves, and how much sooner ``preview`` is at the baseline's best quality."""
    curves = {
        run: json.loads((out / f"{run}.json").read_text(encoding="utf-8"))
        for run in ("neus", "preview")
        if (out / f"{run}.json").exists()
    }
    result: dict[str, Any] = {"curves": curves}
    if len(curves) == 2:
        best = min(curves["neus"], key=lambda row: row["median"])
        sooner = [row for row in curves["preview"] if row["median"] <= best["median"]]
        if sooner:
            result["baseline"] = best
            result["ours"] = sooner[0]
            result["ratio_at_least"] = best["cpu_s"] / sooner[0]["cpu_s"]
    for run, rows in curves.items():
        print(f"\n{run:10} {'CPU s':>8} {'steps':>7} {'median %':>9} {'p95 %':>8}")
        for row in rows:
            print(
                f"{'':10} {row['cpu_s']:8.1f} {row['step']:7.0f} {row['median']:9.3f}"
                f" {row['p95']:8.3f}"
            )
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--capture", default="lps")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", nargs="*", choices=("neus", "preview"), default=["preview"])
    parser.add_argument("--seconds", type=float, default=600.0, help="CPU seconds per run")
    parser.add_argument("--rays", type=int, default=64, help="rays per step of the baseline")
    options = parser.parse_args()
    capture = options.data / "captures" / options.capture
    root = options.out / "scene"
    done = (root / "cameras.json").exists()
    scene = Scene.load(root) if done else scene_from_ground_truth(capture, root)
    for run in options.run:
        train(run, scene, capture / "gt", options.out, options.seconds, options.rays)
    write_json(options.out / "baseline.json", table(options.out))


if __name__ == "__main__":
    main()
