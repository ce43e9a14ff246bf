"""Person masks by a matting model that the user brings: BSHM (the paper's [28]) or rembg.

One interface for all: pictures in, mattes out, computed by :mod:`.matting_worker` in a process of
its own. The answers are used as they are, frame by frame; no vote across views mends them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ...errors import InputError
from ...files import write_image
from ...progress import Progress
from ...scene import ByteImage
from ..look_at import NO_PERSON
from ..mask_settings import MaskSettings
from . import matting_worker

SOURCES = ("builtin", "bshm", "rembg", "folder")
REMBG_MODEL = "u2net_human_seg"
_LONGEST = 1280
"""Long side of what the models get; they were made for pictures of about that size."""


def bshm_file(settings: MaskSettings) -> Path:
    """Where BSHM's weights are or would be.

    The file that ``settings.model`` names, else ``tf_graph.pb`` or ``bshm.onnx`` in
    ``~/.toonify3d/models``.
    """
    if settings.model:
        return Path(settings.model).expanduser()
    folder = Path.home() / ".toonify3d" / "models"
    onnx = folder / "bshm.onnx"
    return onnx if onnx.is_file() else folder / "tf_graph.pb"


def check_mask_source(settings: MaskSettings) -> None:
    """See early whether the wanted source of masks can be used.

    Raises:
        InputError: Unknown (``mask_source``); weights (``mask_weights``), interpreter or program
            missing (``mask_package``); a folder wanted but none given (``no_masks``).
    """
    if settings.source not in SOURCES:
        raise InputError(
            f"{settings.source!r} is no source of masks; capture.masks.source is one of "
            f"{', '.join(SOURCES)}.",
            "mask_source",
        )
    if settings.source == "folder" and not settings.folder:
        raise InputError(
            "capture.masks.source is folder, but capture.masks.folder names none; give the folder "
            "with your masks.",
            "no_masks",
        )
    if settings.source not in ("bshm", "rembg"):
        return
    if settings.python and shutil.which(settings.python) is None:
        raise InputError(
            f"The interpreter {settings.python} (capture.masks.python) does not exist.",
            "mask_package",
        )
    if settings.source == "bshm" and not bshm_file(settings).is_file():
        raise InputError(
            f"BSHM's weights are not at {bshm_file(settings)}: download tf_graph.pb from "
            "modelscope.cn/models/iic/cv_unet_image-matting (or make an ONNX file of it) and put "
            "it there, or name the file with capture.masks.model.",
            "mask_weights",
        )


def external_masks(
    images: Sequence[ByteImage], settings: MaskSettings, progress: Progress
) -> list[ByteImage]:
    """Mattes ``(H, W)`` 0 to 255 of RGB images ``(H, W, 3)`` by the model of ``settings.source``.

    Raises:
        InputError: As :func:`check_mask_source`; or a model of another form (``mask_weights``), a
            failing program (``mask_model``), or no person in most pictures (``no_person``).
        CancelledError: By ``progress``; the model's process has ended.
    """
    check_mask_source(settings)
    kind, model = _kind(settings)
    with tempfile.TemporaryDirectory(prefix="toonify3d_masks_") as folder:
        pictures, mattes = Path(folder) / "pictures", Path(folder) / "masks"
        mattes.mkdir()
        for index, image in enumerate(images):
            write_image(pictures / f"{index:05d}.png", _fit(image))
        _run(kind, model, settings, (pictures, mattes), progress)
        masks = [_read(mattes / f"{i:05d}.png", image) for i, image in enumerate(images)]
    if float(np.median([(mask > 127).mean() for mask in masks])) < 0.003:
        raise InputError(NO_PERSON, "no_person")
    return masks


def _kind(settings: MaskSettings) -> tuple[str, str]:
    if settings.source == "rembg":
        return "rembg", settings.model or REMBG_MODEL
    path = bshm_file(settings)
    return ("onnx" if path.suffix.lower() == ".onnx" else "tensorflow"), str(path)


def _run(
    kind: str, model: str, settings: MaskSettings, folders: tuple[Path, Path], progress: Progress
) -> None:
    count = sum(1 for _ in folders[0].iterdir())
    python = settings.python or sys.executable
    command = [python, str(Path(matting_worker.__file__)), kind, model, *map(str, folders)]
    environment = dict(os.environ)
    if settings.python:  # our packages must not shadow those of another interpreter
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    with (folders[1].parent / "log.txt").open("w+", encoding="utf-8") as log:
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        try:
            assert worker.stdout is not None
            for done, _ in enumerate(worker.stdout):
                progress.update(min(1.0, (done + 1) / count), f"Masks: {settings.source}")
            code = worker.wait()
        finally:
            worker.kill()
            worker.wait()
        log.seek(0)
        last = [line.strip() for line in log if line.strip()][-1:] or ["no message"]
    if code:
        raise _failure(code, kind, model, python, last[0])


def _failure(code: int, kind: str, model: str, python: str, message: str) -> InputError:
    if code == matting_worker.MISSING:
        packages = {"onnx": "onnxruntime", "tensorflow": "tensorflow-cpu", "rembg": "rembg[cpu]"}
        return InputError(
            f"{python} cannot import {message}: make an environment for it (python -m venv DIR; "
            f"DIR/bin/pip install pillow {packages[kind]}) and name its interpreter with "
            "capture.masks.python.",
            "mask_package",
        )
    if code == matting_worker.WRONG_FORM:
        return InputError(
            f"{model} is no matting model of the expected form: {message}.", "mask_weights"
        )
    hint = " (rembg downloads its weights when first used: rembg d NAME)" if kind == "rembg" else ""
    return InputError(f"The matting model {model} failed: {message}{hint}.", "mask_model")


def _fit(image: ByteImage) -> ByteImage:
    scale = _LONGEST / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _read(path: Path, image: ByteImage) -> ByteImage:
    data = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    if mask is None:
        raise InputError("The matting model left a picture without a mask.", "mask_model")
    return np.asarray(cv2.resize(mask, (image.shape[1], image.shape[0])), np.uint8)
