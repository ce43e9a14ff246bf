"""Small learned corrections of what structure from motion and the phone got wrong per frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from ..scene import Camera, FloatArray, Normalization

# No camera model that structure from motion passes is off by more: 2 % of the focal length.
FOCAL_BOUND = 0.02
# What it is usually off by (docs/results.md, "Cameras"): the unit of the penalty.
FOCAL_SPREAD = 0.002
# The same of a pose: turn in radians (a third of a pixel of a small video), shift in unit space.
TURN_SPREAD = 5e-4
SHIFT_SPREAD = 3e-3


class FrameCorrections(nn.Module):
    """A small rigid motion and a colour gain per training frame, a focal length per camera.

    Gauge: what moves, turns or scales the head as a whole is taken out of the corrections
    (:func:`_scene_modes`), for nothing in the pictures holds it, and depth and masks stay as
    captured; exposures are used minus their mean. The focal length is one number for all frames
    of a camera, bounded by :data:`FOCAL_BOUND` and drawn to the given one by :meth:`penalty`. Round
    a head it trades with the head's size: scaled by ``1 + e`` it shows the same head ``1 - e``
    times as large but for the perspective within the head, an effect ten times smaller than
    ``e``.

    A turn of a camera and a shift across its view move the picture alike. So a shift brings the
    turn with it that keeps the head's middle in place: the picture's place, which pixels know
    well, is left to the turn alone, the rest, which they hardly know, to the shift.

    Args:
        frames: Number of training frames.
        poses: Whether the poses are corrected.
        exposure: Whether the colours are.
        focal: Whether the focal length is.
        cameras: Of the frames, for ``poses`` and ``focal``.
        normalization: World to unit space, for the same.
        gauge: Take the gauge out; not for a few frames before a finished surface.

    Raises:
        ValueError: Poses or focal length are to be corrected, and the cameras do not match.
    """

    turn_modes: torch.Tensor
    shift_modes: torch.Tensor
    center: torch.Tensor
    forward_axis: torch.Tensor
    lens: torch.Tensor

    def __init__(
        self,
        frames: int,
        poses: bool,
        exposure: bool,
        focal: bool = False,
        cameras: Sequence[Camera] = (),
        normalization: Normalization | None = None,
        gauge: bool = True,
    ) -> None:
        super().__init__()
        self.poses, self.exposure, self.focal = poses, exposure, focal
        if (poses or focal) and (len(cameras) != frames or normalization is None):
            raise ValueError("Correcting cameras needs the cameras of all frames.")
        self.rotation = nn.Parameter(torch.zeros(frames, 3), requires_grad=poses)
        self.translation = nn.Parameter(torch.zeros(frames, 3), requires_grad=poses)
        self.log_gain = nn.Parameter(torch.zeros(frames, 3), requires_grad=exposure)
        lenses = _lenses(cameras)
        self.focal_raw = nn.Parameter(torch.zeros(max(lenses, default=0) + 1), requires_grad=focal)
        # They follow from the scene: not part of a checkpoint.
        centers, axes = np.zeros((2, frames, 3))
        if normalization is not None and cameras:
            centers = normalization.to_unit(np.stack([camera.center for camera in cameras]))
            axes = np.stack([camera.c2w[:3, 2] for camera in cameras])
        modes = _scene_modes(centers) if gauge else [np.zeros((3 * frames, 0))] * 2
        derived = {"center": centers, "forward_axis": axes}
        derived |= {"turn_modes": modes[0], "shift_modes": modes[1]}
        for name, value in derived.items():
            tensor = torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("lens", torch.tensor(lenses, dtype=torch.int64), persistent=False)

    @property
    def log_focal(self) -> torch.Tensor:
        """Logarithm of every camera's corrected focal length over the given one, ``(C,)``."""
        return FOCAL_BOUND * torch.tanh(self.focal_raw / FOCAL_BOUND)

    def penalty(self) -> torch.Tensor:
        """Mean square of the focal corrections in units of :data:`FOCAL_SPREAD`, a scalar."""
        return (self.log_focal / FOCAL_SPREAD).square().mean()

    def pose_penalty(self) -> torch.Tensor:
        """Mean square over the frames of their corrections, in what poses are usually off by.

        Units: :data:`TURN_SPREAD` and :data:`SHIFT_SPREAD`; a scalar.
        """
        rotation, shift = self._without_gauge()
        squares = (rotation / TURN_SPREAD).square() + (shift / SHIFT_SPREAD).square()
        return squares.sum(1).mean()

    def _without_gauge(self) -> tuple[torch.Tensor, torch.Tensor]:
        rotation = _without(self.turn_modes, self.rotation)
        return rotation, _without(self.shift_modes, self.translation)

    def motions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn (a rotation vector in world axes) and shift (unit space) of all frames, ``(F, 3)``.

        A frame's camera turns about its own centre.
        """
        rotation, shift = self._without_gauge()
        away = self.center.square().sum(1, keepdim=True).clamp(min=1e-6)
        return rotation + torch.linalg.cross(self.center, shift) / away, shift

    def move(
        self,
        frame: torch.Tensor,
        origins: torch.Tensor,
        directions: torch.Tensor,
        steering: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Corrected origins and unit directions ``(R, 3)`` of rays of frames ``(R,)``.

        ``steering (R,)`` says which rays the poses learn from; without it all.

        Rotations are a tenth of a degree: first order (cross product) is exact to 1e-6.
        """
        if not (self.poses or self.focal):
            return origins, directions
        if self.focal:
            # Of the ray, what lies across the optical axis shrinks as the focal length grows.
            axis = self.forward_axis[frame]
            along = axis * (directions * axis).sum(1, keepdim=True)
            shrink = torch.exp(-self.log_focal)[self.lens[frame]]
            directions = along + (directions - along) * shrink[:, None]
        if self.poses:
            rotation, shift = (_taught_by(steering, v[frame]) for v in self.motions())
            directions = directions + torch.linalg.cross(rotation, directions)
            origins = origins + shift
        return origins, nn.functional.normalize(directions, dim=1)

    def expose(self, frame: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
        """The rendered colour ``(R, 3)`` as frames ``(R,)`` would show it."""
        if not self.exposure:
            return color
        return color * self.log_gains()[frame].exp()

    def log_gains(self) -> torch.Tensor:
        """Logarithm of every frame's gain over the mean one, by channel, ``(F, 3)``."""
        return self.log_gain - self.log_gain.mean(0)

    def corrected(self, cameras: Sequence[Camera], normalization: Normalization) -> list[Camera]:
        """The cameras of the frames with what has been learned."""
        turns, shifts = (value.detach().cpu().double().numpy() for value in self.motions())
        scales = torch.exp(self.log_focal.detach()).cpu().double().numpy()
        found = []
        for row, camera in enumerate(cameras):
            K, c2w = camera.K.copy(), camera.c2w
            if self.focal:
                K[:2, :2] *= scales[int(self.lens[row])]
            if self.poses:
                c2w = _after(c2w, turns[row], shifts[row] * normalization.radius)
            found.append(Camera(K, c2w, camera.width, camera.height))
        return found

    def figures(self) -> dict[str, float]:
        """How much is corrected: medians over the frames, and the focal lengths' mean, percent.

        With exposure also the darkest and the brightest frame, percent of the mean one.
        """
        turns, shifts = (value.detach().norm(dim=1) for value in self.motions())
        found = {
            "turn_deg": float(torch.rad2deg(turns.median())),
            "shift_unit": float(shifts.median()),
            "focal_percent": 100.0 * float(torch.expm1(self.log_focal.detach()).mean()),
        }
        if self.exposure:
            gains = 100.0 * torch.expm1(self.log_gains().detach().mean(1))
            found |= {
                "darkest_percent": float(gains.min()),
                "brightest_percent": float(gains.max()),
            }
        return found

    def for_others(
        self, others: Sequence[Camera], given: Sequence[Camera], normalization: Normalization
    ) -> list[Camera]:
        """Cameras that were not trained on, corrected as those that were.

        They get the focal length of their like and the mean motion of the two nearest cameras: what
        is wrong with a camera track changes slowly along it.

        Args:
            others: Not trained on.
            given: The trained ones as they were given, in order.
            normalization: World to unit space.
        """
        return [self._moved(self.same_lens(camera, given), normalization) for camera in others]

    def _moved(self, camera: Camera, normalization: Normalization) -> Camera:
        if not self.poses:
            return camera
        place = torch.tensor(normalization.to_unit(camera.center), dtype=torch.float32)
        away = (self.center.cpu() - place).norm(dim=1)
        nearest = away.topk(min(2, len(away)), largest=False).indices
        turn, shift = (value.detach().cpu()[nearest].mean(0).numpy() for value in self.motions())
        c2w = _after(camera.c2w, turn, shift * normalization.radius)
        return Camera(camera.K, c2w, camera.width, camera.height)

    def same_lens(self, camera: Camera, cameras: Sequence[Camera]) -> Camera:
        """A camera that was not trained on, with the focal length found for its like."""
        for row, other in enumerate(cameras):
            if self.focal and _key(other) == _key(camera):
                K = camera.K.copy()
                K[:2, :2] *= float(torch.exp(self.log_focal.detach())[int(self.lens[row])])
                return Camera(K, camera.c2w, camera.width, camera.height)
        return camera


def _scene_modes(centers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turns and shifts of cameras that show the head as a whole moved, turned or scaled.

    Turns alone can show it moved (all look up: the head sinks) and, as their mean, turned. Left in,
    they drift by a random walk of the optimizer: in 1,500 steps with true cameras the head rose by
    0.7 mm (lps).

    Args:
        centers: ``(F, 3)`` of the cameras, unit space, the head's middle at the origin.

    Returns:
        Orthonormal ``(3 F, up to 6)`` and ``(3 F, up to 7)``.
    """
    away = np.maximum(np.square(centers).sum(axis=1), 1e-6)[:, None]
    axes = np.eye(3)
    moved = [np.cross(centers, axis) for axis in axes]
    together = [np.tile(axis, (len(centers), 1)) for axis in axes]
    turns = [m / away for m in moved] + together
    return _orthonormal(turns), _orthonormal([*moved, *together, centers])


def _orthonormal(modes: list[FloatArray]) -> FloatArray:
    left, size, _ = np.linalg.svd(np.stack([m.ravel() for m in modes], axis=1), full_matrices=False)
    return np.asarray(left[:, size > 1e-6 * max(float(size[0]), 1e-12)])


def _without(modes: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    flat = value.reshape(-1)
    return (flat - modes @ (modes.T @ flat)).reshape(value.shape)


def _after(c2w: FloatArray, turn: FloatArray, shift: FloatArray) -> FloatArray:
    """The pose ``(4, 4)`` turned about its centre by a rotation vector and shifted, world units."""
    moved = c2w.copy()
    moved[:3, :3] = Rotation.from_rotvec(turn).as_matrix() @ c2w[:3, :3]
    moved[:3, 3] += shift
    return moved


def _taught_by(rays: torch.Tensor | None, value: torch.Tensor) -> torch.Tensor:
    """``value (R, 3)`` with a gradient only in the rows of ``rays (R,)``."""
    return value if rays is None else torch.where(rays[:, None], value, value.detach())


def _key(camera: Camera) -> tuple[float, ...]:
    return (camera.width, camera.height, *np.round(camera.K.ravel(), 6).tolist())


def _lenses(cameras: Sequence[Camera]) -> list[int]:
    """A number for every camera; those of equal intrinsics share it."""
    known: dict[tuple[float, ...], int] = {}
    return [known.setdefault(_key(camera), len(known)) for camera in cameras]
