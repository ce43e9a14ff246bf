"""Camera corrections: found on an analytic scene, bounded, and handed on to the later steps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene

from toonify3d.errors import InputError
from toonify3d.files import write_image
from toonify3d.progress import SilentProgress
from toonify3d.scene import Scene
from toonify3d.snr.fields import SurfaceSample
from toonify3d.snr.guide import Guide
from toonify3d.training.corrections import (
    FOCAL_BOUND,
    FOCAL_SPREAD,
    SHIFT_SPREAD,
    TURN_SPREAD,
    FrameCorrections,
)
from toonify3d.training.data import RayBank
from toonify3d.training.refined_cameras import (
    FILE,
    save_refined_cameras,
    with_refined_cameras,
)
from toonify3d.training.settings import PAPER, TINY, PriorSettings
from toonify3d.training.stage1 import PriorTrainer, train_prior
from toonify3d.training.stage1_step import StepRenderer

torch.set_num_threads(1)

SHORT = replace(TINY, steps=6, hull_steps=3, guide_interval=5, holdout_frames=1)


class KnownBall(stage1_scene.PaintedBall):
    """The scene's own surface as a field that trains nothing."""

    def evaluate(self, x: torch.Tensor) -> SurfaceSample:
        return SurfaceSample(self.sdf(x), self.sdf_gradient(x), x)

    def radiance(
        self, x: torch.Tensor, sample: SurfaceSample, direction: torch.Tensor
    ) -> torch.Tensor:
        return self.color(x)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(tmp_path_factory.mktemp("ball"), count=10, size=64)


def _zoomed(scene: Scene, focal: float) -> Scene:
    """Cameras that take their focal length for ``focal`` times what it is."""
    frames = []
    for frame in scene.frames:
        K = np.diag([focal, focal, 1.0]) @ frame.camera.K
        K[:2, 2] = frame.camera.K[:2, 2]
        frames.append(replace(frame, camera=replace(frame.camera, K=K)))
    return replace(scene, frames=frames)


