"""Captures with known cameras: conversions, both file formats, and the pipeline without SfM."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from toonify3d.capture import pipeline
from toonify3d.capture.mask_settings import MaskSettings
from toonify3d.capture.posed import (
    PosedImage,
    c2w_from_colmap,
    from_opengl,
    is_posed,
    load_posed,
    undistorted,
)
from toonify3d.capture.posed_frames import solved_from_posed
from toonify3d.capture.settings import CaptureSettings
from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera

sys.path.insert(0, str(Path(__file__).parent))
import made_up_capture as made_up

COUNT = 14


@pytest.fixture(scope="module")
def capture():
    return made_up.make(COUNT, width=96, height=128)


def to_opengl(c2w):
    """The same camera with OpenGL's axes: y up, looking along -z."""
    return c2w @ np.diag([1.0, -1.0, -1.0, 1.0])


def colmap_from_c2w(c2w):
    return np.linalg.inv(c2w)[:3]


def write_images(folder, capture):
    for index, image in enumerate(capture.images):
        write_image(folder / "images" / f"{index}.png", image)


def write_transforms(folder, capture, per_frame=False, **extra):
    camera = capture.cameras[0]
    lens = {"w": camera.width, "h": camera.height, "fl_x": camera.K[0, 0], "fl_y": camera.K[1, 1]}
    lens |= {"cx": camera.K[0, 2], "cy": camera.K[1, 2]}
    frames = [
        {"file_path": f"./images/{i}.png", "transform_matrix": to_opengl(c.c2w).tolist()}
        for i, c in enumerate(capture.cameras)
    ]
    if per_frame:
        frames = [lens | frame for frame in frames]
    document = ({} if per_frame else lens) | extra | {"frames": frames[::-1]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


def write_colmap(folder, capture, lens="PINHOLE", tail=""):
    """COLMAP's text format, written by hand from its documentation."""
    camera = capture.cameras[0]
    params = f"{camera.K[0, 0]} {camera.K[1, 1]} {camera.K[0, 2]} {camera.K[1, 2]}{tail}"
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"7 {lens} {camera.width} {camera.height} {params}\n")
    lines = []
    for index, item in enumerate(capture.cameras):
        x, y, z, w = Rotation.from_matrix(item.w2c[:3, :3]).as_quat()
        t = " ".join(str(v) for v in item.w2c[:3, 3])
        lines.append(f"{index + 1} {w} {x} {y} {z} {t} 7 {index}.png\n\n")
    (model / "images.txt").write_text("".join(lines))
    (model / "points3D.txt").write_text("1 0.1 0.2 0.3 10 20 30 0.5\n")
    return folder


