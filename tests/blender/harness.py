"""Running scripts inside bpy: each in its own process, with a timeout and a clean user folder."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).resolve().parent / "scripts"
HAS_BPY = importlib.util.find_spec("bpy") is not None

PYTHONS = {
    "5.0": Path(sys.executable),
    "4.5": ROOT / ".venv-bpy45" / "bin" / "python",
    "4.2": ROOT / ".venv-bpy42" / "bin" / "python",
}
"""Blender versions and the interpreters that hold them; ``./setup.sh test`` makes them."""


def missing_bpy(version):
    """Why scripts cannot run in this Blender version; empty when they can."""
    if version == "5.0":
        return "" if HAS_BPY else "bpy is not installed"
    environment = PYTHONS[version].parent.parent
    installed = any(environment.glob("lib/python*/site-packages/bpy/__init__.*"))
    return "" if installed else f"no bpy in {environment}: ./setup.sh test puts it there"


def run_in_bpy(name, scratch, timeout=240, version="5.0", **arguments):
    """Run ``scripts/NAME.py`` inside bpy and return what it passed to ``finish``."""
    given, report = scratch / f"{name}.args.json", scratch / f"{name}.out.json"
    given.write_text(json.dumps(arguments), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp(prefix="blender-user-", dir=scratch)
    done = subprocess.run(
        [str(PYTHONS[version]), str(SCRIPTS / f"{name}.py"), str(given), str(report)],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )
    output = (done.stdout + done.stderr)[-4000:]
    assert report.exists(), f"{name} ended with {done.returncode}:\n{output}"
    result = json.loads(report.read_text("utf-8"))
    result["output"] = output
    return result
