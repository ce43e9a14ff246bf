"""The optimisation loop that stages II and III share: resume, checkpoints, guard, progress."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..progress import Progress
from .checkpoint import (
    NAME,
    StepWatch,
    Timer,
    check_optimizer_state,
    cloned,
    load_checkpoint,
    load_optimizer,
    save_checkpoint,
)
from .recorded_step import CudaRecorder, Recorder, Recordings, make_capturable, set_rate
from .stage_files import save_state, write_metrics

CHECKPOINT_SECONDS = 20.0
MAX_ROLLBACKS = 3
LEAST_RAYS = 64
"""Smaller batches than this would not learn anything."""
# A loss this many times its recent mean counts as exploded.
EXPLOSION = 50.0
# Steps on a GPU between two looks at the loss: reading it back stalls the GPU.
LOOK_EVERY = 20
# A stage alternates between two kinds of steps at most: with and without the discriminator.
RECORDINGS = 2


def freeze(module: object) -> None:
    """No parameter of ``module`` (if it is one) gets a gradient from now on."""
    if isinstance(module, nn.Module):
        module.requires_grad_(False)


def cosine_factor(fraction: float, final: float = 0.05, warmup: float = 0.03) -> float:
    """Learning-rate factor: short linear warm-up, then a cosine down to ``final``.

    ``final`` 1 is a constant rate (paper), without a warm-up.
    """
    if final >= 1.0:
        return 1.0
    if fraction < warmup:
        return max(0.05, fraction / warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * fraction))


class Adaption(Protocol):
    """One run of stage II or III, by any method: what the loop and its end need of it."""

    def modules(self) -> nn.Module:
        """What is optimised, saved and restored."""

    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimizer of :meth:`modules`."""

    def generators(self) -> dict[str, torch.Generator | np.random.Generator]:
        """Random state to save, by name."""

    def losses(self, fraction: float) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        """The loss to descend and the values to report, ``fraction`` 0 to 1 of the way.

        Values are numbers or detached scalars; ``total`` among them is watched for explosions.
        """

    def shrink(self) -> int | None:
        """Halve the batch for want of memory: its new size, or None when it is at its least."""

    def step_state(self) -> dict[str, Any]:
        """What a step has from earlier ones beside modules, optimizer and random state.

        Tensors and plain values: grids that follow the shape, counters, the size of the batch.
        """

    def restore_step_state(self, state: dict[str, Any]) -> None:
        """Back to what :meth:`step_state` gave; the batch does not grow again.

        Raises:
            KeyError, RuntimeError: It is of another version.
        """

    def state(self) -> dict[str, Any]:
        """The result as tensors and plain values."""

    def figures(self) -> dict[str, Any]:
        """What ``metrics.json`` says about the result beside losses and time."""


