"""The panel in a real Blender window on a virtual screen, clicked with a real mouse pointer."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from harness import ROOT

CHROOT = Path(os.environ.get("TOONIFY3D_BLENDER_CHROOT", "/nonexistent"))
TOOLS = ("Xvfb", "xdotool", "import", "chroot")
DISPLAY = ":77"
BUTTON = ("898", "251")  # "Stylize Avatar" in Blender 4.3.2 at 1280 x 900

pytestmark = [
    pytest.mark.skipif(
        not (CHROOT / "usr/bin/blender").exists(),
        reason="set TOONIFY3D_BLENDER_CHROOT to a folder made by tests/blender/window/setup.sh",
    ),
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
    ),
]


def blender(*arguments, **variables):
    given = {
        "HOME": "/root",
        "DISPLAY": DISPLAY,
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "LANG": "C.UTF-8",
        "BLENDER_USER_RESOURCES": "/tmp/toonify-user",
        **variables,
    }
    pairs = [f"{name}={value}" for name, value in given.items()]
    return ["chroot", str(CHROOT), "env", *pairs, "blender", *arguments]


@pytest.fixture
def screen():
    command = ["Xvfb", DISPLAY, "-screen", "0", "1280x900x24", "+extension", "GLX", "+render"]
    with subprocess.Popen([*command, "-noreset", "-nolisten", "tcp"]) as server:
        time.sleep(1.5)
        yield dict(os.environ, DISPLAY=DISPLAY)
        server.terminate()


@pytest.fixture
def stage(extension_zip):
    """Everything that the window needs, inside the chroot."""
    folder = CHROOT / "tmp" / "toonify-window"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(CHROOT / "tmp" / "toonify-user", ignore_errors=True)
    folder.mkdir()
    here = ROOT / "tests" / "blender"
    for path in (here / "fake_worker.py", here / "window" / "drive.py", extension_zip):
        shutil.copy(path, folder)
    (folder / "capture.mp4").write_bytes(b"film")
    (folder / "exemplar.png").write_bytes(b"picture")
    python = folder / "python"
    worker = "/tmp/toonify-window/fake_worker.py"
    python.write_text(f'#!/bin/sh\nFAKE_PACE=0.1 exec /usr/bin/python3 {worker} "$@"\n')
    python.chmod(0o755)
    return folder


def serve(process, stage, environment, seconds=150):
    """Take the pictures that the window asks for, and click the button."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        for want in stage.glob("*.want"):
            time.sleep(0.7)
            target, part = want.with_suffix(".png"), stage / "part.png"
            subprocess.run(["import", "-window", "root", str(part)], env=environment, check=True)
            part.rename(target)
            want.unlink()
            if want.stem == "1-ready":
                for action in (["mousemove", *BUTTON], ["click", "1"]):
                    subprocess.run(["xdotool", *action], env=environment, check=True)
                    time.sleep(0.3)
        time.sleep(0.1)


def test_stylize_avatar_in_a_window(screen, stage, extension_zip):
    inside = "/tmp/toonify-window"
    install = blender(
        "--command", "extension", "install-file", "-r", "user_default", "--enable",
        f"{inside}/{extension_zip.name}",
    )  # fmt: skip
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    command = blender(
        "--window-geometry", "0", "0", "1280", "900", "--python", f"{inside}/drive.py",
        GUI_OUT=inside, GUI_PYTHON=f"{inside}/python",
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
    assert "Traceback" not in output, output[-2000:]  # a broken draw() only prints
    assert report["clicked"] and report["fractions"] > 3
    assert report["cancelled"][0] == "CANCELLED" and report["end"] == "DONE"
    assert report["objects"] == ["toon"]
    assert len(list(stage.glob("*.png"))) == 5  # four pictures and the exemplar
