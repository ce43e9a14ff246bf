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
from ..snr.rendering import sphere_interval

WHOLE_PICTURE = 1.0
"""A ring this wide or wider, in image widths, stands for the whole picture."""
# Pixels this many image widths inside the person are far from any outline, whatever the ring.
_INTERIOR = 0.03


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
    sizes: npt.NDArray[np.int64]  # of the blocks that the arrays are sorted by


# Edge in pixels of the square blocks that candidates lie in the bank by.
BLOCK = 8
_ARRAYS = ("_frame", "_position", "_color", "_mask", "_core", "_depth", "_confidence")


class RayBank:
    """Candidate pixels of all training frames as compact arrays (about 16 bytes a pixel).

    Candidates are the person and a ring of background round it; the rest of the image is known to
    be empty from the visual hull. On request they are all pixels whose rays meet the unit sphere.
    They are sorted by square blocks of pixels, which :meth:`focus` makes more or less likely.

    Attributes:
        frames: Training frames, in bank order.
        has_depth: Whether any candidate has stereo depth.
        chances: Chances of the blocks summed up, ``(B,)`` float64; always the same tensor, because
            a recorded training step reads it.
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
        self._origins, self._rotations = camera_tensors(
            [frame.camera for frame in frames], normalization, device
        )
        self._radius = float(normalization.radius)
        self.has_depth = bool((self._confidence > 0).any())
        self._set_blocks(gather("sizes"))

    def __len__(self) -> int:
        return len(self._frame)

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        frames: list[Frame],
        band: float,
        device: torch.device,
        binary: bool = False,
    ) -> RayBank:
        """Read images, masks and depth of ``frames``.

        Args:
            scene: The capture.
            frames: Which of its frames.
            band: Width of the ring of background in image widths; from 1 on the whole picture.
            device: Where the arrays are wanted.
            binary: Masks are 0 or 1, and colours count up to their outline.

        Raises:
            InputError: No frame has any foreground (``code="no_foreground"``).
        """
        pixels = [_candidates(scene, frame, band, binary) for frame in frames]
        if not any((item.mask > 127).any() for item in pixels):
            raise InputError("No mask contains a person; check the masks.", code="no_foreground")
        return cls(frames, pixels, scene.normalization, device)

    def drop_unreachable(self, guide: Guide, chunk: int = 1 << 18) -> int:
        """Forget foreground pixels whose rays miss the hull: parts that the crop cut away.

        Returns:
            How many were dropped.
        """
        first = self._starts
        last = first + self._sizes - 1
        # A block whose first, middle and last pixel reach the hull lies inside: most blocks do.
        probes = torch.stack([first, self.block_centers(), last], dim=1)
        reached = self._reaches(probes.reshape(-1), guide, chunk).view(-1, 3)
        doubtful = (~reached.all(1)).repeat_interleave(self._sizes) & (self._mask > 127)
        keep = ~doubtful
        keep[doubtful] = self._reaches(doubtful.nonzero()[:, 0], guide, chunk)
        dropped = int((~keep).sum())
        if dropped:
            block = torch.arange(len(first), device=self.device).repeat_interleave(self._sizes)
            sizes = torch.bincount(block[keep], minlength=len(first))
            for name in _ARRAYS:
                setattr(self, name, getattr(self, name)[keep])
            self._set_blocks(sizes[sizes > 0])
        return dropped

    def _reaches(self, index: torch.Tensor, guide: Guide, chunk: int) -> torch.Tensor:
        """Whether the rays of candidates ``(R,)`` meet the visual hull, ``(R,)`` bool."""
        parts = [guide.intersect_hull(*self.rays(part))[1] for part in index.split(chunk)]
        return torch.cat(parts) <= guide.cell if parts else index.bool()

    def _set_blocks(self, sizes: torch.Tensor) -> None:
        self._sizes = sizes
        self._starts = sizes.cumsum(0) - sizes
        self.chances = (sizes.double().cumsum(0) / sizes.sum()).contiguous()
        self._focused = 0.0

    def block_centers(self) -> torch.Tensor:
        """The middle candidate of every block, ``(B,)``."""
        return self._starts + self._sizes // 2

    def focus(self, weights: torch.Tensor, share: float) -> None:
        """Draw ``share`` of the rays with chances in proportion to ``weights (B,)`` of blocks.

        A weight is that of each of the block's pixels: equal ones draw evenly.
        """
        chances = (weights.double() * self._sizes).cumsum(0)
        self.chances.copy_(chances / chances[-1])
        self._focused = share

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
        """``count`` random candidates, evenly but for the share that :meth:`focus` takes."""
        some = round(self._focused * count)
        index = torch.randint(len(self), (count - some,), generator=generator, device=self.device)
        if some:
            index = torch.cat([index, self._drawn_by_block(some, generator)])
        return self.batch(index)

    def _drawn_by_block(self, count: int, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.rand(
            (2, count), generator=generator, device=self.device, dtype=self.chances.dtype
        )
        block = torch.searchsorted(self.chances, drawn[0]).clamp(max=len(self._sizes) - 1)
        within = (drawn[1] * self._sizes[block]).long()
        return self._starts[block] + torch.minimum(within, self._sizes[block] - 1)

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


def _candidates(scene: Scene, frame: Frame, band: float, binary: bool) -> _Pixels:
    image, mask = scene.image(frame), scene.mask(frame)
    inside = (mask > 127).astype(np.uint8)
    whole = band >= WHOLE_PICTURE
    reach = max(2, round((_INTERIOR if whole else band) * mask.shape[1]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    if whole:
        found = np.nonzero(meets_sphere(frame.camera, scene.normalization))
    else:
        ring = np.asarray(cv2.dilate(inside, kernel)) > 0
        found = np.nonzero(ring | (mask > 0))
    rows, columns, sizes = _by_blocks(found[0], found[1], mask.shape[1])
    core = inside
    if not binary:  # the outline's pixels mix person and background: they teach only the mask
        core = np.asarray(cv2.erode(inside, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    # As wide as the ring: there, background rays balance what the mask term does to the person's.
    core = core + np.asarray(cv2.erode(inside, kernel), dtype=np.uint8)
    if binary:
        mask = inside * np.uint8(255)
    depth, confidence = _stereo(scene, frame, mask)
    return _Pixels(
        np.stack([columns, rows], 1).astype(np.int16),
        image[rows, columns],
        mask[rows, columns],
        core[rows, columns],
        depth[rows, columns],
        confidence[rows, columns],
        sizes,
    )


def meets_sphere(camera: Camera, normalization: Normalization) -> npt.NDArray[np.bool_]:
    """Pixels whose rays pass through the unit sphere, ``(H, W)``: nothing is learned elsewhere."""
    row, column = np.indices((camera.height, camera.width))
    points = np.stack([column.ravel() + 0.5, row.ravel() + 0.5], axis=1)
    origin, direction = camera.rays(points)
    meets = sphere_interval(
        torch.from_numpy(normalization.to_unit(origin)), torch.from_numpy(direction)
    )[2]
    return np.asarray(meets.numpy().reshape(camera.height, camera.width))


def _by_blocks(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixels sorted by square blocks, and the number of pixels in each block."""
    block = (rows // BLOCK) * (width // BLOCK + 1) + columns // BLOCK
    # Few enough blocks for 16 bits get NumPy's radix sort.
    order = np.argsort(block.astype(np.min_scalar_type(block.max(initial=0))), kind="stable")
    _, sizes = np.unique(block, return_counts=True)
    return rows[order], columns[order], sizes


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


def camera_tensors(
    cameras: list[Camera], normalization: Normalization, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-space centres ``(V, 3)`` and ``R K^-1`` ``(V, 3, 3)``."""
    centers = normalization.to_unit(np.stack([camera.center for camera in cameras]))
    matrices = np.stack([camera.c2w[:3, :3] @ np.linalg.inv(camera.K) for camera in cameras])
    return (
        torch.tensor(centers, dtype=torch.float32, device=device),
        torch.tensor(matrices, dtype=torch.float32, device=device),
    )
