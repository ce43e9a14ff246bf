"""Wrapping of sentences, with a stand-in for bpy."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture
def texts(monkeypatch):
    """The module, without Blender's fonts: a letter is 6 pixels wide."""
    region = SimpleNamespace(width=80 + 20 + 6 * 20)
    styles = [SimpleNamespace(widget=SimpleNamespace(points=11))]
    preferences = SimpleNamespace(system=SimpleNamespace(ui_scale=1.0), ui_styles=styles)
    bpy, blf = ModuleType("bpy"), ModuleType("blf")
    bpy.context = SimpleNamespace(region=region, preferences=preferences)
    blf.size = lambda font, size: None
    blf.dimensions = lambda font, text: (6.0 * len(text), 11.0)
    monkeypatch.setitem(sys.modules, "bpy", bpy)
    monkeypatch.setitem(sys.modules, "blf", blf)
    monkeypatch.delitem(sys.modules, "blender_addon.texts", raising=False)
    yield importlib.import_module("blender_addon.texts")
    sys.modules.pop("blender_addon.texts", None)


class Layout:
    """Collects labels."""

    def __init__(self):
        self.rows = []

    def column(self, align):
        """The same layout."""
        return self

    def label(self, text, icon):
        """Remember it."""
        self.rows.append((text, icon))


def test_lines_fit_into_the_region_and_lose_nothing(texts):
    sentence = "An arc of about 138 degrees is missing at 3 o'clock"
    layout = Layout()
    texts.draw_text(layout, sentence, icon="ERROR")
    assert " ".join(text for text, _ in layout.rows) == sentence
    assert max(len(text) for text, _ in layout.rows) <= 20
    assert [icon for _, icon in layout.rows] == ["ERROR"] + ["BLANK1"] * (len(layout.rows) - 1)
    plain = Layout()
    texts.draw_text(plain, sentence)
    assert max(len(text) for text, _ in plain.rows) in range(20, 24)  # an icon's width more


def test_long_words_and_long_texts(texts):
    assert texts.wrapped("a " + "b" * 60 + " c", 10) == ["a", "b" * 60, "c"]
    assert texts.wrapped("") == [""]
    lines = texts.wrapped("word " * 200, 10)
    assert len(lines) == texts.MAX_LINES and lines[-1].endswith("...")


def test_of_a_long_name_the_middle_is_left_out(texts):
    layout = Layout()
    texts.draw_name(layout, "VID_20261122_155912_full_circle.mp4", "FILE_MOVIE")
    texts.draw_name(layout, "short.png", "FILE_IMAGE")
    long, short = (text for text, _ in layout.rows)
    assert len(long) == 20 and "..." in long
    assert long.startswith("VID_2026") and long.endswith("cle.mp4")
    assert short == "short.png"


def test_paths_are_broken_at_separators(texts):
    sentence = "There is no job in /home/someone/films/circle-001 any more"
    lines = texts.wrapped(sentence, 20)
    assert max(map(len, lines)) <= 20
    assert lines[1:3] == ["/home/someone/films/", "circle-001 any more"]
    windows = texts.wrapped(r"C:\Users\someone\films\circle-001 is gone", 20)
    assert max(map(len, windows)) <= 20 and windows[0] == "C:\\Users\\someone\\"


def test_two_buttons_stand_below_each_other_where_it_is_narrow(texts):
    kinds = SimpleNamespace(row=lambda align: "row", column=lambda align: "column")
    for width, wanted in ((200, "column"), (texts.NARROW, "row"), (0, "row")):
        texts.bpy.context.region = SimpleNamespace(width=width)
        assert texts.beside(kinds) == wanted
    texts.bpy.context.region = None
    assert texts.beside(kinds) == "row"
