"""What must not end a job: bad numbers, too little memory, a kill, other people's checkpoints."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene
from analytic_head import BallPrior, KnownBend, portraits
from analytic_head import make_scene as make_head

from toonify3d.errors import InputError, TrainingError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.training.adaption_settings import GeometryAdaptionSettings
from toonify3d.training.bending import GeometryAdaption
from toonify3d.training.checkpoint import load_checkpoint
from toonify3d.training.settings import TINY
from toonify3d.training.stage1 import PriorTrainer, load_prior, train_prior
from toonify3d.training.stage1_step import StepRenderer
from toonify3d.training.stage2 import adapt_geometry

torch.set_num_threads(1)

SHORT = replace(TINY, steps=8, hull_steps=3, guide_interval=5, holdout_frames=0)
BEND = GeometryAdaptionSettings(
    steps=6,
    rays=128,
    mask_rays=96,
    samples=6,
    coarse_resolution=40,
    search_steps=32,
    flow_weight=0.0,
)
LONG = replace(
    TINY, steps=200, hull_steps=20, holdout_frames=0, checkpoint_seconds=0.2, guide_resolution=40
)
CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.training.settings import TINY
from toonify3d.training.stage1 import train_prior
torch.set_num_threads(1)
settings = replace(TINY, steps=200, hull_steps=20, holdout_frames=0, checkpoint_seconds=0.2,
                   guide_resolution=40)
train_prior(Scene.load(Path(sys.argv[1])), Path(sys.argv[2]), settings, "cpu", SilentProgress())
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(tmp_path_factory.mktemp("ball"), count=12, size=40)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory):
    made = make_head(tmp_path_factory.mktemp("head"), size=48)
    return made, portraits(made, KnownBend(), (-0.1, 0.1))


def bend(head, folder: Path, progress: SilentProgress) -> object:
    scene, views = head
    return adapt_geometry(scene, BallPrior(), views, None, folder, BEND, "cpu", progress)


# -- stage I --------------------------------------------------------------------------------------


def test_killed_at_a_random_moment_it_ends_where_an_undisturbed_run_ends(
    scene: Scene, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    environment = os.environ | {
        "PYTHONPATH": str(Path(stage1_scene.__file__).parents[2] / "backend")
    }
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(scene.root), str(folder)], env=environment
    )
    try:
        waited = time.monotonic() + 120
        while not (folder / "checkpoint.pt").exists():
            assert child.poll() is None and time.monotonic() < waited
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 0.4))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    state = load_checkpoint(folder, "cpu")
    assert state is not None and not state["done"] and 0 < state["step"] < LONG.steps
    resumed = train_prior(scene, folder, LONG, "cpu", SilentProgress())
    whole = train_prior(scene, tmp_path / "whole", LONG, "cpu", SilentProgress())
    torch.manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(500, 3), dim=1) * stage1_scene.RADIUS
    difference = (resumed.sdf(points) - whole.sdf(points)).abs()
    # All state is in the checkpoint: what is left is rounding.
    assert float(difference.max()) < 1e-4
    assert float(whole.sdf(points).abs().median()) < 0.03


def test_broken_parameters_are_not_saved_and_stepped_back_from(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss can have infinite gradients; the parameters break one step later."""
    progress = SilentProgress()
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), progress)
    step, calls = trainer.optimizer.step, []

    def poisoned() -> None:
        step()
        calls.append(trainer.step)
        if len(calls) == 4:
            with torch.no_grad():
                trainer.prior.geometry.layers[0].weight[0, 0] = float("nan")
            trainer.save()
            assert load_checkpoint(tmp_path, "cpu") is None

    monkeypatch.setattr(trainer.optimizer, "step", poisoned)
    prior = trainer.run()
    assert len(progress.warnings) == 1 and trainer.lr_scale == 0.5
    assert all(bool(torch.isfinite(p).all()) for p in prior.parameters())


def test_parameters_that_break_in_the_very_last_step_are_noticed(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = SilentProgress()
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), progress)
    step, calls = trainer.optimizer.step, []

    def poisoned() -> None:
        step()
        calls.append(trainer.step)
        if len(calls) == SHORT.steps:
            with torch.no_grad():
                trainer.prior.appearance.layers[0].bias[0] = float("inf")

    monkeypatch.setattr(trainer.optimizer, "step", poisoned)
    prior = trainer.run()
    assert len(progress.warnings) == 1
    assert all(bool(torch.isfinite(p).all()) for p in prior.parameters())


