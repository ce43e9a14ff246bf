# SPDX-License-Identifier: GPL-3.0-or-later
"""The turntable: a scene of its own, so that nothing of the artist's scene is touched.

The avatar's collection appears in it as an instance on a turning empty; camera, lights and world
belong to the turntable scene and go with it. The turn is a driver on the frame number, which needs
no F-curve interface (that changed in 5.0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import bpy
from mathutils import Vector

from .. import compat

SCENE_NAME = "3DToonify Turntable"

# name: ((direction from the head, strength at 1 m, size as a share of the head), ...)
_RIGS = {
    "SOFT": (((-1.2, -1.2, 0.8), 1.0, 1.6), ((1.2, -1.2, 0.6), 0.9, 1.6)),
    "STUDIO": (
        ((-1.2, -1.4, 1.0), 1.3, 0.9),
        ((1.5, -0.9, 0.3), 0.45, 1.2),
        ((0.6, 1.5, 1.3), 1.1, 0.6),
    ),
    "DRAMATIC": (((-1.8, -0.3, 0.7), 1.8, 0.5), ((1.2, 1.4, 0.8), 1.0, 0.5)),
}
_WORLD_STRENGTH = {"SOFT": 0.5, "STUDIO": 0.25, "DRAMATIC": 0.05}
_LENS_MM, _SENSOR_MM = 85.0, 36.0
_MARGIN = 1.08


@dataclass(frozen=True)
class TurntableSettings:
    """How the turntable is rendered."""

    seconds: float = 4.0
    """Time of one full turn."""
    fps: int = 24
    """Frames per second."""
    size: int = 1024
    """Width and height in pixels."""
    engine: str = "EEVEE"
    """EEVEE (toon shading) or CYCLES."""
    samples: int = 32
    """Samples per pixel."""
    turns: str = "OBJECT"
    """OBJECT: the head turns; CAMERA: camera and light go round it."""
    light: str = "SOFT"
    """SOFT, STUDIO or DRAMATIC."""
    transparent: bool = False
    """No backdrop; an image sequence is written then."""
    backdrop: tuple[float, float, float] = (0.85, 0.87, 0.9)
    """Background colour, linear."""
    video: bool = True
    """MP4 instead of a PNG sequence."""

    @property
    def frames(self) -> int:
        """Number of frames of one turn."""
        return max(2, round(self.seconds * self.fps))


def build_turntable(
    avatar: bpy.types.Object, output: Path, settings: TurntableSettings
) -> bpy.types.Scene:
    """A scene that renders the avatar's turn to ``output``.

    Args:
        avatar: The object to turn.
        output: The MP4 file, or the stem of the PNG sequence.
        settings: See :class:`TurntableSettings`.
    """
    scene = bpy.data.scenes.new(SCENE_NAME)
    extent = _extent(avatar)
    holder = bpy.data.collections.new(SCENE_NAME)
    holder.objects.link(avatar)
    subject = bpy.data.objects.new(f"{SCENE_NAME} Subject", None)
    subject.instance_type = "COLLECTION"
    subject.instance_collection = holder
    holder.instance_offset = extent.center
    pivot = bpy.data.objects.new(f"{SCENE_NAME} Pivot", None)
    for item in (subject, pivot, *_stage(pivot, extent, settings)):
        scene.collection.objects.link(item)
    scene.camera = next(item for item in scene.collection.objects if item.type == "CAMERA")
    _turn(subject if settings.turns == "OBJECT" else pivot, settings)
    scene.world = _world(settings)
    _render_settings(scene, output, settings)
    return scene


def remove_turntable(scene: bpy.types.Scene) -> None:
    """Delete the turntable scene and everything that was made for it."""
    owned: list[bpy.types.ID] = []
    for item in list(scene.collection.objects):
        if item.instance_collection is not None:
            owned.append(item.instance_collection)
        if item.data is not None:
            owned.append(item.data)
        owned.append(item)
    if scene.world is not None:
        owned.append(scene.world)
    bpy.data.scenes.remove(scene)
    bpy.data.batch_remove(owned)


@dataclass(frozen=True)
class _Extent:
    """The upright cylinder that the turning avatar fills."""

    center: Vector
    radius: float
    half_height: float

    @property
    def size(self) -> float:
        """The larger of the two half extents."""
        return max(self.radius, self.half_height)


def _extent(avatar: bpy.types.Object) -> _Extent:
    """Extent of the avatar in the world, as it looks now (modifiers, keys)."""
    corners = [avatar.matrix_world @ Vector(corner) for corner in avatar.bound_box]
    low = Vector(min(corner[axis] for corner in corners) for axis in range(3))
    high = Vector(max(corner[axis] for corner in corners) for axis in range(3))
    half = (high - low) / 2
    return _Extent((low + high) / 2, max(math.hypot(half.x, half.y), 1e-6), max(half.z, 1e-6))


def _stage(
    pivot: bpy.types.Object, extent: _Extent, settings: TurntableSettings
) -> list[bpy.types.Object]:
    """Camera and lights, children of the pivot."""
    camera = bpy.data.objects.new(f"{SCENE_NAME} Camera", bpy.data.cameras.new(SCENE_NAME))
    camera.data.lens, camera.data.sensor_width = _LENS_MM, _SENSOR_MM
    half_tangent = _SENSOR_MM / (2 * _LENS_MM)
    # The nearest rim of the cylinder must fit into the square picture.
    distance = extent.radius + _MARGIN * extent.size / half_tangent
    camera.data.clip_start, camera.data.clip_end = distance / 100, distance * 10
    camera.location = (0.0, -distance, 0.0)
    camera.rotation_euler = (math.pi / 2, 0.0, 0.0)
    items = [camera]
    for index, (direction, strength, share) in enumerate(_RIGS[settings.light]):
        data = bpy.data.lights.new(f"{SCENE_NAME} {index}", "AREA")
        place = Vector(direction) * extent.size * 3.0
        data.size = 2.0 * share * extent.size
        # Area lights fall off with distance squared: the same look at any size of the head.
        data.energy = 9.0 * strength * place.length_squared
        light = bpy.data.objects.new(f"{SCENE_NAME} Light {index}", data)
        light.location = place
        light.rotation_euler = (-place).to_track_quat("-Z", "Y").to_euler()
        items.append(light)
    for item in items:
        item.parent = pivot
    return items


def _turn(target: bpy.types.Object, settings: TurntableSettings) -> None:
    driver = target.driver_add("rotation_euler", 2).driver
    driver.type = "SCRIPTED"
    # "frame" alone is a simple expression: it needs no permission to run scripts.
    direction = 1 if settings.turns == "OBJECT" else -1
    driver.expression = f"{direction * 2 * math.pi / settings.frames!r} * (frame - 1)"


def _world(settings: TurntableSettings) -> bpy.types.World:
    """Backdrop for the camera, dimmer grey light for everything else."""
    world = bpy.data.worlds.new(SCENE_NAME)
    tree = compat.enable_world_nodes(world)
    tree.nodes.clear()
    ray = tree.nodes.new("ShaderNodeLightPath")
    mix = tree.nodes.new("ShaderNodeMixShader")
    ambient, seen = (tree.nodes.new("ShaderNodeBackground") for _ in range(2))
    ambient.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    ambient.inputs["Strength"].default_value = _WORLD_STRENGTH[settings.light]
    seen.inputs["Color"].default_value = (*settings.backdrop, 1.0)
    output = tree.nodes.new("ShaderNodeOutputWorld")
    tree.links.new(ray.outputs["Is Camera Ray"], mix.inputs[0])
    tree.links.new(ambient.outputs[0], mix.inputs[1])
    tree.links.new(seen.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs["Surface"])
    return world


def _render_settings(scene: bpy.types.Scene, output: Path, settings: TurntableSettings) -> None:
    render = scene.render
    scene.frame_start, scene.frame_end = 1, settings.frames
    render.fps, render.fps_base = settings.fps, 1.0
    # H.264 takes even sizes only.
    render.resolution_x = render.resolution_y = settings.size + settings.size % 2
    render.resolution_percentage = 100
    render.film_transparent = settings.transparent
    render.filepath = str(output)
    if settings.engine == "CYCLES":
        render.engine = "CYCLES"
        scene.cycles.samples = settings.samples
    else:
        render.engine = compat.eevee_engine(scene)
        scene.eevee.taa_render_samples = settings.samples
    if settings.video and not settings.transparent:
        compat.set_mp4(render)
    else:
        compat.set_png(render.image_settings, transparent=settings.transparent)
    compat.set_view_transform(scene, "Standard")
