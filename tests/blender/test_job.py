"""Jobs as Blender sees them, without bpy: a fake worker in a real process on the real socket."""

import json
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
from blender_addon import job as module
from blender_addon import jobfolder, process, protocol
from blender_addon.job import Job, JobQueue, JobState, derive_state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script")
FAKE = Path(__file__).resolve().parent / "fake_worker.py"


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """A program that takes the place of the backend's interpreter."""
    path = tmp_path_factory.mktemp("Ünï çødé 空間") / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def jobs(python):
    """Makes jobs and ends their workers."""
    made = []

    def make(folder, manner, **options):
        job = Job(folder, {"command": "stylize", "manner": manner}, python, **options)
        made.append(job)
        return job

    yield make
    for job in made:
        if job._child is not None:
            process.end(job._child, force=True)
            job._child.wait()
            process.close_stdin(job._child)


def follow(job, until, seconds=30.0):
    """Poll like Blender's timer; the states seen."""
    seen, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        job.poll()
        if not seen or seen[-1] != job.state:
            seen.append(job.state)
        if until(job):
            return seen
        time.sleep(0.01)
    raise AssertionError(f"{seen}, {job.status}, {jobfolder.log_tail(job.folder)}")


def finished(job):
    return job.state.finished and not job.active


def test_a_job_from_start_to_result(jobs, tmp_path):
    job = jobs(tmp_path / "Ünï çødé 空間" / "job", "good")
    job.start()
    fractions = []
    seen = follow(job, lambda j: fractions.append(j.status and j.status.fraction) or finished(j))
    assert seen == [JobState.STARTING, JobState.RUNNING, JobState.DONE]
    known = [value for value in fractions if value is not None]
    assert known == sorted(known) and len(set(known)) > 5
    assert job.result == job.folder / "styles" / "toon" / "result"
    assert jobfolder.log_tail(job.folder)[0] == "Ünï çødé 空間: started"
    assert job._server is None  # nothing listens any more


