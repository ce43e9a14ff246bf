"""A toon's calm skin all over the person, for stage III: what portraits do not show as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..calm_colors import CalmColors
from ..capture import landmarks as lm
from ..scene import Float32Array
from .celtones import spread_even
from .colorspace import smoothstep, to_rgb
from .look import CALM
from .regions import in_polygon

if TYPE_CHECKING:
    from .pipeline import Person

_EVERY = 2
"""The vertices are closer together (3 mm) than the cells in which the colours are kept."""
_NEAR = (-0.25, -0.1)
"""Eye distances from eyes, brows and lips within which the person's own colours stay."""
_BEHIND = 0.5
"""Eye distances behind the face's landmarks at which no eye is above a place any more."""
_SURE = (0.7, 0.95)
"""Label of a region from which on its colours are calmed: its borders stay where they are."""
_ROUNDS = 60


def calm_person(person: Person, calm: Float32Array, kind: str) -> CalmColors:
    """Colours for stage III.

    Args:
        person: Without the room's light.
        calm: ``(V, 3)`` CIELAB of :func:`.celtones.calm_colours`.
        kind: The look.
    """
    regions, mesh = person.regions, person.mesh
    skin = spread_even(calm, regions.skin, mesh.faces, _ROUNDS)
    lab = calm + smoothstep(regions.skin, *_SURE)[:, None] * (skin - calm)
    shares = (regions.skin, CALM[kind] * regions.hair, regions.clothes)
    sure = np.max([regions.skin, regions.hair, regions.clothes], axis=0)
    weight = np.sum(shares, axis=0) * smoothstep(sure, *_SURE) * _away_from_organs(person)
    chosen = slice(None, None, _EVERY)
    color = to_rgb(np.asarray(lab[None, chosen], np.float32))[0] / np.float32(255)
    return CalmColors(mesh.vertices[chosen], color, np.asarray(weight[chosen], np.float32))


def _away_from_organs(person: Person) -> Float32Array:
    local, own = person.frame.to_face(person.mesh.vertices), person.frame.to_face(person.world)
    near = np.max([in_polygon(local[:, :2], own[list(p), :2]) for p in lm.ORGANS], axis=0)
    front = local[:, 2] > own[:, 2].min() - _BEHIND
    return np.asarray(1 - smoothstep(near, *_NEAR) * front, np.float32)
