"""Normal map against the dense surface, ambient occlusion, regions, style enhancement."""

import dataclasses

import cv2
import numpy as np
import pytest

from toonify3d.asset.bake import BakeOptions, DenseSurface, bake, tangent_frames, to_bytes
from toonify3d.asset.enhance import enhance, style_target
from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.maps import ambient_occlusion, region_map
from toonify3d.asset.mesh import decimate, largest_component, vertex_normals
from toonify3d.asset.raster import rasterize
from toonify3d.asset.uv import Atlas, unwrap
from toonify3d.progress import SilentProgress
from toonify3d.raycast import MeshQuery, interpolate
from toonify3d.scene import LabelledPoints

LIGHT = np.array([0.4, -0.75, 0.53])


def view(size):
    """Parallel rays along +Y over the square [-1, 1]^2."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, z = np.meshgrid(axis, -axis)
    origins = np.stack([x.ravel(), np.full(x.size, -2.0), z.ravel()], 1)
    return origins, np.tile([0.0, 1.0, 0.0], (x.size, 1))


def lambert(normals):
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return 0.2 + 0.8 * np.clip(normals @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)


def shading_psnr(dense, low, low_faces, atlas, normal_map, size=256):
    """PSNR over the foreground between the dense surface and the low mesh with its normal map.

    Without a map the low mesh is shaded by its own vertex normals.
    """
    origins, directions = view(size)
    far, near = (MeshQuery(*m).cast(origins, directions) for m in (dense[:2], (low, low_faces)))
    both = (far.face >= 0) & (near.face >= 0)
    truth = lambert(interpolate(dense[2], dense[1], far)[both])
    corners, weights = atlas.faces[near.face[both]], near.weights[both]

    def mix(values):
        return np.einsum("nk,nkc->nc", weights, values[corners])

    normals = vertex_normals(low, low_faces)[atlas.source]
    shown = mix(normals)
    if normal_map is not None:
        tangents, signs = tangent_frames(low[atlas.source], normals, atlas)
        uv = mix(atlas.uv).astype(np.float32)
        side = normal_map.shape[0]
        u, v = uv[:, 0] * side - 0.5, (1 - uv[:, 1]) * side - 0.5
        texel = cv2.remap(normal_map.astype(np.float32), u[None], v[None], cv2.INTER_LINEAR)[0]
        local = texel / 127.5 - 1
        n, t = mix(normals), mix(tangents)
        b = signs[corners[:, 0], None] * np.cross(n, t)
        shown = local[:, :1] * t + local[:, 1:2] * b + local[:, 2:] * n
    return -10 * np.log10(((lambert(shown) - truth) ** 2).mean())


def bumpy(fields):
    ball = fields.ball((0.0, 0, 0), 0.6)
    return lambda x: ball(x) + 0.012 * (14 * x[:, 0]).sin() * (14 * x[:, 2]).sin()


def test_low_mesh_with_its_normal_map_looks_like_the_dense_surface(fields):
    field = ClippedField(fields.AnalyticField(bumpy(fields)))
    v, f = extract_level_set(field, 128, SilentProgress())
    v, f, _ = largest_component(v, f)
    low, low_faces = decimate(v, f, 1200, SilentProgress())
    atlas = unwrap(low, low_faces, 1024, 8, SilentProgress())
    dense = DenseSurface(v, f, vertex_normals(v, f))
    baked = bake(field, dense, low, low_faces, atlas, 1024, SilentProgress(), BakeOptions())
    scene = (v, f, dense.normals)
    without = shading_psnr(scene, low, low_faces, atlas, None)
    with_map = shading_psnr(scene, low, low_faces, atlas, baked.normal)
    assert with_map >= 30.0
    assert with_map > without + 5.0
    # Green turned round (DirectX) must look wrong, or the convention is not tested.
    wrong = baked.normal.copy()
    wrong[..., 1] = 255 - wrong[..., 1]
    assert shading_psnr(scene, low, low_faces, atlas, wrong) < without


def flat_atlas(size=2.0, count=20):
    """A square in the plane z = 0 with itself as UV."""
    axis = np.linspace(-size / 2, size / 2, count)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    v = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    index = np.arange(count * count).reshape(count, count)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    f = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    uv = (v[:, :2] / size + 0.5) * 0.98 + 0.01
    return v, f, Atlas(np.arange(len(v)), f, uv, 1, 1.0, None, 0)


def test_a_wall_shades_the_floor_beside_it_and_nothing_else():
    v, f, atlas = flat_atlas()
    wall_v = np.array([[0.0, -1, 0], [0, 1, 0], [0, 1, 1], [0, -1, 1]])
    wall_f = np.array([[0, 1, 2], [0, 2, 3]])
    query = MeshQuery(np.concatenate([v, wall_v]), np.concatenate([f, wall_f + len(v)]))
    image = ambient_occlusion(query, v, np.tile([0.0, 0, 1], (len(v), 1)), atlas, 128)
    row = image[64].astype(float)
    # At the foot of an endless wall half of the sky is gone; what is near counts almost fully.
    assert 110 < row[62] < 170 and 110 < row[66] < 170
    assert row[10] > 250 and row[118] > 250
    assert (np.diff(row[66:90]) > -4).all() and row[85] > row[66] + 60


def test_regions_are_pure_colours_at_their_places(monkeypatch):
    v, f, atlas = flat_atlas()
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 1, (4000, 2)), np.zeros(4000)])
    number = np.digitize(points[:, 0], [-0.3, 0.5])
    regions = LabelledPoints(
        points, np.eye(3, dtype=np.float32)[number], ("skin", "hair", "clothes")
    )
    image, legend = region_map(regions, v, f, None, atlas, 256)
    colors = np.unique(image.reshape(-1, 3), axis=0)
    assert {tuple(c) for c in colors.tolist()} == {(255, 0, 0), (0, 255, 0), (0, 0, 255)}
    assert (image[128, [20, 128, 240]] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]).all()
    shares = [legend[name]["percent"] for name in ("skin", "hair", "clothes")]
    assert shares == pytest.approx([35, 40, 25], abs=3) and sum(shares) == pytest.approx(
        100, abs=0.1
    )
    monkeypatch.setattr("toonify3d.asset.maps.BAND_TEXELS", 256 * 50)  # six bands, the last short
    banded, shares = region_map(regions, v, f, None, atlas, 256)
    assert (banded == image).all() and shares == legend
    unseen = v[:, 0] > 0.4
    calm, _ = region_map(regions, v, f, unseen, atlas, 256)
    assert (calm[128, 240] == (0, 255, 0)).all()


def exemplar():
    """Sharp dark strokes on two flat colours."""
    image = np.full((300, 300, 3), (230, 190, 160), np.uint8)
    image[:, 150:] = (90, 120, 200)
    cv2.line(image, (30, 60), (270, 240), (20, 20, 20), 9)
    cv2.circle(image, (90, 220), 40, (20, 20, 20), 7)
    return image


def blurred_texture(size=512):
    image = np.full((size, size, 3), (222, 182, 158), np.uint8)
    cv2.line(image, (100, 256), (412, 256), (25, 22, 20), 14)
    return cv2.GaussianBlur(image, (0, 0), 4.0)


def steepest(image):
    return np.abs(np.diff(image[200:320, 256, 1].astype(int))).max()


@pytest.mark.parametrize("bits", [8, 16])
def test_enhancement_sharpens_lines_and_moves_to_the_palette(bits):
    before = blurred_texture(2048)
    if bits == 16:
        before = before.astype(np.uint16) * 257
    covered = np.zeros((2048, 2048), bool)
    covered[60:460, 60:460] = True
    target = style_target(exemplar())
    assert target.sharpness > 0.7
    after = enhance(before, covered, target, 1.0)
    assert after.dtype == before.dtype and after.shape == before.shape
    assert steepest(to_bytes(after)) > 1.3 * steepest(to_bytes(before))
    wanted = np.array([230, 190, 160])
    far = np.abs(to_bytes(before)[120, 120] - wanted.astype(int)).sum()
    assert np.abs(to_bytes(after)[120, 120] - wanted.astype(int)).sum() < far
    # Seams: one colour stays one colour over a chart's border and its fill; a line there is left.
    assert (after[120, 50:460] == after[120, 200]).all()
    assert (enhance(before, covered, target, 0.0) == before).all()


def test_lines_at_a_chart_s_border_are_not_sharpened():
    before = blurred_texture(2048)
    covered = np.zeros((2048, 2048), bool)
    covered[256:460, 60:460] = True  # the line runs along the border
    target = style_target(exemplar())
    everywhere = enhance(before, np.ones_like(covered), target, 1.0)
    after = enhance(before, covered, target, 1.0)
    colours = enhance(before, covered, dataclasses.replace(target, sharpness=0.0), 1.0)
    assert (after[256, 60:460] == colours[256, 60:460]).all()
    assert (everywhere[256 - 12 : 256, 256] != colours[256 - 12 : 256, 256]).any()


def test_enhancement_leaves_noise_and_shading_alone():
    rng = np.random.default_rng(0)
    shade = np.linspace(150, 220, 512)[:, None] + rng.normal(0, 2.0, (512, 512))
    image = np.repeat(np.clip(shade, 0, 255)[..., None], 3, 2).astype(np.uint8)
    covered = np.ones((512, 512), bool)
    after = enhance(image, covered, style_target(exemplar()), 1.0)
    assert np.abs(after.astype(int) - image).max() <= 12
    assert np.abs(after.astype(float) - image).mean() < 1.5


def test_every_chart_texel_is_filled_and_16_bits_are_finer(fields):
    field = ClippedField(fields.AnalyticField(fields.ball((0.0, 0, 0), 0.6)))
    v, f = extract_level_set(field, 48, SilentProgress())
    low, low_faces = decimate(v, f, 1200, SilentProgress())
    atlas = unwrap(low, low_faces, 512, 8, SilentProgress())
    dense = DenseSurface.of_mesh(v, f)
    out = bake(field, dense, low, low_faces, atlas, 512, SilentProgress(), BakeOptions(bits=16))
    owner, _ = rasterize(atlas.uv, atlas.faces, 512, 512)
    assert (out.covered == (owner >= 0)).all() and out.coverage == 1.0
    assert out.albedo.dtype == np.uint16 and (out.albedo[out.covered].min(axis=1) > 0).all()
    assert len(np.unique(out.albedo[..., 0])) > 1000
    assert np.abs(to_bytes(out.albedo).astype(float) * 257 - out.albedo).max() <= 129
