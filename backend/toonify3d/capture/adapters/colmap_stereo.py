"""Depth by COLMAP's patch-match stereo: the CUDA build of pycolmap, or a ``colmap`` program.

Both need an NVIDIA GPU; COLMAP has no stereo for processors.
Depth map format: COLMAP's documentation ("Depth and Normal Maps") and ``scripts/python``:
``width&height&channels&`` in ASCII, then float32 in rows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pycolmap

from ...errors import InputError
from ...progress import Progress
from ...scene import Camera, Float32Array, Scene
from ..depth_settings import DepthSettings
from ..hull import Hull
from ..look_at import neighbours
from .colmap_workspace import Workspace, write_workspace
from .program import run_program


def read_colmap_map(path: Path) -> Float32Array:
    """A depth map ``(h, w)``, or a normal map ``(h, w, 3)``, that COLMAP wrote (``.bin``).

    Raises:
        InputError: Not such a file, or cut off (``bad_depth_map``).
    """
    data = path.read_bytes()
    parts = data[:64].split(b"&", 3)
    try:
        width, height, channels = (int(part) for part in parts[:3])
        at = sum(len(part) + 1 for part in parts[:3])
        values = np.frombuffer(data, "<f4", width * height * channels, at)
    except ValueError as error:
        raise InputError(
            f"{path.name} is no COLMAP depth map, or is cut off.", "bad_depth_map"
        ) from error
    # Channel by channel, each in rows.
    cube = values.reshape(channels, height, width).transpose(1, 2, 0)
    return np.ascontiguousarray(cube[..., 0] if channels == 1 else cube)


def find_colmap(programs: str) -> str:
    """``"pycolmap"`` when its CUDA build is installed, else the path of a ``colmap`` program.

    Raises:
        InputError: Neither is there (``no_colmap``).
    """
    if not programs and pycolmap.has_cuda:
        return "pycolmap"
    path = shutil.which("colmap", path=programs or None)
    if path is None:
        raise InputError(
            "COLMAP's stereo needs an NVIDIA GPU and either the package pycolmap-cuda12 in place "
            "of pycolmap or a colmap program (capture.depth.programs names its folder); set "
            "capture.depth.source to builtin to do without.",
            "no_colmap",
        )
    return path


def colmap_maps(
    scene: Scene, hull: Hull, folder: Path, settings: DepthSettings, progress: Progress
) -> dict[int, tuple[Camera, Float32Array, Float32Array]]:
    """Camera, depth (0 = none) and confidence by position of the frame in the scene.

    COLMAP filters its geometric maps by agreement of views; what is left counts fully here.

    Raises:
        InputError: No COLMAP (``no_colmap``), or it fails or leaves nothing (``colmap_failed``).
        CancelledError: By ``progress``; a program has been ended.
    """
    colmap = find_colmap(settings.programs)
    work = write_workspace(scene, hull, folder, settings.external_side)
    write_stereo_config(work, hull, settings)
    near = float(work.ranges[:, 0][work.ranges[:, 1] > 0].min())
    far = float(work.ranges[:, 1].max())
    progress.update(0.02, "Depth: COLMAP patch-match stereo")
    if colmap == "pycolmap":
        options = pycolmap.PatchMatchOptions()
        options.depth_min, options.depth_max, options.geom_consistency = near, far, True
        try:
            pycolmap.patch_match_stereo(folder, "COLMAP", options=options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"COLMAP's stereo failed: {error}", "colmap_failed") from error
    else:
        stem = "--PatchMatchStereo."
        run_program(
            [
                *(colmap, "patch_match_stereo", "--workspace_path", str(folder)),
                *("--workspace_format", "COLMAP", f"{stem}geom_consistency", "true"),
                *(f"{stem}depth_min", f"{near:.6g}", f"{stem}depth_max", f"{far:.6g}"),
            ],
            folder,
            "colmap_failed",
            progress,
        )
    return _read_maps(work)


def write_stereo_config(work: Workspace, hull: Hull, settings: DepthSettings) -> None:
    """``stereo/patch-match.cfg``: each image and the images it is compared with."""
    stereo = work.folder / "stereo"
    for name in ("depth_maps", "normal_maps", "consistency_graphs"):
        (stereo / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for index, name in enumerate(work.names):
        center = hull.normalization.center
        sides = neighbours(work.cameras, center, index, settings.neighbour_angles, 45.0)
        sources = [work.names[i] for side in sides for i in side]
        if sources:
            lines += [name, ", ".join(sources)]
    (stereo / "patch-match.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read_maps(work: Workspace) -> dict[int, tuple[Camera, Float32Array, Float32Array]]:
    out = {}
    for index, name in enumerate(work.names):
        path = work.folder / "stereo" / "depth_maps" / f"{name}.geometric.bin"
        if not path.is_file():
            continue
        depth = read_colmap_map(path)
        low, high = work.ranges[index]
        depth = np.where((depth > low) & (depth < high), depth, 0.0).astype(np.float32)
        camera = work.cameras[index].resized(depth.shape[1], depth.shape[0])
        out[index] = (camera, depth, (depth > 0).astype(np.float32))
    if not out:
        raise InputError("COLMAP's stereo left no depth map.", "colmap_failed")
    return out
