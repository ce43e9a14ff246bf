"""The stylized portraits as files: ``NNNN.png``, ``NNNN_mask.png``, ``NNNN_confidence.png``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..calm_colors import CalmColors, load_calm_colors
from ..files import read_image, write_atomic, write_image
from ..scene import ByteImage, Displacement, Scene, StylizedView
from .colorspace import kmeans, to_lab, to_rgb

_PALETTE_COLORS = 24


@dataclass(frozen=True)
class StylizedSet:
    """What stages II and III get.

    Attributes:
        views: Stylized front and back frames.
        displacement: The 3D shape change, None where only pictures are known.
        palette: RGB picture ``(H, W, 3)`` whose colours stage III posterizes with.
        delight: How much of the room's light the views are without, 0 to 1.
        calm: The person's colours as calm as the views have them; None leaves them.
    """

    views: list[StylizedView]
    displacement: Displacement | None
    palette: ByteImage
    delight: float = 0.0
    calm: CalmColors | None = None


def save_view(folder: Path, view: StylizedView) -> None:
    """Write one view's picture, mask and confidence."""
    write_image(folder / f"{view.frame.name}.png", view.image)
    write_image(folder / f"{view.frame.name}_mask.png", view.mask)
    scaled = np.clip(view.confidence * 255 + 0.5, 0, 255).astype(np.uint8)
    write_image(folder / f"{view.frame.name}_confidence.png", scaled)


def save_displacement(folder: Path, displacement: Displacement) -> None:
    """Write ``displacement.npz``."""

    def write(path: Path) -> None:
        arrays = {"points": displacement.points, "offsets": displacement.offsets}
        if displacement.kernels is not None:
            arrays["kernels"] = displacement.kernels
        np.savez_compressed(path, **arrays)

    write_atomic(folder / "displacement.npz", write)


def load_displacement(folder: Path) -> Displacement | None:
    """Read ``displacement.npz``, None when there is none."""
    path = folder / "displacement.npz"
    if not path.exists():
        return None
    with np.load(path) as data:
        return Displacement(data["points"], data["offsets"], data.get("kernels"))


def save_palette(folder: Path, palette: ByteImage) -> None:
    """Write ``palette.png``."""
    write_image(folder / "palette.png", palette)


def load_stylized(folder: Path, scene: Scene) -> StylizedSet:
    """Read what the stylizer wrote for this scene.

    Raises:
        FileNotFoundError: The folder does not hold a finished set.
    """
    views = []
    for frame in scene.frames:
        path = folder / f"{frame.name}.png"
        if not path.exists():
            continue
        image = read_image(path, cv2.IMREAD_COLOR)[..., ::-1].copy()
        mask = read_image(folder / f"{frame.name}_mask.png", cv2.IMREAD_GRAYSCALE)
        sure = read_image(folder / f"{frame.name}_confidence.png", cv2.IMREAD_GRAYSCALE)
        views.append(StylizedView(frame, image, mask, (sure / 255.0).astype(np.float32)))
    if not views:
        raise FileNotFoundError(f"{folder} holds no stylized portraits")
    displacement = load_displacement(folder)
    palette = read_image(folder / "palette.png", cv2.IMREAD_COLOR)[..., ::-1].copy()
    return StylizedSet(views, displacement, palette, calm=load_calm_colors(folder))


def palette_strip(image: ByteImage) -> ByteImage:
    """The picture's main colours as a strip ``(16, n, 3)``, widths by share, dark to light."""
    lab = to_lab(image).reshape(-1, 3)
    lab = np.ascontiguousarray(lab[:: max(1, len(lab) // 60_000)])
    labels, centers = kmeans(lab, _PALETTE_COLORS)
    share = np.bincount(labels, minlength=len(centers)) / len(lab)
    widths = np.maximum(1, np.round(share * 256)).astype(int)
    order = np.argsort(centers[:, 0])
    row = np.repeat(to_rgb(centers[order]), widths[order], axis=0)
    return np.ascontiguousarray(np.broadcast_to(row, (16, *row.shape)))
