"""The little of Blender that the demo assets need: meshes, materials, lights, camera, Cycles."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from fields import Array, Mesh
from mathutils import Matrix
from scipy import sparse

SCALE = 0.01  # centimetres of the models to Blender's metres
SKIN_SMOOTHING = 30  # more rounds of averaging the baked light
GLOSSY = ("eyes",)  # materials whose reflections survive the baking of light


def new_scene() -> Any:
    """An empty file; returns its scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return bpy.context.scene


def set_render(width: int, height: int, samples: int, threads: int = 0) -> None:
    """Cycles on the CPU with OpenImageDenoise; few bounces, as the rooms are bright."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = True
    scene.cycles.denoiser = "OPENIMAGEDENOISE"
    scene.cycles.denoising_prefilter = "FAST"
    scene.cycles.denoising_quality = "BALANCED"
    scene.cycles.max_bounces = 3
    scene.cycles.diffuse_bounces = 2
    scene.cycles.glossy_bounces = 1
    scene.cycles.sample_clamp_indirect = 3.0
    scene.cycles.caustics_reflective = False
    scene.cycles.caustics_refractive = False
    scene.render.use_persistent_data = True
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.resolution_percentage = 100
    scene.render.threads_mode = "FIXED"
    scene.render.threads = threads or (os.cpu_count() or 1)
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "PNG"


def add_mesh(
    name: str, mesh: Mesh, material: Any, scale: float = SCALE, smooth: bool = True
) -> Any:
    """Put a coloured mesh in the scene; the colours go to the vertex attribute ``Col``."""
    data = bpy.data.meshes.new(name)
    faces = np.ascontiguousarray(mesh.faces, dtype=np.int32)
    data.vertices.add(len(mesh.vertices))
    data.vertices.foreach_set("co", (mesh.vertices * scale).astype(np.float32).ravel())
    data.loops.add(faces.size)
    data.loops.foreach_set("vertex_index", faces.ravel())
    data.polygons.add(len(faces))
    data.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    data.polygons.foreach_set("use_smooth", np.full(len(faces), smooth))
    data.update()
    attribute = data.color_attributes.new("Col", "FLOAT_COLOR", "POINT")
    rgba = np.concatenate([mesh.colors, np.ones((len(mesh.colors), 1))], axis=1)
    attribute.data.foreach_set("color", rgba.astype(np.float32).ravel())
    data.materials.append(material)
    item = bpy.data.objects.new(name, data)
    bpy.context.collection.objects.link(item)
    return item


def painted(
    name: str,
    roughness: float,
    specular: float = 0.5,
    scatter: float = 0.0,
    bump: float = 0.0,
    bump_scale: float = 900.0,
    coat: float = 0.0,
) -> Any:
    """A Principled material coloured by the vertex attribute, with optional fine noise bump."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    tree = material.node_tree
    shader = tree.nodes["Principled BSDF"]
    color = tree.nodes.new("ShaderNodeVertexColor")
    color.layer_name = "Col"
    tree.links.new(color.outputs["Color"], shader.inputs["Base Color"])
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Specular IOR Level"].default_value = specular
    shader.inputs["Coat Weight"].default_value = coat
    shader.inputs["Coat Roughness"].default_value = 0.06
    if scatter:
        shader.inputs["Subsurface Weight"].default_value = scatter
        shader.inputs["Subsurface Radius"].default_value = (1.0, 0.35, 0.2)
        shader.inputs["Subsurface Scale"].default_value = 0.006
    if bump:
        noise = tree.nodes.new("ShaderNodeTexNoise")
        place = tree.nodes.new("ShaderNodeNewGeometry")
        node = tree.nodes.new("ShaderNodeBump")
        noise.inputs["Scale"].default_value = bump_scale
        noise.inputs["Detail"].default_value = 2.0
        node.inputs["Strength"].default_value = bump
        node.inputs["Distance"].default_value = 0.001
        tree.links.new(place.outputs["Position"], noise.inputs["Vector"])
        tree.links.new(noise.outputs["Fac"], node.inputs["Height"])
        tree.links.new(node.outputs["Normal"], shader.inputs["Normal"])
    return material


