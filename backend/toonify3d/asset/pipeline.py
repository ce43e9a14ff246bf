"""The asset step: from a trained field to the files that an artist keeps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ..files import write_image
from ..progress import Progress, SubProgress
from ..raycast import MeshQuery
from ..scene import ByteImage, Camera, FloatArray, LabelledPoints, Scene, SurfaceMesh
from .bake import Bake, BakeOptions, DenseSurface, bake, to_bytes
from .export import describe, write_glb, write_npz, write_obj, write_ply, write_texture
from .follow import Person
from .levelset import ClippedField, Field
from .mesh import vertex_normals
from .morph import Bottom, above_the_persons_cut, morph_figures, person_of, persons_end
from .preview import preview_sheet
from .render import Renderable
from .settings import AssetSettings
from .surface import ExtractedSurface, extract_mesh, extract_surface, face_triangles
from .textures import Textures, make_textures
from .unseen import Calm, calm_colors, flat_bottom, seen_points, watching_cameras
from .uv import Atlas, unwrap

__all__ = ["AssetReport", "build_asset", "extract_mesh"]


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


def build_asset(
    avatar: Field,
    prior_mesh: SurfaceMesh,
    scene: Scene,
    exemplar: ByteImage,
    folder: Path,
    settings: AssetSettings,
    progress: Progress,
    regions: LabelledPoints | None = None,
) -> AssetReport:
    """Make ``avatar.glb/.npz/.obj/.mtl``, the textures, ``prior.ply`` and ``preview.png``.

    The textures are ``albedo.png`` (``albedo_before_enhancement.png`` beside it), ``normal.png``,
    ``ao.png``, with ``regions`` also ``regions.png``, and, when the field knows the real person's
    colours (``color_pair``), ``photo_albedo.png`` in the same layout.

    Args:
        avatar: The finished field; ``color`` is its albedo.
        prior_mesh: The real person's surface, from :func:`extract_mesh` on the prior.
        scene: The capture.
        exemplar: RGB, for the preview and for the style enhancement.
        folder: Where the files go.
        settings: See there.
        progress: Told how far it is.
        regions: Skin, hair and clothes on the real person.

    Raises:
        TrainingError: The field has no surface.
        OSError: The folder cannot be written; files already there stay whole.
    """
    clock = _Clock()
    cameras = watching_cameras(scene) if settings.calm_unseen else []
    bottom = above_the_persons_cut(avatar, prior_mesh, scene, flat_bottom(prior_mesh, cameras))
    field_ = ClippedField.of_scene(avatar, scene, settings.ball_radius, bottom, settings.resolution)
    follow = person_of(avatar, prior_mesh, scene.normalization)
    part = SubProgress(progress, 0.0, 0.3)
    surface = extract_surface(field_, scene, settings, part, follow)
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
    mesh = SurfaceMesh(scene.normalization.to_world(surface.vertices), surface.faces)
    flat = Bottom.of(field_, surface.vertices, scene.normalization)
    person = _persons_end(follow, surface, flat, scene)
    real = mesh if person is None else replace(mesh, vertices=person)
    calm = _calm(field_, surface, real, prior_mesh, cameras) if cameras else None
    part = SubProgress(progress, 0.45, 0.8)
    baked = _bake(field_, surface, atlas, settings, avatar, calm, part)
    clock.lap("bake")
    part = SubProgress(progress, 0.8, 0.9)
    textures = make_textures(
        baked, surface, atlas, real, exemplar, regions, calm, settings, _warp_device(avatar), part
    )
    clock.lap("maps")
    photoreal = _photoreal(mesh, person, prior_mesh, flat, progress)
    names = _write_models(mesh, atlas, textures, prior_mesh, person, folder, settings)
    clock.lap("write")
    progress.update(0.92, "rendering the preview")
    item = Renderable(mesh, to_bytes(textures.images["albedo"]), atlas.uv, atlas.faces)
    sheet = preview_sheet(item, scene, exemplar, settings.preview_tile)
    write_texture(folder / "preview.png", sheet)
    progress.preview(sheet)
    clock.lap("preview")
    progress.update(1.0, "asset ready")
    figures = _mesh_figures(surface, settings, scene)
    return AssetReport(
        mesh=figures | {"photoreal": photoreal, "bottom_z": field_.height(scene.normalization)},
        texture=_texture_figures(atlas, baked, settings) | textures.figures,
        files=describe(folder, [*names, "preview.png"]),
        seconds=clock.laps,
    )


def _bake(
    field_: ClippedField,
    surface: ExtractedSurface,
    atlas: Atlas,
    settings: AssetSettings,
    avatar: Field,
    calm: Calm | None,
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
        calm,
    )
    if baked.coverage < 1.0:
        progress.warn(
            f"{100 * (1 - baked.coverage):.2f} % of the texture got no colour from the field and "
            "was filled from its surroundings."
        )
    return baked


def _persons_end(
    follow: Person | None, surface: ExtractedSurface, flat: Bottom | None, scene: Scene
) -> FloatArray | None:
    """Where the mesh's vertices lie on the real person, world metres; None when unknown."""
    if follow is None:
        return None
    return persons_end(follow, surface.vertices, surface.faces, flat, scene.normalization)


