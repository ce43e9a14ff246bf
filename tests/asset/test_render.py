"""The ray-cast renderer against known geometry."""

import numpy as np
import pytest

from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.render import (
    Renderable,
    orbit_camera,
    render_buffers,
    render_view,
    sample_texture,
    turntable,
)
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery, interpolate
from toonify3d.scene import SurfaceMesh


@pytest.fixture
def sphere(fields):
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)))
    v, f = extract_level_set(field, 64, SilentProgress())
    colors = np.round((v * 0.5 + 0.5) * 255).astype(np.uint8)
    return Renderable(SurfaceMesh(v, f, colors))


def test_depth_normals_and_silhouette_of_a_sphere(sphere):
    camera = orbit_camera(np.zeros(3), 3.0, 0.4, 0.2, 96, 96, 0.5)
    buffers = render_buffers(sphere, camera)
    x, y = np.meshgrid(np.arange(96) + 0.5, np.arange(96) + 0.5)
    origins, rays = camera.rays(np.stack([x, y], -1).reshape(-1, 2))
    b = np.einsum("ij,ij->i", origins, rays)
    root = b**2 - (9.0 - 0.25)
    seen = buffers.face.reshape(-1) >= 0
    assert (seen != (root > 0)).mean() < 0.01
    both = seen & (root > 0.06)  # away from the limb, where depth is ill-conditioned
    distance = -b - np.sqrt(np.maximum(root, 0))
    depth = distance * (rays @ camera.c2w[:3, 2])
    assert np.abs(buffers.depth.reshape(-1) - depth)[both].max() < 2e-3
    truth = (origins + distance[:, None] * rays) / 0.5
    normals = buffers.normals.reshape(-1, 3)
    assert np.einsum("ij,ij->i", normals, truth)[both].min() > 0.99


def test_flat_shading_shows_the_colours_unchanged(sphere):
    camera = orbit_camera(np.zeros(3), 3.0, 0.0, 0.0, 64, 64, 0.5)
    image, alpha = render_view(sphere, camera, "flat")
    # Straight ahead lies the point (0, -0.5, 0).
    assert np.abs(image[32, 32].astype(int) - [128, 64, 128]).max() <= 6
    assert alpha[32, 32] == 255 and alpha[0, 0] == 0
    assert ((alpha > 0) & (alpha < 255)).any()
    with pytest.raises(ValueError, match="shading"):
        render_view(sphere, camera, "cartoon")


def test_azimuth_turns_to_the_persons_left():
    camera = orbit_camera(np.zeros(3), 2.0, np.pi / 2)
    assert np.allclose(camera.center, [2.0, 0, 0])
    assert np.allclose(camera.c2w[:3, 2], [-1, 0, 0])
    assert np.linalg.det(camera.c2w[:3, :3]) == pytest.approx(1.0)
    # Up in the world is up in the picture.
    image, _ = camera.project(np.array([[0.0, 0.0, 0.1]]))
    assert image[0, 1] < camera.height / 2


def test_turntable_shows_everything(sphere):
    for camera in turntable(sphere.mesh, [0.0, 1.0, 2.0, 3.0], 64, 80):
        image, depth = camera.project(sphere.mesh.vertices)
        assert (depth > 0).all() and (image >= 0).all() and (image <= [64, 80]).all()


def test_closest_point_is_exact():
    v = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    query = MeshQuery(v, np.array([[0, 1, 2]]))
    points = np.array([[0.2, 0.3, 0.7], [-1.0, 0, 0], [1, 1, 0]])
    hits = query.closest(points)
    assert np.allclose(hits.distance, [0.7, 1.0, np.sqrt(0.5)], atol=1e-6)
    near = interpolate(v, np.array([[0, 1, 2]]), hits)
    assert np.allclose(near, [[0.2, 0.3, 0], [0, 0, 0], [0.5, 0.5, 0]], atol=1e-6)


def test_texture_lookup_hits_texel_centres():
    texture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    uv = np.array([[0.5 / 4, 1 - 0.5 / 4], [3.5 / 4, 1 - 2.5 / 4]])
    assert np.allclose(sample_texture(texture, uv) * 255, [texture[0, 0], texture[2, 3]])


def test_preview_shows_photo_exemplar_and_four_sides(fields):
    from toonify3d.asset.preview import bust_cameras, preview_sheet, vertex_occlusion

    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.5)))
    v, f = extract_level_set(field, 32, SilentProgress())
    side = v[:, 1:2] < 0
    colors = np.where(side, [220, 30, 30], [30, 30, 220]).astype(np.uint8)
    item = Renderable(SurfaceMesh(v * 0.3, f, colors))
    exemplar = np.full((90, 60, 3), (20, 200, 40), np.uint8)
    sheet = preview_sheet(item, fields.scene(), exemplar, 96)
    size, gap = 128, 4
    assert sheet.shape == (2 * size + 3 * gap, 3 * size + 4 * gap, 3)

    def middle(column, row):
        return sheet[
            gap + row * (size + gap) + size // 2, gap + column * (size + gap) + size // 2
        ].astype(int)

    assert np.abs(middle(0, 1) - [20, 200, 40]).max() <= 2
    front, quarter, back = middle(1, 0), middle(2, 0), middle(2, 1)
    assert front[0] > front[2] + 80 and quarter[0] > quarter[2] + 80 and back[2] > back[0] + 80
    # The lower rim of a bust is never shown, its top always is.
    for camera in bust_cameras(item.mesh, 64):
        rows = camera.project(item.mesh.vertices)[0][:, 1]
        assert rows.min() > 0 and rows.max() > 64
    assert vertex_occlusion(item).min() > 0.99  # nothing shades a ball
