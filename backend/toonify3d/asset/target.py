"""An artist's own mesh: reading it, judging its UVs, and finding out how it lies to the avatar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import trimesh

from ..errors import InputError
from ..raycast import MeshQuery
from ..scene import FloatArray
from .mesh import compact
from .raster import overlapping_texels, rasterize
from .uv import Atlas

IntArray = npt.NDArray[np.int64]
FORMATS = (".obj", ".glb", ".gltf", ".ply")
# Files that are Y up (glTF always; OBJ as Blender writes it) to Z up.
FROM_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
SCALES = {0.001: "millimetres", 0.01: "centimetres", 0.0254: "inches"}
# A mesh whose median vertex is farther from the head than this share of its diagonal is no
# retopology of it.
NEAR = 0.03
UV_SLACK = 1e-3
# Share of the covered texels that may be covered twice (welded slivers, shared borders).
OVERLAP_ALLOWED = 0.002
CHECK_SIZE = 1024


@dataclass(frozen=True)
class TargetMesh:
    """A mesh with UVs.

    Attributes:
        vertices: ``(V, 3)``; corners at the same place share one.
        faces: ``(F, 3)``.
        uvs: ``(F, 3, 2)`` per corner, origin at the lower left.
        y_up: The format always is Y up (glTF).
    """

    vertices: FloatArray
    faces: IntArray
    uvs: FloatArray
    y_up: bool = False

    def atlas(self) -> Atlas:
        """Corners of one vertex and one UV as one atlas vertex."""
        corners = np.column_stack([self.faces.reshape(-1), self.uvs.reshape(-1, 2)])
        unique, index = np.unique(corners, axis=0, return_inverse=True)
        source = unique[:, 0].astype(np.int64)
        faces = index.reshape(-1, 3).astype(np.int64)
        return Atlas(source, faces, unique[:, 1:], 0, 0.0, None, 0)


def read_target(path: Path) -> TargetMesh:
    """Read OBJ, GLB, glTF or PLY; several objects in one file become one mesh.

    Raises:
        InputError: Not there, not readable, empty, or without UVs.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"'{path.name}' is not OBJ, GLB, glTF or PLY; export the mesh in one of these.",
            "bad_mesh_format",
        )
    if not path.is_file():
        raise InputError(f"There is no mesh '{path}'.", "no_mesh")
    try:
        loaded: Any = trimesh.load(path, process=False)
    except Exception as error:  # trimesh's readers raise whatever their parsers do
        raise InputError(f"The mesh '{path.name}' cannot be read ({error}).", "bad_mesh") from error
    parts = _geometries(loaded)
    if not parts:
        raise InputError(f"The mesh '{path.name}' has no faces.", "empty_mesh")
    without = sum(uv is None for _, _, uv in parts)
    if without:
        what = "has" if len(parts) == 1 else f"has {without} of {len(parts)} objects with"
        raise InputError(f"The mesh '{path.name}' {what} no UVs; unwrap it first.", "no_uv")
    vertices, faces, uvs = _joined(parts)
    if not np.isfinite(vertices).all() or not np.isfinite(uvs).all():
        raise InputError(f"The mesh '{path.name}' holds values that are not numbers.", "bad_mesh")
    return TargetMesh(vertices, faces, uvs, path.suffix.lower() in (".glb", ".gltf"))


def check_uvs(target: TargetMesh) -> float:
    """Share of the covered texels that lie in more than one triangle.

    Raises:
        InputError: UVs outside the unit square, without area, or overlapping.
    """
    outside = (np.abs(target.uvs - 0.5) > 0.5 + UV_SLACK).any(axis=(1, 2))
    if outside.any():
        raise InputError(
            f"{int(outside.sum())} of {len(outside)} faces have UVs outside 0..1 (from"
            f" {target.uvs.min():.3g} to {target.uvs.max():.3g}); tiles (UDIM) are not baked:"
            " move all islands into the unit square.",
            "uv_outside",
        )
    atlas = target.atlas()
    owner, _ = rasterize(atlas.uv, atlas.faces, CHECK_SIZE, CHECK_SIZE)
    covered = int((owner >= 0).sum())
    if covered < 16:
        raise InputError("The UVs of the mesh have no area; unwrap it first.", "no_uv")
    share = overlapping_texels(atlas.uv, atlas.faces, CHECK_SIZE) / covered
    if share > OVERLAP_ALLOWED:
        raise InputError(
            f"{100 * share:.1f} % of the UV area overlaps, so that one texel would have to show two"
            " places; unwrap without overlaps (mirrored halves need islands of their own).",
            "uv_overlap",
        )
    return share


