"""The whole step on an analytic head: files that load again, and a disk that is full."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from toonify3d.asset import export
from toonify3d.asset.pipeline import build_asset, extract_mesh
from toonify3d.asset.settings import AssetSettings
from toonify3d.progress import SilentProgress

SETTINGS = AssetSettings(resolution=64, faces=2000, texture_size=512, preview_tile=96, padding=4)


def head(fields):
    """A ball with a nose; landmarks round the nose."""
    distance = fields.union(fields.ball((0.0, 0, 0), 0.5), fields.ball((0.0, -0.5, 0), 0.12))
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([0.06 * np.cos(angle), np.full(40, -0.09), 0.06 * np.sin(angle)], 1)
    scene = fields.scene((0.0, 0.0, 0.1), 0.2, crop_z=0.02, landmarks=ring + np.array([0, 0, 0.1]))
    return fields.AnalyticField(distance), scene


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    import importlib.util
    from pathlib import Path
    from types import SimpleNamespace

    spec = importlib.util.spec_from_file_location(
        "analytic_fields", Path(__file__).with_name("conftest.py")
    )
    fields = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fields)
    folder = tmp_path_factory.mktemp("result")
    field, scene = head(fields)
    prior = extract_mesh(field, scene, SETTINGS, SilentProgress())
    exemplar = np.full((80, 60, 3), 200, dtype=np.uint8)
    progress = SilentProgress()
    report = build_asset(field, prior, scene, exemplar, folder, SETTINGS, progress)
    return SimpleNamespace(
        folder=folder, report=report, warnings=progress.warnings, scene=scene, prior=prior
    )


def test_report_is_json_and_true(made):
    report = json.loads(json.dumps(made.report.as_dict()))
    mesh, texture = report["mesh"], report["texture"]
    assert made.warnings == []
    assert mesh["watertight"] and mesh["components"] == 1 and mesh["genus"] == 0
    assert mesh["requested_faces"] == 2000 and abs(mesh["faces"] - 2000) <= 20
    assert texture["coverage"] == 1.0 and texture["overlap_texels"] == 0
    assert texture["width"] == texture["height"] == 512
    assert texture["face_density"] >= 1.9
    names = (
        "avatar.glb avatar.npz avatar.obj avatar.mtl albedo.png albedo_before_enhancement.png"
        " normal.png ao.png prior.ply preview.png"
    )
    assert set(report["files"]) == set(names.split())
    for name, entry in report["files"].items():
        assert (made.folder / name).stat().st_size == entry["bytes"]
        assert len(entry["sha256"]) == 64
    assert sorted(p.name for p in made.folder.iterdir()) == sorted(names.split())


def test_glb_loads_again_upright_and_closed(made):
    scene = trimesh.load(made.folder / "avatar.glb", process=False)
    (mesh,) = scene.geometry.values()
    material = mesh.visual.material
    assert material.metallicFactor == 0.0 and material.roughnessFactor == pytest.approx(0.9)
    assert material.baseColorTexture.size == (512, 512)
    assert material.normalTexture.size == (512, 512)
    # World (x, y, z) is glTF (x, z, -y): the nose points to +Z, height is Y.
    low, high = mesh.bounds
    # The cut lies at the chest plane.
    assert low[1] == pytest.approx(0.02, abs=1e-6) and high[1] == pytest.approx(0.2, abs=1e-3)
    assert high[2] == pytest.approx(0.124, abs=1e-3)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and mesh.volume > 0


def test_glb_colours_are_the_fields(made):
    (mesh,) = trimesh.load(made.folder / "avatar.glb", process=False).geometry.values()
    image = np.asarray(mesh.visual.material.baseColorTexture) / 255.0
    uv, size = mesh.visual.uv, image.shape[0]
    x = np.clip((uv[:, 0] * size).astype(int), 0, size - 1)
    y = np.clip(((1 - uv[:, 1]) * size).astype(int), 0, size - 1)
    world = np.stack([mesh.vertices[:, 0], -mesh.vertices[:, 2], mesh.vertices[:, 1]], 1)
    expected = (world - [0, 0, 0.1]) / 0.2 * 0.5 + 0.5
    assert np.percentile(np.abs(image[y, x] - expected), 99) < 0.02


def glb_parts(path):
    """The JSON tree, and a reader of accessors, of a GLB (glTF 2.0, 4.4)."""
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]

    def read(index):
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        assert accessor["componentType"] == 5126 and accessor["type"] == "VEC3"
        values = np.frombuffer(binary, "<f4", 3 * accessor["count"], start).reshape(-1, 3)
        # The specification asks for the bounds of positions.
        if "min" in accessor:
            assert np.allclose(values.min(0), accessor["min"])
            assert np.allclose(values.max(0), accessor["max"])
        return values, "min" in accessor

    return tree, read


def test_glb_slider_leads_to_the_person(made, faces_of_two):
    """Weight 1 of the morph target lies on the real person's ball, weight 0 on the style's."""
    folder, report = faces_of_two
    tree, read = glb_parts(folder / "avatar.glb")
    (mesh,) = tree["meshes"]
    (primitive,) = mesh["primitives"]
    assert mesh["extras"]["targetNames"] == ["Photoreal"] and mesh["weights"] == [0.0]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "TANGENT", "TEXCOORD_0"}
    (target,) = primitive["targets"]
    style, _ = read(primitive["attributes"]["POSITION"])
    move, bounded = read(target["POSITION"])
    assert bounded
    center = np.array([0.0, 0.1, 0.0])
    radius = np.linalg.norm(style - center, axis=1)
    person = style + move - center
    assert np.abs(radius - 0.5 * 0.2).max() < 1e-3
    assert np.abs(np.linalg.norm(person / [1.2, 1, 1], axis=1) - 0.5 * 0.2).max() < 1e-3
    normal = read(primitive["attributes"]["NORMAL"])[0] + read(target["NORMAL"])[0]
    truth = person / np.array([1.2, 1, 1]) ** 2
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    assert np.percentile(np.einsum("ij,ij->i", normal, truth), 1) > 0.99
    figures = report.mesh["photoreal"]
    assert figures["flipped_faces"] == 0 and figures["positions"] == 11
    assert 0 < figures["surface_p95"] < 0.1
    plain, _ = glb_parts(made.folder / "avatar.glb")
    assert "targets" not in plain["meshes"][0]["primitives"][0]
    assert made.report.mesh["photoreal"] is None


def test_the_persons_colours_have_the_same_layout(faces_of_two):
    folder, report = faces_of_two
    albedo, photo = (
        np.asarray(Image.open(folder / name)).astype(int)
        for name in ("albedo_before_enhancement.png", "photo_albedo.png")
    )
    assert "photo_albedo.png" in report.files
    # The field's albedo is the position, its photo the same turned round.
    assert np.abs(photo - (255 - albedo)).max() <= 1
    assert np.ptp(photo) > 100


@pytest.fixture(scope="module")
def faces_of_two(tmp_path_factory, request):
    """A ball as the style of a person who is an ellipsoid, 1.2 times as wide."""
    import importlib.util
    from pathlib import Path

    import torch

    spec = importlib.util.spec_from_file_location(
        "analytic_fields", Path(__file__).with_name("conftest.py")
    )
    fields = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fields)
    stretch = torch.tensor([1.2, 1.0, 1.0])
    ball = fields.ball((0.0, 0, 0), 0.5)

    class Avatar(fields.AnalyticField):
        def to_prior(self, x):
            return x * stretch

        def color_pair(self, x):
            color = self.color(x)
            return torch.cat([color, 1 - color], dim=1)

    scene = fields.scene((0.0, 0.0, 0.1), 0.2)
    person = fields.AnalyticField(lambda x: ball(x / stretch))
    prior = extract_mesh(person, scene, SETTINGS, SilentProgress())
    folder = tmp_path_factory.mktemp("both")
    exemplar = np.full((80, 60, 3), 200, dtype=np.uint8)
    progress = SilentProgress()
    report = build_asset(Avatar(ball), prior, scene, exemplar, folder, SETTINGS, progress)
    assert progress.warnings == []
    return folder, report


def test_flipped_triangles_are_counted():
    from toonify3d.asset.morph import flipped_faces

    start = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 0], [6, 5, 0], [5, 6, 0]])
    end = start.copy()
    end[0] = [2, 2, 0]  # passes through the opposite edge
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    assert flipped_faces(start, end, faces).tolist() == [True, False]


def test_obj_loads_again_with_relative_names(made):
    text = (made.folder / "avatar.mtl").read_text(encoding="utf-8")
    assert "map_Kd albedo.png" in text and "norm normal.png" in text
    mesh = trimesh.load(made.folder / "avatar.obj", process=False)
    assert mesh.visual.material.image.size == (512, 512)
    low = mesh.bounds[0]
    assert low[2] == pytest.approx(0.02, abs=1e-5) and low[1] == pytest.approx(-0.124, abs=1e-3)
    assert len(mesh.faces) == made.report.mesh["faces"]


def test_prior_has_colours(made):
    mesh = trimesh.load(made.folder / "prior.ply", process=False)
    assert np.abs(mesh.vertices - made.prior.vertices).max() < 1e-6
    assert (mesh.visual.vertex_colors[:, :3] == made.prior.colors).all()


def test_images_have_the_asked_size(made):
    for name in ("albedo.png", "normal.png"):
        with Image.open(made.folder / name) as image:
            assert image.size == (512, 512) and image.mode == "RGB"


def test_full_disk_leaves_earlier_results(made, monkeypatch):
    before = {p.name: p.read_bytes() for p in made.folder.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        export.write_ply(made.folder / "prior.ply", made.prior)
    with pytest.raises(OSError, match="No space"):
        export.write_texture(made.folder / "albedo.png", np.zeros((8, 8, 3), np.uint8))
    assert {p.name: p.read_bytes() for p in made.folder.iterdir()} == before
