"""What clicks, drags and keys do while a face is marked, and how pictures are turned: no bpy."""

import json
import math

import numpy as np
import pytest
from blender_addon.marking import Input, Marking, Outcome, Rect, View
from blender_addon.orientation import exif_orientation
from blender_addon.places import NEEDED, PLACES, arranged, complaint
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from toonify3d.errors import InputError
from toonify3d.portrait2d import clicks

FACE = {
    "right_eye": (210.0, 240.0),
    "left_eye": (330.0, 242.0),
    "nose": (270.0, 300.0),
    "mouth_right": (228.0, 352.0),
    "mouth_left": (312.0, 353.0),
}
CHIN = (270.0, 420.0)


FREE = Rect(60, 0, 700, 500)


def editor(points=()):
    return Marking(View((540, 600), FREE), dict(points))


def send(marking, kind, point=None, value="PRESS", command=False):
    """An event with the pointer over a picture point."""
    at = marking.pointer if point is None else marking.view.to_region(point)
    return marking.handle(Input(kind, value, *at, command))


def click(marking, point, value="PRESS"):
    outcome = send(marking, "LEFTMOUSE", point, value)
    send(marking, "LEFTMOUSE", point, "RELEASE")
    return outcome


def near(one, other, far=0.01):
    return math.dist(one, other) < far


def test_names_are_the_backends():
    assert NEEDED == clicks.CLICKS
    assert [place.name for place in PLACES] == list(clicks._INDICES)


def test_five_clicks_and_enter():
    marking = editor()
    for number, place in enumerate(PLACES[:5]):
        assert marking.prompt == f"{number + 1} of 5: {place.prompt}"
        assert send(marking, "RET") is Outcome.CHANGED and "more to click" in marking.note
        # Blender calls the second of two quick clicks a double click.
        value = "DOUBLE_CLICK" if number % 2 else "PRESS"
        assert click(marking, FACE[place.name], value) is Outcome.CHANGED
        assert marking.note == ""
    assert marking.prompt.startswith("Done? Press Enter")
    assert all(near(marking.result()[name], FACE[name]) for name in NEEDED)
    assert send(marking, "RET") is Outcome.DONE
    click(marking, CHIN)
    assert near(marking.result()["chin"], CHIN) and marking.next_place == ""
    click(marking, (40.0, 40.0))
    assert "All points are set" in marking.note and len(marking.points) == 6


def test_picture_and_region_count_from_opposite_corners():
    view = View((400, 200), Rect(0, 0, 800, 800))
    assert view.scale == pytest.approx(2 * 0.97)
    left, top = view.to_region((0, 0))
    right, bottom = view.to_region((400, 200))
    assert (left, right) == (pytest.approx(12), pytest.approx(788))
    assert top - bottom == pytest.approx(388) and top > bottom
    assert near(view.to_picture(left, top), (0, 0)) and view.inside((399, 199))


def test_undo_takes_back_clicks_and_drags():
    marking = editor()
    click(marking, (100.0, 100.0))
    send(marking, "LEFTMOUSE", (101.0, 101.0))
    assert marking.dragged == "right_eye"
    send(marking, "MOUSEMOVE", (151.0, 131.0), "NOTHING")
    send(marking, "LEFTMOUSE", (151.0, 131.0), "RELEASE")
    assert near(marking.points["right_eye"], (150.0, 130.0))  # held where it was taken
    click(marking, (300.0, 100.0))
    assert list(marking.points) == ["right_eye", "left_eye"]
    send(marking, "BACK_SPACE")
    assert list(marking.points) == ["right_eye"]
    send(marking, "Z")  # without Ctrl it is no undo
    assert near(marking.points["right_eye"], (150.0, 130.0))
    send(marking, "Z", command=True)
    assert near(marking.points["right_eye"], (100.0, 100.0))
    send(marking, "Z", command=True)
    send(marking, "Z", command=True)
    assert marking.points == {}


def test_undo_of_points_from_before():
    marking = editor(FACE)
    click(marking, FACE["nose"])  # taken hold of, not moved: nothing to undo
    send(marking, "BACK_SPACE")
    assert list(marking.points) == list(NEEDED[:-1])
    assert marking.next_place == "mouth_left"


def test_escape_gives_a_drag_back_first():
    marking = editor(FACE)
    send(marking, "LEFTMOUSE", FACE["nose"])
    send(marking, "MOUSEMOVE", (300.0, 320.0), "NOTHING")
    assert send(marking, "ESC") is Outcome.CHANGED
    assert marking.points == FACE and marking.dragged == ""
    assert send(marking, "RIGHTMOUSE") is Outcome.CANCELLED
    assert send(editor(), "ESC") is Outcome.CANCELLED


def test_points_stay_in_the_picture():
    marking = editor()
    assert click(marking, (-5.0, 100.0)) is Outcome.CHANGED
    assert marking.points == {} and marking.note == "Click inside the picture"
    send(marking, "LEFTMOUSE", (10.0, 10.0))
    send(marking, "MOUSEMOVE", (-80.0, 5000.0), "NOTHING")
    assert near(marking.points["right_eye"], (0.0, 600.0))


