"""Wrong poses are found by the matches between pairs of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from toonify3d.capture import agreement, feature_masks
from toonify3d.capture.agreement import (
    agreement_of_images,
    drop_wrong,
    essential_matrix,
    sampson_distance,
)
from toonify3d.errors import InputError
from toonify3d.progress import SilentProgress


def pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.eye(4)
    out[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix()
    out[:3, 3] = rng.normal(0, 0.4, 3)
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_true_matches_lie_on_their_lines_and_others_at_their_distance(seed):
    one, two = pose(seed), pose(seed + 1)
    points = np.random.default_rng(seed).uniform((-1, -1, 4), (1, 1, 6), (50, 3))
    rays = [points @ view[:3, :3].T + view[:3, 3] for view in (one, two)]
    places = [ray / ray[:, 2:] for ray in rays]
    essential = essential_matrix(one, two)
    assert sampson_distance(essential, *places).max() < 1e-9
    # Away from the line by d in one picture only: at most d, and never nothing for all.
    off = places[1] + (0.0, 0.01, 0.0)
    apart = sampson_distance(essential, places[0], off)
    assert apart.max() <= 0.01 + 1e-9


def test_an_image_is_judged_by_all_its_matches():
    shares = agreement_of_images([(1, 2, 100, 1.0), (2, 3, 100, 0.2), (1, 3, 300, 0.2)])
    assert shares[2] == pytest.approx(0.6) and shares[3] == pytest.approx(0.2)


class _Image:
    def __init__(self, key, points=100):
        self.image_id = self.frame_id = key
        self.has_pose, self.num_points3D = True, points


class _Model:
    def __init__(self, images):
        self.images = {image.image_id: image for image in images}
        self.dropped = []

    def deregister_frame(self, key):
        self.dropped.append(key)


def test_the_wrong_image_goes_and_its_neighbours_stay(monkeypatch, tmp_path):
    # Image 9 is misplaced; image 8 has most of its matches with it.
    pairs = [(i, j, 100, 0.98) for i in range(8) for j in range(i)]
    pairs += [(8, 9, 400, 0.2), (8, 0, 150, 0.97), (8, 1, 150, 0.97), (9, 2, 100, 0.1)]
    monkeypatch.setattr(agreement, "_pair_agreement", lambda *_: pairs)
    model = _Model([_Image(key, points=3 if key == 7 else 100) for key in range(10)])
    assert drop_wrong(model, tmp_path, 1600) == 2
    assert sorted(model.dropped) == [7, 9]


def test_feature_masks_keep_the_side_that_was_asked_for():
    mask = np.zeros((100, 80), np.uint8)
    mask[30:90, 20:60] = 255
    image = np.zeros((100, 80, 3), np.uint8)
    arguments = ([image], [mask])
    assert feature_masks.feature_masks(*arguments, "everywhere", SilentProgress()) is None
    (person,) = feature_masks.feature_masks(*arguments, "person", SilentProgress())
    (room,) = feature_masks.feature_masks(*arguments, "room", SilentProgress())
    assert person[60, 40] == 255 and person[10, 10] == 0
    assert room[60, 40] == 0 and room[10, 10] == 255
    assert not (person & room).any()
    # Near the outline neither.
    assert person[31, 40] == 0 and room[28, 40] == 0
    with pytest.raises(InputError, match="everywhere, person, room"):
        feature_masks.check_features_setting("all")
