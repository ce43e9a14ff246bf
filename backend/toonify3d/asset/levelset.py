"""The zero level set of a field, by marching cubes on a sparsely evaluated grid.

The volume is split into blocks of 4 cells. Block corners are evaluated everywhere inside the
closing ball; a block is refined where a corner is nearer to the surface than the block reaches, or
where the surface of a refined neighbour runs into it, so that nothing depends on the field being an
exact distance away from its surface. Everything else only keeps its sign.

Marching cubes: Lorensen & Cline 1987, by PyMCubes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import mcubes
import numpy as np
import numpy.typing as npt
import torch

from ..errors import TrainingError
from ..progress import Progress
from ..scene import FloatArray, Normalization, Scene

BLOCK = 4
BATCH = 1 << 16
# How much steeper than a true distance the field may be before a block is missed by the first
# test (the second test, following the surface, still finds it).
STEEPNESS = 1.25
MAX_ROUNDS = 256

IntArray = npt.NDArray[np.int64]
FloatGrid = npt.NDArray[np.float32]


class Field(Protocol):
    """What the asset step asks of a trained (or analytic) field, in unit space."""

    @property
    def device(self) -> torch.device | str:
        """Where the field's tensors live."""

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        """Signed distance ``(N,)`` at ``(N, 3)``, negative inside."""

    def color(self, x: torch.Tensor) -> torch.Tensor:
        """sRGB colour ``(N, 3)`` in 0 to 1."""


