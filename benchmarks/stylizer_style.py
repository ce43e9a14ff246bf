"""How near a stylized portrait is to its exemplar, region by region.

Per region (skin, hair with beard, clothes, brows, eyes, lips): sliced Wasserstein distance of
7 x 7 patches on the four levels of a Laplacian pyramid, and of the colours, both in CIELAB. A bald
head is not held against black hair, nor red cloth against none: only regions that all pictures show
count, by their area in the first one. Patches have their centre in the region and lie wholly on the
person. The pyramid is built from the person alone (averages and differences are weighted by the
mask), so that the wall behind does not count.

Faces are brought to :data:`FACE_WIDTH` pixels. The measured frames show them at 94 to 112, the
exemplars at 195 to 389: nothing is enlarged by more than 2 %, and nothing that a frame can show is
thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toonify3d.portrait2d.colorspace import to_lab

ByteArray = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

FACE_WIDTH = 96
LEVELS, PATCH = 4, 7
NOBODY, SKIN, HAIR, CLOTHES, BROWS, EYES, LIPS, OTHER = range(8)
"""Values of a region map; ``OTHER`` is the person, but no region that is compared."""
NAMES = ("nobody", "skin", "hair", "clothes", "brows", "eyes", "lips", "other")
ORGANS = (BROWS, EYES, LIPS)
LEAST_PATCHES = 40
"""Fewer say nothing: organs count as skin at that level, other regions not at all."""
LEAST_SHARE = 0.02
"""Of the person's pixels that a region must cover to count."""
MOST_PATCHES = 4000
DIRECTIONS = 128


