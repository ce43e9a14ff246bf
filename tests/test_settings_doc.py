"""Settings that document themselves: read, override, rebuild."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

import pytest

from toonify3d.errors import InputError
from toonify3d.settings_doc import describe, field_docs, from_dict, override


@dataclass(frozen=True)
class Inner:
    steps: int = 10
    """How many steps."""
    rate: float | None = None
    """Learning rate."""


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    """Nested."""
    mode: Literal["a", "b"] = "a"
    """Which mode."""
    sizes: tuple[int, ...] = (1, 2)
    """Some sizes."""
    fast: bool = False
    """Go fast."""


def test_docs_are_the_strings_under_the_fields():
    assert field_docs(Inner) == {"steps": "How many steps.", "rate": "Learning rate."}
    assert ("inner.steps", "10", "How many steps.") in describe(Outer())


def test_override_parses_by_type():
    settings = override(Outer(), "inner.steps=20")
    settings = override(settings, "inner.rate=1e-3")
    settings = override(settings, "mode=b")
    settings = override(settings, "sizes=(3, 4)")
    settings = override(settings, "fast=true")
    assert settings == Outer(Inner(20, 1e-3), "b", (3, 4), True)
    assert override(settings, "inner.rate=none").inner.rate is None


@pytest.mark.parametrize("text", ["steps=1", "inner.steps=x", "mode=c", "fast=2", "x", "mode.y=1"])
def test_bad_overrides_are_one_sentence(text):
    with pytest.raises(InputError):
        override(Outer(), text)


def test_round_trip_through_json():
    settings = Outer(Inner(3, 0.5), "b", (7,), True)
    document = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert from_dict(Outer, document | {"unknown": 1}) == settings
