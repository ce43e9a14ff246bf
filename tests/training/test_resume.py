"""Stages II and III, stopped or killed, end where an undisturbed run ends; so does one that lacks
memory, or whose parameters break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import resume_child
from analytic_head import KnownBend, make_scene, portraits
from step_tape import Repeater
from test_recorded_adaption import GRID, METHODS, TUNE, Captured, _parameters, _tuning

from toonify3d.errors import CancelledError, TrainingError
from toonify3d.progress import SilentProgress
from toonify3d.training import bending, finetune
from toonify3d.training.adaption_loop import AdaptionLoop
from toonify3d.training.checkpoint import load_checkpoint
from toonify3d.training.surface_texture import LEAST_POINTS

torch.set_num_threads(1)

STEPS = 12


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Captured:
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=48)
    return scene, portraits(scene, KnownBend(), (-0.2, 0.2))


@pytest.fixture(autouse=True)
def _grids_are_renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within these short runs, and not at the step where they are stopped."""
    monkeypatch.setattr(bending, "REFRESH", 4)
    monkeypatch.setattr(finetune, "REFRESH", 4)


class _StopAt(SilentProgress):
    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction

    def update(self, fraction: float, message: str = "") -> None:
        if fraction >= self.fraction:
            raise CancelledError("stop")


def _loop(
    adaption: Any,
    folder: Path,
    progress: SilentProgress | None = None,
    recorder: Repeater | None = None,
) -> AdaptionLoop:
    return AdaptionLoop(folder, "digest", adaption, progress or SilentProgress(), recorder=recorder)


@pytest.mark.parametrize("name", METHODS)
def test_stopped_at_a_step_it_resumes_to_the_very_same_parameters(
    captured: Captured, tmp_path: Path, name: str
) -> None:
    whole = METHODS[name](captured)
    _loop(whole, tmp_path / "whole").run(STEPS, "")
    with pytest.raises(CancelledError):
        _loop(METHODS[name](captured), tmp_path / "parts", _StopAt(0.4)).run(STEPS, "")
    state = load_checkpoint(tmp_path / "parts", "cpu")
    assert state is not None and state["step"] == 5
    resumed = METHODS[name](captured)
    _loop(resumed, tmp_path / "parts").run(STEPS, "")
    assert torch.equal(_parameters(whole), _parameters(resumed))


@pytest.mark.parametrize("stage", ["geometry", "texture"])
def test_killed_at_a_random_moment_it_ends_where_an_undisturbed_run_ends(
    tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "killed"
    backend = str(Path(__file__).parents[2] / "backend")
    child = subprocess.Popen(
        [sys.executable, resume_child.__file__, stage, str(folder)],
        env=os.environ | {"PYTHONPATH": backend},
    )
    try:
        waited = time.monotonic() + 240
        while (load_checkpoint(folder, "cpu") or {"step": 0})["step"] < 10:
            assert child.poll() is None and time.monotonic() < waited
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    state = load_checkpoint(folder, "cpu")
    assert state is not None and 0 < state["step"] < resume_child.STEPS
    resumed = resume_child.run(stage, folder)
    whole = resume_child.run(stage, tmp_path / "whole")
    assert len(whole) > 5 and whole.keys() == resumed.keys()
    for name, value in whole.items():
        # All state is in the checkpoint: what is left is rounding.
        assert torch.allclose(value, resumed[name], rtol=1e-4, atol=1e-5), name


# -- memory ---------------------------------------------------------------------------------------


def _smaller_bending(captured: Captured) -> Any:
    adaption = METHODS["bending"](captured)
    adaption.ray_count, adaption.mask_ray_count = 64, 48
    return adaption


def _texturing(captured: Captured, points: int) -> Any:
    adaption = METHODS["painting the surface"](captured)
    adaption.count = points
    return adaption


SMALLER: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "bending": (METHODS["bending"], _smaller_bending),
    "painting the surface": (
        lambda captured: _texturing(captured, 2 * LEAST_POINTS),
        lambda captured: _texturing(captured, LEAST_POINTS),
    ),
}


