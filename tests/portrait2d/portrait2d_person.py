"""A small made-up person: an egg with a drawn face, seen by a few cameras; no /work/shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image, write_json
from toonify3d.plan import step_keys
from toonify3d.portrait2d.adapters.base import Photo
from toonify3d.raycast import MeshQuery
from toonify3d.scene import Camera, Frame, Normalization, Scene, SurfaceMesh
from toonify3d.service.job import JobFolder, StepRecord, finish_step
from toonify3d.settings import preset_settings

UNIT = 0.063
SKIN, HAIR, CLOTH = (205, 160, 135), (60, 40, 30), (40, 60, 140)
Recolour = Callable[[np.ndarray, np.ndarray], None]
"""Called with the egg's vertices ``(V, 3)`` in the face frame and their colours, to change them."""


def face_landmarks() -> np.ndarray:
    """``(478, 3)`` of a schematic face in the face frame, exactly symmetric, all points apart."""
    points = np.zeros((478, 3))
    spread = np.random.default_rng(3).uniform(-1, 1, (478, 2)) * [0.8, 0.9]
    points[:, :2] = spread

    def ring(ids, center, radius, start=np.pi / 2, turn=-1.0):
        angle = start + turn * 2 * np.pi * np.arange(len(ids)) / len(ids)
        points[list(ids), 0] = center[0] + radius[0] * np.cos(angle)
        points[list(ids), 1] = center[1] + radius[1] * np.sin(angle)

    ring(lm.FACE_OVAL, (0, 0.05), (1.15, 1.3))
    ring(lm.LEFT_EYE, (0.5, 0.5), (0.22, 0.09), 0.0)
    ring(lm.LEFT_IRIS, (0.5, 0.5), (0.06, 0.06))
    ring(lm.LEFT_BROW, (0.55, 0.85), (0.3, 0.07), 0.0)
    ring(lm.LIPS_OUTER, (0, -0.5), (0.4, 0.14), np.pi, 1.0)
    ring(lm.LIPS_INNER, (0, -0.5), (0.3, 0.03), np.pi, 1.0)
    for i, y in zip(lm.NOSE_RIDGE, np.linspace(0.5, 0.02, 7), strict=True):
        points[i, :2] = 0, y
    for i, x in zip(lm.NOSE_BASE, np.linspace(-0.25, 0.25, 9), strict=True):
        points[i, :2] = x, -0.05 - 0.05 * (1 - abs(4 * x))
    left = np.arange(478) > lm.MIRROR
    points[lm.MIRROR[left]] = points[left] * [-1, 1, 1]
    points[list(lm.MIDLINE), 0] = 0.0
    inside = np.clip(1 - (points[:, 0] / 1.45) ** 2 - ((points[:, 1] - 0.15) / 1.9) ** 2, 0.02, 1)
    points[:, 2] = 1.5 * np.sqrt(inside) - 1.2
    return points


