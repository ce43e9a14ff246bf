from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toonify3d.capture import depth as stereo
from toonify3d.capture.depth_settings import DepthSettings
from toonify3d.progress import SilentProgress

sys.path.insert(0, str(Path(__file__).parent))
import made_up_capture as made_up

SETTINGS = DepthSettings(long_side=160, frame_step=1)


@pytest.fixture(scope="module")
def capture():
    return made_up.make(40)


@pytest.fixture(scope="module")
def scene(capture, tmp_path_factory):
    scene = made_up.write_scene(capture, tmp_path_factory.mktemp("depth"))
    progress = SilentProgress()
    stereo.compute_depth(scene, SETTINGS, "cpu", progress)
    assert progress.warnings == []
    return scene


def errors(scene, capture, least=0.0):
    signed, covered, total = [], 0, 0
    for frame, true in zip(scene.frames, capture.depths, strict=True):
        depth, confidence = scene.depth(frame)
        good = (true > 0) & (depth > 0) & (confidence > least)
        signed.append((depth - true)[good])
        covered += good.sum()
        total += (true > 0).sum()
    return np.concatenate(signed), covered / total


def test_depth_is_right_and_unbiased(scene, capture):
    signed, covered = errors(scene, capture, 0.3)
    assert covered > 0.6
    assert np.median(np.abs(signed)) < 0.0015
    assert abs(np.median(signed)) < 0.0008


def test_confidence_sorts_the_errors(scene, capture):
    high, _ = errors(scene, capture, 0.7)
    every, _ = errors(scene, capture)
    assert np.percentile(np.abs(high), 90) < np.percentile(np.abs(every), 90)


def test_room_has_no_depth(scene, capture):
    for frame, true in zip(scene.frames, capture.depths, strict=True):
        depth, confidence = scene.depth(frame)
        assert not depth[true == 0].any()
        assert not confidence[depth == 0].any()
        assert confidence.min() >= 0.0
        assert confidence.max() <= 1.0


def test_files_have_the_contract_form(scene):
    with np.load(scene.root / "depth" / "0000.npz") as data:
        assert data["depth"].dtype == np.float32
        assert data["confidence"].dtype == np.float32
        assert data["depth"].shape == (160, 120)
    assert (scene.root / "hull.npz").exists()


def test_frame_without_neighbour_is_told(capture, tmp_path):
    few = made_up.MadeUp(*(list(v)[::10] for v in vars(capture).values()))
    scene = made_up.write_scene(few, tmp_path)
    progress = SilentProgress()
    stereo.compute_depth(scene, SETTINGS, "cpu", progress)
    assert len(progress.warnings) == 4
    assert scene.depth(scene.frames[0]) is None


def test_semi_global_without_penalty_only_scales():
    costs = torch.rand(8, 5, 6, generator=torch.Generator().manual_seed(0))
    summed = stereo._semi_global(costs, 0.0, 0.0)
    assert torch.equal(summed.argmin(0), costs.argmin(0))


def test_semi_global_removes_an_outlier():
    costs = torch.ones(8, 9, 9)
    costs[3] = 0.5
    costs[:, 4, 4] = 0.6
    costs[7, 4, 4] = 0.45
    assert costs.argmin(0)[4, 4] == 7
    assert stereo._semi_global(costs, 0.05, 0.5).argmin(0)[4, 4] == 3


def test_parabola_finds_the_vertex():
    offsets = torch.arange(8) * 0.5
    costs = ((offsets - 1.7) ** 2)[:, None, None].expand(8, 2, 2)
    value, index = stereo._minimum(costs, offsets)
    assert value == pytest.approx(torch.full((2, 2), 1.7))
    assert (index == 3).all()


def test_box_sum_is_a_box_sum():
    values = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(1))
    summed = stereo._box_sum(values, 5)
    assert summed[1, 6, 4] == pytest.approx(float(values[1, 4:9, 2:7].sum()))
    assert summed[0, 0, 0] == pytest.approx(float(values[0, :3, :3].sum()))


@pytest.mark.cuda
def test_gpu_gives_the_same_depth(scene, capture, tmp_path):
    other = made_up.write_scene(capture, tmp_path)
    stereo.compute_depth(other, SETTINGS, "cuda", SilentProgress())
    one, _ = scene.depth(scene.frames[0])
    two, _ = other.depth(other.frames[0])
    both = (one > 0) & (two > 0)
    assert both.sum() > 0.97 * (one > 0).sum()
    assert np.median(np.abs(one - two)[both]) < 1e-4
