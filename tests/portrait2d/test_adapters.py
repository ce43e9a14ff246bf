"""Stylizers that the user brings: the real loading code on small files of the same form."""

from __future__ import annotations

import dataclasses
import sys
import time

import numpy as np
import pytest
from fake_vtoonify import make_checkout
from portrait2d_person import made_up_photos

from toonify3d.errors import CancelledError, InputError
from toonify3d.files import write_image
from toonify3d.portrait2d.adapters.base import open_stylizer, stylize_with
from toonify3d.portrait2d.adapters.command import Command
from toonify3d.portrait2d.adapters.settings import AdapterSettings, absolute_paths
from toonify3d.portrait2d.folder import load_folder_views
from toonify3d.portrait2d.hand_out import hand_out
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.store import load_stylized
from toonify3d.progress import SilentProgress

# -- command ----------------------------------------------------------------------------------

NEGATIVE = (
    "import sys, cv2, pathlib\n"
    "a, b = map(pathlib.Path, sys.argv[1:3])\n"
    "pairs = [(p, b / p.name) for p in a.iterdir()] if a.is_dir() else [(a, b)]\n"
    "[cv2.imwrite(str(y), 255 - cv2.imread(str(x))) for x, y in pairs]\n"
)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "a program.py"
    path.write_text(NEGATIVE, encoding="utf-8")
    return f"'{sys.executable}' '{path}'"


@pytest.mark.parametrize("marks", ["{input} {output}", "{input_dir} {output_dir}"])
def test_command_stylizes_every_frame(subject, program, marks):
    scene, _ = subject
    photos = made_up_photos(scene)
    stylizer = open_stylizer("command", AdapterSettings(command=f"{program} {marks}"), "cpu")
    made = stylizer.stylize(photos, SilentProgress())
    assert list(made) == [photo.frame.name for photo in photos]
    for photo in photos:
        assert np.array_equal(made[photo.frame.name], 255 - photo.image)


def test_a_whole_set_goes_through_masks_and_files(subject, program, tmp_path):
    scene, _ = subject
    stylizer = open_stylizer(
        "command", AdapterSettings(command=f"{program} {{input_dir}} {{output_dir}}"), "cpu"
    )
    made = stylize_with(
        stylizer, scene, tmp_path / "out", StylizeSettings(max_yaw=0.6), SilentProgress()
    )
    again = load_stylized(tmp_path / "out", scene)
    assert len(again.views) == len(made.views) >= 4
    for view in again.views:
        truth = scene.mask(view.frame) > 127
        found = view.mask > 127
        assert (truth & found).sum() / (truth | found).sum() > 0.9
        assert np.array_equal(view.image, 255 - scene.image(view.frame))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "needs a program"),
        ("tool {input}", "needs a program"),
        ("tool 'x {input} {output}", "cannot be read"),
        ("/no/such/tool {input} {output}", "cannot be started"),
        (
            f"{sys.executable} -c 'raise SystemExit(\"no GPU here\")' {{input}} {{output}}",
            "failed with 1: no GPU here",
        ),
    ],
)
def test_bad_commands_get_a_sentence(subject, command, sentence):
    scene, _ = subject
    with pytest.raises(InputError, match=sentence):
        open_stylizer("command", AdapterSettings(command=command), "cpu").stylize(
            made_up_photos(scene), SilentProgress()
        )


def test_a_program_that_is_not_there_is_missed_before_the_job_starts(tmp_path):
    plain = tmp_path / "not_executable.py"
    plain.write_text("print(1)", encoding="utf-8")
    for program in ("no-such-program", str(tmp_path / "gone"), str(tmp_path), str(plain)):
        settings = AdapterSettings(command=f"'{program}' {{input}} {{output}}")
        with pytest.raises(InputError, match=r"cannot be started.*adapter\.command"):
            open_stylizer("command", settings, "cpu")


def test_a_program_that_hangs_is_stopped(subject):
    scene, _ = subject
    command = f"{sys.executable} -c 'import time; time.sleep(60)' {{input}} {{output}}"
    settings = AdapterSettings(command=command, timeout=0.5)
    with pytest.raises(InputError, match="did not end within"):
        open_stylizer("command", settings, "cpu").stylize(made_up_photos(scene), SilentProgress())


class _Cancelled(SilentProgress):
    """The user cancels while the program is at work."""

    updates = 0

    def update(self, fraction: float, message: str = "") -> None:
        self.updates += 1
        if self.updates == 4:
            raise CancelledError("Cancelled; the job can be resumed.")