class ClippedField:
    """A field cut by the unit ball and the chest plane, queried with numpy arrays.

    Intersecting with both closes the surface at neck and chest: the distance is the largest of
    the field's, the ball's and the plane's.

    Args:
        field: The field, in unit space.
        ball_radius: Radius of the closing ball.
        crop_z: Height of the chest plane in unit space, ``-inf`` for none.
        lift: How far the points of a level set's grid are moved up, unit space.
    """

    def __init__(
        self,
        field: Field,
        ball_radius: float = 0.99,
        crop_z: float = -np.inf,
        lift: float = 0.0,
    ) -> None:
        self.field = field
        self.ball_radius = ball_radius
        self.crop_z = crop_z
        self.lift = lift

    @classmethod
    def of_scene(
        cls,
        field: Field,
        scene: Scene,
        ball_radius: float,
        bottom: float | None = None,
        resolution: int = 0,
    ) -> ClippedField:
        """The field cut by the ball and by the scene's chest plane, or by a higher ``bottom``.

        Args:
            field: The field.
            scene: The capture.
            ball_radius: Of the closing ball, unit space.
            bottom: Height in world metres below which no frame shows anything, or None.
            resolution: Cells of a level set to be extracted, 0 for none. Its grid is moved so that
                the plane lies in the middle between two layers of points, because marching cubes
                makes a plane through a layer of points of slivers. Where the ball would leave a
                coarse grid (below about 100 cells) the plane goes up by less than a cell instead.
        """
        norm: Normalization = scene.normalization
        height = scene.crop_z if bottom is None else max(scene.crop_z, bottom)
        crop, lift = float((height - norm.center[2]) / norm.radius), 0.0
        if resolution and np.isfinite(crop):
            half = -(-resolution // BLOCK) * BLOCK / 2.0
            layer = (crop + 1.0) * half - 0.5
            lift = float((layer - np.round(layer)) / half)
            if abs(lift) > 1.0 - ball_radius:
                crop, lift = float((np.ceil(layer) + 0.5) / half - 1.0), 0.0
        return cls(field, ball_radius, crop, lift)

    def height(self, normalization: Normalization) -> float | None:
        """World height of the cutting plane; None without one."""
        if not np.isfinite(self.crop_z):
            return None
        return float(self.crop_z * normalization.radius + normalization.center[2])

    def clip(self, points: FloatArray) -> FloatArray:
        """Distance ``(N,)`` to the cutting solid alone, positive outside it."""
        ball = np.linalg.norm(points, axis=1) - self.ball_radius
        return np.maximum(ball, self.crop_z - points[:, 2])

    def inner(self, points: FloatArray) -> FloatArray:
        """Distance ``(N,)`` to the field's own surface, as if nothing cut it."""
        with torch.no_grad():
            return self._query(self.field.sdf, points, None).reshape(-1).astype(np.float64)

    def sdf(
        self, points: FloatArray, tick: Callable[[float], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Signed distance ``(N,)`` to the closed surface at unit-space ``(N, 3)``."""
        clip = self.clip(points)
        # Well outside the cutting solid its distance alone decides the sign.
        near = np.flatnonzero(clip < 0.05)
        out = clip.astype(np.float32)
        with torch.no_grad():
            inside = self._query(self.field.sdf, points[near], tick).reshape(-1)
        out[near] = np.maximum(out[near], inside)
        return out

    def color(
        self, points: FloatArray, tick: Callable[[float], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """sRGB colours ``(N, 3)`` clipped to 0..1."""
        with torch.no_grad():
            return np.clip(self._query(self.field.color, points, tick).reshape(-1, 3), 0.0, 1.0)

    @property
    def paired(self) -> bool:
        """Whether the field also knows the real person's colours (:meth:`color_pair`)."""
        return hasattr(self.field, "color_pair")

    def color_pair(self, points: FloatArray) -> npt.NDArray[np.float32]:
        """Albedo and the real person's colour ``(N, 6)``, clipped to 0..1; if :attr:`paired`."""
        function: Callable[[torch.Tensor], torch.Tensor] = getattr(self.field, "color_pair")  # noqa: B009
        with torch.no_grad():
            return np.clip(self._query(function, points, None).reshape(-1, 6), 0.0, 1.0)

    def _query(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        points: FloatArray,
        tick: Callable[[float], None] | None,
    ) -> npt.NDArray[np.float32]:
        parts = [np.zeros(0, dtype=np.float32)]
        for start in range(0, len(points), BATCH):
            chunk = np.ascontiguousarray(points[start : start + BATCH], dtype=np.float32)
            result = function(torch.from_numpy(chunk).to(self.field.device))
            parts.append(result.detach().to("cpu", torch.float32).numpy().reshape(-1))
            if tick is not None:
                tick(min(1.0, (start + BATCH) / len(points)))
        return np.concatenate(parts)


def extract_level_set(
    field: ClippedField, resolution: int, progress: Progress
) -> tuple[FloatArray, IntArray]:
    """Marching cubes on the closed field.

    Args:
        field: The closed field.
        resolution: Cells along each side of [-1, 1]^3, rounded up to a multiple of 4.
        progress: Told how far the evaluation is.

    Returns:
        Vertices ``(V, 3)`` in unit space and faces ``(F, 3)``, counter-clockwise from outside;
        all components, inner ones too.

    Raises:
        TrainingError: The field has no zero level set, or is not finite.
    """
    blocks = -(-resolution // BLOCK)
    grid = _SparseGrid(field, blocks)
    grid.evaluate_corners(progress)
    active = grid.near_surface()
    done = 0
    for _ in range(MAX_ROUNDS):
        if not len(active):
            break
        grid.refine(active, progress, done)
        done += len(active)
        active = grid.surface_neighbours(active)
    if not grid.has_surface():
        raise TrainingError(
            "The trained shape is empty (no surface was found), so no mesh can be made: "
            "check the capture's masks and train again."
        )
    values, origin = grid.cropped()
    vertices, triangles = mcubes.marching_cubes(values, 0.0)
    unit = (np.asarray(vertices, dtype=np.float64) + origin) * (2.0 / (blocks * BLOCK)) - 1.0
    unit[:, 2] += field.lift
    # PyMCubes turns faces towards the larger values; ours look outward.
    faces = np.asarray(triangles, dtype=np.int64)[:, ::-1].copy()
    progress.update(1.0, "surface extracted")
    return unit, faces


class _SparseGrid:
    """Values on the grid points; NaN where only the block's sign is known."""

    def __init__(self, field: ClippedField, blocks: int) -> None:
        self.field = field
        self.blocks = blocks
        self.points = blocks * BLOCK + 1
        self.values: FloatGrid = np.full((self.points,) * 3, np.nan, dtype=np.float32)
        self.active = np.zeros((blocks,) * 3, dtype=bool)

    def evaluate_corners(self, progress: Progress) -> None:
        axis = np.arange(0, self.points, BLOCK)
        index = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        self._evaluate(index, lambda part: progress.update(0.2 * part, "finding the surface"))

    def near_surface(self) -> IntArray:
        """Blocks ``(M, 3)`` whose corners are near the surface or differ in sign."""
        corner = self.values[::BLOCK, ::BLOCK, ::BLOCK]
        stacked = np.stack([_shifted(corner, k) for k in range(8)])
        reach = STEEPNESS * 0.5 * np.sqrt(3.0) * BLOCK * 2.0 / (self.points - 1)
        near = np.abs(stacked).min(axis=0) < reach
        mixed = (stacked < 0).any(axis=0) & (stacked >= 0).any(axis=0)
        return np.argwhere(near | mixed)

    def refine(self, active: IntArray, progress: Progress, done: int) -> None:
        """Evaluate every grid point of the ``active`` blocks."""
        self.active[tuple(active.T)] = True
        offset = np.stack(np.meshgrid(*[np.arange(BLOCK + 1)] * 3, indexing="ij"), -1)
        group = 512
        for start in range(0, len(active), group):
            index = (
                active[start : start + group, None] * BLOCK + offset.reshape(1, -1, 3)
            ).reshape(-1, 3)
            flat = np.unique(np.ravel_multi_index(tuple(index.T), self.values.shape))
            flat = flat[np.isnan(self.values.reshape(-1)[flat])]
            self._evaluate(np.stack(np.unravel_index(flat, self.values.shape), axis=-1), None)
            share = (done + start) / (done + len(active))
            progress.update(0.2 + 0.7 * share, "evaluating the surface")

    def surface_neighbours(self, active: IntArray) -> IntArray:
        """Unrefined blocks into which the surface of the ``active`` ones runs."""
        found: list[IntArray] = []
        plane = np.stack(np.meshgrid(*[np.arange(BLOCK + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
        for axis in range(3):
            for side in (0, 1):
                step = np.zeros(3, dtype=np.int64)
                step[axis] = 2 * side - 1
                neighbour = active + step
                inside = ((neighbour >= 0) & (neighbour < self.blocks)).all(axis=1)
                base, neighbour = active[inside], neighbour[inside]
                waiting = ~self.active[tuple(neighbour.T)]
                base, neighbour = base[waiting], neighbour[waiting]
                offset = np.insert(plane, axis, side * BLOCK, axis=1)
                index = base[:, None] * BLOCK + offset[None]
                negative = self.values[index[..., 0], index[..., 1], index[..., 2]] < 0
                crossing = negative.any(axis=1) & ~negative.all(axis=1)
                found.append(neighbour[crossing])
        return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 3), np.int64)

    def has_surface(self) -> bool:
        return bool(self.active.any()) and bool((self.values < 0).any())

    def cropped(self) -> tuple[FloatGrid, FloatArray]:
        """Values of the refined part with signs filled in, and its first grid index ``(3,)``."""
        where = np.argwhere(self.active)
        low = np.maximum(where.min(axis=0) - 1, 0)
        high = np.minimum(where.max(axis=0) + 2, self.blocks)
        for i in range(low[0], high[0]):
            for last in (False, True)[: 1 + (i == high[0] - 1)]:
                self._fill_slab(i, last)
        window = tuple(slice(a * BLOCK, b * BLOCK + 1) for a, b in zip(low, high, strict=True))
        values = np.ascontiguousarray(self.values[window])
        self.values = np.zeros((0, 0, 0), dtype=np.float32)
        # An exact zero on a grid point makes triangles without area.
        values[np.abs(values) < 1e-7] = 1e-7
        return values, low.astype(np.float64) * BLOCK

    def _fill_slab(self, i: int, last: bool) -> None:
        """Give the unknown points of one block layer the sign of their block's first corner."""
        planes = (
            slice((i + 1) * BLOCK, (i + 1) * BLOCK + 1)
            if last
            else slice(i * BLOCK, (i + 1) * BLOCK)
        )
        slab = self.values[planes]
        source = self.values[(i + 1) * BLOCK if last else i * BLOCK, ::BLOCK, ::BLOCK]
        spread = np.repeat(np.repeat(source, BLOCK, axis=0), BLOCK, axis=1)
        spread = spread[: self.points, : self.points]
        unknown = np.isnan(slab)
        slab[unknown] = np.broadcast_to(np.where(spread < 0, -1.0, 1.0), slab.shape)[unknown]

    def _evaluate(self, index: IntArray, tick: Callable[[float], None] | None) -> None:
        points = index * (2.0 / (self.points - 1)) - 1.0
        points[:, 2] += self.field.lift
        values = self.field.sdf(points, tick)
        if not np.isfinite(values).all():
            raise TrainingError(
                "The trained shape holds values that are not numbers, so no mesh can be made: "
                "train it again."
            )
        self.values[tuple(index.T)] = values


def _shifted(corner: FloatGrid, k: int) -> FloatGrid:
    a, b, c = k & 1, (k >> 1) & 1, (k >> 2) & 1
    n = corner.shape[0] - 1
    return corner[a : a + n, b : b + n, c : c + n]
