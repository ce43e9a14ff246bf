"""The texture atlas: charts, flattening and packing by xatlas, the face with more texels.

xatlas cuts where the surface bends. On a mesh from a level set that is everywhere: a scanned head
of 30,000 triangles came out in 533 charts. It is therefore given a smoothed copy with the same
triangles (102 charts there), and the coordinates hold for the real mesh just as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xatlas

from ..errors import TrainingError
from ..progress import Progress
from ..scene import FloatArray
from .raster import overlapping_texels

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# More smoothing shrinks the ears into folds and the number of charts rises again (20: 102 charts,
# 100: 177 on the scanned head).
SMOOTHING_ROUNDS = 20


@dataclass(frozen=True)
class Atlas:
    """A mesh whose vertices are split along the seams.

    Attributes:
        source: Mesh vertex ``(N,)`` behind each atlas vertex.
        faces: ``(F, 3)`` atlas vertices, in the order of the mesh's faces.
        uv: ``(N, 2)`` in 0..1, origin at the lower left.
        charts: Number of charts.
        utilization: Share of the square that charts cover.
        face_density: Texel density of the face relative to the median of the rest, or None.
        overlap: Texels of the atlas that lie in more than one triangle; 0.
    """

    source: IntArray
    faces: IntArray
    uv: FloatArray
    charts: int
    utilization: float
    face_density: float | None
    overlap: int


def unwrap(
    vertices: FloatArray,
    faces: IntArray,
    size: int,
    padding: int,
    progress: Progress,
    face_region: BoolArray | None = None,
    face_density: float = 2.0,
) -> Atlas:
    """Cut, flatten and pack a closed mesh.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        size: Side of the texture in texels, for the padding.
        padding: Texels between charts.
        progress: Told how far it is.
        face_region: ``(F,)`` triangles that get charts of their own with more texels.
        face_density: How much more, along each side.

    Raises:
        TrainingError: xatlas could not unwrap the mesh.
    """
    region = np.zeros(len(faces), bool) if face_region is None else np.asarray(face_region, bool)
    smooth = _smoothed(vertices, faces)
    progress.update(0.1, "unwrapping")
    # Smoothing shrinks what bulges (the nose): undo that, or the face would lose texels.
    shrunk = np.sqrt(_areas_3d(smooth, faces) / np.maximum(_areas_3d(vertices, faces), 1e-30))
    scale = face_density
    if region.any() and not region.all():
        scale *= float(np.median(shrunk[~region]) / np.median(shrunk[region]))
    atlas = _unwrap_parts(vertices, smooth, faces, region, scale, size, padding)
    if atlas.face_density is not None and atlas.face_density < 0.97 * face_density:
        progress.update(0.6, "unwrapping again with a larger face")
        scale *= face_density / atlas.face_density
        atlas = _unwrap_parts(vertices, smooth, faces, region, scale, size, padding)
    progress.update(1.0, "texture atlas ready")
    return atlas


def _unwrap_parts(
    vertices: FloatArray,
    smooth: FloatArray,
    faces: IntArray,
    region: BoolArray,
    scale: float,
    size: int,
    padding: int,
) -> Atlas:
    """The atlas of the smoothed mesh with the triangles of ``region`` grown by ``scale``."""
    parts = [(np.flatnonzero(region), scale), (np.flatnonzero(~region), 1.0)]
    parts = [(rows, grown) for rows, grown in parts if len(rows)]
    packed = _pack([(smooth * grown, faces[rows]) for rows, grown in parts], size, padding)
    source = np.concatenate([part[0] for part in packed])
    start = np.cumsum([0, *[len(part[0]) for part in packed]])
    out = np.zeros_like(faces)
    for (rows, _), (_, triangles, _, _), first in zip(parts, packed, start[:-1], strict=True):
        out[rows] = triangles + first
    uv = np.concatenate([part[2] for part in packed])
    density = _density(vertices, faces, uv, out)
    ratio = None
    if region.any() and not region.all():
        ratio = float(np.median(density[region]) / np.median(density[~region]))
    return Atlas(
        source=source,
        faces=out,
        uv=uv,
        charts=packed[0][3],
        utilization=float((density**2 * _areas_3d(vertices, faces)).sum()),
        face_density=ratio,
        overlap=overlapping_texels(uv, out, size),
    )


def _pack(
    meshes: list[tuple[FloatArray, IntArray]], size: int, padding: int
) -> list[tuple[IntArray, IntArray, FloatArray, int]]:
    """Per mesh: source vertices, triangles, uv in the unit square; and the number of charts."""
    atlas = xatlas.Atlas()
    used = []
    for vertices, faces in meshes:
        kept, compact = np.unique(faces, return_inverse=True)
        used.append(kept)
        atlas.add_mesh(vertices[kept].astype(np.float32), compact.reshape(-1, 3).astype(np.uint32))
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = size, padding, True
    atlas.generate(xatlas.ChartOptions(), pack)
    if atlas.atlas_count != 1:
        raise TrainingError("The mesh could not be unwrapped into one texture; use fewer faces.")
    # xatlas divides by its own width and height: undo that, so that texels stay square.
    extent = np.array([atlas.width, atlas.height], float) / max(atlas.width, atlas.height)
    parts = []
    for number, ((_, faces), kept) in enumerate(zip(meshes, used, strict=True)):
        mapping, triangles, uv = atlas[number]
        if len(triangles) != len(faces):
            raise TrainingError("The mesh could not be unwrapped: triangles were lost.")
        parts.append(
            (
                kept[mapping].astype(np.int64),
                triangles.astype(np.int64),
                uv.astype(np.float64) * extent,
                int(atlas.chart_count),
            )
        )
    return parts


def _smoothed(vertices: FloatArray, faces: IntArray) -> FloatArray:
    """Uniform Laplacian smoothing: half way to the neighbours' mean in every round."""
    rows = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    columns = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0]])
    shape = (len(vertices), len(vertices))
    edges = scipy.sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape).tocsr()
    edges = ((edges + edges.T) > 0).astype(float)
    count = np.maximum(np.asarray(edges.sum(1)).ravel(), 1.0)
    out = np.asarray(vertices, float)
    for _ in range(SMOOTHING_ROUNDS):
        out = 0.5 * out + 0.5 * (edges @ out) / count[:, None]
    return out


def _density(
    vertices: FloatArray, faces: IntArray, uv: FloatArray, triangles: IntArray
) -> FloatArray:
    """Linear UV units per metre ``(F,)``."""
    flat = np.abs(_areas_2d(uv[triangles]))
    return np.asarray(np.sqrt(flat / np.maximum(_areas_3d(vertices, faces), 1e-30)))


def _areas_2d(corners: FloatArray) -> FloatArray:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(0.5 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]))


def _areas_3d(vertices: FloatArray, faces: IntArray) -> FloatArray:
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(0.5 * np.linalg.norm(cross, axis=1))
