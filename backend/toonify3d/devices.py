"""Which device the fields run on."""

from __future__ import annotations

import torch

from .errors import InputError

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(wanted: str) -> str:
    """``auto`` to the best device there is; a named one is checked.

    Raises:
        InputError: The device is not there, or the field kernels do not run on it.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "No CUDA device is usable here; use --device cpu ('toonify3d doctor' says why).",
            "no_cuda",
        )
    if wanted == "mps":
        raise InputError(
            "The field kernels (Warp) do not run on Metal; use --device cpu on this machine.",
            "no_mps",
        )
    if wanted not in DEVICES:
        raise InputError(f"There is no device '{wanted}'; use one of {', '.join(DEVICES)}.")
    return wanted