@pytest.mark.parametrize(
    ("name", "number", "recorder"),
    [
        ("bending", 1, None),
        ("bending", 3, None),
        ("painting the surface", 1, None),
        ("painting the surface", 3, None),
        ("painting the surface", 1, Repeater()),
    ],
)
def test_memory_that_ends_within_the_optimizer_applies_no_step_twice(
    captured: Captured, tmp_path: Path, name: str, number: int, recorder: Repeater | None
) -> None:
    """Adam allocates its moments while it steps: some groups are done then, others half made."""
    whole, half = SMALLER[name]
    adaption, progress, calls = whole(captured), SilentProgress(), []
    loop = _loop(adaption, tmp_path / "lacking", progress, recorder)
    optimizer = loop._optimizer
    step = optimizer.step

    def breaking_off() -> None:
        step()
        calls.append(1)
        if len(calls) == number:
            made = [moments for moments in optimizer.state.values() if "exp_avg" in moments]
            del made[-1]["exp_avg"]
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    optimizer.step = breaking_off  # type: ignore[method-assign,assignment]
    loop.run(6, "")
    assert len(progress.warnings) == 1 and "Out of GPU memory" in progress.warnings[0]
    # As if it had begun with the batch that fits.
    expected = half(captured)
    _loop(expected, tmp_path / "smaller", None, recorder).run(6, "")
    assert torch.equal(_parameters(adaption), _parameters(expected))


def test_too_little_memory_in_stage_three(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adaption, progress = _texturing(captured, 4 * LEAST_POINTS), SilentProgress()
    inner = adaption.batch_losses

    def small() -> Any:
        if adaption.count > LEAST_POINTS:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")
        return inner()

    monkeypatch.setattr(adaption, "batch_losses", small)
    _loop(adaption, tmp_path / "a", progress).run(3, "")
    assert [warning.split()[7] for warning in progress.warnings] == ["1024", "512"]

    def never() -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory (injected)")

    monkeypatch.setattr(adaption, "batch_losses", never)
    with pytest.raises(TrainingError, match="memory"):
        _loop(adaption, tmp_path / "b").run(3, "")


def test_a_batch_that_memory_made_smaller_stays_so(captured: Captured, tmp_path: Path) -> None:
    adaption = METHODS["bending"](captured)
    assert adaption.shrink() == 64
    with pytest.raises(CancelledError):
        _loop(adaption, tmp_path, _StopAt(0.4)).run(STEPS, "")
    resumed = METHODS["bending"](captured)
    loop = _loop(resumed, tmp_path)
    assert loop._resume() == 5 and resumed.ray_count == 64 and resumed.mask_ray_count == 48
    resumed.ray_count = 32
    loop._rewind()
    assert resumed.ray_count == 32


# -- numbers --------------------------------------------------------------------------------------


def test_a_guide_that_followed_broken_parameters_goes_back_with_them(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a grid of NaN no vertex counts as near the surface: none would ever be renewed."""
    monkeypatch.setattr(finetune, "REFRESH", 1)
    adaption, progress, calls = _tuning(TUNE, GRID)(captured), SilentProgress(), []
    loop = _loop(adaption, tmp_path, progress)
    step = loop._optimizer.step

    def poisoned() -> None:
        step()
        calls.append(1)
        if len(calls) == 2:
            with torch.no_grad():
                adaption.adapted.geometry.layers[0].weight[0, 0] = float("nan")

    loop._optimizer.step = poisoned  # type: ignore[method-assign,assignment]
    loop.run(5, "")
    assert len(progress.warnings) == 1 and "half the learning rate" in progress.warnings[0]
    assert bool(torch.isfinite(adaption.guide.values).all())


@pytest.mark.parametrize("missing", ["adaption", "random.rays"])
def test_a_checkpoint_without_the_step_state_starts_the_stage_anew(
    captured: Captured, tmp_path: Path, missing: str
) -> None:
    """As earlier versions wrote them; and nothing stays of what was read before that showed."""
    with pytest.raises(CancelledError):
        _loop(METHODS["bending"](captured), tmp_path, _StopAt(0.4)).run(STEPS, "")
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state[missing]
    torch.save(state, path)
    adaption, fresh = METHODS["bending"](captured), METHODS["bending"](captured)
    progress = SilentProgress()
    assert _loop(adaption, tmp_path, progress)._resume() == 0
    assert len(progress.warnings) == 1 and "starts anew" in progress.warnings[0]
    assert torch.equal(_parameters(adaption), _parameters(fresh))
    assert torch.equal(adaption.coarse.values, fresh.coarse.values)
