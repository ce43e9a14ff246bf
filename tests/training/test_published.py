"""Stages II and III as published, the way back to the person, and the ablation switches."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import BallPrior, KnownBend, make_scene, portraits
from small_runs import GRID

from toonify3d.errors import CancelledError, InputError
from toonify3d.plan import Style, step_keys
from toonify3d.progress import SilentProgress
from toonify3d.scene import Normalization
from toonify3d.settings import preset_settings
from toonify3d.snr.adapted import AdaptedGeometry, project_to_surface, track_to_prior
from toonify3d.snr.avatar import StylizedGeometry, StylizedShape
from toonify3d.snr.fields import FieldSettings, SurfaceSample
from toonify3d.snr.prior import Prior
from toonify3d.snr.volume_texture import AppearanceReflection, VolumeTexture
from toonify3d.training.adaption_settings import (
    PAPER_GEOMETRY,
    PAPER_TEXTURE,
    GeometryAdaptionSettings,
    TextureAdaptionSettings,
)
from toonify3d.training.checkpoint import load_checkpoint
from toonify3d.training.finetune import FieldFinetune
from toonify3d.training.joint_colors import JointColors, JointTexture
from toonify3d.training.palette import style_palette
from toonify3d.training.settings import TINY
from toonify3d.training.stage2 import adapt_geometry, load_geometry
from toonify3d.training.stage3 import adapt_texture, load_avatar
from toonify3d.training.view_rays import PatchRays
from toonify3d.training.volume_texture import VolumeAdaption

torch.set_num_threads(1)

YAWS = (-0.18, 0.0, 0.18, math.pi)
FREQUENCY = FieldSettings(
    encoding="frequency",
    octaves=3,
    direction_octaves=2,
    geometry_layers=3,
    geometry_width=48,
    geometry_skip=2,
    features=16,
    appearance_layers=2,
    appearance_width=32,
    activation="softplus",
    share_encoding=False,
    weight_norm=True,
)
HIERARCHICAL = GeometryAdaptionSettings(
    method="finetune",
    steps=60,
    rays=64,
    sampler="hierarchical",
    coarse_samples=16,
    fine_samples=16,
    field_learning_rate=4e-3,
    learn_inv_s=True,
    coarse_resolution=32,
)
VOLUME = TextureAdaptionSettings(
    rendering="volume",
    steps=60,
    rays=160,
    sampler="hierarchical",
    coarse_samples=16,
    fine_samples=16,
    layers=2,
    width=32,
    patch=8,
    patches=1,
    volume_learning_rate=1e-2,
    warm_steps=60,
    discriminator_weight=0.05,
    discriminator_every=1,
)


class Ball(BallPrior):
    """A ball of any radius and place."""

    def __init__(self, radius: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        self.radius, self.center = radius, torch.tensor(center)

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        return SurfaceSample(self.sdf(x), self.sdf_gradient(x), self.pattern(x))

    def sdf(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.center).norm(dim=1) - self.radius

    def sdf_gradient(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x - self.center, dim=1)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory):
    scene = make_scene(tmp_path_factory.mktemp("scene"), size=64)
    return scene, portraits(scene, KnownBend(), YAWS)


def sphere_prior(fields: FieldSettings) -> Prior:
    """An untrained prior: by its initialisation about a ball of radius 0.5."""
    torch.manual_seed(0)
    prior = Prior(fields, Normalization(np.zeros(3), 1.0))
    with torch.no_grad():
        prior.variance.fill_(math.log(120.0) / 10.0)
    return prior.eval()


def bent_front() -> torch.Tensor:
    torch.manual_seed(0)
    ray = torch.nn.functional.normalize(torch.randn(1500, 3), dim=1)
    truth = StylizedGeometry(BallPrior(), KnownBend())
    points = 0.5 * ray
    for _ in range(25):
        points = points - truth.sdf(points)[:, None] * ray
    return points[ray[:, 1] < -0.6]


# -- the way back ---------------------------------------------------------------------------------


def test_level_sets_of_balls_are_followed_along_the_radius() -> None:
    torch.manual_seed(0)
    ray = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    for offset in (-0.02, 0.0, 0.03):
        back = track_to_prior(Ball(0.5), Ball(0.6), (0.6 + offset) * ray)
        torch.testing.assert_close(back, (0.5 + offset) * ray, atol=1e-5, rtol=0)


def test_a_shifted_ball_leads_back_to_the_ball() -> None:
    torch.manual_seed(0)
    center = (0.04, -0.06, 0.0)
    ray = torch.nn.functional.normalize(torch.randn(400, 3), dim=1)
    moved = Ball(0.45, center)
    surface = 0.45 * ray + torch.tensor(center)
    back = track_to_prior(Ball(0.5), moved, surface)
    assert float(Ball(0.5).sdf(back).abs().max()) < 1e-5
    # Neighbours stay neighbours and the motion is no longer than the shapes are apart.
    assert float((back - surface).norm(dim=1).max()) < 0.05 + 0.0722
    assert float((torch.nn.functional.normalize(back, dim=1) * ray).sum(1).min()) > 0.97


def test_projection_keeps_only_what_reaches_the_surface() -> None:
    torch.manual_seed(0)
    points = project_to_surface(Ball(0.4), torch.rand(500, 3) * 2 - 1)
    assert len(points) > 300
    assert float((points.norm(dim=1) - 0.4).abs().max()) < 1e-3


# -- stage II -------------------------------------------------------------------------------------


def test_finetuning_reaches_the_portraits_and_knows_its_way_back(captured, tmp_path: Path) -> None:
    scene, views = captured
    prior = sphere_prior(FREQUENCY)
    # Long enough that the rays drawn do not decide: 0.40 to 0.53 of the way is left with the seeds
    # 0 to 3, where 60 steps at twice the rate leave 0.19 to 1.03.
    settings = replace(
        HIERARCHICAL,
        steps=150,
        rays=128,
        field_learning_rate=2e-3,
        coarse_samples=12,
        fine_samples=12,
    )
    geometry = adapt_geometry(
        scene, prior, views, None, tmp_path, settings, "cpu", SilentProgress()
    )
    assert isinstance(geometry, AdaptedGeometry)
    points = bent_front()
    with torch.no_grad():
        before, after = prior.sdf(points).abs().mean(), geometry.sdf(points).abs().mean()
    assert float(after) < 0.7 * float(before)
    surface = project_to_surface(geometry, torch.rand(400, 3) - 0.5)
    with torch.no_grad():
        assert float(prior.sdf(geometry.to_prior(surface)).abs().quantile(0.95)) < 2e-3
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["finished"] and metrics["inverse_residual"] < 2e-3
    # The prior itself is as it was, and the result is what a later run loads.
    again = sphere_prior(FREQUENCY)
    for name, value in again.state_dict().items():
        assert torch.equal(prior.state_dict()[name], value), name
    loaded = load_geometry(prior, tmp_path, "cpu")
    assert torch.equal(loaded.sdf(points), geometry.sdf(points))
    assert torch.equal(loaded.styled_color(points), geometry.styled_color(points))


class _StopAt(SilentProgress):
    def update(self, fraction: float, message: str = "") -> None:
        if fraction >= 0.5:
            raise CancelledError("stop")


def test_a_cancelled_finetuning_resumes_to_the_same_result(captured, tmp_path: Path) -> None:
    scene, views = captured
    settings = replace(HIERARCHICAL, steps=10)
    prior = sphere_prior(FREQUENCY)

    def run(folder: Path, progress: SilentProgress) -> torch.Tensor:
        shape = adapt_geometry(scene, prior, views, None, folder, settings, "cpu", progress)
        return shape.sdf(bent_front())

    whole = run(tmp_path / "whole", SilentProgress())
    with pytest.raises(CancelledError):
        run(tmp_path / "parts", _StopAt())
    assert torch.equal(run(tmp_path / "parts", SilentProgress()), whole)


@pytest.mark.parametrize("fields", [FREQUENCY, GRID], ids=["frequency", "grid"])
def test_guided_samples_serve_both_encodings(captured, tmp_path: Path, fields) -> None:
    scene, views = captured
    settings = replace(
        HIERARCHICAL, steps=3, sampler="guided", learn_inv_s=False, field_learning_rate=1e-3
    )
    adaption = FieldFinetune(scene, sphere_prior(fields), views, settings)
    first = adaption.losses(0.0)[1]
    optimizer = adaption.optimizer()
    for _ in range(12):
        loss, last = adaption.losses(0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last["total"] < first["total"]
    assert adaption.shrink() is None  # 64 rays are the least


def test_only_networks_can_be_finetuned(captured, tmp_path: Path) -> None:
    scene, views = captured
    with pytest.raises(TypeError, match="trained networks"):
        FieldFinetune(scene, BallPrior(), views, HIERARCHICAL)


# -- stage III ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def still(captured, tmp_path_factory: pytest.TempPathFactory):
    """A shape that stage II left alone: the person's."""
    scene, views = captured
    settings = replace(HIERARCHICAL, adapt=False)
    folder = tmp_path_factory.mktemp("still")
    prior = sphere_prior(FREQUENCY)
    shape = adapt_geometry(scene, prior, views, None, folder, settings, "cpu", SilentProgress())
    return prior, shape


