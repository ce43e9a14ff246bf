"""Stage III on a bent ball whose painted style is known."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from analytic_head import (
    BallPrior,
    KnownBend,
    Painted,
    cartoon,
    look_at,
    make_scene,
    portraits,
)

from toonify3d.evaluation.images import foreground_psnr
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene, StylizedView
from toonify3d.snr.avatar import AppearanceAlbedo, StylizedAvatar, StylizedGeometry
from toonify3d.snr.deformation import Deformation
from toonify3d.snr.fields import SurfaceSample
from toonify3d.snr.rendering import render_view
from toonify3d.snr.style_head import StyleHead
from toonify3d.snr.texture import REACH, BeliefMaps, GlobalColorMap, Reflection, within_reach
from toonify3d.training.adaption_settings import TextureAdaptionSettings
from toonify3d.training.discriminator import (
    PaletteDiscriminator,
    discriminator_loss,
    field_loss,
    r1_penalty,
)
from toonify3d.training.palette import Posterize, cluster_colors, style_palette
from toonify3d.training.stage3 import adapt_texture, load_avatar
from toonify3d.training.surface_cache import SurfacePoints, portrait_points
from toonify3d.training.surface_texture import (
    TextureAdaption,
    load_surface_texture,
    side_frames,
)
from toonify3d.training.view_rays import unit_projection

torch.set_num_threads(1)

YAWS = (-0.18, 0.0, 0.18)
SETTINGS = TextureAdaptionSettings(
    steps=150,
    points=1024,
    levels=4,
    base_resolution=16,
    finest_resolution=160,
    log2_table=15,
    side_views=2,
    patches=4,
    patch=8,
    discriminator_every=8,
)


class SavedBend(Deformation):
    """The known bend as a module that stage III can hash."""

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return KnownBend()(y)

    def with_jacobian(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return KnownBend().with_jacobian(y)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("texture")
    scene = make_scene(folder / "scene", size=64)
    views = portraits(scene, KnownBend(), YAWS)
    geometry = StylizedGeometry(BallPrior(), SavedBend())
    exemplar = views[1].image
    avatar = adapt_texture(
        scene, geometry, views, exemplar, folder / "run", SETTINGS, "cpu", SilentProgress()
    )
    return scene, views, geometry, exemplar, avatar, folder / "run"


def surface(geometry: StylizedGeometry, count: int = 3000) -> torch.Tensor:
    torch.manual_seed(1)
    ray = torch.nn.functional.normalize(torch.randn(count, 3), dim=1)
    points = 0.5 * ray
    for _ in range(25):
        points = points - geometry.sdf(points)[:, None] * ray
    return points


def error_to_truth(avatar: StylizedAvatar, points: torch.Tensor) -> torch.Tensor:
    prior_color = avatar.prior.color(avatar.to_prior(points))
    return (avatar.color(points) - cartoon(points, prior_color)).abs().mean(1)


def test_style_is_carried_to_the_back_that_no_portrait_shows(result) -> None:
    *_, avatar, _ = result
    points = surface(avatar.geometry)
    back = points[:, 1] > 0.2
    before = avatar.prior.color(avatar.to_prior(points[back]))
    change = (cartoon(points[back], before) - before).abs().mean()
    # Hair must be blue and skin pink there too: the change is carried, no wash-out.
    assert float(error_to_truth(avatar, points[back]).mean()) < 0.25 * float(change)


def test_drawn_eyes_are_kept_sharp(result) -> None:
    *_, avatar, _ = result
    points = surface(avatar.geometry, 20000)
    front = points[:, 1] < 0
    nearest = torch.minimum(
        (points[:, 0] - 0.15).abs().square() + points[:, 2].square(),
        (points[:, 0] + 0.15).abs().square() + points[:, 2].square(),
    ).sqrt()
    inside = avatar.color(points[front & (nearest < 0.035)]).mean()
    around = avatar.color(points[front & (nearest > 0.075) & (nearest < 0.1)]).mean()
    assert float(inside) < 0.2
    assert float(around) > 0.6


def test_no_seam_where_belief_ends(result) -> None:
    *_, avatar, _ = result
    angle = torch.linspace(-math.pi / 2, math.pi / 2, 400)
    ray = torch.stack([angle.sin(), -angle.cos(), torch.full_like(angle, -0.25)], dim=1)
    ray = torch.nn.functional.normalize(ray, dim=1)
    points = 0.5 * ray
    for _ in range(25):
        points = points - avatar.sdf(points)[:, None] * ray
    belief = avatar.texture.belief(points)
    assert float(belief.max()) > 0.9 and float(belief.min()) == 0.0
    jumps = belief.diff().abs()
    assert float(jumps.max()) < 0.2
    color = avatar.color(points)
    truth = cartoon(points, avatar.prior.color(avatar.to_prior(points)))
    assert float((color - truth).diff(dim=0).abs().max()) < 0.12


def test_finished_results_are_loaded_and_metrics_written(result) -> None:
    scene, views, geometry, exemplar, avatar, folder = result
    stamp = (folder / "texture.pt").stat().st_mtime_ns
    again = adapt_texture(
        scene, geometry, views, exemplar, folder, SETTINGS, "cpu", SilentProgress()
    )
    assert (folder / "texture.pt").stat().st_mtime_ns == stamp
    points = surface(geometry, 500)
    expected = avatar.color(points)
    for other in (again, load_avatar(geometry, folder, "cpu")):
        assert torch.allclose(other.color(points), expected, atol=4e-3)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["finished"] and metrics["portrait_psnr"] > 22.0
    assert set(metrics["losses"]) >= {"color", "global", "palette", "reflection", "total"}
    assert metrics["losses"]["reflection"] < 0.05
    assert not (folder / "checkpoint.pt").exists()


def test_both_faces_have_their_colours(result) -> None:
    *_, avatar, _ = result
    points = surface(avatar.geometry)
    pair = avatar.color_pair(points)
    assert torch.equal(pair[:, :3], avatar.color(points))
    assert torch.allclose(pair[:, 3:], avatar.prior.color(avatar.to_prior(points)))
    assert float((pair[:, :3] - pair[:, 3:]).abs().mean()) > 0.02


def test_projection_agrees_with_the_camera() -> None:
    scene = make_scene(Path("unused"), radius=0.3)
    camera = look_at(0.7, radius=0.3)
    world = np.random.default_rng(0).normal(size=(20, 3)) * 0.1
    image, depth = camera.project(world)
    unit = scene.normalization.to_unit(world)
    matrix = unit_projection(camera, scene.normalization)
    homogeneous = unit @ matrix[:, :3].T + matrix[:, 3]
    assert np.allclose(homogeneous[:, :2] / homogeneous[:, 2:], image)
    assert np.allclose(homogeneous[:, 2] * 0.3, depth)


def test_hidden_points_are_not_believed(result) -> None:
    scene, views, geometry, *_ = result
    points, belief = portrait_points(geometry, views, scene.normalization, SETTINGS)
    assert float(belief(points.y).max()) > 0.95
    assert float(belief(-points.y).max()) == 0.0
    assert float(points.belief.max()) <= 1.0
    doubted = [replace(view, confidence=0.25 * view.confidence) for view in views]
    less, _ = portrait_points(geometry, doubted, scene.normalization, SETTINGS)
    assert torch.allclose(less.belief, 0.25 * points.belief, atol=1e-6)


def test_side_frames_keep_away_from_portraits(result) -> None:
    scene, views, *_ = result
    chosen = side_frames(scene, views, 4)
    assert len(chosen) == 4
    assert all(abs(frame.yaw) > 0.5 for frame in chosen)


def test_global_map_starts_as_the_identity_and_stays_in_range() -> None:
    torch.manual_seed(0)
    mapping = GlobalColorMap(5)
    color, feature = torch.rand(100, 3) * 0.8 + 0.1, torch.randn(100, 5)
    mapping.fit_range(color, feature, torch.ones(100))
    assert torch.allclose(torch.sigmoid(mapping(color, feature)), color, atol=0.02)
    far = mapping(color, 100.0 * torch.sign(feature))
    edge = mapping(color, 50.0 * torch.sign(feature))
    assert torch.allclose(far, edge)


def test_features_unlike_all_that_was_shown_do_not_count() -> None:
    torch.manual_seed(0)
    mapping = GlobalColorMap(5)
    color, feature = torch.rand(100, 3) * 0.8 + 0.1, torch.rand(100, 5)
    mapping.fit_range(color, feature, torch.ones(100))
    torch.nn.init.normal_(mapping.out.weight, std=1.0)
    hidden = mapping(color, feature, feature_gate=torch.zeros(100, 1))
    far = mapping(color, feature + 2.0)
    assert torch.allclose(far, hidden, atol=1e-4)
    # ... but for places that a portrait shows.
    seen = mapping(color, feature + 2.0, torch.ones(100))
    assert float((seen - hidden).detach().abs().mean()) > 0.05
    shown = mapping(color, 0.5 * feature + 0.25)
    assert float((shown - hidden).detach().abs().mean()) > 0.05  # inside they do


def _painted_shadow(size: int = 64) -> tuple[SurfacePoints, BeliefMaps]:
    """A plane of one colour whose left half is painted dark; only the features tell the halves."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    count = size * size
    x, y = (columns.flatten() + 0.5) / size - 0.5, (rows.flatten() + 0.5) / size - 0.5
    left = (x < 0).float()[:, None]
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(count, 3)
    points = SurfacePoints(
        y=torch.stack([x, y, torch.zeros(count)], dim=1),
        color=torch.full((count, 3), 0.6),
        feature=left + 0.1 * torch.rand((count, 4), generator=generator),
        normal=ahead,
        direction=-ahead,
        glance=torch.zeros(count, 3),
        target=(0.75 - 0.55 * left).expand(count, 3).contiguous(),
        belief=torch.ones(count),
        trust=torch.ones(count),
        index=[torch.arange(count).reshape(size, size)],
    )
    matrix = torch.tensor(
        [[1.0 * size, 0, 0, size / 2], [0, 1.0 * size, 0, size / 2], [0, 0, 0, 1.0]]
    )
    belief = BeliefMaps(torch.ones(1, size, size), torch.ones(1, size, size), matrix[None])
    return points, belief


