"""USD (``.usd``, ``.usda``, ``.usdc``, ``.usdz``) through Pixar's own library, ``usd-core``.

The library is optional (``pip install usd-core``): no other part needs it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import write_bytes
from ..scene import FloatArray
from .morph import PHOTOREAL
from .uv import Atlas

IntArray = npt.NDArray[np.int64]
KINDS = ("usd", "usda", "usdc", "usdz")


def load_usd() -> Any:
    """The ``pxr`` package.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pxr.Sdf
        import pxr.Usd
        import pxr.UsdGeom
        import pxr.UsdShade
        import pxr.UsdSkel
        import pxr.UsdUtils
        import pxr.Vt
    except ImportError as error:
        raise InputError(
            "USD needs the package usd-core, which is not installed here: pip install usd-core.",
            "no_usd",
        ) from error
    return pxr


def write_usd(
    path: Path,
    vertices: FloatArray,
    normals: FloatArray,
    faces: IntArray,
    atlas: Atlas,
    textures: dict[str, Path],
    roughness: float,
    person: FloatArray | None = None,
) -> list[Path]:
    """Write a mesh with a UsdPreviewSurface material, Z up, metres.

    ``.usdz`` holds its textures; the other kinds have them beside them. With ``person`` the mesh
    has a blend shape ``Photoreal``: 0 is the style, 1 the real person.

    Args:
        path: Its ending chooses the kind; ``.usd`` is binary.
        vertices: ``(V, 3)`` world metres; shared across seams.
        normals: ``(V, 3)`` unit.
        faces: ``(F, 3)``.
        atlas: UV of the faces' corners.
        textures: PNG files: ``albedo`` and optionally ``normal``.
        roughness: 0 to 1.
        person: ``(V, 3)`` where each vertex lies on the real person, or None.

    Returns:
        Every file that was written.

    Raises:
        InputError: ``usd-core`` is not installed.
        OSError: Not writable; files already there stay whole.
    """
    pxr = load_usd()
    kind = path.suffix.lower().removeprefix(".")
    with tempfile.TemporaryDirectory(prefix="toonify3d-usd-") as scratch:
        folder = Path(scratch)
        # USD writes its own files; they are made apart and moved into place whole.
        stem = "avatar" if kind == "usdz" else path.stem
        names = {name: f"{stem}_{name}.png" for name in textures}
        for name, source in textures.items():
            (folder / names[name]).write_bytes(source.read_bytes())
        layer = folder / f"stage.{'usdc' if kind == 'usdz' else kind}"
        stage = pxr.Usd.Stage.CreateNew(str(layer))
        pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.z)
        pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        mesh = _mesh(pxr, stage, vertices, normals, faces, atlas)
        _material(pxr, stage, mesh, names, roughness)
        if person is not None:
            _blend_shape(pxr, stage, mesh, person - vertices)
        stage.GetRootLayer().Save()
        if kind != "usdz":
            return _publish(path, layer, [folder / name for name in names.values()])
        package = folder / "package.usdz"
        if not pxr.UsdUtils.CreateNewUsdzPackage(str(layer), str(package)):
            raise OSError(f"{package.name} could not be made")
        return _publish(path, package, [])


def _publish(path: Path, made: Path, beside: list[Path]) -> list[Path]:
    written = []
    for source in beside:
        target = path.with_name(source.name)
        write_bytes(target, source.read_bytes())
        written.append(target)
    write_bytes(path, made.read_bytes())
    return [path, *written]