def random_pose(seed):
    rng = np.random.default_rng(seed)
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    c2w[:3, 3] = rng.normal(0, 5, 3)
    return c2w


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 20))
def test_opengl_and_opencv_both_ways(seed, scale):
    c2w = random_pose(seed)
    np.testing.assert_allclose(from_opengl(to_opengl(c2w)), c2w, atol=1e-12)
    np.testing.assert_allclose(to_opengl(from_opengl(c2w)), c2w, atol=1e-12)
    # What OpenGL sees ahead and above, (0, 1, -5), OpenCV has at (0, -1, 5).
    ahead = to_opengl(c2w) @ (0, 1, -5, 1)
    np.testing.assert_allclose(c2w @ (0, -1, 5, 1), ahead, atol=1e-9)
    scaled = to_opengl(c2w).copy()
    scaled[:3, :3] *= scale
    np.testing.assert_allclose(from_opengl(scaled[:3]), c2w, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_colmap_and_opencv_both_ways(seed):
    c2w = random_pose(seed)
    np.testing.assert_allclose(c2w_from_colmap(colmap_from_c2w(c2w)), c2w, atol=1e-12)
    x, y, z, w = Rotation.from_matrix(c2w[:3, :3].T).as_quat()
    rigid = pycolmap.Rigid3d(pycolmap.Rotation3d([x, y, z, w]), colmap_from_c2w(c2w)[:, 3])
    np.testing.assert_allclose(c2w_from_colmap(rigid.matrix()), c2w, atol=1e-9)
    np.testing.assert_allclose(rigid.inverse().matrix(), c2w[:3], atol=1e-9)


@pytest.mark.parametrize(
    "matrix",
    [np.diag([-1.0, 1, 1, 1]), np.diag([1.0, 2, 1, 1]), np.zeros((4, 4)), np.eye(3),
     np.full((4, 4), np.nan)],
)  # fmt: skip
def test_matrices_that_are_no_camera_are_refused(matrix):
    with pytest.raises(InputError) as caught:
        from_opengl(matrix)
    assert caught.value.code == "bad_cameras"


@pytest.mark.parametrize("kind", ["nerfstudio", "instant-ngp", "colmap text", "colmap binary"])
def test_cameras_of_every_format_are_the_same(kind, capture, tmp_path):
    write_images(tmp_path, capture)
    if kind.startswith("colmap"):
        write_colmap(tmp_path, capture)
        if kind.endswith("binary"):
            model = tmp_path / "sparse" / "0"
            pycolmap.Reconstruction(str(model)).write_binary(str(model))
            for path in model.glob("*.txt"):
                path.unlink()
    elif kind == "nerfstudio":
        write_transforms(tmp_path, capture, per_frame=True, camera_model="OPENCV")
    else:
        write_transforms(tmp_path, capture, aabb_scale=16, scale=1.0)
    assert is_posed(tmp_path)
    posed = load_posed(tmp_path)
    assert [image.path.name for image in posed.images] == [f"{i}.png" for i in range(COUNT)]
    for image, camera in zip(posed.images, capture.cameras, strict=True):
        np.testing.assert_allclose(image.camera.c2w, camera.c2w, atol=1e-9)
        np.testing.assert_allclose(image.camera.K, camera.K, atol=1e-9)
    if kind.startswith("colmap"):
        np.testing.assert_allclose(posed.points, [[0.1, 0.2, 0.3]])


def test_field_of_view_instead_of_a_focal_length(capture, tmp_path):
    write_images(tmp_path, capture)
    frames = [
        {"file_path": f"images/{i}", "transform_matrix": to_opengl(c.c2w).tolist()}
        for i, c in enumerate(capture.cameras)
    ]
    angle = 2 * np.arctan(48 / capture.cameras[0].K[0, 0])
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    posed = load_posed(path)
    assert len(posed.images) == COUNT
    np.testing.assert_allclose(posed.images[3].camera.K, capture.cameras[3].K, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", "bad_cameras"), ("[]", "bad_cameras"), ('{"frames": [{}]}', "bad_cameras"),
     ('{"frames": []}', "no_images"),
     ('{"camera_model": "OPENCV_FISHEYE", "frames": [{"file_path": "1.png"}]}', "lens_model"),
     ('{"frames": [{"file_path": "gone.png", "transform_matrix": []}]}', "no_images")],
)  # fmt: skip
def test_bad_transforms_files_say_so(text, code, tmp_path):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_posed(tmp_path)
    assert caught.value.code == code and "\n" not in str(caught.value)


def test_bad_colmap_models_say_so(capture, tmp_path):
    write_images(tmp_path, capture)
    write_colmap(tmp_path, capture, "OPENCV_FISHEYE", " 0 0 0 0")
    with pytest.raises(InputError) as caught:
        load_posed(tmp_path)
    assert caught.value.code == "lens_model"
    (tmp_path / "sparse" / "0" / "cameras.txt").write_text("1 NONSENSE 3\n")
    with pytest.raises(InputError) as caught:
        load_posed(tmp_path)
    assert caught.value.code == "bad_cameras"


def test_plain_folders_and_videos_are_not_posed(tmp_path):
    write_image(tmp_path / "1.png", np.zeros((4, 4, 3), np.uint8))
    assert not is_posed(tmp_path) and not is_posed(tmp_path / "1.png")
    assert not is_posed(tmp_path / "missing")


def test_distorted_points_come_to_where_the_pin_hole_sees_them():
    K = np.array([[200.0, 0, 101], [0, 190.0, 77], [0, 0, 1]])
    distortion = np.array([-0.2, 0.05, 0.004, -0.003, 0, 0, 0, 0])
    directions = np.array([[0.2, 0.1, 1.0], [-0.3, 0.2, 1.0], [0.1, -0.25, 1.0]])
    seen, _ = cv2.projectPoints(directions, np.zeros(3), np.zeros(3), K, distortion[:5])
    rows, columns = np.mgrid[0:150, 0:200] + 0.5
    picture = np.zeros((150, 200))
    for x, y in seen.reshape(-1, 2):
        picture += 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    posed = PosedImage(Path("x"), Camera(K, np.eye(4), 200, 150), distortion)
    plain, _ = undistorted(np.clip(picture, 0, 255).astype(np.uint8), posed)
    for x, y in (directions @ K.T)[:, :2]:
        near = plain * (np.hypot(columns - x, rows - y) < 8)
        found = (near * columns).sum() / near.sum(), (near * rows).sum() / near.sum()
        assert np.hypot(found[0] - x, found[1] - y) < 0.2


