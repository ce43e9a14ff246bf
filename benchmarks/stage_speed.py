"""What stages I, II and III cost: seconds, points, samples per ray, memory; for ``speed.py``.

Every stage runs whole, as the pipeline runs it, on the known style of ``captures/lps`` (true
cameras and masks, our depth, portraits whose deformation is known). Samples are counted where they
are evaluated, not taken from the settings: the fields' methods are wrapped, and what is asked for
with gradients (training) is kept apart from what is only looked up (grids, caches, previews).
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toonify3d.capture.depth import compute_depth
from toonify3d.capture.depth_settings import DepthSettings
from toonify3d.evaluation.ground_truth import scene_from_ground_truth
from toonify3d.portrait2d.folder import load_folder_views
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene, StylizedView
from toonify3d.settings import preset_settings
from toonify3d.snr.fields import AppearanceField, GeometryField
from toonify3d.snr.texture import LocalResidual
from toonify3d.training.settings import PriorSettings
from toonify3d.training.stage1 import load_prior, train_prior
from toonify3d.training.stage2 import adapt_geometry, load_geometry
from toonify3d.training.stage3 import adapt_texture

# What is counted: class, method and the name of its column. A point of stage III is one of the
# cached surface points, which the local residual is asked for.
COUNTED: tuple[tuple[type, str, str], ...] = (
    (GeometryField, "evaluate", "normals"),
    (GeometryField, "sdf", "distances"),
    (AppearanceField, "forward", "colours"),
    (LocalResidual, "forward", "texels"),
)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts points by column while it is open; without gradients as ``looked up COLUMN``."""
    counts: Counter[str] = Counter()
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in COUNTED]

    def wrapped(method: Callable[..., Any], column: str) -> Callable[..., Any]:
        def call(self: Any, x: torch.Tensor, *more: Any) -> Any:
            counts[column if torch.is_grad_enabled() else f"looked up {column}"] += len(x)
            return method(self, x, *more)

        return call

    for (owner, name, method), (_, _, column) in zip(kept, COUNTED, strict=True):
        setattr(owner, name, wrapped(method, column))
    try:
        yield counts
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


@dataclass
class Moment:
    """Where a stage was.

    Attributes:
        fraction: Of its steps.
        cpu: CPU seconds of the process.
        wall: Seconds.
        counts: Points so far.
    """

    fraction: float
    cpu: float
    wall: float
    counts: Counter[str]


class Watch(SilentProgress):
    """Keeps the first and the last moment within the steps: what lies outside is preparation."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts
        self.first: Moment | None = None
        self.last: Moment | None = None

    def update(self, fraction: float, message: str = "") -> None:
        if fraction <= 0.0:
            return
        now = Moment(fraction, time.process_time(), time.perf_counter(), Counter(self.counts))
        self.first, self.last = self.first or now, now

    def per_step(self, steps: int) -> dict[str, float]:
        """CPU and wall milliseconds, and points of every column, in the mean over the steps.

        Raises:
            ValueError: Fewer than two moments were seen.
        """
        first, last = self.first, self.last
        if first is None or last is None or last.fraction <= first.fraction:
            raise ValueError("a stage must report at least two of its steps")
        passed = (last.fraction - first.fraction) * steps
        names = sorted(last.counts)
        counted = {name: (last.counts[name] - first.counts[name]) / passed for name in names}
        cpu, wall = last.cpu - first.cpu, last.wall - first.wall
        return {"cpu_ms": 1e3 * cpu / passed, "wall_ms": 1e3 * wall / passed, **counted}


def peak_rss_mb() -> float:
    """Most memory that this process has had, in MB of 2^20 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scaled(settings: Any, share: float) -> Any:
    """Settings with ``share`` of the steps."""
    return replace(settings, steps=max(20, round(share * settings.steps)))


