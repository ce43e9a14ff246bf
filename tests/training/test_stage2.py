"""Stage II on a ball whose bending is known."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, make_scene, portraits

from toonify3d.errors import CancelledError, InputError, TrainingError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Displacement
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.training import adaption_loop
from toonify3d.training.adaption_settings import GeometryAdaptionSettings
from toonify3d.training.stage2 import adapt_geometry, load_geometry
from toonify3d.training.view_rays import CoarseDistance, ViewRays, deepest, locate

torch.set_num_threads(1)

YAWS = (-0.18, 0.0, 0.18, math.pi - 0.1, math.pi + 0.1)
# These scenes have no photos to match portraits with (test_flow_guide.py has).
SMALL = GeometryAdaptionSettings(
    steps=6,
    rays=64,
    mask_rays=96,
    samples=6,
    coarse_resolution=40,
    search_steps=32,
    flow_weight=0.0,
)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory):
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=64)
    return scene, portraits(scene, KnownBend(), YAWS)


def true_surface() -> torch.Tensor:
    """Points of the bent ball."""
    torch.manual_seed(0)
    ray = torch.nn.functional.normalize(torch.randn(1500, 3), dim=1)
    truth = StylizedGeometry(BallPrior(), KnownBend())
    points = 0.5 * ray
    for _ in range(25):
        points = points - truth.sdf(points)[:, None] * ray
    return points


def test_bends_the_prior_towards_the_truth(captured, tmp_path: Path) -> None:
    scene, views = captured
    settings = replace(
        SMALL, steps=100, rays=96, mask_rays=512, samples=8, coarse_resolution=56, width=32
    )
    geometry = adapt_geometry(
        scene, BallPrior(), views, None, tmp_path, settings, "cpu", SilentProgress()
    )
    points = true_surface()
    before = BallPrior().sdf(points).abs()
    with torch.no_grad():
        after = geometry.sdf(points).abs()
    sides = points[:, 0].abs() > 0.4
    # The sides move by 0.05; only silhouettes of front and back views show it.
    assert float(after[sides].mean()) < 0.4 * float(before[sides].mean())
    assert float(after.mean()) < 0.75 * float(before.mean())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["finished"] and metrics["smallest_determinant"] > 0.3
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_offered_displacement_is_the_start(captured, tmp_path: Path) -> None:
    scene, views = captured
    points = true_surface().numpy().astype(np.float64)[:300]
    back = KnownBend()(torch.tensor(points, dtype=torch.float32)).numpy()
    displacement = Displacement(points + back, -back.astype(np.float64))
    geometry = adapt_geometry(
        scene,
        BallPrior(),
        views,
        displacement,
        tmp_path,
        replace(SMALL, steps=1, displacement_support=0.5),
        "cpu",
        SilentProgress(),
    )
    with torch.no_grad():
        error = geometry.sdf(true_surface()).abs()
    assert float(error.mean()) < 0.25 * float(BallPrior().sdf(true_surface()).abs().mean())


def test_loads_what_it_saved_and_does_not_run_twice(captured, tmp_path: Path) -> None:
    scene, views = captured
    first = adapt_geometry(
        scene, BallPrior(), views, None, tmp_path, SMALL, "cpu", SilentProgress()
    )
    stamp = (tmp_path / "geometry.pt").stat().st_mtime_ns
    again = adapt_geometry(
        scene, BallPrior(), views, None, tmp_path, SMALL, "cpu", SilentProgress()
    )
    assert (tmp_path / "geometry.pt").stat().st_mtime_ns == stamp
    points = torch.rand(100, 3) - 0.5
    loaded = load_geometry(BallPrior(), tmp_path, "cpu")
    for other in (again, loaded):
        assert torch.equal(first.to_prior(points), other.to_prior(points))
    changed = replace(SMALL, seed=1)
    adapt_geometry(scene, BallPrior(), views, None, tmp_path, changed, "cpu", SilentProgress())
    assert (tmp_path / "geometry.pt").stat().st_mtime_ns != stamp


class _StopAt(SilentProgress):
    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction

    def update(self, fraction: float, message: str = "") -> None:
        if fraction >= self.fraction:
            raise CancelledError("stop")


def test_a_cancelled_run_resumes_to_the_same_result(captured, tmp_path: Path) -> None:
    scene, views = captured
    settings = replace(SMALL, steps=10)

    def run(folder: Path, progress: SilentProgress) -> StylizedGeometry:
        return adapt_geometry(scene, BallPrior(), views, None, folder, settings, "cpu", progress)

    whole = run(tmp_path / "whole", SilentProgress())
    with pytest.raises(CancelledError):
        run(tmp_path / "parts", _StopAt(0.5))
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    resumed = run(tmp_path / "parts", SilentProgress())
    points = torch.rand(200, 3) - 0.5
    assert torch.equal(whole.to_prior(points), resumed.to_prior(points))


def test_a_bad_loss_steps_back_with_half_the_rate(
    captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, views = captured
    calls = {"n": 0}
    original = adaption_loop.AdaptionLoop._is_bad

    def sometimes(self: adaption_loop.AdaptionLoop, loss: torch.Tensor) -> bool:
        calls["n"] += 1
        return original(self, loss * (float("nan") if calls["n"] == 3 else 1.0))

    monkeypatch.setattr(adaption_loop.AdaptionLoop, "_is_bad", sometimes)
    progress = SilentProgress()
    adapt_geometry(scene, BallPrior(), views, None, tmp_path, SMALL, "cpu", progress)
    assert any("half the learning rate" in warning for warning in progress.warnings)
    assert json.loads((tmp_path / "metrics.json").read_text())["rollbacks"] == 1

    monkeypatch.setattr(adaption_loop.AdaptionLoop, "_is_bad", lambda self, loss: True)
    with pytest.raises(TrainingError):
        adapt_geometry(
            scene, BallPrior(), views, None, tmp_path / "bad", SMALL, "cpu", SilentProgress()
        )


def test_unusable_portraits_are_refused(captured, tmp_path: Path) -> None:
    scene, views = captured
    empty = [replace(view, mask=np.zeros_like(view.mask)) for view in views]
    small = [replace(views[0], image=views[0].image[:10], mask=views[0].mask[:10])]
    for bad, code in (
        ([], "no_stylized_views"),
        (empty, "empty_stylized_masks"),
        (small, "stylized_view_size"),
    ):
        with pytest.raises(InputError) as caught:
            adapt_geometry(scene, BallPrior(), bad, None, tmp_path, SMALL, "cpu", SilentProgress())
        assert caught.value.code == code


def test_rays_find_the_surface_and_its_silhouette(captured) -> None:
    scene, views = captured
    truth = KnownBend()
    rays = ViewRays(scene, views, torch.device("cpu"), edge=3, reach=8)
    coarse = CoarseDistance(BallPrior(), 64)
    coarse.refresh(truth)
    drawn, _, mask = rays.draw(600, torch.Generator().manual_seed(0), (0.5, 0.3, 0.2))
    distance, hit = locate(coarse, drawn, 64)
    assert float((hit == (mask > 0.5)).float().mean()) > 0.97
    geometry = StylizedGeometry(BallPrior(), truth)
    assert float(geometry.sdf(drawn.at(distance))[hit].abs().max()) < 0.02
    # Along whole rays the least distance is below zero exactly inside of the silhouette.
    least = geometry.sdf(drawn.at(deepest(coarse, drawn, 64)))
    assert float(((least < 0) == (mask > 0.5)).float().mean()) > 0.97
