"""VToonify (Yang et al., SIGGRAPH Asia 2022), the paper's translator [53], from the user's clone.

Its licence (S-Lab 1.0) forbids commercial use, so none of its code is here: ``vtoonify_runner.py``
runs in the user's own environment for VToonify and imports the user's own clone.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ...errors import InputError
from ...files import write_image
from ...progress import Progress
from ...scene import ByteImage, FloatArray, angle_apart
from .base import Photo
from .command import collect
from .program import check_program, run_program
from .settings import AdapterSettings
from .vtoonify_runner import STYLE_CODES, UNTRUSTED

LICENCE = "VToonify is under the S-Lab License 1.0: non-commercial use only."
_EYES = 64.0
"""Distance of the eyes in pixels at which VToonify works best."""
_PAD = 200
"""Pixels kept on every side of the eyes' middle, at that scale."""
_MULTIPLE = 8
_WEIGHTS = ("checkpoint/encoder.pt", "checkpoint/faceparsing.pth")


class Vtoonify:
    """One style code for all frames, from the most frontal one, as VToonify does for video."""

    def __init__(self, settings: AdapterSettings, device: str) -> None:
        self.settings, self.device = settings, device
        self.checkout = Path(settings.checkout)
        if not settings.checkout or not (self.checkout / "model" / "vtoonify.py").is_file():
            raise InputError(
                "The vtoonify stylizer needs your clone of github.com/williamyang1991/VToonify:"
                " --set adapter.checkout=FOLDER.",
                "no_checkout",
            )
        for name in (*_WEIGHTS, settings.model or "checkpoint"):
            if not (self.checkout / name).exists():
                raise InputError(
                    f"'{self.checkout / name}' is missing; VToonify's README says where to download"
                    " it (--set adapter.model=CHECKPOINT.pt names the style).",
                    "no_weights",
                )
        if not (self.checkout / settings.model).is_file():
            raise InputError(
                "Name VToonify's checkpoint: --set adapter.model=checkpoint/FOLDER/NAME.pt.",
                "no_weights",
            )
        if not 0.0 <= settings.style_degree <= 1.0:
            raise InputError("adapter.style_degree must lie between 0 and 1.", "bad_setting")
        if settings.python:
            check_program(settings.python, "adapter.python")
        if not settings.trust_pickles:
            _refuse_pickles(self.checkout, self.checkout / settings.model)

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """See :class:`.base.FrameStylizer`; frames without a face (the back) are left out."""
        progress.warn(LICENCE)  # said at the start too; here for the report
        faces = [photo for photo in photos if photo.landmarks is not None]
        if not faces:
            raise InputError("VToonify needs a face, and no frame shows one.", "no_face")
        if len(faces) < len(photos):
            progress.warn(
                f"VToonify cannot do the {len(photos) - len(faces)} frames without a face; the back"
                " of the head gets its colours from the front."
            )
        with tempfile.TemporaryDirectory(prefix="toonify3d_") as folder:
            source, target = Path(folder, "input"), Path(folder, "output")
            target.mkdir(parents=True)
            boxes = {photo.frame.name: _write(source, photo) for photo in faces}
            request = Path(folder, "request.json")
            request.write_text(json.dumps(self._request(faces, source, target)), encoding="utf-8")
            runner = Path(__file__).with_name("vtoonify_runner.py")
            python = self.settings.python or sys.executable
            run_program(
                [python, str(runner), str(request)],
                self.settings.timeout,
                progress,
                "VToonify stylizes the frames",
                self.checkout,
            )
            drawn = collect(faces, target)
        return {
            p.frame.name: _put_back(p, boxes[p.frame.name], drawn)
            for p in faces
            if p.frame.name in drawn
        }

    def _request(self, faces: Sequence[Photo], source: Path, target: Path) -> dict[str, object]:
        settings = self.settings
        frontal = min(faces, key=lambda p: angle_apart(p.frame.yaw))
        return {
            "checkout": str(self.checkout.resolve()),
            "checkpoint": str((self.checkout / settings.model).resolve()),
            "frames": [photo.frame.name for photo in faces],
            "style_frame": frontal.frame.name,
            "input": str(source),
            "output": str(target),
            "device": "cuda" if self.device.startswith("cuda") else "cpu",
            "style_id": settings.style_id,
            "style_degree": settings.style_degree,
            "color_transfer": settings.color_transfer,
            "trust_pickles": settings.trust_pickles,
        }


