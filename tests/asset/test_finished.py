"""``toonify3d export`` and ``render`` on a finished style of a small job."""

import json
import shutil
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import trimesh

from toonify3d.asset.export import write_glb, write_npz, write_texture
from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.mesh import decimate, vertex_normals
from toonify3d.asset.uv import unwrap
from toonify3d.cli import main
from toonify3d.errors import InputError
from toonify3d.finished import atlas_of_corners, finished_style
from toonify3d.progress import SilentProgress
from toonify3d.service.job import JobFolder
from toonify3d.views import straight_alpha

RED, BLUE = (220, 30, 30), (30, 30, 220)


@pytest.fixture
def job(tmp_path, fields):
    """A ball of 1 dm: red in front (-Y), blue at the back."""
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)))
    v, f = decimate(*extract_level_set(field, 48, SilentProgress()), 1200, SilentProgress())
    atlas = unwrap(v, f, 256, 2, SilentProgress())
    v = v * 0.1
    normals = vertex_normals(v, f)
    side = atlas.faces[v[f].mean(axis=1)[:, 1] > 0]
    albedo = np.empty((256, 256, 3), np.uint8)
    albedo[:] = RED
    for corners in side:
        corner = (atlas.uv[corners] * [256, -256] + [0, 256]).round().astype(np.int32)
        cv2.fillPoly(albedo, [corner], BLUE)
    root = tmp_path / "Ünï 空間"
    capture = tmp_path / "capture.mp4"
    capture.write_bytes(b"video")
    description = JobFolder(root)
    description.create(capture, {})
    description.add_style("toon", {"settings": {"asset": {"roughness": 0.9}}})
    result = description.style("toon") / "result"
    write_npz(result / "avatar.npz", v, normals, f, atlas, None)
    write_texture(result / "albedo.png", albedo)
    write_texture(result / "normal.png", np.full((256, 256, 3), 128, np.uint8))
    write_glb(result / "avatar.glb", v, normals, atlas, albedo, None, 0.9)
    (result / "report.json").write_text("{}", encoding="utf-8")
    return root


def run(capsys, *arguments):
    code = main([str(item) for item in arguments])
    out = capsys.readouterr()
    return code, out.out.split("\n")[:-1], out.err


def test_atlas_comes_back_from_corners(job):
    item = finished_style(job, None)
    assert (item.atlas.source[item.atlas.faces] == item.mesh.faces).all()
    with np.load(item.folder / "avatar.npz") as data:
        assert np.allclose(item.atlas.uv[item.atlas.faces], data["uvs"])
    again = atlas_of_corners(item.mesh.faces, item.atlas.uv[item.atlas.faces])
    assert len(again.uv) == len(item.atlas.uv)


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl"])
def test_export_loads_again_with_its_size(job, capsys, tmp_path, kind):
    code, written, error = run(capsys, "export", job, "--output", tmp_path / f"kopf.{kind}")
    assert (code, error) == (0, "")
    for name in written:
        assert name.startswith(str(tmp_path / "kopf"))
    mesh = trimesh.load_mesh(tmp_path / f"kopf.{kind}", process=False)
    mesh = mesh.to_mesh() if isinstance(mesh, trimesh.Scene) else mesh
    expected = 100.0 if kind == "stl" else 0.1
    assert np.allclose(np.ptp(mesh.vertices, axis=0), expected, rtol=0.02)
    assert len(mesh.faces) == len(finished_style(job, "toon").mesh.faces)


def test_export_as_usd(job, capsys, tmp_path):
    pxr = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    code, written, error = run(capsys, "export", job, "--output", tmp_path / "Köpfe 空.usdc")
    assert (code, error) == (0, "")
    names = ["Köpfe 空.usdc", "Köpfe 空_albedo.png", "Köpfe 空_normal.png"]
    assert written == [str(tmp_path / name) for name in names]
    stage = pxr.Stage.Open(written[0])  # prims live no longer than their stage
    points = np.array(stage.GetPrimAtPath("/Avatar/Mesh").GetAttribute("points").Get())
    assert np.allclose(points, finished_style(job, None).mesh.vertices, atol=1e-6)


def test_exported_colours_are_where_they_belong(job, capsys, tmp_path):
    run(capsys, "export", job, "--output", tmp_path / "a.ply")
    mesh = trimesh.load_mesh(tmp_path / "a.ply", process=False)
    colors, y = mesh.visual.vertex_colors[:, :3].astype(int), mesh.vertices[:, 1]
    assert np.abs(colors[y < -0.015] - RED).mean() < 8
    assert np.abs(colors[y > 0.015] - BLUE).mean() < 8
    run(capsys, "export", job, "--output", tmp_path / "b.obj")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"b.obj", "b.mtl", "b_albedo.png", "b_normal.png"} <= names
    material = (tmp_path / "b.mtl").read_text(encoding="utf-8")
    assert "map_Kd b_albedo.png" in material and "norm b_normal.png" in material


def test_export_default_and_folder(job, capsys, tmp_path):
    code, (written,), _ = run(capsys, "export", job)
    expected = job / "styles" / "toon" / "export" / "toon.glb"
    assert code == 0 and written == str(expected)
    assert expected.read_bytes() == (job / "styles/toon/result/avatar.glb").read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    run(capsys, "export", job, "--format", "stl", "--output", folder)
    assert [path.name for path in folder.iterdir()] == ["toon.stl"]


