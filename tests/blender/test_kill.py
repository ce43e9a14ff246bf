"""What goes wrong for good: the real worker killed, cut off, without disk, in odd folders."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blender_addon import job as module
from blender_addon import jobfolder, process
from blender_addon.job import Job, JobQueue, JobState
from harness import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and mounts of Unix")
DEMO = ROOT / "assets" / "demo"
REQUEST = {
    "command": "stylize",
    "capture": str(DEMO / "capture.mp4"),
    "exemplar": str(DEMO / "exemplar_glossy.png"),
    "preset": "tiny",
    "device": "cpu",
}
FAKE = Path(__file__).resolve().parent / "fake_worker.py"


@pytest.fixture
def jobs():
    """Makes jobs of the real worker and ends whatever is left of them."""
    made = []

    def make(folder, request=REQUEST, python=sys.executable, **options):
        made.append(Job(folder, request, python, **options))
        return made[-1]

    yield make
    for job in made:
        if job._child is not None:
            process.end(job._child, force=True)
            job._child.wait()
            process.close_stdin(job._child)


@pytest.fixture
def fake(tmp_path):
    """An interpreter that runs the fake worker."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def follow(job, until, seconds=120.0):
    """Poll like Blender's timer until something holds."""
    deadline = time.monotonic() + seconds
    while not until(job):
        assert time.monotonic() < deadline, (job.state, job.status, jobfolder.log_tail(job.folder))
        job.poll()
        time.sleep(0.02)


def finished(job):
    return job.state.finished and not job.active


def running(job):
    return job.state is JobState.RUNNING and job.status.stage != ""


def kill(job):
    os.killpg(job._child.pid, signal.SIGKILL)
    follow(job, finished, 10)
    assert job.state is JobState.FAILED and job.problem.code == "killed"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_in_every_stage_and_resumed_to_the_end(jobs, tmp_path):
    folder, killed = tmp_path / "Ünï çødé 空間" / "job", []

    def new_stage_or_end(job):
        return finished(job) or (running(job) and job.status.stage not in killed)

    for _ in range(20):
        begun = (folder / "job.json").is_file()
        job = jobs(folder, {"command": "resume", "device": "cpu"} if begun else REQUEST)
        job.start()
        follow(job, new_stage_or_end, 900)
        if job.state is JobState.DONE:
            break
        assert job.state is JobState.RUNNING, (job.problem, jobfolder.log_tail(folder))
        killed.append(job.status.stage)
        kill(job)
    assert job.state is JobState.DONE, killed
    assert len(killed) >= 5 and len(set(killed)) == len(killed)
    assert {"prior", "geometry", "texture"} <= set(killed), killed
    assert (job.result / "avatar.npz").is_file() and (job.result / "avatar.glb").is_file()


def test_blender_killed_while_training_ends_the_worker(tmp_path, fake):
    """A process in Blender's place starts the real worker and is killed itself."""
    pid = _parent_of_a_worker(tmp_path, keep=False)
    assert _gone(pid, 20), "the worker outlived Blender"
    status = json.loads((tmp_path / "job" / "status.json").read_text("utf-8"))
    assert status["state"] == "cancelled"


def test_blender_killed_and_reopened_finds_the_job_going_on(tmp_path):
    pid = _parent_of_a_worker(tmp_path, keep=True)
    time.sleep(1.5)
    assert not _gone(pid, 0)
    again = JobQueue().attach(tmp_path / "job")
    follow(again, running, 30)
    again.cancel()
    follow(again, lambda job: job.state is JobState.CANCELLED, 60)
    assert _gone(pid, 30)


def _parent_of_a_worker(folder, keep):
    """Start a worker from another process, kill that one while it trains; the worker's pid."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from blender_addon.job import Job\n"
        "import json\n"
        "job = Job(Path(sys.argv[2]), json.loads(sys.argv[3]), sys.executable,"
        " keep=sys.argv[4] == 'True')\n"
        "job.start()\n"
        "while True:\n"
        "    job.poll(); time.sleep(0.02)\n"
        "    if job.status is not None and job.status.stage:\n"
        "        print(job._child.pid, flush=True)\n"
        "        time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(folder / "job"), json.dumps(REQUEST)]
    with subprocess.Popen([*command, str(keep)], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    return pid


def _gone(pid, seconds):
    """True when the process has ended (nobody is left to wait for it but init) in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)


