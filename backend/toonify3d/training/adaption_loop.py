"""The optimisation loop that stages II and III share: resume, checkpoints, guard, progress."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..files import write_atomic, write_json
from ..progress import Progress
from ..scene import Displacement, StylizedView
from .checkpoint import NAME, Timer, load_checkpoint, save_checkpoint

CHECKPOINT_SECONDS = 20.0
MAX_ROLLBACKS = 3
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
    """Learning-rate factor: short linear warm-up, then a cosine down to ``final``."""
    if fraction < warmup:
        return max(0.05, fraction / warmup)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * fraction))


@dataclasses.dataclass
class LoopResult:
    """What a finished loop reports.

    Attributes:
        losses: Mean of each loss over the last tenth of the run.
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
        modules: What is saved and restored.
        optimizer: Its parameter groups keep their ``initial_lr``.
        generators: Random state to save: torch and numpy generators by name.
        progress: Told where the loop is; may raise ``CancelledError`` (a checkpoint is kept).
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        modules: nn.Module,
        optimizer: torch.optim.Optimizer,
        generators: dict[str, torch.Generator | np.random.Generator],
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._digest = digest
        self._modules, self._optimizer = modules, optimizer
        self._generators, self._progress = generators, progress
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._slowdown = 1.0
        self._rollbacks = 0
        self._seconds = 0.0
        self._recent: dict[str, float] = {}

    def run(
        self,
        steps: int,
        step: Callable[[float], tuple[Tensor, dict[str, float]]],
        message: str,
        watch: Callable[[int], None] | None = None,
    ) -> LoopResult:
        """Optimise.

        Args:
            steps: Number of steps.
            step: Given the fraction done, returns the loss to descend and the values to report.
            message: Prefix of the progress message.
            watch: Called after each step with its number (previews).

        Raises:
            TrainingError: The loss was not finite (or exploded) four times.
            CancelledError: From the progress; the checkpoint is written first.
        """
        first = self._resume()
        if first == 0:
            self._save(0)
        number, timer, started = first, Timer(CHECKPOINT_SECONDS), time.monotonic()
        while number < steps:
            self._set_rate(cosine_factor(number / steps))
            loss, values = step(number / steps)
            if self._is_bad(loss):
                number = self._roll_back()
                continue
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            self._note(values)
            number += 1
            now = time.monotonic()
            self._seconds, started = self._seconds + now - started, now
            if timer.due():
                self._save(number)
            if watch is not None:
                watch(number)
            self._report(number, steps, message)
        return LoopResult(self._recent, self._seconds, self._rollbacks)

    def finish(self) -> None:
        """Remove the checkpoint: the result is safe elsewhere."""
        (self._folder / NAME).unlink(missing_ok=True)

    def _report(self, number: int, steps: int, message: str) -> None:
        if number % 5 and number != steps:
            return
        try:
            loss = self._recent.get("total", 0.0)
            self._progress.update(number / steps, f"{message}: step {number}, loss {loss:.4f}")
        except BaseException:
            self._save(number)
            raise

    def _is_bad(self, loss: Tensor) -> bool:
        value = float(loss.detach())
        usual = self._recent.get("total")
        return not math.isfinite(value) or (usual is not None and value > EXPLOSION * usual + 10.0)

    def _note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._recent[name] = 0.95 * self._recent.get(name, value) + 0.05 * value

    def _set_rate(self, factor: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * self._slowdown

    def _roll_back(self) -> int:
        self._rollbacks += 1
        if self._rollbacks > MAX_ROLLBACKS:
            raise TrainingError(
                "Training diverged repeatedly even at a smaller learning rate; "
                "check the stylized portraits and their masks, or use another preset."
            )
        rollbacks, slowdown = self._rollbacks, 0.5 * self._slowdown
        number = self._resume()
        self._rollbacks, self._slowdown = rollbacks, slowdown
        self._progress.warn(
            f"The loss was not finite; went back to step {number} with half the learning rate."
        )
        return number

    def _save(self, number: int) -> None:
        state: dict[str, Any] = {
            "digest": self._digest,
            "step": number,
            "seconds": self._seconds,
            "slowdown": self._slowdown,
            "rollbacks": self._rollbacks,
            "recent": dict(self._recent),
            "modules": self._modules.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        for name, generator in self._generators.items():
            if isinstance(generator, torch.Generator):
                state[f"random.{name}"] = generator.get_state()
            else:
                state[f"random.{name}"] = json.dumps(generator.bit_generator.state)
        save_checkpoint(self._folder, state)

    def _resume(self) -> int:
        state = load_checkpoint(self._folder, "cpu")
        if state is None or state["digest"] != self._digest:
            return 0
        self._modules.load_state_dict(state["modules"])
        self._optimizer.load_state_dict(state["optimizer"])
        for name, generator in self._generators.items():
            saved = state[f"random.{name}"]
            if isinstance(generator, torch.Generator):
                generator.set_state(saved)
            else:
                generator.bit_generator.state = json.loads(saved)
        self._seconds, self._slowdown = float(state["seconds"]), float(state["slowdown"])
        self._rollbacks, self._recent = int(state["rollbacks"]), dict(state["recent"])
        return int(state["step"])


def write_metrics(folder: Path, digest: str, document: dict[str, Any]) -> None:
    """Write ``folder/metrics.json``: the last thing a stage does, its mark of being finished."""
    write_json(folder / "metrics.json", {"finished": True, "digest": digest, **document})
