"""``toonify3d evaluate``: a job's meshes against known shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from ..errors import InputError
from ..meshes import load_mesh
from ..scene import Scene, SurfaceMesh
from ..training.refined_cameras import with_refined_cameras
from .surface import evaluate_surface


def evaluate_job(
    job: Path, capture: Path, style: str | None = None, styled_truth: Path | None = None
) -> dict[str, Any]:
    """Distances of a job's surfaces to the truth.

    Args:
        job: Job folder with at least a finished stage I.
        capture: Ground-truth capture, a folder with ``gt/cameras.json`` and ``gt/mesh.npz``.
        style: Also measure this style's mesh; needs ``styled_truth``.
        styled_truth: ``mesh.npz`` of the known stylized shape. The prior is measured against it
            too: what stage II has to beat.

    Returns:
        ``prior``, and with a style ``prior_to_styled`` and ``styled``, each as
        :func:`~.surface.evaluate_surface` gives it.

    Raises:
        InputError: A needed file is not there.
    """
    prior_file = job / "prior" / "mesh.npz"
    if not prior_file.exists():
        raise InputError(f"'{job}' has no finished stage I to evaluate.", "not_finished")
    scene = with_refined_cameras(Scene.load(job / "capture"), job / "prior")
    prior = read_mesh(prior_file)
    figures = {"prior": evaluate_surface(prior, scene, capture / "gt")}
    if style is None:
        return figures
    if styled_truth is None:
        raise InputError("A style is evaluated against --styled-truth mesh.npz; give it.", "usage")
    result = job / "styles" / style / "result" / "avatar.obj"
    if not result.exists():
        raise InputError(f"'{job}' has no finished style '{style}'.", "not_finished")
    truth = styled_truth.parent
    figures["prior_to_styled"] = evaluate_surface(prior, scene, truth)
    figures["styled"] = evaluate_surface(read_mesh(result), scene, truth)
    return figures


def read_mesh(path: Path) -> SurfaceMesh:
    """A mesh file (npz of ours, or anything trimesh reads) in its own coordinates.

    Raises:
        InputError: It holds no triangles (``bad_mesh``).
        FileNotFoundError: It is not there.
    """
    if path.suffix == ".npz":
        return load_mesh(path)
    mesh = trimesh.load_mesh(path, process=False)
    if not isinstance(mesh, trimesh.Trimesh):
        raise InputError(f"'{path}' holds no triangle mesh.", "bad_mesh")
    return SurfaceMesh(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))


def format_table(figures: dict[str, Any]) -> str:
    """The figures as lines of text, percent of the true bounding box's diagonal."""
    head = f"{'':16} {'direction':16} {'part':8} {'median':>8} {'p95':>8} {'mean':>8}"
    lines = [head]
    for name, entry in figures.items():
        for direction in ("result_to_truth", "truth_to_result", "truth_to_fitted"):
            parts = {part: row for part, row in entry[direction].items() if isinstance(row, dict)}
            for part, row in parts.items():
                values = " ".join(_cell(row[key]) for key in ("median", "p95", "mean"))
                lines.append(f"{name:16} {direction:16} {part:8} {values}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.4f}':>8}"
