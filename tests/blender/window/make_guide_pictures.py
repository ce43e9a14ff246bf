#!/usr/bin/env python3
"""Make the screenshots of docs/guide.md (root, Debian, the chroot of ./setup.sh test).

    .venv/bin/python tests/blender/window/make_guide_pictures.py FINISHED_JOB OUTPUT

FINISHED_JOB is a job folder of the bundled demo. A scratch folder is bound to the same path in the
chroot, so that the real backend (this Python, outside) and Blender (inside) share their files.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(HERE.parent), str(ROOT / "backend")]

import build_addon  # noqa: E402
import test_window  # noqa: E402

test_window.SIZE = (1400, 1420)


def bind(source, target):
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--rbind", str(source), str(target)], check=True)


def main():
    # The mounts are seen by this process and its children only, and end with it: whoever removes
    # the chroot meanwhile finds empty folders there, not this machine's files.
    if os.environ.get("GUIDE_ALONE") != "1":
        os.environ["GUIDE_ALONE"] = "1"
        os.execvp(
            "unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv]
        )
    job, output = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work = Path(os.environ.get("GUIDE_WORK", "/tmp/toonify-guide"))
    chroot = test_window.CHROOT.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for name in ("driver.py", "guide.py"):
        shutil.copy(HERE / name, work)
    shutil.copytree(ROOT / "assets" / "demo", work / "demo")
    shutil.copytree(job, work / "finished")
    extension = build_addon.build(work)
    inside = work / "python"
    inside.write_text(f'#!/bin/sh\nexec chroot /host "{sys.executable}" "$@"\n')
    inside.chmod(0o755)
    bind(work, chroot / str(work).lstrip("/"))
    bind(Path("/"), chroot / "host")
    with test_window.running_screen() as display:
        shoot(display, work, extension)
    for picture in work.glob("guide-*.png"):
        shutil.copy(picture, output)
    report = work / "report.json"
    sys.stdout.write(report.read_text() if report.exists() else "no report\n")


def shoot(display, work, extension):
    """Install the extension and let guide.py drive the window."""
    variables = {"BLENDER_USER_RESOURCES": f"{work}/user"}
    install = test_window.blender(
        display, "--command", "extension", "install-file", "-r", "user_default", "--enable",
        str(extension), **variables,
    )  # fmt: skip
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    variables |= {
        "GUI_OUT": str(work), "GUI_PYTHON": str(work / "python"), "GUI_DEMO": str(work / "demo"),
        "GUI_JOB": str(work / "finished"), "GUI_PATIENCE": os.environ.get("GUI_PATIENCE", "900"),
        "GUI_SHADERS": os.environ.get("GUI_SHADERS", "60"),
    }  # fmt: skip
    command = test_window.blender(
        display, "--window-geometry", "0", "0", *map(str, test_window.SIZE),
        "--python", str(work / "guide.py"), **variables,
    )  # fmt: skip
    with (
        open(work / "blender.log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            test_window.serve(process, work, display, seconds=1800)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
