"""The optimisation loop that stages II and III share: resume, checkpoints, guard, progress."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..files import write_atomic, write_json
from ..progress import Progress
from ..scene import Displacement, StylizedView
from .checkpoint import (
    NAME,
    Timer,
    check_optimizer_state,
    cloned,
    load_checkpoint,
    save_checkpoint,
)

CHECKPOINT_SECONDS = 20.0
MAX_ROLLBACKS = 3
LEAST_RAYS = 64
"""Smaller batches than this would not learn anything."""
# A loss this many times its recent mean counts as exploded.
EXPLOSION = 50.0


def input_digest(settings: Any, views: list[StylizedView], *more: Any) -> str:
    """Hash of everything that decides a stage's result, to know a finished one again.

    Args:
        settings: A dataclass.
        views: Portraits: names, pixels, masks, confidences.
        more: Displacements, arrays, modules (their parameters) or None.
    """
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    for view in views:
        digest.update(view.frame.name.encode())
        for array in (view.image, view.mask, view.confidence):
            digest.update(np.ascontiguousarray(array).tobytes())
    for item in more:
        if isinstance(item, Displacement):
            digest.update(np.ascontiguousarray(item.points).tobytes())
            digest.update(np.ascontiguousarray(item.offsets).tobytes())
        elif isinstance(item, np.ndarray):
            digest.update(np.ascontiguousarray(item).tobytes())
        elif isinstance(item, nn.Module):
            for name, tensor in item.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically (readable with ``weights_only=True``)."""
    write_atomic(path, lambda temporary: torch.save(state, temporary))


def load_state(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Read what :func:`save_state` wrote, without unpickling code."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def read_finished(folder: Path, digest: str) -> bool:
    """Whether ``folder/metrics.json`` says that this very run has finished."""
    path = folder / "metrics.json"
    if not path.exists():
        return False
    document = json.loads(path.read_text(encoding="utf-8"))
    return bool(document.get("finished")) and document.get("digest") == digest


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

    def losses(self, fraction: float) -> tuple[Tensor, dict[str, float]]:
        """The loss to descend and the values to report, ``fraction`` 0 to 1 of the way."""

    def shrink(self) -> int | None:
        """Halve the batch for want of memory: its new size, or None when it is at its least."""

    def state(self) -> dict[str, Any]:
        """The result as tensors and plain values."""

    def figures(self) -> dict[str, Any]:
        """What ``metrics.json`` says about the result beside losses and time."""


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
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        adaption: Adaption,
        progress: Progress,
        final: float = 0.05,
    ) -> None:
        self._folder, self._digest, self._adaption = folder, digest, adaption
        self._progress, self._final = progress, final
        self._modules, self._optimizer = adaption.modules(), adaption.optimizer()
        self._generators = adaption.generators()
        for group in self._optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._slowdown = 1.0
        self._rollbacks = 0
        self._seconds = 0.0
        self._recent: dict[str, float] = {}
        self._last: dict[str, Any] = {}

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
            values = self._step(number / steps)
            if values is None:
                number = self._roll_back()
                continue
            self._note(values)
            number += 1
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

    def _step(self, fraction: float) -> dict[str, float] | None:
        """One optimizer step; None when the loss is bad (nothing is changed then)."""
        while True:
            try:
                loss, values = self._adaption.losses(fraction)
                if self._is_bad(loss):
                    return None
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
            except torch.cuda.OutOfMemoryError:
                self._shrink()
                continue
            self._optimizer.step()
            return values

    def _shrink(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
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

    def _note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._recent[name] = 0.95 * self._recent.get(name, value) + 0.05 * value

    def _set_rate(self, factor: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * self._slowdown

    def _roll_back(self) -> int:
        """Back to the last checkpoint with half the rate and other random draws."""
        self._rollbacks += 1
        if self._rollbacks > MAX_ROLLBACKS:
            raise TrainingError(_DIVERGED)
        rollbacks, slowdown = self._rollbacks, 0.5 * self._slowdown
        number = self._restore(self._last)
        self._rollbacks, self._slowdown = rollbacks, slowdown
        for generator in self._generators.values():
            _reseed(generator, rollbacks)
        self._progress.warn(
            f"The loss was not finite; went back to step {number} with half the learning rate."
        )
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
        try:
            check_optimizer_state(self._optimizer, state["optimizer"])
            number = self._restore(state)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError):
            # Modules take what fits before they complain about the rest.
            self._modules.load_state_dict(fresh[0])
            self._optimizer.load_state_dict(fresh[1])
            self._progress.warn(
                "The checkpoint was written by another version; this stage starts anew."
            )
            return 0
        self._last = state
        return number

    def _restore(self, state: dict[str, Any]) -> int:
        self._modules.load_state_dict(state["modules"])
        self._optimizer.load_state_dict(cloned(state["optimizer"]))
        for name, generator in self._generators.items():
            saved = state[f"random.{name}"]
            if isinstance(generator, torch.Generator):
                generator.set_state(saved)
            else:
                generator.bit_generator.state = json.loads(saved)
        self._seconds, self._slowdown = float(state["seconds"]), float(state["slowdown"])
        self._rollbacks, self._recent = int(state["rollbacks"]), dict(state["recent"])
        return int(state["step"])


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
    loop = AdaptionLoop(folder, digest, adaption, progress, final)
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


def write_metrics(folder: Path, digest: str, document: dict[str, Any]) -> None:
    """Write ``folder/metrics.json``: the last thing a stage does, its mark of being finished."""
    write_json(folder / "metrics.json", {"finished": True, "digest": digest, **document})
