"""Built-in multi-view stereo: a sweep of surfaces parallel to the visual hull.

Plain plane sweep (Collins 1996) compares fronto-parallel patches, which biases slanted skin. Here
the swept surfaces are the visual hull's own front, pushed back step by step, so that patches are
slanted as the head is; a second, fine sweep follows the first answer. Costs are normalized cross
correlation, aggregated semi-globally (Hirschmueller 2008), then views check each other.

One source for CPU and GPU (PyTorch). Depth is along the camera's z in the unit of the world.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from ..files import write_atomic
from ..progress import Progress, SubProgress
from ..scene import Camera, Float32Array, Frame, Scene
from .adapters.depth_source import check_depth_source, external_maps
from .depth_settings import DepthSettings
from .hull import Hull, visual_hull
from .look_at import neighbours, spacing, useful_angle

_NOISE = 2.0
"""Variance of the grey levels' noise: flat skin correlates badly instead of by chance."""
_FINE = 7
"""Surfaces of the second sweep, half a step of the first apart."""


@dataclass(frozen=True)
class _View:
    """What the sweep needs of a frame, at the size of the depth maps."""

    camera: Camera
    gray: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class _Estimate:
    depth: torch.Tensor
    score: torch.Tensor


def compute_depth(
    scene: Scene, settings: DepthSettings, device: torch.device | str, progress: Progress
) -> None:
    """Write ``depth/NNNN.npz`` (depth in metres, 0 = none; confidence 0 to 1) for a scene.

    Uses and, when it is not there, writes ``hull.npz``.

    Args:
        scene: Frames and masks.
        settings: See :class:`DepthSettings`.
        device: Where to compute.
        progress: Gets updates; warned when a frame has no neighbour at a useful angle, and told
            when another program than the built-in one made the depth, or none.

    Raises:
        InputError: See :func:`~.adapters.depth_source.check_depth_source` and ``external_maps``.
    """
    check_depth_source(settings)
    if settings.source == "none":
        progress.warn("No stereo depth was made, because capture.depth.source is none.")
        return
    hull = load_or_make_hull(scene)
    cameras: dict[int, Camera] = {}
    estimates: dict[int, _Estimate] = {}
    if settings.source == "builtin":
        views = [_load_view(scene, frame, settings.long_side, device) for frame in scene.frames]
        estimates = _sweep_all(scene, views, hull, settings, SubProgress(progress, 0.0, 0.9))
        cameras = {index: views[index].camera for index in estimates}
    else:
        maps = external_maps(scene, hull, settings, SubProgress(progress, 0.0, 0.9))
        for index, (camera, depth, trust) in maps.items():
            cameras[index] = camera
            # What a program is sure of counts like a good correlation, see _cross_check.
            score = 0.2 + 0.5 * torch.as_tensor(trust, device=device)
            estimates[index] = _Estimate(torch.as_tensor(depth, device=device), score)
    reach = useful_angle([frame.camera for frame in scene.frames], hull.normalization.center)
    for done, index in enumerate(estimates):
        partners = _partners(cameras, hull, index, reach)
        depth, confidence = _cross_check(
            cameras[index],
            estimates[index],
            [(cameras[i], estimates[i].depth) for i in partners],
            settings.tolerance * hull.normalization.radius,
        )
        _write(scene.root / "depth" / f"{scene.frames[index].name}.npz", depth, confidence)
        progress.update(0.9 + 0.1 * (done + 1) / len(estimates), "Depth: cross-check")


def _sweep_all(
    scene: Scene, views: list[_View], hull: Hull, settings: DepthSettings, progress: Progress
) -> dict[int, _Estimate]:
    """Every ``frame_step``-th frame's own depth by its position."""
    cameras = [view.camera for view in views]
    center = hull.normalization.center
    reach = useful_angle(cameras, center)
    # Maps check each other, so they must not stand farther apart than views that are compared.
    step = min(settings.frame_step, int(0.5 * reach / spacing(cameras, center)))
    chosen = list(range(0, len(views), max(1, step)))
    estimates = {}
    for done, index in enumerate(chosen):
        left, right = neighbours(cameras, center, index, settings.neighbour_angles, reach)
        if not left and not right:
            progress.warn(f"Frame {scene.frames[index].name} has no neighbour to measure depth by.")
            continue
        others = ([views[i] for i in left], [views[i] for i in right])
        estimates[index] = _estimate(views[index], others, hull, settings)
        progress.update((done + 1) / len(chosen), "Depth: plane sweep")
    return estimates


def load_or_make_hull(scene: Scene) -> Hull:
    """``scene.root/hull.npz``, made from the scene's masks when it is not there."""
    path = scene.root / "hull.npz"
    if path.exists():
        return Hull.load(path)
    masks = [scene.mask(frame) for frame in scene.frames]
    hull = visual_hull(masks, [frame.camera for frame in scene.frames], scene.crop_z)
    hull.save(path)
    return hull


