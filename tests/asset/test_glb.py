"""The GLB as others see it: Khronos' validator finds nothing, Blender shows the same picture."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from toonify3d.asset.pipeline import build_asset, extract_mesh
from toonify3d.asset.render import Renderable, orbit_camera, render_view
from toonify3d.asset.settings import AssetSettings
from toonify3d.finished import atlas_of_corners
from toonify3d.progress import SilentProgress
from toonify3d.report_page.slim import slim_glb
from toonify3d.scene import SurfaceMesh

HERE = Path(__file__).parent
NODE_MODULES = HERE.parents[1] / ".cache" / "node" / "node_modules"
SETTINGS = AssetSettings(resolution=64, faces=2000, texture_size=512, preview_tile=64, padding=4)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A ball with a nose as the style of a person who is 1.2 times as wide."""
    spec = importlib.util.spec_from_file_location("analytic_fields", HERE / "conftest.py")
    fields = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fields)
    stretch = torch.tensor([1.2, 1.0, 1.0])
    head = fields.union(fields.ball((0.0, 0, 0), 0.5), fields.ball((0.0, -0.5, 0), 0.12))

    class Avatar(fields.AnalyticField):
        def to_prior(self, x):
            return x * stretch

        def color_pair(self, x):
            color = self.color(x)
            return torch.cat([color, 1 - color], dim=1)

    scene = fields.scene((0.0, 0.0, 0.1), 0.2)
    person = fields.AnalyticField(lambda x: head(x / stretch))
    prior = extract_mesh(person, scene, SETTINGS, SilentProgress())
    folder = tmp_path_factory.mktemp("glb") / "Ünï 空間"
    exemplar = np.full((80, 60, 3), 200, dtype=np.uint8)
    build_asset(Avatar(head), prior, scene, exemplar, folder, SETTINGS, SilentProgress())
    return folder


def validate(path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (NODE_MODULES / "gltf-validator").is_dir():
        pytest.skip("gltf-validator is not installed ('./setup.sh test' gets it when npm is there)")
    done = subprocess.run(
        ["node", str(HERE / "gltf_validate.js"), str(path)],
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("slim", [False, True])
def test_khronos_validator_finds_nothing(result, tmp_path, slim):
    path = tmp_path / "avatar.glb"
    data = (result / "avatar.glb").read_bytes()
    path.write_bytes(slim_glb(data) if slim else data)
    report = validate(path)
    issues = report["issues"]
    assert issues["messages"] == []  # no errors, warnings, infos or hints
    info = report["info"]
    assert info["hasMorphTargets"] and info["hasTextures"] and info["drawCallCount"] == 1


def test_validator_does_find_errors(result, tmp_path):
    data = bytearray((result / "avatar.glb").read_bytes())
    data[data.index(b'"NORMAL"') + 1] = ord("X")
    (tmp_path / "bad.glb").write_bytes(data)
    assert validate(tmp_path / "bad.glb")["issues"]["numErrors"] > 0


def test_blender_shows_the_same(result, tmp_path):
    pytest.importorskip("bpy", reason="Blender's module is not installed")
    camera = orbit_camera(np.array([0, 0, 0.1]), 0.6, 0.6, 0.1, 128, 128, 0.5)
    order = {"glb": str(result / "avatar.glb"), "c2w": camera.c2w.tolist(), "fov": 0.5}
    order["out"] = str(tmp_path / "blender.png")
    done = subprocess.run(
        [sys.executable, str(HERE / "blender_shows_glb.py"), json.dumps(order)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.split("TOLD ")[1].split("\n")[0])
    assert told["keys"] == ["Basis", "Photoreal"] and told["value"] == 0.0
    assert told["images"] == {"baseColor": "sRGB", "normal": "Non-Color"}
    assert told["roughness"] == pytest.approx(SETTINGS.roughness)
    with np.load(result / "avatar.npz") as data:
        vertices, faces, uvs = data["vertices"], data["faces"].astype(int), data["uvs"]
    atlas = atlas_of_corners(faces, uvs.astype(float))
    raw = np.fromfile(result / "albedo.png", np.uint8)
    albedo = np.ascontiguousarray(cv2.imdecode(raw, cv2.IMREAD_COLOR)[..., ::-1])
    item = Renderable(SurfaceMesh(vertices.astype(float), faces), albedo, atlas.uv, atlas.faces)
    ours, alpha = render_view(item, camera, "flat", background=(0, 0, 0))
    theirs = cv2.imread(order["out"], cv2.IMREAD_UNCHANGED)
    covered = theirs[..., 3] / 255.0
    theirs = theirs[..., 2::-1] * covered[..., None]
    assert np.abs(covered - alpha / 255.0).mean() < 0.005
    seen = alpha == 255
    error = (ours[seen].astype(float) - theirs[seen]) / 255
    assert -10 * np.log10((error**2).mean()) > 32