def test_a_painted_shadow_keeps_its_tone() -> None:
    points, belief = _painted_shadow()
    palette = np.array([[50, 50, 50], [190, 190, 190]], np.uint8)
    settings = replace(SETTINGS, feature_dropout=0.3, discriminator_weight=0.0)
    run = TextureAdaption(points, belief, None, palette, settings)
    optimizer = run.optimizer()
    for step in range(200):
        optimizer.zero_grad()
        run.losses(step / 200)[0].backward()
        optimizer.step()
    with torch.no_grad():
        albedo = run.texture(points.y, points.color, points.feature).mean(1)
    dark = points.y[:, 0] < -0.05
    light = points.y[:, 0] > 0.05
    assert float(albedo[dark].median()) == pytest.approx(0.20, abs=0.03)
    assert float(albedo[light].median()) == pytest.approx(0.75, abs=0.03)


def test_a_black_and_white_style_stays_black_and_white() -> None:
    points, belief = _painted_shadow()
    palette = np.array([[50, 50, 50], [190, 190, 190]], np.uint8)
    skin = torch.tensor([0.8, 0.4, 0.3]).expand(len(points), 3)
    gray = TextureAdaption(points, belief, None, palette, SETTINGS).texture
    with torch.no_grad():
        drawn = gray(points.y, skin, points.feature)
    assert float((drawn.amax(1) - drawn.amin(1)).max()) < 1e-3
    points.target = skin.clone()
    coloured = TextureAdaption(points, belief, None, palette, SETTINGS).texture
    with torch.no_grad():
        painted = coloured(points.y, skin, points.feature)
    assert float((painted - skin).abs().max()) < 0.02


