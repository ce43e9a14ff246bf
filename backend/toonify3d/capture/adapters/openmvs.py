"""Depth by OpenMVS (the paper's choice): ``InterfaceCOLMAP`` and ``DensifyPointCloud``.

OpenMVS is a program of its own (AGPL), never bundled: it is looked for in
``capture.depth.programs``, on PATH and where its own installation puts it. The reader is tested
with maps of release 2.3.0.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...progress import Progress, SubProgress
from ...scene import Camera, Float32Array, Scene
from ..depth_settings import DepthSettings
from ..hull import Hull
from .colmap_workspace import Workspace, write_workspace
from .dmap import DepthMapFile, read_dmap
from .program import run_program

PROGRAMS = ("InterfaceCOLMAP", "DensifyPointCloud")
_USUAL = ("/usr/local/bin/OpenMVS", "/usr/bin/OpenMVS", "/opt/OpenMVS/bin")
FULL_CONFIDENCE = 4.0
"""OpenMVS's confidence is a sum over agreeing views; from here on a depth is trusted fully."""


def find_openmvs(programs: str) -> dict[str, str]:
    """Full paths of the two programs.

    Args:
        programs: A folder, or empty: PATH and the usual places.

    Raises:
        InputError: One is missing (``no_openmvs``).
    """
    places = [programs] if programs else [None, *_USUAL]
    found = {}
    for name in PROGRAMS:
        paths = (shutil.which(name, path=place) for place in places)
        path = next((path for path in paths if path), None)
        if path is None:
            where = programs or "PATH"
            raise InputError(
                f"OpenMVS's {name} is not in {where}: install OpenMVS "
                "(github.com/cdcseacave/openMVS) and name the folder of its programs with "
                "capture.depth.programs, or set capture.depth.source to builtin.",
                "no_openmvs",
            )
        found[name] = path
    return found


def openmvs_maps(
    scene: Scene, hull: Hull, folder: Path, settings: DepthSettings, progress: Progress
) -> dict[int, tuple[Camera, Float32Array, Float32Array]]:
    """Camera, depth (0 = none) and confidence 0 to 1 by position of the frame in the scene.

    Args:
        scene: Frames and masks.
        hull: Gives the points from which OpenMVS chooses neighbours.
        folder: Working folder, the caller's to remove.
        settings: ``programs`` and ``external_side``.
        progress: Gets updates.

    Raises:
        InputError: A program is missing (``no_openmvs``), fails or leaves nothing
            (``openmvs_failed``).
        CancelledError: By ``progress``; the programs have ended.
    """
    programs = find_openmvs(settings.programs)
    work = write_workspace(scene, hull, folder, settings.external_side)
    base = ["-w", str(folder)]
    images = ["--image-folder", str(folder / "images")]
    run_program(
        [programs["InterfaceCOLMAP"], *base, "-i", str(folder), "-o", "scene.mvs", *images],
        folder,
        "openmvs_failed",
        SubProgress(progress, 0.0, 0.1),
    )
    # All maps at the size of the images; no map is dropped, for fusion is only a by-product.
    run_program(
        [
            *(programs["DensifyPointCloud"], *base, "-i", "scene.mvs", "-o", "dense.mvs"),
            *("--resolution-level", "0", "--process-priority", "0"),
            *("--mask-path", str(folder / "masks"), "--ignore-mask-label", "0"),
        ],
        folder,
        "openmvs_failed",
        SubProgress(progress, 0.1, 1.0),
    )
    maps = _matched(sorted(folder.glob("depth*.dmap")), work)
    if not maps:
        raise InputError("OpenMVS left no depth map; see its log.", "openmvs_failed")
    return maps


def _matched(
    files: list[Path], work: Workspace
) -> dict[int, tuple[Camera, Float32Array, Float32Array]]:
    by_name = {name: index for index, name in enumerate(work.names)}
    out = {}
    for path in files:
        found = read_dmap(path)
        # InterfaceCOLMAP may write the name with the folder in front, on Windows with its slash.
        index = by_name.get(found.image.replace("\\", "/").rsplit("/", 1)[-1])
        if index is not None:
            out[index] = (_same_view(found, work.cameras[index]), found.depth, trust(found))
    return out


def trust(found: DepthMapFile) -> Float32Array:
    """Confidence 0 to 1 ``(h, w)`` of a depth map."""
    if found.confidence is None:
        return (found.depth > 0).astype(np.float32)
    value = np.clip(found.confidence / FULL_CONFIDENCE, 0.0, 1.0)
    return np.where(found.depth > 0, value, 0.0).astype(np.float32)


def _same_view(found: DepthMapFile, ours: Camera) -> Camera:
    """Our camera at the map's size.

    Raises:
        InputError: OpenMVS's camera is another (``openmvs_failed``).
    """
    size = found.camera.width, found.camera.height
    wanted = ours.resized(*size)
    apart = np.abs(found.camera.K - wanted.K).max()
    if apart > 0.02 * max(size) or np.abs(found.camera.c2w - wanted.c2w).max() > 1e-3:
        raise InputError(
            f"OpenMVS's camera of {found.image} is not the one it was given.", "openmvs_failed"
        )
    return wanted