def test_without_geometry_adaption_the_shape_is_the_persons(still) -> None:
    prior, shape = still
    points = torch.rand(100, 3) - 0.5
    with torch.no_grad():
        assert torch.equal(shape.sdf(points), prior.sdf(points))
        assert torch.equal(shape.to_prior(points), points)


def test_albedo_is_learned_by_volume_rendering(captured, still, tmp_path: Path) -> None:
    scene, views = captured
    _, shape = still
    palette = views[1].image
    adaption = VolumeAdaption(scene, shape, views, palette, VOLUME)
    start, first = adaption.portrait_psnr(600), adaption.losses(0.0)[1]
    avatar = adapt_texture(scene, shape, views, palette, tmp_path, VOLUME, "cpu", SilentProgress())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["portrait_psnr"] > start + 0.2
    assert metrics["losses"]["color"] < 0.75 * first["color"]
    assert set(metrics["losses"]) >= {"color", "palette", "reflection"}
    points = project_to_surface(shape, torch.rand(200, 3) - 0.5)
    color = avatar.color(points)
    assert color.shape == (len(points), 3) and float(color.min()) >= 0 and float(color.max()) <= 1
    loaded = load_avatar(shape, tmp_path, "cpu")
    assert torch.equal(loaded.color_pair(points), avatar.color_pair(points))


