"""Writing the asset: GLB, OBJ with MTL, PLY; every file whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from ..files import write_atomic, write_bytes, write_image, write_text
from ..scene import ByteImage, FloatArray, SurfaceMesh
from .bake import tangent_frames
from .mesh import vertex_normals
from .morph import PHOTOREAL
from .uv import Atlas

IntArray = npt.NDArray[np.int64]
# glTF is Y up and looks along +Z; the world is Z up and the face looks along -Y.
TO_GLTF = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
MATERIAL = "StylizedAvatar"
_TARGET = "_TARGET_"
_TANGENT = "_TANGENT"


def write_glb(
    path: Path,
    vertices: FloatArray,
    normals: FloatArray,
    atlas: Atlas,
    albedo: ByteImage,
    normal_map: ByteImage | None,
    roughness: float,
    person: FloatArray | None = None,
) -> None:
    """Write a binary glTF 2.0: Y up, metres, one matte material with the textures inside.

    With ``person`` the mesh has one morph target, ``Photoreal``: weight 0 is the style, weight 1
    the real person.

    Args:
        path: ``.glb``.
        vertices: ``(V, 3)`` of the mesh, world metres.
        normals: ``(V, 3)`` unit.
        atlas: Its atlas; vertices are repeated along seams with the same normal.
        albedo: sRGB ``(S, S, 3)``.
        normal_map: Tangent-space normals, or None.
        roughness: 0 to 1.
        person: ``(V, 3)`` where each vertex lies on the real person, world metres, or None.
    """
    material = PBRMaterial(
        name=MATERIAL,
        baseColorTexture=Image.fromarray(albedo),
        normalTexture=None if normal_map is None else Image.fromarray(normal_map),
        metallicFactor=0.0,
        roughnessFactor=roughness,
        doubleSided=False,
    )
    mesh = trimesh.Trimesh(
        vertices=vertices[atlas.source] @ TO_GLTF.T,
        faces=atlas.faces,
        vertex_normals=normals[atlas.source] @ TO_GLTF.T,
        visual=TextureVisuals(uv=atlas.uv, material=material),
        process=False,
    )
    if person is not None:
        moves = {
            "POSITION": (person - vertices),
            "NORMAL": vertex_normals(person, atlas.source[atlas.faces]) - normals,
        }
        for name, move in moves.items():
            values = (move[atlas.source] @ TO_GLTF.T).astype(np.float32)
            mesh.vertex_attributes[_TARGET + name] = values
    if normal_map is not None:
        # The very tangents that the map was baked with: no viewer has to guess them.
        mesh.vertex_attributes[_TANGENT] = _tangents(vertices, normals, atlas)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name="Avatar", geom_name="Avatar")
    data: Any = scene.export(file_type="glb", include_normals=True, tree_postprocessor=_finish_tree)
    write_bytes(path, bytes(data))


def _tangents(vertices: FloatArray, normals: FloatArray, atlas: Atlas) -> npt.NDArray[np.float32]:
    """Tangents with the bitangent's sign ``(N, 4)`` in glTF's axes (glTF 2.0, 3.7.2.1)."""
    normal = normals[atlas.source]
    tangent, sign = tangent_frames(vertices[atlas.source], normal, atlas)
    # Where a triangle has no extent in UV any direction in the plane will do.
    axis = np.eye(3)[np.abs(normal).argmin(axis=1)]
    spare = np.cross(normal, axis)
    lost = np.linalg.norm(tangent, axis=1) < 0.5
    tangent = np.where(lost[:, None], spare, tangent)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    return np.column_stack([tangent @ TO_GLTF.T, sign]).astype(np.float32)


def _finish_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """What trimesh cannot write: morph targets, tangents, and what each buffer view is for.

    trimesh writes custom attributes; in the file these are accessors like any other, so only the
    references have to move (glTF 2.0, 3.7.2.2 "Morph Targets").
    """
    for mesh in tree.get("meshes", []):
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            if _TANGENT in attributes:
                attributes["TANGENT"] = attributes.pop(_TANGENT)
            names = [name for name in attributes if name.startswith(_TARGET)]
            if names:
                target = {name.removeprefix(_TARGET): attributes.pop(name) for name in names}
                primitive["targets"] = [target]
                mesh["weights"] = [0.0]
                mesh.setdefault("extras", {})["targetNames"] = [PHOTOREAL]
            _name_targets(tree, primitive)
    return tree


def _name_targets(tree: dict[str, Any], primitive: dict[str, Any]) -> None:
    """Say which buffer views hold vertices and which indices (glTF 2.0, 5.11.5)."""
    vertex = [*primitive["attributes"].values()]
    vertex += [index for target in primitive.get("targets", []) for index in target.values()]
    for index, kind in [(primitive["indices"], 34963), *((index, 34962) for index in vertex)]:
        tree["bufferViews"][tree["accessors"][index]["bufferView"]]["target"] = kind


def write_npz(
    path: Path,
    vertices: FloatArray,
    normals: FloatArray,
    faces: IntArray,
    atlas: Atlas,
    prior_vertices: FloatArray | None,
) -> None:
    """Write what the Blender add-on reads: welded vertices, UVs per corner, the person's shape.

    Args:
        path: ``.npz``.
        vertices: ``(V, 3)``, world metres, Z up.
        normals: ``(V, 3)`` unit.
        faces: ``(F, 3)``.
        atlas: The mesh's atlas.
        prior_vertices: ``(V, 3)`` where each vertex lies on the real person, or None.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "vertices": vertices.astype(np.float32),
        "normals": normals.astype(np.float32),
        "faces": faces.astype(np.int32),
        "uvs": atlas.uv[atlas.faces].astype(np.float32),
    }
    if prior_vertices is not None:
        arrays["prior_vertices"] = prior_vertices.astype(np.float32)
    write_atomic(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def write_obj(
    path: Path,
    vertices: FloatArray,
    normals: FloatArray,
    faces: IntArray,
    atlas: Atlas,
    textures: dict[str, str],
    roughness: float,
) -> None:
    """Write Wavefront OBJ and MTL (same stem), Z up in world metres.

    Args:
        path: ``.obj``.
        vertices: ``(V, 3)``; kept shared across seams, so the mesh stays closed.
        normals: ``(V, 3)`` unit.
        faces: ``(F, 3)``.
        atlas: UV of the faces' corners.
        textures: File names beside the OBJ: ``albedo`` and optionally ``normal``.
        roughness: 0 to 1 (``Pr``, the PBR extension that Blender reads).
    """
    lines = [f"mtllib {path.stem}.mtl", "o Avatar"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in atlas.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
    lines += [f"usemtl {MATERIAL}", "s 1"]
    corners = np.stack([faces, atlas.faces, faces], axis=-1) + 1
    lines += ["f " + " ".join(f"{v}/{t}/{n}" for v, t, n in face) for face in corners.tolist()]
    material = [f"newmtl {MATERIAL}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1"]
    material += [f"Pr {roughness:g}", "Pm 0", f"map_Kd {textures['albedo']}"]
    if "normal" in textures:
        material.append(f"norm {textures['normal']}")
    write_text(path.with_suffix(".mtl"), "\n".join(material) + "\n")
    write_text(path, "\n".join(lines) + "\n")


def write_ply(path: Path, mesh: SurfaceMesh) -> None:
    """Write binary PLY with vertex colours, world metres."""
    colors = None
    if mesh.colors is not None:
        opaque = np.full((len(mesh.colors), 1), 255, dtype=np.uint8)
        colors = np.concatenate([mesh.colors, opaque], axis=1)
    out = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False)
    data: Any = out.export(file_type="ply")
    write_bytes(path, bytes(data))


def write_stl(path: Path, mesh: SurfaceMesh) -> None:
    """Write binary STL in millimetres, Z up: what slicers take the bare numbers for."""
    out = trimesh.Trimesh(mesh.vertices * 1000.0, mesh.faces, process=False)
    data: Any = out.export(file_type="stl")
    write_bytes(path, bytes(data))


def write_texture(path: Path, image: ByteImage) -> None:
    """Write an 8-bit PNG."""
    write_image(path, image)


def describe(folder: Path, names: list[str]) -> dict[str, dict[str, int | str]]:
    """Size and SHA-256 of files for the report."""
    out: dict[str, dict[str, int | str]] = {}
    for name in names:
        data = (folder / name).read_bytes()
        out[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return out
