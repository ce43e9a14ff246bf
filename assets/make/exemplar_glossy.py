"""A glossy 3D cartoon: the same head generator with cartoon measures, rendered with Cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from blender import (
    add_camera,
    area_light,
    backdrop,
    look_at,
    new_scene,
    render,
    set_render,
    world_color,
)
from clothes import Sweater
from hair import HairStyle
from head import Person
from person import Finish, add_person

SIZE, SAMPLES = 768, 8

TOON = Person(
    eye_x=3.7,
    eye_y=-6.1,
    eye_radius=2.55,
    lid_half_width=2.35,
    lid_upper=1.62,
    lid_lower=1.25,
    iris=1.42,
    pupil=0.72,
    lash=0.4,
    skull=1.16,
    nose=0.66,
    nose_z=0.1,
    mouth=0.88,
    smile=0.34,
    jaw=0.96,
    chin_z=1.7,
    neck=0.66,
    ear=1.05,
    socket=0.5,
    asymmetry=0.0,
    skin="#f0b48d",
    skin_red="#e0705c",
    lips="#cf5f5a",
    brow="#6b2d14",
    iris_color="#3f9a5a",
    stubble=0.0,
    mottle=0.15,
)
SWOOP = HairStyle(
    top=3.0,
    side=1.3,
    nape=0.9,
    quiff=2.4,
    locks=520,
    width=0.85,
    length_top=9.0,
    length_side=3.6,
    spread=0.2,
    dark="#8a3413",
    light="#e58a3a",
    sweep=(-0.6, 0.8, 0.0),
)
JUMPER = Sweater(
    base="#2c9c92",
    stripe="#f6e3a6",
    accent="#f3f0e6",
    broad=0.66,
    collar=5.0,
    rise=2.2,
)
GLOSS = Finish(
    skin_roughness=0.36, skin_scatter=0.15, hair_roughness=0.32, hair_coat=0.4, pores=0.0
)


def make(
    target: Path, size: int = SIZE, samples: int = SAMPLES, detail: float = 1.0, threads: int = 0
) -> None:
    """Model, light and render the cartoon portrait."""
    new_scene()
    set_render(size, size, samples, threads)
    add_person(TOON, SWOOP, JUMPER, GLOSS, detail)
    backdrop((0.42, 0.30, 0.66), (0.93, 0.62, 0.55))
    world_color((1.0, 0.95, 0.95), 0.45)
    area_light((0.9, -1.6, 0.9), (0, 0, 0), 0.9, 26, (1.0, 0.95, 0.88))
    area_light((-1.5, -1.0, 0.3), (0, 0, 0), 1.2, 10, (0.8, 0.88, 1.0))
    area_light((0.7, 1.0, 1.0), (0, 0, 0.05), 0.7, 30, (1.0, 0.8, 0.65))
    camera = add_camera(3.0)
    camera.matrix_world = look_at(np.array([0.0, -1.2, 0.03]), np.array([0.0, 0.0, 0.012]))
    render(target)