@dataclass(frozen=True)
class Portrait:
    """A picture with its regions.

    Attributes:
        image: ``(H, W, 3)`` RGB.
        regions: ``(H, W)`` uint8, see :data:`NOBODY`.
    """

    image: ByteArray
    regions: ByteArray

    def at_width(self, width: float, wanted: float = FACE_WIDTH) -> Portrait:
        """Scaled so that a face ``width`` pixels wide becomes ``wanted``."""
        scale = wanted / width
        size = (round(self.image.shape[1] * scale), round(self.image.shape[0] * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        image = cv2.resize(self.image, size, interpolation=how)
        regions = cv2.resize(self.regions, size, interpolation=cv2.INTER_NEAREST)
        return Portrait(np.asarray(image, np.uint8), np.asarray(regions, np.uint8))

    def mirrored(self) -> Portrait:
        """Left and right changed."""
        return Portrait(
            np.ascontiguousarray(self.image[:, ::-1]), np.ascontiguousarray(self.regions[:, ::-1])
        )


@dataclass(frozen=True)
class Closeness:
    """Distances of one picture from the exemplar.

    Attributes:
        patches: Mean over the levels, CIELAB per patch direction.
        palette: CIELAB.
        by_region: Region to its own two distances (``patches`` NaN where no level has enough).
    """

    patches: float
    palette: float
    by_region: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class _Level:
    band: Float32Array
    regions: ByteArray
    inner: npt.NDArray[np.bool_]


def closeness(goal: Portrait, pictures: Sequence[Portrait]) -> list[Closeness]:
    """Distances of each picture from ``goal`` over the regions that all of them show.

    The first picture's areas weigh the regions, for all pictures alike.

    Raises:
        ValueError: No region is in all of them.
    """
    everything = [goal, *pictures]
    palettes = [_merged(p.regions for p in everything)]
    common = _common(palettes[0])
    if not common:
        raise ValueError("the pictures have no region in common")
    area = {r: float((palettes[0][1] == r).sum()) for r in common}
    levels = [_pyramid(p) for p in everything]
    texture = [_by_level([stack[i] for stack in levels], common, area) for i in range(LEVELS)]
    colours = [to_lab(p.image) for p in everything]
    out = []
    for k in range(1, len(everything)):
        tint = {
            r: sliced_distance(
                *(colours[j][palettes[0][j] == r].astype(np.float64) for j in (0, k))
            )
            for r in common
        }
        scored = [(total[k - 1], parts[k - 1]) for total, parts in texture if parts[k - 1]]
        by_region = {
            r: (_mean([parts[r] for _, parts in scored if r in parts]), tint[r]) for r in common
        }
        palette = float(sum(area[r] * tint[r] for r in common) / sum(area.values()))
        out.append(Closeness(_mean([total for total, _ in scored]), palette, by_region))
    return out


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _merged(maps: Iterable[ByteArray]) -> list[ByteArray]:
    """Region maps in which organs too small to say anything in one of them are skin in all."""
    out = [np.array(regions) for regions in maps]
    for organ in ORGANS:
        if min(int((regions == organ).sum()) for regions in out) < LEAST_PATCHES:
            for regions in out:
                regions[regions == organ] = SKIN
    return out


def _common(maps: list[ByteArray]) -> list[int]:
    found = []
    for region in (SKIN, HAIR, CLOTHES, *ORGANS):
        least = 0.0 if region in ORGANS else LEAST_SHARE
        shares = [(m == region).sum() / max(int((m != NOBODY).sum()), 1) for m in maps]
        if min(shares) > least and min(int((m == region).sum()) for m in maps) >= LEAST_PATCHES:
            found.append(region)
    return found


def _by_level(
    items: list[_Level], common: list[int], area: dict[int, float]
) -> tuple[list[float], list[dict[int, float]]]:
    """Per picture but the first: the weighted distance, and that of each region."""
    maps = _merged(np.where(item.inner, item.regions, NOBODY) for item in items)
    sets: dict[int, list[FloatArray]] = {}
    for region in common:
        if min(int((m == region).sum()) for m in maps) >= LEAST_PATCHES:
            sets[region] = [
                _patches(item.band, m == region) for item, m in zip(items, maps, strict=True)
            ]
    parts = [
        {r: sliced_distance(found[0], found[k]) for r, found in sets.items()}
        for k in range(1, len(items))
    ]
    weight = sum(area[r] for r in sets)
    return [sum(area[r] * d for r, d in p.items()) / max(weight, 1.0) for p in parts], parts


def _pyramid(picture: Portrait) -> list[_Level]:
    lab, regions = to_lab(picture.image), picture.regions
    # Pixels on the outline mix person and wall.
    cover = cv2.erode((regions != NOBODY).astype(np.uint8), np.ones((3, 3)), borderValue=(1,))
    weight = cover.astype(np.float32)
    out = []
    for _ in range(LEVELS):
        size = (weight.shape[1], weight.shape[0])
        less = cv2.pyrDown(weight)
        low = cv2.pyrDown(lab * weight[..., None]) / np.maximum(less, 1e-4)[..., None]
        back = cv2.pyrUp(low * less[..., None], dstsize=size)
        smooth = back / np.maximum(cv2.pyrUp(less, dstsize=size), 1e-4)[..., None]
        band = (lab - smooth) * (weight > 0)[..., None]
        kernel = np.ones((PATCH, PATCH), np.uint8)
        inner = cv2.erode(cover, kernel, borderValue=(0,)) > 0
        rim = PATCH // 2
        inner[:rim] = inner[-rim:] = inner[:, :rim] = inner[:, -rim:] = False
        out.append(_Level(np.asarray(band, np.float32), regions, inner))
        # pyrDown's pixels are centred on every second one.
        lab, weight = low, np.asarray(less, np.float32)
        regions, cover = regions[::2, ::2], cover[::2, ::2]
    return out


def _patches(band: Float32Array, chosen: npt.NDArray[np.bool_]) -> FloatArray:
    rows, columns = np.nonzero(chosen)
    if len(rows) > MOST_PATCHES:
        some = np.random.default_rng(0).choice(len(rows), MOST_PATCHES, replace=False)
        rows, columns = rows[some], columns[some]
    around = range(-(PATCH // 2), PATCH // 2 + 1)
    return np.concatenate(
        [band[rows + y, columns + x] for y in around for x in around], axis=1
    ).astype(np.float64)


def sliced_distance(one: FloatArray, two: FloatArray) -> float:
    """Sliced 1-Wasserstein distance of two point sets ``(n, d)``, fixed directions."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(one.shape[1], DIRECTIONS))
    axes /= np.linalg.norm(axes, axis=0)
    first, second = (_quantiles(points, axes) for points in (one, two))
    return float(np.abs(first - second).mean())


def _quantiles(points: FloatArray, axes: FloatArray) -> FloatArray:
    """256 quantiles along every axis (``np.quantile`` is many times slower)."""
    along = np.ascontiguousarray((points @ axes).T)
    along.sort(axis=1)
    at = (np.linspace(0.5, 255.5, 256) / 256) * (along.shape[1] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, along.shape[1] - 1)
    return np.asarray(along[:, low] + (at - low) * (along[:, high] - along[:, low]))
