"""Patches are compared on the job's device, whatever else the machine has."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from portrait2d_person import draw_face, face_landmarks

from toonify3d import pipeline as jobs
from toonify3d.files import write_image
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress


@pytest.fixture(scope="module")
def person(subject):
    scene, mesh = subject
    return pipeline.study_person(scene, mesh, SilentProgress())


def _paint(subject, person, folder: Path, device: str) -> np.ndarray:
    scene, mesh = subject
    image, at = draw_face(face_landmarks(), 300, 70.0)
    waves = 16 * np.sin(np.mgrid[:300, :300].sum(0) / 1.7)
    painting = np.clip(image * 0.85 + 20 + waves[..., None], 0, 255).astype(np.uint8)
    write_image(folder / "painting.png", painting)
    (folder / "points.json").write_text(json.dumps(at.tolist()))
    done = pipeline.stylize_views(
        scene,
        mesh,
        folder / "painting.png",
        folder / "out",
        StylizeSettings(look="paint"),
        SilentProgress(),
        landmarks_file=folder / "points.json",
        frames=[min(scene.frames, key=lambda f: abs(f.yaw))],
        person=person,
        device=device,
    )
    return done.views[0].image


def test_the_search_runs_where_it_is_told(subject, person, tmp_path, monkeypatch):
    """A machine that says it has CUDA is not asked to use it; another device is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _paint(subject, person, tmp_path, "cpu").shape == (200, 160, 3)
    with pytest.raises(NotImplementedError, match="meta"):  # torch's device without values
        _paint(subject, person, tmp_path, "meta")


@pytest.mark.cuda
def test_both_devices_paint_the_same(subject, person, tmp_path):
    one, two = (_paint(subject, person, tmp_path, device) for device in ("cpu", "cuda"))
    # Sums in another order let a few patches of equal cost change places.
    assert (np.abs(one.astype(int) - two).max(2) > 2).mean() < 0.02


def test_a_job_hands_its_device_on(tmp_path, monkeypatch):
    asked = []

    def stylize(*args, device, **more):
        asked.append(device)
        return SimpleNamespace(views=[], delight=0.0)

    monkeypatch.setattr(jobs, "study_person", lambda *args: None)
    monkeypatch.setattr(jobs, "stylize_views", stylize)
    room = SimpleNamespace(
        scene=None, prior_mesh=None, light=lambda person: None, figures=lambda strength: None
    )
    settings = SimpleNamespace(stylize=StylizeSettings())
    style = SimpleNamespace(
        portraits=None, stylizer="builtin", settings=settings, exemplar=None, landmarks=None
    )
    for device in ("cpu", "cuda"):
        jobs._make_portraits(style, room, tmp_path, device, SilentProgress())
    assert asked == ["cpu", "cuda"]