def _refuse_pickles(checkout: Path, checkpoint: Path) -> None:
    """See early whether the user's consent is needed; ``vtoonify_runner.py`` refuses again.

    Raises:
        InputError: A file can only be read by running what it holds (``untrusted``).
    """
    codes = checkpoint.with_name(STYLE_CODES)
    weights = [checkpoint, *(checkout / name for name in _WEIGHTS)]
    bad = codes if codes.is_file() else next((path for path in weights if _runs_code(path)), None)
    if bad is not None:
        raise InputError(UNTRUSTED.format(bad) + ".", "untrusted")


def _runs_code(path: Path) -> bool:
    """Whether PyTorch refuses to read a file as plain tensors (its tensors stay on the disk)."""
    if not zipfile.is_zipfile(path):  # older than torch 1.6: the runner will say
        return False
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return True
    except (RuntimeError, OSError, EOFError):  # broken: the runner will say
        return False
    return False


def _write(folder: Path, photo: Photo) -> tuple[FloatArray, tuple[int, int]]:
    """Write the crop and its 256-pixel aligned face; the crop's affine and its size."""
    assert photo.landmarks is not None
    eyes = photo.landmarks[[468, 473], :2]
    mouth = photo.landmarks[[61, 291], :2]
    scale = _EYES / max(float(np.linalg.norm(eyes[1] - eyes[0])), 1e-6)
    height, width = photo.image.shape[:2]
    middle = eyes.mean(0) * scale
    low = np.maximum(np.floor(middle - _PAD), 0)
    high = np.minimum(np.ceil(middle + _PAD), [width * scale, height * scale])
    size = (((high - low) // _MULTIPLE) * _MULTIPLE).astype(int)
    matrix = np.array([[scale, 0.0, -low[0]], [0.0, scale, -low[1]]])
    crop = _warp(photo.image, matrix, (int(size[0]), int(size[1])))
    write_image(folder / f"{photo.frame.name}.png", crop)
    write_image(folder / f"{photo.frame.name}_face.png", _aligned_face(photo.image, eyes, mouth))
    return matrix, (int(size[0]), int(size[1]))


def _warp(image: ByteImage, matrix: FloatArray, size: tuple[int, int]) -> ByteImage:
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 1:  # blur first, or shrinking makes stairs that the network then draws
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5 / scale), np.uint8)
    out = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(out, np.uint8)


def _aligned_face(image: ByteImage, eyes: FloatArray, mouth: FloatArray) -> ByteImage:
    """The FFHQ crop (Karras et al. 2019, appendix C): square round eyes and mouth, 256 pixels."""
    across = eyes[1] - eyes[0]
    down = mouth.mean(0) - eyes.mean(0)
    x = across - np.array([-down[1], down[0]])
    x = x / max(float(np.hypot(*x)), 1e-6)
    half = max(float(np.hypot(*across)) * 2.0, float(np.hypot(*down)) * 1.8)
    y = np.array([-x[1], x[0]])
    center = eyes.mean(0) + 0.1 * down
    corners = np.array(
        [center - half * x - half * y, center + half * x - half * y, center - half * x + half * y]
    )
    target = np.array([[0, 0], [256, 0], [0, 256]], np.float32)
    matrix = cv2.getAffineTransform(corners.astype(np.float32), target)
    return _warp(image, np.asarray(matrix, np.float64), (256, 256))


def _put_back(
    photo: Photo, box: tuple[FloatArray, tuple[int, int]], drawn: dict[str, ByteImage]
) -> ByteImage:
    """The drawn crop over the photo, its border feathered; VToonify answers four times as big."""
    matrix, (width, height) = box
    picture = drawn[photo.frame.name]
    enlarge = np.diag([picture.shape[1] / width, picture.shape[0] / height]) @ matrix
    size = (photo.image.shape[1], photo.image.shape[0])
    back = cv2.warpAffine(picture, cv2.invertAffineTransform(enlarge), size, flags=cv2.INTER_AREA)
    weight = np.zeros(picture.shape[:2], np.float32)
    edge = max(4, picture.shape[0] // 50)
    weight[edge:-edge, edge:-edge] = 1.0
    soft = cv2.GaussianBlur(weight, (0, 0), edge / 2)
    opacity = cv2.warpAffine(soft, cv2.invertAffineTransform(enlarge), size)[..., None]
    mixed = opacity * back + (1 - opacity) * photo.image
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
