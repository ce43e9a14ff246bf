"""From a field to the mesh: level set, largest piece, decimation, repair, what is the face."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

from ..progress import Progress, SubProgress
from ..scene import FloatArray, Normalization, Scene, SurfaceMesh
from .crease import cut_faces, onto_rim, settle, sharpen_rim
from .follow import Person
from .intersect import untangle
from .levelset import ClippedField, Field, extract_level_set
from .mesh import (
    MeshCheck,
    check_mesh,
    compact,
    decimate,
    largest_component,
    open_bottom,
    repair,
)
from .remesh import Surface, remesh
from .settings import AssetSettings

IntArray = npt.NDArray[np.int64]
# MediaPipe's landmarks end at the hair line and the jaw; the chart reaches a little farther.
FACE_MARGIN = 1.08
# Length of the edges on the flat cut, relative to those of the head.
CUT_LENGTH = 2.5


@dataclass(frozen=True)
class ExtractedSurface:
    """The level set at full resolution and decimated, both in unit space.

    Attributes:
        vertices: ``(V, 3)`` decimated.
        faces: ``(F, 3)`` decimated.
        dense_vertices: ``(Vd, 3)``.
        dense_faces: ``(Fd, 3)``.
        dropped: Pieces (floaters, inner surfaces) that were thrown away.
        check: Of the decimated mesh.
        crossings: Triangles that ran through one another before and after the repair.
    """

    vertices: FloatArray
    faces: IntArray
    dense_vertices: FloatArray
    dense_faces: IntArray
    dropped: int
    check: MeshCheck
    crossings: tuple[int, int] = (0, 0)


def extract_mesh(
    field: Field, scene: Scene, settings: AssetSettings, progress: Progress
) -> SurfaceMesh:
    """The field's surface as one closed mesh in world metres, coloured by the field.

    Raises:
        TrainingError: The field has no surface.
    """
    clipped = ClippedField.of_scene(
        field, scene, settings.ball_radius, resolution=settings.resolution
    )
    # It is measured against and coloured, not worked with: its triangles may be as they come.
    plain = replace(settings, even_triangles=False)
    surface = extract_surface(clipped, scene, plain, SubProgress(progress, 0.0, 0.9))
    colors = np.round(clipped.color(surface.vertices) * 255).astype(np.uint8)
    progress.update(1.0, "mesh ready")
    return SurfaceMesh(scene.normalization.to_world(surface.vertices), surface.faces, colors)


def extract_surface(
    field: ClippedField,
    scene: Scene,
    settings: AssetSettings,
    progress: Progress,
    person: Person | None = None,
) -> ExtractedSurface:
    """Level set, largest piece, decimation, repair and check, in unit space.

    With a ``person`` the triangles follow their surface too (:mod:`.follow`).

    Raises:
        TrainingError: The field has no surface.
    """
    vertices, faces = extract_level_set(field, settings.resolution, SubProgress(progress, 0.0, 0.7))
    vertices, faces, dropped = largest_component(vertices, faces)
    if not check_mesh(vertices, faces).manifold:
        vertices, faces = repair(vertices, faces)
    progress.update(0.7, "sharpening the rim of the cut")
    vertices, faces = sharpen_rim(field, vertices, faces, 2.0 / settings.resolution)
    progress.update(0.75, "decimating the mesh")
    low, triangles = _decimated(vertices, faces, field, scene, settings, progress, person)
    low, crossed, crossing = untangle(low, triangles)
    if crossing:
        progress.warn(f"{crossing} triangles of the mesh run through one another.")
    check = check_mesh(low, triangles)
    if not check.manifold:
        progress.warn(
            f"The mesh is not closed everywhere: {check.open_edges} open and "
            f"{check.crowded_edges} crowded edges."
        )
    if settings.neck == "open":
        low, triangles = _opened(low, triangles, field, settings, progress)
        check = check_mesh(low, triangles)
    progress.update(1.0, "mesh ready")
    return ExtractedSurface(low, triangles, vertices, faces, dropped, check, (crossed, crossing))


def _decimated(
    vertices: FloatArray,
    faces: IntArray,
    field: ClippedField,
    scene: Scene,
    settings: AssetSettings,
    progress: Progress,
    person: Person | None,
) -> tuple[FloatArray, IntArray]:
    """The mesh with the number of triangles asked for; finer on the face, coarse on the cut."""
    focus = _face_focus(scene, settings.face_detail)
    low, triangles = decimate(vertices, faces, settings.faces, progress, focus)
    if not settings.even_triangles or len(triangles) == len(faces):
        return low, triangles
    share = np.ones(len(vertices))
    if focus is not None:
        center, radius, detail = focus
        far = np.linalg.norm(vertices - center, axis=1) / radius
        share /= 1.0 + (detail - 1.0) / (1.0 + far**6)
    cut = cut_faces(field, vertices, faces)
    share[np.setdiff1d(faces[cut], faces[~cut])] *= CUT_LENGTH
    cell = 2.0 / settings.resolution
    even, triangles = remesh(
        low,
        triangles,
        cut_faces(field, low, triangles).astype(np.int64),
        Surface.of(vertices, faces, share),
        settings.faces,
        lambda points: onto_rim(field, points, cell),
        SubProgress(progress, 0.8, 0.98),
        person,
    )
    return settle(field, even, triangles, cut_faces(field, even, triangles), cell), triangles


def _opened(
    vertices: FloatArray,
    faces: IntArray,
    field: ClippedField,
    settings: AssetSettings,
    progress: Progress,
) -> tuple[FloatArray, IntArray]:
    """The mesh without its flat bottom; as it is when it has none."""
    tolerance = 1.5 * 2.0 / settings.resolution
    opened = open_bottom(vertices, faces, field.crop_z, tolerance)
    if opened is None:
        progress.warn("The bust has no flat bottom that could be opened; it stays closed.")
        return vertices, faces
    return compact(vertices, opened)


def face_triangles(
    vertices: FloatArray, faces: IntArray, scene: Scene
) -> npt.NDArray[np.bool_] | None:
    """Triangles ``(F,)`` of the face, from the landmarks; None without landmarks.

    Inside the convex outline of the landmarks seen from the front, in the front half.
    """
    points = _landmarks(scene)
    if points is None:
        return None
    unit = scene.normalization.to_unit(points)
    middle = unit.mean(axis=0)
    outline = _convex_outline(middle[[0, 2]] + FACE_MARGIN * (unit - middle)[:, [0, 2]])
    center = vertices[faces].mean(axis=1)
    inside = np.ones(len(faces), dtype=bool)
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        edge = b - a
        offset = center[:, [0, 2]] - a
        inside &= edge[0] * offset[:, 1] - edge[1] * offset[:, 0] >= 0
    deepest = unit[:, 1].max() + 0.25 * np.ptp(unit[:, 1])
    inside &= center[:, 1] < deepest
    return inside if inside.any() else None


def _convex_outline(points: FloatArray) -> FloatArray:
    return np.asarray(points[ConvexHull(points).vertices])


def _landmarks(scene: Scene) -> FloatArray | None:
    if scene.landmarks is None:
        return None
    points = scene.landmarks[np.isfinite(scene.landmarks).all(axis=1)]
    return points if len(points) >= 10 else None


def _face_focus(scene: Scene, detail: float) -> tuple[FloatArray, float, float] | None:
    """Where decimation spares triangles: a ball round the face that includes the ears."""
    points = _landmarks(scene)
    if points is None or detail <= 1:
        return None
    norm: Normalization = scene.normalization
    unit = norm.to_unit(points)
    size = float(np.linalg.norm(np.ptp(unit, axis=0))) / 2
    center = np.median(unit, axis=0) + np.array([0.0, 0.3 * size, 0.0])
    return center, 1.1 * size, detail
