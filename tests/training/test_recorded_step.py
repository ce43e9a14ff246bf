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
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene

from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.training.recorded_step import Body, RecordedStep, Shape
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
# Operators that read a value back to the host, or whose result's size depends on values.
READING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::is_nonzero",
    "aten::equal",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::bincount",
    "aten::repeat_interleave",
}


class NoReadBack(TorchDispatchMode):
    """Fails at every operator that would stall a GPU or could not be recorded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        assert name not in READING, f"{name} reads back from the device"
        if name in ("aten::index", "aten::index_put_", "aten::index_put"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a mask as an index"
        return func(*args, **(kwargs or {}))


class Repeater:
    """Stands in for a GPU's recorder: replays by calling the body, read-backs forbidden."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, body: Body) -> tuple[Losses, Body]:
        def replay() -> Losses:
            self.replays += 1
            with NoReadBack():
                return body()

        return body(), replay


class RecordingTrainer(PriorTrainer):
    """Records on a processor too; counts its steps."""

    repeater: Repeater

    def _recorded_step(self) -> RecordedStep:
        return RecordedStep(self.bank, self.renderer, self.optimizer, self.generator, self.repeater)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(
        tmp_path_factory.mktemp("scene"), count=8, size=32, with_depth=True
    )


def _trainer(scene: Scene, folder: Path, settings: PriorSettings, recorded: bool) -> PriorTrainer:
    make = RecordingTrainer if recorded else PriorTrainer
    trainer = make(scene, folder, settings, torch.device("cpu"), SilentProgress())
    if recorded:
        trainer.repeater = Repeater()
        trainer.recorded = trainer._recorded_step()
    else:
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
    assert recorded.repeater.replays == settings.steps - recorded.recorded.recordings


def test_it_records_anew_only_when_the_kernels_change(scene: Scene, tmp_path: Path) -> None:
    settings = replace(SHORT, steps=20, base_levels=2, levels_until=0.5, mvs_until=0.6)
    trainer = _trainer(scene, tmp_path, settings, recorded=True)
    trainer.run()
    # Two, three, four levels, and the end of the stereo terms.
    assert trainer.recorded is not None and trainer.recorded.recordings == 4


def test_a_step_back_drops_the_recording(scene: Scene, tmp_path: Path) -> None:
    trainer = _trainer(scene, tmp_path, SHORT, recorded=True)
    trainer._train_step()
    trainer._train_step()
    trainer._step_back()
    trainer._train_step()
    assert trainer.recorded is not None and trainer.recorded.recordings == 2


def test_what_cannot_be_recorded_runs_plainly_and_is_told(scene: Scene, tmp_path: Path) -> None:
    def refuse(body: Body) -> tuple[Losses, Body]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    trainer = _trainer(scene, tmp_path, SHORT, recorded=True)
    trainer.repeater = refuse
    trainer.recorded = trainer._recorded_step()
    trainer.run()
    assert trainer.step == SHORT.steps
    assert any("without a CUDA graph" in text for text in trainer.progress.warnings)


def test_the_checker_sees_a_read_back() -> None:
    values = torch.rand(4)
    readings: list[Callable[[], Any]] = [
        lambda: float(values[0]),
        lambda: values.nonzero(),
        lambda: values[values > 0.5],
    ]
    for reading in readings:
        with pytest.raises(AssertionError), NoReadBack():
            reading()


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
    step._recorder = lambda body: (body(), body)
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
