"""The main job on the bundled capture, as a user runs it: stopped, killed, resumed, restyled.

One small job (preset ``tiny``) serves all tests in order; every link is the real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from toonify3d.scene import Scene

DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo"
CAPTURE = DEMO / "capture.mp4"
GLOSSY, CEL = DEMO / "exemplar_glossy.png", DEMO / "exemplar_cel.png"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "toonify3d", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*arguments: object) -> str:
    """Run to the end; the folder it printed."""
    process = start(*arguments)
    out, err = process.communicate(timeout=1500)
    assert process.returncode == 0, err[-3000:]
    return out.strip().splitlines()[-1]


def status(job: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((job / "status.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def wait_for(job: Path, process: subprocess.Popen[str], stage: str, fraction: float) -> None:
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline:
        now = status(job)
        if now.get("stage") == stage and now["step_fraction"] >= fraction:
            return
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.1)
    raise AssertionError(f"stage {stage} was not reached: {status(job)}")


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("Ünï çødé 空間") / "job"


def test_ctrl_c_leaves_a_resumable_job(job):
    process = start("stylize", CAPTURE, GLOSSY, "--job", job, "--preset", "tiny")
    wait_for(job, process, "prior", 0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "resume" in err and "Traceback" not in err
    assert status(job)["state"] == "cancelled"


def test_resume_finishes_what_was_begun(job):
    result = Path(finish("resume", job))
    assert result == job / "styles" / "exemplar_glossy" / "result"
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    assert report["steps_from_cache"] == ["capture"]
    assert report["frames_used"] >= 40
    assert report["views_stylized"] >= 4
    assert report["peak_rss_mb"] > 100
    assert set(report["seconds"]) == {
        "capture", "prior", "portraits", "geometry", "texture", "asset", "total",
    }  # fmt: skip
    assert report["mesh"]["watertight"] and report["mesh"]["components"] == 1
    assert report["texture"]["coverage"] == 1.0
    for stage in ("stage1", "stage2", "stage3"):
        assert np.isfinite(list(report[stage]["losses"].values())).all()
    assert status(job)["state"] == "done"


def test_the_files_are_a_head_of_human_size(job):
    result = job / "styles" / "exemplar_glossy" / "result"
    scene = Scene.load(job / "capture")
    assert scene.landmarks is not None
    avatar = trimesh.load_mesh(result / "avatar.obj", process=False)
    size = np.ptp(avatar.vertices, axis=0)
    assert 0.2 < size[2] < 0.8  # metres, Z up, head and shoulders
    nose = scene.landmarks[1]
    assert nose[1] < -0.05 and abs(nose[0]) < 0.03  # the face looks along -Y
    glb = trimesh.load(result / "avatar.glb")
    (mesh,) = glb.geometry.values()
    assert mesh.visual.material.baseColorTexture.size == (512, 512)
    albedo = np.asarray(Image.open(result / "albedo.png"))
    assert albedo.shape == (512, 512, 3)
    assert albedo.std() > 10  # a picture, not one colour
    assert (result / "prior.ply").stat().st_size > 10_000
    assert (result / "preview.png").stat().st_size > 10_000


def test_a_second_style_reuses_the_prior_and_survives_a_kill(job):
    process = start("restyle", job, CEL)
    wait_for(job, process, "geometry", 0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    result = Path(finish("resume", job))
    assert result == job / "styles" / "exemplar_cel" / "result"
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    assert report["steps_from_cache"] == ["capture", "prior", "portraits"]
    first = np.asarray(Image.open(job / "styles" / "exemplar_glossy" / "result" / "albedo.png"))
    second = np.asarray(Image.open(result / "albedo.png"))
    assert np.abs(first.mean((0, 1)) - second.mean((0, 1))).max() > 2  # another style's colours


def test_a_finished_job_is_not_done_again(job):
    before = (job / "prior" / "step.json").stat().st_mtime_ns
    started = time.monotonic()
    finish("stylize", CAPTURE, GLOSSY, "--job", job, "--preset", "tiny")
    assert time.monotonic() - started < 60
    assert (job / "prior" / "step.json").stat().st_mtime_ns == before


def test_another_job_is_not_put_into_the_folder(job):
    process = start("stylize", CAPTURE, GLOSSY, "--job", job, "--preset", "preview")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "other settings" in err and "Traceback" not in err
