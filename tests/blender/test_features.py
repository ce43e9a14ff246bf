"""Capture check, exemplars, sliders, cost of a preset, live view, bake: without bpy and in it."""

import json
import os
import sys
from pathlib import Path

import pytest
from blender_addon import estimates
from blender_addon.capture_check import CaptureCheck, read_findings
from blender_addon.task import Task
from harness import ROOT, run_in_bpy

FAKE = ROOT / "tests" / "blender" / "fake_worker.py"
posix = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script")


def fake_python(folder):
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


# -- the table that the backend writes ------------------------------------------------------------


def test_the_committed_table_is_the_backends():
    """``python -m toonify3d.settings_table blender_addon/settings.json`` brings it up to date."""
    from toonify3d.settings_table import settings_table

    assert json.loads(estimates.SETTINGS.read_text("utf-8")) == settings_table()


# -- what a preset costs --------------------------------------------------------------------------


def write_report(folder, seconds, cached=(), device="cpu", preset="preview", **peaks):
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "preset": preset,
        "device": device,
        "seconds": dict.fromkeys(estimates.settings_table()["seconds"], seconds),
        "steps_from_cache": list(cached),
        **{"peak_rss_mb": 2048.0, "peak_vram_mb": 0.0, **peaks},
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_nothing_measured_here_yet():
    preview = estimates.estimate("preview", "cpu", {})
    assert preview.seconds == pytest.approx(313, abs=60)
    assert preview.measured and not preview.here
    assert "measured on 2 CPU cores" in preview.text()
    standard = estimates.estimate("standard", "cpu", {})
    assert standard.seconds > 2 * preview.seconds and standard.memory_gb > preview.memory_gb
    assert not standard.measured and "estimated" in standard.text()
    assert estimates.estimate("preview", "cuda", {}) is None
    assert estimates.estimate("paper", "cuda", {}).text() == "Hours; never measured"


def test_jobs_here_teach_it(tmp_path):
    known = tmp_path / "measured.json"
    estimates.record(known, write_report(tmp_path / "a", 10.0), "stylize")
    found = estimates.estimate("preview", "cpu", estimates.load(known))
    assert found == estimates.Estimate(60.0, 2.0, True, True)
    assert found.text() == "About 1 min, 2.0 GB (measured on this computer)"
    # Three styles share capture and prior.
    three = estimates.estimate("preview", "cpu", estimates.load(known), exemplars=3)
    assert three.seconds == 2 * 10 + 3 * 4 * 10
    standard = estimates.estimate("standard", "cpu", estimates.load(known))
    work = estimates.settings_table()["work"]["standard"]
    assert standard.seconds == pytest.approx(10.0 * sum(work.values()))
    assert standard.text().endswith("(estimated on this computer)")
    # A restyle tells only about its own steps.
    second = write_report(tmp_path / "b", 20.0, cached=("capture", "prior"))
    estimates.record(known, second, "restyle")
    found = estimates.estimate("preview", "cpu", estimates.load(known))
    assert found.seconds == 2 * 10 + 4 * 20
    # Resumed runs did not see the whole, refined ones ran with other settings.
    for command in ("resume", "refine"):
        estimates.record(known, write_report(tmp_path / "c", 1.0), command)
    assert estimates.estimate("preview", "cpu", estimates.load(known)).seconds == found.seconds
    # Another device knows nothing of it.
    assert estimates.estimate("preview", "cuda", estimates.load(known)) is None
    gpu = write_report(tmp_path / "d", 2.0, device="cuda:0", peak_vram_mb=4096.0)
    estimates.record(known, gpu, "stylize")
    assert estimates.estimate("preview", "cuda", estimates.load(known)).memory_gb == 4.0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"preset": "preview"}'])
def test_damaged_reports_teach_nothing(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    estimates.record(tmp_path / "measured.json", tmp_path, "stylize")
    assert not (tmp_path / "measured.json").exists()
    (tmp_path / "measured.json").write_text(text)
    assert isinstance(estimates.load(tmp_path / "measured.json"), dict)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "1 min"), (313, "5 min"), (1900, "30 min"), (3700, "1 h"), (5400, "1.5 h")],
)
def test_durations_are_rough(seconds, text):
    assert estimates.about(seconds) == text


# -- the capture check as a process ---------------------------------------------------------------


