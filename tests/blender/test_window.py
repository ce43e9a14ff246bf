"""The panel in a real Blender window on a virtual screen, clicked with a real mouse pointer."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from harness import ROOT

CHROOT = Path(os.environ.get("TOONIFY3D_BLENDER_CHROOT", ROOT / ".window-chroot"))
TOOLS = ("Xvfb", "xdotool", "import", "chroot")
SIZE = (1400, 1280)
INSIDE = "/tmp/toonify-window"
PINK = (250, 60, 90)  # the fake result's texture


def why_not():
    """Why there is no window here; empty when there is one."""
    if not (CHROOT / "usr/bin/blender").exists():
        reason = CHROOT.with_name(CHROOT.name + ".reason")
        said = reason.read_text().strip() if reason.exists() else "run ./setup.sh test"
        return f"no Blender in {CHROOT}: {said}"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "a chroot needs root"


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def blender(display, *arguments, **variables):
    given = {
        "HOME": "/root",
        "DISPLAY": display,
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "LANG": "C.UTF-8",
        "BLENDER_USER_RESOURCES": f"{INSIDE}/user",
        **variables,
    }
    pairs = [f"{name}={value}" for name, value in given.items()]
    return ["chroot", str(CHROOT), "env", *pairs, "blender", *arguments]


@contextlib.contextmanager
def running_screen():
    """A virtual screen on a free display number, which Xvfb chooses and tells."""
    reader, writer = os.pipe()
    screen = f"{SIZE[0]}x{SIZE[1]}x24"
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", screen, "+extension", "GLX"]
    with subprocess.Popen([*command, "-noreset", "-nolisten", "tcp"], pass_fds=(writer,)) as server:
        os.close(writer)
        with os.fdopen(reader) as told:
            number = told.readline().strip()
        assert number, "Xvfb did not start"
        try:
            yield f":{number}"
        finally:
            server.terminate()


@pytest.fixture
def screen():
    with running_screen() as display:
        yield display


@pytest.fixture
def stage(extension_zip):
    """Everything that the window needs, inside the chroot."""
    folder = CHROOT / INSIDE.lstrip("/")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    here = ROOT / "tests" / "blender"
    window = here / "window"
    for path in (here / "fake_worker.py", window / "driver.py", window / "drive.py", extension_zip):
        shutil.copy(path, folder)
    (folder / "capture.mp4").write_bytes(b"film")
    shutil.copy(ROOT / "assets" / "demo" / "exemplar_glossy.png", folder / "exemplar.png")
    python = folder / "python"
    worker = f"{INSIDE}/fake_worker.py"
    (folder / "pace").write_text("0.6")  # slow enough to find the Cancel button in time
    pace = f"FAKE_PACE=$(cat {INSIDE}/pace)"
    python.write_text(f'#!/bin/sh\n{pace} exec /usr/bin/python3 {worker} "$@"\n')
    python.chmod(0o755)
    return folder


def serve(process, stage, display, seconds=300):
    """Take the pictures that the window asks for, and click where its pointer is."""
    environment = dict(os.environ, DISPLAY=display)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        for want in stage.glob("*.want"):
            time.sleep(0.7)
            part = stage / "part.png"
            subprocess.run(["import", "-window", "root", str(part)], env=environment, check=True)
            part.rename(want.with_suffix(".png"))
            want.unlink()
        for want in stage.glob("*.click"):
            subprocess.run(["xdotool", "click", "1"], env=environment, check=True)
            want.with_suffix(".clicked").touch()
            want.unlink()
        for want in stage.glob("*.key"):
            subprocess.run(["xdotool", "key", want.stem], env=environment, check=True)
            want.with_suffix(".pressed").touch()
            want.unlink()
        time.sleep(0.1)


def picture(stage, name):
    """A screenshot, ``(height, width, 3)`` RGB."""
    import cv2

    image = cv2.imread(str(stage / f"{name}.png"))
    assert image is not None, f"no picture {name}"
    return image[..., ::-1].astype(int)


def looks_like_the_preview(pixels):
    """How many pixels are of the fake worker's gradient: all reds and greens, blue 128."""
    part = pixels[np.abs(pixels[..., 2] - 128) < 3]
    kinds = {(red // 16, green // 16) for red, green, _ in part.reshape(-1, 3)}
    return len(kinds)


def check_marked_face(stage, report):
    """The picture lies where its pixels are said to be, and the backend gets what was clicked."""
    import cv2

    screen = picture(stage, "0-marking")
    file = cv2.imread(str(stage / "exemplar.png"))[..., ::-1].astype(float)
    for (column, row), (x, y) in report["spots"]:
        around = file[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4].reshape(-1, 3)
        shown = screen[round(SIZE[1] - 1 - y), round(x)]
        assert (shown > around.min(0) - 12).all(), (column, row, shown, around.mean(0))
        assert (shown < around.max(0) + 12).all(), (column, row, shown, around.mean(0))
    wanted = [spot for spot, _ in report["spots"][-5:]]
    for got in (report["clicks"], list(report["handed"].values())):
        assert np.abs(np.array(got) - wanted).max() < 1.5 * max(report["far"], 1.0)


def test_stylize_avatar_in_a_window(screen, stage, extension_zip):
    install = blender(
        screen, "--command", "extension", "install-file", "-r", "user_default", "--enable",
        f"{INSIDE}/{extension_zip.name}",
    )  # fmt: skip
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    command = blender(
        screen, "--window-geometry", "0", "0", *map(str, SIZE), "--python", f"{INSIDE}/drive.py",
        GUI_OUT=INSIDE, GUI_PYTHON=f"{INSIDE}/python",
    )  # fmt: skip
    with (
        open(stage / "blender.log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            serve(process, stage, screen)
        finally:
            process.kill()
    output = (stage / "blender.log").read_text("utf-8", "replace")
    assert (stage / "report.json").exists(), output[-2000:]
    report = json.loads((stage / "report.json").read_text())
    assert "error" not in report, report["error"]
    assert "Traceback" not in output, output[-2000:]  # a broken draw() only prints
    names = ("mark_face", "stylize", "cancel", "resume")
    assert report["clicked"] == [f"toonify3d.{name}" for name in names]
    check_marked_face(stage, report)
    assert report["fractions"] > 3
    assert report["cancelled"][0] == "CANCELLED" and report["end"] == "DONE"
    assert report["objects"] == ["toon"]

    ready, running = picture(stage, "1-ready"), picture(stage, "2-running")
    assert looks_like_the_preview(running) > 100 > looks_like_the_preview(ready)
    moved = np.abs(picture(stage, "3-running-later") - running).max(axis=-1) > 20
    assert moved.sum() > 50  # the progress bar and its text
    textured = np.abs(picture(stage, "5-imported") - PINK).max(axis=-1) < 12
    assert textured.mean() > 0.02, "the imported avatar is not seen with its texture"
