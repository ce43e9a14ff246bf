"""Edges of triangle meshes and the three changes that remeshing is made of.

Everything is done to many edges at once: splits can be done together, and of collapses and flips
an independent set is taken (an edge whose rank is the lowest of all candidates round it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..scene import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Edges:
    """Edges of a mesh in which every edge has one or two faces.

    Attributes:
        ends: ``(E, 2)`` vertices, the smaller one first.
        of_face: ``(F, 3)`` edge between corner ``k`` and the next one.
        sides: ``(E, 2)`` faces on both sides, -1 for none.
        opposite: ``(E, 2)`` the third vertex of these faces, -1 for none.
    """

    ends: IntArray
    of_face: IntArray
    sides: IntArray
    opposite: IntArray

    @classmethod
    def of(cls, faces: IntArray) -> Edges:
        """The edges of ``faces (F, 3)``."""
        pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        size = int(faces.max(initial=0)) + 1
        key, inverse = np.unique(pairs[:, 0] * size + pairs[:, 1], return_inverse=True)
        inverse = inverse.reshape(-1)
        half = np.arange(len(pairs))
        first, last = np.full(len(key), len(pairs)), np.full(len(key), -1)
        np.minimum.at(first, inverse, half)
        np.maximum.at(last, inverse, half)
        both = np.stack([first, np.where(last == first, -1, last)], axis=1)
        third = faces[:, [2, 0, 1]].reshape(-1)
        return cls(
            ends=np.stack([key // size, key % size], axis=1),
            of_face=inverse.reshape(-1, 3).astype(np.int64),
            sides=np.where(both >= 0, both // 3, -1),
            opposite=np.where(both >= 0, third[both], -1),
        )

    @property
    def inner(self) -> BoolArray:
        """Edges ``(E,)`` with two faces."""
        return np.asarray(self.sides[:, 1] >= 0)


def split_edges(
    faces: IntArray, edges: Edges, chosen: BoolArray, count: int
) -> tuple[IntArray, IntArray]:
    """Put a vertex into every chosen edge ``(E,)``.

    The new vertices are numbered from ``count`` on, in the order of the edges. A face with two of
    them gets an edge between both, so that a line of chosen edges is crossed by a line of edges.

    Returns:
        New faces, and the old face each of them lies in.
    """
    middle = np.full(len(edges.ends), -1)
    middle[chosen] = count + np.arange(int(chosen.sum()))
    mid = middle[edges.of_face]
    marks = (mid >= 0).sum(axis=1)
    # Turned so that one new vertex lies on the first side, and of two the third side has none.
    turn = np.zeros(len(faces), dtype=np.int64)
    turn[marks == 1] = (mid[marks == 1] >= 0).argmax(axis=1)
    turn[marks == 2] = ((mid[marks == 2] < 0).argmax(axis=1) + 1) % 3
    order = (turn[:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(faces, order, axis=1).T
    ab, bc, ca = np.take_along_axis(mid, order, axis=1).T
    patterns = {
        0: [(a, b, c)],
        1: [(a, ab, c), (ab, b, c)],
        2: [(ab, b, bc), (a, ab, bc), (a, bc, c)],
        3: [(a, ab, ca), (ab, b, bc), (bc, c, ca), (ab, bc, ca)],
    }
    out, owner = [], []
    for number, triangles in patterns.items():
        rows = np.flatnonzero(marks == number)
        for triangle in triangles:
            out.append(np.stack([corner[rows] for corner in triangle], axis=1))
            owner.append(rows)
    return np.concatenate(out), np.concatenate(owner)


def apart(candidates: IntArray, rank: FloatArray, groups: IntArray, count: int) -> IntArray:
    """Of ``candidates (N,)`` those that share no vertex with one of lower ``rank (N,)``.

    Args:
        candidates: Anything.
        rank: Their order; the lowest of a neighbourhood is taken.
        groups: ``(N, K)`` vertices that each of them touches.
        count: Number of vertices.
    """
    place, lowest = _lowest(rank, groups, count)
    return np.asarray(candidates[(lowest[groups] == place[:, None]).all(axis=1)])


def apart_on_mesh(candidates: IntArray, rank: FloatArray, edges: Edges, count: int) -> IntArray:
    """Of ``candidates (N,)``, edges, those whose faces touch no edge of lower ``rank (N,)``."""
    ends = edges.ends[candidates]
    place, lowest = _lowest(rank, ends, count)
    near = lowest.copy()
    a, b = edges.ends.T
    np.minimum.at(near, a, lowest[b])
    np.minimum.at(near, b, lowest[a])
    return np.asarray(candidates[(near[ends] == place[:, None]).all(axis=1)])


def _lowest(rank: FloatArray, groups: IntArray, count: int) -> tuple[IntArray, IntArray]:
    """Places ``(N,)`` in the order of ``rank``, and the lowest place at each vertex."""
    place = np.empty(len(rank), dtype=np.int64)
    place[np.argsort(rank, kind="stable")] = np.arange(len(rank))
    lowest = np.full(count, len(rank))
    for column in groups.T:
        np.minimum.at(lowest, column, place)
    return place, lowest


def face_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Normals ``(F, 3)`` as long as twice the area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.asarray(np.cross(b - a, c - a))