def follow(thing, seconds=30):
    import time

    deadline = time.monotonic() + seconds
    while thing.running and time.monotonic() < deadline:
        thing.poll()
        time.sleep(0.01)
    assert not thing.running


@posix
@pytest.mark.parametrize(
    ("name", "verdict"),
    [("good", "ok"), ("hint", "hint"), ("soft", "warning"), ("bad soft", "stop")],
)
def test_the_gravest_finding_decides(tmp_path, name, verdict):
    film = tmp_path / f"{name} Ünï çødé 空間.mp4"
    film.write_bytes(b"film")
    check = CaptureCheck()
    check.start(fake_python(tmp_path), film, tmp_path / "sheet.png")
    assert check.running and not check.answers(film)
    follow(check)
    assert check.verdict == verdict and check.answers(film) and check.sheet.is_file()
    film.write_bytes(b"another film")
    assert not check.answers(film)


@posix
def test_a_check_that_fails_is_no_verdict(tmp_path):
    film = tmp_path / "broken.mp4"
    film.write_bytes(b"film")
    check = CaptureCheck()
    check.start(fake_python(tmp_path), film, tmp_path / "sheet.png")
    follow(check)
    assert check.verdict == "" and "no module named cv2" in check.problem
    assert check.answers(film)
    check.start(str(tmp_path / "none"), film, tmp_path / "sheet.png")
    assert not check.running and "not checked" in check.problem


@pytest.mark.parametrize("text", ["", "Traceback", "{}", '{"findings": [1]}', "{\n"])
def test_other_output_is_no_report(text):
    with pytest.raises(ValueError):
        read_findings(text)


def test_the_real_check_is_understood(tmp_path):
    """What the backend prints, of a film that is none."""
    film = tmp_path / "film.mp4"
    film.write_bytes(b"no film")
    check = CaptureCheck()
    check.start(sys.executable, film, tmp_path / "sheet.png")
    follow(check, 120)
    assert check.verdict == "stop", check.problem
    assert "film.mp4" in check.findings[0].what