@runtime_checkable
class Recordable(Adaption, Protocol):
    """An adaption whose steps can be recorded (see :mod:`.recorded_step`).

    ``losses(fraction)`` is ``prepare(fraction)`` followed by ``batch_losses()``.
    """

    def prepare(self, fraction: float) -> Hashable:
        """What a step needs of the host: schedules into tensors, grids bent anew, flags set.

        Returns:
            What the kernels of the next :meth:`batch_losses` depend on.
        """

    def batch_losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Adaption.losses`; draws on the device and reads nothing back."""


def recorder_for(adaption: Adaption) -> Recorder | None:
    """A recorder for an adaption on a GPU, or None when its steps run one kernel at a time."""
    if not isinstance(adaption, Recordable):
        return None
    device = next(adaption.modules().parameters()).device
    if device.type != "cuda":
        return None
    generators = adaption.generators().values()
    return CudaRecorder(device, [g for g in generators if isinstance(g, torch.Generator)])


@dataclasses.dataclass
class LoopResult:
    """What a finished loop reports.

    Attributes:
        losses: Running mean of each loss at the end.
        seconds: Optimisation time, over all resumed parts.
        rollbacks: How often it stepped back after a bad loss.
    """

    losses: dict[str, float]
    seconds: float
    rollbacks: int


class AdaptionLoop:
    """Runs steps until done; leaves ``folder/checkpoint.pt`` behind while it runs.

    Args:
        folder: Where the checkpoint lies.
        digest: Of the inputs; a checkpoint of other inputs is ignored.
        adaption: What is trained.
        progress: Told where the loop is; may raise ``CancelledError`` (a checkpoint is kept).
        final: Learning rate at the end as a fraction of its peak; 1 is a constant rate.
        recorder: Records the steps of a :class:`Recordable`; None runs them as they are.
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        adaption: Adaption,
        progress: Progress,
        final: float = 0.05,
        recorder: Recorder | None = None,
    ) -> None:
        self._folder, self._digest, self._adaption = folder, digest, adaption
        self._progress, self._final = progress, final
        self._modules, self._optimizer = adaption.modules(), adaption.optimizer()
        self._generators = adaption.generators()
        for group in self._optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))
        self._device = next(self._modules.parameters()).device
        self._recordings: Recordings | None = None
        if recorder is not None:
            self._recordings = Recordings(recorder, RECORDINGS)
            make_capturable(self._optimizer, self._device)
        self._looked = 0
        self._slowdown = 1.0
        self._rollbacks = 0
        self._seconds = 0.0
        self._recent: dict[str, float] = {}
        self._last: dict[str, Any] = {}
        self._watch = StepWatch(self._optimizer)

    def run(
        self, steps: int, message: str, watch: Callable[[int], None] | None = None
    ) -> LoopResult:
        """Optimise.

        Args:
            steps: Number of steps.
            message: Prefix of the progress message.
            watch: Called after each step with its number (previews).

        Raises:
            TrainingError: The loss was not finite (or exploded) four times, or the smallest batch
                does not fit into the GPU's memory.
            CancelledError: From the progress; the checkpoint is written first.
        """
        number = self._resume()
        if number == 0:
            self._save(0)
        timer, started = Timer(CHECKPOINT_SECONDS), time.monotonic()
        while number < steps or not self._is_sound():
            if number >= steps:
                number = self._roll_back()
                continue
            self._set_rate(cosine_factor(number / steps, self._final))
            number, good = self._try_step(number, number / steps)
            if not good:
                continue
            now = time.monotonic()
            self._seconds, started = self._seconds + now - started, now
            if timer.due():
                number = self._save(number)
            if watch is not None:
                watch(number)
            number = self._report(number, steps, message)
        return LoopResult(self._recent, self._seconds, self._rollbacks)

    def finish(self) -> None:
        """Remove the checkpoint: the result is safe elsewhere."""
        (self._folder / NAME).unlink(missing_ok=True)

    def _try_step(self, number: int, fraction: float) -> tuple[int, bool]:
        """One optimizer step: the number of steps done then, and whether it was one of them."""
        self._watch.began = False
        good: bool | None
        try:
            good = self._step(number, fraction)
        except torch.cuda.OutOfMemoryError:
            good = None  # handled below: here the error still holds the step's tensors
        if good is None:
            self._shrink()
            return (self._rewind() if self._watch.began else number), False
        return (number + 1, True) if good else (self._roll_back(), False)

    def _step(self, number: int, fraction: float) -> bool:
        """One optimizer step; False when the loss is bad.

        Nothing is changed then, except by a recorded step, which the step back undoes as well.
        """
        recorded = self._recorded_step(fraction)
        loss, values = self._gradients(fraction) if recorded is None else recorded
        if self._looks(number):
            if self._is_bad(loss):
                return False
            self._note(values, number)
        if recorded is None:
            self._optimizer.step()
        return True

    def _gradients(self, fraction: float) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        self._optimizer.zero_grad(set_to_none=True)
        loss, values = self._adaption.losses(fraction)
        loss.backward()
        return loss.detach(), values

    def _recorded_step(self, fraction: float) -> tuple[Tensor, Mapping[str, float | Tensor]] | None:
        """The whole step (optimizer included) from a recording; None when none are made."""
        adaption, recordings = self._adaption, self._recordings
        if recordings is None or not isinstance(adaption, Recordable):
            return None

        def body() -> tuple[Tensor, dict[str, Tensor]]:
            # Replays write the gradients anew: they were recorded as new ones.
            self._optimizer.zero_grad(set_to_none=True)
            loss, values = adaption.batch_losses()
            loss.backward()
            self._optimizer.step()
            return loss.detach(), values

        try:
            return recordings.run(adaption.prepare(fraction), body)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._recordings = None
            reason = str(error).splitlines()[0]
            self._progress.warn(f"Steps run without a CUDA graph, hence slower ({reason}).")
            return None

    def _looks(self, number: int) -> bool:
        """Whether the loss of a step is read."""
        return self._device.type == "cpu" or number % LOOK_EVERY == 0

    def _shrink(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        if self._recordings is not None:
            self._recordings.forget()
        torch.cuda.empty_cache()
        size = self._adaption.shrink()
        if size is None:
            raise TrainingError("The GPU's memory does not suffice even for the smallest batch.")
        self._progress.warn(f"Out of GPU memory; going on with {size} rays a step.")

    def _report(self, number: int, steps: int, message: str) -> int:
        if number % 5 and number != steps:
            return number
        try:
            loss = self._recent.get("total", 0.0)
            self._progress.update(number / steps, f"{message}: step {number}, loss {loss:.4f}")
        except BaseException:
            self._save(number)
            raise
        return number

    def _is_bad(self, loss: Tensor) -> bool:
        value = float(loss.detach())
        usual = self._recent.get("total")
        return not math.isfinite(value) or (usual is not None and value > EXPLOSION * usual + 10.0)

    def _is_sound(self) -> bool:
        """Whether all parameters are finite (a finite loss may have infinite gradients)."""
        return all(bool(torch.isfinite(p).all()) for p in self._modules.parameters())

    def _note(self, values: Mapping[str, float | Tensor], number: int) -> None:
        """Running means over about twenty steps, however many of them are looked at."""
        keep = 0.95 ** max(1, number - self._looked)
        self._looked = number
        for name, value in values.items():
            now = float(value)
            self._recent[name] = keep * self._recent.get(name, now) + (1.0 - keep) * now

    def _set_rate(self, factor: float) -> None:
        for group in self._optimizer.param_groups:
            set_rate(group, group["initial_lr"] * factor * self._slowdown)

    def _roll_back(self) -> int:
        """Back to the last checkpoint with half the rate and other random draws."""
        self._rollbacks += 1
        if self._rollbacks > MAX_ROLLBACKS:
            raise TrainingError(_DIVERGED)
        self._slowdown *= 0.5
        number = self._rewind()
        for generator in self._generators.values():
            _reseed(generator, self._rollbacks)
        self._progress.warn(
            f"The loss was not finite; went back to step {number} with half the learning rate."
        )
        return number

    def _rewind(self) -> int:
        """Back to the last checkpoint, keeping what has been learned about rate and batch."""
        kept = self._rollbacks, self._slowdown
        number = self._restore(self._last)
        self._rollbacks, self._slowdown = kept
        return number

    def _save(self, number: int) -> int:
        """Write the checkpoint; steps back instead when a parameter is not finite."""
        if not self._is_sound():
            return self._roll_back()
        state: dict[str, Any] = {
            "digest": self._digest,
            "step": number,
            "seconds": self._seconds,
            "slowdown": self._slowdown,
            "rollbacks": self._rollbacks,
            "recent": dict(self._recent),
            "modules": cloned(self._modules.state_dict()),
            "optimizer": cloned(self._optimizer.state_dict()),
            "adaption": cloned(self._adaption.step_state()),
        }
        for name, generator in self._generators.items():
            if isinstance(generator, torch.Generator):
                state[f"random.{name}"] = generator.get_state()
            else:
                state[f"random.{name}"] = json.dumps(generator.bit_generator.state)
        save_checkpoint(self._folder, state)
        self._last = state
        return number

    def _resume(self) -> int:
        """Go on from the checkpoint in the folder if it is this run's and of this code."""
        state = load_checkpoint(self._folder, "cpu")
        if state is None or state.get("digest") != self._digest:
            return 0
        fresh = cloned(self._modules.state_dict()), cloned(self._optimizer.state_dict())
        started = cloned(self._adaption.step_state())
        try:
            check_optimizer_state(self._optimizer, state["optimizer"])
            number = self._restore(state)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError):
            # Modules take what fits before they complain about the rest.
            self._modules.load_state_dict(fresh[0])
            load_optimizer(self._optimizer, fresh[1])
            self._adaption.restore_step_state(started)
            self._progress.warn(
                "The checkpoint was written by another version; this stage starts anew."
            )
            return 0
        self._last = state
        return number

    def _restore(self, state: dict[str, Any]) -> int:
        self._modules.load_state_dict(state["modules"])
        load_optimizer(self._optimizer, state["optimizer"])
        self._adaption.restore_step_state(state["adaption"])
        if self._recordings is not None:
            self._recordings.forget()  # the moments are other tensors now
        for name, generator in self._generators.items():
            saved = state[f"random.{name}"]
            if isinstance(generator, torch.Generator):
                generator.set_state(saved)
            else:
                generator.bit_generator.state = json.loads(saved)
        self._seconds, self._slowdown = float(state["seconds"]), float(state["slowdown"])
        self._rollbacks, self._recent = int(state["rollbacks"]), dict(state["recent"])
        self._looked = int(state["step"])
        return self._looked


_DIVERGED = (
    "Training diverged repeatedly even at a smaller learning rate; "
    "check the stylized portraits and their masks, or use another preset."
)


def _reseed(generator: torch.Generator | np.random.Generator, number: int) -> None:
    """Other draws than those that led into a bad loss."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(1000 * number + 7)
    else:
        generator.bit_generator.state = np.random.default_rng(1000 * number).bit_generator.state


def run_adaption(
    adaption: Adaption,
    folder: Path,
    result: str,
    digest: str,
    progress: Progress,
    steps: int,
    final: float,
    message: str,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Train, write ``folder/result`` and ``folder/metrics.json``, remove the checkpoint.

    Args:
        adaption: What is trained.
        folder: The stage's folder.
        result: Name of the result file.
        digest: Of the inputs.
        progress: Told where it is.
        steps: Number of steps.
        final: Learning rate at the end as a fraction of its peak.
        message: Prefix of the progress message.
        watch: Called after each step with its number.
    """
    recorder = recorder_for(adaption)
    loop = AdaptionLoop(folder, digest, adaption, progress, final, recorder)
    done = loop.run(steps, message, watch)
    adaption.modules().requires_grad_(False)
    save_state(folder / result, adaption.state())
    figures = {
        "steps": steps,
        "seconds": done.seconds,
        "losses": done.losses,
        "rollbacks": done.rollbacks,
    }
    write_metrics(folder, digest, figures | adaption.figures())
    loop.finish()
