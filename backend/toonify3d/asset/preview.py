"""The picture of the result: photo and exemplar beside four views of the stylized head."""

from __future__ import annotations

import cv2
import numpy as np

from ..scene import ByteImage, Scene
from .render import BACKGROUND, Renderable, render_view, turntable

# Front, three-quarter, side, back.
AZIMUTHS = (0.0, 0.7, np.pi / 2, np.pi)
GAP = 12


def preview_sheet(
    item: Renderable, scene: Scene, exemplar: ByteImage, tile: int = 480
) -> ByteImage:
    """Photo over exemplar on the left; right, the lit textured views over the same in clay.

    Args:
        item: The textured avatar.
        scene: Gives the photo taken nearest to the front.
        exemplar: RGB.
        tile: Height of one view in pixels.
    """
    width = tile * 4 // 5
    cameras = turntable(item.mesh, list(AZIMUTHS), width, tile, whole=False)
    rows = []
    for shading in ("soft", "clay"):
        rows.append([render_view(item, camera, shading)[0] for camera in cameras])
    photo = front_photo(scene)
    blank = np.broadcast_to(np.array(BACKGROUND, dtype=np.uint8), (tile, width, 3)).copy()
    top = blank if photo is None else fit(photo, width, tile)
    return stack([[top, *rows[0]], [fit(exemplar, width, tile), *rows[1]]])


def front_photo(scene: Scene) -> ByteImage | None:
    """The photo taken nearest to the front, or None when there is none."""
    if not scene.frames:
        return None
    frame = min(scene.frames, key=lambda item: abs(item.yaw))
    try:
        image = scene.image(frame)
    except FileNotFoundError:
        return None
    return image


def fit(image: ByteImage, width: int, height: int) -> ByteImage:
    """Scale and crop the middle so that ``image`` fills ``width`` x ``height``."""
    h, w = image.shape[:2]
    scale = max(width / w, height / h)
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, size, interpolation=mode), dtype=np.uint8)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled[y : y + height, x : x + width]


def stack(rows: list[list[ByteImage]]) -> ByteImage:
    """Tiles of one size on the background colour, with gaps."""
    height, width = rows[0][0].shape[:2]
    total = (
        GAP + len(rows) * (height + GAP),
        GAP + len(rows[0]) * (width + GAP),
        3,
    )
    sheet = np.broadcast_to(np.array(BACKGROUND, dtype=np.uint8), total).copy()
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            y, x = GAP + r * (height + GAP), GAP + c * (width + GAP)
            sheet[y : y + height, x : x + width] = tile
    return sheet
