"""Warp kernel that sums radial functions at many points."""

# mypy: disable-error-code="untyped-decorator,valid-type,misc,no-any-return"
from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp

from ..scene import FloatArray
from ..warp_start import start_warp


@wp.kernel(enable_backward=False)
def _sum(
    queries: wp.array(dtype=wp.vec3),
    centers: wp.array(dtype=wp.vec3),
    weights: wp.array(dtype=wp.vec3),
    support: float,
    out: wp.array(dtype=wp.vec3),
) -> None:
    n = wp.tid()
    q = queries[n]
    total = wp.vec3(0.0, 0.0, 0.0)
    reach = support * support
    for i in range(centers.shape[0]):
        offset = q - centers[i]
        squared = wp.dot(offset, offset)
        if squared < reach:
            ratio = wp.sqrt(squared) / support
            left = 1.0 - ratio
            left = left * left
            total += (left * left * (4.0 * ratio + 1.0)) * weights[i]
    out[n] = total


def sum_wendland(
    queries: FloatArray, centers: FloatArray, weights: FloatArray, support: float
) -> FloatArray:
    """``sum_i weights_i phi(|q - c_i| / support)`` with Wendland's C2 kernel, on the processor.

    Args:
        queries: ``(Q, 3)``.
        centers: ``(N, 3)``.
        weights: ``(N, 3)``.
        support: Radius of the kernels.

    Returns:
        ``(Q, 3)``, computed in single precision: a tenth of a micrometre on a head.
    """
    start_warp()
    arrays: list[Any] = [
        wp.array(np.ascontiguousarray(rows, dtype=np.float32), dtype=wp.vec3, device="cpu")
        for rows in (queries, centers, weights)
    ]
    out = wp.empty(len(queries), dtype=wp.vec3, device="cpu")
    if len(queries):
        wp.launch(_sum, dim=len(queries), inputs=[*arrays, support, out], device="cpu")
    result: FloatArray = out.numpy().reshape(-1, 3).astype(np.float64)
    return result
