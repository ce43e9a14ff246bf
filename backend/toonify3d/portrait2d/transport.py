"""Colours of one set of pixels carried to those of another, chroma only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..scene import Float32Array, FloatArray


@dataclass(frozen=True)
class ColourMap:
    """An affine map of a and b, and a pull of L.

    Attributes:
        matrix: ``(2, 2)`` of a and b.
        source, target: ``(3,)`` mean CIELAB before and after.
        light: Factor of L round its mean.
    """

    matrix: FloatArray
    source: FloatArray
    target: FloatArray
    light: float

    def __call__(self, lab: Float32Array) -> Float32Array:
        """Map ``(..., 3)`` CIELAB."""
        moved = lab - self.source
        light = moved[..., :1] * self.light + self.target[0]
        chroma = moved[..., 1:] @ self.matrix.T + self.target[1:]
        return np.asarray(np.concatenate([np.clip(light, 2, 98), chroma], axis=-1), np.float32)


def plane_transport(source: Float32Array, target: Float32Array, pull: float) -> ColourMap:
    """Optimal transport of a and b between Gaussians (Monge-Kantorovich: Pitie, Kokaram 2007).

    L is not transported, which would tear shading apart (method_anchors B2); its mean and spread
    are drawn towards the target's.

    Args:
        source: ``(n, 3)`` CIELAB of what is to be recoloured.
        target: ``(m, 3)`` CIELAB of the colours wanted.
        pull: How far mean and spread of L go, 0 to 1.
    """
    mean, goal = source.mean(0).astype(float), target.mean(0).astype(float)
    a = np.cov(source[:, 1:].T) + 4.0 * np.eye(2)  # nearly uniform clothes have no spread to divide
    b = np.cov(target[:, 1:].T) + 1e-3 * np.eye(2)
    root = _root(a)
    inverse = np.linalg.inv(root)
    matrix = inverse @ _root(root @ b @ root) @ inverse
    size = np.linalg.norm(matrix, 2)
    matrix *= min(1.0, 2.0 / max(float(size), 1e-9))
    spread = float(target[:, 0].std() / max(float(source[:, 0].std()), 3.0))
    light = 1 + pull * (np.clip(spread, 0.5, 1.6) - 1)
    goal[0] = mean[0] + pull * (goal[0] - mean[0])
    return ColourMap(matrix, mean, goal, float(light))


def _root(matrix: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
