"""A small synthetic capture: a coloured ball with a bump, filmed from a ring of cameras."""

from pathlib import Path

import numpy as np
import torch

from toonify3d.files import write_image
from toonify3d.scene import Camera, Frame, Normalization, Scene
from toonify3d.snr.rendering import render_view

RADIUS = 0.55


class PaintedBall:
    """Analytic field in unit space: a ball with a smooth pattern."""

    device = torch.device("cpu")

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        return x.norm(dim=1) - RADIUS

    def sdf_gradient(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x, dim=1)

    def color(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.4 * torch.sin(5.0 * x + torch.tensor([0.0, 1.0, 2.0]))


def ring_camera(yaw: float, height: float, size: int) -> Camera:
    """A camera at distance 0.8 m of the ball at (0, 0, 1.5), looking at it."""
    center = np.array([0.8 * np.sin(yaw), -0.8 * np.cos(yaw), 1.5 + height])
    forward = np.array([0.0, 0.0, 1.5]) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    c2w[:3, 3] = center
    K = np.array([[1.6 * size, 0, size / 2], [0, 1.6 * size, size / 2], [0, 0, 1.0]])
    return Camera(K, c2w, size, size)


def make_scene(root: Path, count: int = 16, size: int = 48, with_depth: bool = False) -> Scene:
    """Write the capture under ``root``."""
    normalization = Normalization(np.array([0.0, 0.0, 1.5]), 0.25)
    frames = []
    for number in range(count):
        yaw = 2 * np.pi * number / count
        camera = ring_camera(yaw, 0.25 * np.sin(2.4 * number), size)
        view = render_view(PaintedBall(), camera, normalization, background=(30, 90, 20))
        name = f"{number:04d}"
        write_image(root / "frames" / f"{name}.png", view.color)
        write_image(root / "masks" / f"{name}.png", view.mask)
        if with_depth:
            (root / "depth").mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                root / "depth" / f"{name}.npz",
                depth=view.depth,
                confidence=(view.depth > 0).astype(np.float32),
            )
        frames.append(Frame(name, number, camera, float(np.angle(np.exp(1j * yaw)))))
    scene = Scene(root, frames, normalization)
    scene.save()
    return scene
