"""Our own compact mesh file: what one step hands to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .files import write_atomic
from .scene import SurfaceMesh


def save_mesh(path: Path, mesh: SurfaceMesh) -> None:
    """Write vertices (float64), faces and colours as ``.npz``, atomically."""
    arrays: dict[str, npt.NDArray[Any]] = {"vertices": mesh.vertices, "faces": mesh.faces}
    if mesh.colors is not None:
        arrays["colors"] = mesh.colors
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def load_mesh(path: Path) -> SurfaceMesh:
    """Read what :func:`save_mesh` wrote.

    Raises:
        FileNotFoundError: The file is not there.
    """
    with np.load(path) as data:
        return SurfaceMesh(
            data["vertices"].astype(np.float64),
            data["faces"].astype(np.int64),
            data.get("colors"),
        )


def edge_adjacency(faces: npt.NDArray[np.int64], count: int) -> sparse.csr_matrix:
    """Symmetric ``(V, V)`` matrix with a 1 for every edge of the triangles ``(F, 3)``."""
    rows, columns = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    half = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    both = (half + half.T).tocsr()
    both.data[:] = 1.0
    return both
