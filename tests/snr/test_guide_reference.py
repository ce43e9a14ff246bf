"""The guide's Warp kernels against plain float64 evaluations with numpy and scipy.

Nodes whose pixel float32 could mistake (within a thousandth of a pixel of its border) are left out
of the comparison; they are few.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from toonify3d.snr.warp_guide import carve, fuse_depth, interpolate, trace_grid

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
SIDE = 17
SIZES = [(40, 30), (24, 36), (32, 32), (28, 20)]


def _nodes(side: int) -> np.ndarray:
    axis = np.linspace(-1.0, 1.0, side)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)


def _trilinear(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """scipy's linear interpolation of a grid over the box, clamped to it."""
    scaled = (np.clip(points, -1.0, 1.0) + 1.0) * 0.5 * (values.shape[0] - 1)
    return map_coordinates(values, scaled.reshape(-1, 3).T, order=1, mode="nearest").reshape(
        points.shape[:-1]
    )


def _cameras() -> np.ndarray:
    """Projections ``(V, 4, 4)``; they see parts of the box, the last one stands inside of it."""
    out = []
    for number, ((width, height), distance) in enumerate(
        zip(SIZES, (2.2, 2.5, 1.9, 0.4), strict=True)
    ):
        yaw, pitch = 1.3 * number, 0.4 * number - 0.5
        forward = -np.array([np.cos(pitch) * np.sin(yaw), -np.cos(pitch) * np.cos(yaw), 0.0])
        forward[2] = -np.sin(pitch)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        focal = 0.9 * width
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        matrix = np.eye(4)
        matrix[:3] = K @ np.concatenate([rotation, [[0.0], [0.0], [distance]]], axis=1)
        out.append(matrix)
    return np.stack(out).astype(np.float32).astype(np.float64)


def _seen(matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Row and column of every node, its depth, whether it is in the picture, and whether that is
    beyond doubt."""
    p = _nodes(SIDE) @ matrix[:3, :3].T + matrix[:3, 3]
    depth = p[..., 2]
    image = p[..., :2] / np.where(depth > 1e-6, depth, np.inf)[..., None]
    pixel = np.floor(image).astype(int)
    inside = (depth > 1e-6) & (pixel >= 0).all(-1) & (pixel < size).all(-1)
    clear = (depth <= 0.0) | (np.abs(image - np.round(image)).min(-1) > 1e-3)
    clear &= np.abs(depth) > 1e-3
    column, row = np.where(inside[..., None], pixel, 0)[..., 0], np.where(inside, pixel[..., 1], 0)
    return row, column, depth, inside, clear


def _packed(pictures: list[np.ndarray], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as the kernels want them: rows (width, height, first pixel), and all pixels."""
    offsets = np.cumsum([0, *[picture.size for picture in pictures]])[:-1]
    shapes = [(*size, int(first)) for size, first in zip(SIZES, offsets, strict=True)]
    joined = np.concatenate([picture.ravel() for picture in pictures])
    shaped = torch.tensor(shapes, dtype=torch.int32, device=device)
    return shaped, torch.tensor(joined, device=device)


def _tensor(values: np.ndarray, device: str) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("allowed", "least", "lowest"), [(0, 1, -2.0), (1, 1, -0.3), (1, 3, -2.0), (2, 3, 0.01)]
)
def test_carving_counts_views_as_float64_does(
    device: str, allowed: int, least: int, lowest: float
) -> None:
    """A node stays that enough views see and at most ``allowed`` of them contradict."""
    generator = np.random.default_rng(0)
    masks = [
        (gaussian_filter(generator.normal(size=(h, w)), 2.5) > -0.05).astype(np.uint8)
        for w, h in SIZES
    ]
    cameras, nodes = _cameras(), _nodes(SIDE)
    seen, misses = np.zeros((SIDE,) * 3, int), np.zeros((SIDE,) * 3, int)
    length = np.linalg.norm(nodes, axis=-1)
    sure = np.abs(length - 1.0) > 1e-6
    for matrix, size, mask in zip(cameras, SIZES, masks, strict=True):
        row, column, _, inside, clear = _seen(matrix, size)
        seen += inside
        misses += inside & (mask[row, column] == 0)
        sure &= clear
    want = (length < 1.0) & (nodes[..., 2] > lowest) & (misses <= allowed) & (seen >= least)
    shapes, pixels = _packed(masks, device)
    got = carve(_tensor(cameras, device), shapes, pixels, SIDE, allowed, least, lowest).cpu()
    assert np.array_equal(got.numpy()[sure] > 0, want[sure])
    assert sure.mean() > 0.9 and 30 < want[sure].sum() < 0.9 * (length < 1.0).sum()


@pytest.mark.parametrize("device", DEVICES)
def test_fused_depth_is_the_float64_mean(device: str) -> None:
    """Weighted mean of ``min(depth - z, truncation)`` over views that do not hide the node."""
    generator = np.random.default_rng(1)
    depths, weights = [], []
    for width, height in SIZES:
        smooth = gaussian_filter(generator.normal(size=(height, width)), 2.0)
        none = generator.random((height, width)) < 0.2
        depths.append(np.where(none, 0.0, 2.0 + 2.0 * smooth).astype(np.float32))
        weights.append(generator.random((height, width)).astype(np.float32))
    truncation, cameras = 0.4, _cameras()
    distance, total, sure = (np.zeros((SIDE,) * 3) for _ in range(3))
    for matrix, size, depth, weight in zip(cameras, SIZES, depths, weights, strict=True):
        row, column, z, inside, clear = _seen(matrix, size)
        measured = depth[row, column].astype(np.float64)
        before = measured - z
        used = inside & (measured > 0.0) & (before > -truncation)
        w = np.where(used, weight[row, column].astype(np.float64), 0.0)
        distance, total = distance + w * np.minimum(before, truncation), total + w
        sure += clear & (np.abs(before + truncation) > 1e-4)
    shapes, pixels = _packed(depths, device)
    confidence = _tensor(np.concatenate([w.ravel() for w in weights]), device)
    fused, weight = fuse_depth(
        _tensor(cameras, device), shapes, pixels, confidence, truncation, SIDE
    )
    known = (sure == len(SIZES)) & ((total == 0.0) | (total > 1e-3))
    assert known.mean() > 0.9
    assert np.abs(weight.cpu().numpy() - total)[known].max() < 1e-5
    want = distance / np.maximum(total, 1e-6)
    assert np.abs(fused.cpu().numpy() - want)[known].max() < 1e-4
    # All that can happen does: nothing seen, in front of, near, and behind what is measured.
    assert (total[known] == 0).any() and (want[known] > 0.99 * truncation).any()
    assert (want[known] < -0.3 * truncation).any()


