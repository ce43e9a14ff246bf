"""Ray casting and closest points on a triangle mesh: one Warp source for CPU and CUDA."""

# Warp compiles the kernels from their text; its Python stubs do not describe what they may use.
# mypy: disable-error-code="untyped-decorator,misc,attr-defined,index,no-any-return"
# mypy: disable-error-code="var-annotated,valid-type"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import warp as wp

from .scene import Camera, Float32Array, FloatArray
from .warp_start import start_warp

IntArray = npt.NDArray[np.int64]
FAR = 1.0e6


@wp.kernel
def _cast(
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    reach: float,
    face: wp.array(dtype=int),
    hit: wp.array(dtype=wp.vec3),
) -> None:
    i = wp.tid()
    query = wp.mesh_query_ray(mesh, origins[i], directions[i], reach)
    face[i] = -1
    if query.result:
        face[i] = query.face
        hit[i] = wp.vec3(query.t, query.u, query.v)


@wp.kernel
def _closest(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    face: wp.array(dtype=int),
    hit: wp.array(dtype=wp.vec3),
) -> None:
    i = wp.tid()
    query = wp.mesh_query_point_no_sign(mesh, points[i], 1.0e6)
    face[i] = -1
    if query.result:
        face[i] = query.face
        near = wp.mesh_eval_position(mesh, query.face, query.u, query.v)
        hit[i] = wp.vec3(wp.length(near - points[i]), query.u, query.v)


@dataclass(frozen=True)
class Hits:
    """Answers of a query.

    Attributes:
        face: Triangle ``(N,)``, -1 for none.
        distance: ``(N,)`` along the ray, or to the closest point.
        weights: Barycentric coordinates ``(N, 3)`` in the triangle's vertex order.
    """

    face: IntArray
    distance: FloatArray
    weights: FloatArray


class MeshQuery:
    """A triangle mesh ready for ray casting and closest-point queries.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        device: Warp device.
    """

    def __init__(self, vertices: FloatArray, faces: IntArray, device: str = "cpu") -> None:
        start_warp()
        self.device = device
        # Single precision keeps more digits round the mesh's own centre.
        self.center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        self._mesh: Any = wp.Mesh(
            points=self.vectors(vertices - self.center),
            indices=wp.array(faces.astype(np.int32).reshape(-1), dtype=int, device=device),
        )

    def cast(self, origins: FloatArray, directions: FloatArray, reach: float = FAR) -> Hits:
        """First hits of rays ``(N, 3)``, unit ``directions``."""
        inputs = [self.vectors(origins - self.center), self.vectors(directions), reach]
        return self._launch(_cast, inputs, len(origins))

    def depth(self, camera: Camera) -> Float32Array:
        """Depth along the camera's z through the pixel centres, ``(H, W)``, 0 for a miss."""
        columns, rows = np.meshgrid(
            np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5, indexing="xy"
        )
        origins, directions = camera.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
        hits = self.cast(origins, directions)
        along_z = np.where(hits.face >= 0, hits.distance * (directions @ camera.c2w[:3, 2]), 0.0)
        return np.asarray(along_z.reshape(columns.shape), dtype=np.float32)

    def closest(self, points: FloatArray) -> Hits:
        """Exact closest points of the surface to ``points (N, 3)``."""
        return self._launch(_closest, [self.vectors(points - self.center)], len(points))

    def _launch(self, kernel: Any, inputs: list[Any], count: int) -> Hits:
        face = wp.full(count, -1, dtype=int, device=self.device)
        hit = wp.zeros(count, dtype=wp.vec3, device=self.device)
        if count:
            wp.launch(
                kernel,
                dim=count,
                inputs=[self._mesh.id, *inputs, face, hit],
                device=self.device,
            )
        values = hit.numpy().astype(np.float64).reshape(-1, 3)
        weights = np.stack([values[:, 1], values[:, 2], 1 - values[:, 1] - values[:, 2]], axis=1)
        return Hits(face.numpy().astype(np.int64), values[:, 0], weights)

    @property
    def mesh_id(self) -> Any:
        """For kernels of other modules; coordinates are relative to :attr:`center`."""
        return self._mesh.id

    def vectors(self, points: FloatArray) -> Any:
        """``(N, 3)`` as a Warp array of the query's device."""
        data = np.ascontiguousarray(points, dtype=np.float32)
        return wp.array(data, dtype=wp.vec3, device=self.device)


def interpolate(values: FloatArray, faces: IntArray, hits: Hits) -> FloatArray:
    """Vertex ``values (V, C)`` at hits, ``(N, C)``; rows without a hit are meaningless."""
    corners = values[faces[np.maximum(hits.face, 0)]]
    return np.asarray(np.einsum("nk,nkc->nc", hits.weights, corners))
