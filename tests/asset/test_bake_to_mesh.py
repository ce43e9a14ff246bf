"""Baking onto an artist's own mesh: places, colours, distances, bad meshes, full disks."""

import errno

import numpy as np
import pytest

from toonify3d.asset import bake_to_mesh as module
from toonify3d.asset.bake_to_mesh import bake_to_mesh, heat_map, write_bake
from toonify3d.asset.levelset import ClippedField
from toonify3d.asset.settings import AssetSettings
from toonify3d.asset.target import check_uvs, read_target
from toonify3d.cli import main
from toonify3d.errors import InputError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Normalization, SurfaceMesh

RADIUS = 0.3  # metres of the unit sphere
NORM = Normalization(np.array([0.0, 0.0, 0.1]), RADIUS)
SETTINGS = AssetSettings(resolution=64, volume_depth=0.01)


def quads(radius, columns=48, rows=24):
    """A sphere of quads in world metres (Z up), with one island that covers nearly everything."""
    turn = np.linspace(0, 2 * np.pi, columns + 1)
    lift = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)[1:-1]
    turn, lift = np.meshgrid(turn, lift, indexing="ij")
    points = np.stack([np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift)], -1)
    uv = np.stack([0.02 + 0.96 * turn / (2 * np.pi), 0.5 + 0.96 * lift / np.pi], -1)
    index = np.arange(turn.size).reshape(turn.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.stack([a, b, c, d], -1).reshape(-1, 4)
    return points.reshape(-1, 3) * radius + NORM.center, uv.reshape(-1, 2), faces


def write_obj(path, points, uv, faces):
    lines = [f"v {x} {y} {z}" for x, y, z in points.tolist()]
    lines += [] if uv is None else [f"vt {u} {v}" for u, v in uv.tolist()]
    corner = "{0}" if uv is None else "{0}/{0}"
    lines += ["f " + " ".join(corner.format(i + 1) for i in face) for face in faces.tolist()]
    path.write_text("\n".join(lines))
    return path


def avatar(fields):
    points, _, faces = quads(0.5 * RADIUS)
    triangles = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)))
    return field, SurfaceMesh(points, triangles)


def run(fields, path, **options):
    field, mesh = avatar(fields)
    return bake_to_mesh(field, NORM, mesh, path, 512, SETTINGS, SilentProgress(), **options)


def test_colours_normals_and_distance_of_a_larger_sphere(fields, tmp_path):
    path = write_obj(tmp_path / "mine.obj", *quads(0.51 * RADIUS))
    result = run(fields, path)
    report = result.report
    # 0.01 of the unit sphere, less what the flat quads cut off.
    assert report["distance_mm"]["median"] == pytest.approx(0.01 * 1000 * RADIUS, abs=0.35)
    assert report["distance_mm"]["max"] < 3.2
    assert report["coverage"] == 1.0 and report["up"] == "z" and report["size"] == 512
    u = (np.arange(512) + 0.5) / 512
    turn = (u[None, :] - 0.02) / 0.96 * 2 * np.pi
    lift = (0.5 - u[:, None]) / 0.96 * -np.pi * -1
    truth = np.stack(
        np.broadcast_arrays(
            np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift) + 0 * turn
        ),
        -1,
    )
    rows, columns = slice(60, 450), slice(20, 490)
    error = np.abs(result.images["albedo.png"] / 255.0 - (0.25 * truth + 0.5))[rows, columns]
    assert np.percentile(error, 99) < 0.01
    normal = result.images["normal.png"][rows, columns] / 127.5 - 1.0
    assert np.percentile(normal[..., 2], 2) > 0.995


@pytest.mark.parametrize("suffix", ["glb", "ply"])
def test_other_formats_and_y_up(fields, tmp_path, suffix):
    import trimesh

    points, uv, faces = quads(0.5 * RADIUS)
    triangles = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    if suffix == "glb":  # Y up by its standard
        points = points @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]]).T
    visual = trimesh.visual.TextureVisuals(uv=uv)
    mesh = trimesh.Trimesh(points, triangles, visual=visual, process=False)
    path = tmp_path / f"mine.{suffix}"
    mesh.export(path)
    report = run(fields, path).report
    assert report["up"] == ("y" if suffix == "glb" else "z")
    assert report["distance_mm"]["p95"] < 1.0 and report["coverage"] > 0.999


