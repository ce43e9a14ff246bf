"""What stages II and III leave in their folders, and how a finished one is known again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..files import write_atomic, write_json
from ..scene import Displacement, StylizedView
from .adaption_settings import TextureAdaptionSettings
from .settings import PriorSettings


def input_digest(settings: Any, views: list[StylizedView], *more: Any) -> str:
    """Hash of everything that decides a stage's result, to know a finished one again.

    Args:
        settings: A dataclass.
        views: Portraits: names, pixels, masks, confidences.
        more: Displacements, arrays, modules (their parameters), other dataclasses of settings or
            None.
    """
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    for view in views:
        digest.update(view.frame.name.encode())
        for array in (view.image, view.mask, view.confidence):
            digest.update(np.ascontiguousarray(array).tobytes())
    for item in more:
        if isinstance(item, PriorSettings | TextureAdaptionSettings):
            digest.update(json.dumps(dataclasses.asdict(item), sort_keys=True).encode())
        elif isinstance(item, Displacement):
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


def write_metrics(folder: Path, digest: str, document: dict[str, Any]) -> None:
    """Write ``folder/metrics.json``: the last thing a stage does, its mark of being finished."""
    write_json(folder / "metrics.json", {"finished": True, "digest": digest, **document})
