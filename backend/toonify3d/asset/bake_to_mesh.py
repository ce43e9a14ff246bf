"""Baking the fields onto an artist's own mesh: albedo, normals, the person's colours, heat map."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..files import write_image, write_json
from ..progress import Progress, SubProgress
from ..raycast import MeshQuery
from ..scene import ByteImage, Float32Array, FloatArray, Normalization, SurfaceMesh
from .bake import Bake, BakeOptions, DenseSurface, bake
from .levelset import ClippedField, extract_level_set
from .mesh import largest_component
from .settings import TEXTURE_SIZES, AssetSettings
from .target import TargetMesh, align, check_uvs, read_target

# Farther from the surface than this share of the head's diagonal a texel counts as not covered.
REACH = 0.02
# The heat map's scale: rows of a legend under the map, in texels per 1024.
LEGEND = 64


@dataclass(frozen=True)
class TargetBake:
    """What :func:`bake_to_mesh` found.

    Attributes:
        report: For ``bake_report.json``.
        images: File name to picture.
    """

    report: dict[str, Any]
    images: dict[str, Any]


def bake_to_mesh(
    field: ClippedField,
    normalization: Normalization,
    avatar: SurfaceMesh,
    mesh: Path,
    size: int,
    settings: AssetSettings,
    progress: Progress,
    up: str = "auto",
    scale: float = 1.0,
    device: str = "cpu",
) -> TargetBake:
    """Project a finished avatar onto a mesh of the artist's.

    Args:
        field: The avatar's field, closed as its own mesh was.
        normalization: World to unit space.
        avatar: The avatar's own mesh, world metres.
        mesh: OBJ, GLB, glTF or PLY with UVs.
        size: Side of the textures.
        settings: Of the style; resolution, supersampling and volume samples are used.
        progress: Told how far it is.
        up: Axis that is up in the file: ``auto``, ``z`` or ``y``.
        scale: Metres per unit of the file.
        device: Warp device.

    Raises:
        InputError: The mesh or its UVs cannot be used.
        TrainingError: The field has no surface.
    """
    if size not in TEXTURE_SIZES:
        sizes = ", ".join(str(known) for known in TEXTURE_SIZES)
        raise InputError(f"--size must be one of {sizes}.", "bad_size")
    if not scale > 0 or not np.isfinite(scale):
        raise InputError("--scale must be a number above 0.", "bad_scale")
    target = read_target(mesh)
    overlap = check_uvs(target)
    # The finished mesh tells within milliseconds whether the artist's lies on it.
    diagonal = float(np.linalg.norm(np.ptp(avatar.vertices, axis=0)))
    own = MeshQuery(avatar.vertices, avatar.faces, device)
    placed, axis = align(target, own, diagonal, up, scale)
    _check_outward(placed, target)
    part = SubProgress(progress, 0.0, 0.4)
    vertices, faces = extract_level_set(field, settings.resolution, part)
    vertices, faces, _ = largest_component(vertices, faces)
    baked = bake(
        field,
        DenseSurface.of_mesh(vertices, faces),
        normalization.to_unit(placed),
        target.faces,
        target.atlas(),
        size,
        SubProgress(progress, 0.4, 0.95),
        BakeOptions(
            supersample=settings.supersample,
            volume=(settings.volume_samples, settings.volume_depth),
            reach=REACH * diagonal / normalization.radius,
            device=device,
        ),
    )
    report, heat = _report(baked, normalization.radius, diagonal)
    report |= {
        "mesh": {"file": mesh.name, "vertices": len(target.vertices), "faces": len(target.faces)},
        "up": axis,
        "scale": scale,
        "size": size,
        "uv_overlap_percent": 100.0 * overlap,
    }
    images: dict[str, Any] = {"albedo.png": baked.albedo, "normal.png": baked.normal}
    if baked.photo is not None:
        images["photo_albedo.png"] = baked.photo
    images["heatmap.png"] = heat
    progress.update(1.0, "textures ready")
    return TargetBake(report, images)


def write_bake(result: TargetBake, folder: Path) -> list[Path]:
    """Write all files of a bake, or none: what was in ``folder`` stays until all are on the disk.

    Raises:
        OSError: Disk full, or the folder cannot be written.
    """
    jobs: dict[str, Callable[[Path], None]] = {
        name: _image_writer(image) for name, image in result.images.items()
    }
    jobs["bake_report.json"] = lambda path: write_json(path, result.report)
    folder.mkdir(parents=True, exist_ok=True)
    waiting: dict[Path, Path] = {}
    try:
        for name, write in jobs.items():
            path = folder / name
            temporary = folder / f".{path.stem}.{os.getpid()}.new{path.suffix}"
            waiting[temporary] = path
            write(temporary)
        for temporary, path in waiting.items():
            temporary.replace(path)
    finally:
        for temporary in waiting:
            temporary.unlink(missing_ok=True)
    return list(waiting.values())


def _image_writer(image: Any) -> Callable[[Path], None]:
    return lambda path: write_image(path, image)


def _check_outward(vertices: FloatArray, target: TargetMesh) -> None:
    a, b, c = (vertices[target.faces[:, k]] - vertices.mean(axis=0) for k in range(3))
    if float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) < 0:
        raise InputError(
            "The faces of the mesh look inward; flip its normals (Blender: Mesh > Normals > Flip).",
            "inside_out",
        )


def _report(baked: Bake, radius: float, diagonal: float) -> tuple[dict[str, Any], ByteImage]:
    assert baked.distance is not None
    away = 1000.0 * radius * baked.distance
    known = away[np.isfinite(away)]
    figures = {
        "median": float(np.median(known)),
        "p95": float(np.percentile(known, 95)),
        "max": float(known.max()),
    }
    # The scale ends at a round number of millimetres that hardly a texel exceeds.
    top = _round_up(float(np.percentile(known, 99)))
    report = {
        "distance_mm": figures,
        "distance_percent": {k: v / (10.0 * diagonal) for k, v in figures.items()},
        "diagonal_mm": 1000.0 * diagonal,
        "coverage": baked.on_surface,
        "reach_mm": 1000.0 * REACH * diagonal,
        "heatmap_mm": [0.0, top],
        "utilization": baked.utilization,
    }
    return report, heat_map(away, top)


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-3)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999))


def heat_map(away: Float32Array, top: float) -> ByteImage:
    """Distances ``(S, S)`` in mm as a colour map with its scale below, RGB ``(S + legend, S, 3)``.

    Args:
        away: NaN outside the charts.
        top: Distance shown in the brightest colour.
    """
    size = away.shape[0]
    known = np.isfinite(away)
    level = np.clip(np.where(known, away, 0.0) / top, 0, 1)
    colors = cv2.applyColorMap(np.round(level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    image = np.where(known[..., None], colors, np.uint8(60))
    height = LEGEND * size // 1024
    ramp = np.tile(np.linspace(0, 255, size).astype(np.uint8), (height, 1))
    legend = cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)
    scale = size / 1024
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        text = f"{share * top:.3g} mm"
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, 1)
        x = round(share * (size - width - 16 * scale) + 8 * scale)
        color = (255, 255, 255) if share < 0.6 else (0, 0, 0)
        place, thick = (x, round(0.65 * height)), max(1, round(2 * scale))
        cv2.putText(
            legend, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, color, thick, cv2.LINE_AA
        )
    return np.ascontiguousarray(np.concatenate([image, legend])[..., ::-1], dtype=np.uint8)