@posix
def test_a_task_that_takes_too_long_is_ended(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first; echo second; sleep 60\n")
    python.chmod(0o755)
    task = Task(timeout_s=1.0)
    task.start(str(python), ["bake"])
    seen = set()
    while task.running:
        seen.add(task.last_line)
        task.poll()
    assert "second" in seen and task.exit_code is None and task.last_line == "second"


# -- in bpy ---------------------------------------------------------------------------------------


@posix
def test_features_in_blender(extension_zip, tmp_path, version):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    for name in ("toon", "ink", "clay"):
        source = ROOT / "assets" / "demo" / "exemplar_cel.png"
        (folder / f"{name}.png").write_bytes(source.read_bytes())
    result = run_in_bpy(
        "features",
        tmp_path,
        version=version,
        zip=str(extension_zip),
        python=fake_python(folder),
        folder=str(folder),
    )
    _check_of_the_capture(result)
    _several_exemplars(result)
    _live_view(result)
    _bake(result)
    assert result["refine"]["command"] == "refine" and result["refine"]["style"] == "toon"
    assert result["away"] == "Elsewhere" and result["came_into"] == [1, 0]
    assert result["dropped"] == ["new.MOV", "a.png", "b.jpg"]
    assert "neither" in result["drop_refused"]
    _settings_are_the_backends(result)
    assert result["left"] == []


def _settings_are_the_backends(result):
    """Tooltips, limits, defaults and choices of the panel, and what it sends."""
    from toonify3d.settings import apply_overrides, preset_settings
    from toonify3d.settings_limits import CHOICES, LIMITS

    table = json.loads(estimates.SETTINGS.read_text("utf-8"))
    assert {name: text + "." for name, text in result["tooltips"].items()} == table["docs"]
    for name, (low, high) in result["limits"].items():
        assert (low, high) == pytest.approx(LIMITS[name])
    assert set(result["limits"]) == set(table["limits"])
    _, style = preset_settings("preview")
    for name, value in result["defaults"].items():
        assert value == pytest.approx(getattr(style.stylize, name.removeprefix("stylize."))), name
    # The numbers are what saved files hold: they must stay.
    assert result["looks"] == {
        "auto": 0, "toon": 1, "cel": 2, "paint": 3, "hatch": 4, "ink": 5, "colour": 6
    }  # fmt: skip
    assert set(result["looks"]) == set(CHOICES["stylize.look"])
    assert {"look", "expression", "symmetric"} <= set(result["choices_drawn"])
    sent = apply_overrides(*preset_settings("preview"), result["requests"][0]["overrides"])[1]
    assert (sent.stylize.look, sent.stylize.symmetric) == ("ink", False)
    assert (sent.stylize.expression, sent.stylize.jaw_weight) == (0.4, 0.0)
    # The arrow in the title takes the features back, expression and symmetry among them.
    assert "Features (5 changed)" in result["changed"]
    assert result["reset"] == ["stylize.look=ink"] and result["reset_all"] is None


def _check_of_the_capture(result):
    for name, started, anyway in (
        ("bad", False, False), ("soft", False, True), ("hint", True, False), ("broken", True, False)
    ):  # fmt: skip
        got_started, got_anyway, shown, busy, refused, longest = result[f"check_{name}"]
        assert (got_started, got_anyway) == (started, anyway), name
        assert "Checking the capture" in busy and refused
        assert f"The film is {name}." in shown or name == "broken"
        assert ("Film again, or choose another" in shown) == (not started)
        # Without a job to start no tick takes long; one that starts a process may.
        assert longest < (100.0 if started else 4.0), name
        assert result[f"sheet_{name}"] == (name != "broken")
    assert "not checked" in result["check_broken"][2]
    assert result["button_starts_nothing"] and result["anyway"]
    assert not result["stale"] and result["stopped"] == [False, ""]


def _several_exemplars(result):
    assert result["more"] == ["ink.png", "clay.png"]
    assert result["button_text"] == ["'Stylize 3 Avatars'"]
    assert len(result["icons"]) == 3  # one picture each; background mode has no icon numbers
    assert [state for _, state in result["queue"]] == ["STARTING", "WAITING", "WAITING"]
    assert [name.split(", ")[1] for name, _ in result["queue"]] == ["toon", "ink", "clay"]
    assert result["folders"] == 1 and result["most_running"] == 1
    assert [r["command"] for r in result["requests"]] == ["stylize", "restyle", "restyle"]
    assert [Path(r["exemplar"]).stem for r in result["requests"]] == ["toon", "ink", "clay"]
    wanted = ["stylize.eyes_weight=1.5", "stylize.jaw_weight=0", "stylize.oval_weight=0.5"]
    wanted += ["stylize.expression=0.4", "stylize.symmetric=0", "stylize.look=ink"]
    assert all(r["overrides"] == wanted for r in result["requests"])
    assert result["ends"] == ["DONE"] * 3 and result["avatars"] == ["clay", "ink", "toon"]
    first, second, third = result["places"]
    assert first == 0.0 and second > 0.1 and third > second + 0.1
    assert result["queue_drawn"] == 3
    assert "2.0 GB (measured on this computer)" in result["estimate"]
    assert result["failed"] == [["FAILED", "no_face"], ["CANCELLED", "skipped"]]


def _live_view(result):
    assert result["live_mesh"] == ["Reconstruction"]
    assert result["live_all"] == ["Reconstruction", "Recovered Cameras", "Recovered Points"]
    assert result["live_counts"] == [15, 24, 2]
    place, depth = result["live_camera"]
    assert place == [0.0, -1.0, 0.0] and depth == pytest.approx(0.05)
    assert result["live_point"] == [0.5, 0.0, 0.5]
    assert result["live_color"] == [200, 200, 200, 255]
    assert result["live_same"] and result["live_clean"]
    assert result["live_broken"] == ["Recovered Cameras", "Recovered Points"]


def _bake(result):
    assert result["bake_poll"] == [False, True]
    assert "no UVs" in result["bake_no_uvs"]
    assert result["bake_obj"][-1] == "f 1/1 2/2 3/3 4/4"
    # In the avatar's space, not the scene's.
    assert [float(x) for x in result["bake_obj"][0].split()[1:]] == pytest.approx([0.01, 0.02, 0])
    assert "Baking onto Retopo Ü" in result["bake_panel"] and result["bake_problem"] == ""
    arguments = result["bake_arguments"]
    assert arguments[1] == "--mesh" and arguments[3:5] == ["--style", "clay"]
    assert arguments[5:7] == ["--size", "2048"]
    assert result["bake_materials"] == ["Retopo Ü Baked", "Clay"]
    assert result["bake_style"] == 1.0 and result["bake_uv"] == "Mine"
    assert result["bake_refused"] == "The mesh has no faces."
    assert "The mesh has no faces." in result["bake_refused_shown"]
