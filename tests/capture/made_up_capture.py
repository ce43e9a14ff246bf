"""A made-up capture with exact truth: a textured bust of two balls in a textured room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toonify3d.files import write_image
from toonify3d.scene import Camera, Frame, Normalization, Scene

BALLS = (((0.0, 0.0, 0.12), 0.11), ((0.0, 0.0, -0.06), 0.14))
"""Centre and radius in metres: a head on a rounded chest."""
ROOM = 2.5
"""Radius in metres of the ball that is the room."""


@dataclass(frozen=True)
class MadeUp:
    images: list
    cameras: list
    masks: list
    depths: list


def orbit(count, width=120, height=160, distance=0.9, focal=1.2, center=(0.0, 0.0, 0.03)):
    """Cameras on a level circle that look at ``center``; frame 0 stands at -Y."""
    K = np.array([[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1.0]])
    cameras = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        position = np.array(center) + distance * np.array([np.sin(angle), -np.cos(angle), 0.1])
        forward = np.array(center) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        c2w = np.eye(4)
        c2w[:3, :4] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
        cameras.append(Camera(K, c2w, width, height))
    return cameras


def _texture(points, colours, frequency, seed):
    """Smooth random colours in space, ``(N, 3)`` 0 to 255."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(24, 3)) * frequency
    phases = rng.uniform(0, 2 * np.pi, 24)
    weights = rng.normal(size=(24, 3)) / np.sqrt(12)
    value = np.sin(points @ waves.T + phases) @ weights
    return np.clip(np.array(colours) + 45 * value, 0, 255)


def _hit(origins, rays, center, radius, inner):
    """Distance to a ball from outside, or from inside when ``inner``; inf = missed."""
    toward = np.asarray(center) - origins
    along = (rays * toward).sum(1)
    inside = along**2 - (toward**2).sum(1) + radius**2
    root = np.sqrt(np.maximum(inside, 0))
    return np.where(inside > 0, along + root if inner else along - root, np.inf)


def render(camera):
    """Image, mask (0 or 255) and depth along z (0 = room) of one camera."""
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, rays = camera.rays(np.stack([columns.ravel(), rows.ravel()], axis=1))
    person = np.min([_hit(origins, rays, c, r, False) for c, r in BALLS], axis=0)
    room = _hit(origins, rays, (0, 0, 0), ROOM, True)
    shown = np.isfinite(person)
    points = origins + np.where(shown, person, room)[:, None] * rays
    skin = _texture(points, (190, 140, 120), 90.0, 1)
    walls = _texture(points, (80, 110, 130), 9.0, 2)
    shape = (camera.height, camera.width)
    image = np.where(shown[:, None], skin, walls).reshape(*shape, 3).astype(np.uint8)
    z = np.where(shown, person * (rays @ camera.c2w[:3, 2]), 0.0)
    mask = shown.reshape(shape).astype(np.uint8) * 255
    return image, mask, z.reshape(shape).astype(np.float32)


def make(count=36, **camera):
    """The whole capture."""
    cameras = orbit(count, **camera)
    images, masks, depths = zip(*(render(c) for c in cameras), strict=True)
    return MadeUp(list(images), cameras, list(masks), list(depths))


def write_scene(capture: MadeUp, root: Path) -> Scene:
    """The capture as a scene folder (true masks)."""
    frames = []
    for index, camera in enumerate(capture.cameras):
        frame = Frame(f"{index:04d}", index, camera, 0.0)
        write_image(root / "frames" / f"{frame.name}.png", capture.images[index])
        write_image(root / "masks" / f"{frame.name}.png", capture.masks[index])
        frames.append(frame)
    scene = Scene(root, frames, Normalization(np.zeros(3), 0.3))
    scene.save()
    return scene


def iou(one, two):
    """Overlap of two masks (0 to 255)."""
    one, two = one > 127, two > 127
    return (one & two).sum() / max(1, (one | two).sum())
