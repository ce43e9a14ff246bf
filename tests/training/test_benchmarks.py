"""The benchmarks of the fields compare like with like and name settings that exist."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from toonify3d.settings import apply_overrides, preset_settings
from toonify3d.snr.fields import FieldSettings, GeometryField
from toonify3d.snr.reference_grid import encode_reference
from toonify3d.training.settings import PAPER

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_plain_torch_grid_has_the_same_features() -> None:
    speed = load("field_speed")
    torch.manual_seed(0)
    field = GeometryField(FieldSettings(levels=4, finest_resolution=64, log2_table=12))
    with torch.no_grad():
        field.encoding.table.normal_()
    x = torch.rand(200, 3) * 1.8 - 0.9
    got = speed.torch_grid(field.encoding, x)
    want = encode_reference(x.double(), field.encoding.table.double(), field.encoding.levels, 4)[
        0
    ].flatten(1)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-4)


def test_double_backward_and_ours_give_the_same_gradients() -> None:
    speed = load("field_speed")
    torch.manual_seed(0)
    field = GeometryField(FieldSettings(levels=3, finest_resolution=32, log2_table=12))
    with torch.no_grad():
        field.encoding.table.normal_(std=0.1)
    x = torch.rand(300, 3) * 1.2 - 0.6
    speed.double_backward(field, x, True)
    other = field.encoding.table.grad.clone()
    field.zero_grad(set_to_none=True)
    sample = field.evaluate(x)
    speed.loss_of(sample.sdf, sample.gradient).backward()
    torch.testing.assert_close(field.encoding.table.grad, other, atol=1e-4, rtol=1e-3)


def test_every_row_of_the_ablations_is_a_setting_that_users_have() -> None:
    rows = load("ablations").ROWS
    job, style = preset_settings("preview")
    for row in rows.values():
        changed = apply_overrides(job, style, [f"{k}={v}" for k, v in row.settings.items()])
        assert (changed[1] != style) == bool(row.settings)
    assert {"full", "no_mvs", "no_ga", "no_ta", "no_prior", "joint"} <= set(rows)


def test_rows_of_the_ablations_are_what_the_switch_alone_does() -> None:
    """The product adds up the steps of the stages that a row replaces; the benchmark must not."""
    ablations = load("ablations")
    bench = object.__new__(ablations.Bench)
    bench.preset, bench.share = "preview", 0.5
    job, style = preset_settings("preview")
    for row in ablations.ROWS.values():
        wanted = apply_overrides(job, style, [f"{k}={v}" for k, v in row.settings.items()])[1]
        geometry, texture = bench.settings(row)
        assert geometry == replace(wanted.geometry, steps=style.geometry.steps // 2)
        assert texture == replace(wanted.texture, steps=style.texture.steps // 2)
    assert bench.prior_settings().steps == job.prior.steps // 2
    assert not bench.prior_settings().refine_cameras


def test_the_baseline_is_the_paper_preset_at_neus_own_rate() -> None:
    settings = load("baseline").settings_of("neus", 64)
    assert settings.fields == PAPER.fields and settings.sampler == "hierarchical"
    assert settings.lr_network == 5e-4 and settings.weight_mvs == 0.0


def test_the_baseline_table_finds_when_ours_was_as_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def curve(*pairs: tuple[float, float]) -> str:
        rows = [{"cpu_s": t, "step": 1.0, "median": m, "p95": 2 * m} for t, m in pairs]
        return json.dumps(rows)

    (tmp_path / "neus.json").write_text(curve((10, 5.0), (200, 0.5), (300, 0.9)))
    (tmp_path / "preview.json").write_text(curve((5, 0.8), (10, 0.4), (50, 0.1)))
    result = load("baseline").table(tmp_path)
    assert result["ratio_at_least"] == 20.0
    assert "preview" in capsys.readouterr().out
