"""The benchmarks of the fields compare like with like and name settings that exist."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from toonify3d.scene import Normalization
from toonify3d.settings import apply_overrides, preset_settings
from toonify3d.snr.fields import FieldSettings, GeometryField
from toonify3d.snr.prior import Prior
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


def ablations_with_a_given_prior(monkeypatch: pytest.MonkeyPatch, trained_steps: int):
    ablations = load("ablations")
    bench = ablations.Bench.__new__(ablations.Bench)
    bench.preset, bench.share, bench.given = "preview", 0.5, Path("given")
    bench.out, bench.scene = Path("out"), SimpleNamespace(root=Path("out/scene"))
    settings = preset_settings("preview")[0].prior
    state = {"settings": asdict(replace(settings, steps=trained_steps))}
    monkeypatch.setattr(ablations, "load_checkpoint", lambda folder, device: state)
    monkeypatch.setattr(ablations, "load_prior", lambda folder, device: "given")
    monkeypatch.setattr(ablations, "train_prior", lambda scene, folder, settings, *_: settings)
    return bench, settings.steps // 2


def test_a_given_prior_is_not_passed_off_as_one_without_mvs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, steps = ablations_with_a_given_prior(monkeypatch, trained_steps=1000)
    assert bench.prior("prior") == "given"
    without = bench.prior("prior_no_mvs")
    assert without.weight_mvs == 0.0 and without.steps == steps


def test_no_mvs_is_refused_when_it_would_differ_by_more_than_mvs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench, _ = ablations_with_a_given_prior(monkeypatch, trained_steps=777)
    with pytest.raises(SystemExit, match="other steps"):
        bench.prior("prior_no_mvs")


def a_prior(layers: int) -> Prior:
    torch.manual_seed(0)
    fields = FieldSettings(levels=3, finest_resolution=32, log2_table=12, geometry_layers=layers)
    return Prior(fields, Normalization(np.zeros(3), 1.0))


@pytest.mark.parametrize("layers", [1, 2])
def test_counted_flops_of_the_layers_are_those_that_run(layers: int) -> None:
    roofline = load("roofline")
    prior = a_prior(layers)
    x = torch.rand(200, 3) - 0.5
    encoded, jacobian = (
        value.detach().requires_grad_(True) for value in prior.geometry.encoding(x)
    )
    prior.geometry.encoding = roofline.FixedEncoding(encoded, jacobian)
    with FlopCounterMode(display=False) as counter:
        surface = prior.evaluate(x)
        (surface.sdf.sum() + surface.gradient.square().sum() + surface.feature.sum()).backward()
    counted = roofline.geometry_work(prior.settings, encoded.shape[1], len(x)).flops
    # The rest of what is counted is element-wise, which FlopCounterMode leaves out.
    assert counter.get_total_flops() <= counted <= 1.05 * counter.get_total_flops()

    inputs = [value.detach().requires_grad_(True) for value in surface]
    sizes = [layer.in_features for layer in prior.appearance.layers] + [3]
    with FlopCounterMode(display=False) as counter:
        prior.radiance(x, type(surface)(*inputs), torch.ones_like(x)).sum().backward()
    counted = roofline.appearance_work(sizes, len(x)).flops
    assert counter.get_total_flops() <= counted <= 1.05 * counter.get_total_flops()


def test_layers_timed_alone_answer_as_in_the_field_and_leave_it_whole() -> None:
    roofline = load("roofline")
    prior = a_prior(1)
    own, x = prior.geometry.encoding, torch.rand(50, 3) - 0.5
    want = prior.evaluate(x)
    answers = []

    class Meter:
        def add(self, name, work, points):
            work()
            answers.append(prior.evaluate(x))
            return 2.0

    assert roofline.time_geometry(Meter(), prior, x) == pytest.approx(1e-4)
    assert prior.geometry.encoding is own
    for got, wanted in zip(answers[0], want, strict=True):
        torch.testing.assert_close(got, wanted)
    assert prior.geometry.layers[0].weight.grad is not None and own.table.grad is None


def test_points_are_counted_where_they_are_evaluated() -> None:
    stage_speed = load("stage_speed")
    prior, x = a_prior(1), torch.rand(10, 3) - 0.5
    kept = GeometryField.evaluate
    with stage_speed.counting() as counts:
        surface = prior.evaluate(x)
        prior.radiance(x, surface, torch.ones_like(x))
        prior.sdf(x[:7])
        prior.sdf_gradient(x[:3])
        with torch.no_grad():
            prior.sdf(x[:2])
    assert counts == {
        "normals": 10, "colours": 10, "distances": 7, "looked up normals": 3,
        "looked up distances": 2,
    }  # fmt: skip
    assert GeometryField.evaluate is kept


def test_a_stage_is_measured_between_its_first_and_last_step() -> None:
    stage_speed = load("stage_speed")
    counts = stage_speed.Counter()
    watch = stage_speed.Watch(counts)
    counts["normals"] = 5000  # preparation
    watch.update(0.0)
    for step in range(1, 11):
        counts["normals"] += 60
        watch.update(step / 10)
    row = watch.per_step(10)
    assert row["normals"] == pytest.approx(60) and row["cpu_ms"] >= 0.0
    with pytest.raises(ValueError, match="two of its steps"):
        stage_speed.Watch(counts).per_step(10)


def test_speed_compares_by_cpu_seconds_on_a_cpu_and_by_the_wall_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    speed = load("speed")
    steps = {
        "preview": {"rays": 1000, "cpu_ms": 50.0, "wall_ms": 10.0},
        "standard": {"rays": 1000, "cpu_ms": 100.0, "wall_ms": 20.0},
        "paper": {"rays": 10, "cpu_ms": 100.0, "wall_ms": 30.0},
    }
    document = {"device": "cpu", "steps": steps, "fields": {"ratios": {"grid": 7.0}}}
    got = speed.ratios(document)
    assert got["grid"] == 7.0 and got["step_preview_over_paper_per_ray"] == pytest.approx(200.0)
    document["device"] = "cuda"
    assert speed.ratios(document)["step_preview_over_paper_per_ray"] == pytest.approx(300.0)


def test_reached_shares_are_of_the_measured_rates() -> None:
    roofline = load("roofline")
    machine = {"matmul_gflop_s": 50.0, "copy_gb_s": 10.0}
    row = roofline.reached(roofline.Work(flops=1e9, bytes=2e9), 0.4, machine)
    assert row["of_matmul"] == pytest.approx(0.05) and row["of_copy"] == pytest.approx(0.5)
    assert row["ms"] == pytest.approx(400.0) and row["mb"] == pytest.approx(2000.0)
