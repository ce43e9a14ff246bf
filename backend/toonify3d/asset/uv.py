"""The texture atlas: few large charts, packed into an exact square by xatlas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..progress import Progress
from ..scene import FloatArray
from .charts import cut_charts
from .packing import pack_square, planar_areas
from .raster import overlapping_texels

IntArray = npt.NDArray[np.int64]


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
    face_region: npt.NDArray[np.bool_] | None = None,
    face_density: float = 2.0,
) -> Atlas:
    """Cut, flatten and pack a closed mesh.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        size: Side of the texture in texels, for the padding.
        padding: Texels between charts.
        progress: Told how far it is.
        face_region: ``(F,)`` triangles that get a chart of their own with more texels.
        face_density: How much more, along each side.
    """
    charts = cut_charts(vertices, faces, face_region)
    progress.update(0.6, "packing the texture atlas")
    scaled = [chart.uv * (face_density if chart.face_region else 1.0) for chart in charts]
    placed = pack_square(scaled, [chart.triangles for chart in charts], size, padding)
    source = np.concatenate([chart.vertices for chart in charts])
    start = np.cumsum([0, *[len(chart.vertices) for chart in charts]])
    out = np.zeros_like(faces)
    is_face = np.zeros(len(faces), dtype=bool)
    for chart, first in zip(charts, start[:-1], strict=True):
        out[chart.faces] = chart.triangles + first
        is_face[chart.faces] = chart.face_region
    uv = np.concatenate(placed)
    density = _density(vertices, faces, uv, out)
    ratio = None
    if is_face.any() and not is_face.all():
        ratio = float(np.median(density[is_face]) / np.median(density[~is_face]))
    progress.update(1.0, "texture atlas ready")
    return Atlas(
        source=source,
        faces=out,
        uv=uv,
        charts=len(charts),
        utilization=float((density**2 * _areas_3d(vertices, faces)).sum()),
        face_density=ratio,
        overlap=overlapping_texels(uv, out, size),
    )


def _density(
    vertices: FloatArray, faces: IntArray, uv: FloatArray, triangles: IntArray
) -> FloatArray:
    """Linear UV units per metre ``(F,)``."""
    flat = np.abs(planar_areas(uv[triangles]))
    return np.asarray(np.sqrt(flat / np.maximum(_areas_3d(vertices, faces), 1e-30)))


def _areas_3d(vertices: FloatArray, faces: IntArray) -> FloatArray:
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(0.5 * np.linalg.norm(cross, axis=1))
