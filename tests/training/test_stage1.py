"""Stage I on a synthetic capture: it learns, resumes, stops, survives divergence."""

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from toonify3d.errors import CancelledError, InputError, TrainingError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.snr.fields import SurfaceSample
from toonify3d.snr.rendering import Rendered
from toonify3d.training import losses
from toonify3d.training.checkpoint import load_checkpoint
from toonify3d.training.schedule import (
    active_levels,
    learning_rate_factor,
    sharpness,
    stereo_weight,
    view_strength,
)
from toonify3d.training.settings import PAPER, PRESETS, PREVIEW, TINY, PriorSettings
from toonify3d.training.stage1 import PriorTrainer, load_prior, train_prior
from toonify3d.training.stage1_hull import fit_hull

_spec = importlib.util.spec_from_file_location(
    "stage1_scene", Path(__file__).with_name("stage1_scene.py")
)
assert _spec is not None and _spec.loader is not None
stage1_scene = importlib.util.module_from_spec(_spec)
sys.modules["stage1_scene"] = stage1_scene
_spec.loader.exec_module(stage1_scene)

SHORT = replace(TINY, steps=12, hull_steps=5, guide_interval=5, holdout_frames=0)


class Stopping(SilentProgress):
    """Asks to stop after some updates."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after
        self.previews = 0

    def update(self, fraction: float, message: str = "") -> None:
        self.left -= 1
        if self.left < 0:
            raise CancelledError("stop")

    def preview(self, image: np.ndarray) -> None:
        self.previews += 1
        assert image.dtype == np.uint8 and image.shape[2] == 3


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(tmp_path_factory.mktemp("ball"))


@pytest.fixture(scope="module")
def trained(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    train_prior(scene, folder, TINY, "cpu", SilentProgress())
    return folder


def test_learns_shape_and_colour(trained: Path) -> None:
    prior = load_prior(trained, "cpu")
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn((2000, 3)), dim=1)
    direction = direction[direction[:, 2].abs() < 0.6]
    surface = direction * stage1_scene.RADIUS
    distance = prior.sdf(surface).abs()
    assert float(distance.median()) < 0.012 and float(distance.quantile(0.95)) < 0.04
    normal = torch.nn.functional.normalize(prior.sdf_gradient(surface), dim=1)
    assert float((normal * direction).sum(1).median()) > 0.97
    error = (prior.color(surface) - stage1_scene.PaintedBall().color(surface)).abs()
    assert float(error.median()) < 0.06
    # Nothing floats in front of the cameras.
    free = torch.nn.functional.normalize(torch.randn((4000, 3)), dim=1) * 0.9
    assert (prior.sdf(free) > 0).all()
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["steps"] == TINY.steps and metrics["heldout_psnr"] > 20.0
    assert set(metrics["losses"]) >= {"color", "mask", "eikonal", "total"}


def test_finished_run_is_not_trained_again(trained: Path, scene: Scene) -> None:
    progress = Stopping(after=0)
    prior = train_prior(scene, trained, TINY, "cpu", progress)
    assert torch.equal(prior.variance, load_prior(trained, "cpu").variance)


def _parameters(folder: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(folder, "cpu")
    assert state is not None
    return state["prior"]["parameters"]


def test_cancel_saves_and_resume_is_bit_for_bit(scene: Scene, tmp_path: Path) -> None:
    train_prior(scene, tmp_path / "whole", SHORT, "cpu", SilentProgress())
    with pytest.raises(CancelledError):
        train_prior(scene, tmp_path / "cut", SHORT, "cpu", Stopping(after=7))
    state = load_checkpoint(tmp_path / "cut", "cpu")
    assert state is not None and state["step"] == 8 and not state["done"]
    train_prior(scene, tmp_path / "cut", SHORT, "cpu", SilentProgress())
    one, two = _parameters(tmp_path / "whole"), _parameters(tmp_path / "cut")
    for name in one:
        assert torch.equal(one[name], two[name]), name


def test_other_settings_start_afresh(scene: Scene, tmp_path: Path) -> None:
    train_prior(scene, tmp_path, SHORT, "cpu", SilentProgress())
    train_prior(scene, tmp_path, replace(SHORT, steps=6), "cpu", SilentProgress())
    state = load_checkpoint(tmp_path, "cpu")
    assert state is not None and state["step"] == 6


def test_truncated_checkpoint_counts_as_none(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut off by a power failure")
    train_prior(scene, tmp_path, SHORT, "cpu", SilentProgress())
    state = load_checkpoint(tmp_path, "cpu")
    assert state is not None and state["done"]


def test_divergence_steps_back_with_half_the_rate(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = SilentProgress()
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), progress)
    healthy, calls = trainer._healthy, []

    def poisoned(terms: losses.torch.Tensor) -> bool:
        calls.append(trainer.step)
        return False if len(calls) == 5 else healthy(terms)

    monkeypatch.setattr(trainer, "_healthy", poisoned)
    trainer.run()
    assert trainer.step == SHORT.steps and trainer.lr_scale == 0.5
    assert len(progress.warnings) == 1 and "half the learning rate" in progress.warnings[0]


def test_repeated_divergence_stops_with_one_sentence(scene: Scene, tmp_path: Path) -> None:
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), SilentProgress())
    with torch.no_grad():
        trainer.bank._color = trainer.bank._color.to(torch.float32) * float("nan")
    with pytest.raises(TrainingError, match="diverged"):
        trainer.run()


def test_stereo_terms_and_corrections_run(tmp_path: Path) -> None:
    scene = stage1_scene.make_scene(tmp_path / "capture", count=8, size=32, with_depth=True)
    settings = replace(SHORT, refine_cameras=True, refine_exposure=True)
    trainer = PriorTrainer(scene, tmp_path, settings, torch.device("cpu"), SilentProgress())
    assert trainer.bank.has_depth
    trainer.run()
    assert trainer.history[-1]["stereo"] >= 0.0
    assert (trainer.corrections.rotation != 0).any()
    assert (trainer.corrections.log_gain != 0).any()


def test_true_depth_lies_on_the_true_surface(tmp_path: Path) -> None:
    scene = stage1_scene.make_scene(tmp_path, count=4, size=32, with_depth=True)
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), SilentProgress())
    batch = trainer.bank.sample(500, trainer.generator)
    inside = batch.confidence > 0
    assert inside.sum() > 100
    lifted = (batch.origins + batch.directions * batch.depth[:, None])[inside]
    assert float((lifted.norm(dim=1) - stage1_scene.RADIUS).abs().max()) < 5e-3


def test_paper_preset_runs(tmp_path: Path) -> None:
    scene = stage1_scene.make_scene(tmp_path / "capture", count=4, size=24, with_depth=True)
    settings = replace(PAPER, steps=2, rays=8, coarse_samples=16, fine_samples=16)
    prior = train_prior(scene, tmp_path / "prior", settings, "cpu", SilentProgress())
    assert prior.settings.encoding == "frequency"
    assert PAPER.steps == 300_000 and PAPER.lr_network == 2.5e-5 and PAPER.rays == 512
    assert (PAPER.weight_mvs, PAPER.weight_mask, PAPER.weight_eikonal) == (0.5, 0.5, 0.1)
    assert stereo_weight(299_999, PAPER) == 0.5 and learning_rate_factor(150_000, PAPER) == 1.0


def test_input_errors(scene: Scene, tmp_path: Path) -> None:
    few = Scene(scene.root, scene.frames[:2], scene.normalization)
    with pytest.raises(InputError) as caught:
        train_prior(few, tmp_path, SHORT, "cpu", SilentProgress())
    assert caught.value.code == "few_frames"
    with pytest.raises(InputError) as caught:
        load_prior(tmp_path, "cpu")
    assert caught.value.code == "no_prior"


def test_losses_against_closed_forms() -> None:
    mask = torch.tensor([1.0, 0.0, 1.0])
    rendered = torch.tensor([[0.2, 0.2, 0.2], [9.0, 9.0, 9.0], [0.5, 0.5, 0.5]])
    observed = torch.tensor([[0.1, 0.3, 0.2], [0.0, 0.0, 0.0], [0.5, 0.5, 0.2]])
    assert float(losses.color_loss(rendered, observed, mask)) == pytest.approx(0.5 / 6, rel=1e-4)
    depth = losses.depth_loss(
        torch.tensor([1.0, 2.0]), torch.tensor([1.5, 9.0]), torch.tensor([0.5, 0.0])
    )
    assert float(depth) == pytest.approx(0.5, rel=1e-3)
    sur = losses.surface_loss(torch.tensor([-0.2, 0.4]), torch.tensor([1.0, 0.5]))
    assert float(sur) == pytest.approx(0.4 / 1.5, rel=1e-3)
    bce = losses.mask_loss(torch.tensor([0.8, 0.3]), torch.tensor([1.0, 0.0]))
    assert float(bce) == pytest.approx(-(math.log(0.8) + math.log(0.7)) / 2, rel=1e-5)
    gradient = torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])
    assert float(losses.eikonal_loss(gradient)) == pytest.approx(8.0)
    empty = losses.empty_space_loss(
        torch.tensor([-0.1, 0.3, -1.0]), torch.tensor([0.2, 0.2, -0.3]), 0.05
    )
    assert float(empty) == pytest.approx(0.2 / 3)


def _soft_ball(scene: Scene, folder: Path, settings: PriorSettings) -> dict[str, float]:
    """Derivatives of the colour and the mask term by an outward shift of a soft surface.

    Only rays far from the outline, and colours that are right everywhere: nothing observed asks
    for a move.
    """
    torch.manual_seed(0)
    trainer = PriorTrainer(scene, folder, settings, torch.device("cpu"), SilentProgress())
    fit_hull(trainer.prior, trainer.guide, settings, trainer.generator)
    shift = torch.zeros((), requires_grad=True)
    evaluate = trainer.prior.evaluate

    def shifted(x: torch.Tensor) -> SurfaceSample:
        sample = evaluate(x)
        return sample._replace(sdf=sample.sdf - shift)

    def radiance(x: torch.Tensor, sample: SurfaceSample, along: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 0.8)

    trainer.prior.evaluate = shifted  # type: ignore[method-assign]
    trainer.prior.radiance = radiance  # type: ignore[method-assign]
    batch = trainer.bank.batch(torch.arange(len(trainer.bank)))
    inner = batch.interior.nonzero()[:, 0]
    assert len(inner) > 500
    batch = trainer.bank.batch(inner)._replace(color=torch.full((len(inner), 3), 0.8))
    terms = trainer.renderer.losses(batch, 20.0, 0.0)
    return {
        name: float(
            torch.autograd.grad(
                getattr(terms, name),
                shift,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )[0]
        )
        for name in ("color", "mask")
    }


def test_soft_surface_is_not_pushed_outwards(scene: Scene, tmp_path: Path) -> None:
    fitted = replace(SHORT, hull_steps=60)
    pull = _soft_ball(scene, tmp_path, fitted)
    assert pull["mask"] == 0.0 and abs(pull["color"]) < 0.02
    # Eq. 5 and 6 as they are do push: missing density is black, and the mask wants all of it.
    literal = replace(fitted, enough_coverage=0.0, divide_color=False)
    push = _soft_ball(scene, tmp_path, literal)
    assert push["mask"] < -0.02 and push["color"] < -0.02


def test_little_coverage_still_counts(scene: Scene, tmp_path: Path) -> None:
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), SilentProgress())
    batch = trainer.bank.batch(torch.zeros(3, dtype=torch.int64))
    batch = batch._replace(interior=torch.tensor([True, True, False]))
    mask = torch.tensor([0.7, 0.3, 0.7])
    rendered = Rendered(mask, torch.full((3, 3), 0.3), mask, mask)
    covered = trainer.renderer._covered(rendered, batch)
    assert covered.tolist() == pytest.approx([1.0, 0.3, 0.7])


def test_learning_rates_cool_down_at_the_end() -> None:
    settings = replace(PREVIEW, steps=1000, lr_final=0.05, cooldown=0.2)
    assert learning_rate_factor(700, settings) == pytest.approx(0.05**0.7)
    assert learning_rate_factor(900, settings) == pytest.approx(0.5 * 0.05**0.9)
    assert 0.0 < learning_rate_factor(999, settings) < 0.01 * 0.05
    assert learning_rate_factor(299_999, PAPER) == 1.0


@pytest.mark.parametrize("name", PRESETS)
def test_schedules_stay_in_range(name: str) -> None:
    settings = PRESETS[name]
    steps = [int(settings.steps * k / 20) for k in range(21)]
    levels = [active_levels(step, settings) for step in steps]
    assert levels == sorted(levels) and levels[-1] == settings.fields.levels
    inv_s = [sharpness(step, settings) for step in steps]
    assert inv_s == sorted(inv_s) and inv_s[0] == pytest.approx(settings.inv_s_start)
    assert inv_s[-1] == pytest.approx(settings.inv_s_end)
    assert all(0 < learning_rate_factor(step, settings) <= 1 for step in steps[:-1])
    assert view_strength(settings.steps, settings) == 1.0
    if name != "paper":
        assert stereo_weight(settings.steps, settings) == 0.0
        assert stereo_weight(0, settings) == PREVIEW.weight_mvs
