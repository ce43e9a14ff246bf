"""Drawing rays by block and by error: what is drawn, and that nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene

from toonify3d.scene import Scene
from toonify3d.snr.guide import Guide
from toonify3d.training.data import BLOCK, RayBank
from toonify3d.training.ray_focus import ENOUGH, LEAST, MOST, RayFocus

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(tmp_path_factory.mktemp("focus"), count=8)


@pytest.fixture
def bank(scene: Scene) -> RayBank:
    return RayBank.from_scene(scene, scene.frames, 0.03, CPU)


@pytest.fixture
def guide(scene: Scene) -> Guide:
    cameras = [frame.camera for frame in scene.frames]
    masks = [scene.mask(frame) for frame in scene.frames]
    return Guide.from_masks(cameras, masks, scene.normalization, 48, CPU)


def blocks_of(bank: RayBank) -> torch.Tensor:
    """Number of the block of every candidate."""
    return torch.arange(len(bank._sizes)).repeat_interleave(bank._sizes)


def test_a_block_is_one_square_of_one_frame(bank: RayBank) -> None:
    assert int(bank._sizes.sum()) == len(bank)
    square = torch.cat([bank._frame[:, None], bank._position // BLOCK], dim=1)
    first = square[bank._starts]
    assert torch.equal(first[blocks_of(bank)], square)
    assert len(torch.unique(first, dim=0)) == len(first), "a square is one block only"


def test_candidates_keep_their_own_colour(bank: RayBank, scene: Scene) -> None:
    for number, frame in enumerate(scene.frames):
        mine = bank._frame == number
        x, y = bank._position[mine].long().T.numpy()
        assert np.array_equal(bank._color[mine].numpy(), scene.image(frame)[y, x])
        assert np.array_equal(bank._mask[mine].numpy(), scene.mask(frame)[y, x])


def test_draws_follow_the_weights(bank: RayBank) -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.ones(len(bank._sizes))
    bank.focus(weights, 1.0)
    count = 60_000
    drawn = bank._drawn_by_block(count, generator)
    even = torch.bincount(drawn, minlength=len(bank)).double()
    expected = count / len(bank)
    # Poisson: the mean squared deviation is the mean itself.
    assert float(((even - expected) ** 2).mean()) == pytest.approx(expected, rel=0.1)
    weights[5] = 40.0
    bank.focus(weights, 1.0)
    drawn = blocks_of(bank)[bank._drawn_by_block(count, generator)]
    chance = float(40.0 * bank._sizes[5] / (weights * bank._sizes).sum())
    hits = float((drawn == 5).sum())
    assert hits == pytest.approx(chance * count, abs=5.0 * (chance * count) ** 0.5)


def test_a_share_is_drawn_by_weight_and_the_rest_evenly(bank: RayBank) -> None:
    generator = torch.Generator().manual_seed(4)
    weights = torch.zeros(len(bank._sizes))
    weights[7] = 1.0
    bank.focus(weights, 0.25)
    batch = bank.sample(4000, generator)
    only = bank.batch(bank._starts[7] + torch.arange(int(bank._sizes[7])))
    same = (batch.directions[:, None] == only.directions).all(2) & (
        batch.frame[:, None] == only.frame
    )
    inside = float(same.any(1).float().mean())
    assert inside == pytest.approx(0.25 + 0.75 * float(bank._sizes[7]) / len(bank), abs=0.01)


def test_where_it_is_wrong_more_is_drawn(scene: Scene, guide: Guide) -> None:
    """Errors noted on one half of the ball send rays to that half, in every view of it."""
    bank = RayBank.from_scene(scene, scene.frames, 0.3, CPU)
    focus = RayFocus(bank, guide, 0.5)
    before = bank.chances.clone()
    focus.refresh()
    torch.testing.assert_close(bank.chances, before, msg="nothing noted: even draws")
    origins, directions = bank.rays(bank.block_centers())
    t, value, _ = guide.intersect(origins, directions)
    points = origins + directions * t[:, None]
    height = points[:, 2]
    for _ in range(int(ENOUGH) + 1):
        focus.note(points, 0.02 + 0.2 * (height > 0.0).float(), (value <= 0.0).float())
    focus.refresh()
    chance = torch.diff(bank.chances, prepend=torch.zeros(1)) / bank._sizes
    hit = value <= 0.0
    upper, lower = chance[hit & (height > 0.1)], chance[hit & (height < -0.1)]
    assert len(upper) > 20 and len(lower) > 20
    assert float(upper.mean()) > 4.0 * float(lower.mean())
    assert float(upper.max() / lower.min()) <= MOST / LEAST * 1.001
    missed = chance[value > guide.cell]
    assert len(missed) and float(missed.std()) < 1e-6 * float(missed.mean())
    assert float(lower.mean()) < float(missed.mean()) < float(upper.mean())


def test_old_errors_are_forgotten_and_states_restored(bank: RayBank, guide: Guide) -> None:
    focus = RayFocus(bank, guide, 0.5)
    origins, directions = bank.rays(bank.block_centers())
    points = origins + directions * guide.intersect(origins, directions)[0][:, None]
    for _ in range(2 * int(ENOUGH)):
        focus.note(points, torch.linspace(0.0, 1.0, len(points)), torch.ones(len(points)))
    noted = float(focus.state()["count"].sum())
    focus.refresh()
    state = focus.state()
    assert float(state["count"].sum()) == 0.5 * noted > 0.0
    other = RayFocus(bank, guide, 0.5)
    assert not torch.equal(bank.chances, state["chances"])
    other.restore(state)
    again = other.state()
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_rays_that_do_not_count_are_not_noted(bank: RayBank, guide: Guide) -> None:
    focus = RayFocus(bank, guide, 0.5)
    focus.note(torch.zeros((4, 3)), torch.ones(4), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert float(focus.state()["count"].sum()) == 2.0
    assert float(focus.state()["error"].sum()) == 2.0


def test_what_misses_the_hull_is_dropped_as_if_every_ray_were_traced(
    scene: Scene, bank: RayBank
) -> None:
    cameras = [frame.camera for frame in scene.frames]
    masks = [scene.mask(frame) for frame in scene.frames]
    low = float(scene.normalization.center[2])
    cut = Guide.from_masks(cameras, masks, scene.normalization, 48, CPU, lowest=low)
    every = bank._reaches(torch.arange(len(bank)), cut, 1 << 18) | (bank._mask <= 127)
    total = len(bank)
    dropped = bank.drop_unreachable(cut)
    assert dropped > total // 10
    assert len(bank) == total - dropped == int(bank._sizes.sum())
    # Only a corner of a block of which three pixels reach the hull may stay by mistake.
    assert 0 <= len(bank) - int(every.sum()) < 0.01 * total
    square = torch.cat([bank._frame[:, None], bank._position // BLOCK], dim=1)
    assert torch.equal(square[bank._starts][blocks_of(bank)], square)