def test_a_thin_line_of_ink_on_white_is_kept() -> None:
    points, belief = _painted_shadow(128)
    across = (points.y[:, 1] * 128).abs() < 1.1
    points.feature = torch.zeros_like(points.feature)
    points.target = torch.where(across[:, None], 0.02, 1.0).expand(-1, 3).contiguous()
    palette = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    # Every place is asked twenty times and a cell is a pixel wide, as in a job.
    grid = {"levels": 5, "base_resolution": 32, "finest_resolution": 256, "log2_table": 18}
    settings = replace(SETTINGS, discriminator_weight=0.0, points=1024, **grid)
    run = TextureAdaption(points, belief, None, palette, settings)
    optimizer = run.optimizer()
    for step in range(300):
        for group in optimizer.param_groups:
            rate = group.setdefault("first", group["lr"])
            group["lr"] = rate * (1.0 - step / 300)
        optimizer.zero_grad()
        run.losses(step / 300)[0].backward()
        optimizer.step()
    with torch.no_grad():
        albedo = run.texture(points.y, points.color, points.feature).mean(1)
    assert float(albedo[across].mean()) < 0.25
    assert float(albedo[(points.y[:, 1] * 128).abs() > 6].mean()) > 0.97


def test_logits_within_reach_are_unchanged_and_none_lies_beyond() -> None:
    logits = torch.linspace(-60.0, 60.0, 2401, dtype=torch.float64, requires_grad=True)
    held = within_reach(logits)
    inner = logits.detach().abs() <= REACH[0]
    assert torch.equal(held[inner], logits[inner])
    assert float(held.detach().abs().max()) <= REACH[1]
    (slope,) = torch.autograd.grad(held.sum(), logits)
    assert float((slope[inner] - 1.0).abs().max()) == 0.0
    assert float(slope.min()) >= 0.0