def _photoreal(
    mesh: SurfaceMesh,
    person: FloatArray | None,
    prior_mesh: SurfaceMesh,
    flat: Bottom | None,
    progress: Progress,
) -> dict[str, Any] | None:
    """How well the slider reaches the real person; None when the field does not know them."""
    if person is None:
        return None
    figures = morph_figures(mesh.vertices, person, mesh.faces, prior_mesh, flat)
    if figures["flipped_faces"]:
        progress.warn(
            f"{figures['flipped_faces']} triangles turn over on the way to the real person."
        )
    return figures


def _write_models(
    mesh: SurfaceMesh,
    atlas: Atlas,
    textures: Textures,
    prior_mesh: SurfaceMesh,
    person: FloatArray | None,
    folder: Path,
    settings: AssetSettings,
) -> list[str]:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    names = {name: f"{name}.png" for name in textures.images}
    for name, image in textures.images.items():
        write_image(folder / names[name], image)
    write_glb(
        folder / "avatar.glb",
        mesh.vertices,
        normals,
        atlas,
        to_bytes(textures.images["albedo"]),
        textures.images.get("normal"),
        settings.roughness,
        person,
    )
    write_obj(
        folder / "avatar.obj",
        mesh.vertices,
        normals,
        mesh.faces,
        atlas,
        names,
        settings.roughness,
    )
    write_npz(folder / "avatar.npz", mesh.vertices, normals, mesh.faces, atlas, person)
    write_ply(folder / "prior.ply", prior_mesh)
    return ["avatar.glb", "avatar.npz", "avatar.obj", "avatar.mtl", "prior.ply", *names.values()]


def _calm(
    field_: ClippedField,
    surface: ExtractedSurface,
    person: SurfaceMesh,
    prior_mesh: SurfaceMesh,
    cameras: list[Camera],
) -> Calm | None:
    """Colours for what no frame shows; ``person`` is the mesh on the real person."""
    normals = vertex_normals(person.vertices, person.faces)
    query = MeshQuery(prior_mesh.vertices, prior_mesh.faces)
    seen = seen_points(person.vertices, normals, query, cameras) > 0
    read = field_.color_pair if field_.paired else field_.color
    return calm_colors(
        surface.vertices, surface.faces, seen, read(surface.vertices).astype(np.float64)
    )


def _mesh_figures(
    surface: ExtractedSurface, settings: AssetSettings, scene: Scene
) -> dict[str, Any]:
    check = surface.check
    face = face_triangles(surface.vertices, surface.faces, scene)
    return {
        "face_faces": None if face is None else int(face.sum()),
        "neck": settings.neck,
        "open_edges": check.open_edges,
        "self_intersections": surface.crossings[1],
        "self_intersections_before": surface.crossings[0],
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
