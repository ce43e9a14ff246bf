"""Skin, hair and clothes of a person as labelled points: decided once, of use to every style."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import write_atomic
from ..progress import Progress
from ..raycast import MeshQuery
from ..scene import LabelledPoints, Scene, SurfaceMesh
from .person_face import locate_face
from .regions import classify
from .surface import densify, observe, vertex_normals

# In this order in the labels; a beard is part of the skin.
REGIONS = ("skin", "hair", "clothes")
# Metres between the labelled points, and frames whose colours decide.
_EDGE = 0.004
_FRAMES = 24


def person_regions(
    scene: Scene, prior_mesh: SurfaceMesh, cache: Path, progress: Progress
) -> LabelledPoints | None:
    """The regions of the real person's surface; None when the capture shows no face.

    Args:
        scene: The capture.
        prior_mesh: The person's surface, world metres.
        cache: ``.npz`` that is read when it fits the mesh, and written otherwise.
        progress: Told how far it is.
    """
    if scene.landmarks is None:
        return None
    known = _read(cache, len(prior_mesh.faces))
    if known is not None:
        progress.update(1.0, "regions are already there")
        return known
    mesh = densify(prior_mesh, _EDGE)
    count = len(scene.frames)
    rows = sorted({round(i) for i in np.linspace(0, count - 1, min(count, _FRAMES))})
    query = MeshQuery(mesh.vertices, mesh.faces)
    frame, world = locate_face(scene, query)
    observed = observe(scene, [scene.frames[i] for i in rows], mesh, query, progress)
    normals = vertex_normals(mesh.vertices, mesh.faces) @ frame.rotation.T
    local = frame.to_face(mesh.vertices)
    found = classify(local, normals, mesh.faces, observed, frame.to_face(world))
    labels = np.stack([found.skin, found.hair, found.clothes], axis=1)
    points = LabelledPoints(mesh.vertices, labels, REGIONS)
    _write(cache, points, len(prior_mesh.faces))
    progress.update(1.0, "skin, hair and clothes told apart")
    return points


def _write(path: Path, points: LabelledPoints, faces: int) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "points": points.points.astype(np.float32),
        "labels": points.labels.astype(np.float16),
        "faces": np.array(faces),
    }
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def _read(path: Path, faces: int) -> LabelledPoints | None:
    try:
        with np.load(path) as data:
            if int(data["faces"]) != faces:
                return None
            points, labels = data["points"].astype(float), data["labels"].astype(np.float32)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # missing or damaged: it is made again
    return LabelledPoints(points, labels, REGIONS)
