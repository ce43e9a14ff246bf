"""Run by test_glb in a process of its own: Blender opens a GLB and renders its plain colours."""

import json
import math
import sys

import bpy
from mathutils import Matrix

order = json.loads(sys.argv[-1])
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=order["glb"])
(item,) = (o for o in bpy.data.objects if o.type == "MESH")
(material,) = (slot.material for slot in item.material_slots)
nodes, links = material.node_tree.nodes, material.node_tree.links
surface = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
base = surface.inputs["Base Color"].links[0].from_node
normal = surface.inputs["Normal"].links[0].from_node.inputs["Color"].links[0].from_node
keys = item.data.shape_keys.key_blocks
told = {
    "keys": [key.name for key in keys],
    "value": keys["Photoreal"].value,
    "images": {
        "baseColor": base.image.colorspace_settings.name,
        "normal": normal.image.colorspace_settings.name,
    },
    "roughness": surface.inputs["Roughness"].default_value,
}
emission = nodes.new("ShaderNodeEmission")
links.new(base.outputs["Color"], emission.inputs["Color"])
output = next(node for node in nodes if node.type == "OUTPUT_MATERIAL")
links.new(emission.outputs["Emission"], output.inputs["Surface"])

scene = bpy.context.scene
lens = bpy.data.cameras.new("camera")
lens.sensor_fit, lens.angle = "VERTICAL", order["fov"]
lens.clip_start = 0.01
camera = bpy.data.objects.new("camera", lens)
scene.collection.objects.link(camera)
# OpenCV looks along +z with y down, Blender along -z with y up.
camera.matrix_world = Matrix(order["c2w"]) @ Matrix.Rotation(math.pi, 4, "X")
scene.camera = camera
scene.render.engine = "CYCLES"
scene.cycles.samples = 16
scene.cycles.use_denoising = False
scene.render.threads_mode, scene.render.threads = "FIXED", 2
scene.render.film_transparent = True
scene.render.resolution_x = scene.render.resolution_y = 128
scene.view_settings.view_transform = "Standard"
scene.render.image_settings.file_format = "PNG"
scene.render.image_settings.color_mode = "RGBA"
scene.render.filepath = order["out"]
bpy.ops.render.render(write_still=True)
print("TOLD " + json.dumps(told))  # noqa: T201