def align(
    target: TargetMesh, surface: MeshQuery, diagonal: float, up: str, scale: float
) -> tuple[FloatArray, str]:
    """Vertices in the avatar's world, and the axis that is up in the file.

    Args:
        target: The mesh as in its file.
        surface: The avatar, world metres, Z up.
        diagonal: Of the avatar's bounding box, metres.
        up: ``z``, ``y``, or ``auto``: whichever lies on the avatar.
        scale: Metres per unit of the file.

    Raises:
        InputError: The mesh lies nowhere near the avatar; says what would help where that is known.
    """
    choices = ["y"] if target.y_up else ["z", "y"] if up == "auto" else [up]
    placed = {axis: _turned(target.vertices, axis) * scale for axis in choices}
    away = {axis: _median_distance(points, surface) for axis, points in placed.items()}
    best = min(choices, key=lambda axis: away[axis])
    if away[best] <= NEAR * diagonal:
        return placed[best], best
    raise InputError(
        f"The mesh lies {1000 * away[best]:.0f} mm from the avatar (median), so nothing can be"
        f" projected; {_advice(target, surface, diagonal, scale)}.",
        "mesh_far",
    )


def _advice(target: TargetMesh, surface: MeshQuery, diagonal: float, scale: float) -> str:
    for axis in ("z", "y"):
        turned = _turned(target.vertices, axis)
        for factor, unit in {1.0: "metres", **SCALES}.items():
            if _median_distance(turned * factor, surface) <= NEAR * diagonal:
                options = [f"--up {axis}", f"--scale {factor:g}"]
                return f"it fits as {unit} with {axis.upper()} up: use {' '.join(options)}"
    return "export it in the place and size of the avatar, in metres"


def _turned(vertices: FloatArray, axis: str) -> FloatArray:
    return vertices if axis == "z" else np.asarray(vertices @ FROM_Y_UP.T)


def _median_distance(points: FloatArray, surface: MeshQuery) -> float:
    step = max(1, len(points) // 4000)
    return float(np.median(surface.closest(points[::step]).distance))


def _geometries(loaded: Any) -> list[tuple[FloatArray, IntArray, FloatArray | None]]:
    """Vertices in the file's world, faces and UVs of every object with faces."""
    if not isinstance(loaded, trimesh.Scene):
        loaded = trimesh.Scene(loaded)
    parts = []
    for name in loaded.graph.nodes_geometry:
        transform, geometry = loaded.graph[name]
        mesh = loaded.geometry[geometry]
        if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
            continue
        vertices = np.asarray(mesh.vertices, np.float64) @ transform[:3, :3].T + transform[:3, 3]
        uv = getattr(mesh.visual, "uv", None)
        if uv is not None and len(uv) == len(vertices):
            uv = np.asarray(uv, np.float64)[:, :2]
        else:
            uv = None
        parts.append((vertices, np.asarray(mesh.faces, np.int64), uv))
    return parts


def _joined(
    parts: list[tuple[FloatArray, IntArray, FloatArray | None]],
) -> tuple[FloatArray, IntArray, FloatArray]:
    """One mesh whose corners at the same place share a vertex; slivers without corners go."""
    start = np.cumsum([0, *[len(vertices) for vertices, _, _ in parts]])
    vertices = np.concatenate([part[0] for part in parts])
    faces = np.concatenate([f + first for (_, f, _), first in zip(parts, start, strict=False)])
    uv = np.concatenate([part[2] for part in parts if part[2] is not None])
    uvs = uv[faces]
    welded, index = np.unique(vertices, axis=0, return_inverse=True)
    faces = index.reshape(-1)[faces].astype(np.int64)
    a, b, c = faces.T
    whole = (a != b) & (b != c) & (c != a)
    points, kept = compact(welded, faces[whole])
    return points, kept, uvs[whole]
