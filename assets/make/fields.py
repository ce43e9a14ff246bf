"""Implicit surfaces in numpy: primitives, smooth blending, meshing.

A field is a function from points ``(N, 3)`` to ``(N,)`` values, negative inside, roughly the signed
distance in centimetres. Smooth minimum: the polynomial one of I. Quilez, "smooth minimum".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mcubes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int64]
Field = Callable[[Array], Array]


@dataclass
class Mesh:
    """Triangles with colours.

    Attributes:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)`` indices, counter-clockwise seen from outside.
        colors: ``(V, 3)`` linear-light RGB.
    """

    vertices: Array
    faces: Faces
    colors: Array

    def normals(self) -> Array:
        """Area-weighted vertex normals ``(V, 3)``."""
        corners = self.vertices[self.faces]
        face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        out = np.zeros_like(self.vertices)
        for k in range(3):
            np.add.at(out, self.faces[:, k], face_normals)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """Put meshes side by side in one."""
    offsets = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]),
        np.concatenate([m.colors for m in meshes]),
    )


def smin(a: Array, b: Array, k: float) -> Array:
    """Union of two fields, blended over ``k``."""
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.asarray(np.minimum(a, b) - 0.25 * k * h * h)


def smax(a: Array, b: Array, k: float) -> Array:
    """Intersection of two fields, blended over ``k``."""
    return -smin(-a, -b, k)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between (also with ``low > high``)."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))


def mix(a: Array, b: Array, t: Array) -> Array:
    """Blend colours ``a`` and ``b`` (broadcast to ``(N, 3)``) by ``t`` ``(N,)``."""
    return np.asarray(a + (np.asarray(b) - a) * t[:, None])


def ellipsoid(p: Array, center: Sequence[float], radii: Sequence[float]) -> Array:
    """Approximate distance to an axis-aligned ellipsoid (exact to first order at the surface)."""
    local = p - np.asarray(center)
    r = np.asarray(radii, dtype=float)
    k0 = np.linalg.norm(local / r, axis=1)
    k1 = np.linalg.norm(local / (r * r), axis=1)
    inside = k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)
    return np.where(k1 < 1e-6, -r.min(), inside)


def sphere(p: Array, center: Sequence[float], radius: float) -> Array:
    """Distance to a sphere."""
    return np.linalg.norm(p - np.asarray(center), axis=1) - radius


def tube(p: Array, points: Sequence[Sequence[float]], radii: Sequence[float]) -> Array:
    """Distance to a chain of capsules whose radius changes linearly along each segment."""
    best = np.full(len(p), np.inf)
    knots = np.asarray(points, dtype=float)
    for a, b, ra, rb in zip(knots[:-1], knots[1:], radii[:-1], radii[1:], strict=True):
        along = b - a
        t = np.clip((p - a) @ along / (along @ along), 0.0, 1.0)
        distance = np.linalg.norm(p - a - t[:, None] * along, axis=1)
        best = np.minimum(best, distance - (ra + (rb - ra) * t))
    return best


def gaussian(p: Array, center: Sequence[float], sigmas: Sequence[float]) -> Array:
    """A bump of height 1."""
    local = (p - np.asarray(center)) / np.asarray(sigmas, dtype=float)
    return np.asarray(np.exp(-0.5 * np.sum(local * local, axis=1)))


def value_noise(p: Array, seed: int) -> Array:
    """Smooth noise in -1..1 with features of about one unit, ``p`` ``(N, D)``."""
    cell = np.floor(p).astype(np.int64)
    t = p - cell
    t = t * t * (3 - 2 * t)
    total = np.zeros(len(p))
    for corner in np.ndindex(*(2,) * p.shape[1]):
        offset = np.asarray(corner)
        weight = np.prod(np.where(offset == 1, t, 1 - t), axis=1)
        total += weight * _hash(cell + offset, seed)
    return total


def _hash(cells: npt.NDArray[np.int64], seed: int) -> Array:
    primes = np.array([73856093, 19349663, 83492791, 49979687][: cells.shape[1]], dtype=np.int64)
    h = (cells * primes).sum(axis=1) + seed * 2654435761
    h = (h ^ (h >> 13)) * 1274126177 & 0x7FFFFFFF
    h = (h ^ (h >> 16)) * 668265263 & 0x7FFFFFFF
    return (h ^ (h >> 15)) / float(0x3FFFFFFF) - 1.0


def fractal_noise(p: Array, seed: int, octaves: int = 3) -> Array:
    """Sum of octaves of :func:`value_noise`, about -1..1."""
    out = sum(value_noise(p * 2.0**i, seed + i) * 0.5**i for i in range(octaves))
    return np.asarray(out)


def gradient(field: Field, p: Array, h: float = 0.01) -> Array:
    """Numeric gradient ``(N, 3)`` from four tetrahedron samples."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=float)
    return sum(c * field(p + h * c)[:, None] for c in corners) / (4 * h)


