# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a job's result folder into plain arrays. No bpy here."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class ResultError(Exception):
    """A result folder is missing or damaged: one sentence for the user."""


@dataclass(frozen=True)
class AvatarData:
    """A finished avatar, metres, Z up, facing -Y.

    Attributes:
        vertices: ``(V, 3)`` float32, welded (one per place, seams are in ``uvs``).
        faces: ``(F, 3)`` int32, counter-clockwise seen from outside.
        uvs: ``(F, 3, 2)`` float32 per corner, v up; None when there is no texture.
        normals: ``(V, 3)`` float32 unit, or None for Blender's own smooth normals.
        prior_vertices: ``(V, 3)`` float32, the same vertices on the real person, or None.
        albedo: Colour texture, sRGB.
        normal_map: Tangent-space normal map.
        photo_albedo: The real person's colours in the same layout.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray | None = None
    normals: np.ndarray | None = None
    prior_vertices: np.ndarray | None = None
    albedo: Path | None = None
    normal_map: Path | None = None
    photo_albedo: Path | None = None


def load_avatar(folder: Path) -> AvatarData:
    """Read ``avatar.npz`` (preferred) or ``avatar.obj`` and the textures beside it.

    Raises:
        ResultError: Neither file is there, or it is damaged.
    """
    compact, plain = folder / "avatar.npz", folder / "avatar.obj"
    if compact.is_file():
        arrays = _read_npz(compact)
    elif plain.is_file():
        arrays = read_obj(plain)
    else:
        raise ResultError(f"there is no avatar in {folder}")
    return _checked(arrays, folder)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ResultError(f"{path.name} is damaged ({error})") from error


def read_obj(path: Path) -> dict[str, np.ndarray]:
    """Triangles of a Wavefront OBJ as the arrays of ``avatar.npz``; polygons become fans.

    Raises:
        ResultError: Not an OBJ with at least one face.
    """
    points: list[list[float]] = []
    coordinates: list[list[float]] = []
    directions: list[list[float]] = []
    corners: list[tuple[int, int, int]] = []
    try:
        with open(path, encoding="utf-8") as handle:
            for line in handle:
                kind, _, rest = line.partition(" ")
                if kind == "v":
                    points.append([float(value) for value in rest.split()[:3]])
                elif kind == "vt":
                    coordinates.append([float(value) for value in rest.split()[:2]])
                elif kind == "vn":
                    directions.append([float(value) for value in rest.split()[:3]])
                elif kind == "f":
                    corners += _fan(rest.split(), len(points), len(coordinates), len(directions))
    except (OSError, ValueError, IndexError) as error:
        raise ResultError(f"{path.name} is damaged ({error})") from error
    if not corners:
        raise ResultError(f"{path.name} has no faces")
    index = np.array(corners, dtype=np.int64).reshape(-1, 3, 3)
    arrays = {"vertices": np.array(points, np.float32), "faces": index[..., 0]}
    if _within(index[..., 1], coordinates):
        arrays["uvs"] = np.array(coordinates, np.float32)[index[..., 1]]
    if _within(index[..., 2], directions) and index[..., 0].max() < len(points):
        normals = np.zeros((len(points), 3), np.float32)
        # One normal per vertex, as our own files have it; of several the last one counts.
        normals[index[..., 0].ravel()] = np.array(directions, np.float32)[index[..., 2].ravel()]
        arrays["normals"] = normals
    return arrays


def _within(index: np.ndarray, items: list[list[float]]) -> bool:
    return bool(items) and index.min() >= 0 and index.max() < len(items)


def _fan(tokens: list[str], *counts: int) -> list[tuple[int, int, int]]:
    """Corners of a polygon's triangles as 0-based indices of point, coordinate and normal."""
    ring = []
    for token in tokens:
        numbers = [int(part) if part else 0 for part in token.split("/")]
        numbers += [0] * (3 - len(numbers))
        # OBJ counts from 1; negative numbers count back from the last one read; 0 is none here.
        ring.append(
            tuple(
                number - 1 if number >= 0 else count + number
                for number, count in zip(numbers, counts, strict=False)
            )
        )
    return [
        corner
        for second in range(1, len(ring) - 1)
        for corner in (ring[0], ring[second], ring[second + 1])
    ]


def _checked(arrays: dict[str, np.ndarray], folder: Path) -> AvatarData:
    vertices = _shaped(arrays, "vertices", (3,), np.float32)
    faces = _shaped(arrays, "faces", (3,), np.int32)
    if vertices is None or faces is None or not len(faces):
        raise ResultError("the avatar has no faces")
    if faces.min() < 0 or faces.max() >= len(vertices) or not np.isfinite(vertices).all():
        raise ResultError("the avatar's mesh is damaged")
    uvs = _shaped(arrays, "uvs", (3, 2), np.float32)
    if uvs is not None and len(uvs) != len(faces):
        raise ResultError("the avatar's texture coordinates do not fit its faces")
    per_vertex = {
        name: _shaped(arrays, name, (3,), np.float32) for name in ("normals", "prior_vertices")
    }
    for name, array in per_vertex.items():
        if array is not None and len(array) != len(vertices):
            raise ResultError(f"the avatar's {name} do not fit its vertices")
    textures = {
        name: folder / f"{name}.png" for name in ("albedo", "photo_albedo") if uvs is not None
    }
    textures["normal_map"] = folder / "normal.png"
    files = {name: path if path.is_file() else None for name, path in textures.items()}
    return AvatarData(vertices, faces, uvs, **per_vertex, **files)


def _shaped(
    arrays: dict[str, np.ndarray], name: str, tail: tuple[int, ...], kind: Any
) -> np.ndarray | None:
    if name not in arrays:
        return None
    array = arrays[name]
    if array.ndim != 1 + len(tail) or array.shape[1:] != tail or array.dtype.kind not in "fiu":
        raise ResultError(f"the avatar's {name} have the shape {array.shape}")
    return np.ascontiguousarray(array, dtype=kind)
