"""The refinement benchmark spoils its inputs by what it says, and sees perfect corrections."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parent))
import stage1_scene

from toonify3d.scene import Scene
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
    spoiled, radius = bench.noisy(scene), scene.normalization.radius
    rows = list(zip(spoiled.frames, scene.frames, strict=True))
    turns = [
        Rotation.from_matrix(true.camera.c2w[:3, :3] @ frame.camera.c2w[:3, :3].T).as_rotvec()
        for frame, true in rows
    ]
    shifts = [(true.camera.center - frame.camera.center) / radius for frame, true in rows]
    none = torch.zeros((len(rows), 3))
    trainer = SimpleNamespace(
        training=spoiled.frames, corrections=SimpleNamespace(rotation=none, translation=none)
    )
    before = bench.camera_errors(trainer, scene)
    assert before["turn_deg"] > 0.05 and before["shift_percent"] > 0.1
    trainer.corrections = SimpleNamespace(
        rotation=torch.tensor(np.array(turns)), translation=torch.tensor(np.array(shifts))
    )
    after = bench.camera_errors(trainer, scene)
    assert after["turn_deg"] < 1e-3 and after["shift_percent"] < 5e-3


def test_cases_name_settings_that_exist(bench: ModuleType) -> None:
    for case in bench.CASES.values():
        assert case.spoiled in ("", "cameras", "exposure")
        assert all(hasattr(PriorSettings(), name) for name in case.settings)