def test_poll_takes_under_two_milliseconds(jobs, tmp_path):
    job = jobs(tmp_path / "job", "good")
    job.start()
    times = []
    while not finished(job):
        before = time.thread_time()
        job.poll()
        times.append(time.thread_time() - before)
        time.sleep(0.01)
    times.sort()
    assert times[int(0.95 * len(times))] < 0.002
    assert times[len(times) // 2] < 0.0005


@pytest.mark.parametrize("manner", ["good", "cut"])
def test_without_socket_the_folder_takes_over(jobs, tmp_path, manner, monkeypatch):
    monkeypatch.setattr(module, "FILE_PERIOD_S", 0.05)
    if manner == "good":
        monkeypatch.setattr(module, "_open_server", lambda: None)
    job = jobs(tmp_path / "job", manner)
    job.start()
    messages = set()
    follow(job, lambda j: messages.add(j.status and j.status.message) or finished(j))
    assert job.state is JobState.DONE
    assert job.result is not None
    late = {int(text.split()[1]) for text in messages if text} - set(range(6))
    assert len(late) > 3  # progress went on moving without the socket


def test_cancel_stops_quickly_and_can_be_resumed(jobs, tmp_path):
    job = jobs(tmp_path / "job", "slow")
    job.start()
    follow(job, lambda j: j.status is not None)
    start = time.monotonic()
    job.cancel()
    assert job.state is JobState.CANCELLING
    follow(job, lambda j: j.acknowledged or j.state.finished)
    assert time.monotonic() - start < 1.0
    follow(job, finished)
    assert job.state is JobState.CANCELLED and job.problem is None
    again = jobs(job.folder, "good")
    again.start()
    assert follow(again, finished)[-1] is JobState.DONE


def test_cancel_without_socket(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_open_server", lambda: None)
    job = jobs(tmp_path / "job", "slow")
    job.start()
    follow(job, lambda j: j.status is not None)
    job.cancel()
    assert follow(job, finished)[-1] is JobState.CANCELLED


def test_a_deaf_worker_is_ended(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TERMINATE_AFTER_S", 0.3)
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.3)
    job = jobs(tmp_path / "job", "deaf")
    job.start()
    follow(job, lambda j: j.status is not None)
    job.cancel()
    assert follow(job, finished, 10)[-1] is JobState.CANCELLED


def test_a_worker_that_hangs_after_its_end_is_ended(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TERMINATE_AFTER_S", 0.3)
    job = jobs(tmp_path / "job", "hang")
    job.start()
    follow(job, finished)
    assert job.state is JobState.DONE and job.result is not None


@pytest.mark.parametrize("stage", ["start", "middle"])
def test_killed_worker_is_failed_not_stuck(jobs, tmp_path, stage):
    job = jobs(tmp_path / "job", "slow")
    job.start()
    if stage == "middle":
        follow(job, lambda j: j.status is not None and j.status.fraction > 0.05)
    os.killpg(job._child.pid, signal.SIGKILL)
    follow(job, finished)
    assert job.state is JobState.FAILED
    assert job.problem.code == "killed" and "resumed" in job.problem.message


def test_dying_worker_is_explained_by_its_last_words(jobs, tmp_path):
    job = jobs(tmp_path / "job", "die")
    job.start()
    follow(job, finished)
    assert job.state is JobState.FAILED and "code 7" in job.problem.message
    broken = jobs(tmp_path / "other", "broken")
    broken.start()
    follow(broken, finished)
    assert broken.problem.code == "died" and "no module named torch" in broken.problem.message


def test_a_problem_reaches_the_panel(jobs, tmp_path):
    job = jobs(tmp_path / "job", "fail")
    job.start()
    follow(job, finished)
    assert job.state is JobState.FAILED
    assert job.problem == protocol.Problem("no_face", "The exemplar shows no face.")


def test_paths_outside_the_job_folder_are_ignored(jobs, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    job = jobs(tmp_path / "a" / "job", "escape")
    job.start()
    follow(job, finished)
    assert job.preview is None
    assert job.result == job.folder / "styles" / "toon" / "result"
    assert jobfolder.inside(job.folder, "../job") == job.folder.resolve()
    assert jobfolder.inside(job.folder, "../../secret.png") is None
    assert jobfolder.inside(job.folder, "/etc") is None
    assert jobfolder.inside(job.folder, "a\0b") is None


def test_job_folder_deleted_while_running(jobs, tmp_path):
    job = jobs(tmp_path / "job", "slow")
    job.start()
    follow(job, lambda j: j.status is not None)
    shutil.rmtree(job.folder, ignore_errors=True)
    os.killpg(job._child.pid, signal.SIGKILL)
    follow(job, finished)
    assert job.state is JobState.FAILED


@pytest.mark.parametrize(("path", "code"), [("", "no_python"), ("/no/such/python", "no_python")])
def test_no_interpreter(tmp_path, path, code):
    job = Job(tmp_path / "job", {"command": "stylize"}, path)
    job.start()
    assert job.state is JobState.FAILED and job.problem.code == code
    job.poll()
    assert job.state is JobState.FAILED and not job.active


def test_unusable_job_folder(tmp_path, python):
    (tmp_path / "file").write_text("x")
    job = Job(tmp_path / "file" / "job", {"command": "stylize"}, python)
    job.start()
    assert job.state is JobState.FAILED and job.problem.code == "job_folder"


def test_blender_closing_ends_the_worker_unless_asked_otherwise(jobs, tmp_path):
    job = jobs(tmp_path / "ends", "slow")
    job.start()
    follow(job, lambda j: j.status is not None)
    job.detach()
    assert job._child.wait(timeout=10) == 3
    kept = jobs(tmp_path / "kept", "detached", keep=True)
    kept.start()
    follow(kept, lambda j: j.status is not None)
    kept.detach()
    time.sleep(0.5)
    assert kept._child.poll() is None

    # A reopened Blender finds it by its folder, watches it and can stop it.
    queue = JobQueue()
    seen = queue.attach(kept.folder)
    follow(seen, lambda j: j.state is JobState.RUNNING)
    before = seen.status.updated
    follow(seen, lambda j: j.status.updated > before)
    seen.cancel()
    follow(seen, lambda j: j.state.finished)
    assert seen.state is JobState.CANCELLED
    assert kept._child.wait(timeout=10) == 3


def test_attaching_to_a_dead_job(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    dead = {"state": "running", "updated": time.time() - 3600, "pid": 1}
    (folder / "status.json").write_text(json.dumps(dead))
    job = JobQueue().attach(folder)
    assert job.state is JobState.FAILED and job.problem.code == "lost" and not job.active
    (folder / "status.json").write_text("{ broken")
    assert JobQueue().attach(folder).state is JobState.FAILED
    assert job.preview is None
    (folder / "preview").mkdir()
    (folder / "preview" / "current.png").write_bytes(b"picture")
    assert JobQueue().attach(folder).preview == folder / "preview" / "current.png"


def test_a_stale_status_is_not_taken_for_this_run(jobs, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"state": "done", "updated": time.time() + 9}))
    (folder / "cancel").touch()
    job = jobs(folder, "slow")
    job.start()
    seen = follow(job, lambda j: j.status is not None and j.status.fraction > 0.02)
    assert JobState.DONE not in seen and JobState.CANCELLED not in seen


def test_queue_runs_one_at_a_time(jobs, tmp_path):
    queue = JobQueue()
    first, second = (jobs(tmp_path / name, "good") for name in ("a", "b"))
    third = jobs(tmp_path / "c", "good")
    for job in (first, second, third):
        queue.submit(job)
    third.cancel()
    assert third.state is JobState.CANCELLED
    deadline = time.monotonic() + 40
    while queue.busy and time.monotonic() < deadline:
        queue.poll()
        assert sum(job.active for job in queue.jobs) <= 1
        if first.active:
            assert second.state is JobState.WAITING
        time.sleep(0.01)
    assert [job.state for job in queue.jobs] == [
        JobState.DONE,
        JobState.DONE,
        JobState.CANCELLED,
    ]
    assert not third.folder.exists()


def test_a_job_that_builds_on_another(jobs, tmp_path):
    """Styles of one folder: one after the other, given up when the reconstruction fails."""
    for manner, ends in (("good", "DONE DONE"), ("fail", "FAILED CANCELLED")):
        queue, folder = JobQueue(), tmp_path / manner
        first = jobs(folder, manner, title="first")
        second = jobs(folder, "good", title="second", after=first)
        alone = jobs(tmp_path / f"{manner}-alone", "good")
        for job in (first, second, alone):
            queue.submit(job)
        assert queue.jobs == [first, second, alone] and queue.current is first
        deadline = time.monotonic() + 60
        while queue.busy and time.monotonic() < deadline:
            queue.poll()
            assert sum(job.active for job in queue.jobs) <= 1
            time.sleep(0.01)
        assert f"{first.state.name} {second.state.name}" == ends
        assert alone.state is JobState.DONE and alone.name == f"{manner}-alone"
    assert second.problem.code == "skipped" and second.started_at == 0.0


def test_a_waiting_job_can_be_taken_off_the_list(jobs, tmp_path):
    queue = JobQueue()
    first, second = jobs(tmp_path / "a", "slow"), jobs(tmp_path / "b", "good")
    queue.submit(first)
    queue.submit(second)
    queue.remove(first)  # it runs: it stays
    queue.remove(second)
    assert queue.jobs == [first] and second.state is JobState.CANCELLED
    first.cancel()
    follow(first, finished)
    queue.poll()
    assert not (tmp_path / "b").exists()


def test_resuming_replaces_the_entry(jobs, tmp_path):
    queue = JobQueue()
    queue.submit(jobs(tmp_path / "a", "fail"))
    follow(queue.current, finished)
    queue.submit(jobs(tmp_path / "b", "fail"))
    follow(queue.current, finished)
    again = jobs(tmp_path / "a", "good")
    queue.submit(again)
    assert [job.name for job in queue.jobs] == ["b", "a"] and queue.current is again


RUNNING = protocol.Status("running")


@pytest.mark.parametrize(
    ("alive", "code", "status", "cancelling", "expected"),
    [
        (True, None, None, False, JobState.STARTING),
        (True, None, RUNNING, False, JobState.RUNNING),
        (True, None, RUNNING, True, JobState.CANCELLING),
        (True, None, protocol.Status("done"), True, JobState.DONE),
        (False, 0, RUNNING, False, JobState.FAILED),
        (False, 0, None, False, JobState.FAILED),
        (False, 3, RUNNING, False, JobState.CANCELLED),
        (False, -9, RUNNING, True, JobState.CANCELLED),
        (False, -9, RUNNING, False, JobState.FAILED),
        (False, 0, protocol.Status("done"), False, JobState.DONE),
        (False, 2, protocol.Status("failed"), False, JobState.FAILED),
        (False, None, RUNNING, False, JobState.FAILED),
    ],
)
def test_state_is_derived(alive, code, status, cancelling, expected):
    assert derive_state(alive, code, status, cancelling) is expected


def test_no_dead_process_is_ever_shown_as_working():
    statuses = [None, RUNNING, *(protocol.Status(s) for s in ("done", "failed", "cancelled"))]
    for status in statuses:
        for code in (None, 0, 1, 2, 3, -9, -15):
            for cancelling in (False, True):
                assert derive_state(False, code, status, cancelling).finished


def test_environment_is_scrubbed(tmp_path):
    base = {
        "PATH": "/bin",
        "PYTHONPATH": "/blender/lib",
        "PYTHONHOME": "/blender",
        "VIRTUAL_ENV": "/v",
        "TOONIFY3D_TOKEN": "of another job",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    clean = process.scrubbed_environment(base, tmp_path)
    assert clean["PYTHONPATH"] == str(tmp_path)
    assert clean["CUDA_VISIBLE_DEVICES"] == "1" and clean["PYTHONNOUSERSITE"] == "1"
    assert not {"PYTHONHOME", "VIRTUAL_ENV", "TOONIFY3D_TOKEN"} & set(clean)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("head turn", "head-turn"),
        ("../../etc/passwd", "etc-passwd"),
        ("空間 çø", "空間-çø"),
        ("...", "avatar"),
        ("a" * 300, "a" * 40),
        ('a<b>:"c', "a-b-c"),
    ],
)
def test_folder_names(text, expected):
    assert jobfolder.safe_name(text) == expected


def test_new_jobs_never_share_a_folder(tmp_path):
    folders = {jobfolder.create_job_folder(tmp_path / "out", Path("me.mp4")) for _ in range(3)}
    assert {folder.name for folder in folders} == {"me-001", "me-002", "me-003"}
