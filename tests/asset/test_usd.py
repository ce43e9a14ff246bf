"""USD files open again as what they are: mesh, material, blend shape; and what happens without."""

import builtins
import zipfile

import numpy as np
import pytest

from toonify3d.asset.export import write_texture
from toonify3d.asset.usd import write_usd
from toonify3d.asset.uv import Atlas
from toonify3d.errors import InputError


@pytest.fixture
def parts(tmp_path):
    vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.2]], float)
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    normals = vertices - vertices.mean(axis=0)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    uv = np.random.default_rng(0).random((12, 2))
    atlas = Atlas(faces.reshape(-1), np.arange(12).reshape(4, 3), uv, 4, 0.5, None, 0)
    for name in ("albedo", "normal"):
        write_texture(tmp_path / f"{name}.png", np.full((8, 8, 3), 90, np.uint8))
    textures = {name: tmp_path / f"{name}.png" for name in ("albedo", "normal")}
    return vertices, normals, faces, atlas, textures


@pytest.mark.parametrize("kind", ["usda", "usdc", "usd", "usdz"])
def test_usd_opens_again(parts, tmp_path, kind):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    from pxr import Usd, UsdGeom, UsdShade, UsdSkel

    vertices, normals, faces, atlas, textures = parts
    person = vertices * [1.2, 1.0, 1.0]
    path = tmp_path / "Ünï 空" / f"kopf.{kind}"
    written = write_usd(path, vertices, normals, faces, atlas, textures, 0.7, person)
    assert written[0] == path and all(item.is_file() for item in written)
    assert len(written) == (1 if kind == "usdz" else 3)
    assert sorted(path.parent.iterdir()) == sorted(written)
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    assert stage.GetDefaultPrim().GetPath() == "/Avatar"
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/Avatar/Mesh"))
    assert np.allclose(np.array(mesh.GetPointsAttr().Get()), vertices, atol=1e-7)
    assert (np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3) == faces).all()
    st = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st")
    assert np.allclose(np.array(st.ComputeFlattened()), atlas.uv[atlas.faces].reshape(-1, 2))
    shape = UsdSkel.BlendShape(stage.GetPrimAtPath("/Avatar/Mesh/Photoreal"))
    assert np.allclose(np.array(shape.GetOffsetsAttr().Get()), person - vertices, atol=1e-7)
    material, _ = UsdShade.MaterialBindingAPI(mesh.GetPrim()).ComputeBoundMaterial()
    surface = material.ComputeSurfaceSource()[0]
    assert surface.GetInput("roughness").Get() == pytest.approx(0.7)
    for name, color in (("Albedo", "sRGB"), ("Normal", "raw")):
        node = UsdShade.Shader(stage.GetPrimAtPath(f"/Avatar/StylizedAvatar/{name}"))
        assert node.GetInput("sourceColorSpace").Get() == color
        assert node.GetInput("file").Get().resolvedPath
    if kind == "usdz":
        names = zipfile.ZipFile(path).namelist()
        assert names[0].endswith(".usdc") and len(names) == 3


def test_without_the_library_it_says_how_to_get_it(parts, tmp_path, monkeypatch):
    real = builtins.__import__

    def no_usd(name, *rest):
        if name.startswith("pxr"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_usd)
    with pytest.raises(InputError, match="pip install usd-core"):
        write_usd(tmp_path / "a.usd", *parts, 0.9)
    assert not (tmp_path / "a.usd").exists()


def test_full_disk_keeps_the_earlier_file(parts, tmp_path, monkeypatch):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    path = tmp_path / "a.usdz"
    write_usd(path, *parts, 0.9)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_usd(path, *parts, 0.2)
    assert path.read_bytes() == before
