"""A prior, a style and captures known in closed form, to judge stages II and III by."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from toonify3d.scene import Camera, Frame, Normalization, Scene, StylizedView
from toonify3d.snr.avatar import StylizedGeometry
from toonify3d.snr.fields import SurfaceSample
from toonify3d.snr.rendering import render_view

RADIUS = 0.5


class BallPrior:
    """A ball with dark "hair" on top, light "skin" below and fine stripes; exact distances."""

    device = torch.device("cpu")

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        length = x.norm(dim=1).clamp(min=1e-9)
        color = self.pattern(x)
        return SurfaceSample(length - RADIUS, x / length[:, None], 2.0 * color - 1.0)

    def radiance(
        self, x: torch.Tensor, sample: SurfaceSample, direction: torch.Tensor
    ) -> torch.Tensor:
        return self.pattern(x)

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=1) - RADIUS

    def sdf_gradient(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=1, keepdim=True).clamp(min=1e-9)

    def color(self, x: torch.Tensor) -> torch.Tensor:
        return self.pattern(x).detach()

    @staticmethod
    def pattern(x: torch.Tensor) -> torch.Tensor:
        hair = torch.sigmoid((x[:, 2:] - 0.15) * 40.0)
        skin, dark = torch.tensor([0.8, 0.6, 0.5]), torch.tensor([0.2, 0.15, 0.1])
        base = hair * dark + (1.0 - hair) * skin
        stripes = 0.06 * torch.sin(25.0 * x[:, :1]) * torch.sin(25.0 * x[:, 2:])
        return (base + stripes).clamp(0.02, 0.98)


class KnownBend(torch.nn.Module):
    """The true deformation: wider sideways, and a bulge in front."""

    initial = None

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        bulge = torch.exp(-((y - torch.tensor([0.0, -0.5, 0.0])) ** 2).sum(1) / (2 * 0.2**2))
        zero = torch.zeros_like(bulge)
        return torch.stack([-0.1 * y[:, 0], 0.07 * bulge, zero], dim=1)

    def with_jacobian(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        offset = y - torch.tensor([0.0, -0.5, 0.0])
        bulge = torch.exp(-(offset**2).sum(1) / (2 * 0.2**2))
        jacobian = torch.zeros(len(y), 3, 3)
        jacobian[:, 0, 0] = -0.1
        jacobian[:, 1] = -0.07 * bulge[:, None] * offset / 0.2**2
        return self(y), jacobian


def look_at(yaw: float, size: int = 96, distance: float = 2.0, radius: float = 1.0) -> Camera:
    """A camera on the horizon at ``yaw`` (0 = in front of the face, at -Y), looking at 0."""
    center = distance * radius * np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    forward = -center / np.linalg.norm(center)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    c2w[:3, 3] = center
    focal = 1.5 * size
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return Camera(K, c2w, size, size)


def make_scene(root: Path, size: int = 96, radius: float = 1.0) -> Scene:
    """A scene with 12 frames all round; frames' images are not written."""
    frames = []
    for number in range(12):
        yaw = math.remainder(number * math.tau / 12, math.tau)
        frames.append(Frame(f"{number:04d}", number, look_at(yaw, size, radius=radius), yaw))
    return Scene(root, frames, Normalization(np.zeros(3), radius))


class Painted:
    """A field in the colours of a style function, for rendering truth."""

    device = torch.device("cpu")

    def __init__(self, geometry: StylizedGeometry, style: object) -> None:
        self.geometry, self.style = geometry, style

    def sdf(self, y: torch.Tensor) -> torch.Tensor:
        return self.geometry.sdf(y)

    def sdf_gradient(self, y: torch.Tensor) -> torch.Tensor:
        return self.geometry.sdf_gradient(y)

    def color(self, y: torch.Tensor) -> torch.Tensor:
        return self.style(y, self.geometry.prior.color(self.geometry.to_prior(y)))


def cartoon(y: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Hair turns blue, skin turns pink, and two black eyes are drawn in front."""
    dark = torch.sigmoid((0.45 - color.mean(1, keepdim=True)) * 30.0)
    blue, pink = torch.tensor([0.1, 0.2, 0.7]), torch.tensor([0.95, 0.6, 0.6])
    out = dark * blue + (1 - dark) * pink
    for side in (-0.15, 0.15):
        eye = (y[:, 0] - side) ** 2 + y[:, 2] ** 2 < 0.05**2
        out[eye & (y[:, 1] < 0)] = 0.02
    return out


def portraits(scene: Scene, bend: torch.nn.Module, yaws: tuple[float, ...]) -> list[StylizedView]:
    """Perfect stylized views of the bent, painted ball from ``yaws``."""
    field = Painted(StylizedGeometry(BallPrior(), bend), cartoon)
    size = scene.frames[0].camera.width
    views = []
    for number, yaw in enumerate(yaws):
        camera = look_at(yaw, size, radius=scene.normalization.radius)
        view = render_view(field, camera, scene.normalization)
        frame = Frame(f"{100 + number:04d}", 100 + number, camera, yaw)
        views.append(
            StylizedView(frame, view.color, view.mask, np.ones(view.mask.shape, np.float32))
        )
    return views
