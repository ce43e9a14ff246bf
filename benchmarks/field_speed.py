"""How fast the fields are: microseconds per point, rays per second, memory; in one run.

    python benchmarks/field_speed.py --out /tmp/field_speed.json [--device cpu|cuda] [--threads 1]
    python benchmarks/field_speed.py --scene /tmp/scene ...     # also whole training steps

Compared are three ways to get distances *and* normals into one loss: our grid (a Warp kernel that
returns the Jacobian, the chain through the network written forward), the same grid in plain torch
with double backward, and the paper's frequency network, explicit and with double backward. Times
are the best of several repeats; on a busy machine compare the CPU columns, not the wall ones.
``--scene`` is a folder as ``toonify3d.evaluation.ground_truth`` or a job's ``capture`` has it.
``speed.py`` runs this, whole stages and the roofline of a step in one go.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toonify3d.files import write_json
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.snr.encoding import HashEncoding
from toonify3d.snr.fields import FieldSettings, GeometryField
from toonify3d.snr.reference_grid import PRIMES
from toonify3d.training.schedule import sharpness
from toonify3d.training.settings import PAPER, PAPER_FIELDS, PREVIEW, STANDARD
from toonify3d.training.stage1 import PriorTrainer
from toonify3d.training.stage1_hull import fit_hull

POINTS = 8192
REPEATS = 5


class Meter:
    """Times functions and keeps the rows.

    Args:
        device: Where the work runs; CUDA is synchronised round every repeat.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, work: Callable[[], object], points: int) -> float:
        """Microseconds of CPU (on CUDA: wall) time per point, best of several repeats."""
        work()
        best_cpu = best_wall = float("inf")
        for _ in range(REPEATS):
            self._wait()
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            self._wait()
            best_cpu = min(best_cpu, time.process_time() - cpu)
            best_wall = min(best_wall, time.perf_counter() - wall)
        row = {"name": name, "cpu_us": best_cpu / points * 1e6, "wall_us": best_wall / points * 1e6}
        self.rows.append(row)
        print(f"{name:52} {row['cpu_us']:9.3f} {row['wall_us']:9.3f}", flush=True)
        return row["wall_us"] if self.device.type == "cuda" else row["cpu_us"]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def torch_grid(encoding: HashEncoding, x: Tensor) -> Tensor:
    """The grid's features in plain torch, without Jacobian: what double backward starts from."""
    parts = []
    for resolution, size, offset in encoding.levels.tolist():
        scaled = (0.5 * (x + 1.0)).clamp(0.0, 1.0) * resolution
        cell = scaled.detach().long().clamp(max=resolution - 1)
        fraction = scaled - cell
        value = torch.zeros((len(x), encoding.table.shape[1]), device=x.device)
        for number in range(8):
            bits = torch.tensor([number & 1, number >> 1 & 1, number >> 2 & 1], device=x.device)
            a, b, c = (cell + bits).unbind(-1)
            if (resolution + 1) ** 3 <= size:
                row = offset + a + (resolution + 1) * (b + (resolution + 1) * c)
            else:
                key = a ^ (b * PRIMES[1] & 0xFFFFFFFF) ^ (c * PRIMES[2] & 0xFFFFFFFF)
                row = offset + (key & (size - 1))
            weight = torch.where(bits.bool(), fraction, 1.0 - fraction).prod(1, keepdim=True)
            value = value + weight * encoding.table[row]
        parts.append(value)
    return torch.cat(parts, dim=1)


def loss_of(sdf: Tensor, gradient: Tensor) -> Tensor:
    """A stand-in for eq. 4: every output takes part."""
    return sdf.abs().mean() + (gradient.norm(dim=1) - 1.0).square().mean()


def explicit(field: GeometryField, x: Tensor) -> None:
    """Our way: one backward."""
    field.zero_grad(set_to_none=True)
    sample = field.evaluate(x)
    (loss_of(sample.sdf, sample.gradient) + sample.feature.square().mean()).backward()


def double_backward(field: GeometryField, x: Tensor, plain: bool) -> None:
    """The usual way: the gradient by autograd, differentiated again."""
    field.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_(True)
    encoding = field.encoding
    if plain and isinstance(encoding, HashEncoding):
        inputs = torch.cat([x, torch_grid(encoding, x)], dim=1)
        h = torch.relu(field.layers[0](inputs))
        sdf = field.layers[1](h)[:, 0]
    else:
        sdf = field.sdf(x)
    (gradient,) = torch.autograd.grad(sdf.sum(), x, create_graph=True)
    loss_of(sdf, gradient).backward()


