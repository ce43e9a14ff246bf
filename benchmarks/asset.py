"""The asset of a finished style made again: cost, mesh, maps and slider, as a table and JSON.

    python benchmarks/asset.py JOB [--style NAME] --out DIR [--set resolution=512 faces=80000 ...]

The job is only read. Figures: CPU seconds and memory; shape of the triangles; the normal map shaded
on the finished mesh against the full-resolution surface, from four sides; the volume-rendered
fields against the textured mesh; the slider at the person; cracks (rays from outside that meet a
back side first).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from toonify3d.asset import pipeline
from toonify3d.asset.bake import DenseSurface, tangent_frames
from toonify3d.asset.field_render import FieldView, render_field
from toonify3d.asset.levelset import ClippedField
from toonify3d.asset.mesh import vertex_normals
from toonify3d.asset.render import Renderable, orbit_camera, render_view
from toonify3d.asset.settings import AssetSettings
from toonify3d.asset.surface import ExtractedSurface
from toonify3d.evaluation.images import foreground_psnr
from toonify3d.finished import atlas_of_corners, finished_result
from toonify3d.meshes import load_mesh
from toonify3d.portrait2d.exemplar import read_working_image
from toonify3d.portrait2d.person_regions import person_regions
from toonify3d.progress import SilentProgress
from toonify3d.raycast import Hits, MeshQuery, interpolate
from toonify3d.scene import Camera, Scene, SurfaceMesh
from toonify3d.training.refined_cameras import with_refined_cameras
from toonify3d.training.stage1 import load_prior
from toonify3d.training.stage2 import load_geometry
from toonify3d.training.stage3 import load_avatar

Array = npt.NDArray[Any]
LIGHT = np.array([0.4, -0.75, 0.53]) / np.linalg.norm([0.4, -0.75, 0.53])
SIZE = 320


def lambert(normals: Array) -> Array:
    """Light ``(N,)`` on a white surface."""
    unit = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return 0.2 + 0.8 * np.clip(unit @ LIGHT, 0, 1)


def cameras(mesh: SurfaceMesh) -> list[Camera]:
    """Four sides."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    distance = 0.6 * float(np.linalg.norm(high - low)) / np.tan(0.15)
    center = (low + high) / 2
    turns = np.arange(4) * np.pi / 2
    return [orbit_camera(center, distance, t, 0.05, SIZE, SIZE, 0.30) for t in turns]


def mapped_normals(folder: Path, hits: Hits) -> Array:
    """Normals at hits of the finished mesh, as its normal map and tangents give them."""
    data = np.load(folder / "avatar.npz")
    vertices, faces = data["vertices"].astype(float), data["faces"].astype(np.int64)
    atlas = atlas_of_corners(faces, data["uvs"].astype(float))
    normals = data["normals"].astype(float)[atlas.source]
    tangents, signs = tangent_frames(vertices[atlas.source], normals, atlas)
    corners = atlas.faces[hits.face]

    def mix(values: Array) -> Array:
        return np.einsum("nk,nkc->nc", hits.weights, values[corners])

    image = cv2.imread(str(folder / "normal.png"))[..., ::-1].astype(np.float32)
    uv, side = mix(atlas.uv).astype(np.float32), image.shape[0]
    u, v = uv[:, 0] * side - 0.5, (1 - uv[:, 1]) * side - 0.5
    local = np.concatenate(
        [
            cv2.remap(image, u[None, i : i + 30000], v[None, i : i + 30000], cv2.INTER_LINEAR)[0]
            for i in range(0, len(u), 30000)
        ]
    )
    local = local / 127.5 - 1
    n, t = mix(normals), mix(tangents)
    b = signs[corners[:, 0], None] * np.cross(n, t)
    return np.asarray(local[:, :1] * t + local[:, 1:2] * b + local[:, 2:] * n)


def normal_figures(
    folder: Path, mesh: SurfaceMesh, dense: SurfaceMesh, calm: Array
) -> dict[str, float]:
    """PSNR of shading against the full-resolution surface, raw and without its ripple.

    ``calm (V, 3)`` are the normals of ``dense`` without the ripple.
    """
    low, high = (MeshQuery(item.vertices, item.faces) for item in (mesh, dense))
    raw = vertex_normals(dense.vertices, dense.faces)
    error: dict[str, list[Array]] = {"raw": [], "without_ripple": [], "without_map": []}
    for camera in cameras(mesh):
        x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
        rays = camera.rays(np.stack([x, y], axis=-1).reshape(-1, 2))
        far, near = high.cast(*rays), low.cast(*rays)
        both = (far.face >= 0) & (near.face >= 0)
        far, near = (Hits(h.face[both], h.distance[both], h.weights[both]) for h in (far, near))
        shown = lambert(mapped_normals(folder, near))
        plain = vertex_normals(mesh.vertices, mesh.faces)
        truth = lambert(interpolate(raw, dense.faces, far))
        smooth = lambert(interpolate(calm, dense.faces, far))
        error["raw"].append(shown - truth)
        error["without_ripple"].append(shown - smooth)
        error["without_map"].append(lambert(interpolate(plain, mesh.faces, near)) - smooth)
    return {
        name: round(float(-10 * np.log10((np.concatenate(parts) ** 2).mean())), 2)
        for name, parts in error.items()
    }