class Stages:
    """The three stages on one capture; each leaves its result for the next in ``out``.

    Args:
        data: Folder of the shared data.
        out: Where results go.
        preset: Name of a preset.
        share: Share of its steps.
        device: Torch device.
    """

    def __init__(self, data: Path, out: Path, preset: str, share: float, device: str) -> None:
        self.out, self.device = out, device
        self.capture = data / "captures" / "lps"
        job, style = preset_settings(preset)
        # The cameras are the truth's: correcting them could only make them worse.
        # Previews come by the clock: on a busy machine they would count for more than they are.
        prior = replace(job.prior, refine_cameras=False, preview_seconds=1e9)
        self.prior: PriorSettings = scaled(prior, share)
        self.geometry, self.texture = scaled(style.geometry, share), scaled(style.texture, share)

    def scene(self) -> Scene:
        """The capture with our depth, made when it is not there."""
        root = self.out / "scene"
        if not (root / "cameras.json").exists():
            scene_from_ground_truth(self.capture, root)
        scene = Scene.load(root)
        if not (root / "depth").exists():
            compute_depth(scene, DepthSettings(), "cpu", SilentProgress())
        return scene

    def views(self, scene: Scene) -> list[StylizedView]:
        """The known portraits."""
        folder = self.capture / "known_style" / "portraits2d"
        return load_folder_views(scene, folder, None, StylizeSettings(), SilentProgress()).views

    def run(self, stage: str) -> dict[str, Any]:
        """One stage (``I``, ``II`` or ``III``), trained anew: seconds, points, samples, memory."""
        scene = self.scene()
        work, steps = {"I": self._first, "II": self._second, "III": self._third}[stage](scene)
        before = peak_rss_mb()
        with counting() as counts:
            watch = Watch(counts)
            cpu, wall = time.process_time(), time.perf_counter()
            work(watch)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        row = {
            "steps": steps,
            "cpu_s": cpu,
            "wall_s": wall,
            **watch.per_step(steps),
            "rss_before_mb": before,
            "peak_rss_mb": peak_rss_mb(),
        }
        if self.device != "cpu":
            row["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
        return row | self._by_ray(stage, row)

    def _by_ray(self, stage: str, row: dict[str, Any]) -> dict[str, float]:
        """Rays of a step, samples of a ray, and microseconds of a step per sample point."""
        if stage == "III":
            # A ray is one cached surface point; the discriminator's patches add some.
            rays, points = self.texture.points, row["texels"]
            samples, colored = points / rays, points / rays
        elif stage == "II":
            # Colour rays get samples with normals, silhouette rays one distance each.
            rays = self.geometry.rays + self.geometry.mask_rays
            points = row["normals"] + row["distances"]
            samples, colored = points / rays, row["colours"] / self.geometry.rays
        else:
            # Free points are on no ray; a stereo point (until the fade) is.
            rays, points = self.prior.rays, row["normals"]
            samples, colored = (points - self.prior.free_points) / rays, row["colours"] / rays
        ms = row["cpu_ms"] if self.device == "cpu" else row["wall_ms"]
        return {
            "rays": rays,
            "points": points,
            "samples_per_ray": samples,
            "coloured_per_ray": colored,
            "us_per_point": 1e3 * ms / points,
        }

    def _first(self, scene: Scene) -> tuple[Callable[[Watch], object], int]:
        folder = _emptied(self.out / "prior")
        settings = self.prior
        return (
            lambda watch: train_prior(scene, folder, settings, self.device, watch),
            settings.steps,
        )

    def _second(self, scene: Scene) -> tuple[Callable[[Watch], object], int]:
        folder, settings = _emptied(self.out / "geometry"), self.geometry
        prior, views = load_prior(self.out / "prior", self.device), self.views(scene)
        return (
            lambda watch: adapt_geometry(
                scene, prior, views, None, folder, settings, self.device, watch
            ),
            settings.steps,
        )

    def _third(self, scene: Scene) -> tuple[Callable[[Watch], object], int]:
        folder, settings = _emptied(self.out / "texture"), self.texture
        prior, views = load_prior(self.out / "prior", self.device), self.views(scene)
        shape = load_geometry(prior, self.out / "geometry", self.device)
        palette = np.concatenate([view.image[view.mask > 200] for view in views])
        return (
            lambda watch: adapt_texture(
                scene, shape, views, palette, folder, settings, self.device, watch
            ),
            settings.steps,
        )


def _emptied(folder: Path) -> Path:
    """``folder`` without what an earlier run left: a finished stage would only be loaded."""
    for name in ("checkpoint.pt", "metrics.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def table(rows: dict[str, dict[str, Any]], clock: str) -> str:
    """Markdown, with times of the ``clock`` (``cpu`` or ``wall``)."""
    lines = [
        f"| stage | {clock} s | of it steps | steps | ms a step | rays | points a step |"
        " samples a ray | coloured | us a point | peak RSS MB (before) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for stage, row in rows.items():
        cells = [
            f"{row[f'{clock}_s']:.0f}",
            f"{1e-3 * row[f'{clock}_ms'] * row['steps']:.0f}",
            f"{row['steps']}",
            f"{row[f'{clock}_ms']:.1f}",
            f"{row['rays']}",
            f"{row['points']:.0f}",
            f"{row['samples_per_ray']:.2f}",
            f"{row['coloured_per_ray']:.2f}",
            f"{row['us_per_point']:.2f}",
            f"{row['peak_rss_mb']:.0f} ({row['rss_before_mb']:.0f})",
        ]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