def test_out_of_memory_halves_the_rays_and_goes_on(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = StepRenderer.losses, []

    def small(self: StepRenderer, batch, *rest):
        calls.append(len(batch.origins))
        if len(batch.origins) > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return losses(self, batch, *rest)

    monkeypatch.setattr(StepRenderer, "losses", small)
    progress = SilentProgress()
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), progress)
    trainer.run()
    assert calls[:3] == [256, 128, 64] and trainer.rays == 64 and trainer.step == SHORT.steps
    assert [w for w in progress.warnings if "64 rays" in w]

    def never(self: StepRenderer, *arguments: object) -> object:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    monkeypatch.setattr(StepRenderer, "losses", never)
    with pytest.raises(TrainingError, match="memory"):
        PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), SilentProgress()).run()


def test_corrections_that_break_in_the_very_last_step_are_noticed(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later step would read such poses from ``cameras.json``."""
    settings = replace(SHORT, refine_cameras=True, refine_exposure=True)
    for name in ("rotation", "log_gain"):
        folder, progress = tmp_path / name, SilentProgress()
        folder.mkdir()
        trainer = PriorTrainer(scene, folder, settings, torch.device("cpu"), progress)
        step, calls = trainer.optimizer.step, []

        def poisoned(
            trainer: PriorTrainer = trainer, step=step, calls: list = calls, name: str = name
        ) -> None:
            step()
            calls.append(trainer.step)
            if len(calls) == settings.steps:
                with torch.no_grad():
                    getattr(trainer.corrections, name)[0, 0] = float("nan")
                trainer.save()
                assert load_checkpoint(trainer.folder, "cpu") is None

        monkeypatch.setattr(trainer.optimizer, "step", poisoned)
        trainer.run()
        assert len(progress.warnings) == 1 and trainer.lr_scale == 0.5
        assert all(bool(torch.isfinite(p).all()) for p in trainer.corrections.parameters())
        assert "NaN" not in (folder / "cameras.json").read_text(encoding="utf-8")
        assert "NaN" not in (folder / "metrics.json").read_text(encoding="utf-8")


def _trained(scene: Scene, folder: Path, rays: int) -> torch.Tensor:
    trainer = PriorTrainer(scene, folder, SHORT, torch.device("cpu"), SilentProgress())
    trainer.rays = rays
    trainer.run()
    return torch.cat([p.flatten() for p in trainer.prior.parameters()])


@pytest.mark.parametrize("number", [1, 4])
def test_memory_that_ends_within_the_optimizer_applies_no_step_twice(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Adam allocates its moments while it steps: some groups are done then, others half made."""
    progress = SilentProgress()
    folder = tmp_path / "lacking"
    trainer = PriorTrainer(scene, folder, SHORT, torch.device("cpu"), progress)
    step, calls = trainer.optimizer.step, []

    def breaking_off() -> None:
        step()
        calls.append(1)
        if len(calls) == number:
            made = list(trainer.optimizer.state.values())
            del made[-1]["exp_avg"]
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    monkeypatch.setattr(trainer.optimizer, "step", breaking_off)
    trainer.run()
    assert progress.warnings == ["Stage I: out of GPU memory; going on with 128 rays a step."]
    # As if it had begun with the rays that fit.
    got = torch.cat([p.flatten() for p in trainer.prior.parameters()])
    assert torch.equal(got, _trained(scene, tmp_path / "smaller", 128))


def test_memory_that_ends_between_steps_costs_rays_only(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, calls = SilentProgress(), []
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), progress)
    refresh = trainer.guide.refresh

    def lacking(*arguments, **named) -> None:
        calls.append(trainer.step)
        if trainer.step and trainer.rays > 128:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        refresh(*arguments, **named)

    monkeypatch.setattr(trainer.guide, "refresh", lacking)
    trainer.run()
    # After the hull, at step 5 in vain, there again, and at the end.
    assert calls == [0, 5, 5, SHORT.steps]
    assert trainer.step == SHORT.steps and trainer.rays == 128 and len(progress.warnings) == 1


def _foreign(kind: str, state: dict) -> object:
    if kind == "shape":
        state["prior"]["parameters"]["geometry.layers.0.weight"] = torch.zeros(3, 3)
    elif kind == "unknown key":
        state["prior"]["parameters"]["geometry.attention"] = torch.zeros(2)
    elif kind == "optimizer":
        first = next(iter(state["optimizer"]["state"].values()))
        first["exp_avg"] = torch.zeros(5)
    elif kind == "missing":
        del state["corrections"]
    elif kind == "not a dictionary":
        return torch.zeros(3)
    return state


