# SPDX-License-Identifier: GPL-3.0-or-later
"""The avatar's material: toon shading in EEVEE, a Principled surface in Cycles and on export.

Two output nodes make one material both (measured on 4.2 to 5.0): EEVEE draws the output with
target EEVEE; Cycles and the glTF exporter take the active one with target CYCLES, so that the
export holds a plain ``baseColorTexture``.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from .. import compat
from .mesh import UV_NAME, drive_by_style

GROUP_NAME = "Toonify Toon"
GROUP_VERSION = 1
OUTLINE_NAME = "Toonify Outline"
PHOTO_MIX = "Photo Mix"

_Socket = bpy.types.NodeSocket


class _Graph:
    """Shorthand for building a node tree."""

    def __init__(self, tree: bpy.types.NodeTree) -> None:
        self.tree = tree
        self._column = 0

    def node(self, kind: str, row: int = 0, **attributes: object) -> bpy.types.Node:
        """Add a node to the right of the last one."""
        node = self.tree.nodes.new(kind)
        node.location = (220 * self._column, -220 * row)
        self._column += 1
        for name, value in attributes.items():
            setattr(node, name, value)
        return node

    def math(
        self, operation: str, first: _Socket | float, second: _Socket | float = 0.0
    ) -> _Socket:
        """A math node; numbers become defaults, sockets become links."""
        node = self.node("ShaderNodeMath", operation=operation)
        for socket, value in zip(node.inputs, (first, second), strict=False):
            self.set(socket, value)
        return node.outputs[0]

    def mix(self, kind: str, factor: _Socket | float, a: _Socket, b: _Socket | object) -> _Socket:
        """A colour mix node."""
        node = self.node("ShaderNodeMix", data_type="RGBA", blend_type=kind)
        colors = [socket for socket in node.inputs if socket.type == "RGBA"]
        self.set(node.inputs["Factor"], factor)
        self.set(colors[0], a)
        self.set(colors[1], b)
        return next(socket for socket in node.outputs if socket.type == "RGBA")

    def set(self, socket: _Socket, value: object) -> None:
        """Link a socket or set its default."""
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value


def toon_group() -> bpy.types.NodeTree:
    """The node group ``Toonify Toon``, made once per file."""
    for group in bpy.data.node_groups:
        if group.name.startswith(GROUP_NAME) and group.get("toonify3d") == GROUP_VERSION:
            return group
    group = bpy.data.node_groups.new(GROUP_NAME, "ShaderNodeTree")
    group["toonify3d"] = GROUP_VERSION
    _declare_sockets(group)
    _build_toon(_Graph(group))
    return group


def _declare_sockets(group: bpy.types.NodeTree) -> None:
    sockets = (
        ("Albedo", "NodeSocketColor", (0.8, 0.8, 0.8, 1.0), None),
        ("Photo Albedo", "NodeSocketColor", (0.8, 0.8, 0.8, 1.0), None),
        ("Style Mix", "NodeSocketFloat", 1.0, (0.0, 1.0)),
        ("Bands", "NodeSocketFloat", 3.0, (1.0, 16.0)),
        ("Light Gain", "NodeSocketFloat", 1.0, (0.0, 4.0)),
        ("Shadow Tint", "NodeSocketColor", (0.55, 0.45, 0.6, 1.0), None),
        ("Rim Color", "NodeSocketColor", (1.0, 1.0, 1.0, 1.0), None),
        ("Rim", "NodeSocketFloat", 0.0, (0.0, 1.0)),
        ("Normal", "NodeSocketVector", None, None),
    )
    for name, kind, default, limits in sockets:
        socket = group.interface.new_socket(name, in_out="INPUT", socket_type=kind)
        if default is not None:
            socket.default_value = default
        if limits is not None:
            socket.min_value, socket.max_value = limits
        if name == "Normal":
            socket.hide_value = True
    group.interface.new_socket("Shader", in_out="OUTPUT", socket_type="NodeSocketShader")


def _build_toon(graph: _Graph) -> None:
    """Light in steps between shadow tint and albedo, plus a rim, as emission."""
    inputs = graph.node("NodeGroupInput").outputs
    diffuse = graph.node("ShaderNodeBsdfDiffuse")
    graph.set(diffuse.inputs["Color"], (1.0, 1.0, 1.0, 1.0))
    graph.set(diffuse.inputs["Normal"], inputs["Normal"])
    lit = graph.node("ShaderNodeShaderToRGB")
    graph.set(lit.inputs[0], diffuse.outputs[0])
    gray = graph.node("ShaderNodeRGBToBW")
    graph.set(gray.inputs[0], lit.outputs[0])
    light = graph.math(
        "MINIMUM", graph.math("MULTIPLY", gray.outputs[0], inputs["Light Gain"]), 1.0
    )
    steps = graph.math("MAXIMUM", graph.math("SUBTRACT", inputs["Bands"], 1.0), 0.001)
    level = graph.math("DIVIDE", graph.math("ROUND", graph.math("MULTIPLY", light, steps)), steps)
    # One band means no shading at all: the flat albedo.
    level = graph.math("MAXIMUM", level, graph.math("LESS_THAN", inputs["Bands"], 1.5))
    tint = graph.mix("MIX", level, inputs["Shadow Tint"], (1.0, 1.0, 1.0, 1.0))
    albedo = graph.mix("MIX", inputs["Style Mix"], inputs["Photo Albedo"], inputs["Albedo"])
    shaded = graph.mix("MULTIPLY", 1.0, albedo, tint)
    facing = graph.node("ShaderNodeLayerWeight")
    graph.set(facing.inputs["Blend"], 0.35)
    graph.set(facing.inputs["Normal"], inputs["Normal"])
    edge = graph.math("GREATER_THAN", facing.outputs["Facing"], 0.6)
    rim = graph.math("MULTIPLY", edge, inputs["Rim"])
    color = graph.mix("ADD", rim, shaded, inputs["Rim Color"])
    emission = graph.node("ShaderNodeEmission")
    graph.set(emission.inputs["Color"], color)
    output = graph.node("NodeGroupOutput")
    graph.set(output.inputs["Shader"], emission.outputs[0])


def load_texture(path: Path, *, color: bool, pack: bool = False) -> bpy.types.Image:
    """Load a texture with the right colour space, relative to the .blend where possible."""
    image = bpy.data.images.load(str(path), check_existing=False)
    image.colorspace_settings.name = "sRGB" if color else "Non-Color"
    if pack:
        image.pack()
    else:
        image.filepath = compat.blend_relative(path)
    return image


def build_material(
    name: str,
    albedo: bpy.types.Image | None,
    normal_map: bpy.types.Image | None = None,
    photo_albedo: bpy.types.Image | None = None,
    uv_name: str = UV_NAME,
) -> bpy.types.Material:
    """The avatar's material with both outputs."""
    material = bpy.data.materials.new(name)
    tree = compat.enable_nodes(material)
    tree.nodes.clear()
    graph = _Graph(tree)
    texture = _texture_node(graph, albedo, "Stylized Albedo", 0, uv_name)
    photo = _texture_node(graph, photo_albedo, "Photo Albedo", 1, uv_name)
    normal = _normal_node(graph, normal_map, uv_name)
    if photo is not None:
        # The FBX, OBJ and USD exporters read the first Principled surface, and no mixed colours.
        _add_principled(graph, texture, normal, "ALL", "Output Export")
    mixed = _mixed_color(graph, texture, photo)
    _add_principled(graph, mixed, normal, "CYCLES", "Output Cycles").is_active_output = True
    _add_toon(graph, texture, photo, normal)
    if texture is not None:
        # The active image node is what the viewport's Solid mode shows as texture.
        tree.nodes.active = texture
    return material


