"""``request.json`` as Blender writes it, and as a script may get it wrong."""

from __future__ import annotations

import json

import pytest

from toonify3d.errors import InputError
from toonify3d.service.request import Request, load_request


def test_what_blender_writes_is_read(tmp_path):
    path = tmp_path / "request.json"
    document = {
        "command": "restyle",
        "exemplar": "toon.png",
        "strength": 1,
        "overrides": ["stylize.eyes_weight=1.2"],
        "from_a_newer_version": 7,
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    assert load_request(path) == Request(
        "restyle", exemplar="toon.png", strength=1, overrides=("stylize.eyes_weight=1.2",)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"overrides": 5},
        {"overrides": [5]},
        {"overrides": "prior.steps=3"},
        {"capture": 5},
        {"strength": "much"},
        {"longer": None},
        {"device": None},
        {"command": "bake"},
        {"command": ["resume"]},
    ],
)
def test_values_of_another_kind_are_one_sentence(tmp_path, wrong):
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"command": "resume"} | wrong), encoding="utf-8")
    with pytest.raises(InputError, match=next(iter(wrong))) as caught:
        load_request(path)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("text", [None, "{", "[]", "null"])
def test_no_request_at_all(tmp_path, text):
    path = tmp_path / "request.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_request(path)
    assert caught.value.code == "bad_request"
    assert "Errno" not in str(caught.value)
