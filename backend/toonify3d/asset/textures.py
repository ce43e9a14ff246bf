"""The finished maps of an asset: baked ones, the enhanced albedo, ambient occlusion, regions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from ..progress import Progress
from ..raycast import MeshQuery
from ..scene import ByteImage, LabelledPoints, SurfaceMesh
from .bake import Bake, dilate
from .enhance import enhance, style_target
from .maps import ambient_occlusion, region_map
from .mesh import vertex_normals
from .settings import AssetSettings
from .surface import ExtractedSurface
from .unseen import Calm
from .uv import Atlas


@dataclass
class Textures:
    """What is written beside the meshes.

    Attributes:
        images: Name without ``.png`` to picture: ``albedo``, ``normal``, ``photo_albedo``, ...
        figures: For the report: ``bits``, ``enhance``, ``regions`` (the legend of the ID map).
    """

    images: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


def make_textures(
    baked: Bake,
    surface: ExtractedSurface,
    atlas: Atlas,
    real: SurfaceMesh,
    exemplar: ByteImage,
    regions: LabelledPoints | None,
    calm: Calm | None,
    settings: AssetSettings,
    device: str,
    progress: Progress,
) -> Textures:
    """All maps of one atlas.

    Args:
        baked: Albedo, normals and the person's colours.
        surface: The mesh and the full-resolution surface, unit space.
        atlas: Of the mesh.
        real: The mesh where it lies on the real person, world metres.
        exemplar: RGB.
        regions: Skin, hair and clothes of the real person, or None.
        calm: What no frame shows.
        settings: See there.
        device: Warp device.
        progress: Told how far it is.
    """
    out = Textures(figures={"bits": settings.texture_bits, "enhance": settings.enhance})
    progress.update(0.0, "enhancing the style")
    out.images["albedo"] = baked.albedo
    if settings.enhance > 0:
        target = style_target(exemplar)
        better = enhance(baked.albedo, baked.covered, target, settings.enhance)
        out.images["albedo"] = dilate(better, baked.covered)
        out.images["albedo_before_enhancement"] = baked.albedo
        out.figures["exemplar_sharpness"] = target.sharpness
    if baked.normal is not None:
        out.images["normal"] = baked.normal
    if baked.photo is not None:
        out.images["photo_albedo"] = baked.photo
    progress.update(0.4, "ambient occlusion")
    size = settings.texture_size
    if settings.ambient_occlusion:
        query = MeshQuery(surface.dense_vertices, surface.dense_faces, device)
        normals = vertex_normals(surface.vertices, surface.faces)
        out.images["ao"] = ambient_occlusion(query, surface.vertices, normals, atlas, size)
    if regions is not None:
        progress.update(0.9, "telling skin, hair and clothes apart")
        unseen = None if calm is None else calm.inner
        image, legend = region_map(regions, real.vertices, real.faces, unseen, atlas, size)
        out.images["regions"] = image
        out.figures["regions"] = legend
    progress.update(1.0, "maps ready")
    return out
