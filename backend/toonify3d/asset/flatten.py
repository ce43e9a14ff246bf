"""Flattening a disk of triangles with little stretch and no fold.

xatlas never lets a chart bend by more than about 75 degrees (its ``computeCost`` is infinite from
there on), so a face comes out in pieces. A chart that is cut by us is therefore flattened here and
only packed by xatlas: Tutte's embedding on a circle (1963), which cannot fold, relaxed by SLIM
(Rabinovich, Poranne, Panozzo, Sorkine-Hornung, "Scalable Locally Injective Mappings", TOG 2017)
with the symmetric Dirichlet energy (Smith & Schaefer 2015), whose line search keeps it that way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from ..meshes import edge_adjacency
from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
ROUNDS = 40
# Relative decrease of the energy below which another round is not worth its time.
CONVERGED = 5e-3
# Weight of staying where one is: keeps the system regular (translations cost nothing else).
PROXIMAL = 1e-6


def flatten(vertices: FloatArray, faces: IntArray, rounds: int = ROUNDS) -> FloatArray | None:
    """Plane coordinates of a disk, in the units of the surface.

    Args:
        vertices: ``(V, 3)``, all used.
        faces: ``(F, 3)`` of one piece with one border.
        rounds: At most so many relaxations.

    Returns:
        ``(V, 2)`` in which every triangle keeps its orientation, or None when the triangles are
        no disk or Tutte's embedding underflows. Far parts of the border may still overlap.
    """
    loop = border_loop(faces)
    if loop is None:
        return None
    if len(vertices) - _edge_count(faces) + len(faces) != 1:
        return None
    frame = _Reference(vertices, faces)
    uv = _tutte(vertices, faces, loop, float(frame.area.sum()))
    energy = frame.energy(uv)
    for _ in range(rounds if np.isfinite(energy) else 0):
        step = frame.minimizer(uv) - uv
        uv, better = _line_search(frame, uv, step, energy)
        done = energy - better < CONVERGED * (energy - 4.0 * frame.area.sum())
        energy = better
        if done:
            break
    return uv if np.isfinite(energy) else None


def border_loop(faces: IntArray) -> IntArray | None:
    """The border's vertices ``(B,)`` in order; None unless there is exactly one simple border."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    size = int(faces.max(initial=0)) + 1
    key, twin = directed[:, 0] * size + directed[:, 1], directed[:, 1] * size + directed[:, 0]
    border = directed[~np.isin(key, twin)]
    if not len(border) or len(np.unique(border[:, 0])) != len(border):
        return None
    following = dict(zip(border[:, 0].tolist(), border[:, 1].tolist(), strict=True))
    first = int(border[0, 0])
    loop, at = [first], following[first]
    while at != first:
        loop.append(at)
        if at not in following or len(loop) > len(border):
            return None
        at = following[at]
    return np.array(loop, dtype=np.int64) if len(loop) == len(border) else None


def _edge_count(faces: IntArray) -> int:
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return len(np.unique(pairs[:, 0] * (int(faces.max(initial=0)) + 1) + pairs[:, 1]))


def _tutte(vertices: FloatArray, faces: IntArray, loop: IntArray, area: float) -> FloatArray:
    """Border on a circle of the surface's area, every other vertex at its neighbours' mean."""
    count = len(vertices)
    length = np.linalg.norm(vertices[np.roll(loop, -1)] - vertices[loop], axis=1)
    turn = 2 * np.pi * np.concatenate([[0.0], np.cumsum(length)[:-1]]) / length.sum()
    uv = np.zeros((count, 2))
    uv[loop] = np.sqrt(area / np.pi) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    inner = np.ones(count, dtype=bool)
    inner[loop] = False
    if inner.any():
        links = edge_adjacency(faces, count)
        laplacian = (sparse.diags(np.asarray(links.sum(1)).ravel()) - links).tocsr()
        right = -laplacian[inner][:, loop] @ uv[loop]
        uv[inner] = _solve(laplacian[inner][:, inner].tocsc(), right)
    return uv


def _solve(matrix: sparse.csc_matrix, right: FloatArray) -> FloatArray:
    factors = splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return np.asarray(factors.solve(right))


