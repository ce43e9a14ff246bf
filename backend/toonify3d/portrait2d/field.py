"""The one 3D displacement field that bends every frame: two levels of compact radial functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..scene import FloatArray

MIN_JACOBIAN = 0.2
"""Volume may shrink to this share at most; below it the field nearly folds."""
_CHUNK = 8192


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
        out = np.zeros((len(points), 3))
        for start in range(0, len(points), _CHUNK):
            r = _distances(points[start : start + _CHUNK], self.centers) / self.radius
            out[start : start + _CHUNK] = _wendland(r) @ self.weights
        return out

    def jacobian(self, points: FloatArray) -> FloatArray:
        """``(N, 3, 3)`` derivatives ``d offset_a / d x_b``."""
        delta = points[:, None] - self.centers[None]
        r = np.linalg.norm(delta, axis=2) / self.radius
        slope = -20.0 / self.radius**2 * np.clip(1 - r, 0, None) ** 3
        return np.asarray(np.einsum("nc,ca,ncb->nab", slope, self.weights, delta, optimize=True))


@dataclass(frozen=True)
class DisplacementField:
    """A smooth map ``x -> x + d(x)`` without folds.

    Attributes:
        levels: Coarse (head outline) and fine (features) part.
        controls: ``(n, 3)`` the points that were asked to move.
    """

    levels: tuple[RadialLevel, ...]
    controls: FloatArray

    def __call__(self, points: FloatArray) -> FloatArray:
        """Offsets ``(N, 3)`` in metres at world ``points`` ``(N, 3)``."""
        out = np.zeros((len(points), 3))
        for level in self.levels:
            out += level(points)
        return out

    def determinant(self, points: FloatArray) -> FloatArray:
        """``(N,)`` volume ratio at ``points``; below 0 the map folds."""
        out = np.empty(len(points))
        for start in range(0, len(points), 1024):
            part = points[start : start + 1024]
            total = np.eye(3) + sum(level.jacobian(part) for level in self.levels)
            out[start : start + 1024] = np.linalg.det(total)
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
    still = np.zeros_like(controls.anchors)
    coarse = RadialLevel.fit(
        np.concatenate([controls.outline, controls.anchors]),
        np.concatenate([controls.outline_offsets * keep_outline[:, None], still]),
        2.8 * controls.unit,
        ridge=3e-2,
    )
    points = np.concatenate([controls.features, controls.outline])
    wanted = np.concatenate(
        [
            controls.feature_offsets * keep_features[:, None],
            controls.outline_offsets * keep_outline[:, None],
        ]
    )
    fine = RadialLevel.fit(points, wanted - coarse(points), 1.0 * controls.unit, ridge=2e-2)
    return DisplacementField((coarse, fine), points)


def _near(points: FloatArray, bad: FloatArray, reach: float) -> FloatArray:
    nearest = _distances(points, bad[:: max(1, len(bad) // 500)]).min(1)
    return np.asarray(np.clip(1 - nearest / reach, 0, 1))


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _wendland(r: FloatArray) -> FloatArray:
    t = np.clip(1 - r, 0, None)
    return np.asarray(t**4 * (4 * r + 1))