@pytest.mark.parametrize("marks", ["{input} {output}", "{input_dir} {output_dir}"])
def test_cancel_reaches_a_running_program(subject, marks):
    command = f"{sys.executable} -c 'import time; time.sleep(60)' {marks}"
    stylizer, started = Command(AdapterSettings(command=command)), time.monotonic()
    with pytest.raises(CancelledError):
        stylizer.stylize(made_up_photos(subject[0]), _Cancelled())
    assert time.monotonic() - started < 20


PAINTED = (
    "import sys, cv2, pathlib, numpy as np\n"
    "a, b = map(pathlib.Path, sys.argv[1:3])\n"
    "for p in sorted(a.iterdir()):\n"
    "    photo = cv2.imread(str(p))\n"
    "    cv2.imwrite(str(b / p.name), eval(sys.argv[3], dict(photo=photo, name=p.stem, np=np)))\n"
)


def _painted(scene, folder, expression):
    """What a program that paints ``expression`` makes of the front and back frames."""
    script = folder / "painter.py"
    script.write_text(PAINTED, encoding="utf-8")
    command = f"'{sys.executable}' '{script}' {{input_dir}} {{output_dir}} '{expression}'"
    stylizer, progress = Command(AdapterSettings(command=command)), SilentProgress()
    settings = StylizeSettings(max_yaw=0.6)
    return stylize_with(stylizer, scene, folder / "out", settings, progress), progress.warnings


@pytest.mark.parametrize("color", [0, 255])
def test_a_program_that_makes_blank_pictures(subject, tmp_path, color):
    scene, _ = subject
    with pytest.raises(InputError, match="No person is found in any") as caught:
        _painted(scene, tmp_path, f"np.full_like(photo, {color})")
    assert caught.value.code == "portraits_blank"


def test_single_blank_pictures_are_left_out(subject, tmp_path):
    scene, _ = subject
    blank = scene.frames[8].name
    made, warnings = _painted(scene, tmp_path, f'photo * (name != "{blank}")')
    assert len(made.views) >= 4 and blank not in [view.frame.name for view in made.views]
    assert [w for w in warnings if f"show no person and are left out ({blank}.png)" in w]
    assert not (tmp_path / "out" / f"{blank}.png").exists()


def test_a_program_that_writes_nothing(subject, tmp_path):
    scene, _ = subject
    settings = AdapterSettings(command=f"{sys.executable} -c pass {{input}} {{output}}")
    with pytest.raises(InputError, match="gave back no picture"):
        stylize_with(
            open_stylizer("command", settings, "cpu"),
            scene,
            tmp_path,
            StylizeSettings(max_yaw=0.6),
            SilentProgress(),
        )


# -- VToonify ---------------------------------------------------------------------------------


def _vtoonify(folder, **changes):
    model = make_checkout(folder, changes.pop("pickled", False), changes.pop("styles", 3))
    settings = AdapterSettings(checkout=str(folder), model=str(model), trust_pickles=True)
    return dataclasses.replace(settings, **changes)