class _Reference:
    """The triangles as they are in space: areas and gradients of their hat functions."""

    def __init__(self, vertices: FloatArray, faces: IntArray) -> None:
        self.faces, self.count = faces, len(vertices)
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        x1 = np.linalg.norm(b - a, axis=1)
        x2 = np.einsum("ij,ij->i", c - a, b - a) / np.maximum(x1, 1e-30)
        y2 = np.linalg.norm(np.cross(b - a, c - a), axis=1) / np.maximum(x1, 1e-30)
        # Slivers would dominate the energy: give them a least height and base.
        least = 0.05 * float(np.median(x1))
        x1, y2 = np.maximum(x1, least), np.maximum(y2, least)
        self.area = 0.5 * x1 * y2
        zero = np.zeros_like(x1)
        gb = np.stack([1.0 / x1, -x2 / (x1 * y2)], axis=1)
        gc = np.stack([zero, 1.0 / y2], axis=1)
        self.gradient = np.stack([-gb - gc, gb, gc], axis=1)
        self.stiffness = self.area[:, None, None] * np.einsum(
            "fia,fja->fij", self.gradient, self.gradient
        )
        rows = np.repeat(faces, 3, axis=1).reshape(-1, 3, 3)
        columns = np.tile(faces, (1, 3)).reshape(-1, 3, 3)
        n = self.count
        self._rows = np.stack([rows, rows, rows + n, rows + n]).ravel()
        self._columns = np.stack([columns, columns + n, columns, columns + n]).ravel()

    def jacobians(self, uv: FloatArray) -> FloatArray:
        """``(F, 2, 2)``: how each triangle is mapped to the plane."""
        return np.asarray(np.einsum("fka,fkb->fab", uv[self.faces], self.gradient))

    def energy(self, uv: FloatArray) -> float:
        """Symmetric Dirichlet energy; infinite where a triangle has turned over."""
        j = self.jacobians(uv)
        determinant = j[:, 0, 0] * j[:, 1, 1] - j[:, 0, 1] * j[:, 1, 0]
        if (determinant <= 0).any():
            return float("inf")
        square = (j**2).sum(axis=(1, 2))
        with np.errstate(over="ignore"):
            return float((self.area * square * (1.0 + 1.0 / determinant**2)).sum())

    def minimizer(self, uv: FloatArray) -> FloatArray:
        """Minimum of SLIM's quadratic proxy round ``uv`` (paper eq. 9 to 12)."""
        u, s, vt = np.linalg.svd(self.jacobians(uv))
        s = np.maximum(s, 1e-6)
        away = np.where(np.abs(s - 1) < 1e-4, 1e-4, s - 1)
        weight = np.where(np.abs(s - 1) < 1e-4, 4.0, (s - s**-3) / away)
        metric = np.einsum("fab,fb,fcb->fac", u, weight, u)
        entries = metric[:, :, :, None, None] * self.stiffness[:, None, None]
        values = np.moveaxis(entries.reshape(-1, 4, 3, 3), 1, 0).ravel()
        n = self.count
        matrix = sparse.coo_matrix((values, (self._rows, self._columns)), (2 * n, 2 * n)).tocsc()
        near = PROXIMAL * float(matrix.diagonal().mean())
        target = np.einsum("fab,fbc->fac", metric, u @ vt) * self.area[:, None, None]
        push = np.einsum("fab,fkb->fka", target, self.gradient)
        right = [
            np.bincount(self.faces.ravel(), push[..., axis].ravel(), minlength=n) for axis in (0, 1)
        ]
        right_side = np.concatenate(right) + near * uv.T.ravel()
        solved = _solve((matrix + near * sparse.identity(2 * n)).tocsc(), right_side)
        return solved.reshape(2, n).T


def _line_search(
    frame: _Reference, uv: FloatArray, step: FloatArray, energy: float
) -> tuple[FloatArray, float]:
    """As far along ``step`` as no triangle turns over and the energy falls."""
    t = min(1.0, 0.8 * _first_fold(uv, step, frame.faces))
    for _ in range(20):
        moved = uv + t * step
        value = frame.energy(moved)
        if value < energy:
            return moved, value
        t *= 0.5
    return uv, energy


def _first_fold(uv: FloatArray, step: FloatArray, faces: IntArray) -> float:
    """The smallest positive ``t`` at which a triangle of ``uv + t step`` has no area."""
    p, d = uv[faces], step[faces]
    p1, p2, d1, d2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0], d[:, 1] - d[:, 0], d[:, 2] - d[:, 0]
    a = _cross(d1, d2)
    b = _cross(p1, d2) + _cross(d1, p2)
    c = _cross(p1, p2)
    root = np.sqrt(np.maximum(b**2 - 4 * a * c, 0.0))
    # The stable form of the quadratic formula.
    q = -0.5 * (b + np.where(b < 0, -root, root))
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.stack([q / a, c / q])
    real = (b**2 >= 4 * a * c) & np.isfinite(roots) & (roots > 0)
    return float(roots[real].min()) if real.any() else float("inf")


def _cross(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
