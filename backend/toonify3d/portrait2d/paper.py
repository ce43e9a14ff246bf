"""The sheet on which the exemplar's face is laid out: distances and strokes in face coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..scene import Float32Array, FloatArray
from .colorspace import signed_distance, smoothstep


@dataclass(frozen=True)
class Paper:
    """A rectangle of the face frame (x to the person's left, y up), row 0 on top.

    Attributes:
        low: ``(2,)`` its lower left corner.
        high: ``(2,)`` its upper right corner.
        scale: Pixels per unit.
    """

    low: FloatArray
    high: FloatArray
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        width, height = np.ceil((self.high - self.low) * self.scale).astype(int)
        return int(height), int(width)

    def pixels(self, local: FloatArray) -> FloatArray:
        """Face-frame points ``(..., >=2)`` to image points."""
        x = (local[..., 0] - self.low[0]) * self.scale
        return np.stack([x, (self.high[1] - local[..., 1]) * self.scale], axis=-1)

    def places(self) -> FloatArray:
        """``(H, W, 2)`` face-frame coordinates of the pixels' centres."""
        height, width = self.shape
        x = self.low[0] + (np.arange(width) + 0.5) / self.scale
        y = self.high[1] - (np.arange(height) + 0.5) / self.scale
        return np.stack(np.meshgrid(x, y), axis=-1)

    def signed(self, contour: FloatArray) -> Float32Array:
        """Signed distance ``(H, W)`` to a closed contour ``(n, >=2)``; units, positive inside."""
        return signed_distance(self.pixels(contour), *self.shape) / self.scale

    def stroke(self, curve: FloatArray, thin: float, more: float) -> Float32Array:
        """Opacity ``(H, W)`` of a stroke along ``(n, 2)`` points.

        Args:
            curve: Its middle line.
            thin: Half its width at the ends, units.
            more: What is added to that in its middle.
        """
        last = len(curve) - 1
        steps = np.linspace(0, last, 65)
        dense = np.stack([np.interp(steps, np.arange(len(curve)), curve[:, i]) for i in (0, 1)], 1)
        middle = 1 - (2 * steps / last - 1) ** 2
        radius = (thin + more * middle) * self.scale
        points = self.pixels(dense) - 0.5
        out = np.zeros(self.shape, np.float32)
        rows, columns = np.mgrid[: out.shape[0], : out.shape[1]]
        low = np.maximum(np.floor(points.min(0) - 4 * radius.max()), 0).astype(int)
        high = np.ceil(points.max(0) + 4 * radius.max()).astype(int)
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        distance = np.full(rows[window].shape, np.inf)
        for (x, y), r in zip(points, radius, strict=True):
            gap = np.hypot(columns[window] - x, rows[window] - y) - r
            distance = np.minimum(distance, gap)
        out[window] = smoothstep(distance, 0.8, -0.8)
        return out