def test_warm_start_has_the_persons_colours_all_round(captured, still) -> None:
    scene, views = captured
    prior, shape = still
    adaption = VolumeAdaption(scene, shape, views, views[0].image, replace(VOLUME, warm_steps=150))
    points = project_to_surface(shape, torch.rand(300, 3) - 0.5)
    with torch.no_grad():
        albedo = adaption.texture(points, shape.evaluate(points).feature)
    assert float((albedo - prior.color(points)).abs().mean()) < 0.03


def test_reflection_starts_at_one_and_is_bounded() -> None:
    prior = sphere_prior(FREQUENCY)
    reflection = AppearanceReflection(prior.appearance)
    x = torch.rand(50, 3) - 0.5
    sample = prior.evaluate(x)
    along = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    shade = reflection(x, sample.gradient, along, sample.feature)
    assert torch.allclose(shade, torch.ones(50, 3), atol=1e-6)
    # It can leave 1 again although the layer's length is zero.
    (shade[:, 0].sum() - shade[:, 1].sum()).backward()
    moved = [p for p in reflection.parameters() if p.grad is not None and bool(p.grad.any())]
    assert moved
    # The prior's own appearance is untouched.
    assert not torch.allclose(prior.radiance(x, sample, along), torch.full((50, 3), 0.5))


