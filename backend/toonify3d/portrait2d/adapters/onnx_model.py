"""Any image-to-image network that the user has as an ONNX file."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import InputError
from ...progress import Progress
from ...scene import ByteImage, Float32Array
from ..folder import few, fit_picture
from .base import Photo
from .settings import AdapterSettings

_RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}
_SHORTEST = 16
"""A fixed side below this is not one of a picture but counts colours."""
_LEAST = 0.25
"""An answer smaller than this share of the input is no picture of it."""
_TRIED = 256
"""Side of the picture that a model is tried with before the job starts."""


class OnnxModel:
    """Runs the model frame by frame.

    Channel order, batch and size are read from its input's shape; where the shape leaves open which
    axis the colours are, both are tried.
    """

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
        if self.input.type not in _TYPES:
            raise InputError(f"'{path}' takes {self.input.type}, not floats.", "bad_model")
        layouts = _layouts(self.input.shape)
        if not layouts:
            raise InputError(
                f"'{path}' does not take pictures of three colours: {self.input.shape}.",
                "bad_model",
            )
        self._choose(layouts)

    def _choose(self, layouts: Sequence[bool]) -> None:
        """Set ``last`` (colours are the last axis, as TensorFlow exports) to what runs.

        Raises:
            InputError: The model fails on a picture, or answers with none.
        """
        ramp = np.linspace(32, 224, _TRIED)
        gray = np.broadcast_to((ramp[:, None] + ramp)[..., None] / 2, (_TRIED, _TRIED, 3))
        picture = gray.astype(np.uint8)
        for self.last in layouts[:-1]:
            with contextlib.suppress(InputError):
                self.run(picture)
                return
        self.last = layouts[-1]
        self.run(picture)

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """See :class:`.base.FrameStylizer`."""
        made: dict[str, ByteImage] = {}
        empty = []
        for index, photo in enumerate(photos):
            progress.update(index / len(photos), f"ONNX: frame {index + 1} of {len(photos)}")
            try:
                picture = self.run(photo.image)
            except NoNumbersError:
                empty.append(photo.frame.name)
                continue
            made[photo.frame.name] = picture
            progress.preview(picture)
        if empty:
            progress.warn(
                f"The ONNX model's answer to {len(empty)} of {len(photos)} frames is no picture"
                f" (NaN) ({few(empty)})."
            )
        return made

    def run(self, image: ByteImage) -> ByteImage:
        """One RGB picture ``(H, W, 3)`` to one of the same size.

        Raises:
            InputError: The model fails on it or answers with something else than a picture;
                :class:`NoNumbersError` when there is NaN or infinity in it.
        """
        fed, inside = self._fit(image)
        picture = self._decoded(self._infer(self._encoded(fed)))
        # Models that enlarge (VToonify: four times) answer bigger than asked.
        ratio = picture.shape[0] / fed.shape[0], picture.shape[1] / fed.shape[1]
        if min(ratio) < _LEAST or not 0.98 < ratio[0] / ratio[1] < 1.02:
            raise InputError(
                f"The ONNX model answers a picture of {fed.shape[1]} x {fed.shape[0]} with one of"
                f" {picture.shape[1]} x {picture.shape[0]}: it must keep the aspect ratio and about"
                " the size.",
                "bad_model",
            )
        rows, columns = round(inside[0] * ratio[0]), round(inside[1] * ratio[1])
        cropped = np.ascontiguousarray(picture[:rows, :columns])
        return fit_picture(cropped, image.shape[1], image.shape[0])

    def _encoded(self, picture: ByteImage) -> Float32Array:
        """A picture as the model's input, as often as its batch is large."""
        low, high = _RANGES[self.settings.value_range]
        values = picture.astype(np.float32) / 255.0 * (high - low) + low
        if self.settings.channels == "bgr":
            values = values[..., ::-1]
        array = values if self.last else values.transpose(2, 0, 1)
        batch = self.input.shape[0] if isinstance(self.input.shape[0], int) else 1
        array = np.repeat(array[None], max(batch, 1), axis=0)
        return np.ascontiguousarray(array, dtype=_TYPES[self.input.type])

    def _decoded(self, answer: Float32Array) -> ByteImage:
        """What :meth:`_infer` gives as an RGB picture."""
        low, high = _RANGES[self.settings.value_range]
        out = (answer.astype(np.float32) - low) / (high - low)
        if self.settings.channels == "bgr":
            out = out[..., ::-1]
        return np.clip(out * 255.0 + 0.5, 0, 255).astype(np.uint8)

    def _fit(self, image: ByteImage) -> tuple[ByteImage, tuple[int, int]]:
        """The picture as the model wants it, and the rows and columns that are picture."""
        bounds = self._bounds()
        sides = image.shape[:2]
        scale = min(
            (bound / side for bound, side in zip(bounds, sides, strict=True) if bound), default=1.0
        )
        rows, columns = (max(1, round(side * scale)) for side in sides)
        small = image
        if (rows, columns) != sides:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            small = np.asarray(cv2.resize(image, (columns, rows), interpolation=how), np.uint8)
        step = self.settings.multiple
        height, width = (
            bound or -(-side // step) * step
            for bound, side in zip(bounds, (rows, columns), strict=True)
        )
        padded = np.pad(small, ((0, height - rows), (0, width - columns), (0, 0)), mode="edge")
        return np.asarray(padded, np.uint8), (rows, columns)

    def _bounds(self) -> tuple[int, int]:
        """Height and width that the model or the user fixes, 0 where free."""
        spatial = self.input.shape[1:3] if self.last else self.input.shape[2:4]
        height, width = (
            side if isinstance(side, int) and side > 0 else self.settings.size for side in spatial
        )
        return height, width

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
        if not np.isfinite(answer).all():
            raise NoNumbersError(
                "The ONNX model answers with NaN or infinity, not with colours; see"
                " adapter.value_range, and whether the model is broken (half precision?).",
                "bad_model",
            )
        return answer


class NoNumbersError(InputError):
    """There is NaN or infinity in a model's answer."""


def _layouts(shape: Sequence[int | str | None]) -> list[bool]:
    """Which layouts an input's shape allows, the likelier first; True has the colours last."""
    colors_first, colors_last = (_may_be_colors(shape[axis]) for axis in (1, 3))
    if shape[1] in (3, "3") and shape[3] not in (3, "3"):
        colors_last = False
    if shape[3] in (3, "3") and shape[1] not in (3, "3"):
        colors_first = False
    # What is left open beside an axis too short for a side of a picture is that side.
    colors_first = colors_first and not _is_short(shape[3])
    colors_last = colors_last and not _is_short(shape[1])
    return [layout for layout, possible in ((False, colors_first), (True, colors_last)) if possible]


def _may_be_colors(side: int | str | None) -> bool:
    return side == 3 or not isinstance(side, int)


def _is_short(side: int | str | None) -> bool:
    return isinstance(side, int) and 0 < side < _SHORTEST


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
