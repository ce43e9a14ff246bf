"""A finished result in the scene: mesh, material, render, undo, export, turntable, save."""

import json
import struct
import time
from pathlib import Path

import numpy as np
from prelude import ARGS, MODULE, bpy, draw, finish, install, part

FOLDER = Path(ARGS["folder"])


def sphere(rows, columns, radius=0.12):
    """A closed sphere with welded vertices and UVs per corner; u runs with the angle."""
    angle = np.arange(columns) / columns * 2 * np.pi
    height = (np.arange(1, rows) / rows - 0.5) * np.pi
    ring = np.stack(
        [
            np.cos(height)[:, None] * np.cos(angle),
            np.cos(height)[:, None] * np.sin(angle),
            np.broadcast_to(np.sin(height)[:, None], (rows - 1, columns)),
        ],
        -1,
    ).reshape(-1, 3)
    points = np.concatenate([ring, [[0, 0, -1], [0, 0, 1]]]) * radius
    south, north = len(points) - 2, len(points) - 1
    faces, uvs = [], []
    for column in range(columns):
        after = (column + 1) % columns
        u0, u1 = column / columns, (column + 1) / columns
        faces += [(south, after, column)]
        uvs += [((u0, 0), (u1, 1 / rows), (u0, 1 / rows))]
        top = (rows - 2) * columns
        faces += [(north, top + column, top + after)]
        uvs += [((u0, 1), (u0, 1 - 1 / rows), (u1, 1 - 1 / rows))]
    row, column = np.meshgrid(np.arange(rows - 2), np.arange(columns), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    c, d = b + columns, a + columns
    u0, u1 = column / columns, (column + 1) / columns
    v0, v1 = (row + 1) / rows, (row + 2) / rows
    quads = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    first = np.stack([np.stack(p, -1) for p in ((u0, v0), (u1, v0), (u1, v1))], -2)
    second = np.stack([np.stack(p, -1) for p in ((u0, v0), (u1, v1), (u0, v1))], -2)
    quad_uvs = np.concatenate([first, second]).reshape(-1, 3, 2)
    return (
        points.astype(np.float32),
        np.concatenate([np.array(faces), quads]).astype(np.int32),
        np.concatenate([np.array(uvs), quad_uvs]).astype(np.float32),
    )


def write_png(path, pixels):
    """Save uint8 RGB rows (top first) without any library but zlib."""
    import zlib

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def write_result(folder, rows, columns, **extra):
    """A result folder as the backend writes it. Front (u = 3/4, -Y): red above, blue below."""
    folder.mkdir(parents=True)
    points, faces, uvs = sphere(rows, columns)
    np.savez(folder / "avatar.npz", vertices=points, faces=faces, uvs=uvs, **extra)
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = (250, 60, 90)
    pixels[32:] = (40, 90, 220)
    pixels[:, 8:24] = (30, 200, 60)  # the back, u = 1/4
    write_png(folder / "albedo.png", pixels)
    return points, faces


def image_of(scene, size=48):
    """Render and read the 8-bit pixels, ``(size, size, 3)``, top row first."""
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(FOLDER / f"render-{scene.render.engine}.png")
    bpy.ops.render.render(write_still=True, scene=scene.name)
    return pixels_of(scene.render.filepath)


def pixels_of(path):
    """8-bit pixels of a square picture file, top row first."""
    image = bpy.data.images.load(str(path), check_existing=False)
    image.colorspace_settings.name = "Non-Color"
    size = image.size[0]
    pixels = np.array(image.pixels[:]).reshape(size, size, -1)[::-1, :, :3]
    bpy.data.images.remove(image)
    return np.round(255 * pixels).astype(int)


def spots(pixels):
    """Colours above and below the middle of the front, and in the corner."""
    size = len(pixels)
    return [pixels[size * 2 // 5, size // 2].tolist(), pixels[size * 3 // 5, size // 2].tolist()]


install()
importer, material, turntable = (part(f"scene.{n}") for n in ("importer", "material", "turntable"))
out = {}
result = FOLDER / "styles" / "Ünï çødé 空間" / "result"
points, faces = write_result(result, 24, 48)
scene = bpy.context.scene
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)

# -- import, one undo step --
bpy.ops.ed.undo_push(message="before")
assert bpy.ops.toonify3d.import_result("EXEC_DEFAULT", True, folder=str(result)) == {"FINISHED"}
avatar = bpy.context.view_layer.objects.active
out["name"] = avatar.name
out["collection"] = [c.name for c in avatar.users_collection]
out["counts"] = [len(avatar.data.vertices), len(avatar.data.polygons)]
out["expected"] = [len(points), len(faces)]
read = np.empty(3 * len(points), np.float32)
avatar.data.vertices.foreach_get("co", read)
out["moved"] = float(abs(read.reshape(-1, 3) - points).max())
out["identity"] = [list(row) for row in avatar.matrix_world] == [
    [float(i == j) for j in range(4)] for i in range(4)
]
out["view"] = scene.view_settings.view_transform
out["image_space"] = bpy.data.images["albedo.png"].colorspace_settings.name
out["smooth"] = all(p.use_smooth for p in avatar.data.polygons)
out["drawn"] = [len(draw(cls)) for cls in part("panels").CLASSES]

# -- render: Cycles shows the Principled output, EEVEE the toon output --
camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
camera.location, camera.rotation_euler = (0, -0.6, 0), (np.pi / 2, 0, 0)
scene.collection.objects.link(camera)
scene.camera = camera
world = bpy.data.worlds.new("White")
part("compat").enable_world_nodes(world).nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
scene.world = world
scene.render.engine = "CYCLES"
scene.cycles.samples = 16
start = time.perf_counter()
out["cycles"] = spots(image_of(scene))
out["cycles_s"] = time.perf_counter() - start
if ARGS.get("eevee"):
    node = material.toon_node(avatar)
    node.inputs["Bands"].default_value = 1.0
    scene.render.engine = part("compat").eevee_engine(scene)
    scene.eevee.taa_render_samples = 1
    start = time.perf_counter()
    out["eevee"] = spots(image_of(scene))
    out["eevee_s"] = time.perf_counter() - start
    scene.render.engine = "CYCLES"

# -- export --
out["exports"] = {}
for kind in ("GLB", "FBX", "USD", "OBJ", "STL"):
    path = FOLDER / "Ünï çødé 空間" / f"avatar{part('scene.export').SUFFIXES[kind]}"
    done = bpy.ops.toonify3d.export(filepath=str(path), kind=kind)
    out["exports"][kind] = path.stat().st_size if done == {"FINISHED"} else 0
    if kind == "GLB":
        data = path.read_bytes()
        length = struct.unpack_from("<I", data, 12)[0]
        gltf = json.loads(data[20 : 20 + length])
        pbr = gltf["materials"][0]["pbrMetallicRoughness"]
        out["glb"] = {
            "textured": "baseColorTexture" in pbr,
            "emissive": "emissiveTexture" in gltf["materials"][0],
            "meshes": len(gltf["meshes"]),
            "nodes": [n["name"] for n in gltf["nodes"]],
        }
        known = set(bpy.data.objects)
        bpy.ops.import_scene.gltf(filepath=str(path))
        back = [item for item in bpy.data.objects if item not in known and item.type == "MESH"]
        out["glb"]["back"] = [len(back), len(back[0].data.polygons)]
        for item in set(bpy.data.objects) - known:
            bpy.data.objects.remove(item)
bpy.context.view_layer.objects.active = avatar
avatar.select_set(True)


# -- turntable: the artist's scene stays as it was --
def fingerprint():
    render = scene.render
    return [
        render.engine, render.resolution_x, render.filepath, render.fps, scene.frame_end,
        scene.view_settings.view_transform, len(bpy.data.scenes), len(bpy.data.objects),
        len(bpy.data.lights), len(bpy.data.worlds), len(bpy.data.cameras),
        len(bpy.data.collections), avatar.parent is None, avatar.animation_data is None,
        bpy.context.scene.name, render.image_settings.file_format,
    ]  # fmt: skip


group = scene.toonify3d_turntable
group.seconds, group.fps, group.size, group.samples = 0.5, 8, 32, 1
group.engine = "CYCLES"
before, images = fingerprint(), len(bpy.data.images)
group.video = False
target = FOLDER / "turn" / "frame-"
bpy.ops.toonify3d.turntable(filepath=str(target))
out["turn"] = [
    pixels_of(target.parent / f"frame-{number:04d}.png")[12, 16].tolist() for number in (1, 3)
]
out["frames"] = sorted(p.name for p in target.parent.glob("*.png"))
assert len(bpy.data.images) == images, [image.name for image in bpy.data.images]
group.video, group.turns = True, "CAMERA"
video = FOLDER / "turn.mp4"
bpy.ops.toonify3d.turntable(filepath=str(video))
out["video"] = video.stat().st_size if video.exists() else 0
out["untouched"] = before == fingerprint()
out["changed"] = [(a, b) for a, b in zip(before, fingerprint(), strict=True) if a != b]

# Each light rig lights the head from its own sides; nothing of it stays.
settings_class = turntable.TurntableSettings
rigs, turning = {}, {}
for light in ("SOFT", "STUDIO", "DRAMATIC"):
    for turns in ("OBJECT", "CAMERA"):
        made = turntable.build_turntable(
            avatar, FOLDER / "rig", settings_class(light=light, turns=turns, size=31)
        )
        lamps = [item for item in made.collection.objects if item.type == "LIGHT"]
        rigs[light] = sorted([round(v, 2) for v in lamp.location] for lamp in lamps)
        turned = [item for item in made.collection.objects if item.animation_data is not None]
        turning[turns] = [item.instance_collection is not None for item in turned]
        assert made.render.resolution_x == 32  # H.264 takes even sizes only
        turntable.remove_turntable(made)
out["rigs"], out["turning"] = rigs, turning
out["rigs_gone"] = before == fingerprint()

# -- outline, style key --
bpy.ops.toonify3d.outline()
out["outline"] = [m.type for m in avatar.modifiers]
bpy.ops.toonify3d.outline()
out["outline_off"] = len(avatar.modifiers)
styled = FOLDER / "styles" / "keyed" / "result"
flat = sphere(12, 24)[0] * np.float32(0.5)
points, _ = write_result(styled, 12, 24, prior_vertices=flat)
write_png(styled / "photo_albedo.png", np.full((64, 64, 3), (20, 230, 30), np.uint8))
keyed = importer.import_result(scene, styled)
out["beside"] = keyed.location.x


def top(target):
    bpy.context.view_layer.update()
    target.update_tag()
    graph = bpy.context.evaluated_depsgraph_get()
    graph.update()
    evaluated = target.evaluated_get(graph)
    return max(v.co.z for v in evaluated.data.vertices)


out["style"] = [top(keyed)]
keyed["style"] = 0.0
out["style"].append(top(keyed))


def driven():
    """What the one slider makes of both materials' mixes."""
    graph = bpy.context.evaluated_depsgraph_get()
    nodes = keyed.evaluated_get(graph).material_slots[0].material.node_tree.nodes
    sockets = (nodes["Toon"].inputs["Style Mix"], nodes["Photo Mix"].inputs["Factor"])
    return [socket.default_value for socket in sockets]


# The same slider in colours: Cycles shows the photo's at 0, the stylized ones at 1.
out["style_mix"] = [driven()]
avatar.hide_render, keyed.location.x = True, 0.0
camera.location.y = -0.3
out["style_colors"] = [spots(image_of(scene))[0]]
keyed["style"] = 1.0
top(keyed)
out["style_mix"].append(driven())
out["style_colors"].append(spots(image_of(scene))[0])
avatar.hide_render, camera.location.y = False, -0.6

# Mixed colours do not keep exports from having the plain texture.
bpy.context.view_layer.objects.active = keyed
texts = {}
for name in ("keyed.obj", "keyed.fbx", "keyed.usda", "keyed.glb"):
    part("scene.export").export_avatar(bpy.context, keyed, FOLDER / "keyed" / name)
mtl = (FOLDER / "keyed" / "keyed.mtl").read_text("utf-8")
out["plain"] = {
    "obj": "map_Kd albedo.png" in mtl,
    "fbx": b"albedo.png" in (FOLDER / "keyed" / "keyed.fbx").read_bytes(),
    "usd": "albedo.png" in (FOLDER / "keyed" / "keyed.usda").read_text("utf-8"),
}
data = (FOLDER / "keyed" / "keyed.glb").read_bytes()
gltf = json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])
index = gltf["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
out["plain"]["glb"] = gltf["images"][gltf["textures"][index]["source"]]["name"]

# -- save, reopen --
blend = FOLDER / "Ünï çødé.blend"
bpy.ops.wm.save_as_mainfile(filepath=str(blend))
bpy.ops.wm.open_mainfile(filepath=str(blend))
again = bpy.data.objects[out["name"]]
image = again.data.materials[0].node_tree.nodes["Stylized Albedo"].image
out["reopened"] = [image.filepath, bool(image.has_data or image.size[0])]
out["settings_kept"] = bpy.context.scene.toonify3d_turntable.size

# -- a damaged result changes nothing --
counts = [len(bpy.data.meshes), len(bpy.data.objects), len(bpy.data.collections)]
broken = FOLDER / "broken" / "result"
broken.mkdir(parents=True)
(broken / "avatar.npz").write_bytes(b"PK\x03\x04 nothing")
try:
    bpy.ops.toonify3d.import_result(folder=str(broken))
    out["broken"] = "accepted"
except RuntimeError as error:
    out["broken"] = str(error)
out["broken_left"] = counts == [
    len(bpy.data.meshes),
    len(bpy.data.objects),
    len(bpy.data.collections),
]

# -- undo --
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.preferences.addon_enable(module=MODULE)
bpy.ops.ed.undo_push(message="before")
bpy.ops.toonify3d.import_result("EXEC_DEFAULT", True, folder=str(result))
out["undo"] = [len(bpy.data.objects)]
bpy.ops.ed.undo()
out["undo"].append(len(bpy.data.objects))

# -- CPU time: 200k triangles --
big = FOLDER / "big" / "result"
points, faces = write_result(big, 317, 317)
times = []
for _ in range(3):
    start = time.process_time()
    bpy.ops.toonify3d.import_result(folder=str(big))
    times.append(time.process_time() - start)
out["big"] = [len(faces), min(times)]
points, faces, uvs = sphere(317, 317)
normals = points / np.linalg.norm(points, axis=1, keepdims=True)
np.savez(big / "avatar.npz", vertices=points, faces=faces, uvs=uvs, normals=normals)
start = time.process_time()
bpy.ops.toonify3d.import_result(folder=str(big))
out["big_normals_s"] = time.process_time() - start
finish(**out)
