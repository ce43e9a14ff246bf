"""The room's light for the steps of one style: found once, asked for where it is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .calm_colors import CalmColors
from .portrait2d.delight import room_light
from .portrait2d.pipeline import Person
from .progress import Progress
from .room_light import RoomLight
from .scene import Scene, SurfaceMesh
from .snr.light_grid import LightGrid


@dataclass
class Room:
    """The light of one capture.

    Attributes:
        scene: The capture.
        prior_mesh: The person's surface.
        cache: ``.npz`` beside the prior, shared by all styles.
        progress: Told (once) when the light could not be found.
    """

    scene: Scene
    prior_mesh: SurfaceMesh
    cache: Path
    progress: Progress
    _known: list[RoomLight | None] = field(default_factory=list)

    def light(self, person: Person | None = None) -> RoomLight | None:
        """The light, or None when it cannot be told; see :func:`.portrait2d.delight.room_light`."""
        if not self._known:
            found = room_light(self.scene, self.prior_mesh, self.cache, self.progress, person)
            self._known.append(found)
        return self._known[0]

    def grid(
        self, strength: float, device: torch.device | str, calm: CalmColors | None = None
    ) -> LightGrid | None:
        """``strength`` (0 to 1) of the light, and calm colours, as a field in unit space.

        None when there is neither.
        """
        found = self.light() if strength > 0 else None
        if found is None and calm is None:
            return None
        scaled = None if found is None else found.scaled(strength)
        return LightGrid.of(scaled, self.scene.normalization, device, calm)

    def figures(self, strength: float) -> dict[str, Any] | None:
        """What was found and how much of it was taken out, for the report; None for nothing."""
        found = self.light() if strength > 0 else None
        return None if found is None else found.figures | {"strength": strength}