def _found(
    scene: Scene,
    steps: int,
    poses: bool = False,
    focal: bool = False,
    weight_poses: float = PriorSettings.weight_poses,
) -> FrameCorrections:
    """Corrections learned in front of the known surface."""
    settings = replace(
        PriorSettings(), refine_focal=focal, free_points=8, weight_poses=weight_poses
    )
    device, field = torch.device("cpu"), KnownBall()
    bank = RayBank.from_scene(scene, scene.frames, 0.03, device)
    corrections = FrameCorrections(
        len(scene.frames),
        poses,
        False,
        focal,
        [frame.camera for frame in scene.frames],
        scene.normalization,
    )
    generator = torch.Generator().manual_seed(0)
    guide = Guide.from_field(field.sdf, 48, 0.0, device)
    renderer = StepRenderer(field, guide, settings, corrections, generator)
    learned = [value for value in corrections.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=3e-4, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-4 * 0.03 ** (step / steps)
        losses = renderer.losses(bank.sample(2048, generator), 400.0, 0.0)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
    return corrections


@pytest.mark.parametrize("wrong", [1.005, 0.995, 1.0])
def test_focal_length_is_found_before_a_known_surface(scene: Scene, wrong: float) -> None:
    corrections = _found(_zoomed(scene, wrong), 120, focal=True)
    left = wrong * float(torch.exp(corrections.log_focal.detach())[0]) - 1.0
    assert abs(left) < 0.001


def _pixels_off(scene: Scene, true: Scene) -> float:
    """Median distance in pixels between where two sets of cameras see the ball's surface."""
    random = np.random.default_rng(0).normal(size=(50, 3))
    unit = stage1_scene.RADIUS * random / np.linalg.norm(random, axis=1, keepdims=True)
    world = scene.normalization.to_world(unit)
    off = [
        np.linalg.norm(a.camera.project(world)[0] - b.camera.project(world)[0], axis=1)
        for a, b in zip(scene.frames, true.frames, strict=True)
    ]
    return float(np.median(off))


def _turned(scene: Scene, degrees: float) -> Scene:
    """Every camera turned at random, but not so that the ball as a whole seems to move."""
    cameras = [frame.camera for frame in scene.frames]
    wrong = FrameCorrections(len(cameras), True, False, False, cameras, scene.normalization)
    torch.manual_seed(4)
    with torch.no_grad():
        wrong.rotation.normal_(0.0, np.radians(degrees) / np.sqrt(3.0))
    turned = wrong.corrected(cameras, scene.normalization)
    frames = [replace(f, camera=camera) for f, camera in zip(scene.frames, turned, strict=True)]
    return replace(scene, frames=frames)


def test_turned_cameras_are_found_before_a_known_surface(scene: Scene) -> None:
    spoiled = _turned(scene, degrees=0.3)
    corrections = _found(spoiled, 150, poses=True)
    cameras = corrections.corrected([f.camera for f in spoiled.frames], scene.normalization)
    frames = [
        replace(frame, camera=camera) for frame, camera in zip(spoiled.frames, cameras, strict=True)
    ]
    before = _pixels_off(spoiled, scene)
    assert before > 0.3 and _pixels_off(replace(scene, frames=frames), scene) < 0.5 * before


def test_the_penalty_holds_what_the_pictures_do_not(scene: Scene) -> None:
    """Right cameras of a small noisy run: the optimizer moves them, the penalty less."""
    moved = []
    for weight in (0.0, PriorSettings.weight_poses):
        turns, shifts = _found(scene, 60, poses=True, weight_poses=weight).motions()
        moved.append(float((turns.square().mean() + shifts.square().mean()).detach()))
    assert moved[1] < 0.75 * moved[0]


def test_the_penalty_counts_turns_and_shifts_in_their_units(scene: Scene) -> None:
    corrections = _random_corrections(scene)
    turns, shifts = (value.detach().numpy().astype(np.float64) for value in corrections.motions())
    centers = corrections.center.numpy().astype(np.float64)
    own = turns - np.cross(centers, shifts) / np.square(centers).sum(1, keepdims=True)
    expected = np.square(own / TURN_SPREAD).sum(1) + np.square(shifts / SHIFT_SPREAD).sum(1)
    assert float(corrections.pose_penalty()) == pytest.approx(expected.mean(), rel=1e-3)


def test_a_camera_not_trained_on_moves_as_its_neighbours(scene: Scene) -> None:
    cameras = [frame.camera for frame in scene.frames]
    left_out, given = cameras[4], cameras[:4] + cameras[5:]
    corrections = FrameCorrections(len(given), True, False, False, given, scene.normalization)
    with torch.no_grad():  # a smooth error along the track, as far as the gauge leaves it
        angle = torch.atan2(corrections.center[:, 1], corrections.center[:, 0])
        corrections.rotation[:, 2] = 1e-3 * torch.sin(2.0 * angle)
        corrections.translation[:, 2] = 2e-3 * torch.cos(2.0 * angle)
    turns, shifts = (value.detach().numpy() for value in corrections.motions())
    (moved,) = corrections.for_others([left_out], given, scene.normalization)
    away = [np.linalg.norm(camera.center - left_out.center) for camera in given]
    near = np.argsort(away)[:2]
    turn = Rotation.from_matrix(moved.c2w[:3, :3] @ left_out.c2w[:3, :3].T).as_rotvec()
    assert np.allclose(turn, turns[near].mean(0), atol=1e-6)
    shift = (moved.center - left_out.center) / scene.normalization.radius
    assert np.allclose(shift, shifts[near].mean(0), atol=1e-6)
    assert np.linalg.norm(turn) > 1e-5 and np.linalg.norm(shift) > 1e-5
    assert FrameCorrections(len(given), False, False).for_others(
        [left_out], given, scene.normalization
    ) == [left_out]


def _random_corrections(scene: Scene) -> FrameCorrections:
    cameras = [frame.camera for frame in scene.frames]
    corrections = FrameCorrections(len(cameras), True, True, True, cameras, scene.normalization)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in corrections.parameters():
            parameter.normal_(0.0, 2e-3)
    return corrections


def test_corrected_cameras_have_the_moved_rays(scene: Scene) -> None:
    corrections = _random_corrections(scene)
    given = [frame.camera for frame in scene.frames]
    pixels = np.array([[3.5, 7.5], [40.5, 20.5], [60.5, 61.5]])
    for row, camera in enumerate(corrections.corrected(given, scene.normalization)):
        origins, directions = given[row].rays(pixels)
        moved = corrections.move(
            torch.full((3,), row),
            torch.tensor(scene.normalization.to_unit(origins), dtype=torch.float32),
            torch.tensor(directions, dtype=torch.float32),
        )
        expected = camera.rays(pixels)
        assert np.allclose(
            scene.normalization.to_world(moved[0].detach().numpy()), expected[0], atol=1e-6
        )
        assert np.allclose(moved[1].detach().numpy(), expected[1], atol=3e-5)
        assert not np.allclose(directions, expected[1], atol=5e-4)


def test_a_shift_keeps_the_middle_in_place(scene: Scene) -> None:
    corrections = _random_corrections(scene)
    with torch.no_grad():
        corrections.rotation.zero_()
        corrections.focal_raw.zero_()
    given = [frame.camera for frame in scene.frames]
    middle = scene.normalization.center[None]
    for before, after in zip(given, corrections.corrected(given, scene.normalization), strict=True):
        assert np.linalg.norm(before.center - after.center) > 1e-4
        assert np.allclose(before.project(middle)[0], after.project(middle)[0], atol=0.01)


def test_the_focal_correction_is_bounded_and_drawn_to_none(scene: Scene) -> None:
    corrections = _random_corrections(scene)
    with torch.no_grad():
        corrections.focal_raw.fill_(9.0)
    assert float(corrections.log_focal.detach().max()) == pytest.approx(FOCAL_BOUND)
    with torch.no_grad():
        corrections.focal_raw.fill_(FOCAL_SPREAD)
    penalty = corrections.penalty()
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(1.0, rel=0.01)
    assert float(corrections.focal_raw.grad) > 0.0  # type: ignore[arg-type]


def test_cameras_of_other_lenses_get_their_own_focal_length(scene: Scene) -> None:
    wide = [replace(f.camera, K=np.diag([0.7, 0.7, 1.0]) @ f.camera.K) for f in scene.frames[:4]]
    cameras = [frame.camera for frame in scene.frames[4:]] + wide
    corrections = FrameCorrections(len(cameras), False, False, True, cameras, scene.normalization)
    assert corrections.log_focal.shape == (2,)
    with torch.no_grad():
        corrections.focal_raw.copy_(torch.tensor([0.0, 0.01]))
    assert corrections.same_lens(cameras[0], cameras) is not cameras[0]
    assert np.array_equal(corrections.same_lens(cameras[0], cameras).K, cameras[0].K)
    assert corrections.same_lens(wide[0], cameras).K[0, 0] > 1.008 * wide[0].K[0, 0]


def test_cameras_are_needed_to_correct_them() -> None:
    with pytest.raises(ValueError, match="needs the cameras"):
        FrameCorrections(3, poses=True, exposure=False)
    assert FrameCorrections(3, poses=False, exposure=True).log_gain.requires_grad


def _exposed(scene: Scene, root: Path, gains: np.ndarray) -> Scene:
    """The scene with every frame's colours times a gain."""
    for frame, gain in zip(scene.frames, gains, strict=True):
        image = (scene.image(frame) * gain).round()
        assert image[scene.mask(frame) > 127].max() <= 255  # nothing is cut off at white
        write_image(root / "frames" / f"{frame.name}.png", image.clip(0, 255).astype(np.uint8))
        write_image(root / "masks" / f"{frame.name}.png", scene.mask(frame))
    return replace(scene, root=root)


def test_exposures_are_found_up_to_a_common_factor(scene: Scene, tmp_path: Path) -> None:
    gains = np.random.default_rng(3).uniform(0.9, 1.1, len(scene.frames))
    settings = replace(
        TINY,
        steps=250,
        rays=192,
        hull_steps=20,
        lr_final=1.0,
        holdout_frames=0,
        refine_exposure=True,
    )
    uneven = _exposed(scene, tmp_path / "scene", gains)
    trainer = PriorTrainer(
        uneven, tmp_path / "run", settings, torch.device("cpu"), SilentProgress()
    )
    trainer.run()
    true = np.log(gains) - np.log(gains).mean()
    found = trainer.corrections.log_gains().detach().mean(1).numpy()
    assert np.abs(true).max() > 0.08 and np.abs(found - true).max() < 0.025
    assert np.polyfit(true, found, 1)[0] == pytest.approx(1.0, abs=0.2)
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    figures = figures["camera_corrections"]
    assert figures["darkest_percent"] == pytest.approx(100 * np.expm1(true.min()), abs=2.0)
    assert figures["brightest_percent"] == pytest.approx(100 * np.expm1(true.max()), abs=2.0)
    assert "darkest_percent" not in FrameCorrections(3, False, exposure=False).figures()


def test_stage_one_leaves_its_cameras_to_the_later_steps(scene: Scene, tmp_path: Path) -> None:
    settings = replace(SHORT, refine_cameras=True, refine_focal=True, lr_cameras=1e-2)
    train_prior(scene, tmp_path, settings, "cpu", SilentProgress())
    seen = with_refined_cameras(scene, tmp_path)
    assert seen.root == scene.root and [f.name for f in seen.frames] == [
        f.name for f in scene.frames
    ]
    moved = [
        np.linalg.norm(a.camera.center - b.camera.center)
        for a, b in zip(seen.frames, scene.frames, strict=True)
    ]
    assert min(moved) > 1e-6  # held-out frames, too
    focal = {round(frame.camera.K[0, 0], 9) for frame in seen.frames}
    assert len(focal) == 1 and focal != {round(scene.frames[0].camera.K[0, 0], 9)}
    # Training without refinement takes the file away again.
    train_prior(scene, tmp_path, SHORT, "cpu", SilentProgress())
    assert not (tmp_path / FILE).exists() and with_refined_cameras(scene, tmp_path) is scene


def test_cameras_of_another_capture_are_refused(scene: Scene, tmp_path: Path) -> None:
    save_refined_cameras(tmp_path, scene.frames[1:])
    with pytest.raises(InputError) as caught:
        with_refined_cameras(scene, tmp_path)
    assert caught.value.code == "bad_prior"


def test_the_paper_corrects_no_camera() -> None:
    assert not (PAPER.refine_cameras or PAPER.refine_focal or PAPER.refine_exposure)
    assert PAPER.fields.view_input == "direction"


def _unit_centers(scene: Scene) -> torch.Tensor:
    world = np.stack([frame.camera.center for frame in scene.frames])
    return torch.tensor(scene.normalization.to_unit(world), dtype=torch.float32)


@pytest.mark.parametrize("axis", range(3))
def test_what_moves_turns_or_scales_the_whole_head_is_no_correction(
    scene: Scene, axis: int
) -> None:
    corrections = _random_corrections(scene)
    turns, shifts = (value.detach().clone() for value in corrections.motions())
    centers = _unit_centers(scene)
    unit = torch.eye(3)[axis].expand_as(centers)
    with torch.no_grad():  # all cameras look up a little: the head sinks
        nearer = centers / centers.square().sum(1, keepdim=True)
        corrections.rotation += 0.01 * torch.linalg.cross(nearer, unit)
        corrections.rotation += 0.02 * unit
        corrections.translation += 0.01 * torch.linalg.cross(unit, centers)
        corrections.translation += 0.01 * unit + 0.03 * centers
    after = corrections.motions()
    assert torch.allclose(after[0], turns, atol=1e-5)
    assert torch.allclose(after[1], shifts, atol=1e-5)


def test_one_cameras_own_turn_is_kept(scene: Scene) -> None:
    corrections = _random_corrections(scene)
    with torch.no_grad():
        corrections.rotation.zero_()
        corrections.translation.zero_()
        corrections.rotation[3] = torch.tensor([0.0, 0.0, 0.01])
    turns = corrections.motions()[0].detach()
    assert float(turns[3, 2]) > 0.006 and float(turns[:3].abs().max()) < 0.003


def test_poses_learn_only_from_steering_rays(scene: Scene) -> None:
    corrections = _random_corrections(scene)
    frame, origins = torch.arange(4), torch.zeros(4, 3)
    directions = torch.nn.functional.normalize(torch.ones(4, 3), dim=1)
    steering = torch.tensor([True, False, False, False])

    def taught(rays: torch.Tensor | None) -> torch.Tensor:
        corrections.zero_grad(set_to_none=True)
        moved = corrections.move(frame, origins, directions, rays)
        (moved[0] + moved[1])[1:, 0].sum().backward()
        assert corrections.rotation.grad is not None
        return corrections.rotation.grad.abs().sum()

    assert float(taught(steering)) == 0.0 and float(taught(None)) > 0.1
    with_rays, without = (corrections.move(frame, origins, directions, r) for r in (steering, None))
    assert torch.equal(with_rays[0], without[0]) and torch.equal(with_rays[1], without[1])
