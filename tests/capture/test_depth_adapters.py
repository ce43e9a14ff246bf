"""Depth by OpenMVS and COLMAP: their files, what they are given, what is said when missing."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from toonify3d.capture import depth as stereo
from toonify3d.capture.adapters.colmap_stereo import (
    find_colmap,
    read_colmap_map,
    write_stereo_config,
)
from toonify3d.capture.adapters.colmap_workspace import write_workspace
from toonify3d.capture.adapters.depth_source import check_depth_source
from toonify3d.capture.adapters.dmap import read_dmap
from toonify3d.capture.adapters.openmvs import trust
from toonify3d.capture.depth_settings import DepthSettings
from toonify3d.errors import CancelledError, InputError
from toonify3d.evaluation.ground_truth import ground_truth_cameras, ground_truth_mesh
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery

sys.path.insert(0, str(Path(__file__).parent))
import made_up_capture as made_up


def dmap_bytes(image, camera, depth, confidence=None, normals=True):
    """A file of the layout that data/openmvs_lps/README.md describes."""
    height, width = depth.shape
    kind = 1 | (2 if normals else 0) | (4 if confidence is not None else 0)
    K = camera.K.copy()
    K[:2, 2] -= 0.5
    out = b"DR" + struct.pack("<BB4I2f", kind, 0, width, height, width, height, 0.1, 9.0)
    out += struct.pack("<H", len(image)) + image.encode()
    out += struct.pack("<I3I", 3, 7, 6, 8)
    for array in (K, camera.c2w[:3, :3].T, camera.center):
        out += np.ascontiguousarray(array, "<f8").tobytes()
    out += depth.astype("<f4").tobytes()
    out += np.zeros((height, width, 3), "<f4").tobytes() if normals else b""
    return out + (b"" if confidence is None else confidence.astype("<f4").tobytes())


@pytest.fixture(scope="module")
def capture():
    return made_up.make(24)


@pytest.fixture(scope="module")
def hull_file(capture, tmp_path_factory):
    scene = made_up.write_scene(capture, tmp_path_factory.mktemp("hull"))
    stereo.load_or_make_hull(scene)
    return scene.root / "hull.npz"


@pytest.fixture
def scene(capture, hull_file, tmp_path):
    scene = made_up.write_scene(capture, tmp_path / "scene")
    shutil.copy(hull_file, scene.root / "hull.npz")
    return scene


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("confident", [True, False])
def test_dmap_is_read_back(tmp_path, capture, normals, confident):
    camera, depth = capture.cameras[5], capture.depths[5]
    confidence = np.random.default_rng(0).uniform(0, 9, depth.shape) if confident else None
    path = tmp_path / "depth0007.dmap"
    path.write_bytes(dmap_bytes("images/0005.png", camera, depth, confidence, normals))
    found = read_dmap(path)
    np.testing.assert_array_equal(found.depth, depth)
    np.testing.assert_allclose(found.camera.K, camera.K)
    np.testing.assert_allclose(found.camera.c2w, camera.c2w, atol=1e-12)
    assert (found.image, found.views) == ("images/0005.png", (7, 6, 8))
    if confident:
        np.testing.assert_allclose(found.confidence, confidence, rtol=1e-6)
    else:
        assert found.confidence is None
    assert trust(found).max() <= 1.0
    assert not trust(found)[depth == 0].any()


@pytest.mark.parametrize("damage", ["cut", "magic", "empty"])
def test_damaged_dmap_is_refused_in_a_sentence(tmp_path, capture, damage):
    data = dmap_bytes("a.png", capture.cameras[0], capture.depths[0])
    data = {"cut": data[:5000], "magic": b"XX" + data[2:], "empty": b""}[damage]
    (tmp_path / "depth0000.dmap").write_bytes(data)
    with pytest.raises(InputError, match=r"depth0000\.dmap is no OpenMVS depth map") as caught:
        read_dmap(tmp_path / "depth0000.dmap")
    assert caught.value.code == "bad_depth_map"


@pytest.mark.shared
def test_real_openmvs_files(shared_data):
    """Figures of the data's own README: 210 x 280, cx 104.5 + 0.5, median error 0.64 %."""
    folder, capture = shared_data / "openmvs_lps", shared_data / "captures" / "lps"
    if not folder.is_dir() or not capture.is_dir():
        pytest.skip(f"needs {folder} and {capture}")
    stats = json.loads((folder / "stats.json").read_text())
    cameras, mesh = ground_truth_cameras(capture), ground_truth_mesh(capture)
    caster = MeshQuery(mesh.vertices, mesh.faces)
    errors, trusted = [], []
    for path in sorted(folder.glob("*.dmap")):
        found = read_dmap(path)
        index = int(Path(found.image).stem)
        assert found.depth.shape == (280, 210)
        assert found.camera.K[0, 2] == pytest.approx(105.0, abs=0.01)
        np.testing.assert_allclose(found.camera.c2w, cameras[index].c2w, atol=1e-4)
        np.testing.assert_allclose(found.camera.K, cameras[index].resized(210, 280).K, atol=0.05)
        true = caster.depth(found.camera)
        both = (found.depth > 0) & (true > 0)
        errors.append(np.abs(found.depth - true)[both] / stats["bbox_diagonal_m"] * 100)
        trusted.append(trust(found)[both])
    assert [read_dmap(p).image[-8:] for p in sorted(folder.glob("*.dmap"))][1] == "0012.png"
    error, weight = np.concatenate(errors), np.concatenate(trusted)
    assert 0.4 < np.median(error) < 0.8
    assert np.median(error[weight > 0.8]) < 0.85 * np.median(error)


