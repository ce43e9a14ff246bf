"""What the paper leaves open and NeuS's published code decides: the ``paper`` preset follows it."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import analytic_head
from stage1_scene import make_scene

from toonify3d.files import write_image
from toonify3d.progress import SilentProgress
from toonify3d.scene import Camera, Normalization, Scene, StylizedView
from toonify3d.snr.fields import FieldSettings
from toonify3d.snr.prior import Prior
from toonify3d.training.adaption_settings import PAPER_GEOMETRY, PAPER_TEXTURE
from toonify3d.training.data import RayBank
from toonify3d.training.finetune import FieldFinetune
from toonify3d.training.settings import PAPER, PriorSettings
from toonify3d.training.stage1 import PriorTrainer, train_prior
from toonify3d.training.stage2 import adapt_geometry
from toonify3d.training.surface_texture import prepare
from toonify3d.training.view_rays import ViewRays, ring_pixels
from toonify3d.training.volume_texture import VolumeAdaption, load_volume_texture

CPU = torch.device("cpu")
FIELDS = FieldSettings(
    encoding="frequency",
    octaves=2,
    geometry_layers=2,
    geometry_width=24,
    features=6,
    appearance_width=16,
    activation="softplus",
    share_encoding=False,
    weight_norm=True,
)
SMALL = {"fields": FIELDS, "rays": 48, "coarse_samples": 8, "fine_samples": 8}
VIEW_SIZE = 64


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A capture with depth whose masks have a soft edge: a value of 100 and one of 200."""
    scene = make_scene(tmp_path_factory.mktemp("soft"), count=9, size=48, with_depth=True)
    for frame in scene.frames:
        mask = scene.mask(frame).copy()
        middle = mask.shape[0] // 2
        edge = np.nonzero(mask[middle])[0]
        mask[middle, edge[0] - 1], mask[middle, edge[-1] + 1] = 100, 200
        write_image(scene.root / "masks" / f"{frame.name}.png", mask)
    return scene


@pytest.fixture(scope="module")
def captured(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Scene, list[StylizedView]]:
    scene = analytic_head.make_scene(tmp_path_factory.mktemp("scene"), size=VIEW_SIZE)
    yaws = (-0.18, 0.0, 0.18, math.pi)
    return scene, analytic_head.portraits(scene, analytic_head.KnownBend(), yaws)


def small_prior() -> Prior:
    torch.manual_seed(0)
    return Prior(FIELDS, Normalization(np.zeros(3), 1.0)).eval()


def passing_rays(camera: Camera, normalization: Normalization) -> np.ndarray:
    """Whether each pixel's ray comes within the normalization sphere, by the distance of a line."""
    found = np.zeros((camera.height, camera.width), bool)
    inverse = np.linalg.inv(camera.K)
    toward = normalization.center - camera.center
    for row in range(camera.height):
        for column in range(camera.width):
            ray = camera.c2w[:3, :3] @ inverse @ np.array([column + 0.5, row + 0.5, 1.0])
            distance = np.linalg.norm(np.cross(toward, ray)) / np.linalg.norm(ray)
            found[row, column] = distance < normalization.radius
    return found


# -- which rays -----------------------------------------------------------------------------------


def test_a_whole_picture_gives_every_ray_that_meets_the_sphere(soft: Scene) -> None:
    want = [passing_rays(frame.camera, soft.normalization) for frame in soft.frames[:2]]
    # The picture has corners that miss the sphere, and the ring would be much narrower.
    assert all(0.5 < part.mean() < 0.999 for part in want)
    bank = RayBank.from_scene(soft, soft.frames[:2], PAPER.silhouette_band, CPU)
    got = np.zeros((2, 48, 48), bool)
    position = bank._position.numpy()
    got[bank._frame.numpy(), position[:, 1], position[:, 0]] = True
    assert len(bank) == sum(part.sum() for part in want)
    assert np.array_equal(got, np.stack(want))
    ring = RayBank.from_scene(soft, soft.frames[:2], PriorSettings().silhouette_band, CPU)
    assert len(ring) < 0.8 * len(bank)


def test_the_paper_preset_trains_on_all_frames_and_plain_masks(soft: Scene, tmp_path: Path) -> None:
    settings = replace(PAPER, **SMALL)
    trainer = PriorTrainer(soft, tmp_path, settings, CPU, SilentProgress())
    assert trainer.training == soft.frames and not trainer.heldout
    batch = trainer.bank.batch(torch.arange(len(trainer.bank)))
    assert set(batch.mask.unique().tolist()) == {0.0, 1.0}
    # Colours count up to the outline: wherever the mask does.
    assert torch.equal(batch.color_weight, batch.mask)
    foreground = sum(int((soft.mask(frame) > 127).sum()) for frame in soft.frames)
    assert int(batch.mask.sum()) == foreground
    # The fast presets take soft masks as they are and keep colours off the outline.
    fast = RayBank.from_scene(soft, soft.frames, 0.03, CPU)
    other = fast.batch(torch.arange(len(fast)))
    assert {100, 200} <= set((other.mask * 255).round().int().tolist())
    assert float(other.color_weight.sum()) < foreground - len(soft.frames)


