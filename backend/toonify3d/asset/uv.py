"""The texture atlas: a head in three charts, the face in one of them and with more texels.

The head is cut by :mod:`.cuts` and flattened by :mod:`.flatten`; xatlas packs. What is no disk
(a shape with handles) is cut and flattened by xatlas itself, on a smoothed copy with the same
triangles, because it cuts wherever a level set's ripples bend it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xatlas

from ..errors import TrainingError
from ..progress import Progress
from ..scene import FloatArray
from .cuts import FACE, label_regions, pieces, seam_path, split_at
from .flatten import flatten
from .mesh import face_components, half_edge_twins
from .raster import overlapping_faces, overlapping_texels

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Rounds of smoothing before xatlas cuts. More shrinks ears into folds (20: 102 charts on a scanned
# head of 30,000 triangles, 100: 177).
SMOOTHING_ROUNDS = 20
# Texels along a chart's longer side when overlaps of its own border are looked for.
OVERLAP_SIZE = 2048
# Triangles round an overlap that are cut off with it.
TAB_RINGS = 6
TAB_TRIES = 64
# Border edges compared with all others at once: bounds the memory.
BORDER_BLOCK = 512


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


@dataclass(frozen=True)
class _Chart:
    """Some faces of the mesh, flattened at the size they have in space.

    Attributes:
        rows: ``(f,)`` faces of the mesh.
        source: ``(n,)`` mesh vertex behind each of the chart's vertices.
        faces: ``(f, 3)`` the chart's vertices.
        uv: ``(n, 2)``.
    """

    rows: IntArray
    source: IntArray
    faces: IntArray
    uv: FloatArray


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
        vertices: ``(V, 3)``, Z up, the face along -Y.
        faces: ``(F, 3)``.
        size: Side of the texture in texels, for the padding.
        padding: Texels between charts.
        progress: Told how far it is.
        face_region: ``(F,)`` triangles that get one chart of their own with more texels.
        face_density: How much more, along each side.

    Raises:
        TrainingError: xatlas could not unwrap the mesh.
    """
    labels = label_regions(vertices, faces, face_region)
    seam = seam_path(vertices, faces, labels)
    corners, source = split_at(faces, labels, seam)
    charts: list[_Chart] = []
    parts = pieces(corners)
    for number, rows in enumerate(parts):
        progress.update(0.9 * number / len(parts), "unwrapping")
        charts += _flat_charts(vertices, source, corners, rows)
    region = labels == FACE
    scale = _face_scale(vertices, faces, charts, region, face_density)
    scaled = [
        _Chart(
            c.rows, c.source, c.faces, _upright(vertices, c) * (scale if region[c.rows[0]] else 1)
        )
        for c in charts
    ]
    progress.update(0.9, "packing the texture")
    atlas = _assemble(vertices, faces, scaled, region, size, padding)
    progress.update(1.0, "texture atlas ready")
    return atlas


def _flat_charts(
    vertices: FloatArray, source: IntArray, corners: IntArray, rows: IntArray
) -> list[_Chart]:
    """One piece as one chart, plus tabs where its border would overlap; or in xatlas' charts."""
    used, faces = np.unique(corners[rows], return_inverse=True)
    faces = faces.reshape(-1, 3).astype(np.int64)
    uv = flatten(vertices[source[used]], faces)
    if uv is None:
        charts = _xatlas_charts(vertices, source[used], faces, rows)
        return [part for chart in charts for part in _without_overlaps(vertices, chart)]
    return _without_overlaps(vertices, _Chart(rows, source[used], faces, uv))


def _without_overlaps(vertices: FloatArray, chart: _Chart) -> list[_Chart]:
    """The chart, with parts of its border cut off until nothing overlaps.

    Raises:
        TrainingError: That does not end.
    """
    waiting, done = [chart], list[_Chart]()
    for _ in range(TAB_TRIES):
        if not waiting:
            return done
        part = waiting.pop()
        tab = _overlapping_tab(part.uv, part.faces)
        if tab is None or tab.all():
            done.append(part)
        else:
            # What is cut off is flattened anew, for its place in the chart was too narrow for it.
            waiting += [_part(part, ~tab), *_flattened(vertices, _part(part, tab))]
    raise TrainingError("The mesh could not be unwrapped without overlaps; use fewer faces.")


def _flattened(vertices: FloatArray, chart: _Chart) -> list[_Chart]:
    """The pieces of a chart flattened each on its own; as they are where they are no disks."""
    _, label = face_components(chart.faces)
    out = []
    for number in range(int(label.max()) + 1):
        piece = _part(chart, label == number)
        uv = flatten(vertices[piece.source], piece.faces)
        out.append(piece if uv is None else replace(piece, uv=uv))
    return out