def test_workspace_is_a_model_that_colmap_reads(scene, capture, tmp_path):
    hull = stereo.load_or_make_hull(scene)
    work = write_workspace(scene, hull, tmp_path / "work", 80)
    model = pycolmap.Reconstruction(str(tmp_path / "work" / "sparse"))
    assert model.num_images() == len(capture.cameras)
    assert len(model.points3D) > 200
    by_name = {image.name: image for image in model.images.values()}
    for name, camera in zip(work.names, work.cameras, strict=True):
        image = by_name[name]
        np.testing.assert_allclose(
            np.asarray(image.cam_from_world().matrix()), camera.w2c[:3], atol=1e-6
        )
        assert image.camera.width == camera.width == 60
    errors = []
    for point in model.points3D.values():
        assert point.track.length() >= 3
        element = point.track.elements[0]
        image = model.images[element.image_id]
        observed = image.points2D[element.point2D_idx].xy
        errors.append(np.abs(image.project_point(point.xyz) - observed).max())
    assert max(errors) < 0.01
    for low, high, true in zip(*work.ranges.T, capture.depths, strict=True):
        assert low < true[true > 0].min()
        assert true.max() < high
    assert len(list((tmp_path / "work" / "masks").iterdir())) == 2 * len(work.names)


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)


@pytest.fixture
def fake_openmvs(tmp_path, capture):
    """Programs with OpenMVS's command line that "measure" the true depth, a little too far."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for index, (camera, depth) in enumerate(zip(capture.cameras, capture.depths, strict=True)):
        sure = np.full(depth.shape, 5.0)
        too_far = np.where(depth > 0, depth + 0.0005, 0)
        data = dmap_bytes(f"images/{index:04d}.png", camera, too_far, sure)
        (folder / f"{index:04d}.bin").write_bytes(data)
    parse = "import sys, pathlib\na = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
    program(
        folder,
        "InterfaceCOLMAP",
        parse + "s = pathlib.Path(a['-i'])\n"
        "assert (s / 'sparse' / 'points3D.txt').is_file()\n"
        "assert pathlib.Path(a['--image-folder']).is_dir()\n"
        "(pathlib.Path(a['-w']) / a['-o']).write_text('mvs')\n",
    )
    program(
        folder,
        "DensifyPointCloud",
        parse + "w = pathlib.Path(a['-w'])\n"
        "assert (w / a['-i']).read_text() == 'mvs' and a['--ignore-mask-label'] == '0'\n"
        "assert (pathlib.Path(a['--mask-path']) / '0003.mask.png').is_file()\n"
        f"for p in pathlib.Path({str(folder)!r}).glob('*.bin'):\n"
        "    (w / f'depth{int(p.stem) + 5:04d}.dmap').write_bytes(p.read_bytes())\n",
    )
    return folder


def test_openmvs_takes_the_place_of_the_sweep(scene, capture, fake_openmvs):
    progress = SilentProgress()
    settings = DepthSettings(source="openmvs", programs=str(fake_openmvs))
    stereo.compute_depth(scene, settings, "cpu", progress)
    assert len(progress.warnings) == 1
    assert "OpenMVS" in progress.warnings[0] and "24 of 24" in progress.warnings[0]
    signed, sure = [], []
    for frame, true in zip(scene.frames, capture.depths, strict=True):
        depth, confidence = scene.depth(frame)
        assert not depth[true == 0].any()
        signed.append((depth - true)[depth > 0])
        sure.append((confidence[true > 0] > 0.5).mean())
    assert np.median(np.concatenate(signed)) == pytest.approx(0.0005, abs=0.0002)
    assert np.mean(sure) > 0.5


@pytest.mark.parametrize("text", ["import sys; print('out of memory'); sys.exit(9)", "pass"])
def test_failing_openmvs_is_said_in_a_sentence(scene, fake_openmvs, text):
    program(fake_openmvs, "DensifyPointCloud", text)
    settings = DepthSettings(source="openmvs", programs=str(fake_openmvs))
    with pytest.raises(InputError, match=r"out of memory|no depth map") as caught:
        stereo.compute_depth(scene, settings, "cpu", SilentProgress())
    assert caught.value.code == "openmvs_failed"
    assert not (scene.root / "depth").exists()


def test_cancelling_ends_openmvs(scene, fake_openmvs, tmp_path):
    pid = tmp_path / "pid"
    program(
        fake_openmvs,
        "DensifyPointCloud",
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )

    class Stop(SilentProgress):
        def update(self, fraction, message=""):
            if pid.exists() and pid.read_text():
                raise CancelledError("stop")

    settings = DepthSettings(source="openmvs", programs=str(fake_openmvs))
    with pytest.raises(CancelledError):
        stereo.compute_depth(scene, settings, "cpu", Stop())
    psutil = pytest.importorskip("psutil")
    assert not psutil.pid_exists(int(pid.read_text()))


@pytest.mark.parametrize(
    ("source", "code"),
    [("openmvs", "no_openmvs"), ("colmap", "no_colmap"), ("magic", "depth_source")],
)
def test_what_is_not_there_is_said_early(source, code, tmp_path):
    with pytest.raises(InputError, match="builtin") as caught:
        check_depth_source(DepthSettings(source=source, programs=str(tmp_path)))
    assert caught.value.code == code


def test_no_depth_when_none_is_wanted(scene):
    progress = SilentProgress()
    stereo.compute_depth(scene, DepthSettings(source="none"), "cpu", progress)
    assert scene.depth(scene.frames[0]) is None
    assert "none" in progress.warnings[0]


def colmap_bytes(array):
    planes = array[..., None] if array.ndim == 2 else array
    height, width, channels = planes.shape
    header = f"{width}&{height}&{channels}&".encode()
    return header + planes.transpose(2, 0, 1).astype("<f4").tobytes()


def test_colmap_maps_are_read_back(tmp_path):
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3)):
        array = rng.normal(size=shape).astype(np.float32)
        (tmp_path / "map.bin").write_bytes(colmap_bytes(array))
        np.testing.assert_array_equal(read_colmap_map(tmp_path / "map.bin"), array)
    # COLMAP's own scripts/python reads (width, height, channels) in Fortran's order.
    data = (tmp_path / "map.bin").read_bytes()
    values = np.frombuffer(data[data.rindex(b"&", 0, 12) + 1 :], "<f4")
    theirs = values.reshape((7, 5, 3), order="F").transpose(1, 0, 2)
    np.testing.assert_array_equal(theirs, array)


@pytest.mark.parametrize("data", [b"", b"7&5&1&abc", b"no map at all", b"7&x&1&"])
def test_damaged_colmap_map_is_refused(tmp_path, data):
    (tmp_path / "map.bin").write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_colmap_map(tmp_path / "map.bin")
    assert caught.value.code == "bad_depth_map"


def test_colmap_program_takes_the_place_of_the_sweep(scene, capture, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for index, depth in enumerate(capture.depths):
        (folder / f"{index:04d}.png.geometric.bin").write_bytes(colmap_bytes(depth))
    program(
        folder,
        "colmap",
        "import sys, pathlib, shutil\n"
        "assert sys.argv[1] == 'patch_match_stereo'\n"
        "a = dict(zip(sys.argv[2::2], sys.argv[3::2]))\n"
        "low, high = (float(a['--PatchMatchStereo.depth_' + m]) for m in ('min', 'max'))\n"
        "assert 0 < low < high\n"
        "s = pathlib.Path(a['--workspace_path']) / 'stereo'\n"
        "assert (s / 'patch-match.cfg').read_text().splitlines()[0] == '0000.png'\n"
        f"for p in pathlib.Path({str(folder)!r}).glob('*.bin'):\n"
        "    shutil.copy(p, s / 'depth_maps' / p.name)\n",
    )
    assert find_colmap(str(folder)) == str(folder / "colmap")
    progress = SilentProgress()
    settings = DepthSettings(source="colmap", programs=str(folder))
    stereo.compute_depth(scene, settings, "cpu", progress)
    assert "COLMAP" in progress.warnings[0]
    depth, _ = scene.depth(scene.frames[3])
    both = (depth > 0) & (capture.depths[3] > 0)
    assert both.sum() > 0.8 * (capture.depths[3] > 0).sum()
    assert np.abs(depth - capture.depths[3])[both].max() < 0.005


def test_stereo_config_names_views_at_useful_angles(scene, tmp_path):
    hull = stereo.load_or_make_hull(scene)
    work = write_workspace(scene, hull, tmp_path / "work", 80)
    write_stereo_config(work, hull, DepthSettings())
    lines = (tmp_path / "work" / "stereo" / "patch-match.cfg").read_text().splitlines()
    assert len(lines) == 2 * len(work.names)
    sources = lines[1].split(", ")
    assert lines[0] == "0000.png" and "0001.png" in sources and "0023.png" in sources
    assert not set(sources) & {"0000.png", "0012.png"}
