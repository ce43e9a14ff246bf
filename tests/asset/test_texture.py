"""Charts, packing, baking: no overlap, little stretch, right colours and normals, full coverage."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from toonify3d.asset import bake as bake_module
from toonify3d.asset.bake import (
    BakeOptions,
    DenseSurface,
    bake,
    denoise_normals,
    dilate,
    normal_weights,
    tangent_frames,
)
from toonify3d.asset.levelset import ClippedField, extract_level_set
from toonify3d.asset.mesh import decimate, largest_component, vertex_normals
from toonify3d.asset.raster import overlapping_texels, rasterize
from toonify3d.asset.uv import Atlas, unwrap
from toonify3d.progress import SilentProgress

SIZE = 512


def low_mesh(fields, distance, faces=1500, resolution=64):
    field = ClippedField(fields.AnalyticField(distance))
    v, f = extract_level_set(field, resolution, SilentProgress())
    v, f, _ = largest_component(v, f)
    low = decimate(v, f, faces, SilentProgress())
    return field, (v, f), low


def charts_of(atlas):
    """Chart number of every triangle: triangles joined by shared atlas vertices."""
    rows = atlas.faces[:, [0, 1, 2]].ravel()
    columns = atlas.faces[:, [1, 2, 0]].ravel()
    count = len(atlas.uv)
    links = coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    return connected_components(links, directed=False)[1][atlas.faces[:, 0]]


def stretch(vertices, faces, uv):
    """Texture units per unit of length for every triangle, from the areas."""
    corners, flat = vertices[faces], uv[faces]
    space = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    first, second = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    plane = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    return np.sqrt(plane / space)


@pytest.mark.parametrize("shape", ["ball", "torus", "bumpy"])
def test_atlas_has_no_overlap_and_little_stretch(fields, shape):
    distance = {
        "ball": fields.ball((0.0, 0, 0), 0.6),
        "torus": fields.torus(0.5, 0.2),
        "bumpy": fields.union(
            fields.ball((0.0, 0, 0), 0.5),
            fields.ball((0.5, 0, 0.1), 0.18),
            fields.ball((-0.5, 0, 0.1), 0.18),
        ),
    }[shape]
    _, _, (v, f) = low_mesh(fields, distance)
    atlas = unwrap(v, f, SIZE, 4, SilentProgress())
    assert atlas.overlap == 0
    assert atlas.charts <= 24
    assert atlas.utilization > 0.4
    assert atlas.uv.min() >= 0 and atlas.uv.max() <= 1
    assert (atlas.source[atlas.faces] == f).all()
    scale = stretch(v[atlas.source], atlas.faces, atlas.uv)
    assert np.percentile(scale / np.median(scale), 2) > 0.5
    assert np.percentile(scale / np.median(scale), 98) < 2.0


def test_charts_keep_their_distance(fields):
    _, _, (v, f) = low_mesh(fields, fields.ball((0.0, 0, 0), 0.6))
    padding = 8
    atlas = unwrap(v, f, SIZE, padding, SilentProgress())
    chart_of = charts_of(atlas)
    assert chart_of.max() + 1 == atlas.charts
    owner, _ = rasterize(atlas.uv, atlas.faces, SIZE, SIZE)
    image = np.where(owner >= 0, chart_of[np.maximum(owner, 0)], -1)
    y, x = np.nonzero(image >= 0)
    for number in range(atlas.charts):
        mine = np.stack([y, x], 1)[image[y, x] == number]
        other = np.stack([y, x], 1)[image[y, x] != number]
        step = max(1, len(mine) // 400)
        gap = np.abs(mine[::step, None] - other[None]).max(axis=2).min()
        assert gap >= padding - 1


def test_face_region_is_denser(fields):
    _, _, (v, f) = low_mesh(fields, fields.ball((0.0, 0, 0), 0.6))
    region = v[f].mean(axis=1)[:, 1] < -0.45
    atlas = unwrap(v, f, SIZE, 4, SilentProgress(), region, 2.0)
    assert atlas.face_density >= 1.95
    assert atlas.overlap == 0


def test_overlap_is_found():
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.2, 0.1], [0.9, 0.2], [0.3, 0.9]])
    assert overlapping_texels(uv, np.array([[0, 1, 2], [3, 4, 5]]), 64) > 100
    shared = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    assert overlapping_texels(shared, np.array([[0, 1, 2], [0, 2, 3]]), 64) == 0


def test_raster_barycentrics_give_texel_centres_back():
    uv = np.array([[0.05, 0.1], [0.93, 0.21], [0.4, 0.95]])
    owner, weights = rasterize(uv, np.array([[0, 1, 2]]), 64, 48)
    y, x = np.nonzero(owner == 0)
    place = weights[y, x] @ uv
    assert np.abs(place[:, 0] * 64 - (x + 0.5)).max() < 1e-3
    assert np.abs((1 - place[:, 1]) * 48 - (y + 0.5)).max() < 1e-3
    upper, _ = rasterize(uv, np.array([[0, 1, 2]]), 64, 48, first_row=10, rows=7)
    assert (upper == owner[10:17]).all()


@pytest.mark.parametrize("supersample", [1, 2])
def test_bake_colours_normals_and_coverage(fields, supersample):
    field, (v, f), (lv, lf) = low_mesh(fields, fields.ball((0.0, 0, 0), 0.6))
    atlas = unwrap(lv, lf, SIZE, 8, SilentProgress())
    dense = DenseSurface.of_mesh(v, f)
    out = bake(
        field, dense, lv, lf, atlas, SIZE, SilentProgress(), BakeOptions(supersample, (3, 0.01))
    )
    assert out.coverage == 1.0 and out.on_surface > 0.999
    owner, weights = rasterize(atlas.uv, atlas.faces, SIZE, SIZE)
    y, x = np.nonzero(owner >= 0)
    corners = atlas.faces[owner[y, x]]
    low = np.einsum("nk,nkc->nc", weights[y, x], lv[atlas.source][corners])
    truth = low / np.linalg.norm(low, axis=1, keepdims=True)
    # The field's colour is the position: albedo must be that of the true ball, not of the facets.
    error = np.abs(out.albedo[y, x] / 255.0 - (0.6 * truth * 0.5 + 0.5))
    assert np.percentile(error, 99) < 0.006
    n = vertex_normals(lv, lf)[atlas.source]
    t, sign = tangent_frames(lv[atlas.source], n, atlas)
    n, t = (np.einsum("nk,nkc->nc", weights[y, x], a[corners]) for a in (n, t))
    b = sign[corners[:, 0], None] * np.cross(n, t)
    local = out.normal[y, x] / 127.5 - 1.0
    world = local[:, :1] * t + local[:, 1:2] * b + local[:, 2:] * n
    world /= np.linalg.norm(world, axis=1, keepdims=True)
    assert np.percentile(np.einsum("ij,ij->i", world, truth), 1) > 0.999


@pytest.mark.parametrize("finer", [2, 4])
def test_a_large_texture_accumulates_on_a_coarser_grid(fields, monkeypatch, finer):
    """Colour that changes along the normal: as accumulated everywhere, for a share of the reads."""
    reads = []

    class Deep(fields.AnalyticField):
        def color(self, x):
            reads.append(len(x))
            depth = (self._distance(x) / 0.02)[:, None]
            pattern = 0.5 + 0.3 * torch.sin(torch.stack([9 * x[:, 0], 7 * x[:, 1], x[:, 2]], 1))
            return pattern * (0.7 + 0.4 * depth + 0.6 * depth**2)

    _, (dv, df), (v, f) = low_mesh(fields, fields.ball((0.0, 0, 0), 0.6))
    field = ClippedField(Deep(fields.ball((0.0, 0, 0), 0.6)))
    atlas = unwrap(v, f, SIZE, 8, SilentProgress())
    options = BakeOptions(volume=(3, 0.02), normals=False)

    def baked(side):
        monkeypatch.setattr(bake_module, "VOLUME_TEXELS", side)
        reads.clear()
        dense = DenseSurface.of_mesh(dv, df)
        out = bake(field, dense, v, f, atlas, SIZE, SilentProgress(), options)
        return out, sum(reads)

    full, all_reads = baked(SIZE)
    quick, some = baked(SIZE // finer)
    plain = replace(options, volume=(1, 0.02))
    bare = bake(field, DenseSurface.of_mesh(dv, df), v, f, atlas, SIZE, SilentProgress(), plain)
    inside = full.covered
    assert (quick.covered == inside).all() and quick.coverage == 1.0
    off = np.abs(quick.albedo.astype(int) - full.albedo)[inside]
    without = np.abs(bare.albedo.astype(int) - full.albedo)[inside]
    assert without.mean() > 2.0 and off.mean() < 0.3 and np.percentile(off, 99.9) <= 3
    assert some < (1 + 3.2 / finer**2) / 3 * all_reads


def test_ripples_of_a_grid_do_not_reach_the_normals_but_creases_do(fields):
    """A ball with a terraced surface, as a field made of trilinear cells has, cut by a plane."""
    import torch

    ball = fields.ball((0.0, 0, 0), 0.6)

    def distance(x):
        wave = (x[:, 2] * 40 % 1.0 - 0.5).abs() - 0.25  # slope +-1, kinks as at cell borders
        return torch.maximum(ball(x) + 0.08 / 40 * wave, x[:, 0] - 0.3)

    field = ClippedField(fields.AnalyticField(distance))
    v, f = extract_level_set(field, 192, SilentProgress())
    raw = vertex_normals(v, f)
    clean = denoise_normals(v, f, raw)
    round_part = v[:, 0] < 0.26
    truth = v / np.linalg.norm(v, axis=1, keepdims=True)

    def error(normals, rows, wanted):
        cosine = np.einsum("ij,ij->i", normals[rows], wanted[rows])
        return np.degrees(np.sqrt((np.arccos(np.clip(cosine, -1, 1)) ** 2).mean()))

    assert error(clean, round_part, truth) < 0.6 * error(raw, round_part, truth)
    # One cell away from the crease both sides keep their own direction.
    flat = (np.abs(v[:, 0] - 0.3) < 1e-4) & (np.linalg.norm(v, axis=1) < 0.6 - 0.025)
    assert flat.sum() > 500
    assert error(clean, flat, np.broadcast_to([1.0, 0, 0], v.shape)) < 1.0
    assert np.allclose(denoise_normals(v, f, raw, radius=1e-4), raw)


def test_tangent_follows_u_and_bitangent_follows_v():
    """On a cylinder with u round it and v along it, both directions are known exactly."""
    angle, height = np.meshgrid(np.linspace(0, 2, 30), np.linspace(0, 1, 15), indexing="ij")
    vertices = np.stack([np.cos(angle), np.sin(angle), height], -1).reshape(-1, 3)
    index = np.arange(450).reshape(30, 15)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)
    uv = np.stack([angle / 3, height / 2], -1).reshape(-1, 2)
    atlas = Atlas(np.arange(450), faces, uv, 1, 0.5, None, 0)
    normals = vertices * [1.0, 1.0, 0.0]
    tangent, sign = tangent_frames(vertices, normals, atlas)
    around = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], -1).reshape(-1, 3)
    assert np.einsum("ij,ij->i", tangent, around).min() > 0.99
    bitangent = sign[:, None] * np.cross(normals, tangent)
    assert bitangent[:, 2].min() > 0.99


def test_dilation_takes_the_nearest_texel():
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    covered = np.zeros((20, 30), dtype=bool)
    covered[5:15, 3:6], covered[5:15, 20:24] = True, True
    image[:, 3:6], image[:, 20:24] = (200, 10, 10), (10, 200, 10)
    out = dilate(image, covered)
    assert (out[:, :12] == (200, 10, 10)).all()
    assert (out[:, 14:] == (10, 200, 10)).all()


def test_volume_weights_are_neus():
    offsets, weights = normal_weights(5)
    assert weights.sum() == pytest.approx(1.0) and (weights > 0).all()
    assert (np.diff(offsets) < 0).all()
    # What lies in front of the surface counts less than what lies at it.
    assert weights[0] < weights[2]