def test_reflection_starts_at_one_and_is_bounded() -> None:
    reflection = Reflection(4)
    direction = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    inputs = (torch.randn(50, 4), direction, direction, 0.3 * direction)
    assert torch.equal(reflection(*inputs), torch.ones(50, 3))
    torch.nn.init.normal_(reflection.out.weight, std=50.0)
    shaded = reflection(*inputs).detach()
    assert float(shaded.min()) >= 0.0 and float(shaded.max()) <= 2.0


def test_palette_and_posterize(result) -> None:
    _, views, _, exemplar, *_ = result
    palette = style_palette(exemplar, views, 8)
    assert palette.shape == (8, 3)
    posterize = Posterize(np.array([[0, 0, 0], [255, 255, 255], [200, 40, 40]], np.uint8))
    colors = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.95, 0.9], [0.7, 0.2, 0.2]])
    expected = torch.tensor([[0.0] * 3, [1.0] * 3, [200 / 255, 40 / 255, 40 / 255]])
    assert torch.allclose(posterize(colors), expected)
    few = np.array([[1, 2, 3], [1, 2, 3], [9, 9, 9]], np.uint8)
    assert cluster_colors(few, 8).tolist() == [[1, 2, 3], [9, 9, 9]]


def test_adversarial_losses_equal_equation_11() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    expected = -(torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean())
    assert torch.allclose(discriminator_loss(real, fake), expected, atol=1e-5)
    assert torch.allclose(field_loss(fake), -torch.sigmoid(fake).log().mean(), atol=1e-5)


def test_r1_penalty_is_the_gradient_at_real_patches() -> None:
    torch.manual_seed(0)
    judge = PaletteDiscriminator(4).double()
    patch = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    gradient = torch.zeros_like(patch)
    with torch.no_grad():
        for i in range(patch.numel()):
            step = torch.zeros(patch.numel(), dtype=torch.float64)
            step[i] = 1e-5
            shift = step.reshape(patch.shape)
            change = judge(patch + shift).sum() - judge(patch - shift).sum()
            gradient.view(-1)[i] = change / 2e-5
    expected = float(gradient.square().sum())
    assert float(r1_penalty(judge, patch).detach()) == pytest.approx(expected, rel=1e-3)


