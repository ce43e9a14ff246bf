"""Values that no step can work with are refused when they are given."""

from __future__ import annotations

import math

import pytest

from toonify3d.errors import InputError
from toonify3d.settings import PRESETS, apply_overrides, preset_settings
from toonify3d.settings_limits import CHOICES, LIMITS, check_limits, leaves


def test_every_entry_names_a_setting():
    names = {name for group in preset_settings("preview") for name, _ in leaves(group)}
    assert set(LIMITS) <= names
    assert set(CHOICES) <= names
    assert not set(LIMITS) & set(CHOICES)


@pytest.mark.parametrize("preset", [*PRESETS, "tiny"])
def test_the_presets_keep_to_the_limits(preset):
    for group in preset_settings(preset):
        check_limits(group)


def test_each_limit_holds_on_both_sides():
    defaults = dict(pair for group in preset_settings("preview") for pair in leaves(group))
    tried = 0
    for name, (low, high) in LIMITS.items():
        whole = isinstance(defaults[name], int)
        for edge, step in ((low, -1), (high, 1)):
            if math.isinf(edge):
                continue
            within = edge if not whole else round(edge)
            outside = within + (step if whole else step * max(1e-3, 1e-6 * abs(edge)))
            apply_overrides(*preset_settings("preview"), [f"{name}={within!r}"])
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                apply_overrides(*preset_settings("preview"), [f"{name}={outside!r}"])
            tried += 1
    assert tried > len(LIMITS)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("prior.lr_network=-1", "at least 0"),
        ("prior.lr_network=inf", "at least 0"),
        ("stylize.strength=nan", "between 0 and 1.5"),
        ("prior.hull_inset=nan", "finite"),
        ("prior.sampler=quick", "guided, hierarchical"),
        ("capture.depth.neighbour_angles=5", "does not fit"),
        ("capture.depth.neighbour_angles=(5, 'x')", "does not fit"),
        ("capture.depth.neighbour_angles=(5, -1)", "at least 0"),
        ("preset=high", "--preset"),
        ("prior=3", "group of settings"),
        ("prior.stepz=3", "prior.steps"),
        ("steps=3", "geometry.steps"),
        ("nothing.like.it=1", "lists them"),
        ("=3", "lists them"),
        ("prior.steps", "NAME=VALUE"),
    ],
)
def test_bad_assignments_say_what_would_do(assignment, words):
    with pytest.raises(InputError) as caught:
        apply_overrides(*preset_settings("preview"), [assignment])
    assert words in str(caught.value)
    assert caught.value.code == "bad_setting"