def test_socket_cut_in_the_real_worker(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FILE_PERIOD_S", 0.1)
    job = jobs(tmp_path / "job")
    job.start()
    follow(job, lambda j: j.connected and running(j))
    job._server.close()  # as a firewall would
    seen = set()
    follow(job, lambda j: seen.add(j.status.fraction) or len(seen) > 4)  # by status.json
    job.cancel()  # by the file
    follow(job, finished, 60)
    assert job.state is JobState.CANCELLED


def test_strangers_at_the_port_do_no_harm(jobs, tmp_path, fake):
    """Garbage, a wrong token and ten megabytes, while the job runs."""
    job = jobs(tmp_path / "job", {"command": "stylize", "manner": "slow"}, fake)
    job.start()
    follow(job, running)
    port = job._server.port
    token = json.dumps({"type": "hello", "token": "guess", "protocol": 1}).encode() + b"\n"
    for data in (b"GET / HTTP/1.0\r\n\r\n", b"\x00\xff" * 100, token, b"x" * (10 << 20)):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            stranger.settimeout(0.2)
            with contextlib.suppress(OSError):
                for start in range(0, len(data), 1 << 16):
                    stranger.sendall(data[start : start + (1 << 16)])
                    job.poll()
            job.poll()
    before = job.status.updated
    follow(job, lambda j: j.status.updated > before and j.connected)
    assert job._server.refused >= 3 and job.state is JobState.RUNNING


def test_no_port_to_be_had(jobs, tmp_path, fake, monkeypatch):
    """Every port in use: the job runs by its folder."""

    def refuse(self, address):
        raise OSError(98, "Address already in use")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "bind", refuse)
        job = jobs(tmp_path / "job", {"command": "stylize", "manner": "good"}, fake)
        job.start()
    assert job._server is None
    follow(job, finished)
    assert job.state is JobState.DONE and job.result is not None


def test_job_folder_deleted_while_the_real_worker_runs(jobs, tmp_path):
    job = jobs(tmp_path / "job")
    job.start()
    follow(job, running)
    deadline = time.monotonic() + 60
    while not finished(job) and time.monotonic() < deadline:
        shutil.rmtree(job.folder, ignore_errors=True)  # and again whatever it writes
        job.poll()
        time.sleep(0.02)
    assert job.state is JobState.FAILED
    assert job.problem.code in {"unwritable", "job_gone", "no_job"}, job.problem


def _mounted(folder, options):
    """Mount a small tmpfs, or skip."""
    if os.geteuid() != 0:
        pytest.skip("a mount needs root")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no mount here: {done.stderr.strip()}")


def _unmount(folder):
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def test_disk_full(jobs, tmp_path):
    disk = tmp_path / "disk"
    _mounted(disk, "size=1m")
    try:
        job = jobs(disk / "job")
        job.start()
        follow(job, finished)
        assert job.state is JobState.FAILED
        assert job.problem.code == "unwritable", (job.problem, jobfolder.log_tail(job.folder))
        assert "No space left" in job.problem.message and "resume" in job.problem.message
    finally:
        _unmount(disk)


def test_disk_full_before_the_start(jobs, tmp_path, fake):
    disk = tmp_path / "disk"
    _mounted(disk, "size=64k")
    try:
        (disk / "job").mkdir()
        with contextlib.suppress(OSError):
            (disk / "ballast").write_bytes(b"x" * (1 << 20))
        job = jobs(disk / "job", {"command": "stylize", "manner": "good"}, fake)
        job.start()
        assert job.state is JobState.FAILED and job.problem.code == "job_folder"
        assert "No space left" in job.problem.message
    finally:
        _unmount(disk)


def test_read_only_output(jobs, tmp_path, fake):
    disk = tmp_path / "disk"
    _mounted(disk, "size=1m,ro")
    try:
        with pytest.raises(OSError, match="Read-only"):
            jobfolder.create_job_folder(disk / "out", Path("film.mp4"))
        job = jobs(disk / "job", {"command": "stylize", "manner": "good"}, fake)
        job.start()
        assert job.state is JobState.FAILED and job.problem.code == "job_folder"
    finally:
        _unmount(disk)


def test_path_of_240_characters(jobs, tmp_path, fake):
    folder = tmp_path
    while len(str(folder)) < 228:
        folder /= "ü" * min(40, 232 - len(str(folder)))
    folder /= "j" * (239 - len(str(folder)))
    assert len(str(folder)) == 240
    job = jobs(folder, {"command": "stylize", "manner": "good"}, fake)
    job.start()
    follow(job, finished)
    assert job.state is JobState.DONE and job.result is not None


@pytest.mark.slow
def test_the_real_worker_in_a_path_of_240_characters_without_network(jobs, tmp_path):
    """Up to the first stage: request, capture and lock are read and written there."""
    folder = tmp_path / ("空" * 50)
    folder /= "ü" * (239 - len(str(folder)))
    assert len(str(folder)) == 240
    unshare = shutil.which("unshare")
    offline = tmp_path / "python"
    alone = subprocess.run(
        [unshare or "false", "-n", "true"], capture_output=True, check=False
    ).returncode
    prefix = f"{unshare} -n " if alone == 0 else ""
    offline.write_text(f'#!/bin/sh\nexec {prefix}"{sys.executable}" "$@"\n', encoding="utf-8")
    offline.chmod(0o755)
    job = jobs(folder, python=str(offline))
    job.start()
    follow(job, lambda j: running(j) and j.status.step_fraction > 0)
    assert not (job.connected and prefix)  # not even the loopback: the folder carries it
    job.cancel()
    follow(job, finished, 60)
    assert job.state is JobState.CANCELLED
