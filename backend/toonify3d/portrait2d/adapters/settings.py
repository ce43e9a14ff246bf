"""Settings of the stylizers that the user brings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class AdapterSettings:
    """Where the user's own stylizer is and how to talk to it; unused by builtin and folder."""

    model: str = ""
    """dct-net: the folder with cartoon_h.pb, cartoon_bg.pb and alpha.jpg; onnx: the .onnx file;
    vtoonify: the checkpoint (.pt) inside the checkout's own folders."""
    command: str = ""
    """command: the program with {input} and {output} (called for every frame) or {input_dir} and
    {output_dir} (called once); pictures are PNG named NNNN.png."""
    timeout: float = 3600.0
    """Seconds after which a program that has not answered is stopped."""
    size: int = 0
    """onnx: width and height fed to a model where its own are free; 0 keeps the frame's, padded to
    a multiple of adapter.multiple."""
    multiple: int = 32
    """onnx: free sides are padded to a multiple of this, which most networks that halve the
    picture several times need; 1 pads nothing."""
    value_range: Literal["-1..1", "0..1", "0..255"] = "-1..1"
    """onnx: the range in which the model takes and gives colours."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """onnx: the order of the model's colour channels."""
    checkout: str = ""
    """vtoonify: folder of your clone of github.com/williamyang1991/VToonify."""
    python: str = ""
    """vtoonify: the Python that has VToonify's own requirements; empty takes the backend's."""
    style_id: int = 26
    """vtoonify: which of the checkpoint's style codes."""
    style_degree: float = 0.5
    """vtoonify: how strong, 0 to 1 (VToonify-D only)."""
    color_transfer: bool = False
    """vtoonify: take the style's colours too."""
    trust_pickles: bool = False
    """vtoonify: allow checkpoints that are Python pickles, which can run any code when they are
    loaded; say true only for files from a source you trust."""


def absolute_paths(settings: AdapterSettings) -> AdapterSettings:
    """The same with absolute paths, so that a job resumes from any folder.

    With a ``checkout``, ``model`` is a path inside it and stays as it is; so does a ``python`` that
    is a bare name, which ``PATH`` finds.
    """
    changed = {"checkout": settings.checkout, "python": settings.python}
    if Path(settings.python).name != settings.python:
        # Not resolved: an environment's interpreter is a link, and knows its packages by its name.
        changed["python"] = str(Path(settings.python).absolute())
    if settings.checkout:
        changed["checkout"] = str(Path(settings.checkout).resolve())
    elif settings.model:
        changed["model"] = str(Path(settings.model).resolve())
    return dataclasses.replace(settings, **changed)  # type: ignore[arg-type]
