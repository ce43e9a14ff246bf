"""Stage I steps as CUDA graphs: what a processor can prove, and the rest where there is a GPU."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene
from step_tape import Repeater, taped

from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.training.recorded_step import RecordedStep, Shape
from toonify3d.training.settings import PAPER, TINY, PriorSettings
from toonify3d.training.stage1 import PriorTrainer, train_prior
from toonify3d.training.stage1_step import Losses

torch.set_num_threads(1)

SHORT = replace(TINY, steps=12, hull_steps=3, guide_interval=4, holdout_frames=0)
PUBLISHED = replace(
    PAPER,
    fields=replace(PAPER.fields, geometry_width=64, appearance_width=16, features=8),
    steps=3,
    rays=32,
    coarse_samples=8,
    fine_samples=8,
    guide_resolution=24,
    holdout_frames=0,
)


class RecordingTrainer(PriorTrainer):
    """Records on a processor too; counts its steps."""

    capturable = True
    repeater: Repeater

    def _recorded_step(self) -> RecordedStep:
        self.repeater = Repeater()
        return RecordedStep(self.bank, self.renderer, self.optimizer, self.generator, self.repeater)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(
        tmp_path_factory.mktemp("scene"), count=8, size=32, with_depth=True
    )


def _trainer(scene: Scene, folder: Path, settings: PriorSettings, recorded: bool) -> PriorTrainer:
    make = RecordingTrainer if recorded else PriorTrainer
    trainer = make(scene, folder, settings, torch.device("cpu"), SilentProgress())
    if not recorded:
        trainer.renderer.all_colors = True
    return trainer


@pytest.mark.parametrize("settings", [SHORT, PUBLISHED], ids=["grid", "published"])
def test_recorded_steps_are_the_plain_ones(
    scene: Scene, tmp_path: Path, settings: PriorSettings
) -> None:
    plain = _trainer(scene, tmp_path / "plain", settings, recorded=False)
    recorded = _trainer(scene, tmp_path / "recorded", settings, recorded=True)
    expected, got = plain.run(), recorded.run()
    for (name, a), b in zip(expected.state_dict().items(), got.state_dict().values(), strict=True):
        # The recorded sharpness is a float32 tensor, the plain one a Python number; Adam makes
        # whole steps of gradients that are nothing but round-off.
        near = torch.isclose(a, b, rtol=1e-3, atol=1e-4)
        assert float((~near).float().mean()) < 1e-3, name
    assert recorded.recorded is not None
    # Every step that was not the first of a recording was replayed, without a read-back.
    assert recorded.repeater.replays == settings.steps - recorded.recorded.recordings.made


def test_it_records_anew_only_when_the_kernels_change(scene: Scene, tmp_path: Path) -> None:
    settings = replace(SHORT, steps=20, base_levels=2, levels_until=0.5, mvs_until=0.6)
    trainer = _trainer(scene, tmp_path, settings, recorded=True)
    trainer.run()
    # Two, three, four levels, and the end of the stereo terms.
    assert trainer.recorded is not None and trainer.recorded.recordings.made == 4


def test_a_step_back_drops_the_recording(scene: Scene, tmp_path: Path) -> None:
    trainer = _trainer(scene, tmp_path, SHORT, recorded=True)
    trainer._train_step()
    trainer._train_step()
    trainer._step_back()
    trainer._train_step()
    assert trainer.recorded is not None and trainer.recorded.recordings.made == 2


def test_what_cannot_be_recorded_runs_plainly_and_is_told(scene: Scene, tmp_path: Path) -> None:
    def refuse(body: Callable[[], Losses]) -> tuple[Losses, Callable[[], Losses]]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    trainer = _trainer(scene, tmp_path, SHORT, recorded=True)
    assert trainer.recorded is not None
    trainer.recorded.recordings._recorder = refuse  # type: ignore[assignment]
    trainer.run()
    assert trainer.step == SHORT.steps
    assert any("without a CUDA graph" in text for text in trainer.progress.warnings)


def test_the_checker_sees_what_a_gpu_could_not_do() -> None:
    values = torch.rand(4)
    readings: list[Callable[[], Any]] = [
        lambda: float(values[0]),
        lambda: values.nonzero(),
        lambda: values[values > 0.5],
        lambda: values.cpu(),
        lambda: values.numpy(),
        lambda: torch.tensor([1.0], device="cpu"),
        lambda: torch.zeros(3),
    ]
    for reading in readings:
        with pytest.raises(AssertionError):
            taped(reading)


def test_the_checker_sees_what_a_recording_would_freeze() -> None:
    state = {"rate": 1.0, "weight": torch.ones(2), "count": 2}

    def body() -> torch.Tensor:
        return (state["weight"] * state["rate"])[: state["count"]].sum()

    for name, value in (("rate", 0.5), ("weight", torch.ones(2)), ("count", 1)):
        _, replay = Repeater()(body)
        replay()
        state["weight"].fill_(3.0)  # in place: a replay sees it
        replay()
        state[name] = value
        with pytest.raises(AssertionError):
            replay()


def test_a_replay_sees_new_scalars(scene: Scene, tmp_path: Path) -> None:
    trainer = _trainer(scene, tmp_path, SHORT, recorded=True)
    trainer._prepare_step()
    step = trainer.recorded
    assert step is not None
    seen: list[tuple[float, float]] = []
    inner = trainer.renderer.losses

    def watched(batch: Any, inv_s: Any, stereo: Any) -> Losses:
        seen.append((float(inv_s), float(stereo)))
        return inner(batch, inv_s, stereo)

    trainer.renderer.losses = watched  # type: ignore[method-assign]
    step.recordings._recorder = lambda body: (body(), body)  # type: ignore[assignment]
    shape = Shape(32, 4, 1.0, True)
    step.run(shape, 60.0, 0.5)
    step.run(shape, 80.0, 0.25)
    assert seen == [(60.0, 0.5), (80.0, 0.25)]


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [replace(SHORT, steps=200), PUBLISHED], ids=["grid", "paper"])
def test_a_graph_learns_what_plain_steps_learn(
    scene: Scene, tmp_path: Path, settings: PriorSettings
) -> None:
    warnings: list[str] = []
    final = {}
    for graph in (True, False):
        progress = SilentProgress()
        started = time.monotonic()
        folder = tmp_path / str(graph)
        train_prior(scene, folder, replace(settings, cuda_graph=graph), "cuda", progress)
        final[graph] = time.monotonic() - started
        warnings += progress.warnings
    assert not warnings
    metrics = [
        (tmp_path / str(graph) / "metrics.json").read_text(encoding="utf-8")
        for graph in (True, False)
    ]
    losses = [json.loads(text)["losses"]["total"] for text in metrics]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
