"""The Warp grid kernels against the float64 torch reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toonify3d.snr.encoding import (
    FrequencyEncoding,
    HashEncoding,
    cubic_harmonics,
    spherical_harmonics,
)
from toonify3d.snr.reference_grid import encode_reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(name)


def _encoding(features: int, device: torch.device, log2_table: int = 9) -> HashEncoding:
    # 4^3 and 7^3 vertices fit 512 entries (dense), finer levels are hashed.
    torch.manual_seed(3)
    encoding = HashEncoding(5, features, 3, 41, log2_table).to(device)
    with torch.no_grad():
        encoding.table.normal_()
    return encoding


def _reference(
    encoding: HashEncoding, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x64 = x.detach().double().requires_grad_(True)
    table = encoding.table.detach().double().requires_grad_(True)
    features, jacobian = encode_reference(x64, table, encoding.levels, encoding.active)
    return features.flatten(1), jacobian.flatten(2).transpose(1, 2), x64, table


def _assert_agrees(encoding: HashEncoding, x: torch.Tensor) -> None:
    x = x.requires_grad_(True)
    features, jacobian = encoding(x)
    want_features, want_jacobian, x64, table = _reference(encoding, x)
    torch.testing.assert_close(features.double(), want_features, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(jacobian.double(), want_jacobian, atol=2e-2, rtol=1e-4)
    torch.manual_seed(5)
    a, b = torch.randn_like(features), torch.randn_like(jacobian) * 0.01
    (features * a).sum().backward(retain_graph=True)
    (want_features * a.double()).sum().backward(retain_graph=True)
    torch.testing.assert_close(x.grad.double(), x64.grad, atol=2e-2, rtol=1e-3)
    encoding.table.grad, table.grad = None, None
    ((features * a).sum() + (jacobian * b).sum()).backward()
    ((want_features * a.double()).sum() + (want_jacobian * b.double()).sum()).backward()
    torch.testing.assert_close(encoding.table.grad.double(), table.grad, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("features", [2, 4, 8])
def test_random_points_agree_with_reference(device: str, features: int) -> None:
    target = _device(device)
    encoding = _encoding(features, target)
    # Off the cell borders of every level: float32 and float64 may disagree on the cell there.
    x = torch.rand((4000, 3), device=target) * 1.9 - 0.95
    scaled = 0.5 * (x[:, None] + 1.0) * encoding.levels[None, :, :1]
    clear = ((scaled - scaled.round()).abs() > 1e-3).all(-1).all(-1)
    assert clear.sum() > 3000
    _assert_agrees(encoding, x[clear])


@pytest.mark.parametrize("device", DEVICES)
def test_cell_borders_and_box_agree_with_reference(device: str) -> None:
    target = _device(device)
    torch.manual_seed(1)
    # Powers of two: borders are exact in float32 and float64, so both must choose the same cell.
    encoding = HashEncoding(3, 2, 4, 16, 9).to(target)
    with torch.no_grad():
        encoding.table.normal_()
    side = torch.linspace(-1.0, 1.0, 9, device=target)
    x = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    _assert_agrees(encoding, x)


@pytest.mark.parametrize("device", DEVICES)
def test_outside_the_box_is_clamped(device: str) -> None:
    target = _device(device)
    encoding = _encoding(2, target)
    x = torch.tensor([[1.7, 0.21, -0.33], [-2.0, 1.5, 0.11], [0.3, -0.4, -9.0]], device=target)
    _assert_agrees(encoding, x.clone())
    features, jacobian = encoding(x)
    inside, _ = encoding(x.clamp(-1.0, 1.0))
    torch.testing.assert_close(features, inside)
    assert (jacobian[0, :, 0] == 0).all()
    assert (jacobian[0, :, 1] != 0).any()
    assert (jacobian[1, :, :2] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-1.5, 1.5, width=32, allow_subnormal=False)] * 3),
        min_size=1,
        max_size=8,
    )
)
def test_any_point_agrees_in_value(points: list[tuple[float, float, float]]) -> None:
    encoding = _encoding(2, torch.device("cpu"))
    x = torch.tensor(points, dtype=torch.float32)
    features, _ = encoding(x)
    want, _, _, _ = _reference(encoding, x)
    # Features are continuous over cell borders, so this holds wherever the point lies (float32
    # positions of the finest level are good to 1e-5 of a cell).
    torch.testing.assert_close(features.detach().double(), want.detach(), atol=2e-3, rtol=1e-3)


def test_jacobian_is_the_derivative_of_the_features() -> None:
    encoding = _encoding(2, torch.device("cpu"))
    x = torch.rand((200, 3), dtype=torch.float64) * 1.8 - 0.9
    table = encoding.table.detach().double()
    _, jacobian = encode_reference(x, table, encoding.levels, 5)
    step = 1e-7
    for axis in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = step
        ahead, _ = encode_reference(x + shift, table, encoding.levels, 5)
        behind, _ = encode_reference(x - shift, table, encoding.levels, 5)
        slope = (ahead - behind) / (2 * step)
        close = (slope - jacobian[:, axis]).abs() < 1e-4
        assert close.double().mean() > 0.999  # a border may lie between the two points


def test_inactive_levels_give_zero_and_get_no_gradient() -> None:
    encoding = _encoding(2, torch.device("cpu"))
    encoding.active = 2
    features, jacobian = encoding(torch.rand((50, 3)))
    assert (features[:, 4:] == 0).all() and (features[:, :4] != 0).any()
    assert (jacobian[:, 4:] == 0).all()
    (features.sum() + jacobian.sum()).backward()
    first_inactive = int(encoding.levels[2, 2])
    assert (encoding.table.grad[first_inactive:] == 0).all()
    assert (encoding.table.grad[:first_inactive] != 0).any()


def test_features_alone_equal_forward() -> None:
    encoding = _encoding(4, torch.device("cpu"))
    x = torch.rand((3000, 3))
    with torch.no_grad():
        torch.testing.assert_close(encoding.features(x), encoding(x)[0])
    assert encoding.features(x[:0]).shape == (0, 20)


def test_two_threads_give_what_one_gives() -> None:
    encoding = _encoding(2, torch.device("cpu"))
    x = torch.rand((20000, 3)) * 2 - 1
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            encoding.table.grad = None
            features, jacobian = encoding(x)
            (features.square().sum() + jacobian.square().sum()).backward()
            results.append((features.detach(), jacobian.detach(), encoding.table.grad.clone()))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_frequency_jacobian_is_exact() -> None:
    encoding = FrequencyEncoding(4).double()
    x = torch.rand((20, 3), dtype=torch.float64, requires_grad=True)
    features, jacobian = encoding(x)
    assert features.shape == (20, 27) and jacobian.shape == (20, 27, 3)
    torch.testing.assert_close(features, encoding.features(x))
    for column in range(27):
        (slope,) = torch.autograd.grad(features[:, column].sum(), x, retain_graph=True)
        torch.testing.assert_close(jacobian[:, column], slope)
    # NeRF's order: x, then sin and cos of each octave.
    torch.testing.assert_close(features[:, 3:6], x.sin())
    torch.testing.assert_close(features[:, 12:15], (2 * x).cos())


def test_spherical_harmonics_are_orthonormal() -> None:
    torch.manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn((200_000, 3), dtype=torch.float64), dim=1)
    basis = torch.cat([spherical_harmonics(direction), cubic_harmonics(direction)], dim=1)
    gram = 4 * torch.pi * basis.T @ basis / len(basis)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), atol=0.03, rtol=0.0)


def test_features_alone_are_those_of_the_whole() -> None:
    """Without the Jacobian the table's gradient is the same; a frozen table's has no gradient."""
    torch.manual_seed(4)
    encoding = HashEncoding(3, 4, 8, 32, 11)
    x = torch.rand(500, 3) * 2.2 - 1.1
    pull = torch.randn(500, encoding.width)
    gradients = []
    for answer in (lambda: encoding(x)[0], lambda: encoding.features(x)):
        encoding.table.grad = None
        (answer() * pull).sum().backward()
        assert encoding.table.grad is not None
        gradients.append(encoding.table.grad)
    assert torch.equal(gradients[0], gradients[1]) and float(gradients[0].abs().sum()) > 0
    encoding.table.requires_grad_(False)
    x.requires_grad_(True)
    features, jacobian = encoding(x)
    assert not jacobian.requires_grad
    (features * pull).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, (jacobian * pull[:, :, None]).sum(1), atol=1e-4)