def test_the_paper_recipe_runs_from_photographs_to_albedo(
    soft: Scene, captured, tmp_path: Path
) -> None:
    settings = replace(PAPER, **SMALL, steps=3)
    prior = train_prior(soft, tmp_path / "prior", settings, "cpu", SilentProgress())
    assert all(bool(torch.isfinite(p).all()) for p in prior.parameters())
    scene, views = captured
    stage2 = replace(PAPER_GEOMETRY, steps=3, rays=48, coarse_samples=8, fine_samples=8)
    folder = tmp_path / "geometry"
    shape = adapt_geometry(scene, prior, views, None, folder, stage2, "cpu", SilentProgress())
    stage3 = replace(
        PAPER_TEXTURE, rays=48, coarse_samples=8, fine_samples=8, patch=4, warm_steps=2
    )
    total, values = VolumeAdaption(scene, shape, views, views[0].image, stage3).losses(0.0)
    assert bool(torch.isfinite(total)) and float(values["color"]) > 0.0


def test_rings_of_portraits_are_as_wide_as_before_they_were_a_setting() -> None:
    for width in range(1, 5000):
        assert ring_pixels(width, 1.0 / 12.0) == max(8, width // 12)
    assert ring_pixels(600, 0.05) == 30


def test_portraits_give_rays_of_the_ring_or_of_everything(captured) -> None:
    scene, views = captured
    counts = [
        len(ViewRays.within(scene, views, CPU, band).pixels)
        for band in (1.0 / 12.0, 0.2, PAPER_GEOMETRY.silhouette_band)
    ]
    assert counts[0] < counts[1] < counts[2]
    old = ViewRays(scene, views, CPU, edge=3, reach=8)
    assert len(old.pixels) == counts[0]
    # Portraits see less than the sphere; a head nearer to the camera than it leaves corners out.
    assert counts[2] == len(views) * VIEW_SIZE**2
    far = replace(scene, normalization=Normalization(scene.normalization.center, 0.1))
    cameras = [view.frame.camera for view in views]
    want = sum(int(passing_rays(camera, far.normalization).sum()) for camera in cameras)
    whole = ViewRays.within(far, views, CPU, PAPER_GEOMETRY.silhouette_band)
    assert 0 < len(whole.pixels) == want < counts[2]


@pytest.mark.parametrize("band", [1.0 / 12.0, 0.3])
def test_stages_two_and_three_draw_from_the_ring_they_are_told(captured, band: float) -> None:
    scene, views = captured
    prior = small_prior()
    stage2 = replace(PAPER_GEOMETRY, silhouette_band=band, rays=48)
    stage3 = replace(PAPER_TEXTURE, silhouette_band=band, rays=48, patch=4, warm_steps=1)
    finetune = FieldFinetune(scene, prior, views, stage2)
    volume = VolumeAdaption(scene, finetune.geometry(), views, views[0].image, stage3)
    want = len(ViewRays.within(scene, views, CPU, band).pixels)
    assert len(finetune.rays.pixels) == len(volume.rays.pixels) == want


# -- what is compared -----------------------------------------------------------------------------


def test_stereo_confidence_does_not_weigh_in_the_paper_preset(soft: Scene, tmp_path: Path) -> None:
    """Eq. 2 has M(r) in {0, 1}."""

    def stereo(settings: PriorSettings, faint: bool) -> float:
        trainer = PriorTrainer(soft, tmp_path, settings, CPU, SilentProgress())
        batch = trainer.bank.sample(200, trainer.generator)
        confidence = batch.confidence
        if faint:  # every other pixel is hardly trusted, and some not at all
            kept = torch.arange(200) % 2 == 0
            confidence = torch.where(kept, confidence, 0.02 * confidence)
        confidence = torch.where(torch.arange(200) % 5 == 0, 0.0, confidence)
        trainer.generator.manual_seed(1)
        batch = batch._replace(confidence=confidence)
        return float(trainer.renderer.losses(batch, 20.0, 0.5).stereo.detach())

    paper = replace(PAPER, **SMALL)
    assert stereo(paper, True) == pytest.approx(stereo(paper, False), rel=1e-6)
    weighted = replace(paper, binary_stereo=False)
    assert abs(stereo(weighted, True) / stereo(weighted, False) - 1.0) > 1e-3


def test_colour_weighs_three_times_as_much_in_every_stage(
    soft: Scene, captured, tmp_path: Path
) -> None:
    """A sum over three channels instead of their mean, beside unchanged other terms."""
    scene, views = captured
    prior = small_prior()

    def stage1(reduction: str) -> tuple[float, float]:
        settings = replace(PAPER, **SMALL, reduction=reduction)
        trainer = PriorTrainer(soft, tmp_path, settings, CPU, SilentProgress())
        terms = trainer.renderer.losses(trainer.bank.sample(64, trainer.generator), 20.0, 0.0)
        return float(terms.color.detach()), float(terms.mask.detach())

    def stage2(reduction: str) -> tuple[float, float]:
        settings = replace(PAPER_GEOMETRY, rays=64, reduction=reduction)
        values = FieldFinetune(scene, prior, views, settings).losses(0.0)[1]
        return float(values["color"]), float(values["mask"])

    def stage3(reduction: str) -> tuple[float, float]:
        settings = replace(PAPER_TEXTURE, rays=64, patch=4, warm_steps=1, reduction=reduction)
        shape = FieldFinetune(scene, prior, views, PAPER_GEOMETRY).geometry()
        values = VolumeAdaption(scene, shape, views, views[0].image, settings).losses(0.0)[1]
        return float(values["color"]), float(values["reflection"])

    for stage in (stage1, stage2, stage3):
        mean, rays = stage("mean"), stage("rays")
        assert rays[0] == pytest.approx(3.0 * mean[0], rel=1e-4), stage.__name__
        assert rays[1] == pytest.approx(mean[1], rel=1e-5), stage.__name__


def test_portrait_masks_are_binary_where_neus_has_them_so(captured) -> None:
    scene, views = captured
    softened = [
        replace(view, mask=np.where(view.mask > 127, 180, 90).astype(np.uint8)) for view in views
    ]
    for binary in (True, False):
        settings = replace(PAPER_GEOMETRY, rays=64, binary_masks=binary)
        run = FieldFinetune(scene, small_prior(), softened, settings)
        values = set((run._batch(None).mask * 255).round().int().tolist())
        assert values == ({0, 255} if binary else {90, 180})


# -- how it is learned ----------------------------------------------------------------------------


def test_adam_is_torchs_own_in_all_three_published_stages(
    soft: Scene, captured, tmp_path: Path
) -> None:
    scene, views = captured
    own = torch.optim.Adam([torch.zeros(1)]).defaults
    trainer = PriorTrainer(soft, tmp_path, replace(PAPER, **SMALL), CPU, SilentProgress())
    finetune = FieldFinetune(scene, small_prior(), views, PAPER_GEOMETRY)
    stage3 = replace(PAPER_TEXTURE, warm_steps=1, patch=4)
    volume = VolumeAdaption(scene, finetune.geometry(), views, views[0].image, stage3)
    for optimizer in (trainer.optimizer, finetune.optimizer(), volume.optimizer()):
        for group in optimizer.param_groups:
            assert (group["betas"], group["eps"]) == (own["betas"], own["eps"])


def test_f_tex_has_the_weight_norm_of_neus_colour_network(captured) -> None:
    scene, views = captured
    shape = FieldFinetune(scene, small_prior(), views, PAPER_GEOMETRY).geometry()
    settings = replace(PAPER_TEXTURE, warm_steps=1, patch=4, layers=2, width=12)
    run = VolumeAdaption(scene, shape, views, views[0].image, settings)
    normed = [name for name in run.texture.state_dict() if name.endswith("weight.original1")]
    assert len(normed) == 3
    plain = VolumeAdaption(
        scene, shape, views, views[0].image, replace(settings, weight_norm=False)
    )
    assert "layers.0.weight" in plain.texture.state_dict()
    for adaption in (run, plain):
        loaded = load_volume_texture(adaption.state(), "cpu")
        x, feature = torch.rand(9, 3), torch.rand(9, 6)
        assert torch.equal(loaded(x, feature), adaption.texture(x, feature))


def test_the_discriminator_is_as_wide_as_asked(captured) -> None:
    scene, views = captured
    settings = replace(PAPER_TEXTURE, warm_steps=1, patch=4, discriminator_width=7, max_points=4000)
    shape = FieldFinetune(scene, small_prior(), views, PAPER_GEOMETRY).geometry()
    volume = VolumeAdaption(scene, shape, views, views[0].image, settings)
    surface = prepare(scene, shape, views, views[0].image, settings, None)
    for run in (volume, surface):
        assert run.discriminator.layers[0].out_channels == 7
