"""Volume rendering of fields: against all samples along whole rays, and against the mesh."""

import json

import numpy as np
import pytest
import torch

from toonify3d.asset.field_render import FieldView, render_field
from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.paths import camera_path, parse_size, read_cameras
from toonify3d.asset.render import (
    Renderable,
    orbit_camera,
    render_strips,
    render_view,
    turntable,
)
from toonify3d.errors import InputError
from toonify3d.progress import SilentProgress
from toonify3d.scene import Normalization, SurfaceMesh
from toonify3d.snr.rendering import accumulate_weights

INV_S = 200.0
NORM = Normalization(np.array([0.01, 0.0, 0.1]), 0.2)


@pytest.fixture(scope="module")
def head(request):
    """A ball with a nose in front of it and an ear that hides part of it from the side."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location(
        "analytic_fields", Path(__file__).with_name("conftest.py")
    )
    fields = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fields)
    distance = fields.union(
        fields.ball((0.0, 0, 0), 0.5),
        fields.ball((0.0, -0.5, 0), 0.12),
        fields.ball((0.62, 0.0, 0.05), 0.1),
    )
    field = ClippedField(fields.AnalyticField(distance), 0.99, -0.35)
    vertices, faces = extract_level_set(field, 96, SilentProgress())
    colors = np.round(field.color(vertices) * 255).astype(np.uint8)
    mesh = SurfaceMesh(NORM.to_world(vertices), faces, colors)
    return field, mesh


def whole_rays(field, camera, count=1500):
    """The reference: even sections through the whole unit ball, one ray per pixel."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    origins, directions = camera.rays(np.stack([x, y], -1).reshape(-1, 2))
    origins = NORM.to_unit(origins)
    middle = -(origins * directions).sum(1)
    t = middle[:, None] + np.linspace(-1, 1, count + 1)
    points = origins[:, None] + directions[:, None] * t[..., None]
    phi = 1 / (1 + np.exp(-INV_S * field.sdf(points.reshape(-1, 3)).reshape(t.shape)))
    # NeuS eq. 13; the code's own adds 1e-5 to every section, which so many sections would show.
    alpha = np.clip((phi[:, :-1] - phi[:, 1:]) / np.maximum(phi[:, :-1], 1e-12), 0, 1)
    weights = accumulate_weights(torch.tensor(alpha)).numpy()
    color = field.color(((points[:, 1:] + points[:, :-1]) / 2).reshape(-1, 3))
    color = (weights[..., None] * color.reshape(len(t), count, 3)).sum(1)
    shape = (camera.height, camera.width)
    return color.reshape(*shape, 3), weights.sum(1).reshape(shape)