def field_figures(view: FieldView, item: Renderable) -> list[float]:
    """PSNR of the fields, volume-rendered, against the textured mesh, flat, from four sides."""
    out = []
    for camera in cameras(item.mesh):
        seen, cover = render_field(view, camera, "flat")
        shown, alpha = render_view(item, camera, "flat")
        out.append(round(foreground_psnr(seen, shown, np.minimum(cover, alpha)), 2))
    return out


def triangle_figures(mesh: SurfaceMesh) -> dict[str, Any]:
    """Roundness (1 is equilateral) and edge lengths of the triangles, and cracks."""
    corners = mesh.vertices[mesh.faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    round_ = 2 * np.sqrt(3) * np.linalg.norm(cross, axis=1) / (edges**2).sum(axis=1)
    query, back = MeshQuery(mesh.vertices, mesh.faces), 0
    for camera in cameras(mesh):
        x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
        origins, directions = camera.rays(np.stack([x, y], axis=-1).reshape(-1, 2))
        hits = query.cast(origins, directions)
        facing = np.einsum("ij,ij->i", cross[np.maximum(hits.face, 0)], directions)
        back += int(((hits.face >= 0) & (facing > 0)).sum())
    return {
        "roundness_1_5_50_percent": np.percentile(round_, [1, 5, 50]).round(3).tolist(),
        "slivers": int((round_ < 0.1).sum()),
        "edge_mm_1_50_99_percent": np.percentile(1e3 * edges, [1, 50, 99]).round(2).tolist(),
        "cracked_rays": back,
    }


def parse(pairs: list[str], settings: AssetSettings) -> AssetSettings:
    """Settings with ``NAME=VALUE`` changed."""
    changed = dict(pair.split("=", 1) for pair in pairs)
    kinds = {name: type(getattr(settings, name)) for name in changed}
    values = {
        name: value == "True" if kinds[name] is bool else kinds[name](value)
        for name, value in changed.items()
    }
    return replace(settings, **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--style")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", type=Path, help="another mesh.npz of the person")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    _, result, saved = finished_result(options.job, options.style)
    known = {item.name for item in fields(AssetSettings)}
    settings = AssetSettings(**{key: value for key, value in saved.items() if key in known})
    settings = parse(options.set, settings)
    scene = with_refined_cameras(Scene.load(options.job / "capture"), options.job / "prior")
    prior = load_prior(options.job / "prior", "cpu")
    shape = load_geometry(prior, result.parent / "geometry", "cpu")
    avatar = load_avatar(shape, result.parent / "texture", "cpu")
    person = load_mesh(options.prior or options.job / "prior" / "mesh.npz")
    exemplar = read_working_image(result.parent / "exemplar.png")
    options.out.mkdir(parents=True, exist_ok=True)
    progress = SilentProgress()
    regions = person_regions(scene, person, options.out / "regions.npz", progress)
    kept: list[ExtractedSurface] = []
    extract = pipeline.extract_surface

    def keep(*arguments: Any) -> ExtractedSurface:
        kept.append(extract(*arguments))
        return kept[0]

    pipeline.extract_surface = keep
    started = time.process_time()
    report = pipeline.build_asset(
        avatar, person, scene, exemplar, options.out, settings, progress, regions
    ).as_dict()
    spent = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    norm, surface = scene.normalization, kept[0]
    mesh = SurfaceMesh(norm.to_world(surface.vertices), surface.faces)
    dense = SurfaceMesh(norm.to_world(surface.dense_vertices), surface.dense_faces)
    # In unit space, where the ripple's extent is known.
    calm = DenseSurface.of_mesh(surface.dense_vertices, surface.dense_faces).normals
    data = np.load(options.out / "avatar.npz")
    atlas = atlas_of_corners(mesh.faces, data["uvs"].astype(float))
    albedo = cv2.imread(str(options.out / "albedo_before_enhancement.png"))
    item = Renderable(mesh, np.ascontiguousarray(albedo[..., ::-1]), atlas.uv, atlas.faces)
    cut = ClippedField.of_scene(avatar, scene, settings.ball_radius, report["mesh"]["bottom_z"])
    figures = {
        "cpu_s": round(spent, 1),
        "peak_rss_mb": round(peak),
        "wall_s": report["seconds"],
        "mesh": report["mesh"],
        "texture": report["texture"],
        "triangles": triangle_figures(mesh),
        "normal_map_db": normal_figures(options.out, mesh, dense, calm),
        "fields_against_mesh_db": field_figures(
            FieldView(cut, mesh, norm, float(prior.inv_s)), item
        ),
        "warnings": progress.warnings,
    }
    text = json.dumps(figures, indent=1, default=float)
    (options.out / "figures.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