def _part(chart: _Chart, kept: BoolArray) -> _Chart:
    """Some faces ``(f,)`` of a chart as a chart."""
    return _chart(chart.uv, chart.faces, kept, chart.rows, chart.source)


def _chart(
    uv: FloatArray, faces: IntArray, kept: BoolArray, rows: IntArray, source: IntArray
) -> _Chart:
    used, local = np.unique(faces[kept], return_inverse=True)
    return _Chart(rows[kept], source[used], local.reshape(-1, 3).astype(np.int64), uv[used])


def _overlapping_tab(uv: FloatArray, faces: IntArray) -> BoolArray | None:
    """Faces ``(F,)`` to cut off so that one overlap of a chart's own border goes; None if clean.

    SLIM keeps triangles from turning over, not distant parts of the border from each other. That
    happens in the notch of a seam in a hollow, such as the back of the neck.
    """
    low = uv.min(axis=0)
    unit = (uv - low) / np.ptp(uv, axis=0).max()
    found = overlapping_faces(unit, faces, OVERLAP_SIZE if len(faces) > 500 else OVERLAP_SIZE // 4)
    # Slivers pass between texel centres here, and would lie on one in the finished atlas.
    pairs = np.concatenate([found, crossing_borders(unit, faces)])
    if not len(pairs):
        return None
    first, second, _ = half_edge_twins(faces)
    links = (first // 3, second // 3)
    free = np.zeros(len(faces), dtype=bool)
    free[pairs.reshape(-1)] = True
    sides = np.zeros(len(faces), dtype=np.int64)
    sides[pairs[0]] = 1, 2
    free &= sides == 0
    # Both sides grow at once along the faces that overlap, and meet at the notch's tip.
    for _ in range(len(pairs)):
        fresh = [_ring(sides == side, links) & free for side in (1, 2)]
        if not (fresh[0] | fresh[1]).any():
            break
        sides[fresh[0]], sides[fresh[1] & ~fresh[0]] = 1, 2
        free &= sides == 0
    tab: BoolArray = sides == np.argmin(np.bincount(sides, minlength=3)[1:]) + 1
    for _ in range(TAB_RINGS):
        wider = _ring(tab, links)
        if wider.sum() > len(faces) // 2:
            break
        tab = wider
    return tab


def crossing_borders(uv: FloatArray, faces: IntArray) -> IntArray:
    """Pairs of faces ``(P, 2)`` whose border edges cross one another, exactly.

    Args:
        uv: ``(N, 2)``.
        faces: ``(F, 3)`` of one chart, all turning the same way.
    """
    shared = half_edge_twins(faces)
    border = np.setdiff1d(np.arange(3 * len(faces)), np.concatenate(shared[:2]))
    after = border // 3 * 3 + (border + 1) % 3
    ends = uv[faces.reshape(-1)[np.stack([border, after], axis=1)]]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for first in range(0, len(border), BORDER_BLOCK):
        block = ends[first : first + BORDER_BLOCK]
        # An end that two edges share lies on both: the product is 0, no crossing.
        cross = (_sides(block, ends).prod(2) < 0.0) & (_sides(ends, block).prod(2) < 0.0).T
        rows, columns = np.nonzero(cross)
        pairs = np.stack([border[first + rows], border[columns]], axis=1) // 3
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.unique(np.concatenate(found), axis=0)


def _sides(lines: FloatArray, edges: FloatArray) -> FloatArray:
    """``(L, E, 2)``: above 0 where an edge's ends lie left of a line; both ``(., 2, 2)``."""
    along = (lines[:, 1] - lines[:, 0])[:, None, None]
    offset = edges[None] - lines[:, :1, None]
    return np.asarray(along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0])


def _ring(region: BoolArray, links: tuple[IntArray, IntArray]) -> BoolArray:
    """The region and every face beside it."""
    out = region.copy()
    out[links[0][region[links[1]]]] = True
    out[links[1][region[links[0]]]] = True
    return out


def _xatlas_charts(
    vertices: FloatArray, source: IntArray, faces: IntArray, rows: IntArray
) -> list[_Chart]:
    """Charts cut and flattened by xatlas, each at the size it has in space."""
    smooth = _smoothed(vertices[source], faces)
    atlas = xatlas.Atlas()
    atlas.add_mesh(smooth.astype(np.float32), faces.astype(np.uint32))
    atlas.generate(xatlas.ChartOptions(), xatlas.PackOptions())
    if atlas.atlas_count != 1:
        raise TrainingError("The mesh could not be unwrapped into one texture; use fewer faces.")
    mapping, triangles, uv = atlas[0]
    if len(triangles) != len(faces):
        raise TrainingError("The mesh could not be unwrapped: triangles were lost.")
    triangles, mapping = triangles.astype(np.int64), mapping.astype(np.int64)
    flat = uv.astype(np.float64) * [atlas.width, atlas.height]
    _, label = face_components(triangles)
    out = []
    for number in range(int(label.max()) + 1):
        chart = _chart(flat, triangles, label == number, rows, source[mapping])
        space = _areas_3d(vertices[chart.source], chart.faces).sum()
        plane = float(_areas_2d(chart.uv[chart.faces]).sum())
        grown = chart.uv * np.sqrt(space / max(abs(plane), 1e-30)) * [np.sign(plane) or 1.0, 1.0]
        out.append(_Chart(chart.rows, chart.source, chart.faces, grown))
    return out


def _upright(vertices: FloatArray, chart: _Chart) -> FloatArray:
    """The chart's UV turned so that what is up on the head is up in the texture."""
    flat = chart.uv - chart.uv.mean(axis=0)
    height = vertices[chart.source, 2]
    up = flat.T @ (height - height.mean())
    length = float(np.linalg.norm(up))
    if length < 1e-12:
        return np.asarray(flat)
    c, s = up[1] / length, up[0] / length
    return np.asarray(flat @ np.array([[c, s], [-s, c]]))


def _face_scale(
    vertices: FloatArray,
    faces: IntArray,
    charts: list[_Chart],
    region: BoolArray,
    face_density: float,
) -> float:
    """By how much the face's charts grow so that its median density is that of the rest's."""
    if not region.any() or region.all():
        return 1.0
    density = np.zeros(len(faces))
    for chart in charts:
        density[chart.rows] = _density(vertices[chart.source], chart.faces, chart.uv)
    return face_density * float(np.median(density[~region]) / np.median(density[region]))


def _assemble(
    vertices: FloatArray,
    faces: IntArray,
    charts: list[_Chart],
    region: BoolArray,
    size: int,
    padding: int,
) -> Atlas:
    """Pack the charts into the unit square."""
    uvs = _pack(charts, size, padding)
    start = np.cumsum([0, *[len(chart.source) for chart in charts]])
    out = np.zeros_like(faces)
    for chart, first in zip(charts, start[:-1], strict=True):
        out[chart.rows] = chart.faces + first
    source = np.concatenate([chart.source for chart in charts])
    uv = np.concatenate(uvs)
    density = _density(vertices[source], out, uv)
    ratio = None
    if region.any() and not region.all():
        ratio = float(np.median(density[region]) / np.median(density[~region]))
    return Atlas(
        source=source,
        faces=out,
        uv=uv,
        charts=len(charts),
        utilization=float(np.abs(_areas_2d(uv[out])).sum()),
        face_density=ratio,
        overlap=overlapping_texels(uv, out, size),
    )


def _pack(charts: list[_Chart], size: int, padding: int) -> list[FloatArray]:
    """UV in the unit square of every chart, as xatlas places and turns it."""
    atlas = xatlas.Atlas()
    for chart in charts:
        atlas.add_uv_mesh(chart.uv.astype(np.float32), chart.faces.astype(np.uint32))
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = size, padding, True
    # The charts stand upright, so that a painter sees the face the right way up.
    pack.rotate_charts = pack.rotate_charts_to_axis = False
    atlas.generate(xatlas.ChartOptions(), pack)
    if atlas.atlas_count != 1:
        raise TrainingError("The mesh could not be unwrapped into one texture; use fewer faces.")
    # xatlas divides by its own width and height: undo that, so that texels stay square.
    extent = np.array([atlas.width, atlas.height], float) / max(atlas.width, atlas.height)
    out = []
    for number, chart in enumerate(charts):
        mapping, _, uv = atlas[number]
        placed = np.zeros_like(chart.uv)
        placed[mapping] = uv * extent
        out.append(placed)
    return out


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


def _density(vertices: FloatArray, faces: IntArray, uv: FloatArray) -> FloatArray:
    """Linear UV units per unit of length ``(F,)``."""
    flat = np.abs(_areas_2d(uv[faces]))
    return np.asarray(np.sqrt(flat / np.maximum(_areas_3d(vertices, faces), 1e-30)))


def _areas_2d(corners: FloatArray) -> FloatArray:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(0.5 * (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]))


def _areas_3d(vertices: FloatArray, faces: IntArray) -> FloatArray:
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(0.5 * np.linalg.norm(cross, axis=1))
