"""Steps of stages II and III as CUDA graphs: what a processor can prove of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import small_runs
from analytic_head import KnownBend, make_scene, portraits
from small_runs import GRID, NETWORKS
from step_tape import Repeater, taped

from toonify3d.errors import CancelledError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Displacement, Normalization, Scene, StylizedView
from toonify3d.snr.adapted import AdaptedGeometry
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.deformation import Deformation
from toonify3d.snr.fields import FieldSettings
from toonify3d.snr.prior import Prior
from toonify3d.training import adaption_loop
from toonify3d.training.adaption_loop import AdaptionLoop, Recordable, freeze
from toonify3d.training.adaption_settings import GeometryAdaptionSettings, TextureAdaptionSettings
from toonify3d.training.bending import GeometryAdaption, start_lattice
from toonify3d.training.finetune import FieldFinetune
from toonify3d.training.joint_colors import JointTexture
from toonify3d.training.packed_rows import PackedRows
from toonify3d.training.palette import Posterize, lab_of, to_lab
from toonify3d.training.recorded_step import CudaRecorder, Recordings, _lack_of_memory
from toonify3d.training.surface_texture import TextureAdaption, prepare
from toonify3d.training.view_rays import PatchRays, ViewRays, pixel_rays
from toonify3d.training.volume_texture import VolumeAdaption

torch.set_num_threads(1)

BEND = GeometryAdaptionSettings(
    steps=12,
    rays=128,
    mask_rays=96,
    samples=6,
    coarse_resolution=32,
    search_steps=24,
    fine_residual=True,
    fine_from=0.6,
    color_warmup=0.25,
    flow_weight=0.0,
)
TUNE = replace(BEND, method="finetune", coarse_samples=8, fine_samples=8, field_learning_rate=1e-3)
PUBLISHED = replace(TUNE, sampler="hierarchical", learn_inv_s=True, lr_final=1.0)
JOINT = replace(PUBLISHED, joint=True, rays=160)
VOLUME = TextureAdaptionSettings(
    rendering="volume",
    steps=12,
    rays=160,
    sampler="hierarchical",
    coarse_samples=8,
    fine_samples=8,
    samples=8,
    width=16,
    patch=8,
    patches=1,
    warm_steps=3,
    discriminator_weight=1.0,
    discriminator_from=0.2,
)
SURFACE = replace(small_runs.SURFACE, steps=12)
Captured = tuple[Scene, list[StylizedView]]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=48)
    return scene, portraits(scene, KnownBend(), (-0.2, 0.2, math.pi))


def _prior(fields: FieldSettings) -> Prior:
    torch.manual_seed(0)
    prior = Prior(fields, Normalization(np.zeros(3), 1.0))
    with torch.no_grad():
        prior.variance.fill_(math.log(120.0) / 10.0)
    return prior.eval()


def _bending(captured: Captured) -> GeometryAdaption:
    scene, views = captured
    prior = _prior(GRID)
    freeze(prior)
    points = torch.nn.functional.normalize(torch.randn(60, 3), dim=1).double().numpy() * 0.5
    lattice = start_lattice(scene, Displacement(points, 0.02 * points), BEND, SilentProgress())
    return GeometryAdaption(scene, prior, views, lattice, BEND)


def _tuning(settings: GeometryAdaptionSettings, fields: FieldSettings) -> Callable[..., Any]:
    def make(captured: Captured) -> FieldFinetune:
        scene, views = captured
        given = JointTexture(VOLUME, views[0].image) if settings.joins else None
        adaption = FieldFinetune(scene, _prior(fields), views, settings, given)
        assert (adaption.colors is not None) == settings.joins
        adaption.renderer.all_colors = True  # as on a GPU
        return adaption

    return make


def _painting(settings: TextureAdaptionSettings) -> Callable[..., Any]:
    def make(captured: Captured) -> VolumeAdaption:
        scene, views = captured
        prior = _prior(NETWORKS)
        freeze(prior)
        shape = AdaptedGeometry(prior, _prior(NETWORKS))
        adaption = VolumeAdaption(scene, shape, views, views[0].image, settings)
        adaption.rendering.all_samples = True  # as on a GPU
        return adaption

    return make


def _texturing(captured: Captured) -> TextureAdaption:
    scene, views = captured
    prior = _prior(GRID)
    freeze(prior)
    geometry = StylizedGeometry(prior, Deformation().requires_grad_(False))
    return prepare(scene, geometry, views, views[0].image, SURFACE)


METHODS: dict[str, Callable[..., Any]] = {
    "bending": _bending,
    "tuning, guided": _tuning(TUNE, GRID),
    "tuning, published": _tuning(PUBLISHED, NETWORKS),
    "tuning, joint": _tuning(JOINT, NETWORKS),
    "painting, published": _painting(VOLUME),
    "painting, guided": _painting(replace(VOLUME, sampler="guided")),
    "painting the surface": _texturing,
}
# Recordings of a whole run: bending starts, the fine residual starts; with and without judging.
RECORDED = {"bending": 3, "painting the surface": 2}


class Warned(SilentProgress):
    """Stops a run where it is told to."""

    def __init__(self, until: float = 2.0) -> None:
        super().__init__()
        self.until = until

    def update(self, fraction: float, message: str = "") -> None:
        if fraction >= self.until:
            raise CancelledError("stop")


def _loop(
    adaption: Any, folder: Path, recorder: Repeater | None, progress: SilentProgress | None = None
) -> AdaptionLoop:
    return AdaptionLoop(folder, "digest", adaption, progress or Warned(), 0.05, recorder)


def _parameters(adaption: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in adaption.modules().parameters()])


@pytest.mark.parametrize("name", METHODS)
def test_recorded_steps_are_the_plain_ones(captured: Captured, tmp_path: Path, name: str) -> None:
    """Recordings see schedules, draw other rays, move Adam on, and nothing is replaced or read."""
    plain, recorded = METHODS[name](captured), METHODS[name](captured)
    assert isinstance(recorded, Recordable)
    repeater = Repeater()
    _loop(plain, tmp_path / "plain", None).run(12, "")
    _loop(recorded, tmp_path / "recorded", repeater).run(12, "")
    made = RECORDED.get(name, 1)
    assert repeater.replays == 12 - made
    expected, got = _parameters(plain), _parameters(recorded)
    # Learning rates are float32 tensors there and Python numbers here; Adam makes whole steps of
    # gradients that are nothing but round-off.
    near = torch.isclose(expected, got, rtol=1e-3, atol=1e-4)
    assert float((~near).float().mean()) < 2e-3
    assert not torch.equal(got, _parameters(METHODS[name](captured)))


@pytest.mark.parametrize("name", ["bending", "tuning, published", "painting, published"])
def test_too_little_memory_records_a_smaller_step(
    captured: Captured, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaption, repeater, progress = METHODS[name](captured), Repeater(), Warned()
    first, inner, held = adaption.ray_count, adaption.batch_losses, []

    def small() -> Any:
        if adaption.ray_count == first:
            held.append(len(loop._recordings._replays))  # type: ignore[union-attr]
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return inner()

    monkeypatch.setattr(adaption, "batch_losses", small)
    loop = _loop(adaption, tmp_path, repeater, progress)
    loop.run(4, "")
    assert progress.warnings == [f"Out of GPU memory; going on with {first // 2} rays a step."]
    assert held == [0] and repeater.replays > 0


def test_a_step_back_records_anew_and_draws_other_rays(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaption, repeater, progress = METHODS["tuning, published"](captured), Repeater(), Warned()
    loop, calls = _loop(adaption, tmp_path, repeater, progress), []
    usual = AdaptionLoop._is_bad

    def once(self: AdaptionLoop, loss: torch.Tensor) -> bool:
        calls.append(float(loss))
        return len(calls) == 4 or usual(self, loss)

    monkeypatch.setattr(AdaptionLoop, "_is_bad", once)
    loop.run(6, "")
    assert len(progress.warnings) == 1 and "half the learning rate" in progress.warnings[0]
    assert loop._recordings is not None and loop._recordings.made == 2
    # From step 0 again: what the bad step had done to the parameters is undone.
    assert calls[4] == pytest.approx(calls[0], rel=0.5) and calls[4] != calls[0]
    rates = [group["lr"] for group in loop._optimizer.param_groups]
    assert all(isinstance(rate, torch.Tensor) for rate in rates)
    loop._set_rate(1.0)
    assert float(rates[0]) == pytest.approx(0.5 * TUNE.field_learning_rate)


def test_a_recorded_run_resumes_to_the_same_result(captured: Captured, tmp_path: Path) -> None:
    make = METHODS["painting, published"]
    whole = make(captured)
    _loop(whole, tmp_path / "whole", Repeater()).run(10, "")
    with pytest.raises(CancelledError):
        _loop(make(captured), tmp_path / "parts", Repeater(), Warned(0.5)).run(10, "")
    resumed = make(captured)
    _loop(resumed, tmp_path / "parts", Repeater()).run(10, "")
    assert torch.allclose(_parameters(whole), _parameters(resumed), rtol=1e-3, atol=1e-5)
    # What a GPU has written goes on without recordings too, as on another machine.
    with pytest.raises(CancelledError):
        _loop(make(captured), tmp_path / "moved", Repeater(), Warned(0.5)).run(10, "")
    moved = make(captured)
    loop = _loop(moved, tmp_path / "moved", None)
    loop.run(10, "")
    assert isinstance(loop._optimizer.param_groups[0]["lr"], float)
    assert torch.allclose(_parameters(whole), _parameters(moved), rtol=1e-3, atol=1e-5)


def test_what_cannot_be_recorded_runs_plainly_and_is_told(
    captured: Captured, tmp_path: Path
) -> None:
    class Refusing(Repeater):
        def __call__(self, body: Callable[[], Any]) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    adaption, progress = _bending(captured), Warned()
    loop = _loop(adaption, tmp_path, Refusing(), progress)
    loop.run(5, "")
    assert len(progress.warnings) == 1 and "without a CUDA graph" in progress.warnings[0]
    assert loop._recordings is None


def test_on_a_gpu_losses_are_looked_at_rarely(captured: Captured, tmp_path: Path) -> None:
    loop = _loop(_bending(captured), tmp_path, None)
    assert all(loop._looks(number) for number in range(40))
    loop._device = torch.device("cuda")
    assert [number for number in range(60) if loop._looks(number)] == [0, 20, 40]
    # A running mean over about as many steps, however few of them were seen.
    loop._recent, loop._looked = {"total": 1.0}, 20
    loop._note({"total": torch.tensor(0.0)}, 40)
    assert loop._recent["total"] == pytest.approx(0.95**20)


def test_only_so_many_recordings_are_kept() -> None:
    made: list[int] = []

    def recorder(body: Callable[[], int]) -> tuple[int, Callable[[], int]]:
        made.append(body())
        return made[-1], lambda: -made[-1]

    recordings = Recordings(recorder, most=2)  # type: ignore[arg-type]
    asked = [recordings.run(key, lambda key=key: key) for key in (1, 2, 1, 2, 3, 2, 1)]
    # The third pushes the first out, which is made again; the second stays until then.
    assert made == [1, 2, 3, 1] and asked == [1, 2, -2, -2, 3, -3, 1]
    recordings.forget()
    assert recordings.run(1, lambda: 7) == 7 and recordings.made == 5


def test_lack_of_memory_is_known_behind_the_error_that_hides_it() -> None:
    lacking = torch.cuda.OutOfMemoryError("CUDA out of memory")
    try:
        try:
            raise lacking
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
    except RuntimeError as error:
        assert _lack_of_memory(error) is lacking
    assert _lack_of_memory(RuntimeError("another")) is None


# -- rays on the device ---------------------------------------------------------------------------


def test_rays_are_gathered_from_bytes_on_the_device(captured: Captured) -> None:
    scene, views = captured
    generator = torch.Generator().manual_seed(3)
    bank = ViewRays(scene, views, torch.device("cpu"), edge=3, reach=8)
    assert bank.colors.dtype == bank.masks.dtype == torch.uint8
    assert bank.pixels.dtype == torch.int16
    (rays, color, mask), _ = taped(lambda: bank.draw(500, generator, (0.5, 0.3, 0.2)))
    again, _, _ = bank.draw(500, generator, (0.5, 0.3, 0.2))
    assert len(rays) == 500 and not torch.equal(rays.direction, again.direction)
    _check_pixels(scene, views, rays, color, mask)
    patches = PatchRays(views, scene.normalization, torch.device("cpu"), 8)
    drawn, _ = taped(lambda: patches.draw(6, generator))
    assert drawn is not None
    _check_pixels(scene, views, drawn[0], drawn[1], None)
    # Some patches are mirrored: their rows go to the left.
    middle = drawn[0].direction.view(6, 8, 8, 3)
    across = middle[:, 0, 7] - middle[:, 0, 0]
    up = torch.tensor([0.0, 0.0, 1.0]).expand(6, 3)
    right = torch.linalg.cross(middle[:, 0, 0], up)
    assert set((across * right).sum(1).sign().tolist()) == {-1.0, 1.0}


def test_rows_of_a_table_are_those_of_its_arrays() -> None:
    torch.manual_seed(0)
    arrays = {"y": torch.rand(50, 3), "trust": torch.rand(50), "feature": torch.rand(50, 7)}
    packed, rows = PackedRows(arrays), torch.tensor([3, 3, 49, 0])
    (taken, _), whole = taped(lambda: packed.take(rows)), packed.columns()
    for name, array in arrays.items():
        assert torch.equal(taken[name], array[rows]) and torch.equal(whole[name], array)
    assert len(packed) == 50


def test_posterizing_needs_no_host_and_measures_as_opencv_does() -> None:
    generator = np.random.default_rng(0)
    colors = generator.integers(0, 256, (400, 3), dtype=np.uint8)
    values = torch.tensor(colors).float() / 255.0
    # OpenCV looks its values up in tables; red as in the standard.
    assert np.abs(lab_of(values).numpy() - to_lab(colors)).max() < 0.5
    red = lab_of(torch.tensor([[1.0, 0.0, 0.0]]))[0].tolist()
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    posterize = Posterize(colors[:12])
    chosen, _ = taped(lambda: posterize(values))
    distance = np.linalg.norm(to_lab(colors)[:, None] - to_lab(colors[:12])[None], axis=2)
    got = np.linalg.norm(
        to_lab((chosen.numpy() * 255).round().astype(np.uint8)) - to_lab(colors), axis=1
    )
    assert np.abs(got - distance.min(1)).max() < 0.7


def _check_pixels(
    scene: Scene, views: list[StylizedView], rays: Any, color: torch.Tensor, mask: Any
) -> None:
    """Every ray passes the middle of the very pixel whose colour came with it."""
    found = torch.zeros(len(color), dtype=torch.bool)
    for view in views:
        camera = view.frame.camera
        origin = torch.tensor(scene.normalization.to_unit(camera.center), dtype=torch.float32)
        own = (rays.origin - origin).norm(dim=1) < 1e-5
        local = rays.direction[own].double().numpy() @ camera.c2w[:3, :3] @ camera.K.T
        pixel = np.rint(local[:, :2] / local[:, 2:] - 0.5).astype(int)
        expected = pixel_rays(
            camera, pixel[:, 0], pixel[:, 1], scene.normalization, torch.device("cpu")
        )
        assert torch.allclose(expected.direction, rays.direction[own], atol=1e-6)
        shown = torch.tensor(view.image[pixel[:, 1], pixel[:, 0]]).float() / 255.0
        assert torch.equal(shown, color[own])
        if mask is not None:
            inside = torch.tensor(view.mask[pixel[:, 1], pixel[:, 0]]).float() / 255.0
            assert torch.equal(inside, mask[own])
        found |= own
    assert bool(found.all())


# -- where there is a GPU -------------------------------------------------------------------------


def _on_gpu(adaption: Any) -> Any:
    return adaption_loop.recorder_for(adaption)


def test_a_processor_gets_no_recorder(captured: Captured) -> None:
    assert _on_gpu(_bending(captured)) is None


@pytest.mark.cuda
@pytest.mark.parametrize("graph", [True, False])
def test_a_graph_bends_as_plain_steps_do(captured: Captured, tmp_path: Path, graph: bool) -> None:
    scene, views = captured
    prior = _prior(GRID).to("cuda")
    freeze(prior)
    adaption = GeometryAdaption(scene, prior, views, None, BEND)
    recorder, progress = _on_gpu(adaption), Warned()
    assert isinstance(recorder, CudaRecorder)
    loop = AdaptionLoop(tmp_path, "d", adaption, progress, 0.05, recorder if graph else None)
    result = loop.run(200, "")
    assert not progress.warnings and 0.0 < result.losses["total"] < 1.0
    assert (loop._recordings is not None) == graph
