"""Lost frames are offered to the model again, and never make it worse."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycolmap
import pytest

from toonify3d.capture import cameras as cameras_module
from toonify3d.capture import mapping
from toonify3d.capture.cameras import solve_cameras
from toonify3d.capture.mapping import RESCUE_PAIRS, Work, rescue_pairs
from toonify3d.capture.settings import CaptureSettings
from toonify3d.progress import SilentProgress

sys.path.insert(0, str(Path(__file__).parent))
from test_cameras import HEIGHT, WIDTH, _arc, _draw, _quads


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    quads = _quads()
    return [_draw(camera, quads) for camera in _arc(16)]


def test_lost_frames_meet_all_others():
    pairs = rescue_pairs([3, 4], [0, 1, 2, 5], 6, ordered=True)
    assert pairs == [(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]


@pytest.mark.parametrize("ordered", [True, False])
def test_many_lost_frames_meet_a_bounded_number(ordered):
    lost, kept = list(range(150, 300)), list(range(150))
    pairs = rescue_pairs(lost, kept, 300, ordered)
    assert len(set(pairs)) == len(pairs) <= RESCUE_PAIRS
    assert all(0 <= i < j < 300 and j >= 150 for i, j in pairs)
    if ordered:  # the nearest, round the circle too
        assert {(149, 150), (0, 299), (148, 150)} <= set(pairs)


def test_frames_that_were_never_matched_find_their_place(pictures, tmp_path, monkeypatch):
    near = [(i, j) for i in range(11) for j in range(i + 1, min(i + 4, 11))]
    monkeypatch.setattr(cameras_module, "candidate_pairs", lambda count, ordered: near)
    progress = SilentProgress()
    options = CaptureSettings(max_features=1500)
    solved = solve_cameras(pictures, tmp_path / "sfm", options, progress)
    assert solved.kept == list(range(16)) and not progress.warnings
    assert solved.error < 0.6


def test_pictures_of_something_else_stay_out(pictures, tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(3)]
    progress = SilentProgress()
    options = CaptureSettings(max_features=1500)
    solved = solve_cameras([*pictures[:13], *noise], tmp_path / "sfm", options, progress)
    assert solved.kept == list(range(13))
    assert "3 of 16 frames" in progress.warnings[0]


class FakeModel:
    """As much of a reconstruction as :func:`mapping._with_lost` asks for."""

    def __init__(self, names, error):
        self.images = {i: SimpleNamespace(name=name, has_pose=True) for i, name in enumerate(names)}
        self.error = error

    def num_reg_images(self):
        return len(self.images)

    def compute_mean_reprojection_error(self):
        return self.error

    def write(self, folder):
        assert folder.is_dir()


@pytest.mark.parametrize(
    ("names", "error", "taken"),
    [("abcd", 0.4, True), ("abcd", 0.9, False), ("acde", 0.4, False), ("abc", 0.4, False)],
)
def test_a_worse_model_is_never_taken(tmp_path, monkeypatch, names, error, taken):
    work = Work(tmp_path, tmp_path, list("abcde"), 640, CaptureSettings())
    grown = FakeModel(names, error)
    monkeypatch.setattr(mapping, "match", lambda *_, **__: None)
    monkeypatch.setattr(mapping, "_resumed", lambda *_: {0: grown})
    monkeypatch.setattr(mapping, "_settle", lambda model, *_: model)
    best = FakeModel("abc", 0.4)
    found = mapping._with_lost(best, work, SilentProgress())
    assert (found is grown) == taken and (found is best) != taken


def _synthetic(distortion: float, noise: float = 0.3) -> pycolmap.Reconstruction:
    """Twelve cameras round a cloud of points, seen through a lens with this distortion."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, 12, 400
    options.camera_params = [1280.0, 512.0, 384.0, distortion]
    model = pycolmap.synthesize_dataset(options)
    disturbance = pycolmap.SyntheticNoiseOptions()
    disturbance.point2D_stddev = noise
    pycolmap.synthesize_noise(disturbance, model)
    return model


@pytest.mark.parametrize("distortion", [0.0, 0.05, -0.03])
def test_a_lens_is_bent_only_where_the_matches_say_so(distortion, tmp_path):
    names = [f"{i}" for i in range(12)]
    work = Work(tmp_path, tmp_path, names, 1024, CaptureSettings(threads=1))
    model = mapping.refine(_synthetic(distortion), work, SilentProgress())
    (lens,) = model.cameras.values()
    if distortion == 0.0:
        assert lens.params[3] == 0.0
    assert lens.params[3] == pytest.approx(distortion, abs=0.01)
    assert lens.params[0] == pytest.approx(1280.0, rel=0.008)
