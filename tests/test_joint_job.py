"""A job whose shape and colours are learned at once hands stage III's inputs to stage II."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toonify3d import pipeline
from toonify3d.settings import preset_settings


class _StopError(Exception):
    pass


@pytest.mark.parametrize("joint", [True, False])
def test_stage_two_of_a_joint_job_gets_what_stage_three_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, joint: bool
) -> None:
    job, style = preset_settings("preview")
    style = replace(style, geometry=replace(style.geometry, joint=joint))
    portraits = SimpleNamespace(views=[], displacement=None, palette="palette", calm="calm")
    room = SimpleNamespace(grid=lambda *given: given)
    for name, value in {
        "step_keys": defaultdict(str),
        "step_folders": defaultdict(lambda: tmp_path),
        "load_prior": "prior",
        "load_mesh": None,
        "Room": room,
        "load_stylized": portraits,
    }.items():
        monkeypatch.setattr(pipeline, name, lambda *_, value=value: value)
    given: list[Any] = []

    def run_step(_: Any, name: str, *rest: Any) -> None:
        work: Callable[[], Any] = rest[-1]
        if name == "geometry":
            work()

    def adapt_geometry(*arguments: Any) -> None:
        given.extend(arguments)
        raise _StopError

    monkeypatch.setattr(pipeline, "run_step", run_step)
    monkeypatch.setattr(pipeline, "adapt_geometry", adapt_geometry)
    records = {"portraits": SimpleNamespace(figures={"room_light": {"strength": 0.4}})}
    context: Any = SimpleNamespace(
        job=SimpleNamespace(prior=tmp_path), reporter=None, device="cpu", records=records
    )
    with pytest.raises(_StopError):
        pipeline._style_steps(context, None, job, SimpleNamespace(settings=style))  # type: ignore[arg-type]
    training, texture = given[-2:]
    assert training is job.prior  # for a run without prior
    if joint:
        assert texture == (style.texture, "palette", (0.4, "cpu", "calm"))
    else:
        assert texture is None
