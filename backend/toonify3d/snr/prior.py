"""The prior: trained F_geo and F_app of one real person (result of stage I)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from ..scene import Normalization
from .fields import AppearanceField, FieldSettings, GeometryField, SurfaceSample

CHUNK = 1 << 17
# Cosine between the normal and the tilted directions from which `color` looks.
TILT_COSINE = 0.85


class Prior(nn.Module):
    """Geometry and appearance fields in unit space, with the sharpness they were trained to.

    Args:
        settings: Architecture.
        normalization: World to unit space, kept with the fields.
    """

    def __init__(self, settings: FieldSettings, normalization: Normalization) -> None:
        super().__init__()
        self.settings = settings
        self.normalization = normalization
        self.geometry = GeometryField(settings)
        self.appearance = AppearanceField(settings, self.geometry.feature_width)
        # log(inv_s) / 10, NeuS's parametrisation: comparable learning rates for all parameters.
        self.variance = nn.Parameter(torch.tensor(0.3))

    @property
    def device(self) -> torch.device:
        """Where the fields live."""
        return self.variance.device

    @property
    def inv_s(self) -> torch.Tensor:
        """Inverse standard deviation of the logistic density, a scalar tensor."""
        return torch.exp(self.variance * 10.0).clamp(1e-3, 1e6)

    @property
    def feature_width(self) -> int:
        """Width of F(x)."""
        return self.geometry.feature_width

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        """Distance, gradient and feature of ``(N, 3)`` points, with autograd."""
        return self.geometry.evaluate(x)

    def radiance(
        self, x: torch.Tensor, sample: SurfaceSample, direction: torch.Tensor
    ) -> torch.Tensor:
        """Observed colour ``(N, 3)`` along unit view directions ``(N, 3)``, with autograd."""
        result: torch.Tensor = self.appearance(x, sample.gradient, direction, sample.feature)
        return result

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        """Signed distance ``(N,)``; chunked when no gradient is wanted."""
        if torch.is_grad_enabled():
            return self.geometry.sdf(x)
        if len(x) <= CHUNK:
            return self.geometry.sdf(x)
        return torch.cat([self.geometry.sdf(part) for part in x.split(CHUNK)])

    def sdf_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Gradient of the signed distance ``(N, 3)``, chunked, detached."""
        with torch.no_grad():
            if not len(x):
                return x.new_zeros((0, 3))
            return torch.cat([self.geometry.evaluate(part).gradient for part in x.split(CHUNK)])

    def color(self, x: torch.Tensor) -> torch.Tensor:
        """View-averaged colour ``(N, 3)``: mean over five directions round the normal, detached."""
        with torch.no_grad():
            if not len(x):
                return x.new_zeros((0, 3))
            return torch.cat([self._mean_color(part) for part in x.split(CHUNK // 4)])

    def _mean_color(self, x: torch.Tensor) -> torch.Tensor:
        sample = self.geometry.evaluate(x)
        normal = torch.nn.functional.normalize(sample.gradient, dim=1)
        total = self.radiance(x, sample, -normal)
        directions = _tilted(normal)
        for direction in directions:
            total = total + self.radiance(x, sample, -direction)
        return total / (1 + len(directions))

    def shade(
        self, points: torch.Tensor, directions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Colour as seen along ``directions`` and gradient, for :func:`.render_view`; detached."""
        with torch.no_grad():
            sample = self.geometry.evaluate(points)
            return self.radiance(points, sample, directions), sample.gradient

    def export_state(self) -> dict[str, Any]:
        """Everything that :meth:`from_state` needs: tensors and plain values only."""
        return {
            "settings": asdict(self.settings),
            "center": [float(v) for v in self.normalization.center],
            "radius": float(self.normalization.radius),
            "parameters": self.state_dict(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | str) -> Prior:
        """The prior that :meth:`export_state` described."""
        normalization = Normalization(np.array(state["center"]), float(state["radius"]))
        prior = cls(FieldSettings(**state["settings"]), normalization)
        prior.load_state_dict(state["parameters"])
        return prior.to(device)


def _tilted(normal: torch.Tensor) -> list[torch.Tensor]:
    """Four directions round each normal ``(N, 3)``, at the angle of ``TILT_COSINE``."""
    helper = torch.zeros_like(normal)
    # The axis least aligned with the normal never degenerates the cross product.
    helper.scatter_(1, normal.abs().argmin(1, keepdim=True), 1.0)
    u = torch.nn.functional.normalize(torch.linalg.cross(normal, helper), dim=1)
    v = torch.linalg.cross(normal, u)
    sine = (1.0 - TILT_COSINE**2) ** 0.5
    return [TILT_COSINE * normal + sine * side for side in (u, -u, v, -v)]