def per_point(meter: Meter) -> dict[str, float]:
    """The table of fields; returns the ratios that matter."""
    device = meter.device
    torch.manual_seed(0)
    x = torch.rand((POINTS, 3), device=device) * 1.2 - 0.6
    grid = GeometryField(FieldSettings()).to(device)
    big = GeometryField(STANDARD.fields).to(device)
    paper = GeometryField(PAPER_FIELDS).to(device)
    encoding = grid.encoding
    assert isinstance(encoding, HashEncoding)
    print(f"{'us per point':52} {'CPU':>9} {'wall':>9}")
    with torch.no_grad():
        meter.add("grid 8 x 2, features", lambda: encoding.features(x), POINTS)
        meter.add("grid 8 x 2, features and Jacobian", lambda: encoding(x), POINTS)
        meter.add("grid 8 x 2, features, plain torch", lambda: torch_grid(encoding, x), POINTS)
        meter.add("F_geo preview, distance", lambda: grid.sdf(x), POINTS)
        meter.add("F_geo preview, distance and normal", lambda: grid.evaluate(x), POINTS)
        meter.add("F_geo paper, distance", lambda: paper.sdf(x), POINTS)
        meter.add("F_geo paper, distance and normal", lambda: paper.evaluate(x), POINTS)

    def encode_backward() -> None:
        encoding.zero_grad(set_to_none=True)
        features, jacobian = encoding(x)
        (features.sum() + jacobian.sum()).backward()

    meter.add("grid 8 x 2, forward and backward", encode_backward, POINTS)
    ours = meter.add("F_geo preview, loss with normals, ours", lambda: explicit(grid, x), POINTS)
    meter.add("F_geo standard, loss with normals, ours", lambda: explicit(big, x), POINTS)
    plain = meter.add(
        "F_geo preview, plain torch, double backward",
        lambda: double_backward(grid, x, True),
        POINTS,
    )
    few = x[:1024]
    one = meter.add("F_geo paper, loss with normals, ours", lambda: explicit(paper, few), 1024)
    two = meter.add(
        "F_geo paper, double backward", lambda: double_backward(paper, few, False), 1024
    )
    return {
        "grid_ours_over_double_backward": plain / ours,
        "paper_explicit_over_double_backward": two / one,
        "preview_over_neus_per_point": two / ours,
    }


def machine(meter: Meter) -> dict[str, float]:
    """Copy bandwidth (GB/s) and float32 matmul rate (GFLOP/s) of this machine."""
    device = meter.device
    source = torch.empty(32 << 20, device=device)
    target = torch.empty_like(source)
    copy = meter.add("copy of 128 MiB, per MiB", lambda: target.copy_(source), 128)
    left, right = torch.rand((8192, 256), device=device), torch.rand((256, 256), device=device)
    product = meter.add("matmul 8192 x 256 x 256, per row", lambda: left @ right, 8192)
    return {
        "copy_gb_s": 2.0 * 1.048576 / copy * 1e3,
        "matmul_gflop_s": 2.0 * 256 * 256 / product / 1e3,
    }


def steps(meter: Meter, scene: Scene, out: Path) -> dict[str, Any]:
    """Whole stage I steps: rays per second, samples coloured per ray, time per step."""
    result: dict[str, Any] = {}
    for name, settings, count in (
        ("preview", replace(PREVIEW, weight_mvs=0.0), 12),
        ("standard", replace(STANDARD, weight_mvs=0.0), 6),
        ("paper", replace(PAPER, rays=32, weight_mvs=0.0), 1),
    ):
        trainer = PriorTrainer(scene, out / name, settings, meter.device, SilentProgress())
        if settings.hull_steps:
            fit_hull(trainer.prior, trainer.guide, trainer.settings, trainer.generator)
        trainer.step = settings.steps // 2
        trainer._train_step()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            trainer._train_step()
        meter._wait()
        cpu, wall = (time.process_time() - cpu) / count, (time.perf_counter() - wall) / count
        row = {
            "rays": settings.rays,
            "cpu_ms": 1e3 * cpu,
            "wall_ms": 1e3 * wall,
            "rays_per_cpu_s": settings.rays / cpu,
            **used_samples(trainer),
        }
        result[name] = row
        print(
            f"step {name:9} {row['cpu_ms']:9.1f} ms CPU {row['wall_ms']:9.1f} ms wall,"
            f" {row['rays_per_cpu_s']:8.0f} rays per CPU s, {row['samples']:.0f} samples and"
            f" {row['coloured']:.1f} coloured per ray",
            flush=True,
        )
    return result


def used_samples(trainer: PriorTrainer) -> dict[str, float]:
    """Samples per ray, and those whose weight lets them be coloured."""
    settings = trainer.settings
    batch = trainer.bank.sample(min(256, settings.rays), trainer.generator)
    inv_s = float(trainer.prior.inv_s.detach())
    if not settings.learn_inv_s:
        inv_s = sharpness(trainer.step, settings)
    with torch.no_grad():
        rendered = trainer.renderer.render(batch.origins, batch.directions, inv_s)
    coloured = (rendered.weights > settings.color_threshold).float().sum(1).mean()
    return {"samples": float(rendered.weights.shape[1]), "coloured": float(coloured)}


def peak_mb(device: torch.device) -> float:
    """Peak memory of the process, on CUDA of the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scene", type=Path, help="scene folder for whole training steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    meter = Meter(torch.device(options.device))
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": options.device,
        "threads": options.threads,
        "load": os.getloadavg()[0],
    }
    result["machine"] = machine(meter)
    result["ratios"] = per_point(meter)
    result["rows"] = meter.rows
    if options.scene is not None:
        scene = Scene.load(options.scene)
        result["steps"] = steps(meter, scene, options.out.with_suffix(""))
    result["peak_mb"] = peak_mb(meter.device)
    write_json(options.out, result)
    print(json.dumps({key: result[key] for key in ("machine", "ratios", "peak_mb")}, indent=1))


if __name__ == "__main__":
    main()