def _load_view(scene: Scene, frame: Frame, long_side: int, device: torch.device | str) -> _View:
    scale = min(1.0, long_side / max(frame.camera.width, frame.camera.height))
    size = (round(frame.camera.width * scale), round(frame.camera.height * scale))
    gray = cv2.cvtColor(scene.image(frame), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(scene.mask(frame), size, interpolation=cv2.INTER_AREA) > 127
    return _View(
        frame.camera.resized(*size),
        torch.as_tensor(small, device=device),
        torch.as_tensor(mask, device=device),
    )


def _estimate(
    view: _View,
    others: tuple[Sequence[_View], Sequence[_View]],
    hull: Hull,
    settings: DepthSettings,
) -> _Estimate:
    """Depth ``(h, w)`` and correlation of the best surface; 0 outside the person."""
    device = view.gray.device
    front = hull.depth(view.camera, view.camera.width, view.camera.height, device)
    person = view.mask.cpu().numpy() & (ndimage.maximum_filter(front, 7) > 0)
    nothing = torch.zeros_like(view.gray)
    if not person.any():
        return _Estimate(nothing, nothing)
    rows, columns = _box(person, settings.window)
    base = torch.as_tensor(_filled(front)[rows, columns], device=device)
    inside = torch.as_tensor(person[rows, columns], device=device)
    radius = hull.normalization.radius
    step = (settings.before_hull + settings.behind_hull) * radius / (settings.planes - 1)
    offsets = torch.arange(settings.planes, device=device) * step - settings.before_hull * radius
    scores = _sweep(view, others, rows, columns, base, offsets, settings.window)
    costs = _aggregate(scores, settings, settings.hull_prior * step / radius)
    first = base + _minimum(costs, offsets)[0]
    smooth = _smooth(first, inside)
    offsets = (torch.arange(_FINE, device=device) - _FINE // 2) * (0.5 * step)
    scores = _sweep(view, others, rows, columns, smooth, offsets, settings.window)
    costs = _aggregate(scores, settings, 0.5 * settings.hull_prior * step / radius)
    offset, best = _minimum(costs, offsets)
    score = torch.gather(scores, 0, best[None])[0]
    depth, quality = nothing.clone(), nothing.clone()
    depth[rows, columns] = torch.where(inside, smooth + offset, torch.zeros_like(offset))
    quality[rows, columns] = torch.where(inside, score, torch.zeros_like(score))
    return _Estimate(depth, quality)


def _box(mask: npt.NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = max(0, int(rows[0]) - margin), max(0, int(columns[0]) - margin)
    return slice(top, int(rows[-1]) + margin + 1), slice(left, int(columns[-1]) + margin + 1)


def _filled(front: Float32Array) -> Float32Array:
    """The hull's depth, holes taken from the nearest pixel, lightly smoothed."""
    index = ndimage.distance_transform_edt(front <= 0, return_distances=False, return_indices=True)
    full = front[tuple(index)]
    return np.asarray(cv2.bilateralFilter(cv2.medianBlur(full, 5), 5, 0.02, 2.0), np.float32)


def _sweep(
    view: _View,
    others: tuple[Sequence[_View], Sequence[_View]],
    rows: slice,
    columns: slice,
    base: torch.Tensor,
    offsets: torch.Tensor,
    window: int,
) -> torch.Tensor:
    """Correlation ``(planes, h, w)`` of the surfaces ``base + offset``.

    Occlusion hides one side: the score is that of the better side, or of both together.
    """
    reference = _Window.of(view.gray[rows, columns], view.mask[rows, columns], window)
    sides = []
    for group in others:
        scores = [_correlate(view, n, rows, columns, base, offsets, reference) for n in group]
        if scores:
            sides.append(torch.stack(scores).mean(0))
    if len(sides) == 1:
        return sides[0]
    return torch.maximum(0.5 * (sides[0] + sides[1]), torch.maximum(*sides) - 0.1)


@dataclass(frozen=True)
class _Window:
    """Sums over the person's pixels in a square window of the reference."""

    centred: torch.Tensor
    weight: torch.Tensor
    count: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    size: int

    @classmethod
    def of(cls, gray: torch.Tensor, mask: torch.Tensor, size: int) -> _Window:
        weight = mask.to(gray.dtype)
        count = _box_sum(weight, size).clamp_min(1.0)
        # Around a common mean single precision keeps the variances exact.
        centred = (gray - gray[mask].mean()) * weight
        mean = _box_sum(centred, size) / count
        variance = _box_sum(centred * centred, size) / count - mean * mean
        return cls(centred, weight, count, mean, variance.clamp_min(0.0), size)


def _correlate(
    view: _View,
    other: _View,
    rows: slice,
    columns: slice,
    base: torch.Tensor,
    offsets: torch.Tensor,
    reference: _Window,
) -> torch.Tensor:
    depths = base[None] + offsets[:, None, None]
    sampled = _warp(view.camera, other, rows, columns, depths) * reference.weight
    mean = _box_sum(sampled, reference.size) / reference.count
    square = _box_sum(sampled * sampled, reference.size) / reference.count
    product = _box_sum(sampled * reference.centred, reference.size) / reference.count
    variance = (square - mean * mean).clamp_min(0.0)
    covariance = product - mean * reference.mean
    return covariance / torch.sqrt((variance + _NOISE) * (reference.variance + _NOISE))


def _warp(
    camera: Camera, other: _View, rows: slice, columns: slice, depths: torch.Tensor
) -> torch.Tensor:
    """Grey levels ``(planes, h, w)`` of ``other`` where the reference's pixels would be in it."""
    device = depths.device
    height, width = other.gray.shape
    relative = other.camera.w2c @ camera.c2w
    matrix = torch.as_tensor(
        other.camera.K @ relative[:3, :3] @ np.linalg.inv(camera.K), dtype=torch.float32
    ).to(device)
    shift = torch.as_tensor(other.camera.K @ relative[:3, 3], dtype=torch.float32).to(device)
    y = torch.arange(rows.start, rows.start + depths.shape[1], device=device) + 0.5
    x = torch.arange(columns.start, columns.start + depths.shape[2], device=device) + 0.5
    ray = matrix[:, 0, None, None] * x + (matrix[:, 1, None] * y + matrix[:, 2, None])[..., None]
    w = ray[2] * depths + shift[2]
    grid = torch.stack(
        [
            (ray[0] * depths + shift[0]) / w * (2.0 / width) - 1.0,
            (ray[1] * depths + shift[1]) / w * (2.0 / height) - 1.0,
        ],
        dim=-1,
    )
    middle = other.gray[other.mask].mean() if bool(other.mask.any()) else other.gray.mean()
    image = (other.gray - middle)[None, None]
    flat = grid.reshape(1, -1, depths.shape[2], 2)
    sampled = functional.grid_sample(image, flat, align_corners=False, padding_mode="border")
    return sampled.reshape(depths.shape)


def _box_sum(values: torch.Tensor, size: int) -> torch.Tensor:
    """Sums over size x size windows, zeros beyond the border; ``(..., h, w)``."""
    half = size // 2
    padded = functional.pad(values, (half, half, half, half))
    height, width = values.shape[-2:]
    across = padded[..., :width].clone()
    for shift in range(1, size):
        across += padded[..., shift : shift + width]
    out = across[..., :height, :].clone()
    for shift in range(1, size):
        out += across[..., shift : shift + height, :]
    return out


def _aggregate(scores: torch.Tensor, settings: DepthSettings, slope: float) -> torch.Tensor:
    """Smoothed costs ``(planes, h, w)``; each plane farther costs ``slope`` more.

    Reflections on skin lie behind the skin, and pull plain, glossy patches with them; the true
    surface is at the hull or behind it, and where little speaks for behind it is at the hull.
    """
    planes = torch.arange(len(scores), device=scores.device, dtype=scores.dtype)
    costs = 1.0 - scores + slope * planes[:, None, None]
    return _semi_global(costs, settings.smooth_small, settings.smooth_large)


def _semi_global(costs: torch.Tensor, small: float, large: float) -> torch.Tensor:
    """Costs ``(planes, h, w)`` summed along four paths (Hirschmueller 2008, eq. 13)."""
    volume = costs.permute(1, 2, 0)
    total = _paths(volume, small, large)
    total += _paths(volume.transpose(0, 1), small, large).transpose(0, 1)
    return total.permute(2, 0, 1)


def _paths(volume: torch.Tensor, small: float, large: float) -> torch.Tensor:
    """Both directions along the first axis of ``(n, m, planes)``."""
    both = torch.stack([volume, volume.flip(0)], dim=1)
    out = torch.empty_like(both)
    out[0] = previous = both[0]
    for row in range(1, len(both)):
        lowest = previous.amin(-1, keepdim=True)
        best = torch.minimum(previous, lowest + large)
        best[..., 1:] = torch.minimum(best[..., 1:], previous[..., :-1] + small)
        best[..., :-1] = torch.minimum(best[..., :-1], previous[..., 1:] + small)
        previous = both[row] + best - lowest
        out[row] = previous
    return out[:, 0] + out[:, 1].flip(0)


def _minimum(costs: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Offset ``(h, w)`` at the vertex of the parabola through the lowest cost, and its index."""
    best = costs.argmin(0)
    middle = best.clamp(1, len(offsets) - 2)
    low, mid, high = (torch.gather(costs, 0, (middle + k)[None])[0] for k in (-1, 0, 1))
    curve = (low - 2.0 * mid + high).clamp_min(1e-6)
    shift = (0.5 * (low - high) / curve).clamp(-1.0, 1.0)
    return offsets[middle] + shift * (offsets[1] - offsets[0]), best


def _smooth(depth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Median, then a normalized Gaussian within the person: a surface to sweep round."""
    values = cv2.medianBlur(depth.cpu().numpy().astype(np.float32), 5)
    weight = inside.cpu().numpy().astype(np.float32)
    near = cv2.bilateralFilter(values, 7, 0.01, 2.5)
    values = np.where(weight > 0, near, depth.cpu().numpy()).astype(np.float32)
    return torch.as_tensor(values, device=depth.device)


def _partners(cameras: dict[int, Camera], hull: Hull, index: int, reach: float) -> list[int]:
    """Frames with a depth map that check this one's: two on either side."""
    available = list(cameras)
    subset, row = list(cameras.values()), available.index(index)
    left, right = neighbours(subset, hull.normalization.center, row, (7.0, 14.0), reach)
    return [available[i] for i in (*left, *right)]


def _cross_check(
    own: Camera,
    estimate: _Estimate,
    partners: Sequence[tuple[Camera, torch.Tensor]],
    tolerance: float,
) -> tuple[Float32Array, Float32Array]:
    """Depth averaged over the maps that agree, and the confidence.

    A depth counts when at least one other map agrees and is trusted fully with three; the
    correlation and the angle under which the surface is seen do the rest.
    """
    agree = torch.zeros_like(estimate.depth)
    correction = torch.zeros_like(estimate.depth)
    for camera, depth in partners:
        difference = _difference(own, estimate.depth, camera, depth)
        close = difference.abs() < tolerance
        agree += close
        correction += torch.where(close, difference, torch.zeros_like(difference))
    fused = estimate.depth + correction / (agree + 1.0)
    known = (estimate.depth > 0) & (agree >= 1)
    views = (agree / min(3, max(1, len(partners)))).clamp(max=1.0)
    quality = ((estimate.score - 0.2) / 0.5).clamp(0.0, 1.0)
    confidence = views * quality * _facing(own, fused, known)
    zero = torch.zeros_like(fused)
    return (
        torch.where(known, fused, zero).cpu().numpy(),
        torch.where(known, confidence, zero).cpu().numpy(),
    )


def _difference(
    camera: Camera, depth: torch.Tensor, other: Camera, other_depth: torch.Tensor
) -> torch.Tensor:
    """How much farther ``other``'s map puts the points of ``depth`` (inf: it has none there)."""
    height, width = depth.shape
    device = depth.device
    relative = other.w2c @ camera.c2w
    inverse = np.linalg.inv(camera.K)
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5,
        torch.arange(width, device=device) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    ray = pixels @ torch.as_tensor((relative[:3, :3] @ inverse).T, dtype=torch.float32).to(device)
    shift = torch.as_tensor(relative[:3, 3], dtype=torch.float32).to(device)
    points = ray * depth[..., None] + shift
    image = points @ torch.as_tensor(other.K.T, dtype=torch.float32).to(device)
    scale = torch.tensor([2.0 / width, 2.0 / height], device=device)
    grid = image[..., :2] / image[..., 2:].clamp_min(1e-6) * scale - 1.0
    maps = torch.stack([other_depth, (other_depth > 0).to(other_depth.dtype)])[None]
    value, valid = functional.grid_sample(maps, grid[None], align_corners=False)[0]
    there = (valid > 0.99) & (depth > 0)
    return torch.where(there, value / valid.clamp_min(0.5) - points[..., 2], math.inf)


def _facing(camera: Camera, depth: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 where the surface faces the camera, falling to 0 from 60 to 80 degrees of slant."""
    focal = float(camera.K[0, 0])
    size = depth / focal
    slope = torch.zeros_like(depth)
    for axis in (0, 1):
        step = (depth.roll(-1, axis) - depth.roll(1, axis)) / (2.0 * size.clamp_min(1e-9))
        both = known.roll(-1, axis) & known.roll(1, axis)
        slope += torch.where(both, step, torch.full_like(step, 3.0)) ** 2
    cosine = 1.0 / torch.sqrt(1.0 + slope)
    return ((cosine - 0.17) / 0.33).clamp(0.0, 1.0)


def _write(path: Path, depth: Float32Array, confidence: Float32Array) -> None:
    write_atomic(path, lambda part: np.savez_compressed(part, depth=depth, confidence=confidence))
