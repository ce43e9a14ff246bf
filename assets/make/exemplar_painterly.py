"""A painterly portrait: brush strokes laid by code over a small Cycles render of a sitter.

The strokes follow A. Hertzmann, "Painterly rendering with curved brush strokes of multiple sizes"
(SIGGRAPH 1998): from coarse brushes to fine ones, each where the canvas still differs from the
reference, along the direction of least change. Bristles leave a relief that is lit at the end.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from blender import (
    add_camera,
    area_light,
    backdrop,
    look_at,
    new_scene,
    render,
    set_render,
    world_color,
)
from clothes import Sweater
from fields import Array
from hair import HairStyle
from head import Person
from person import Finish, add_person

SIZE, RENDER_SIZE, SAMPLES = 768, 384, 8
Picture = npt.NDArray[np.float32]

SITTER = Person(
    eye_radius=1.56,
    lid_half_width=1.5,
    lid_upper=0.62,
    lid_lower=0.46,
    iris=0.7,
    pupil=0.32,
    nose=0.9,
    nose_z=0.15,
    mouth=0.92,
    smile=0.16,
    jaw=0.92,
    chin_z=0.5,
    neck=0.8,
    skin="#e2a884",
    skin_red="#d0664f",
    lips="#b8433f",
    brow="#2c1a12",
    iris_color="#5b4426",
    stubble=0.0,
    mottle=0.7,
)
BOB = HairStyle(
    hairline=(
        (0.0, 7.2),
        (0.5, 7.0),
        (0.8, 5.6),
        (1.0, 3.0),
        (1.12, -3.0),
        (1.25, -7.5),
        (3.15, -8.0),
    ),
    top=2.2,
    side=2.5,
    nape=1.8,
    quiff=0.8,
    locks=2600,
    width=0.3,
    length_top=8.0,
    length_side=5.0,
    spread=0.16,
    dark="#2a1710",
    light="#7d4526",
    sweep=(-0.75, 0.65, 0.0),
)
SHAWL = Sweater(
    base="#7a2f27", stripe="#93402c", accent="#c58a3c", broad=0.78, collar=5.8, rise=0.8
)


def make(target: Path, work: Path, threads: int = 0) -> None:
    """Render the sitter into ``work`` (kept there), then paint and write the portrait."""
    work.mkdir(parents=True, exist_ok=True)
    reference = work / "sitter.png"
    if not reference.exists():
        render_sitter(reference, threads=threads)
    image = cv2.imread(str(reference))[..., ::-1]
    painting = paint(image.astype(np.float32) / 255.0, SIZE)
    out = np.clip(painting * 255 + 0.5, 0, 255).astype(np.uint8)
    cv2.imwrite(str(target), out[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def render_sitter(
    target: Path, size: int = RENDER_SIZE, samples: int = SAMPLES, threads: int = 0
) -> None:
    """A woman in warm light from the upper left before a dark ground."""
    new_scene()
    set_render(size, size, samples, threads)
    add_person(SITTER, BOB, SHAWL, Finish(), 1.6)
    backdrop((0.10, 0.055, 0.03), (0.30, 0.20, 0.09))
    world_color((1.0, 0.85, 0.7), 0.25)
    area_light((-0.9, -1.4, 0.8), (0, 0, 0), 0.9, 27, (1.0, 0.88, 0.7))
    area_light((1.4, -0.9, 0.1), (0, 0, 0), 1.2, 6, (0.8, 0.85, 1.0))
    area_light((0.8, 0.8, 0.8), (0, 0, 0), 0.6, 10, (1.0, 0.8, 0.6))
    camera = add_camera(2.75)
    camera.matrix_world = look_at(np.array([0.0, -1.2, 0.0]), np.array([0.0, 0.0, -0.025]))
    render(target)


def paint(reference: Picture, size: int, seed: int = 5) -> Picture:
    """Paint ``reference`` (RGB 0..1) on a canvas of ``size`` pixels."""
    rng = np.random.default_rng(seed)
    big = cv2.resize(reference, (size, size), interpolation=cv2.INTER_CUBIC)
    warm = np.array([1.05, 1.0, 0.90], np.float32)
    big = np.clip(big * warm, 0, 1)
    big = np.clip(0.5 + 1.12 * (big - 0.5), 0, 1)
    canvas = np.ones_like(big) * np.array([0.36, 0.22, 0.13], np.float32)
    relief = np.zeros((size, size), np.float32)
    care = _care(size)
    for brush, tolerance in ((26, 0.0), (13, 0.045), (7, 0.05), (4, 0.05), (2, 0.06)):
        _layer(canvas, relief, big, care, brush, tolerance, rng)
    return _light(canvas, relief, rng)


def _care(size: int) -> Array:
    """More in the face, where the painter looks hardest: 0 at the rim, 1 in the middle."""
    y, x = np.mgrid[0:size, 0:size] / size
    return np.exp(-(((x - 0.5) / 0.24) ** 2) - ((y - 0.47) / 0.27) ** 2)


def _layer(
    canvas: Picture, relief: Picture, big: Picture, care: Array, brush: int, tolerance: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    size = len(big)
    blurred = cv2.GaussianBlur(big, (0, 0), 0.5 * brush)
    gray = blurred @ np.array([0.3, 0.59, 0.11], np.float32)
    gray = cv2.GaussianBlur(gray, (0, 0), 0.5 * brush + 1)
    gx, gy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    error = np.abs(blurred - canvas).sum(axis=2)
    error = cv2.blur(error, (brush | 1, brush | 1))
    step = max(int(brush * 0.9), 3)
    places = np.stack(np.meshgrid(np.arange(0, size, step), np.arange(0, size, step)), -1)
    places = places.reshape(-1, 2) + rng.integers(-step // 2, step // 2 + 1, (len(places) ** 2, 2))
    places = np.clip(places, 0, size - 1)
    rng.shuffle(places)
    # Fine brushes outside the face only where the picture is far off.
    need = tolerance * (3.4 - 2.4 * care) if brush < 20 else np.full_like(care, -1.0)
    column, row = places.T
    for x, y in places[error[row, column] > need[row, column]]:
        path = _path(x, y, gx, gy, brush, rng)
        color = blurred[y, x] + rng.normal(0, 0.022, 3) + rng.normal(0, 0.018)
        _stroke(canvas, relief, path, np.clip(color, 0, 1), brush, rng)


def _path(
    x: int, y: int, gx: Picture, gy: Picture, brush: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Points along the direction of least change, smoothly."""
    size, points = len(gx), [(float(x), float(y))]
    # Where nothing leads, strokes go round the head.
    angle = np.arctan2(y - 0.45 * size, x - 0.5 * size) + np.pi / 2 + rng.normal(0, 0.3)
    before = np.array([np.cos(angle), np.sin(angle)])
    px, py = float(x), float(y)
    for _ in range(int(rng.integers(3, 7))):
        i, j = int(np.clip(py, 0, size - 1)), int(np.clip(px, 0, size - 1))
        way = np.array([-gy[i, j], gx[i, j]], dtype=float)
        strength = np.linalg.norm(way)
        way = way / strength if strength > 0.02 else before
        if way @ before < 0:
            way = -way
        before = 0.6 * way + 0.4 * before
        before /= np.linalg.norm(before) + 1e-9
        px, py = px + brush * 1.1 * before[0], py + brush * 1.1 * before[1]
        points.append((px, py))
    return np.array(points)


