"""Checkpoints: one file, written whole or not at all, loadable with ``weights_only=True``."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomic

NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values in dicts and lists) as ``folder/checkpoint.pt``.

    Raises:
        OSError: Disk full or folder not writable; an older checkpoint stays as it was.
    """
    write_atomic(folder / NAME, lambda path: torch.save(state, path))


def load_checkpoint(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The checkpoint of ``folder``, or None when there is none or it cannot be read.

    Only tensors and plain values are unpickled, so a foreign file cannot run code.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) else None


def cloned(value: Any) -> Any:
    """A copy of nested dicts and lists whose tensors no later step changes."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: cloned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cloned(item) for item in value]
    return value


def check_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Refuse a saved optimizer state whose moments do not fit the parameters.

    ``load_state_dict`` looks at the number of parameters only; the step would fail later.

    Raises:
        ValueError: Wrong number of groups or parameters, or a tensor of the wrong shape.
        KeyError: Not an optimizer state.
    """
    groups = state["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError("another number of parameter groups")
    for saved, group in zip(groups, optimizer.param_groups, strict=True):
        for key, parameter in zip(saved["params"], group["params"], strict=True):
            for value in state["state"].get(key, {}).values():
                fits = not isinstance(value, torch.Tensor) or value.numel() == 1
                if not fits and value.shape != parameter.shape:
                    raise ValueError("a moment does not fit its parameter")


# How Adam computes, which depends on the device and not on the run.
_WAYS = ("fused", "foreach", "capturable")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the moments of a saved state, perhaps one of another device.

    The optimizer goes on computing as it was made to, with the learning rates' own tensors if it
    has such; the moments are new tensors.

    Raises:
        ValueError: Another number of groups or parameters.
        KeyError: Not an optimizer state.
    """
    state = cloned(state)
    kept = [{name: group.get(name) for name in (*_WAYS, "lr")} for group in optimizer.param_groups]
    if len(kept) != len(state["param_groups"]):
        raise ValueError("another number of parameter groups")
    for own, saved in zip(kept, state["param_groups"], strict=True):
        # Where the step counts go is decided by these.
        saved |= {name: own[name] for name in _WAYS}
    optimizer.load_state_dict(state)
    for own, group in zip(kept, optimizer.param_groups, strict=True):
        rate = float(group["lr"])
        if isinstance(own["lr"], torch.Tensor):
            own["lr"].fill_(rate)
            group["lr"] = own["lr"]
        else:
            group["lr"] = rate


class StepWatch:
    """Knows whether an optimizer has begun a step, so that parameters may have changed.

    A step that breaks off, for want of memory say, may have moved some of them, or have left Adam
    with half of its moments.

    Attributes:
        began: Set when a step begins; whoever watches resets it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.began = False
        optimizer.register_step_pre_hook(self._note)

    def _note(self, *_: object) -> None:
        self.began = True


class Timer:
    """Says when something that happens at most every so many seconds is due."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the time has passed; if so, it starts again."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
