"""A finished style, read back from its job, and its files in other formats."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .asset.export import write_obj, write_ply, write_stl
from .asset.render import sample_texture
from .asset.settings import AssetSettings
from .asset.usd import KINDS, write_usd
from .asset.uv import Atlas
from .errors import InputError
from .files import write_bytes
from .scene import ByteImage, FloatArray, SurfaceMesh
from .service.job import JobFolder

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FinishedStyle:
    """A finished style, read back from its ``result`` folder.

    Attributes:
        name: Of the style.
        folder: ``styles/NAME/result``.
        mesh: World metres; no vertex colours.
        normals: ``(V, 3)`` unit.
        atlas: Of the mesh; only ``source``, ``faces`` and ``uv`` mean something.
        albedo: sRGB ``(S, S, 3)``.
        roughness: Of the material.
        ball_radius: Of the ball that closed the surface, unit space.
        bottom: World height of the flat cut under the bust, None when only the chest plane cuts.
        person: ``(V, 3)`` where each vertex lies on the real person, or None.
    """

    name: str
    folder: Path
    mesh: SurfaceMesh
    normals: FloatArray
    atlas: Atlas
    albedo: ByteImage
    roughness: float
    ball_radius: float = AssetSettings.ball_radius
    bottom: float | None = None
    person: FloatArray | None = None

    @property
    def textures(self) -> dict[str, Path]:
        """The maps that are there: ``albedo``, ``normal``."""
        paths = {name: self.folder / f"{name}.png" for name in ("albedo", "normal")}
        return {name: path for name, path in paths.items() if path.is_file()}


def finished_style(job: Path, style: str | None) -> FinishedStyle:
    """Read a finished style of a job; see :func:`finished_result`.

    Raises:
        InputError: Not there, not finished, more than one to choose from, or damaged.
    """
    name, folder, settings = finished_result(job, style)
    return _read(name, folder, settings)


def finished_result(job: Path, style: str | None) -> tuple[str, Path, dict[str, Any]]:
    """Find a finished style of a job.

    Args:
        job: The job folder.
        style: Its name; may be None when only one is finished.

    Returns:
        Its name, its ``result`` folder and the asset settings it was made with.

    Raises:
        InputError: No job, no such style, not finished, or more than one to choose from.
    """
    folder = JobFolder(job)
    description = folder.description
    names = sorted(description["styles"])
    done = [name for name in names if (folder.style(name) / "result" / "report.json").is_file()]
    if style is None:
        if len(done) > 1:
            raise InputError(
                f"The job has several styles; choose one with --style: {', '.join(done)}.",
                "which_style",
            )
        if not done:
            raise InputError(f"'{job}' has no finished style yet.", "not_finished")
        style = done[0]
    if style not in names:
        known = f"; it has {', '.join(names)}" if names else ""
        raise InputError(f"The job has no style '{style}'{known}.", "no_style")
    if style not in done:
        raise InputError(f"The style '{style}' is not finished; resume the job.", "not_finished")
    settings = description["styles"][style].get("settings", {}).get("asset")
    if not isinstance(settings, dict):
        raise folder.damaged()
    return style, folder.style(style) / "result", settings


def _read(name: str, folder: Path, settings: dict[str, Any]) -> FinishedStyle:
    try:
        with np.load(folder / "avatar.npz", allow_pickle=False) as data:
            vertices = data["vertices"].astype(np.float64)
            normals = data["normals"].astype(np.float64)
            faces = data["faces"].astype(np.int64)
            uvs = data["uvs"].astype(np.float64)
            known = "prior_vertices" in data.files
            person = data["prior_vertices"].astype(np.float64) if known else None
        albedo = cv2.imdecode(np.fromfile(folder / "albedo.png", np.uint8), cv2.IMREAD_COLOR)
        if albedo is None:
            raise ValueError("albedo.png is no picture")
        bottom = _bottom(folder)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, cv2.error) as error:
        raise InputError(
            f"The result of style '{name}' is damaged ({error}); delete '{folder}' and resume.",
            "bad_result",
        ) from error
    return FinishedStyle(
        name=name,
        folder=folder,
        mesh=SurfaceMesh(vertices, faces),
        normals=normals,
        atlas=atlas_of_corners(faces, uvs),
        albedo=np.ascontiguousarray(albedo[..., ::-1], dtype=np.uint8),
        roughness=float(settings["roughness"]),
        ball_radius=float(settings.get("ball_radius", AssetSettings.ball_radius)),
        bottom=bottom,
        person=person,
    )


def _bottom(folder: Path) -> float | None:
    """Height of the flat cut from ``report.json``; None in results made before there was one."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    height = (report.get("mesh") or {}).get("bottom_z")
    return None if height is None else float(height)