def _texture_node(
    graph: _Graph, image: bpy.types.Image | None, label: str, row: int, uv_name: str
) -> bpy.types.Node | None:
    if image is None:
        return None
    layer = graph.node("ShaderNodeUVMap", row=row, uv_map=uv_name)
    node = graph.node("ShaderNodeTexImage", row=row, image=image, label=label, name=label)
    graph.set(node.inputs["Vector"], layer.outputs["UV"])
    return node


def _normal_node(graph: _Graph, image: bpy.types.Image | None, uv_name: str) -> _Socket | None:
    texture = _texture_node(graph, image, "Normal", 2, uv_name)
    if texture is None:
        return None
    node = graph.node("ShaderNodeNormalMap", row=2, uv_map=uv_name)
    graph.set(node.inputs["Color"], texture.outputs["Color"])
    return node.outputs["Normal"]


def _mixed_color(
    graph: _Graph, texture: bpy.types.Node | None, photo: bpy.types.Node | None
) -> bpy.types.Node | None:
    """Stylized colours, over to the photo's as ``["style"]`` goes to 0."""
    if texture is None or photo is None:
        return texture
    # The glTF exporter takes the texture of the first input (measured on 4.2, 4.5 and 5.0).
    stylized, person = texture.outputs["Color"], photo.outputs["Color"]
    node = graph.mix("MIX", 0.0, stylized, person).node
    node.name = node.label = PHOTO_MIX
    return node