def psnr(a, b):
    return -10 * np.log10(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


@pytest.mark.parametrize("azimuth", [0.0, 0.7, np.pi / 2, np.pi])
def test_few_sections_show_what_whole_rays_show(head, azimuth):
    field, mesh = head
    camera = orbit_camera(NORM.center, 0.9, azimuth, 0.1, 48, 48, 0.35)
    view = FieldView(field, mesh, NORM, INV_S, colors=2)
    image, alpha = render_field(view, camera, "flat", antialias=1, background=(0, 0, 0))
    color, coverage = whole_rays(field, camera)
    assert np.abs(alpha / 255 - coverage).max() < 0.08
    assert np.abs(alpha / 255 - coverage).mean() < 0.002
    seen = (coverage > 0.01) | (alpha > 2)
    assert seen.mean() > 0.2
    assert psnr(image[seen] / 255, color[seen]) > 38
    # The density is soft: silhouettes are neither empty nor full.
    assert ((coverage > 0.1) & (coverage < 0.9)).sum() > 40


def test_field_and_mesh_agree(head):
    field, mesh = head
    view, shown = FieldView(field, mesh, NORM, 700.0), Renderable(mesh)
    for shading in ("flat", "soft", "normal", "clay"):
        camera = turntable(mesh, [0.6], 96, 96)[0]
        image, alpha = render_field(view, camera, shading)
        other, covered = render_view(shown, camera, shading)
        seen = (alpha > 0) | (covered > 0)
        assert psnr(image[seen] / 255, other[seen] / 255) > 30, shading
    with pytest.raises(ValueError, match="shading"):
        render_field(view, camera, "toon")


def test_strips_are_the_whole_picture(head, monkeypatch):
    field, mesh = head
    view = FieldView(field, mesh, NORM, INV_S)
    camera = turntable(mesh, [0.3], 64, 64)[0]
    whole = render_field(view, camera)
    monkeypatch.setattr(render_strips, "__defaults__", (0, 64 * 4 * 9))
    parts = render_field(view, camera)
    assert np.abs(whole[0].astype(int) - parts[0]).max() <= 2
    assert np.abs(whole[1].astype(int) - parts[1]).max() <= 2
    mesh_parts = render_view(Renderable(mesh), camera)
    monkeypatch.undo()
    assert (mesh_parts[0] == render_view(Renderable(mesh), camera)[0]).all()


def test_sharpness_is_the_softness_of_the_edge(head):
    """A ray that passes at distance m keeps 1 - Phi(m s) of the background (NeuS eq. 13)."""
    field, mesh = head
    camera = orbit_camera(NORM.center, 0.9, np.pi, 0.0, 64, 64, 0.35)
    view = FieldView(field, mesh, NORM, 60.0)
    _, alpha = render_field(view, camera, antialias=1)
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    origins, directions = camera.rays(np.stack([x, y], -1).reshape(-1, 2))
    t = np.linspace(2.0, 7.0, 2000)
    origins = NORM.to_unit(origins)
    passing = np.array(
        [field.sdf(o + d * t[:, None]).min() for o, d in zip(origins, directions, strict=True)]
    )
    outside = passing > 0.0
    expected = 1 - 1 / (1 + np.exp(-60.0 * passing))
    error = np.abs(alpha.reshape(-1) / 255 - expected)[outside & (passing < 0.06)]
    assert len(error) > 100 and error.max() < 0.14 and error.mean() < 0.05


# -- camera paths -----------------------------------------------------------------------------


def test_paths_look_at_the_head(head):
    _, mesh = head
    for name in ("turntable", "ellipse"):
        cameras = camera_path(name, mesh, 8, (64, 48))
        assert len(cameras) == 8 and cameras[0].width == 64 and cameras[0].height == 48
        for camera in cameras:
            image, depth = camera.project(mesh.vertices)
            assert (depth > 0).all()
            assert image.min() >= 0 and (image <= [64, 48]).all()
    azimuth = [
        np.arctan2(c.center[0], -c.center[1]) for c in camera_path("ellipse", mesh, 16, None)
    ]
    assert 0.5 < max(azimuth) < 1.0 and -1.0 < min(azimuth) < -0.5


def test_camera_file_of_a_capture_and_of_an_artist(tmp_path):
    camera = orbit_camera(np.zeros(3), 1.0, 0.4, 0.2, 320, 240)
    frame = {"K": camera.K.tolist(), "c2w": camera.c2w.tolist(), "width": 320, "height": 240}
    path = tmp_path / "Kamera 空.json"
    path.write_text(json.dumps({"frames": [frame], "landmarks": None}), encoding="utf-8")
    (again,) = read_cameras(path, None)
    assert np.allclose(again.K, camera.K) and (again.width, again.height) == (320, 240)
    (half,) = read_cameras(path, (160, 120))
    assert np.allclose(half.K[:2], camera.K[:2] / 2)
    place = {"position": camera.center.tolist(), "look_at": [0, 0, 0]}
    fov = np.degrees(2 * np.arctan(camera.height / 2 / camera.K[1, 1]))
    path.write_text(json.dumps({"fov": fov, "frames": [place]}), encoding="utf-8")
    (looked,) = read_cameras(path, (320, 240))
    assert np.allclose(looked.c2w, camera.c2w, atol=1e-9) and np.allclose(looked.K, camera.K)
    path.write_text(json.dumps([{"position": [0, 0, 1], "look_at": [0, 0, 0]}]), encoding="utf-8")
    (down,) = read_cameras(path, None)
    assert np.allclose(down.c2w[:3, 2], [0, 0, -1]) and np.linalg.det(down.c2w) > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[" * 100000, "cannot be read"),
        ("{}", "list 'frames'"),
        ("[]", "list 'frames'"),
        ('{"frames": [7]}', "Camera 0"),
        ('[{"look_at": [0, 0, 0]}]', "'position'"),
        ('[{"position": [0, 0, 0], "look_at": [0, 0, 0]}]', "same place"),
        ('[{"position": [0, 1], "look_at": [0, 0, 0]}]', "3 numbers"),
        ('[{"position": [0, 1, NaN], "look_at": [0, 0, 0]}]', "3 numbers"),
        ('[{"position": [0, 1, 0], "look_at": [0, 0, 0], "fov": 200}]', "fov"),
        ('[{"c2w": [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}]', "rotation"),
        (
            '[{"position": [0, 1, 0], "look_at": [0, 0, 0], "width": 1e9}]',
            "'width' and 'height'",
        ),
    ],
)
def test_bad_camera_files_are_one_sentence(tmp_path, text, words):
    path = tmp_path / "cameras.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        read_cameras(path, None)
    assert "\n" not in str(caught.value)


def test_sizes():
    assert parse_size("512") == (512, 512) and parse_size("640x360") == (640, 360)
    for bad in ("", "12", "640x", "x360", "99999", "-512", "512.5", "640x4"):
        with pytest.raises(InputError, match="--size"):
            parse_size(bad)


def test_other_shape_of_picture_is_refused(tmp_path):
    camera = orbit_camera(np.zeros(3), 1.0, 0.4, 0.2, 320, 240)
    frame = {"K": camera.K.tolist(), "c2w": camera.c2w.tolist(), "width": 320, "height": 240}
    path = tmp_path / "c.json"
    path.write_text(json.dumps([frame]), encoding="utf-8")
    with pytest.raises(InputError, match="distort"):
        read_cameras(path, (200, 200))