def test_zoom_keeps_the_place_under_the_pointer():
    marking = editor(FACE)
    at = marking.view.to_region(FACE["left_eye"])
    for kind in ("WHEELUPMOUSE",) * 40 + ("WHEELDOWNMOUSE",) * 3:
        marking.handle(Input(kind, "PRESS", *at))
    assert near(marking.view.to_region(FACE["left_eye"]), at, 0.1)
    assert marking.view.scale <= max(30 * View((540, 600), marking.view.free).scale, 8.0)
    marking.handle(Input("MIDDLEMOUSE", "PRESS", *at))
    marking.handle(Input("MOUSEMOVE", "NOTHING", at[0] + 30, at[1] - 20))
    marking.handle(Input("MIDDLEMOUSE", "RELEASE", at[0] + 30, at[1] - 20))
    marking.handle(Input("MOUSEMOVE", "NOTHING", 0, 0))
    moved = marking.view.to_region(FACE["left_eye"])
    assert near(moved, (at[0] + 30, at[1] - 20), 0.1)
    assert marking.points == FACE
    marking.view.pan(1e6, 1e6)
    assert marking.view.to_region((0, 0))[0] < marking.view.free.x + marking.view.free.width
    send(marking, "HOME")
    assert marking.view.scale == View((540, 600), marking.view.free).scale


def test_buttons_do_what_the_keys_do():
    marking = editor(FACE | {"chin": CHIN})

    def press(name):
        rect = next(rect for key, _, rect in marking.buttons() if key == name)
        at = rect.x + rect.width / 2, rect.y + rect.height / 2
        return marking.handle(Input("LEFTMOUSE", "PRESS", *at))

    assert press("undo") is Outcome.CHANGED and "chin" not in marking.points
    assert press("done") is Outcome.DONE and press("cancel") is Outcome.CANCELLED
    press("undo")
    assert press("done") is Outcome.CHANGED and marking.note == "1 more to click"


def test_other_keys_and_releases_do_nothing():
    marking = editor(FACE)
    for kind in ("G", "X", "TAB", "SPACE", "A"):
        assert send(marking, kind) is Outcome.NOTHING
    assert send(marking, "RET", value="RELEASE") is Outcome.NOTHING
    assert marking.points == FACE


def test_sides_that_are_mixed_up_do_not_matter():
    mixed = dict(FACE)
    for one, other in (("right_eye", "left_eye"), ("mouth_right", "mouth_left")):
        mixed[one], mixed[other] = mixed[other], mixed[one]
    assert arranged(mixed) == FACE == arranged(FACE)
    assert complaint(arranged(mixed)) == ""


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"left_eye": (211.0, 240.0)}, "eyes"),
        ({"mouth_left": (229.0, 352.0)}, "corners"),
        ({"nose": (270.0, 230.0)}, "nose"),
        ({"mouth_right": (228.0, 290.0), "mouth_left": (312.0, 290.0)}, "mouth"),
        ({"chin": (270.0, 340.0)}, "chin"),
    ],
)
def test_what_is_no_face_is_said(changes, word):
    assert word in complaint(arranged(FACE | changes))


coordinates = st.tuples(st.floats(0, 300), st.floats(0, 300))


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[coordinates] * 5))
@example(((0.0, 5.0), (0.00390625, 0.0), (1.0, 0.0), (0.0, 0.0), (3.0, 1.0)))
@example(((0.0, 4.0), (1.0, 0.0), (2.0, 0.0), (8.0, 3.0), (0.0, 0.0)))
def test_what_the_editor_takes_the_backend_takes(tmp_path_factory, places):
    points = arranged(dict(zip(NEEDED, places, strict=True)))
    if complaint(points):
        return
    path = tmp_path_factory.getbasetemp() / "face.json"
    path.write_text(json.dumps({name: [round(v, 2) for v in at] for name, at in points.items()}))
    try:
        found = clicks.read_landmarks(path, 1.0)
    except InputError as error:  # 4 pixels between the eyes, or one above the other: rounding
        across = points["left_eye"][0] - points["right_eye"][0]
        assert across < 0.02 or math.dist(points["right_eye"], points["left_eye"]) < 4.02, error
        return
    assert np.isfinite(found).all()
    sides = found[list(clicks._INDICES["left_eye"])] - found[list(clicks._INDICES["right_eye"])]
    clicked = np.subtract(points["left_eye"], points["right_eye"])  # the face may lie on its side
    assert sides.mean(0)[:2] @ clicked > 0


# -- the Exif orientation -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_orientation_is_read(tmp_path, ending, orientation):
    path = tmp_path / f"picture.{ending}"
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.new("RGB", (40, 20), (200, 10, 10)).save(path, exif=exif)
    assert exif_orientation(path) == (orientation or 1)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\xff", b"II*\0\xff\xff\xff\x7f", b"RIFF1234WEBP"]
)
def test_broken_files_are_upright(tmp_path, data):
    path = tmp_path / "broken"
    path.write_bytes(data)
    assert exif_orientation(path) == 1 == exif_orientation(tmp_path / "none")
