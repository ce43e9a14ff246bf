"""``refine``: a finished style again, its stages II and III longer, its portraits taken over."""

from __future__ import annotations

import dataclasses

import pytest

from toonify3d.errors import InputError
from toonify3d.plan import _stored_style, prepare, step_keys, unfinished
from toonify3d.service.job import JobFolder, StepRecord, finish_step
from toonify3d.service.request import Request
from toonify3d.settings import preset_settings


@pytest.fixture
def job(tmp_path):
    """A job with one style whose 2D portraits are finished."""
    film = tmp_path / "film.mp4"
    film.write_bytes(b"film")
    folder = JobFolder(tmp_path / "job")
    settings, style = preset_settings("preview")
    style = dataclasses.replace(style, stylize=dataclasses.replace(style.stylize, strength=0.4))
    folder.create(film, dataclasses.asdict(settings))
    description = {
        "exemplar_sha256": "0",
        "stylizer": "builtin",
        "portraits": None,
        "portraits_sha256": None,
        "settings": dataclasses.asdict(style),
    }
    folder.add_style("toon", description)
    portraits = folder.style("toon") / "portraits2d"
    portraits.mkdir(parents=True)
    (folder.style("toon") / "exemplar.png").write_bytes(b"picture")
    key = step_keys(folder, settings, _stored_style(folder, "toon"))["portraits"]
    finish_step(portraits, StepRecord(key, 1.0, (), {}))
    return folder


def test_refine_trains_longer_and_keeps_the_rest(job):
    settings, style = prepare(Request("refine", longer=3.0), job)
    before = preset_settings("preview")[1]
    assert style.name == "toon-refined"
    assert style.settings.geometry.steps == 3 * before.geometry.steps
    assert style.settings.texture.steps == 3 * before.texture.steps
    assert style.settings.stylize.strength == 0.4
    assert unfinished(job, settings, style) == ["capture", "prior", "geometry", "texture", "asset"]
    # The earlier style stays as it was, and a second refinement builds on the first.
    assert set(job.description["styles"]) == {"toon", "toon-refined"}
    assert prepare(Request("refine", style="toon-refined"), job)[1].name == "toon-refined-refined"


@pytest.mark.parametrize("request_", [Request("refine", style="no"), Request("refine", longer=1.0)])
def test_bad_refinements(job, request_):
    with pytest.raises(InputError):
        prepare(request_, job)
    assert list(job.description["styles"]) == ["toon"]


@pytest.mark.parametrize("command", ["refine", "restyle"])
def test_a_style_cannot_change_the_reconstruction(job, command):
    request = Request(command, exemplar="unread.png", overrides=("prior.steps=9",))
    with pytest.raises(InputError, match="new job folder"):
        prepare(request, job)