def _mesh(
    pxr: Any, stage: Any, vertices: FloatArray, normals: FloatArray, faces: IntArray, atlas: Atlas
) -> Any:
    vt, sdf = pxr.Vt, pxr.Sdf
    root = pxr.UsdSkel.Root.Define(stage, "/Avatar")
    stage.SetDefaultPrim(root.GetPrim())
    mesh = pxr.UsdGeom.Mesh.Define(stage, "/Avatar/Mesh")
    mesh.CreatePointsAttr(vt.Vec3fArray.FromNumpy(vertices.astype(np.float32)))
    mesh.CreateFaceVertexCountsAttr(vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(faces.astype(np.int32).reshape(-1)))
    mesh.CreateNormalsAttr(vt.Vec3fArray.FromNumpy(normals.astype(np.float32)))
    mesh.SetNormalsInterpolation(pxr.UsdGeom.Tokens.vertex)
    mesh.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    ends = np.stack([vertices.min(axis=0), vertices.max(axis=0)]).astype(np.float32)
    mesh.CreateExtentAttr(vt.Vec3fArray.FromNumpy(ends))
    st = pxr.UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
        "st", sdf.ValueTypeNames.TexCoord2fArray, pxr.UsdGeom.Tokens.faceVarying
    )
    st.Set(vt.Vec2fArray.FromNumpy(atlas.uv.astype(np.float32)))
    st.SetIndices(vt.IntArray.FromNumpy(atlas.faces.astype(np.int32).reshape(-1)))
    return mesh


def _material(pxr: Any, stage: Any, mesh: Any, names: dict[str, str], roughness: float) -> None:
    shade, types = pxr.UsdShade, pxr.Sdf.ValueTypeNames
    material = shade.Material.Define(stage, "/Avatar/StylizedAvatar")
    surface = shade.Shader.Define(stage, "/Avatar/StylizedAvatar/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", types.Float).Set(float(roughness))
    surface.CreateInput("metallic", types.Float).Set(0.0)
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    reader = shade.Shader.Define(stage, "/Avatar/StylizedAvatar/UV")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")

    def texture(name: str, color: str) -> Any:
        node = shade.Shader.Define(stage, f"/Avatar/StylizedAvatar/{name.capitalize()}")
        node.CreateIdAttr("UsdUVTexture")
        node.CreateInput("file", types.Asset).Set(f"./{names[name]}")
        node.CreateInput("sourceColorSpace", types.Token).Set(color)
        node.CreateInput("st", types.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
        node.CreateOutput("rgb", types.Float3)
        return node

    albedo = texture("albedo", "sRGB")
    color = surface.CreateInput("diffuseColor", types.Color3f)
    color.ConnectToSource(albedo.ConnectableAPI(), "rgb")
    if "normal" in names:
        node = texture("normal", "raw")
        node.CreateInput("scale", types.Float4).Set((2.0, 2.0, 2.0, 1.0))
        node.CreateInput("bias", types.Float4).Set((-1.0, -1.0, -1.0, 0.0))
        bump = surface.CreateInput("normal", types.Normal3f)
        bump.ConnectToSource(node.ConnectableAPI(), "rgb")
    shade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)


def _blend_shape(pxr: Any, stage: Any, mesh: Any, move: FloatArray) -> None:
    """The way to the person as a UsdSkel blend shape; it needs a skeleton, here of one joint."""
    skel, vt = pxr.UsdSkel, pxr.Vt
    shape = skel.BlendShape.Define(stage, f"/Avatar/Mesh/{PHOTOREAL}")
    shape.CreateOffsetsAttr(vt.Vec3fArray.FromNumpy(move.astype(np.float32)))
    shape.CreatePointIndicesAttr(vt.IntArray.FromNumpy(np.arange(len(move), dtype=np.int32)))
    skeleton = skel.Skeleton.Define(stage, "/Avatar/Skeleton")
    unit = pxr.Gf.Matrix4d(1.0)
    skeleton.CreateJointsAttr(["head"])
    skeleton.CreateBindTransformsAttr([unit])
    skeleton.CreateRestTransformsAttr([unit])
    animation = skel.Animation.Define(stage, "/Avatar/Skeleton/Animation")
    animation.CreateBlendShapesAttr([PHOTOREAL])
    animation.CreateBlendShapeWeightsAttr([0.0])
    skel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets(
        [animation.GetPath()]
    )
    binding = skel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateBlendShapesAttr([PHOTOREAL])
    binding.CreateBlendShapeTargetsRel().SetTargets([shape.GetPath()])
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    count = len(move)
    binding.CreateJointIndicesPrimvar(False, 1).Set(vt.IntArray(count, 0))
    binding.CreateJointWeightsPrimvar(False, 1).Set(vt.FloatArray(count, 1.0))