@pytest.mark.parametrize("device", DEVICES)
def test_interpolation_is_scipys(device: str) -> None:
    """Anywhere, on nodes, on the box and clamped outside of it."""
    generator = np.random.default_rng(2)
    values = generator.normal(size=(SIDE,) * 3).astype(np.float32)
    nodes = _nodes(SIDE).reshape(-1, 3)
    points = np.concatenate(
        [
            generator.uniform(-1.3, 1.3, (3000, 3)),
            nodes,
            np.where(generator.random((500, 3)) < 0.5, 1.0, generator.uniform(-1, 1, (500, 3))),
        ]
    ).astype(np.float32)
    got = interpolate(_tensor(values, device), _tensor(points, device)).cpu().numpy()
    want = _trilinear(values.astype(np.float64), points.astype(np.float64))
    assert np.abs(got - want).max() < 5e-5
    assert interpolate(_tensor(values, device), _tensor(points[:0], device)).shape == (0,)


def _two_balls(side: int) -> np.ndarray:
    """Distance to two balls, one of which may hide the other."""
    nodes = _nodes(side)
    balls = [((-0.3, 0.1, 0.0), 0.35), ((0.4, -0.2, 0.25), 0.25)]
    distance = [np.linalg.norm(nodes - center, axis=-1) - radius for center, radius in balls]
    return np.minimum(*distance).astype(np.float32)


def _rays(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """From outside through the unit ball, from within it, and past it."""
    origin = generator.normal(size=(count, 3))
    origin *= generator.uniform(0.3, 2.5, (count, 1)) / np.linalg.norm(origin, axis=1)[:, None]
    target = generator.uniform(-0.7, 0.7, (count, 3))
    target[: count // 10] *= 4.0
    direction = target - origin
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    return origin.astype(np.float32), direction.astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
def test_traced_crossings_are_those_of_a_dense_float64_march(device: str) -> None:
    """First crossing, or closest approach, within the unit ball; value and slope of the grid."""
    side = 49
    values, cell = _two_balls(side), 2.0 / (side - 1)
    origin, direction = _rays(np.random.default_rng(3), 600)
    got = trace_grid(_tensor(values, device), _tensor(origin, device), _tensor(direction, device))
    t, value, slope = (part.cpu().double().numpy() for part in got)
    o, d, grid = (part.astype(np.float64) for part in (origin, direction, values))
    middle = -(o * d).sum(1)
    half = 1.0 - ((o * o).sum(1) - middle**2)
    meets = half > 1e-6
    assert np.allclose(t[half < -1e-6], np.maximum(middle, 1e-3)[half < -1e-6], atol=1e-5)
    assert (value[half < -1e-6] == 1e3).all() and (slope[half < -1e-6] == 0.0).all()
    half = np.sqrt(np.maximum(half, 0.0))
    near, far = np.maximum(middle - half, 0.0), middle + half
    meets &= far > 0.0
    along = near[:, None] + (far - near)[:, None] * np.linspace(0.0, 1.0, 1500)
    field = _trilinear(grid, o[:, None] + along[..., None] * d[:, None])
    spacing = (far - near) / 1499
    hit = meets & (field.min(1) < -0.01 * cell)
    first = (field <= 0.0).argmax(1)
    rows = np.arange(len(o))
    before, after = field[rows, np.maximum(first - 1, 0)], field[rows, first]
    share = np.where(first > 0, before / np.maximum(before - after, 1e-12), 1.0)
    crossing = along[rows, np.maximum(first - 1, 0)] + share * np.where(first > 0, spacing, 0.0)
    started_inside = hit & (first == 0)
    assert hit.sum() > 200 and started_inside.sum() > 10
    assert np.abs(t - crossing)[hit].max() < 0.05 * cell
    assert (value[hit] <= 0.0).all() and np.abs(value[hit & ~started_inside]).max() < 0.02 * cell
    missed = meets & (field.min(1) > 0.01 * cell)
    assert missed.sum() > 50
    # Closest approach: of a march by a quarter of a cell, or by 0.8 of the distance. Where that is
    # least half a step off, a ball's is a tenth more; at the far end there may be no step at all.
    closest = field.min(1)
    assert (value[missed] > closest[missed] - 1e-4).all()
    passing = missed & (field.argmin(1) < 1499)
    assert passing.sum() > 50
    assert (value - 1.1 * closest)[passing].max() < 0.15 * cell
    both = hit | missed
    at = o[both] + t[both, None] * d[both]
    want = [_trilinear(grid, at + sign * 0.5 * cell * d[both]) for sign in (1.0, -1.0)]
    assert np.abs(slope[both] - (want[0] - want[1]) / cell).max() < 2e-3
    assert np.abs(value[both] - _trilinear(grid, at))[~started_inside[both]].max() < 1e-4