def _add_principled(
    graph: _Graph,
    color: bpy.types.Node | None,
    normal: _Socket | None,
    target: str,
    name: str,
) -> bpy.types.Node:
    surface = graph.node("ShaderNodeBsdfPrincipled", row=2)
    graph.set(surface.inputs["Roughness"], 0.75)
    graph.set(surface.inputs["Specular IOR Level"], 0.2)
    if color is not None:
        source = next(socket for socket in color.outputs if socket.type == "RGBA")
        graph.set(surface.inputs["Base Color"], source)
    if normal is not None:
        graph.set(surface.inputs["Normal"], normal)
    output = graph.node("ShaderNodeOutputMaterial", row=2, target=target, name=name)
    graph.set(output.inputs["Surface"], surface.outputs[0])
    return output


def _add_toon(
    graph: _Graph,
    texture: bpy.types.Node | None,
    photo: bpy.types.Node | None,
    normal: _Socket | None,
) -> None:
    toon = graph.node("ShaderNodeGroup", node_tree=toon_group(), name="Toon", label="Toon")
    toon.width = 220
    if texture is not None:
        graph.set(toon.inputs["Albedo"], texture.outputs["Color"])
    if photo is not None:
        graph.set(toon.inputs["Photo Albedo"], photo.outputs["Color"])
    if normal is not None:
        graph.set(toon.inputs["Normal"], normal)
    output = graph.node("ShaderNodeOutputMaterial", target="EEVEE", name="Output EEVEE")
    graph.set(output.inputs["Surface"], toon.outputs[0])


def toon_node(target: bpy.types.Object | None) -> bpy.types.Node | None:
    """The toon group node of an object's material, for the panel's sliders."""
    for slot in getattr(target, "material_slots", ()):
        tree = slot.material.node_tree if slot.material else None
        node = tree.nodes.get("Toon") if tree else None
        if node is not None and node.type == "GROUP":
            return node
    return None


def drive_style_mix(material: bpy.types.Material, target: bpy.types.Object) -> None:
    """Let the mix of photo and stylized colours follow the object's ``["style"]``."""
    nodes = material.node_tree.nodes
    drive_by_style(nodes["Toon"].inputs["Style Mix"], "default_value", target)
    mix = nodes.get(PHOTO_MIX)
    if mix is not None:
        drive_by_style(mix.inputs["Factor"], "default_value", target, inverted=True)


def set_outline(target: bpy.types.Object, *, enabled: bool, thickness: float = 0.0015) -> None:
    """Add or remove an ink outline: an inflated, inside-out shell in black.

    Args:
        target: The avatar.
        enabled: Whether there is to be an outline.
        thickness: Width in metres.
    """
    modifier = target.modifiers.get(OUTLINE_NAME)
    if not enabled:
        if modifier is not None:
            target.modifiers.remove(modifier)
        return
    material = bpy.data.materials.get(OUTLINE_NAME) or _outline_material()
    if material.name not in target.data.materials:
        target.data.materials.append(material)
    modifier = modifier or target.modifiers.new(OUTLINE_NAME, "SOLIDIFY")
    modifier.thickness = thickness
    modifier.offset = 1.0
    modifier.use_flip_normals = True
    modifier.use_rim = False
    modifier.material_offset = target.data.materials.find(OUTLINE_NAME)


def _outline_material() -> bpy.types.Material:
    """Black where seen from the front of its (flipped) faces, transparent from behind."""
    material = bpy.data.materials.new(OUTLINE_NAME)
    tree = compat.enable_nodes(material)
    tree.nodes.clear()
    graph = _Graph(tree)
    side = graph.node("ShaderNodeNewGeometry")
    ink = graph.node("ShaderNodeEmission")
    graph.set(ink.inputs["Color"], (0.0, 0.0, 0.0, 1.0))
    clear = graph.node("ShaderNodeBsdfTransparent")
    mix = graph.node("ShaderNodeMixShader")
    graph.set(mix.inputs[0], side.outputs["Backfacing"])
    graph.set(mix.inputs[1], ink.outputs[0])
    graph.set(mix.inputs[2], clear.outputs[0])
    output = graph.node("ShaderNodeOutputMaterial")
    graph.set(output.inputs["Surface"], mix.outputs[0])
    material.use_backface_culling = True
    return material