def test_patches_lie_inside_the_silhouette(captured) -> None:
    scene, views = captured
    patches = PatchRays(views, scene.normalization, torch.device("cpu"), 8)
    drawn = patches.draw(3, torch.Generator().manual_seed(0))
    assert drawn is not None
    rays, color = drawn
    assert len(rays) == 3 * 64 and color.shape == (192, 3)
    for number, row, column in patches.corners[:: max(1, len(patches.corners) // 50)].tolist():
        assert (views[number].mask[row : row + 8, column : column + 8] > 127).all()
    huge = PatchRays(views, scene.normalization, torch.device("cpu"), 63)
    assert huge.draw(1, torch.Generator().manual_seed(0)) is None


# -- ablations and settings -----------------------------------------------------------------------


EXEMPLAR = np.repeat(np.array([[[255, 0, 200], [0, 250, 10]]], np.uint8), 2000, axis=0)
JOINT = replace(HIERARCHICAL, method="deformation", joint=True, steps=3, rays=160)


def test_joint_training_brings_its_own_texture(captured, tmp_path: Path) -> None:
    scene, views = captured
    prior = sphere_prior(FREQUENCY)
    texture = replace(VOLUME, steps=2, weight_norm=True)
    given = JointTexture(texture, views[0].image)

    def run(**more: JointTexture) -> StylizedShape:
        folder = tmp_path / "g"
        return adapt_geometry(
            scene, prior, views, None, folder, JOINT, "cpu", SilentProgress(), **more
        )

    with pytest.raises(ValueError, match="joint training"):
        run()
    shape = run(texture=given)
    assert isinstance(shape, AdaptedGeometry) and isinstance(shape.texture, VolumeTexture)
    # It replaces both stages.
    assert json.loads((tmp_path / "g" / "metrics.json").read_text())["steps"] == 5
    avatar = adapt_texture(
        scene, shape, views, views[0].image, tmp_path / "t", texture, "cpu", SilentProgress()
    )
    assert avatar.texture is shape.texture
    points = torch.rand(20, 3) - 0.5
    loaded = load_avatar(load_geometry(prior, tmp_path / "g", "cpu"), tmp_path / "t", "cpu")
    assert torch.equal(loaded.color(points), avatar.color(points))
    # Other settings or another exemplar for the colours are another run.
    before = (tmp_path / "g" / "metrics.json").read_text()
    run(texture=given._replace(settings=replace(texture, reflection_weight=0.3)))
    between = (tmp_path / "g" / "metrics.json").read_text()
    run(texture=given._replace(palette=255 - views[0].image))
    after = (tmp_path / "g" / "metrics.json").read_text()
    assert len({json.loads(text)["digest"] for text in (before, between, after)}) == 3


def joint_colors(captured, **changes: object) -> tuple[FieldFinetune, JointColors]:
    scene, views = captured
    texture = replace(VOLUME, warm_steps=1, **changes)  # type: ignore[arg-type]
    given = JointTexture(texture, EXEMPLAR)
    run = FieldFinetune(scene, sphere_prior(FREQUENCY), views, JOINT, given)
    assert run.colors is not None
    return run, run.colors


def test_joint_training_follows_the_texture_settings(captured) -> None:
    run, colors = joint_colors(
        captured, layers=3, width=20, patch=4, palette_colors=5, discriminator_width=6
    )
    assert colors.texture.shape == (16, 3, 20, False)
    assert colors.patches.side == 4 and colors.discriminator.layers[0].out_channels == 6
    # The exemplar's own colours are in the palette, as in stage III.
    _, views = captured
    assert np.array_equal(colors.posterize.palette, style_palette(EXEMPLAR, views, 5))
    assert not np.array_equal(colors.posterize.palette, style_palette(EXEMPLAR[:0], views, 5))
    group = run.optimizer().param_groups[-1]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-2, (0.9, 0.99), 1e-10)
    learned = {id(p) for module in colors.learned().values() for p in module.parameters()}
    assert {id(p) for p in group["params"]} == learned


def test_joint_training_warm_starts_as_long_as_asked(captured) -> None:
    errors = []
    for steps in (1, 150):
        run, colors = joint_colors(captured)
        colors.settings = replace(colors.settings, warm_steps=steps)
        colors._warm_start()
        points = project_to_surface(run.prior, torch.rand(300, 3) - 0.5)
        with torch.no_grad():
            albedo = colors.texture(points, run.adapted.evaluate(points).feature)
            errors.append(float((albedo - run.prior.color(points)).abs().mean()))
    assert errors[1] < 0.03 < errors[0]


def joint_loss(captured, fraction: float = 1.0, **changes: object) -> float:
    run, _ = joint_colors(captured, **changes)
    return float(run.losses(fraction)[0].detach())


def test_joint_losses_weigh_as_the_texture_settings_say(captured) -> None:
    plain = {"reflection_weight": 0.0, "monochrome_weight": 0.0, "r1_weight": 0.0}
    run, colors = joint_colors(captured, **plain)
    with torch.no_grad():  # a reflection that is neither 1 nor grey
        colors.reflection.appearance.layers[-1].bias.copy_(torch.tensor([0.4, 0.1, -0.2]))
        torch.nn.init.normal_(colors.discriminator.layers[-1].weight)
    totals = {}
    for name in ("none", "reflection_weight", "monochrome_weight", "r1_weight"):
        weights = plain if name == "none" else plain | {name: 2.0}
        colors.settings = replace(colors.settings, **weights)
        run.generator.manual_seed(0)
        totals[name] = float(run.losses(1.0)[0].detach())
    off = (2 * torch.sigmoid(torch.tensor([0.4, 0.1, -0.2])) - 1).abs().mean()
    assert totals["reflection_weight"] - totals["none"] == pytest.approx(2 * float(off), abs=2e-3)
    assert totals["monochrome_weight"] > totals["none"] + 0.05
    assert totals["r1_weight"] > totals["none"] + 1e-4


def test_joint_training_listens_to_the_discriminator_when_stage_three_would(captured) -> None:
    late = {"discriminator_from": 0.5, "discriminator_ramp": 0.0, "discriminator_weight": 3.0}
    before, after = (joint_loss(captured, fraction, **late) for fraction in (0.4, 0.6))
    assert after > before + 1.0  # three times softplus of about 0


def test_patches_are_part_of_a_joint_batch(captured) -> None:
    run, colors = joint_colors(captured)
    drawn = colors.draw_patches(JOINT.rays, run.generator)
    assert drawn is not None and len(drawn[0]) == VOLUME.patch**2
    batch = run._batch(drawn)
    assert len(batch.mask) == JOINT.rays
    assert torch.equal(batch.color[-len(drawn[0]) :], drawn[1])
    assert bool((batch.color_weight[-len(drawn[0]) :] == 1).all())


def test_only_a_joint_shape_depends_on_the_texture_settings() -> None:
    job, style = preset_settings("preview")
    folder = SimpleNamespace(description={"capture": {"sha256": "c"}})

    def keys(joint: bool, steps: int) -> dict[str, str]:
        chosen = replace(
            style,
            geometry=replace(style.geometry, joint=joint),
            texture=replace(style.texture, steps=steps),
        )
        known = Style("s", Path("e"), "e", "folder", Path("p"), "p", chosen)
        return step_keys(folder, job, known)  # type: ignore[arg-type]

    assert keys(False, 5)["geometry"] == keys(False, 6)["geometry"]
    assert keys(True, 5)["geometry"] != keys(True, 6)["geometry"]


def test_without_texture_adaption_stage_two_gives_the_colours(
    captured, still, tmp_path: Path
) -> None:
    scene, views = captured
    _, shape = still
    settings = replace(VOLUME, adapt=False)
    avatar = adapt_texture(
        scene, shape, views, views[0].image, tmp_path, settings, "cpu", SilentProgress()
    )
    points = torch.rand(50, 3) - 0.5
    assert torch.equal(avatar.color(points), shape.styled_color(points))


def test_without_prior_learns_from_the_portraits_alone(captured, tmp_path: Path) -> None:
    scene, views = captured
    settings = replace(HIERARCHICAL, from_prior=False, steps=4)
    prior = sphere_prior(GRID)
    run = (scene, prior, views, None, tmp_path, settings, "cpu", SilentProgress())
    with pytest.raises(ValueError, match="without prior"):
        adapt_geometry(*run)
    # Stage I's settings, over both stages' steps, with the cameras that the capture has.
    stage1 = replace(TINY, steps=3, rays=96, hull_steps=5, refine_cameras=True, refine_focal=True)
    shape = adapt_geometry(*run, training=stage1)
    assert isinstance(shape, AdaptedGeometry)
    state = load_checkpoint(tmp_path / "fields", "cpu")
    assert state is not None and state["settings"]["steps"] == state["step"] == 7
    assert state["settings"]["rays"] == 96 and state["settings"]["hull_steps"] == 5
    assert not (tmp_path / "fields" / "cameras.json").exists()
    assert not torch.equal(shape.adapted.geometry.encoding.table, prior.geometry.encoding.table)


def test_the_paper_preset_is_the_paper() -> None:
    job, style = preset_settings("paper")
    assert style.geometry == PAPER_GEOMETRY and style.texture == PAPER_TEXTURE
    assert job.prior.steps == 300_000
    assert (PAPER_GEOMETRY.steps, PAPER_TEXTURE.steps) == (200_000, 50_000)
    for settings in (PAPER_GEOMETRY, PAPER_TEXTURE):
        assert settings.rays == 512 and settings.lr_final == 1.0
        assert settings.sampler == "hierarchical"
    assert PAPER_GEOMETRY.finetunes and PAPER_GEOMETRY.field_learning_rate == 2.5e-5
    assert (PAPER_GEOMETRY.mask_weight, PAPER_GEOMETRY.eikonal_weight) == (0.5, 0.1)
    assert PAPER_TEXTURE.rendering == "volume" and PAPER_TEXTURE.volume_learning_rate == 2.5e-5
    assert PAPER_TEXTURE.discriminator_weight == 1.0 and PAPER_TEXTURE.layers == 6
    for settings in (job.prior, PAPER_GEOMETRY, PAPER_TEXTURE):  # NeuS where the paper is silent
        assert (settings.adam_beta2, settings.adam_epsilon) == (0.999, 1e-8)
        assert settings.silhouette_band == 1.0 and settings.reduction == "rays"
    assert job.prior.binary_masks and PAPER_GEOMETRY.binary_masks and job.prior.binary_stereo
    assert job.prior.holdout_frames == 0 and PAPER_TEXTURE.weight_norm


def test_unknown_names_are_refused() -> None:
    for make in (
        lambda: GeometryAdaptionSettings(method="melt"),
        lambda: GeometryAdaptionSettings(sampler="some"),
        lambda: TextureAdaptionSettings(rendering="paint"),
    ):
        with pytest.raises(InputError, match="is one of"):
            make()
