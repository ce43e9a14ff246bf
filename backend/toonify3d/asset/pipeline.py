"""The asset step: from a trained field to the files that an artist keeps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import warp as wp
from scipy.spatial import ConvexHull

from ..files import write_image
from ..progress import Progress, SubProgress
from ..scene import ByteImage, FloatArray, Normalization, Scene, SurfaceMesh
from .bake import Bake, BakeOptions, DenseSurface, bake
from .export import describe, write_glb, write_npz, write_obj, write_ply, write_texture
from .levelset import ClippedField, Field, extract_level_set
from .mesh import MeshCheck, check_mesh, decimate, largest_component, repair, vertex_normals
from .morph import morph_figures
from .preview import preview_sheet
from .render import Renderable
from .settings import AssetSettings
from .uv import Atlas, unwrap

IntArray = npt.NDArray[np.int64]
# MediaPipe's landmarks end at the hair line and the jaw; the chart reaches a little farther.
FACE_MARGIN = 1.08


@dataclass
class AssetReport:
    """What was made, for ``report.json``.

    Attributes:
        mesh: ``vertices, faces, watertight, manifold, components, genus, requested_faces,
            level_set_faces, dropped_components``, and ``photoreal`` as
            :func:`.morph.morph_figures` gives it (None when the field does not know the person).
        texture: ``width, height, coverage, on_surface, utilization, charts, overlap_texels,
            face_density``.
        files: Name to ``{bytes, sha256}``.
        seconds: Wall time per step.
    """

    mesh: dict[str, Any] = field(default_factory=dict)
    texture: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, int | str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


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
    """

    vertices: FloatArray
    faces: IntArray
    dense_vertices: FloatArray
    dense_faces: IntArray
    dropped: int
    check: MeshCheck


def extract_mesh(
    field: Field, scene: Scene, settings: AssetSettings, progress: Progress
) -> SurfaceMesh:
    """The field's surface as one closed mesh in world metres, coloured by the field.

    Raises:
        TrainingError: The field has no surface.
    """
    clipped = ClippedField.of_scene(field, scene, settings.ball_radius)
    surface = extract_surface(clipped, scene, settings, SubProgress(progress, 0.0, 0.9))
    colors = np.round(clipped.color(surface.vertices) * 255).astype(np.uint8)
    progress.update(1.0, "mesh ready")
    return SurfaceMesh(scene.normalization.to_world(surface.vertices), surface.faces, colors)


def extract_surface(
    field: ClippedField, scene: Scene, settings: AssetSettings, progress: Progress
) -> ExtractedSurface:
    """Level set, largest piece, decimation and check, in unit space.

    Raises:
        TrainingError: The field has no surface.
    """
    vertices, faces = extract_level_set(field, settings.resolution, SubProgress(progress, 0.0, 0.8))
    vertices, faces, dropped = largest_component(vertices, faces)
    if not check_mesh(vertices, faces).manifold:
        vertices, faces = repair(vertices, faces)
    progress.update(0.85, "decimating the mesh")
    focus = _face_focus(scene, settings.face_detail)
    low, triangles = decimate(vertices, faces, settings.faces, progress, focus)
    check = check_mesh(low, triangles)
    if not check.manifold:
        progress.warn(
            f"The mesh is not closed everywhere: {check.open_edges} open and "
            f"{check.crowded_edges} crowded edges."
        )
    progress.update(1.0, "mesh ready")
    return ExtractedSurface(low, triangles, vertices, faces, dropped, check)


def build_asset(
    avatar: Field,
    prior_mesh: SurfaceMesh,
    scene: Scene,
    exemplar: ByteImage,
    folder: Path,
    settings: AssetSettings,
    progress: Progress,
) -> AssetReport:
    """Make ``avatar.glb/.npz/.obj/.mtl``, the textures, ``prior.ply`` and ``preview.png``.

    The textures are ``albedo.png``, ``normal.png`` and, when the field knows the real person's
    colours (``color_pair``), ``photo_albedo.png`` in the same layout.

    Args:
        avatar: The finished field; ``color`` is its albedo.
        prior_mesh: The real person's surface, from :func:`extract_mesh` on the prior.
        scene: The capture.
        exemplar: RGB, for the preview.
        folder: Where the files go.
        settings: See there.
        progress: Told how far it is.

    Raises:
        TrainingError: The field has no surface.
        OSError: The folder cannot be written; files already there stay whole.
    """
    clock = _Clock()
    field_ = ClippedField.of_scene(avatar, scene, settings.ball_radius)
    surface = extract_surface(field_, scene, settings, SubProgress(progress, 0.0, 0.3))
    clock.lap("mesh")
    atlas = unwrap(
        surface.vertices,
        surface.faces,
        settings.texture_size,
        settings.padding,
        SubProgress(progress, 0.3, 0.45),
        face_triangles(surface.vertices, surface.faces, scene),
        settings.face_density,
    )
    clock.lap("uv")
    baked = _bake(field_, surface, atlas, settings, avatar, SubProgress(progress, 0.45, 0.85))
    clock.lap("bake")
    mesh = SurfaceMesh(scene.normalization.to_world(surface.vertices), surface.faces)
    person = _on_the_person(avatar, surface.vertices, scene.normalization)
    photoreal = (
        None if person is None else morph_figures(mesh.vertices, person, mesh.faces, prior_mesh)
    )
    if photoreal is not None and photoreal["flipped_faces"]:
        progress.warn(
            f"{photoreal['flipped_faces']} triangles turn over on the way to the real person."
        )
    names = _write_models(mesh, atlas, baked, prior_mesh, person, folder, settings)
    clock.lap("write")
    progress.update(0.9, "rendering the preview")
    item = Renderable(mesh, baked.albedo8, atlas.uv, atlas.faces)
    sheet = preview_sheet(item, scene, exemplar, settings.preview_tile)
    write_texture(folder / "preview.png", sheet)
    progress.preview(sheet)
    clock.lap("preview")
    progress.update(1.0, "asset ready")
    return AssetReport(
        mesh=_mesh_figures(surface, settings) | {"photoreal": photoreal},
        texture=_texture_figures(atlas, baked, settings),
        files=describe(folder, [*names, "preview.png"]),
        seconds=clock.laps,
    )


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


