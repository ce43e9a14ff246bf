"""The pixels that stage I learns from, on the training device, and the rays through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..scene import ByteImage, Camera, Float32Array, Frame, Normalization, Scene
from ..snr.guide import Guide


class RayBatch(NamedTuple):
    """``R`` rays with what was observed along them, in unit space.

    Attributes:
        origins: ``(R, 3)``.
        directions: Unit vectors ``(R, 3)``.
        color: sRGB 0..1 ``(R, 3)``.
        mask: Foreground 0..1 ``(R,)``.
        color_weight: 1 where the pixel is safely inside the person ``(R,)``.
        interior: Whether the pixel is far from any outline ``(R,)`` bool.
        depth: Stereo distance along the ray ``(R,)``, 0 = none.
        confidence: Of the stereo distance, 0..1 ``(R,)``.
        frame: Row of the frame in the bank ``(R,)`` int64.
    """

    origins: torch.Tensor
    directions: torch.Tensor
    color: torch.Tensor
    mask: torch.Tensor
    color_weight: torch.Tensor
    interior: torch.Tensor
    depth: torch.Tensor
    confidence: torch.Tensor
    frame: torch.Tensor


@dataclass
class _Pixels:
    """Candidate pixels of one frame, as arrays of equal length."""

    position: npt.NDArray[np.int16]
    color: ByteImage
    mask: ByteImage
    core: ByteImage  # 0 outline or background, 1 person, 2 person far from any outline
    depth: Float32Array
    confidence: ByteImage


class RayBank:
    """Candidate pixels of all training frames as compact arrays (about 16 bytes a pixel).

    Candidates are the person and a ring of background round it; the rest of the image is known to
    be empty from the visual hull.

    Attributes:
        frames: Training frames, in bank order.
        has_depth: Whether any candidate has stereo depth.
    """

    def __init__(
        self,
        frames: list[Frame],
        pixels: list[_Pixels],
        normalization: Normalization,
        device: torch.device,
    ) -> None:
        self.frames = frames
        self.device = device
        counts = [len(item.position) for item in pixels]

        def gather(name: str) -> torch.Tensor:
            return torch.tensor(np.concatenate([getattr(p, name) for p in pixels]), device=device)

        self._frame = torch.tensor(
            np.repeat(np.arange(len(frames), dtype=np.int16), counts), device=device
        )
        self._position = gather("position")
        self._color = gather("color")
        self._mask = gather("mask")
        self._core = gather("core")
        self._depth = gather("depth")
        self._confidence = gather("confidence")
        self._origins, self._rotations = _camera_tensors(frames, normalization, device)
        self._radius = float(normalization.radius)
        self.has_depth = bool((self._confidence > 0).any())

    def __len__(self) -> int:
        return len(self._frame)

    @classmethod
    def from_scene(
        cls, scene: Scene, frames: list[Frame], band: float, device: torch.device
    ) -> RayBank:
        """Read images, masks and depth of ``frames``.

        Raises:
            InputError: No frame has any foreground (``code="no_foreground"``).
        """
        pixels = [_candidates(scene, frame, band) for frame in frames]
        if not any((item.mask > 127).any() for item in pixels):
            raise InputError("No mask contains a person; check the masks.", code="no_foreground")
        return cls(frames, pixels, scene.normalization, device)

    def drop_unreachable(self, guide: Guide, chunk: int = 1 << 18) -> int:
        """Forget foreground pixels whose rays miss the hull: parts that the crop cut away.

        Returns:
            How many were dropped.
        """
        keep = torch.ones(len(self), dtype=torch.bool, device=self.device)
        for start in range(0, len(self), chunk):
            index = torch.arange(start, min(start + chunk, len(self)), device=self.device)
            origins, directions = self.rays(index)
            _, value, _ = guide.intersect_hull(origins, directions)
            keep[index] = (value <= guide.cell) | (self._mask[index] <= 127)
        dropped = int((~keep).sum())
        if dropped:
            for name in (
                "_frame",
                "_position",
                "_color",
                "_mask",
                "_core",
                "_depth",
                "_confidence",
            ):
                setattr(self, name, getattr(self, name)[keep])
        return dropped

    def rays(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Origins and unit directions ``(R, 3)`` of candidates ``(R,)``."""
        origins, raw = self._raw_rays(index)
        return origins, torch.nn.functional.normalize(raw, dim=1)

    def _raw_rays(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frame = self._frame[index].long()
        position = self._position[index].to(torch.float32) + 0.5
        point = torch.cat([position, torch.ones_like(position[:, :1])], dim=1)
        # K has the focal lengths: the third camera coordinate of this direction is 1.
        return self._origins[frame], (self._rotations[frame] @ point[:, :, None])[:, :, 0]

    def sample(self, count: int, generator: torch.Generator) -> RayBatch:
        """``count`` random candidates."""
        index = torch.randint(len(self), (count,), generator=generator, device=self.device)
        return self.batch(index)

    def batch(self, index: torch.Tensor) -> RayBatch:
        """The candidates ``(R,)`` as rays."""
        origins, raw = self._raw_rays(index)
        length = raw.norm(dim=1, keepdim=True)
        return RayBatch(
            origins,
            raw / length,
            self._color[index].to(torch.float32) / 255.0,
            self._mask[index].to(torch.float32) / 255.0,
            (self._core[index] > 0).to(torch.float32),
            self._core[index] > 1,
            self._depth[index].to(torch.float32) * length[:, 0] / self._radius,
            self._confidence[index].to(torch.float32) / 255.0,
            self._frame[index].long(),
        )


def split_frames(scene: Scene, holdout: int) -> tuple[list[Frame], list[Frame]]:
    """Training and held-out frames; nothing is held out when fewer than 8 per held-out frame."""
    frames = scene.frames
    if holdout <= 0 or len(frames) < 8 * holdout:
        return list(frames), []
    step = len(frames) / holdout
    chosen = {int((number + 0.5) * step) for number in range(holdout)}
    return (
        [frame for number, frame in enumerate(frames) if number not in chosen],
        [frames[number] for number in sorted(chosen)],
    )


def _candidates(scene: Scene, frame: Frame, band: float) -> _Pixels:
    image, mask = scene.image(frame), scene.mask(frame)
    inside = (mask > 127).astype(np.uint8)
    reach = max(2, round(band * mask.shape[1]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    ring = np.asarray(cv2.dilate(inside, kernel)) > 0
    rows, columns = np.nonzero(ring | (mask > 0))
    # The outline's pixels mix person and background: they teach the mask, not the colour.
    core = np.asarray(cv2.erode(inside, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    # As wide as the ring: there, background rays balance what the mask term does to the person's.
    core = core + np.asarray(cv2.erode(inside, kernel), dtype=np.uint8)
    depth, confidence = _stereo(scene, frame, mask)
    return _Pixels(
        np.stack([columns, rows], 1).astype(np.int16),
        image[rows, columns],
        mask[rows, columns],
        core[rows, columns],
        depth[rows, columns],
        confidence[rows, columns],
    )


def _stereo(scene: Scene, frame: Frame, mask: ByteImage) -> tuple[Float32Array, ByteImage]:
    """Stereo depth (float32) and confidence (uint8) at the image's size; zeros without depth."""
    stored = scene.depth(frame)
    size = (mask.shape[1], mask.shape[0])
    if stored is None:
        return np.zeros(mask.shape, np.float32), np.zeros(mask.shape, np.uint8)
    depth, confidence = stored
    if depth.shape != mask.shape:
        # Nearest neighbour: interpolating across an occlusion edge would invent depths.
        nearest = cv2.INTER_NEAREST
        depth = np.asarray(cv2.resize(depth, size, interpolation=nearest), np.float32)
        confidence = np.asarray(cv2.resize(confidence, size, interpolation=nearest), np.float32)
    valid = (depth > 0) & (mask > 127)
    weight = np.where(valid, confidence.clip(0.0, 1.0), 0.0)
    return np.where(valid, depth, 0.0).astype(np.float32), (weight * 255).astype(np.uint8)


def _camera_tensors(
    frames: list[Frame], normalization: Normalization, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-space centres ``(V, 3)`` and ``R K^-1`` ``(V, 3, 3)``."""
    cameras: list[Camera] = [frame.camera for frame in frames]
    centers = normalization.to_unit(np.stack([camera.center for camera in cameras]))
    matrices = np.stack([camera.c2w[:3, :3] @ np.linalg.inv(camera.K) for camera in cameras])
    return (
        torch.tensor(centers, dtype=torch.float32, device=device),
        torch.tensor(matrices, dtype=torch.float32, device=device),
    )