def test_an_obj_from_blender_is_turned(fields, tmp_path):
    points, uv, faces = quads(0.5 * RADIUS)
    turned = points @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]]).T
    report = run(fields, write_obj(tmp_path / "y.obj", turned, uv, faces)).report
    assert report["up"] == "y" and report["distance_mm"]["p95"] < 1.0


def test_wrong_scale_is_named(fields, tmp_path):
    points, uv, faces = quads(0.5 * RADIUS)
    path = write_obj(tmp_path / "cm.obj", points * 100, uv, faces)
    with pytest.raises(InputError, match=r"centimetres with Z up: use --up z --scale 0\.01"):
        run(fields, path)
    assert run(fields, path, scale=0.01).report["coverage"] > 0.999


def test_a_mesh_elsewhere_is_refused(fields, tmp_path):
    points, uv, faces = quads(0.5 * RADIUS)
    path = write_obj(tmp_path / "far.obj", points + np.array([0.4, 0.4, 0.0]), uv, faces)
    with pytest.raises(InputError, match="in the place and size of the avatar"):
        run(fields, path)


def test_an_inside_out_mesh_is_refused(fields, tmp_path):
    points, uv, faces = quads(0.5 * RADIUS)
    with pytest.raises(InputError, match="look inward"):
        run(fields, write_obj(tmp_path / "in.obj", points, uv, faces[:, ::-1]))


def test_bad_uvs_are_explained(tmp_path):
    points, uv, faces = quads(0.5)
    with pytest.raises(InputError, match="no UVs"):
        read_target(write_obj(tmp_path / "a.obj", points, None, faces))
    with pytest.raises(InputError, match=r"faces have UVs outside 0\.\.1 \(from .* to 1\.98\)"):
        check_uvs(read_target(write_obj(tmp_path / "b.obj", points, uv + np.array([1, 0]), faces)))
    folded = np.column_stack([np.abs(uv[:, 0] - 0.5), uv[:, 1]])
    with pytest.raises(InputError, match="% of the UV area overlaps") as caught:
        check_uvs(read_target(write_obj(tmp_path / "c.obj", points, folded, faces)))
    assert float(str(caught.value).split(" %")[0]) > 90
    with pytest.raises(InputError, match="have no area"):
        check_uvs(read_target(write_obj(tmp_path / "d.obj", points, uv * 0, faces)))
    assert check_uvs(read_target(write_obj(tmp_path / "e.obj", points, uv, faces))) < 1e-4


def test_files_that_are_no_mesh(tmp_path):
    with pytest.raises(InputError, match="There is no mesh"):
        read_target(tmp_path / "none.obj")
    (tmp_path / "mesh.fbx").write_bytes(b"x")
    with pytest.raises(InputError, match="not OBJ, GLB, glTF or PLY"):
        read_target(tmp_path / "mesh.fbx")
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError, match=r"no faces|cannot be read"):
        read_target(tmp_path / "empty.obj")
    (tmp_path / "junk.glb").write_bytes(b"junk" * 20)
    with pytest.raises(InputError, match="cannot be read"):
        read_target(tmp_path / "junk.glb")


def test_a_full_disk_leaves_the_earlier_bake_alone(fields, tmp_path, monkeypatch):
    path = write_obj(tmp_path / "mine.obj", *quads(0.5 * RADIUS))
    result = run(fields, path)
    folder = tmp_path / "out"
    write_bake(result, folder)
    before = {item.name: item.read_bytes() for item in folder.iterdir()}
    assert sorted(before) == ["albedo.png", "bake_report.json", "heatmap.png", "normal.png"]
    original, calls = module.write_image, []

    def full(path, image):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, 255 - image)

    monkeypatch.setattr(module, "write_image", full)
    with pytest.raises(OSError, match="No space left"):
        write_bake(result, folder)
    assert {item.name: item.read_bytes() for item in folder.iterdir()} == before


def test_heat_map_shows_its_scale():
    away = np.full((512, 512), np.nan, np.float32)
    away[100:200, 100:200], away[300:400, 100:200] = 0.0, 5.0
    image = heat_map(away, 5.0)
    assert image.shape == (544, 512, 3)
    assert image[150, 150].sum() < 60 and image[350, 150].sum() > 550
    assert (image[10, 10] == 60).all()


def test_command_line_refuses_in_one_sentence(tmp_path, capsys):
    assert main(["bake", str(tmp_path / "none"), "--mesh", str(tmp_path / "m.obj")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