def test_vtoonify_runs_the_users_clone(subject, tmp_path):
    scene, _ = subject
    photos = made_up_photos(scene, 2)
    settings = _vtoonify(tmp_path, style_id=1, style_degree=0.5)
    progress = SilentProgress()
    made = open_stylizer("vtoonify", settings, "cpu").stylize(photos, progress)
    assert any("non-commercial" in warning for warning in progress.warnings)
    photo = photos[0]
    height, width = photo.image.shape[:2]
    middle = np.s_[height // 2 - 10 : height // 2 + 10, width // 2 - 10 : width // 2 + 10]
    expected = photo.image[middle][..., ::-1] + 0.5 * 0.4 * 127.5  # red and blue swapped, lifted
    found = made[photo.frame.name][middle].astype(float)
    assert np.abs(found - np.clip(expected, 0, 255)).mean() < 12.0


def test_vtoonify_leaves_out_frames_without_a_face(subject, tmp_path):
    scene, _ = subject
    photos = [*made_up_photos(scene, 2), *made_up_photos(scene, 4, face=False)[2:]]
    progress = SilentProgress()
    settings = _vtoonify(tmp_path, styles=0)
    made = open_stylizer("vtoonify", settings, "cpu").stylize(photos, progress)
    assert set(made) == {photo.frame.name for photo in photos[:2]}
    assert any("2 frames without a face" in warning for warning in progress.warnings)


@pytest.mark.parametrize(("pickled", "styles"), [(True, 0), (False, 3)])
def test_vtoonify_pickles_need_consent(subject, tmp_path, pickled, styles):
    """Refused before the job starts, and again by the process that would load them."""
    scene, _ = subject
    settings = _vtoonify(tmp_path, pickled=pickled, styles=styles)
    refused = dataclasses.replace(settings, trust_pickles=False)
    with pytest.raises(InputError, match=r"Python pickle.*trust_pickles=true"):
        open_stylizer("vtoonify", refused, "cpu")
    stylizer = open_stylizer("vtoonify", settings, "cpu")
    stylizer.settings = refused
    with pytest.raises(InputError, match=r"Python pickle.*trust_pickles=true"):
        stylizer.stylize(made_up_photos(scene), SilentProgress())


def test_vtoonify_without_pickles_needs_no_consent(subject, tmp_path):
    scene, _ = subject
    settings = _vtoonify(tmp_path, styles=0, trust_pickles=False)
    made = open_stylizer("vtoonify", settings, "cpu").stylize(
        made_up_photos(scene, 1), SilentProgress()
    )
    assert len(made) == 1


def test_cancel_reaches_vtoonify(subject, tmp_path):
    settings, started = _vtoonify(tmp_path), time.monotonic()
    (tmp_path / "util.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    with pytest.raises(CancelledError):
        open_stylizer("vtoonify", settings, "cpu").stylize(made_up_photos(subject[0]), _Cancelled())
    assert time.monotonic() - started < 30


def test_vtoonify_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="your clone"):
        open_stylizer("vtoonify", AdapterSettings(), "cpu")
    settings = _vtoonify(tmp_path)
    (tmp_path / "checkpoint" / "encoder.pt").unlink()
    with pytest.raises(InputError, match=r"encoder\.pt' is missing"):
        open_stylizer("vtoonify", settings, "cpu")
    settings = _vtoonify(tmp_path / "other", python=str(tmp_path / "no" / "python"))
    with pytest.raises(InputError, match=r"no/python.*adapter\.python"):
        open_stylizer("vtoonify", settings, "cpu")


# -- handing out ------------------------------------------------------------------------------


def test_frames_handed_out_are_read_back(subject, tmp_path):
    scene, _ = subject
    names = hand_out(scene, None, tmp_path / "out", StylizeSettings(max_yaw=0.6), SilentProgress())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    views = load_folder_views(
        scene, tmp_path / "out", None, StylizeSettings(), SilentProgress()
    ).views
    assert len(views) == len(names) >= 4
    assert all(np.array_equal(v.image, scene.image(v.frame)) for v in views)


def test_a_styles_portraits_keep_their_sides(subject, tmp_path):
    """The built-in stylizer paints from the sides too; reading back must not lose them."""
    scene, _ = subject
    portraits, painted = tmp_path / "portraits2d", scene.frames[::2]
    for frame in painted:
        write_image(portraits / f"{frame.name}.png", 255 - scene.image(frame))
    names = hand_out(scene, portraits, tmp_path / "out", StylizeSettings(), SilentProgress())
    assert names == [f"{frame.source_index:04d}.png" for frame in painted]
    read = load_folder_views(scene, tmp_path / "out", None, StylizeSettings(), SilentProgress())
    assert [view.frame.name for view in read.views] == [frame.name for frame in painted]
    assert all(np.array_equal(v.image, 255 - scene.image(v.frame)) for v in read.views)


def test_painted_pictures_are_never_written_over(subject, tmp_path):
    scene, _ = subject
    write_image(tmp_path / "0001.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="not an empty folder"):
        hand_out(scene, None, tmp_path, StylizeSettings(), SilentProgress())


def test_paths_in_a_job_hold_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_paths(AdapterSettings(model="a.onnx")).model == str(tmp_path / "a.onnx")
    python = absolute_paths(AdapterSettings(python="venv/bin/python")).python
    assert python == str(tmp_path / "venv" / "bin" / "python")
    assert absolute_paths(AdapterSettings(python="python3")).python == "python3"
    clone = absolute_paths(AdapterSettings(checkout="clone", model="checkpoint/x.pt"))
    assert (clone.checkout, clone.model) == (str(tmp_path / "clone"), "checkpoint/x.pt")