@pytest.mark.parametrize(
    "kind", ["shape", "unknown key", "optimizer", "missing", "not a dictionary"]
)
def test_a_checkpoint_of_other_code_starts_the_stage_anew(
    scene: Scene, tmp_path: Path, kind: str
) -> None:
    trainer = PriorTrainer(scene, tmp_path, SHORT, torch.device("cpu"), SilentProgress())
    trainer._train_step()
    trainer.save()
    path = tmp_path / "checkpoint.pt"
    torch.save(_foreign(kind, torch.load(path, weights_only=True)), path)
    progress = SilentProgress()
    train_prior(scene, tmp_path, SHORT, "cpu", progress)
    state = load_checkpoint(tmp_path, "cpu")
    assert state is not None and state["done"]
    if kind != "not a dictionary":
        assert len(progress.warnings) == 1 and "starts anew" in progress.warnings[0]


class Evil:
    """Would run code if it were unpickled freely."""

    def __reduce__(self):
        return (os.system, ("touch /tmp/toonify3d_evil",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Evil()))
    assert load_checkpoint(tmp_path, "cpu") is None
    with pytest.raises(InputError) as caught:
        load_prior(tmp_path, "cpu")
    assert caught.value.code == "no_prior"
    assert not Path("/tmp/toonify3d_evil").exists()


# -- stages II and III ----------------------------------------------------------------------------


def test_an_infinite_gradient_is_stepped_back_from(
    head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer, calls = GeometryAdaption.optimizer, []

    def poisoned(self: GeometryAdaption) -> torch.optim.Optimizer:
        made = optimizer(self)
        step = made.step

        def break_once(*arguments: object) -> None:
            step()
            calls.append(1)
            if len(calls) == BEND.steps:
                with torch.no_grad():
                    self.deformation.out.bias[0] = float("nan")

        made.step = break_once  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(GeometryAdaption, "optimizer", poisoned)
    progress = SilentProgress()
    bend(head, tmp_path, progress)
    assert len(progress.warnings) == 1
    stored = torch.load(tmp_path / "geometry.pt", weights_only=True)["deformation"]
    assert all(bool(torch.isfinite(value).all()) for value in stored.values())


def test_a_lasting_nan_ends_with_one_sentence(
    head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, draws = GeometryAdaption.losses, []

    def poisoned(self: GeometryAdaption, fraction: float):
        draws.append(bytes(self.generator.get_state().numpy()))
        total, values = losses(self, fraction)
        return total * (float("nan") if fraction > 0.3 else 1.0), values

    monkeypatch.setattr(GeometryAdaption, "losses", poisoned)
    progress = SilentProgress()
    with pytest.raises(TrainingError) as caught:
        bend(head, tmp_path, progress)
    assert str(caught.value).count(".") == 1
    assert len(progress.warnings) == 3
    # Going back, it draws other rays than those that led there.
    assert len(set(draws)) == len(draws)


def test_too_little_memory_in_stage_two(
    head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = GeometryAdaption.losses

    def small(self: GeometryAdaption, fraction: float):
        if self.ray_count > 64:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return losses(self, fraction)

    monkeypatch.setattr(GeometryAdaption, "losses", small)
    progress = SilentProgress()
    bend(head, tmp_path / "a", progress)
    assert progress.warnings == ["Out of GPU memory; going on with 64 rays a step."]

    def never(self: GeometryAdaption, fraction: float):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    monkeypatch.setattr(GeometryAdaption, "losses", never)
    with pytest.raises(TrainingError, match="memory"):
        bend(head, tmp_path / "b", SilentProgress())


class _Cancel(SilentProgress):
    def update(self, fraction: float, message: str = "") -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["modules", "optimizer", "random", "digest only"])
def test_a_checkpoint_of_other_code_in_stage_two(head, tmp_path: Path, kind: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        bend(head, tmp_path, _Cancel())
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    if kind == "modules":
        state["modules"]["deformation.out.weight"] = torch.zeros(3, 7)
    elif kind == "optimizer":
        state["optimizer"]["param_groups"].append(state["optimizer"]["param_groups"][0])
    elif kind == "random":
        del state["random.rays"]
    else:
        state = {"digest": state["digest"]}
    torch.save(state, path)
    progress = SilentProgress()
    bend(head, tmp_path, progress)
    assert len(progress.warnings) == 1 and "starts anew" in progress.warnings[0]
    assert (tmp_path / "geometry.pt").exists() and not path.exists()
