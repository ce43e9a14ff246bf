"""Puts a person together from skin, eyes, hair and clothes, in the scene."""

from __future__ import annotations

from dataclasses import dataclass

from blender import add_mesh, painted
from clothes import Sweater, build_sweater
from fields import Mesh
from hair import HairStyle, build_brows, build_cap, build_lashes, build_locks
from head import Person, build_eyes, build_skin


@dataclass(frozen=True)
class Finish:
    """How glossy the surfaces are."""

    skin_roughness: float = 0.5
    skin_scatter: float = 0.0
    hair_roughness: float = 0.55
    hair_coat: float = 0.0
    pores: float = 0.12


def add_person(
    person: Person, style: HairStyle, sweater: Sweater, finish: Finish, detail: float = 1.0
) -> dict[str, Mesh]:
    """Build all parts and put them in the Blender scene; returns the meshes by name."""
    cap, locks = build_cap(person, style), build_locks(person, style)
    meshes = {
        "skin": build_skin(person, detail),
        "eyes": build_eyes(person),
        "cap": cap,
        "locks": locks,
        "brows": build_brows(person),
        "lashes": build_lashes(person),
        "sweater": build_sweater(sweater),
    }
    skin = painted(
        "skin", finish.skin_roughness, 0.4, finish.skin_scatter, finish.pores, bump_scale=1400
    )
    hair = painted("hair", finish.hair_roughness, 0.3, coat=finish.hair_coat)
    materials = {
        "skin": skin,
        "eyes": painted("eyes", 0.15, coat=1.0),
        "sweater": painted("wool", 0.9, 0.2, bump=0.5, bump_scale=700),
    }
    for name, mesh in meshes.items():
        add_mesh(name, mesh, materials.get(name, hair))
    return meshes
