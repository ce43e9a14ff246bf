"""A furnished room round the person: everything in it is drawn by this file. Metres.

Its pictures, books and fabrics give structure from motion plenty to match; its big soft lights give
the face no hard shadows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
import cv2
import numpy as np
import numpy.typing as npt
from blender import add_mesh, area_light, painted, textured, world_color
from fields import Array, Mesh, fractal_noise, merge
from head import srgb

Picture = npt.NDArray[np.float32]
FLOOR, CEILING = -1.25, 1.35
HALF_X, HALF_Y = 2.1, 2.3
PALETTE = (
    "#d9624a", "#e8a14b", "#f0d9a0", "#5f8f7b", "#2f5d73", "#7b4f6b", "#c9c2b0", "#8aa6b8",
    "#b9803f", "#46503f", "#a33d3d", "#e7e0d0",
)  # fmt: skip


def build_room(seed: int = 3) -> None:
    """Walls, floor, ceiling, pictures, shelves, furniture, plants and lights."""
    rng = np.random.default_rng(seed)
    surfaces = Surfaces()
    _shell(rng, surfaces)
    _pictures(rng, surfaces)
    surfaces.finish()
    solids = _shelf(rng, -HALF_X + 0.16, -0.9, axis=1) + _shelf(rng, 0.7, HALF_Y - 0.16, axis=0)
    solids += _furniture(rng) + _plants(rng)
    add_mesh("solids", merge(solids), painted("solids", 0.6, 0.3), scale=1.0, smooth=False)
    world_color((0.93, 0.96, 1.0), 1.0)
    area_light((0.0, -0.1, CEILING - 0.02), (0, 0, 0), 2.6, 55, (1.0, 0.96, 0.9))
    area_light((1.5, -2.1, 0.5), (0, 0, 0), 1.3, 48, (0.93, 0.97, 1.0))
    area_light((-1.9, -1.3, 0.4), (0, 0, 0), 1.1, 22, (1.0, 0.93, 0.85))
    area_light((0.6, 2.1, 0.6), (0, 0, 0), 1.2, 26, (0.95, 0.97, 1.0))


def _shell(rng: np.random.Generator, out: Surfaces) -> None:
    x, y, h = HALF_X, HALF_Y, CEILING - FLOOR
    paper = [_wallpaper(rng, k) for k in range(4)]
    out.add(paper[0], (-x, -y, FLOOR), (2 * x, 0, 0), (0, 0, h))
    out.add(paper[1], (x, y, FLOOR), (-2 * x, 0, 0), (0, 0, h))
    out.add(paper[2], (x, -y, FLOOR), (0, 2 * y, 0), (0, 0, h))
    out.add(paper[3], (-x, y, FLOOR), (0, -2 * y, 0), (0, 0, h))
    out.add(_parquet(rng), (x, -y, FLOOR), (-2 * x, 0, 0), (0, 2 * y, 0))
    out.add(_plaid(rng, 5), (1.2, -1.4, FLOOR + 0.01), (-2.4, 0, 0), (0, 2.8, 0))
    ceiling = 0.86 + 0.03 * _noise(256, 256, 7.0, 9)[..., None] * np.ones(3)
    out.add(ceiling, (x, y, CEILING), (-2 * x, 0, 0), (0, -2 * y, 0))


def _noise(height: int, width: int, scale: float, seed: int) -> Array:
    i, j = np.mgrid[0:height, 0:width]
    points = np.stack([i.ravel(), j.ravel()], axis=1) * (scale / height)
    return fractal_noise(points, seed).reshape(height, width)


class Surfaces:
    """Textured rectangles, gathered into one object; each is a grid so that it can hold light."""

    GRID = 12

    def __init__(self) -> None:
        self._vertices: list[Array] = []
        self._materials: list[Any] = []

    def add(
        self, picture: Any, corner: Sequence[float], right: Sequence[float], up: Sequence[float]
    ) -> None:
        """Add a rectangle whose lower left corner in the picture is at ``corner``."""
        height, width = picture.shape[:2]
        image = bpy.data.images.new(f"picture{len(self._materials)}", width, height)
        rgba = np.ones((height, width, 4), np.float32)
        rgba[..., :3] = np.clip(picture[::-1], 0, 1)
        image.pixels.foreach_set(rgba.ravel())
        image.pack()
        self._materials.append(textured(image.name, image))
        c, r, u = (np.asarray(v, dtype=float) for v in (corner, right, up))
        t = np.linspace(0, 1, self.GRID + 1)
        grid = c + t[None, :, None] * r + t[:, None, None] * u
        self._vertices.append(grid.reshape(-1, 3))

    def finish(self) -> None:
        """Put everything in the scene as one object."""
        n = self.GRID
        i, j = (v.ravel() for v in np.mgrid[0:n, 0:n])
        base = i * (n + 1) + j
        # Seen from inside the room, right and up turn the other way round.
        cells = np.stack([base, base + n + 1, base + n + 2, base + 1], axis=1)
        count = len(self._vertices)
        faces = np.concatenate([cells + k * (n + 1) ** 2 for k in range(count)])
        data = bpy.data.meshes.new("surfaces")
        data.from_pydata(np.concatenate(self._vertices).tolist(), [], faces.tolist())
        t = np.stack([cells % (n + 1), cells // (n + 1)], axis=-1) / n
        layer = data.uv_layers.new()
        layer.data.foreach_set("uv", np.tile(t.reshape(-1), count).astype(np.float32))
        for material in self._materials:
            data.materials.append(material)
        slots = np.repeat(np.arange(count), n * n).astype(np.int32)
        data.polygons.foreach_set("material_index", slots)
        bpy.context.collection.objects.link(bpy.data.objects.new("surfaces", data))


def _rgb(code: str) -> Array:
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def _pick(rng: np.random.Generator) -> tuple[float, float, float]:
    color = np.clip(_rgb(PALETTE[rng.integers(len(PALETTE))]) * rng.uniform(0.8, 1.1), 0, 1)
    return (float(color[0]), float(color[1]), float(color[2]))


def _wallpaper(rng: np.random.Generator, kind: int) -> Picture:
    """Plaster mottling with a sparse hand-printed motif of the wall's own."""
    size = (520, 840)
    base = _rgb(("#cfc6b4", "#b9c4bd", "#d3bfae", "#b8bfcc")[kind])
    out = np.ones((*size, 3), np.float32) * base.astype(np.float32)
    ink = _rgb(("#8d7f66", "#6f8a80", "#a1745a", "#6d7a97")[kind])
    for row in range(0, size[0] + 32, 32):
        for column in range(0, size[1] + 32, 32):
            x = int(column + 16 * ((row // 32) % 2) + rng.integers(-4, 5))
            y = int(row + rng.integers(-4, 5))
            angle, length = rng.uniform(0, 180), int(rng.integers(5, 13))
            tone = [float(v) for v in np.clip(ink * rng.uniform(0.75, 1.25), 0, 1)]
            cv2.ellipse(out, (x, y), (length, 4), angle, 0, 360, tone, -1, cv2.LINE_AA)
            cv2.ellipse(out, (x, y), (length // 2, 9), angle + 70, 0, 360, tone, 1, cv2.LINE_AA)
    shade = 1 + 0.10 * _noise(*size, 9.0, 100 + kind) + 0.05 * _noise(*size, 60.0, 200 + kind)
    return np.asarray(out * shade[..., None], np.float32)


def _parquet(rng: np.random.Generator) -> Picture:
    out = np.zeros((600, 560, 3), np.float32)
    for i in range(0, 600, 20):
        for j in range(-80, 560, 80):
            k = j + 40 * ((i // 20) % 2)
            out[i : i + 20, max(k, 0) : max(k + 80, 0)] = _rgb("#9a6b42") * rng.uniform(0.6, 1.2)
        out[i : i + 1] *= 0.4
    grain = 1 + 0.16 * _noise(600, 560, 30.0, 5)
    return np.asarray(out * grain[..., None], np.float32)


def _plaid(rng: np.random.Generator, bands: int) -> Picture:
    size = 320
    rows, columns = np.zeros((size, 3)), np.zeros((size, 3))
    for line in (rows, columns):
        for _ in range(bands * 3):
            start, width = int(rng.integers(size)), int(rng.integers(6, 50))
            line[start : start + width] = _pick(rng)
    out = 0.5 * rows[:, None] + 0.5 * columns[None] + 0.08
    weave = 1 + 0.12 * _noise(size, size, 80.0, 17)
    return np.asarray(out * weave[..., None], np.float32)


def _pictures(rng: np.random.Generator, out: Surfaces) -> None:
    x, y = HALF_X - 0.03, HALF_Y - 0.03
    draw = (_hills, _circles, _shards, _page, _contours)
    k = 0
    for wall in range(4):
        for slot in range(5):
            w = rng.uniform(0.36, 0.62)
            h = w * rng.uniform(0.9, 1.45)
            along = -1.75 + 0.85 * slot + rng.uniform(-0.08, 0.08)
            low = rng.uniform(-0.45, 0.2)
            picture = _framed(draw[k % len(draw)](rng), _pick(rng))
            k += 1
            corner, right = (
                ((along, -y, low), (w, 0, 0)),
                ((-along, y, low), (-w, 0, 0)),
                ((x, along, low), (0, w, 0)),
                ((-x, -along, low), (0, -w, 0)),
            )[wall]
            out.add(picture, corner, right, (0, 0, h))


def _framed(picture: Picture, color: tuple[float, float, float]) -> Picture:
    picture[:10], picture[-10:], picture[:, :10], picture[:, -10:] = color, color, color, color
    return picture


def _canvas(rng: np.random.Generator) -> Picture:
    return np.ones((240, 200, 3), np.float32) * np.asarray(_pick(rng), np.float32)


def _hills(rng: np.random.Generator) -> Picture:
    out = _canvas(rng)
    cv2.circle(out, (int(rng.integers(40, 160)), 60), 24, _pick(rng), -1, cv2.LINE_AA)
    for layer in range(6):
        t = np.arange(200)
        top = 80 + 25 * layer + 18 * np.sin(t * rng.uniform(0.02, 0.07) + rng.uniform(0, 6))
        outline = np.concatenate([np.stack([t, top], 1), [[200, 240], [0, 240]]]).astype(np.int32)
        cv2.fillPoly(out, [outline], _pick(rng), cv2.LINE_AA)
    return out


def _circles(rng: np.random.Generator) -> Picture:
    out = _canvas(rng)
    for _ in range(38):
        center = (int(rng.integers(200)), int(rng.integers(240)))
        thick = int(rng.choice([-1, 2, 5]))
        cv2.circle(out, center, int(rng.integers(6, 38)), _pick(rng), thick, cv2.LINE_AA)
    return out


def _shards(rng: np.random.Generator) -> Picture:
    out = _canvas(rng)
    for _ in range(60):
        center = rng.uniform(0, 1, 2) * (200, 240)
        points = (center + rng.normal(0, 26, (3, 2))).astype(np.int32)
        cv2.fillPoly(out, [points], _pick(rng), cv2.LINE_AA)
    return out


def _page(rng: np.random.Generator) -> Picture:
    out = np.ones((240, 200, 3), np.float32) * 0.88
    for row in range(20, 226, 9):
        column = 18
        while column < 176:
            width = int(rng.integers(4, 26))
            tone = _pick(rng) if rng.random() < 0.2 else (0.15, 0.15, 0.17)
            cv2.rectangle(out, (column, row), (min(column + width, 182), row + 4), tone, -1)
            column += width + 5
    cv2.rectangle(out, (24, 30), (110, 110), _pick(rng), -1)
    cv2.circle(out, (70, 70), 28, _pick(rng), -1, cv2.LINE_AA)
    return out


def _contours(rng: np.random.Generator) -> Picture:
    level = _noise(240, 200, 4.0, int(rng.integers(1000)))
    bands = np.floor((level + 1.2) * 6).astype(int) % 6
    colors = np.array([_pick(rng) for _ in range(6)])
    return np.asarray(colors[bands], np.float32)


def box(center: Sequence[float], size: Sequence[float], color: Sequence[float]) -> Mesh:
    """A box of one linear-light colour; every side is its own grid so that it can hold light."""
    n = 3
    t = np.linspace(-0.5, 0.5, n + 1)
    u, v = (w.ravel() for w in np.meshgrid(t, t, indexing="ij"))
    i, j = (w.ravel() for w in np.mgrid[0:n, 0:n])
    a = i * (n + 1) + j
    b, c, d = a + n + 1, a + n + 2, a + 1
    cells = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    vertices, faces = [], []
    for axis in range(3):
        for side in (-0.5, 0.5):
            plane = np.full((len(u), 3), side)
            plane[:, (axis + 1) % 3], plane[:, (axis + 2) % 3] = u, v
            faces.append((cells if side > 0 else cells[:, ::-1]) + len(vertices) * len(u))
            vertices.append(plane)
    points = np.concatenate(vertices) * np.asarray(size) + np.asarray(center)
    colors = np.broadcast_to(np.asarray(color, dtype=float), points.shape)
    return Mesh(points, np.concatenate(faces), colors)


def _tint(rng: np.random.Generator) -> Array:
    return np.asarray(srgb(PALETTE[rng.integers(len(PALETTE))])) * rng.uniform(0.6, 1.1)


def _shelf(rng: np.random.Generator, x: float, y: float, axis: int) -> list[Mesh]:
    """A bookcase 1.3 m wide along ``axis``, its back at the wall."""
    wood = np.asarray(srgb("#7a5233"))
    out: list[Mesh] = []
    length = np.array([1.3, 1.3])

    def place(along: float, z: float, wide: float, deep: float, tall: float, color: Array) -> None:
        size = (wide, deep, tall) if axis == 0 else (deep, wide, tall)
        center = (x + along, y, z) if axis == 0 else (x, y + along, z)
        out.append(box(center, size, color))

    for level in range(6):
        z = FLOOR + 0.1 + 0.36 * level
        place(0, z, 1.3, 0.26, 0.025, wood)
        along = -0.63
        while along < 0.6 and level < 5:
            wide, tall = rng.uniform(0.02, 0.055), rng.uniform(0.2, 0.31)
            color, deep = _tint(rng), rng.uniform(0.17, 0.24)
            middle = along + wide / 2
            place(middle, z + 0.0125 + tall / 2, wide * 0.94, deep, tall, color)
            for band in rng.uniform(0.2, 0.9, 2):
                place(middle, z + tall * band, wide * 0.96, deep + 0.004, 0.015, _tint(rng))
            along += wide + (rng.random() < 0.08) * rng.uniform(0.03, 0.1)
    for end in (-0.66, 0.66):
        place(end * length[0] / 1.3, FLOOR + 1.0, 0.025, 0.27, 2.0, wood * 0.9)
    return out


def _furniture(rng: np.random.Generator) -> list[Mesh]:
    """Crates, a sideboard and a floor lamp."""
    out: list[Mesh] = []
    for x, y in ((1.75, -1.7), (1.7, 0.9), (-1.7, 1.5), (-0.6, -2.05), (-1.0, 2.0), (1.75, -0.5)):
        z = FLOOR
        for _ in range(int(rng.integers(3, 6))):
            size = rng.uniform((0.25, 0.25, 0.18), (0.5, 0.45, 0.4))
            center = (x + rng.uniform(-0.05, 0.05), y + rng.uniform(-0.05, 0.05), z + size[2] / 2)
            out.append(box(center, size, _tint(rng)))
            for part in (0.3, 0.7):
                trim = (*(size[:2] + 0.006), 0.03)
                out.append(box((*center[:2], z + part * size[2]), trim, _tint(rng)))
            z += size[2]
    out.append(box((1.0, -2.12, FLOOR + 0.4), (1.0, 0.3, 0.8), np.asarray(srgb("#57402e"))))
    for k in range(7):
        tall = rng.uniform(0.1, 0.35)
        place = (0.6 + 0.13 * k, -2.1, FLOOR + 0.8 + tall / 2)
        out.append(box(place, (0.09, 0.09, tall), _tint(rng)))
    return out


def _plants(rng: np.random.Generator) -> list[Mesh]:
    """Pots of long arching leaves."""
    out: list[Mesh] = []
    for x, y, z in ((-1.75, -1.85, FLOOR), (1.8, 2.0, FLOOR), (-1.85, 0.6, FLOOR)):
        out.append(box((x, y, z + 0.3), (0.3, 0.3, 0.6), np.asarray(srgb("#b06a45"))))
        for _ in range(46):
            out.append(_leaf(rng, np.array([x, y, z + 0.58])))
    return out


def _leaf(rng: np.random.Generator, root: Array) -> Mesh:
    turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.42)
    t = np.linspace(0, 1, 8)
    way = np.array([np.cos(turn), np.sin(turn), 0.0])
    side = np.array([-np.sin(turn), np.cos(turn), 0.0])
    rise = rng.uniform(0.5, 1.15)
    spine = root + np.outer(reach * t**1.4, way) + np.outer(rise * (t - 0.35 * t**3), [0, 0, 1])
    width = 0.035 * np.sin(np.pi * np.minimum(t + 0.08, 1))[:, None]
    vertices = np.concatenate([spine - width * side, spine + width * side])
    k = np.arange(7)
    faces = np.concatenate([np.stack([k, k + 1, k + 8], 1), np.stack([k + 1, k + 9, k + 8], 1)])
    green = np.asarray(srgb(("#4f7d3a", "#6f9a45", "#37663f")[rng.integers(3)]))
    colors = np.concatenate([np.outer(0.6 + 0.6 * t, green)] * 2)
    return Mesh(vertices, faces.astype(np.int64), colors)
