"""The benchmark's flicker: which frames are neighbours, where the truth lies, what is measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import stylizer_flicker as bench

from toonify3d.scene import Scene, SurfaceMesh

BLENDER = np.diag([1.0, -1.0, -1.0, 1.0])


def _truth(scene: Scene, mesh: SurfaceMesh, folder: Path, lift: float) -> None:
    """Ground truth of the scene in another world, its cameras ``lift`` metres too low there."""
    world = np.eye(4)
    world[:3, :3] = 1.7 * Rotation.from_rotvec([0.2, -0.4, 1.1]).as_matrix()
    world[:3, 3] = 0.3, -2.0, 0.7
    vertices = mesh.vertices @ world[:3, :3].T + world[:3, 3]
    folder.mkdir()
    np.savez(folder / "mesh.npz", v=vertices, f=mesh.faces)
    count = max(frame.source_index for frame in scene.frames) + 1
    poses = [np.eye(4)] * count
    for frame in scene.frames:
        lower = frame.camera.c2w.copy()
        lower[2, 3] -= lift
        moved = world @ lower
        moved[:3, :3] /= 1.7
        poses[frame.source_index] = moved @ BLENDER
    document = {"c2w_blender": [pose.tolist() for pose in poses]}
    (folder / "cameras.json").write_text(json.dumps(document))


@pytest.mark.parametrize("lift", [0.0, 0.0015])
def test_the_truth_lies_where_the_pictures_show_it(subject, tmp_path, lift):
    """Whatever world it is in, and also where all cameras look a little too high (1.5 mm)."""
    scene, mesh = subject
    _truth(scene, mesh, tmp_path / "gt", lift)
    found = bench.truth_in_scene(scene, mesh, tmp_path / "gt")
    off = np.linalg.norm(found.vertices - mesh.vertices, axis=1)
    up = np.abs(found.vertices - mesh.vertices)[:, 2]
    assert np.median(up) < 0.0002 and np.median(off) < 0.0006


def test_neighbours_go_once_round_the_head(subject):
    scene, _ = subject
    pairs = bench.ring(scene.frames)
    assert len(pairs) == len(scene.frames)
    assert sum(pair.degrees for pair in pairs) == pytest.approx(360)
    groups = [pair.group for pair in pairs]
    assert set(groups) == {"front", "sides", "back"}
    for pair in pairs:
        yaws = np.array([pair.one.yaw, pair.two.yaw])
        if pair.group != "sides":
            offset = 0.0 if pair.group == "front" else np.pi
            assert np.abs(np.angle(np.exp(1j * (yaws - offset)))).max() < bench.END
    half = [frame for frame in scene.frames if abs(frame.yaw) < 0.7]
    assert len(bench.ring(half)) == len(half) - 1  # the gap behind is not jumped


def _grain(shape, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60, shape)


def test_flicker_is_what_changes_between_frames(subject):
    """Photos as stylized frames give 1; grain of each frame's own far more, the same light none."""
    scene, mesh = subject
    pairs = [pair for pair in bench.ring(scene.frames) if pair.degrees < 30][:3]
    frames = {f.name: f for pair in pairs for f in (pair.one, pair.two)}
    photos = {name: scene.image(frame) for name, frame in frames.items()}
    same = bench.flicker(pairs, scene.image, photos, mesh, mesh.vertices)
    assert [item.ratio for item in same] == pytest.approx([1.0] * len(pairs))
    plain = {name: np.full_like(image, 128) for name, image in photos.items()}
    still = bench.flicker(pairs, scene.image, plain, mesh, mesh.vertices)
    assert max(item.ratio for item in still) < 1e-4
    noisy = {
        n: (128 + _grain(p.shape, i)).astype(np.uint8) for i, (n, p) in enumerate(plain.items())
    }
    rough = bench.flicker(pairs, scene.image, noisy, mesh, mesh.vertices)
    assert min(item.style for item in rough) > 10


def test_every_square_metre_counts_alike(subject):
    """A scan's vertices crowd in ears: the measure must not."""
    _, mesh = subject
    corner = mesh.vertices[mesh.faces]
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = bench.vertex_areas(mesh)
    assert area.shape == (len(mesh.vertices),)
    assert area.sum() == pytest.approx(np.linalg.norm(cross, axis=1).sum() / 2)
    pole = np.abs(mesh.vertices[:, 2]).argmax()  # a hundred slivers meet there
    assert area[pole] < 0.2 * np.median(area)