class GlossyBall(BallPrior):
    """The ball with a grey highlight that wanders with the view."""

    def radiance(
        self, x: torch.Tensor, sample: SurfaceSample, direction: torch.Tensor
    ) -> torch.Tensor:
        return self.pattern(x) * self.gloss(sample.gradient, direction)

    @staticmethod
    def gloss(normal: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
        mirrored = direction - 2.0 * (normal * direction).sum(1, keepdim=True) * normal
        lamp = torch.nn.functional.normalize(torch.tensor([[0.5, -1.0, 0.4]]), dim=1)
        shine = torch.sigmoid(((mirrored * lamp).sum(1, keepdim=True) - 0.6) * 8.0)
        return 0.8 + 0.4 * shine


class PaintedGlossy(Painted):
    """A style that keeps the person's highlights."""

    def shade(self, y: torch.Tensor, toward: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.geometry.to_prior(y)
        gloss = GlossyBall.gloss(self.geometry.prior.sdf_gradient(x), toward)
        return (self.color(y) * gloss).clamp(0.0, 1.0), self.sdf_gradient(y)


def glossy_views(scene: Scene, geometry: StylizedGeometry, keeps: bool) -> list[StylizedView]:
    """Portraits with or without the highlights."""
    field = PaintedGlossy(geometry, cartoon)
    views = []
    for view in portraits(scene, KnownBend(), YAWS):
        shade = field.shade if keeps else None
        image = render_view(field, view.frame.camera, scene.normalization, shade).color
        views.append(replace(view, image=image))
    return views


@pytest.mark.parametrize("keeps", [True, False])
def test_highlights_of_the_person_stay_as_far_as_the_portraits_keep_them(
    tmp_path: Path, keeps: bool
) -> None:
    torch.manual_seed(0)
    scene = make_scene(tmp_path / "scene", size=64)
    geometry = StylizedGeometry(GlossyBall(), SavedBend())
    views = glossy_views(scene, geometry, keeps)
    settings = replace(SETTINGS, discriminator_weight=0.0)
    adapt_texture(
        scene, geometry, views, views[1].image, tmp_path / "run", settings, "cpu", SilentProgress()
    )
    avatar = load_avatar(geometry, tmp_path / "run", "cpu")
    kept = float(avatar.texture.reflection.strength)
    camera = look_at(0.6, 64)
    field = PaintedGlossy(geometry, cartoon)
    truth = render_view(field, camera, scene.normalization, field.shade if keeps else None)
    rendered = render_view(avatar, camera, scene.normalization, avatar.shade)
    albedo = render_view(avatar, camera, scene.normalization)
    as_paper = foreground_psnr(rendered.color, truth.color, truth.mask)
    alone = foreground_psnr(albedo.color, truth.color, truth.mask)
    if keeps:
        assert kept > 0.5 and as_paper > alone + 3.0
    else:
        assert abs(kept) < 0.15 and abs(as_paper - alone) < 0.7


def test_without_texture_adaption_the_appearance_is_rendered_along_the_ray(tmp_path: Path) -> None:
    """Eq. 8 with stage II's head, not its mean over directions."""
    prior = GlossyBall()
    head = StyleHead(3)
    torch.nn.init.normal_(head.out.weight, std=0.3)
    geometry = StylizedGeometry(prior, SavedBend(), head)
    avatar = StylizedAvatar(geometry, AppearanceAlbedo())
    points = surface(geometry, 200)
    toward = torch.nn.functional.normalize(-points + 0.2, dim=1)
    color, gradient = avatar.shade(points, toward)
    x = geometry.to_prior(points)
    sample = prior.evaluate(x)
    seen = prior.radiance(x, sample, toward)
    expected = head(x, seen, sample.feature, sample.gradient).detach()
    assert torch.allclose(color, expected, atol=1e-6)
    assert torch.equal(gradient, avatar.sdf_gradient(points))
    assert float((color - avatar.color(points)).abs().max()) > 0.02


def test_results_of_earlier_versions_keep_no_highlights(result) -> None:
    _, _, geometry, _, avatar, folder = result
    state = torch.load(folder / "texture.pt", weights_only=True)
    del state["reflection"]["strength"]
    again = load_surface_texture(state, "cpu")
    assert float(again.reflection.strength) == 0.0
    points = surface(geometry, 50)
    assert torch.allclose(
        StylizedAvatar(geometry, again).color(points), avatar.color(points), atol=4e-3
    )