def test_render_pictures_turn_round_and_have_alpha(job, capsys, tmp_path):
    out = tmp_path / "views"
    code, written, _ = run(
        capsys,
        *("render", job, "--from", "mesh", "--frames", 2, "--size", 64, "--shading", "flat"),
        *("--output", out),
    )
    assert code == 0 and written == [str(out)]
    front, back = (iio.imread(out / name) for name in ("0000.png", "0001.png"))
    assert sorted(path.name for path in out.iterdir()) == ["0000.png", "0001.png"]
    assert front.shape == (64, 64, 4)
    assert front[0, 0, 3] == 0 and front[32, 32, 3] == 255
    assert np.abs(front[32, 32, :3].astype(int) - RED).max() < 10
    assert np.abs(back[32, 32, :3].astype(int) - BLUE).max() < 10
    # Unassociated alpha: the rim is as red as the middle, not darker.
    rim = (front[..., 3] > 60) & (front[..., 3] < 200)
    assert rim.sum() > 20 and front[rim][:, 0].mean() + front[rim][:, 2].mean() > 200


def test_render_video(job, capsys):
    code, (written,), _ = run(capsys, "render", job, "--from", "mesh", "--frames", 5, "--size", 64)
    assert code == 0 and written.endswith("turntable.mp4")
    frames = iio.imread(written)
    assert frames.shape == (5, 64, 64, 3)
    middle = frames[0, 32, 32].astype(int)
    assert middle[0] > middle[2] + 60
    assert sorted(p.name for p in (job / "styles/toon/render").iterdir()) == ["turntable.mp4"]


def test_render_one_picture_along_a_file(job, capsys, tmp_path):
    cameras = tmp_path / "cams.json"
    camera = {"position": [0, -0.4, 0], "look_at": [0, 0, 0], "fov": 20}
    cameras.write_text(json.dumps([camera]), encoding="utf-8")
    out = tmp_path / "one.png"
    arguments = ("--from", "mesh", "--path", cameras, "--size", "80x60", "--output", out)
    code, written, error = run(capsys, "render", job, *arguments)
    assert (code, written, error) == (0, [str(out)], "")
    image = iio.imread(out)
    assert image.shape == (60, 80, 4) and image[30, 40, 3] == 255 and image[0, 0, 3] == 0


def test_full_disk_keeps_the_earlier_video(job, capsys, monkeypatch):
    _, (written,), _ = run(capsys, "render", job, "--from", "mesh", "--frames", 2, "--size", 32)
    before = Path(written).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device", written)

    monkeypatch.setattr("os.fsync", full)
    code, _, error = run(capsys, "render", job, "--from", "mesh", "--frames", 3, "--size", 32)
    assert code == 2 and error.count("\n") == 1 and "No space left" in error
    assert Path(written).read_bytes() == before
    assert [path.name for path in Path(written).parent.iterdir()] == ["turntable.mp4"]


def test_straight_alpha_divides():
    alpha = np.array([[0, 64, 255]], np.uint8)
    over = np.array([[[0, 0, 0], [50, 25, 0], [200, 100, 7]]], np.uint8)
    rgba = straight_alpha(over, alpha)
    assert rgba[0, 1].tolist() == [199, 100, 0, 64] and rgba[0, 2].tolist() == [200, 100, 7, 255]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "JOB", "--output", "x.fbx"], "x.fbx"),
        (["export", "JOB", "--format", "ply", "--output", "x.stl"], "ply"),
        (["export", "JOB", "--style", "nobody"], "nobody"),
        (["export", "nowhere"], "nowhere"),
        (["render", "JOB", "--from", "mesh", "--size", "63"], "even"),
        (["render", "JOB", "--size", "64x"], "--size"),
        (["render", "JOB", "--path", "spiral"], "spiral"),
        (["render", "JOB", "--from", "mesh", "--frames", "2", "--output", "x.png"], "x.png"),
        (["render", "JOB", "--from", "mesh", "--subject", "person"], "--from fields"),
        (["render", "JOB", "--device", "abacus"], "abacus"),
        (["render", "JOB"], "--from mesh"),
        (["render", "JOB", "--size", "8"], "--size"),
        (["render", "JOB", "--frames", "0"], "--frames"),
        (["render", "JOB", "--output", "x.gif"], "x.gif"),
    ],
)
def test_bad_input_is_one_sentence(job, capsys, arguments, words):
    before = sorted(job.rglob("*"))
    code, out, error = run(capsys, *[job if a == "JOB" else a for a in arguments])
    assert code == 2 and out == [] and error.count("\n") == 1 and words in error
    assert sorted(job.rglob("*")) == before


def test_unfinished_damaged_and_several_styles(job):
    folder = JobFolder(job)
    folder.add_style("late", {"settings": {"asset": {"roughness": 0.9}}})
    assert finished_style(job, None).name == "toon"
    with pytest.raises(InputError, match="not finished"):
        finished_style(job, "late")
    shutil.copytree(folder.style("toon"), folder.style("late"))
    with pytest.raises(InputError, match=r"--style: late, toon"):
        finished_style(job, None)
    (folder.style("late") / "result" / "avatar.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="damaged"):
        finished_style(job, "late")
    document = json.loads((job / "job.json").read_text(encoding="utf-8"))
    assert list(document["styles"]) == ["toon", "late"]
