"""Any image-to-image network that the user has as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import InputError
from ...progress import Progress
from ...scene import ByteImage, Float32Array
from .base import Photo
from .settings import AdapterSettings

_MULTIPLE = 32
_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}


class OnnxModel:
    """Runs the model frame by frame; channel order and size are read from its input's shape."""

    def __init__(self, settings: AdapterSettings) -> None:
        path = Path(settings.model)
        if path.suffix.lower() != ".onnx" or not path.is_file():
            raise InputError(
                "The onnx stylizer needs an .onnx file that exists: --set adapter.model=FILE.onnx.",
                "no_weights",
            )
        self.session = _open(path)
        self.settings = settings
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise InputError(
                f"'{path}' does not take one picture: its inputs are"
                f" {', '.join(f'{item.name} {item.shape}' for item in inputs)}.",
                "bad_model",
            )
        self.input = inputs[0]
        self.last = self.input.shape[3] in (3, "3")  # NHWC, as TensorFlow exports
        if not self.last and self.input.shape[1] not in (3, "3"):
            raise InputError(
                f"'{path}' does not take pictures of three colours: {self.input.shape}.",
                "bad_model",
            )
        if self.input.type not in _TYPES:
            raise InputError(f"'{path}' takes {self.input.type}, not floats.", "bad_model")

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """See :class:`.base.FrameStylizer`."""
        made = {}
        for index, photo in enumerate(photos):
            progress.update(index / len(photos), f"ONNX: frame {index + 1} of {len(photos)}")
            made[photo.frame.name] = self.run(photo.image)
            progress.preview(made[photo.frame.name])
        return made

    def run(self, image: ByteImage) -> ByteImage:
        """One RGB picture ``(H, W, 3)`` to one of the same size.

        Raises:
            InputError: The model fails on it or answers with something else than a picture.
        """
        height, width = image.shape[:2]
        fed, inside = self._fit(image)
        low, high = _RANGES[self.settings.value_range]
        values = fed.astype(np.float32) / 255.0 * (high - low) + low
        if self.settings.channels == "bgr":
            values = values[..., ::-1]
        array = values[None] if self.last else values.transpose(2, 0, 1)[None]
        answer = self._infer(np.ascontiguousarray(array, dtype=_TYPES[self.input.type]))
        out = (answer.astype(np.float32) - low) / (high - low)
        if self.settings.channels == "bgr":
            out = out[..., ::-1]
        picture = np.clip(out * 255.0 + 0.5, 0, 255).astype(np.uint8)
        # Models that enlarge (VToonify: four times) answer bigger than asked.
        ratio = picture.shape[0] / fed.shape[0], picture.shape[1] / fed.shape[1]
        rows, columns = round(inside[0] * ratio[0]), round(inside[1] * ratio[1])
        cropped = np.ascontiguousarray(picture[:rows, :columns])
        how = cv2.INTER_AREA if rows > height else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(cropped, (width, height), interpolation=how), np.uint8)

    def _fit(self, image: ByteImage) -> tuple[ByteImage, tuple[int, int]]:
        """The picture as the model wants it, and the rows and columns that are picture."""
        height, width = self._wanted(*image.shape[:2])
        scale = min(height / image.shape[0], width / image.shape[1])
        rows, columns = round(image.shape[0] * scale), round(image.shape[1] * scale)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        small = cv2.resize(image, (columns, rows), interpolation=how)
        padded = np.pad(small, ((0, height - rows), (0, width - columns), (0, 0)), mode="edge")
        return np.asarray(padded, np.uint8), (rows, columns)

    def _wanted(self, height: int, width: int) -> tuple[int, int]:
        spatial = self.input.shape[1:3] if self.last else self.input.shape[2:4]
        if all(isinstance(side, int) and side > 0 for side in spatial):
            return int(spatial[0]), int(spatial[1])
        if self.settings.size:
            return self.settings.size, self.settings.size
        return -(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE

    def _infer(self, array: Float32Array) -> Float32Array:
        try:
            answer = np.asarray(self.session.run(None, {self.input.name: array})[0])
        except Exception as error:  # onnxruntime raises its own kinds
            line = str(error).strip().splitlines()[0]
            raise InputError(f"The ONNX model failed: {line}", "bad_model") from error
        if answer.ndim == 4:
            answer = answer[0]
        if answer.ndim == 3 and answer.shape[0] == 3 and answer.shape[2] != 3:
            answer = answer.transpose(1, 2, 0)
        if answer.ndim != 3 or answer.shape[2] != 3:
            raise InputError(
                f"The ONNX model answers with {list(answer.shape)}, not with a picture.",
                "bad_model",
            )
        return answer


_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "The onnx stylizer needs the package onnxruntime; install it into the backend's"
            " environment: pip install onnxruntime.",
            "no_package",
        ) from error
    try:
        return onnxruntime.InferenceSession(str(path), providers=_providers(onnxruntime))
    except Exception as error:  # onnxruntime raises its own kinds
        raise InputError(f"'{path}' is not a model that onnxruntime can read.", "bad_model") from (
            error
        )


def _providers(onnxruntime: Any) -> list[str]:
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [name for name in wanted if name in onnxruntime.get_available_providers()]