@pytest.mark.parametrize("write", [write_transforms, write_colmap])
def test_the_pipeline_takes_the_cameras_as_they_are(write, capture, tmp_path, monkeypatch):
    def too_late(*_args, **_kwargs):
        raise AssertionError("structure from motion was started")

    source = write(tmp_path / "scene", capture)
    write_images(source, capture)
    for index, mask in enumerate(capture.masks):
        write_image(tmp_path / "masks" / f"{index}.png", mask)
    monkeypatch.setattr(pipeline, "solve_cameras", too_late)
    monkeypatch.setattr(pipeline, "compute_masks", too_late)
    monkeypatch.setattr(pipeline, "_find_faces", lambda images, _: [None] * len(images))
    monkeypatch.setattr(pipeline, "compute_depth", lambda *_: None)
    pipeline.check_source(source)
    chosen = CaptureSettings(masks=MaskSettings(folder=str(tmp_path / "masks")))
    scene = pipeline.run_capture(source, tmp_path / "out", chosen, "cpu", SilentProgress())
    assert len(scene.frames) == COUNT
    np.testing.assert_array_equal(scene.mask(scene.frames[2]), capture.masks[2])
    np.testing.assert_array_equal(scene.image(scene.frames[2]), capture.images[2])
    true = np.stack([camera.center for camera in capture.cameras])
    ours = np.stack([frame.camera.center for frame in scene.frames])
    # One similarity for all: distances between cameras have one ratio.
    ratio = [
        np.linalg.norm(ours[i] - ours[j]) / np.linalg.norm(true[i] - true[j])
        for i in range(COUNT)
        for j in range(i)
    ]
    assert np.ptp(ratio) < 1e-9 * np.mean(ratio)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["cameras"]["model"] in ("transforms.json", "COLMAP model")
    assert report["cameras"]["reprojection_error_px"] is None


def test_too_few_posed_images_are_refused(capture, tmp_path):
    write_transforms(tmp_path, capture)
    write_image(tmp_path / "images" / "0.png", capture.images[0])
    with pytest.raises(InputError) as caught:
        pipeline.check_source(tmp_path)
    assert caught.value.code == "too_few_frames"


def test_pictures_of_posed_captures_are_kept_on_disk(capture, tmp_path):
    write_images(tmp_path, capture)
    folder = write_transforms(tmp_path, capture)
    chosen = CaptureSettings(max_frames=7, long_side=64)
    choice, solved, masks = solved_from_posed(folder, chosen, tmp_path / "w", SilentProgress())
    assert len(choice.indices) == len(solved.images) == len(solved.cameras) == 7 and not masks
    assert (tmp_path / "w" / "frames.raw").stat().st_size == 7 * 64 * 48 * 3
    for index, image, camera in zip(choice.indices, solved.images, solved.cameras, strict=True):
        assert isinstance(image.base, np.memmap) and camera.height == 64
        true = cv2.resize(capture.images[index], (48, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(image.astype(int) - true).max() <= 1


def test_posed_pictures_of_two_sizes_are_refused(capture, tmp_path):
    write_images(tmp_path, capture)
    folder = write_transforms(tmp_path, capture, per_frame=True)
    document = json.loads((folder / "transforms.json").read_text())
    large = np.repeat(np.repeat(capture.images[3], 2, axis=0), 2, axis=1)
    write_image(tmp_path / "images" / "3.png", large)
    (frame,) = [item for item in document["frames"] if item["file_path"].endswith("/3.png")]
    frame["w"], frame["h"] = 2 * frame["w"], 2 * frame["h"]
    (folder / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        solved_from_posed(folder, CaptureSettings(), tmp_path / "w", SilentProgress())
    assert caught.value.code == "mixed_sizes"
