"""Which program measures depth, said early and plainly; never another than the one asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from ...errors import InputError
from ...progress import Progress
from ...scene import Camera, Float32Array, Scene
from ..depth_settings import DepthSettings
from ..hull import Hull
from .colmap_stereo import colmap_maps, find_colmap
from .openmvs import find_openmvs, openmvs_maps

SOURCES = ("builtin", "openmvs", "colmap", "none")


def check_depth_source(settings: DepthSettings) -> None:
    """See early whether the wanted source of depth can be used.

    Raises:
        InputError: Unknown (``depth_source``), or not installed (``no_openmvs``, ``no_colmap``).
    """
    if settings.source not in SOURCES:
        raise InputError(
            f"{settings.source!r} is no source of depth; capture.depth.source is one of "
            f"{', '.join(SOURCES)}.",
            "depth_source",
        )
    if settings.source == "openmvs":
        find_openmvs(settings.programs)
    elif settings.source == "colmap":
        find_colmap(settings.programs)


def external_maps(
    scene: Scene, hull: Hull, settings: DepthSettings, progress: Progress
) -> dict[int, tuple[Camera, Float32Array, Float32Array]]:
    """Camera, depth (0 = none, and outside the mask) and confidence by position of the frame.

    Tells ``progress`` which program made them, and of how many frames.

    Raises:
        InputError: See :func:`~.openmvs.openmvs_maps` and :func:`~.colmap_stereo.colmap_maps`.
        CancelledError: By ``progress``; no program is left running.
    """
    with tempfile.TemporaryDirectory(prefix="toonify3d_depth_") as folder:
        if settings.source == "openmvs":
            maps = openmvs_maps(scene, hull, Path(folder), settings, progress)
            name = f"OpenMVS ({find_openmvs(settings.programs)['DensifyPointCloud']})"
        else:
            maps = colmap_maps(scene, hull, Path(folder), settings, progress)
            name = f"COLMAP ({find_colmap(settings.programs)})"
    progress.warn(f"Stereo depth was made by {name}: {len(maps)} of {len(scene.frames)} frames.")
    return {index: _within_mask(scene, index, *found) for index, found in sorted(maps.items())}


def _within_mask(
    scene: Scene, index: int, camera: Camera, depth: Float32Array, trust: Float32Array
) -> tuple[Camera, Float32Array, Float32Array]:
    mask = scene.mask(scene.frames[index])
    small = cv2.resize(mask, (depth.shape[1], depth.shape[0]), interpolation=cv2.INTER_AREA)
    inside = (small > 127) & (depth > 0)
    none = np.float32(0.0)
    return camera, np.where(inside, depth, none), np.where(inside, trust, none)