def project(field: Field, p: Array, steps: int = 3, limit: float = 0.2) -> Array:
    """Move points onto the zero level by damped Newton steps of at most ``limit``."""
    for _ in range(steps):
        g = gradient(field, p)
        value = field(p)
        step = value / np.maximum((g * g).sum(axis=1), 0.05)
        move = step[:, None] * g
        length = np.linalg.norm(move, axis=1, keepdims=True)
        p = p - move * np.minimum(1.0, limit / np.maximum(length, 1e-9))
    return p


def polygonize(
    field: Field, low: Sequence[float], high: Sequence[float], step: float
) -> tuple[Array, Faces]:
    """Mesh the zero level in a box; fine samples only where coarse ones are near the surface.

    Returns:
        Vertices ``(V, 3)`` and faces ``(F, 3)``.
    """
    lo, block = np.asarray(low, dtype=float), 4
    cells = np.ceil((np.asarray(high) - lo) / (step * block)).astype(int)
    centers = _grid(lo + 0.5 * step * block, step * block, cells)
    coarse = in_chunks(field, centers).reshape(cells)
    volume = _blocks(coarse, block)
    index = np.argwhere(_blocks(np.abs(coarse) < 1.6 * step * block, block))
    volume[tuple(index.T)] = in_chunks(field, lo + (index + 0.5) * step)
    vertices, faces = mcubes.marching_cubes(volume, 0.0)
    # mcubes winds for fields that are positive inside.
    vertices, faces = lo + (vertices + 0.5) * step, faces[:, ::-1].astype(np.int64)
    return in_chunks(lambda q: project(field, q, 2, step), vertices), faces


def refine(
    field: Field, vertices: Array, faces: Faces, target: Field, passes: int = 3
) -> tuple[Array, Faces]:
    """Split edges longer than ``target`` at their middle; new vertices go onto the surface."""
    for _ in range(passes):
        count = len(vertices)
        vertices, faces = _split_long_edges(vertices, faces, target)
        if len(vertices) == count:
            break
        vertices[count:] = in_chunks(lambda q: project(field, q, 2, 0.1), vertices[count:])
    return vertices, faces


def _split_long_edges(vertices: Array, faces: Faces, target: Field) -> tuple[Array, Faces]:
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    keys, inverse = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_inverse=True)
    start, end = vertices[keys // len(vertices)], vertices[keys % len(vertices)]
    middle = 0.5 * (start + end)
    split = np.linalg.norm(end - start, axis=1) > target(middle)
    number = np.where(split, len(vertices) + np.cumsum(split) - 1, -1)[inverse].reshape(-1, 3)
    # Turn every face so that its pattern of split edges is one of four canonical ones.
    marked = number >= 0
    count = marked.sum(axis=1)
    first = np.where(count == 1, marked.argmax(1), np.where(count == 2, (~marked).argmax(1), 0))
    order = (first[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(faces, order, 1).T
    ab, bc, ca = np.take_along_axis(number, order, 1).T
    out = [np.stack([a, b, c], 1)[count == 0]]
    for pattern, parts in (
        (1, [(a, ab, c), (ab, b, c)]),
        (2, [(a, b, bc), (a, bc, ca), (ca, bc, c)]),
        (3, [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]),
    ):
        out += [np.stack(part, 1)[count == pattern] for part in parts]
    return np.concatenate([vertices, middle[split]]), np.concatenate(out)


def _blocks(values: npt.NDArray[Any], block: int) -> npt.NDArray[Any]:
    for axis in range(3):
        values = np.repeat(values, block, axis)
    return values


def _grid(origin: Array, step: float, shape: npt.NDArray[np.int64]) -> Array:
    axes = [origin[k] + step * np.arange(shape[k]) for k in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def in_chunks(function: Field, points: Array, size: int = 32768) -> Array:
    """Evaluate in pieces that fit the cache."""
    parts = [function(points[i : i + size]) for i in range(0, len(points), size)]
    return np.concatenate(parts)


def spline(points: Sequence[Sequence[float]], count: int) -> Array:
    """``count`` points on the Catmull-Rom curve through ``points``."""
    p = np.asarray(points, dtype=float)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    s = np.linspace(0, len(p) - 1 - 1e-9, count)
    i, t = s.astype(int), (s % 1.0).reshape(-1, *(1,) * (p.ndim - 1))
    a, b, c, d = (padded[i + k] for k in range(4))
    cubic = (-a + 3 * b - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2
    return np.asarray(0.5 * (cubic + (c - a) * t + 2 * b))