def draw_face(
    points: np.ndarray, size: int, scale: float, eye: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """A flat cartoon (RGB) of face-frame landmarks, and their image points."""
    image = np.full((size, size, 3), 255, np.uint8)
    at = np.stack(
        [size / 2 + points[:, 0] * scale, size / 2 - points[:, 1] * scale, -points[:, 2] * scale], 1
    )
    for contour in (lm.LEFT_EYE, lm.RIGHT_EYE):
        ids = list(contour)
        at[ids, :2] = at[ids, :2].mean(0) + eye * (at[ids, :2] - at[ids, :2].mean(0))

    def fill(ids, color):
        cv2.fillPoly(image, [np.round(at[list(ids), :2]).astype(np.int32)], color, cv2.LINE_AA)

    center = (size // 2, int(size / 2 - 0.25 * scale))
    cv2.ellipse(
        image, center, (int(1.6 * scale), int(1.95 * scale)), 0, 180, 360, (150, 70, 20), -1
    )
    fill(lm.FACE_OVAL, (240, 190, 150))
    for contour in (lm.LEFT_EYE, lm.RIGHT_EYE):
        fill(contour, (255, 255, 255))
        middle = tuple(int(v) for v in at[list(contour), :2].mean(0))
        cv2.circle(image, middle, max(2, int(0.05 * eye * scale)), (20, 20, 60), -1, cv2.LINE_AA)
    for contour in (lm.LEFT_BROW, lm.RIGHT_BROW):
        fill(contour, (70, 30, 10))
    fill(lm.LIPS_OUTER, (200, 30, 60))
    return image, at


def egg_to_face(world: np.ndarray) -> np.ndarray:
    """World points ``(N, 3)`` in the units and axes of :func:`face_landmarks`."""
    return np.stack([world[:, 0], world[:, 2], -world[:, 1]], 1) / UNIT


def _egg(recolour: Recolour | None = None) -> SurfaceMesh:
    theta = np.linspace(0.02, np.pi - 0.02, 70)
    phi = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    radius = np.where(np.cos(t) < -0.55, 1.05, 1.0)
    local = np.stack(
        [
            1.45 * radius * np.sin(t) * np.sin(p),
            1.9 * np.cos(t) * np.where(np.cos(t) < 0, 1.35, 1.0) + 0.15,
            1.5 * radius * np.sin(t) * np.cos(p) - 1.2,
        ],
        -1,
    ).reshape(-1, 3)
    rows, columns = np.meshgrid(np.arange(69), np.arange(120), indexing="ij")
    a = rows * 120 + columns
    b = rows * 120 + (columns + 1) % 120
    faces = np.concatenate(
        [
            np.stack([a, a + 120, b], -1).reshape(-1, 3),
            np.stack([b, a + 120, b + 120], -1).reshape(-1, 3),
        ]
    )
    world = np.stack([local[:, 0], -local[:, 2], local[:, 1]], 1) * UNIT
    height, front = local[:, 1], local[:, 2]
    colors = np.tile(np.array(SKIN, np.uint8), (len(local), 1))
    colors[(height > 1.45) | ((front < -1.2) & (height > -1.0))] = HAIR
    colors[height < -1.9] = CLOTH
    if recolour is not None:
        recolour(local, colors)
    return SurfaceMesh(world, faces.astype(np.int64), colors)


def _look_at(eye: np.ndarray) -> np.ndarray:
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    c2w[:3, 3] = eye
    return c2w


def _render(mesh: SurfaceMesh, caster: MeshQuery, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    face = caster.cast(*camera.rays(np.stack([columns.ravel(), rows.ravel()], 1))).face
    image = np.full((len(face), 3), 90.0)
    normal = np.cross(
        mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]],
        mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]],
    )
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    light = 0.85 + 0.15 * normal[:, 0]
    hit = face >= 0
    image[hit] = mesh.colors[mesh.faces[face[hit], 0]] * light[face[hit], None]
    shape = (camera.height, camera.width)
    return image.reshape(*shape, 3).astype(np.uint8), (hit.reshape(shape) * 255).astype(np.uint8)


def make_subject(root: Path, recolour: Recolour | None = None) -> tuple[Scene, SurfaceMesh]:
    """Scene of 18 cameras round the egg, written to ``root``, and its mesh."""
    mesh = _egg(recolour)
    caster = MeshQuery(mesh.vertices, mesh.faces)
    K = np.array([[260.0, 0, 80], [0, 260.0, 100], [0, 0, 1]])
    frames = []
    yaws = np.linspace(-np.pi, np.pi, 16, endpoint=False) + 0.02
    for i, yaw in enumerate(np.concatenate([yaws, [-0.1, 0.1]])):
        eye = 0.75 * np.array([np.sin(yaw), -np.cos(yaw), 0.02])
        camera = Camera(K, _look_at(eye), 160, 200)
        image, mask = _render(mesh, caster, camera)
        write_image(root / "frames" / f"{i:04d}.png", image)
        write_image(root / "masks" / f"{i:04d}.png", mask)
        frames.append(Frame(f"{i:04d}", 3 * i, camera, float(yaw)))
    local = face_landmarks()
    world = np.stack([local[:, 0], -local[:, 2], local[:, 1]], 1) * UNIT
    return Scene(root, frames, Normalization(np.zeros(3), 0.3), world), mesh


def made_up_job(root: Path, preset: str = "tiny") -> Scene:
    """A job that has read its film: the egg's, so that no film is needed; nothing is trained."""
    scene, _ = make_subject(root / "capture")
    scene.save()
    settings, _ = preset_settings(preset)
    document = {
        "format": 1,
        "capture": {"path": str(root / "film.mp4"), "sha256": "of no film"},
        "settings": dataclasses.asdict(settings),
        "styles": {},
    }
    write_json(root / "job.json", document)
    key = step_keys(JobFolder(root), settings, None)["capture"]
    finish_step(root / "capture", StepRecord(key, 1.0, (), {"frames_used": len(scene.frames)}))
    return scene


def made_up_photos(scene: Scene, count: int = 3, face: bool = True) -> list[Photo]:
    """The first frames as adapters get them, a face assumed in the middle of each."""
    photos = []
    for frame in scene.frames[:count]:
        image = scene.image(frame)
        height, width = image.shape[:2]
        points = np.tile([width / 2, height / 2], (478, 1))
        points[[468, 473]] += [[-20, 0], [20, 0]]
        points[[61, 291]] += [[-12, 30], [12, 30]]
        photos.append(Photo(frame, image, points if face else None))
    return photos
