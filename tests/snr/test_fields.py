"""Fields: explicit gradients, sphere initialisation, prior."""

import numpy as np
import pytest
import torch

from toonify3d.scene import Normalization
from toonify3d.snr.fields import AppearanceField, FieldSettings, GeometryField, make_encoding
from toonify3d.snr.prior import Prior
from toonify3d.training.settings import PAPER_FIELDS

SMALL = FieldSettings(levels=4, finest_resolution=64, log2_table=12)
ARCHITECTURES = {
    "grid": SMALL,
    "grid, two layers": FieldSettings(
        levels=4, finest_resolution=64, log2_table=12, geometry_layers=2
    ),
    "grid, softplus": FieldSettings(
        levels=4, finest_resolution=64, log2_table=12, activation="softplus"
    ),
    "paper": PAPER_FIELDS,
}


def _disturbed(settings: FieldSettings) -> GeometryField:
    torch.manual_seed(0)
    field = GeometryField(settings)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return field


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradient_is_that_of_the_sdf(name: str) -> None:
    field = _disturbed(ARCHITECTURES[name])
    x = (torch.rand((300, 3)) * 1.8 - 0.9).requires_grad_(True)
    sample = field.evaluate(x)
    (slope,) = torch.autograd.grad(sample.sdf.sum(), x)
    torch.testing.assert_close(sample.gradient, slope, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(field.sdf(x), sample.sdf, atol=1e-5, rtol=1e-4)
    assert sample.feature.shape == (300, field.feature_width)


def test_eikonal_parameter_gradient_equals_double_backward() -> None:
    """One backward through the explicit gradient gives what create_graph=True would."""
    settings = FieldSettings(
        encoding="frequency",
        octaves=3,
        geometry_layers=3,
        geometry_width=32,
        geometry_skip=2,
        features=4,
        activation="softplus",
        share_encoding=False,
    )
    field = _disturbed(settings).double()
    x = (torch.rand((64, 3), dtype=torch.float64) - 0.5).requires_grad_(True)
    explicit = (field.evaluate(x).gradient.norm(dim=1) - 1).square().mean()
    parameters = [layer.weight for layer in field.layers]
    one = torch.autograd.grad(explicit, parameters)
    (slope,) = torch.autograd.grad(field.sdf(x).sum(), x, create_graph=True)
    two = torch.autograd.grad((slope.norm(dim=1) - 1).square().mean(), parameters)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("name", ["paper", "grid"])
def test_starts_as_a_sphere(name: str) -> None:
    torch.manual_seed(0)
    settings = PAPER_FIELDS if name == "paper" else FieldSettings(levels=4, finest_resolution=64)
    field = GeometryField(settings)
    direction = torch.nn.functional.normalize(torch.randn((500, 3)), dim=1)
    with torch.no_grad():
        assert (field.sdf(direction * 0.1) < 0).all()
        assert (field.sdf(direction * 0.98) > 0).all()
        radial = (field.evaluate(direction * 0.7).gradient * direction).sum(1)
    assert float(radial.mean()) == pytest.approx(1.0, abs=0.25)
    assert (radial > 0.3).all()


def test_paper_architecture_is_the_papers() -> None:
    prior = Prior(PAPER_FIELDS, Normalization(np.zeros(3), 1.0))
    # 8 and 6 hidden layers plus the output layer each; NeuS: 39 inputs, skip into the fifth.
    assert len(prior.geometry.layers) == 9 and len(prior.appearance.layers) == 7
    shapes = [tuple(layer.weight.shape) for layer in prior.geometry.layers]
    assert shapes[0] == (256, 39) and shapes[3] == (217, 256) and shapes[4] == (256, 256)
    assert shapes[-1] == (257, 256)
    assert prior.appearance.layers[0].weight.shape == (256, 3 + 3 + 27 + 256)


def test_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown encoding"):
        make_encoding(FieldSettings(encoding="octree"))


def test_prior_survives_a_round_trip(tmp_path) -> None:
    prior = Prior(SMALL, Normalization(np.array([0.1, -0.2, 1.5]), 0.4))
    path = tmp_path / "p.pt"
    torch.save(prior.export_state(), path)
    again = Prior.from_state(torch.load(path, weights_only=True), "cpu")
    x = torch.rand((100, 3)) - 0.5
    assert torch.equal(prior.sdf(x), again.sdf(x))
    assert torch.equal(prior.color(x), again.color(x))
    assert again.normalization.radius == 0.4 and again.normalization.center[2] == 1.5


def test_color_averages_over_views_and_stays_in_range() -> None:
    prior = Prior(SMALL, Normalization(np.zeros(3), 1.0))
    x = torch.rand((50, 3)) - 0.5
    color = prior.color(x)
    assert color.shape == (50, 3) and not color.requires_grad
    assert (color >= 0).all() and (color <= 1).all()
    sample = prior.evaluate(x)
    normal = torch.nn.functional.normalize(sample.gradient, dim=1)
    frontal = prior.radiance(x, sample, -normal)
    assert 0.0 < float((color - frontal).abs().max()) < 0.2
    assert prior.color(x[:0]).shape == (0, 3) and prior.sdf_gradient(x[:0]).shape == (0, 3)


def test_position_gradient_reaches_a_deformation() -> None:
    """Stage II: d sdf(x + d) / d d is the field's own gradient."""
    prior = Prior(SMALL, Normalization(np.zeros(3), 1.0))
    with torch.no_grad():
        prior.geometry.encoding.table.normal_(std=0.01)
    x = torch.rand((64, 3)) - 0.5
    shift = torch.zeros((64, 3), requires_grad=True)
    sample = prior.evaluate(x + shift)
    sample.sdf.sum().backward()
    torch.testing.assert_close(shift.grad, sample.gradient.detach(), atol=1e-5, rtol=1e-4)


def _highlights(view_input: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours where one light far away is mirrored: at one place from one side, elsewhere too."""
    torch.manual_seed(0)
    field = AppearanceField(FieldSettings(view_input=view_input), feature_width=2)
    with torch.no_grad():
        field.layers[0].weight[:, :6].zero_()  # only the view differs, not place and normal
        field.layers[0].weight[:, -3].zero_()  # nor the angle of view
    light = torch.nn.functional.normalize(torch.tensor([[0.3, -0.8, 0.5]]), dim=1)
    normal = torch.nn.functional.normalize(light + 0.4 * torch.randn((50, 3)), dim=1)
    # The direction from the eye that a mirror of this normal turns towards the light.
    seen = light - 2.0 * (light * normal).sum(1, keepdim=True) * normal
    points, feature = torch.rand((50, 3)), torch.zeros((50, 2))
    with torch.no_grad():
        lit = field(points, 1.7 * normal, seen, feature)
        return lit, field(points, 1.7 * normal, light.expand(50, 3), feature)


def test_a_mirrored_light_looks_the_same_from_everywhere() -> None:
    lit, other = _highlights("reflection")
    # The gradient's length does not matter, only the mirrored direction does.
    assert float((lit - lit[0]).abs().max()) < 1e-4
    assert float((other - lit).abs().max()) > 1e-3
    plain, same = _highlights("direction")
    assert float((plain - plain[0]).abs().max()) > 1e-3
    assert float((same - same[0]).abs().max()) < 1e-6


def test_mirrored_views_teach_the_normal() -> None:
    torch.manual_seed(0)
    field = AppearanceField(FieldSettings(view_input="reflection"), feature_width=2)
    with torch.no_grad():
        field.layers[0].weight[:, 3:6].zero_()  # the normal itself is not an input here
    gradient = torch.nn.functional.normalize(torch.randn((20, 3)), dim=1).requires_grad_(True)
    direction = torch.nn.functional.normalize(torch.randn((20, 3)), dim=1)
    field(torch.rand((20, 3)), gradient, direction, torch.zeros((20, 2))).sum().backward()
    pull = gradient.grad
    assert pull is not None and float(pull.norm(dim=1).min()) > 0.0
    # Only across the normal: its length is no property of the surface.
    along = (pull * gradient.detach()).sum(1).abs()
    assert float((along / pull.norm(dim=1)).max()) < 1e-3