def _stroke(
    canvas: Picture, relief: Picture, path: Array, color: Array, brush: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """A stroke of several bristle tracks of slightly different colour and height."""
    tangent = np.gradient(path, axis=0)
    across = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    tracks = max(3, brush // 2)
    thick = max(2, round(2.2 * brush / tracks))
    for offset in rng.permutation(np.linspace(-0.8, 0.8, tracks)):
        line = np.round((path + offset * 0.9 * brush * across) * 16).astype(np.int32)
        tone = np.clip(color + rng.normal(0, 0.014), 0, 1)
        cv2.polylines(canvas, [line], False, tone.tolist(), thick, cv2.LINE_AA, 4)
        height = float(0.6 - 0.5 * abs(offset) + rng.normal(0, 0.22))
        cv2.polylines(relief, [line], False, height, thick, cv2.LINE_AA, 4)


def _light(canvas: Picture, relief: Picture, rng: np.random.Generator) -> Picture:
    weave = cv2.GaussianBlur(rng.normal(0, 1, relief.shape).astype(np.float32), (0, 0), 1.2)
    surface = cv2.GaussianBlur(relief, (0, 0), 0.8) + 0.12 * weave
    gx, gy = cv2.Sobel(surface, cv2.CV_32F, 1, 0), cv2.Sobel(surface, cv2.CV_32F, 0, 1)
    shade = np.clip(-0.020 * (gx + gy), -0.07, 0.09)
    return np.asarray(
        np.clip(canvas * (1 + 1.4 * shade[..., None]) + 0.25 * shade[..., None], 0, 1)
    )
