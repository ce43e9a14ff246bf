"""The grid's Warp kernels against the float64 torch reference, at points that hypothesis draws.

Each coordinate by itself lies anywhere in the box, exactly on a border between cells of some level,
just beside one, on the box or outside. The kernels' convention: a border belongs to the cell above
it, the box's upper face to the last cell; outside, positions are clamped and the Jacobian along the
clamped axis is zero (not yet on the face itself).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toonify3d.snr.encoding import HashEncoding
from toonify3d.snr.reference_grid import encode_reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
# Levels, coarsest, finest, binary logarithm of the table: of powers of two (borders are exact in
# float32) and not; dense levels alone, hashed ones alone, both, and one that just fills its table.
GRIDS = [
    (3, 4, 16, 13),
    (4, 4, 32, 9),
    (2, 16, 32, 7),
    (5, 3, 41, 9),
    (1, 6, 6, 9),
    (3, 5, 23, 6),
    (2, 7, 15, 9),
]
# Of a cell: nearer to a border than this, float32 may find itself on its other side.
NEAR = 1e-4
BESIDE = 1e-3


def _coordinates(resolutions: list[int]) -> st.SearchStrategy[float]:
    """One coordinate, of any of the kinds above."""

    def vertex(resolution: int) -> st.SearchStrategy[float]:
        number = st.integers(0, resolution)
        shift = st.sampled_from([0.0, 0.0, -BESIDE, BESIDE])
        return st.builds(lambda k, s: 2.0 * (k + s) / resolution - 1.0, number, shift)

    return st.one_of(
        st.floats(-1.0, 1.0, width=32, allow_subnormal=False),
        st.sampled_from(resolutions).flatmap(vertex),
        st.sampled_from([-1.0, 1.0]),
        st.sampled_from([-1.0, 1.0]).flatmap(
            lambda face: st.floats(2.0**-20, 3.0).map(lambda by: face * (1.0 + by))
        ),
    )


@st.composite
def _cases(draw: st.DrawFn) -> tuple[HashEncoding, torch.Tensor, int]:
    """An encoding with random entries, points, and a seed for gradients."""
    grid, features = draw(st.sampled_from(GRIDS)), draw(st.sampled_from([2, 4, 8]))
    seed = draw(st.integers(0, 1000))
    encoding = HashEncoding(grid[0], features, *grid[1:])
    torch.nn.init.normal_(encoding.table, generator=torch.Generator().manual_seed(seed))
    encoding.active = draw(st.integers(1, grid[0]))
    one = _coordinates(encoding.levels[:, 0].tolist())
    # Each with each: what lies on an edge or a corner of a cell, or of the box, comes by itself.
    axes = [torch.tensor(draw(st.lists(one, min_size=1, max_size=3))) for _ in range(3)]
    return encoding, torch.cartesian_prod(*axes).reshape(-1, 3), seed


def _decided(encoding: HashEncoding, x: torch.Tensor) -> torch.Tensor:
    """Points ``(N,)`` whose cell float32 cannot mistake: off all borders, or exactly on them."""
    sizes = encoding.levels[None, :, :1]
    scaled = 0.5 * (x.clamp(-1.0, 1.0)[:, None] + 1.0) * sizes
    exact = 0.5 * (x.double().clamp(-1.0, 1.0)[:, None] + 1.0) * sizes
    off = (exact - exact.round()).abs() > NEAR
    on = (exact == exact.round()) & (scaled.double() == exact)
    return (off | on).flatten(1).all(1)


def _check(encoding: HashEncoding, points: torch.Tensor, seed: int) -> None:
    """Values, Jacobian, position gradient and table gradient of decided points."""
    x = points.clone().requires_grad_(True)
    features, jacobian = encoding(x)
    x64 = points.double().requires_grad_(True)
    table64 = encoding.table.detach().double().requires_grad_(True)
    want, slope = encode_reference(x64, table64, encoding.levels, encoding.active)
    want, slope = want.flatten(1), slope.flatten(2).transpose(1, 2)
    torch.testing.assert_close(features.double(), want, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(jacobian.double(), slope, atol=5e-3, rtol=1e-4)
    torch.testing.assert_close(encoding.features(points), features, atol=0, rtol=0)
    random = torch.Generator().manual_seed(seed)
    pull = torch.randn(want.shape, generator=random, dtype=torch.float64).to(x64.device)
    turn = torch.randn(slope.shape, generator=random, dtype=torch.float64).to(x64.device) / 16.0
    # Through the Jacobian the position has no gradient in the kernels, only the table.
    (move,) = torch.autograd.grad((features * pull).sum(), x, retain_graph=True)
    (move64,) = torch.autograd.grad((want * pull).sum(), x64, retain_graph=True)
    torch.testing.assert_close(move.double(), move64, atol=2e-2, rtol=1e-3)
    both, both64 = (
        (value * pull).sum() + (gradient * turn).sum()
        for value, gradient in ((features, jacobian), (want, slope))
    )
    (table,) = torch.autograd.grad(both, encoding.table)
    (table64,) = torch.autograd.grad(both64, table64)
    torch.testing.assert_close(table.double(), table64, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
)
@given(case=_cases())
def test_any_point_agrees_with_reference(
    device: str, case: tuple[HashEncoding, torch.Tensor, int]
) -> None:
    encoding, points, seed = case
    points = points[_decided(encoding, points)]
    _check(encoding.to(device), points.to(device), seed)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=_cases())
def test_values_are_continuous_wherever_float32_puts_the_point(
    device: str, case: tuple[HashEncoding, torch.Tensor, int]
) -> None:
    """Points too near a border to tell the cell: either cell gives the same value."""
    encoding, points, _ = case
    encoding.to(device)
    want, _ = encode_reference(
        points.to(device).double(),
        encoding.table.detach().double(),
        encoding.levels,
        encoding.active,
    )
    got = encoding.features(points.to(device)).detach().double()
    torch.testing.assert_close(got, want.flatten(1).detach(), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    corner=st.tuples(*[st.integers(0, 16)] * 3),
    within=st.tuples(*[st.floats(0.1, 0.9)] * 3),
    axes=st.tuples(*[st.booleans()] * 3),
)
def test_a_border_belongs_to_the_cell_above_and_the_last_face_to_the_last_cell(
    device: str,
    corner: tuple[int, int, int],
    within: tuple[float, float, float],
    axes: tuple[bool, bool, bool],
) -> None:
    """On borders along ``axes`` the Jacobian is the one just inside the cell that they belong to.

    Asked of the kernel alone, without the reference: within a cell everything is smooth.
    """
    encoding = HashEncoding(1, 2, 16, 16, 9)
    torch.nn.init.normal_(encoding.table, generator=torch.Generator().manual_seed(0))
    encoding.to(device)
    vertex, chosen = np.array(corner), np.array(axes)
    inward = np.where(vertex < 16, 1.0, -1.0)
    scaled = np.where(chosen, vertex, np.minimum(vertex, 15) + np.array(within))
    beside = scaled + np.where(chosen, BESIDE * inward, 0.0)
    outside = scaled - np.where(chosen, BESIDE * inward, 0.0)
    x = torch.tensor(np.stack([scaled, beside, outside]) / 8.0 - 1.0, dtype=torch.float32)
    features, jacobian = (part.detach().cpu() for part in encoding(x.to(device)))
    torch.testing.assert_close(jacobian[0], jacobian[1], atol=0.3, rtol=0)
    torch.testing.assert_close(features[0], features[2], atol=0.1, rtol=0)
    for axis in np.nonzero((outside < 0) | (outside > 16))[0]:
        assert bool((jacobian[2, :, axis] == 0).all()) and bool((jacobian[0, :, axis] != 0).any())
