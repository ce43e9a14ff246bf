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
        "avatar.glb avatar.npz avatar.obj avatar.mtl albedo.png normal.png prior.ply preview.png"
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
    assert low[1] == pytest.approx(0.02, abs=1e-3) and high[1] == pytest.approx(0.2, abs=1e-3)
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


def test_obj_loads_again_with_relative_names(made):
    text = (made.folder / "avatar.mtl").read_text(encoding="utf-8")
    assert "map_Kd albedo.png" in text and "norm normal.png" in text
    mesh = trimesh.load(made.folder / "avatar.obj", process=False)
    assert mesh.visual.material.image.size == (512, 512)
    low = mesh.bounds[0]
    assert low[2] == pytest.approx(0.02, abs=1e-3) and low[1] == pytest.approx(-0.124, abs=1e-3)
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
