"""Analytic fields with known surface, normals and colours."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toonify3d.scene import Normalization, Scene


class AnalyticField:
    """A field from a distance function; colour is the position, gradient by autograd."""

    device = torch.device("cpu")

    def __init__(self, distance):
        self._distance = distance

    def sdf(self, x):
        return self._distance(x)

    def sdf_gradient(self, x):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(self._distance(x).sum(), x)[0]

    def color(self, x):
        return x * 0.5 + 0.5


def ball(center, radius):
    middle = torch.tensor(center, dtype=torch.float32)
    return lambda x: (x - middle).norm(dim=1) - radius


def torus(major, minor):
    def distance(x):
        ring = x[:, :2].norm(dim=1) - major
        return torch.sqrt(ring**2 + x[:, 2] ** 2) - minor

    return distance


def union(*parts):
    return lambda x: torch.stack([part(x) for part in parts]).amin(dim=0)


def shell(outer, inner):
    """A ball with a hollow: the inner surface must not reach the mesh."""
    return lambda x: torch.maximum(outer(x), -inner(x))


def scene(center=(0.0, 0.0, 0.0), radius=1.0, crop_z=-np.inf, landmarks=None):
    norm = Normalization(np.array(center), radius)
    return Scene(Path("nowhere"), [], norm, landmarks, crop_z)


@pytest.fixture
def fields():
    """This module, so that tests can build fields."""
    return sys.modules[__name__]