def atlas_of_corners(faces: IntArray, uvs: FloatArray) -> Atlas:
    """Atlas vertices from UVs per corner ``(F, 3, 2)``: corners of one place and UV are one."""
    corners = np.column_stack([faces.reshape(-1), uvs.reshape(-1, 2)])
    unique, index = np.unique(corners, axis=0, return_inverse=True)
    source = unique[:, 0].astype(np.int64)
    return Atlas(source, index.reshape(-1, 3).astype(np.int64), unique[:, 1:], 0, 0.0, None, 0)


# -- other formats ----------------------------------------------------------------------------


def export_style(item: FinishedStyle, kind: str, path: Path) -> list[Path]:
    """Write a finished style as ``glb``, ``obj``, ``usd`` (or its kinds), ``ply`` or ``stl``.

    GLB as it was made (textures and morph target inside); OBJ with MTL and textures beside it;
    PLY with vertex colours from the texture; STL in millimetres, as slicers read it.

    Args:
        item: The style.
        kind: ``glb``, ``obj``, ``ply``, ``stl``, or one of :data:`.asset.usd.KINDS`.
        path: The file to write.

    Returns:
        Every file that was written.

    Raises:
        ValueError: Unknown format.
        InputError: USD is asked for and its library is not installed.
        OSError: Not writable; files already there stay whole.
    """
    if kind == "glb":
        write_bytes(path, (item.folder / "avatar.glb").read_bytes())
        return [path]
    if kind == "obj":
        return _export_obj(item, path)
    if kind == "ply":
        colored = SurfaceMesh(item.mesh.vertices, item.mesh.faces, vertex_colors(item))
        write_ply(path, colored)
        return [path]
    if kind in KINDS:
        mesh, where = item.mesh, item.textures
        return write_usd(
            path,
            mesh.vertices,
            item.normals,
            mesh.faces,
            item.atlas,
            where,
            item.roughness,
            item.person,
        )
    if kind == "stl":
        write_stl(path, item.mesh)
        return [path]
    raise ValueError(f"unknown format {kind!r}")


def vertex_colors(item: FinishedStyle) -> ByteImage:
    """sRGB ``(V, 3)`` per mesh vertex: the mean of the texture at its atlas vertices."""
    colors = sample_texture(item.albedo, item.atlas.uv)
    count = len(item.mesh.vertices)
    total = np.stack([np.bincount(item.atlas.source, c, minlength=count) for c in colors.T], 1)
    times = np.bincount(item.atlas.source, minlength=count)
    return np.asarray(np.round(255 * total / np.maximum(times, 1)[:, None]), dtype=np.uint8)


def _export_obj(item: FinishedStyle, path: Path) -> list[Path]:
    written, names = [path, path.with_suffix(".mtl")], {}
    for name, source in item.textures.items():
        target = path.with_name(f"{path.stem}_{name}.png")
        write_bytes(target, source.read_bytes())
        names[name] = target.name
        written.append(target)
    mesh = item.mesh
    write_obj(path, mesh.vertices, item.normals, mesh.faces, item.atlas, names, item.roughness)
    return written
