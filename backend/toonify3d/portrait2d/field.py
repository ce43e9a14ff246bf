"""The one 3D displacement field that bends every frame: small steps of compact radial functions.

One big step of radial functions folds where neighbours move apart or towards each other by more
than their distance (a brow against a grown eye). Small steps, each fitted to what is left to go
from where the last one led, are free of folds one by one, so their composition is (the idea behind
diffeomorphic landmark matching: Joshi and Miller, Landmark matching via large deformation
diffeomorphisms, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..scene import FloatArray
from ..snr.warp_radial import sum_wendland

MIN_JACOBIAN = 0.2
"""Volume may shrink to this share at most; below it the field nearly folds."""
STEPS = 4
"""Measured on four pairs, least volume ratio at strength 0.7, 1 and 1.5: one step 0.21, -0.13 and
-1.20 at worst, two 0.36, 0.22 and -0.07, four 0.40, 0.25 and 0.04, eight 0.42, 0.25 and 0.07."""
_CHUNK = 1024
_MANY = 4096
"""Points from which on the sum is left to compiled code, in single precision."""


@dataclass(frozen=True)
class RadialLevel:
    """``sum_i w_i phi(|x - c_i| / R)`` with Wendland's C2 function ``(1-r)^4 (4r+1)``.

    Attributes:
        centers: ``(n, 3)`` metres.
        weights: ``(n, 3)`` metres.
        radius: Support in metres: nothing moves farther away than this from all centres.
    """

    centers: FloatArray
    weights: FloatArray
    radius: float

    @classmethod
    def fit(
        cls, centers: FloatArray, offsets: FloatArray, radius: float, ridge: float = 1e-3
    ) -> RadialLevel:
        """Interpolate ``offsets`` ``(n, 3)`` at ``centers`` up to a small ridge."""
        r = _distances(centers, centers) / radius
        matrix = _wendland(r) + ridge * np.eye(len(centers))
        return cls(centers, np.linalg.solve(matrix, offsets), radius)

    def __call__(self, points: FloatArray) -> FloatArray:
        """Offsets ``(N, 3)`` at ``points`` ``(N, 3)``."""
        if len(points) > _MANY:
            return sum_wendland(points, self.centers, self.weights, self.radius)
        return np.asarray(_wendland(_distances(points, self.centers) / self.radius) @ self.weights)

    def jacobian(self, points: FloatArray) -> FloatArray:
        """``(N, 3, 3)`` derivatives ``d offset_a / d x_b``."""
        products = (self.weights[:, :, None] * self.centers[:, None, :]).reshape(-1, 9)
        both = np.concatenate([self.weights, products], axis=1)
        out = np.empty((len(points), 3, 3))
        for start in range(0, len(points), _CHUNK):
            part = points[start : start + _CHUNK]
            r = _distances(part, self.centers) / self.radius
            slope = -20.0 / self.radius**2 * np.clip(1 - r, 0, None) ** 3
            sums = slope @ both
            out[start : start + _CHUNK] = sums[:, :3, None] * part[:, None, :] - sums[
                :, 3:
            ].reshape(-1, 3, 3)
        return out


@dataclass(frozen=True)
class DisplacementField:
    """A smooth map ``x -> x + d(x)`` without folds: small steps one after the other.

    Attributes:
        steps: Each ``x -> x + sum of its levels``: a coarse one (head outline), a fine one
            (features).
        controls: ``(n, 3)`` the points that were asked to move.
    """

    steps: tuple[tuple[RadialLevel, ...], ...]
    controls: FloatArray

    def __call__(self, points: FloatArray) -> FloatArray:
        """Offsets ``(N, 3)`` in metres at world ``points`` ``(N, 3)``."""
        at = points
        for levels in self.steps:
            at = _stepped(levels, at)
        return at - points

    def determinant(self, points: FloatArray) -> FloatArray:
        """``(N,)`` volume ratio at ``points``; below 0 the map folds."""
        at, out = points, np.ones(len(points))
        for levels in self.steps:
            out *= np.linalg.det(np.eye(3) + sum(level.jacobian(at) for level in levels))
            at = _stepped(levels, at)
        return out

    def kernels(self) -> FloatArray:
        """All radial functions as rows ``(K, 8)`` (see :class:`toonify3d.scene.Displacement`)."""
        rows = [
            np.column_stack(
                [
                    np.tile([index, level.radius], (len(level.centers), 1)),
                    level.centers,
                    level.weights,
                ]
            )
            for index, levels in enumerate(self.steps)
            for level in levels
        ]
        return np.concatenate(rows) if rows else np.zeros((0, 8))


def _stepped(levels: tuple[RadialLevel, ...], points: FloatArray) -> FloatArray:
    out = points.copy()
    for level in levels:
        out += level(points)
    return out


@dataclass(frozen=True)
class Controls:
    """What the field must do.

    Attributes:
        outline, outline_offsets: ``(n, 3)`` points of the face's outline and their moves.
        features, feature_offsets: ``(m, 3)`` points of eyes, brows, nose, mouth and their moves.
        anchors: ``(k, 3)`` points that stay (skull back, neck, shoulders).
        unit: Metres between the eyes; sets the supports.
    """

    outline: FloatArray
    outline_offsets: FloatArray
    features: FloatArray
    feature_offsets: FloatArray
    anchors: FloatArray
    unit: float


def fit_field(controls: Controls, samples: FloatArray) -> tuple[DisplacementField, float]:
    """Fit the field; where it would fold at ``samples`` ``(N, 3)``, ask for less there.

    Returns:
        The field and the mean share of the requested moves that was kept (1 = all of it).
    """
    keep_outline = np.ones(len(controls.outline))
    keep_features = np.ones(len(controls.features))
    for attempt in range(25):
        field = _fit(controls, keep_outline, keep_features)
        bad = samples[field.determinant(samples) < MIN_JACOBIAN]
        if not len(bad):
            break
        reach = controls.unit * (0.35 if attempt < 10 else 0.7 if attempt < 18 else 3.0)
        keep_outline *= 1 - 0.15 * _near(controls.outline, bad, reach)
        keep_features *= 1 - 0.15 * _near(controls.features, bad, reach)
    else:
        field = _fit(controls, 0 * keep_outline, 0 * keep_features)
    share = float(np.concatenate([keep_outline, keep_features]).mean())
    return field, share


def _fit(
    controls: Controls, keep_outline: FloatArray, keep_features: FloatArray
) -> DisplacementField:
    """:data:`STEPS` small steps; each takes its share of what is left to go."""
    start = np.concatenate([controls.outline, controls.features])
    kept = np.concatenate([keep_outline, keep_features])
    goal = start + kept[:, None] * np.concatenate(
        [controls.outline_offsets, controls.feature_offsets]
    )
    at, count, steps = start, len(controls.outline), []
    for left in range(STEPS, 0, -1):
        todo = (goal - at) / left
        step = _fit_step(
            replace(
                controls,
                outline=at[:count],
                outline_offsets=todo[:count],
                features=at[count:],
                feature_offsets=todo[count:],
            )
        )
        steps.append(step)
        at = _stepped(step, at)
    return DisplacementField(tuple(steps), start)


def _fit_step(controls: Controls) -> tuple[RadialLevel, ...]:
    still = np.zeros_like(controls.anchors)
    coarse = RadialLevel.fit(
        np.concatenate([controls.outline, controls.anchors]),
        np.concatenate([controls.outline_offsets, still]),
        2.8 * controls.unit,
        ridge=3e-2,
    )
    points = np.concatenate([controls.features, controls.outline])
    wanted = np.concatenate([controls.feature_offsets, controls.outline_offsets])
    fine = RadialLevel.fit(points, wanted - coarse(points), 1.0 * controls.unit, ridge=2e-2)
    return coarse, fine


def _near(points: FloatArray, bad: FloatArray, reach: float) -> FloatArray:
    nearest = _distances(points, bad[:: max(1, len(bad) // 500)]).min(1)
    return np.asarray(np.clip(1 - nearest / reach, 0, 1))


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _wendland(r: FloatArray) -> FloatArray:
    t = np.clip(1 - r, 0, None)
    return np.asarray(t**4 * (4 * r + 1))