def textured(name: str, image: Any) -> Any:
    """A matt material coloured by an image over the UV layer."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    tree = material.node_tree
    texture = tree.nodes.new("ShaderNodeTexImage")
    texture.image = image
    shader = tree.nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = 0.75
    shader.inputs["Specular IOR Level"].default_value = 0.2
    tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    return material


def area_light(
    place: tuple[float, float, float],
    target: tuple[float, float, float],
    size: float,
    power: float,
    color: tuple[float, float, float] = (1, 1, 1),
) -> None:
    """A square area light looking at ``target``, invisible to the camera."""
    data = bpy.data.lights.new("area", "AREA")
    data.size, data.energy, data.color = size, power, color
    item = bpy.data.objects.new("area", data)
    item.matrix_world = look_at(np.asarray(place, float), np.asarray(target, float))
    item.visible_camera = False
    bpy.context.collection.objects.link(item)


def world_color(color: tuple[float, float, float], strength: float) -> None:
    """Uniform light from everywhere."""
    world = bpy.data.worlds.new("world")
    world.use_nodes = True
    node = world.node_tree.nodes["Background"]
    node.inputs[0].default_value = (*color, 1.0)
    node.inputs[1].default_value = strength
    bpy.context.scene.world = world


def look_at(place: Array, target: Array, roll: float = 0.0) -> Matrix:
    """Blender camera matrix at ``place`` looking at ``target``, turned by ``roll`` radians."""
    back = place - target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right = right / np.linalg.norm(right)
    up = np.cross(back, right)
    c, s = np.cos(roll), np.sin(roll)
    out = np.eye(4)
    out[:3, 0], out[:3, 1] = c * right + s * up, c * up - s * right
    out[:3, 2], out[:3, 3] = back, place
    return Matrix(out.tolist())


def add_camera(lens_ratio: float) -> Any:
    """A camera whose focal length is ``lens_ratio`` times the picture height."""
    data = bpy.data.cameras.new("camera")
    data.sensor_fit = "VERTICAL"
    data.sensor_height = 24.0
    data.lens = 24.0 * lens_ratio
    item = bpy.data.objects.new("camera", data)
    bpy.context.collection.objects.link(item)
    bpy.context.scene.camera = item
    return item


def render(path: Path) -> None:
    """Render a still, whole or not at all."""
    part = path.with_name(f".{path.stem}.part.png")
    bpy.context.scene.render.filepath = str(part)
    bpy.ops.render.render(write_still=True)
    part.replace(path)


def bake_light(samples: int, smoothing: int = 6) -> None:
    """Store the diffuse light that falls on every mesh in its vertices, then make it glow.

    Light does not change while a camera moves round a still scene: computed once, every frame
    costs only the antialiasing of glowing surfaces, and the frames agree on every texture. Faces
    must turn outwards: Cycles bakes the light on their front.

    Args:
        samples: Light paths per corner of a face (a vertex has about six).
        smoothing: Rounds of averaging with the neighbouring vertices.
    """
    scene = bpy.context.scene
    scene.cycles.samples = samples
    scene.render.bake.target = "VERTEX_COLORS"
    # One object: Cycles sends the whole scene again for each object that it bakes.
    meshes = [o for o in bpy.context.collection.objects if o.type == "MESH"]
    bpy.ops.object.select_all(action="DESELECT")
    for item in meshes:
        item.select_set(True)
    # The textured surfaces keep their UV layer when they are the one that the others join.
    bpy.context.view_layer.objects.active = bpy.data.objects["surfaces"]
    bpy.ops.object.join()
    data = bpy.context.object.data
    light = data.color_attributes.new("Light", "FLOAT_COLOR", "POINT")
    data.color_attributes.active_color = light
    bpy.ops.object.bake(type="DIFFUSE", pass_filter={"DIRECT", "INDIRECT"})
    _smooth_light(data, smoothing)
    for material in bpy.data.materials:
        if material.use_nodes:
            _make_glowing(material)
    for item in [o for o in bpy.context.collection.objects if o.type == "LIGHT"]:
        _replace_by_panel(item)
    scene.world.node_tree.nodes["Background"].inputs[1].default_value = 0.0


def _smooth_light(data: Any, rounds: int) -> None:
    """Average the light with the neighbouring vertices: removes the grain of few samples."""
    count, edges = len(data.vertices), np.empty(2 * len(data.edges), np.int32)
    data.edges.foreach_get("vertices", edges)
    a, b = edges.reshape(-1, 2).T
    ones = np.ones(len(a))
    link = sparse.coo_matrix((ones, (a, b)), shape=(count, count)).tocsr()
    link = link + link.T + sparse.identity(count)
    link = sparse.diags(1.0 / np.asarray(link.sum(axis=1)).ravel()) @ link
    # Grain shows most on plain skin, whose mesh is fine: average it over more neighbours.
    slots = np.empty(len(data.polygons), np.int32)
    data.polygons.foreach_get("material_index", slots)
    sizes, corners = np.empty(len(slots), np.int32), np.empty(len(data.loops), np.int32)
    data.polygons.foreach_get("loop_total", sizes)
    data.loops.foreach_get("vertex_index", corners)
    skin = [k for k, m in enumerate(data.materials) if m.name == "skin"]
    plain = np.zeros(count, dtype=bool)
    plain[corners[np.isin(np.repeat(slots, sizes), skin)]] = True
    attribute = data.color_attributes["Light"]
    values = np.empty(4 * count, np.float32)
    attribute.data.foreach_get("color", values)
    light = values.reshape(-1, 4)
    for _ in range(rounds):
        light = link @ light
    some = link[plain]
    for _ in range(SKIN_SMOOTHING):
        light[plain] = some @ light
    attribute.data.foreach_set("color", light.astype(np.float32).ravel())


def _make_glowing(material: Any) -> None:
    """Emit base colour times baked light; keep only the mirror-like part of the material."""
    tree = material.node_tree
    shader = tree.nodes["Principled BSDF"]
    base = shader.inputs["Base Color"]
    light = tree.nodes.new("ShaderNodeVertexColor")
    light.layer_name = "Light"
    product = tree.nodes.new("ShaderNodeVectorMath")
    product.operation = "MULTIPLY"
    tree.links.new(base.links[0].from_socket, product.inputs[0])
    tree.links.new(light.outputs["Color"], product.inputs[1])
    tree.links.remove(base.links[0])
    base.default_value = (0, 0, 0, 1)
    material.cycles.emission_sampling = "NONE"
    if material.name in GLOSSY:
        tree.links.new(product.outputs[0], shader.inputs["Emission Color"])
        shader.inputs["Emission Strength"].default_value = 1.0
        return
    glow = tree.nodes.new("ShaderNodeEmission")
    tree.links.new(product.outputs[0], glow.inputs["Color"])
    output = next(n for n in tree.nodes if n.type == "OUTPUT_MATERIAL")
    tree.links.new(glow.outputs[0], output.inputs["Surface"])


def _replace_by_panel(item: Any) -> None:
    """A glowing square instead of an area light: only reflections see it."""
    half = item.data.size / 2
    data = bpy.data.meshes.new("panel")
    corners = [(-half, -half, 0), (half, -half, 0), (half, half, 0), (-half, half, 0)]
    data.from_pydata(corners, [], [(0, 1, 2, 3)])
    material = bpy.data.materials.new("panel")
    material.use_nodes = True
    tree = material.node_tree
    glow = tree.nodes.new("ShaderNodeEmission")
    radiance = item.data.energy / (np.pi * item.data.size**2)
    glow.inputs["Color"].default_value = (*item.data.color, 1.0)
    glow.inputs["Strength"].default_value = radiance
    output = next(n for n in tree.nodes if n.type == "OUTPUT_MATERIAL")
    tree.links.new(glow.outputs[0], output.inputs["Surface"])
    material.cycles.emission_sampling = "NONE"
    data.materials.append(material)
    panel = bpy.data.objects.new("panel", data)
    panel.matrix_world = item.matrix_world.copy()
    panel.visible_camera = False
    bpy.context.collection.objects.link(panel)
    bpy.data.objects.remove(item)


def backdrop(below: tuple[float, float, float], above: tuple[float, float, float]) -> None:
    """A glowing wall a metre behind the origin, from one colour below to another above."""
    rows = np.linspace(0, 1, 24)
    corners = np.array([[x, 1.0, -1.2 + 2.4 * t] for t in rows for x in (-2.0, 2.0)])
    colors = np.outer(1 - rows, below) + np.outer(rows, above)
    k = 2 * np.arange(len(rows) - 1)
    faces = np.concatenate(
        [np.stack([k, k + 1, k + 2], axis=1), np.stack([k + 1, k + 3, k + 2], axis=1)]
    )
    wall = Mesh(corners, faces.astype(np.int64), np.repeat(colors, 2, axis=0))
    material = painted("backdrop", 1.0, 0.0)
    tree = material.node_tree
    glow = tree.nodes.new("ShaderNodeEmission")
    source = next(n for n in tree.nodes if n.type == "VERTEX_COLOR")
    output = next(n for n in tree.nodes if n.type == "OUTPUT_MATERIAL")
    tree.links.new(source.outputs["Color"], glow.inputs["Color"])
    tree.links.new(glow.outputs[0], output.inputs["Surface"])
    add_mesh("backdrop", wall, material, scale=1.0)
