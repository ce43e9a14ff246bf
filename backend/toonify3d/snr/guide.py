"""A coarse sampled distance field that knows roughly where the surface is.

It starts as the visual hull of the masks, follows the trained field (only the cells near its zero
level are re-evaluated), and tells the sampler where along each ray to spend its few samples
(``research/method_anchors`` A5: geometry first, samples round a known depth).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from ..errors import InputError
from ..scene import ByteImage, Camera, Float32Array, FloatArray, Normalization
from .warp_guide import carve, fuse_depth, interpolate, trace_grid

DistanceFunction = Callable[[torch.Tensor], torch.Tensor]
BAND_CELLS = 3.0


class Guide:
    """Signed distances at the vertices of a cubic grid over ``[-1, 1]^3``.

    Attributes:
        values: The followed surface, ``(G, G, G)`` float32 indexed ``[x, y, z]``.
        hull: The visual hull it started from, same shape.
    """

    def __init__(self, values: torch.Tensor, hull: torch.Tensor) -> None:
        self.values = values
        self.hull = hull

    @property
    def cell(self) -> float:
        """Edge length of a cell in unit space."""
        return 2.0 / (self.values.shape[0] - 1)

    @classmethod
    def from_field(
        cls, sdf: DistanceFunction, side: int, slack: float, device: torch.device
    ) -> Guide:
        """Samples of a trained field, for learning that goes on from it.

        Args:
            sdf: The field's distance.
            side: Vertices per axis.
            slack: How far outside the present surface the followed one may come to lie (there is
                no hull that would limit it).
            device: Where the grid lives.
        """
        axis = torch.linspace(-1.0, 1.0, side, device=device)
        nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        with torch.no_grad():
            parts = [sdf(part) for part in nodes.reshape(-1, 3).split(1 << 16)]
        values = torch.cat(parts).reshape(side, side, side).contiguous()
        return cls(values, values - slack)

    @classmethod
    def from_masks(
        cls,
        cameras: list[Camera],
        masks: list[ByteImage],
        normalization: Normalization,
        side: int,
        device: torch.device,
        lowest: float = -np.inf,
        tolerance: float = 0.04,
    ) -> Guide:
        """The visual hull of the masks, clipped to the unit ball.

        Args:
            cameras: World cameras.
            masks: One mask ``(H, W)`` per camera, foreground above 127.
            normalization: World to unit space.
            side: Vertices per axis.
            device: Where the grid lives.
            lowest: World height below which nothing is kept.
            tolerance: Share of the views that may contradict a point before it is carved away
                (masks of real people are wrong somewhere in some view).

        Raises:
            InputError: Nothing is left (``code="empty_hull"``).
        """
        shapes, flat, offset = [], [], 0
        for mask in masks:
            # Conservative: a hull that is a pixel too wide is harmless, one too narrow is not.
            grown = cv2.dilate((mask > 127).astype(np.uint8), np.ones((3, 3), np.uint8))
            shapes.append((mask.shape[1], mask.shape[0], offset))
            flat.append(grown.ravel())
            offset += grown.size
        low = (lowest - normalization.center[2]) / normalization.radius
        occupied = carve(
            torch.tensor(
                np.stack([_projection(camera, normalization) for camera in cameras]),
                dtype=torch.float32,
                device=device,
            ),
            torch.tensor(shapes, dtype=torch.int32, device=device),
            torch.tensor(np.concatenate(flat), device=device),
            side,
            int(tolerance * len(cameras)),
            max(1, len(cameras) // 20),
            float(max(low, -2.0)),
        )
        inside = _largest(occupied.cpu().numpy().astype(bool))
        if not inside.any():
            raise InputError(
                "The masks and cameras do not agree on any common volume; check the masks.",
                code="empty_hull",
            )
        distance = torch.tensor(_signed_distance(inside), dtype=torch.float32, device=device)
        return cls(distance.clone(), distance)

    def carve_with_depth(
        self,
        cameras: list[Camera],
        depths: list[tuple[Float32Array, Float32Array]],
        normalization: Normalization,
        truncation_cells: float = 6.0,
        least_weight: float = 1.0,
    ) -> None:
        """Cut the hull's concavities out of the followed surface by fused stereo depth.

        A hull cannot see eye sockets or the hollow of a chest, and colour alone moves a surface
        there only slowly. Stereo is right to half a percent: good enough for a start.

        Args:
            cameras: One per depth map, at any resolution of the same view.
            depths: Depth along z in world units (0 = none) and confidence, ``(h, w)`` each.
            normalization: World to unit space.
            truncation_cells: Truncation of the fused distance in cells.
            least_weight: Total confidence below which a vertex is left to the hull.
        """
        shapes, flat, weights, projections, offset = [], [], [], [], 0
        device = self.values.device
        for camera, (depth, confidence) in zip(cameras, depths, strict=True):
            height, width = depth.shape
            shapes.append((width, height, offset))
            flat.append(depth.ravel() / normalization.radius)
            weights.append(np.where(depth > 0, confidence, 0.0).ravel())
            projection = _projection(camera.resized(width, height), normalization)
            projections.append(projection / normalization.radius)
            offset += depth.size
        fused, total = fuse_depth(
            torch.tensor(np.stack(projections), dtype=torch.float32, device=device),
            torch.tensor(shapes, dtype=torch.int32, device=device),
            torch.tensor(np.concatenate(flat), dtype=torch.float32, device=device),
            torch.tensor(np.concatenate(weights), dtype=torch.float32, device=device),
            truncation_cells * self.cell,
            self.values.shape[0],
        )
        trusted = (total > least_weight) & (self.hull.abs() < 2.0 * truncation_cells * self.cell)
        self.values = torch.where(trusted, torch.maximum(self.hull, fused), self.hull)

    def intersect(
        self, origins: torch.Tensor, directions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where rays meet the followed surface; see :func:`.trace_grid`."""
        return trace_grid(self.values, origins, directions)

    def intersect_hull(
        self, origins: torch.Tensor, directions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where rays meet the visual hull; see :func:`.trace_grid`."""
        return trace_grid(self.hull, origins, directions)

    def distance(self, points: torch.Tensor) -> torch.Tensor:
        """The followed surface's distance at ``(N, 3)`` points."""
        return interpolate(self.values, points)

    def hull_distance(self, points: torch.Tensor) -> torch.Tensor:
        """The visual hull's distance at ``(N, 3)`` points."""
        return interpolate(self.hull, points)

    def refresh(
        self, sdf: DistanceFunction, band: float | None = None, everything: bool = False
    ) -> None:
        """Re-evaluate the vertices within ``band`` of the surface (default: three cells).

        Values further away keep their old, smaller-or-equal truth; they only pace the tracing.

        Args:
            sdf: The field's distance.
            band: Half width of what is re-evaluated, unit space.
            everything: Also what counts as outside within the hull. Wrong depth may have carved
                more than ``band`` away, and rays to it would be led past the surface for good.
        """
        width = BAND_CELLS * self.cell if band is None else band
        chosen = self.values.abs() < width
        if everything:
            chosen |= (self.hull < width) & (self.values > 0.0)
        index = chosen.nonzero()
        points = index.to(torch.float32) * self.cell - 1.0
        with torch.no_grad():
            fresh = torch.cat([sdf(part) for part in points.split(1 << 16)])
        # Never beyond the hull: what trains nowhere must not lead the samples astray.
        limit = self.hull[index[:, 0], index[:, 1], index[:, 2]] - 2.0 * self.cell
        self.values[index[:, 0], index[:, 1], index[:, 2]] = torch.maximum(fresh, limit)


def _projection(camera: Camera, normalization: Normalization) -> FloatArray:
    to_world = np.diag([normalization.radius] * 3 + [1.0])
    to_world[:3, 3] = normalization.center
    out = np.eye(4)
    out[:3] = camera.K @ camera.w2c[:3] @ to_world
    return out


def _largest(occupied: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    parts, count = label(occupied)
    if count < 2:
        return occupied
    sizes = np.bincount(parts.ravel())[1:]
    return np.asarray(parts == 1 + int(sizes.argmax()))


def _signed_distance(inside: npt.NDArray[np.bool_]) -> FloatArray:
    """Distance to the boundary of a voxel set in unit space, negative inside, slightly smoothed."""
    cell = 2.0 / (inside.shape[0] - 1)
    outer = distance_transform_edt(~inside)
    inner = distance_transform_edt(inside)
    distance = np.where(inside, 0.5 - inner, outer - 0.5)
    return np.asarray(gaussian_filter(distance, 0.7) * cell)