def _bake(
    field_: ClippedField,
    surface: ExtractedSurface,
    atlas: Atlas,
    settings: AssetSettings,
    avatar: Field,
    progress: Progress,
) -> Bake:
    dense = DenseSurface.of_mesh(surface.dense_vertices, surface.dense_faces)
    baked = bake(
        field_,
        dense,
        surface.vertices,
        surface.faces,
        atlas,
        settings.texture_size,
        progress,
        BakeOptions(
            supersample=settings.supersample,
            volume=(settings.volume_samples, settings.volume_depth),
            normals=settings.normal_map,
            bits=settings.texture_bits,
            device=_warp_device(avatar),
        ),
    )
    if baked.coverage < 1.0:
        progress.warn(
            f"{100 * (1 - baked.coverage):.2f} % of the texture got no colour from the field and "
            "was filled from its surroundings."
        )
    return baked


def _write_models(
    mesh: SurfaceMesh,
    atlas: Atlas,
    baked: Bake,
    prior_mesh: SurfaceMesh,
    person: FloatArray | None,
    folder: Path,
    settings: AssetSettings,
) -> list[str]:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    textures = {"albedo": "albedo.png"}
    write_image(folder / "albedo.png", baked.albedo)
    if baked.normal is not None:
        write_texture(folder / "normal.png", baked.normal)
        textures["normal"] = "normal.png"
    if baked.photo is not None:
        write_image(folder / "photo_albedo.png", baked.photo)
        textures["photo"] = "photo_albedo.png"
    write_glb(
        folder / "avatar.glb",
        mesh.vertices,
        normals,
        atlas,
        baked.albedo8,
        baked.normal,
        settings.roughness,
        person,
    )
    write_obj(
        folder / "avatar.obj",
        mesh.vertices,
        normals,
        mesh.faces,
        atlas,
        textures,
        settings.roughness,
    )
    write_npz(folder / "avatar.npz", mesh.vertices, normals, mesh.faces, atlas, person)
    write_ply(folder / "prior.ply", prior_mesh)
    return ["avatar.glb", "avatar.npz", "avatar.obj", "avatar.mtl", "prior.ply", *textures.values()]


def _on_the_person(
    avatar: Field, vertices: FloatArray, normalization: Normalization
) -> FloatArray | None:
    """Where each vertex ``(V, 3)`` (unit space) lies on the real person, in the world.

    Only a field that knows the way back (stage II's deformation) can say; None otherwise.
    """
    to_prior = getattr(avatar, "to_prior", None)
    if to_prior is None:
        return None
    with torch.no_grad():
        points = torch.as_tensor(vertices, dtype=torch.float32, device=avatar.device)
        return normalization.to_world(to_prior(points).cpu().numpy().astype(np.float64))


def _mesh_figures(surface: ExtractedSurface, settings: AssetSettings) -> dict[str, Any]:
    check = surface.check
    return {
        "vertices": len(surface.vertices),
        "faces": len(surface.faces),
        "watertight": check.watertight,
        "manifold": check.manifold,
        "components": check.components,
        "genus": (2 * check.components - check.euler) // 2,
        "requested_faces": settings.faces,
        "level_set_faces": len(surface.dense_faces),
        "dropped_components": surface.dropped,
    }


def _texture_figures(atlas: Atlas, baked: Bake, settings: AssetSettings) -> dict[str, Any]:
    return {
        "width": settings.texture_size,
        "height": settings.texture_size,
        "coverage": baked.coverage,
        "on_surface": baked.on_surface,
        "utilization": baked.utilization,
        "charts": atlas.charts,
        "overlap_texels": atlas.overlap,
        "face_density": atlas.face_density,
    }


def _warp_device(field: Field) -> str:
    """The field's device for Warp, when Warp can use it."""
    cuda = str(field.device).startswith("cuda") and wp.is_cuda_available()
    return "cuda:0" if cuda else "cpu"


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 2)
        self._last = now
