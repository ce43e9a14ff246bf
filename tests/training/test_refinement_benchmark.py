"""The refinement benchmark spoils its inputs by what it says, and sees perfect corrections."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene

from toonify3d.scene import Scene
from toonify3d.training.corrections import FrameCorrections
from toonify3d.training.settings import PriorSettings

PATH = Path(__file__).parents[2] / "benchmarks" / "refinement.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refinement_benchmark", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return stage1_scene.make_scene(tmp_path_factory.mktemp("refinement"), count=6, size=24)


def test_cameras_are_spoiled_by_the_stated_amounts(bench: ModuleType, scene: Scene) -> None:
    spoiled = bench.noisy(scene)
    for frame, true in zip(spoiled.frames, scene.frames, strict=True):
        turn = Rotation.from_matrix(frame.camera.c2w[:3, :3] @ true.camera.c2w[:3, :3].T)
        assert np.degrees(turn.magnitude()) == pytest.approx(bench.DEGREES, rel=1e-6)
        reach = np.linalg.norm(true.camera.center - scene.normalization.center)
        moved = np.linalg.norm(frame.camera.center - true.camera.center)
        assert moved == pytest.approx(bench.SHARE * reach, rel=1e-6)


def test_exposure_is_spoiled_within_the_stated_range(
    bench: ModuleType, scene: Scene, tmp_path: Path
) -> None:
    spoiled = bench.unevenly_exposed(scene, tmp_path)
    ratios = []
    for frame in scene.frames:
        inside = scene.mask(frame) > 127
        before, after = scene.image(frame)[inside], spoiled.image(frame)[inside]
        dark = before < 220  # nothing of it was cut off at white
        ratios.append(after[dark].astype(float).sum() / before[dark].sum())
    assert all(0.895 < ratio < 1.105 for ratio in ratios)
    assert max(ratios) - min(ratios) > 0.05
    assert np.array_equal(spoiled.mask(scene.frames[0]), scene.mask(scene.frames[0]))


def test_perfect_corrections_leave_no_error(bench: ModuleType, scene: Scene) -> None:
    spoiled = bench.noisy(scene)
    true = [frame.camera for frame in scene.frames]
    none = FrameCorrections(len(true), poses=False, exposure=False)
    before = bench.camera_errors(SimpleNamespace(training=spoiled.frames, corrections=none), scene)
    assert before["turn_deg"] > 0.05 and before["shift_percent"] > 0.1
    assert before["pixels"] > 0.01 and before["focal_percent"] == 0.0
    perfect = SimpleNamespace(corrected=lambda cameras, normalization: true)
    trainer = SimpleNamespace(training=spoiled.frames, corrections=perfect)
    after = bench.camera_errors(trainer, scene)
    assert all(abs(value) < 1e-9 for value in after.values())


def test_pixels_do_not_see_a_motion_of_the_world(bench: ModuleType, scene: Scene) -> None:
    similarity = np.eye(4)
    similarity[:3, :3] = 1.01 * Rotation.from_rotvec([0.01, -0.02, 0.005]).as_matrix()
    similarity[:3, 3] = [0.002, -0.001, 0.003]
    true = [frame.camera for frame in scene.frames]
    moved = [camera.transformed(similarity) for camera in true]
    assert bench.pixel_error(moved, true, scene.normalization) < 1e-3
    assert (
        bench.pixel_error(
            [frame.camera for frame in bench.noisy(scene).frames], true, scene.normalization
        )
        > 0.01
    )


def test_the_focal_length_is_spoiled_as_stated(bench: ModuleType, scene: Scene) -> None:
    for frame, true in zip(bench.too_long(scene).frames, scene.frames, strict=True):
        ratio = frame.camera.K / np.where(true.camera.K == 0, 1.0, true.camera.K)
        assert ratio[0, 0] == ratio[1, 1] == pytest.approx(1.0 + bench.FOCAL)
        assert np.array_equal(frame.camera.K[:, 2], true.camera.K[:, 2])


def test_cases_name_settings_that_exist(bench: ModuleType) -> None:
    for case in bench.CASES.values():
        assert case.spoiled in ("", "cameras", "focal", "exposure")
        assert all(hasattr(PriorSettings(), name) for name in case.settings)
