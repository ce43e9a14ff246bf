"""Programs of the user's: cancelled, too slow, or started on Windows."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from toonify3d.capture.adapters import program as capture_program
from toonify3d.errors import CancelledError, InputError
from toonify3d.portrait2d.adapters.program import check_program, run_program, split_command
from toonify3d.progress import SilentProgress

PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[2]])\n"
    "open(sys.argv[1], 'w').write(str(child.pid))\n"
    "print('x' * 200_000, flush=True)\n"  # more than a pipe holds
    "time.sleep(60)\n"
)
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


class _Impatient(SilentProgress):
    """Cancels as soon as the program's child has said who it is."""

    def __init__(self, note) -> None:
        super().__init__()
        self.note, self.fractions = note, []

    def update(self, fraction: float, message: str = "") -> None:
        self.fractions.append(fraction)
        if self.note.is_file() and self.note.read_text():
            raise CancelledError("Cancelled; the job can be resumed.")


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("child", ["import time; time.sleep(60)", DEAF])
def test_cancel_ends_the_program_and_its_children(tmp_path, child):
    note = tmp_path / "pid"
    progress, started = _Impatient(note), time.monotonic()
    with pytest.raises(CancelledError):
        run_program([sys.executable, "-c", PARENT, str(note), child], 60.0, progress, "it works")
    assert time.monotonic() - started < 20
    assert _gone(int(note.read_text()))
    assert max(progress.fractions) <= 1 and progress.fractions == sorted(progress.fractions)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends programs without asking")
def test_a_program_may_tidy_up(tmp_path):
    """It is asked before it is forced."""
    note, tidy = tmp_path / "pid", tmp_path / "tidy"
    script = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        "    pathlib.Path(sys.argv[2]).touch()\n"
        "    sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1]).write_text('ready')\n"
        "time.sleep(60)\n"
    )
    words = [sys.executable, "-c", script, str(note), str(tidy)]
    with pytest.raises(CancelledError):
        run_program(words, 60.0, _Impatient(note), "it works")
    assert tidy.exists()


def test_a_slow_program_ends_with_its_children(tmp_path):
    note, child = tmp_path / "pid", "import time; time.sleep(60)"
    words = [sys.executable, "-c", PARENT, str(note), child]
    with pytest.raises(InputError, match=r"did not end within 3 s .*adapter\.timeout"):
        run_program(words, 3.0, SilentProgress(), "it works")
    assert _gone(int(note.read_text()))


def test_a_program_that_ends_is_left_alone(tmp_path):
    """Its own children too: a program may start a server that the next frame uses."""
    note = tmp_path / "pid"
    words = [sys.executable, "-c", PARENT.replace("time.sleep(60)", ""), str(note), "input()"]
    words[-1] = "import time; time.sleep(60)"
    run_program(words, 60.0, SilentProgress(), "it works", tmp_path)
    child = psutil.Process(int(note.read_text()))
    assert child.is_running()
    child.kill()


def test_the_last_line_of_a_failure_is_quoted():
    script = "print('first'); print('no GPU here'); raise SystemExit(3)"
    with pytest.raises(InputError, match=r"failed with 3: no GPU here$") as caught:
        run_program([sys.executable, "-c", script], 60.0, SilentProgress(), "")
    assert caught.value.code == "program_failed"


def test_commands_are_split_as_the_system_writes_paths():
    command = r"""'C:\my tools\toon.exe' "{input}" {output} --note '#1 "x"'"""
    words = [r"C:\my tools\toon.exe", "{input}", "{output}", "--note", '#1 "x"']
    assert split_command(command, windows=True) == words
    assert split_command(command, windows=False) == words  # quotes keep backslashes
    assert split_command(r"C:\t\x.exe {input}", windows=True) == [r"C:\t\x.exe", "{input}"]
    assert split_command(r"my\ tool {input}", windows=False) == ["my tool", "{input}"]
    with pytest.raises(ValueError, match="quot"):
        split_command("tool 'x")


@pytest.mark.skipif(os.name == "nt", reason="Windows tells programs by their ending")
def test_programs_are_found_by_path_and_by_name(tmp_path, monkeypatch):
    program = tmp_path / "toon"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match=r"cannot be started.*adapter\.command"):
        check_program(str(program), "adapter.command")
    program.chmod(0o755)
    check_program(str(program), "adapter.command")
    monkeypatch.setenv("PATH", str(tmp_path))
    check_program("toon", "adapter.command")


# -- the worker is killed --------------------------------------------------------------------------

WORKERS = {
    "stylizer": (
        "import sys\n"
        "from toonify3d.portrait2d.adapters.program import run_program\n"
        "from toonify3d.progress import SilentProgress\n"
        "run_program(sys.argv[1:], 600.0, SilentProgress(), 'it works')\n"
    ),
    "capture": (
        "import pathlib, sys\n"
        "from toonify3d.capture.adapters.program import run_program\n"
        "from toonify3d.progress import SilentProgress\n"
        "run_program(sys.argv[2:], pathlib.Path(sys.argv[1]), 'failed', SilentProgress())\n"
    ),
}


def _written(note: Path, worker: subprocess.Popen[bytes]) -> int:
    """The number that a process writes there."""
    deadline = time.monotonic() + 60
    while not (note.is_file() and note.read_text()):
        assert worker.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return int(note.read_text())


@pytest.mark.parametrize("group", [False, True], ids=["alone", "with its group"])
@pytest.mark.parametrize("child", ["import time; time.sleep(60)", DEAF], ids=["obeys", "deaf"])
def test_a_killed_workers_program_ends_with_its_children(tmp_path, child, group):
    """By force, as Blender or a system short of memory does: nothing of the worker can run."""
    if group and os.name == "nt":
        pytest.skip("Windows has no process groups")
    note = tmp_path / "pid"
    words = [sys.executable, "-c", WORKERS["stylizer"], sys.executable, "-c", PARENT]
    with subprocess.Popen([*words, str(note), child], start_new_session=True) as worker:
        grandchild = _written(note, worker)
        others = psutil.Process(worker.pid).children(recursive=True)
        assert len(others) == 3  # guard, program and its child
        assert grandchild in [other.pid for other in others]
        os.killpg(worker.pid, signal.SIGKILL) if group else worker.kill()
    assert all(_gone(other.pid) for other in others)


def test_a_killed_captures_program_ends(tmp_path):
    """It has no group of its own."""
    note = tmp_path / "pid"
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    words = [sys.executable, "-c", WORKERS["capture"], str(tmp_path)]
    with subprocess.Popen([*words, sys.executable, "-c", script, str(note)]) as worker:
        program = _written(note, worker)
        worker.kill()
    assert _gone(program)


class _Killer(SilentProgress):
    """Kills the guard."""

    def update(self, fraction: float, message: str = "") -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.ZombieProcess):
                if any("orphan_guard" in word for word in child.cmdline()):
                    child.kill()


def test_no_guard_is_left(tmp_path):
    """Whether the program ends well, fails or cannot be started; nor when the guard is killed."""
    before = psutil.Process().children()
    run_program([sys.executable, "-c", ""], 60.0, SilentProgress(), "")
    with pytest.raises(InputError, match="failed with 3"):
        run_program([sys.executable, "-c", "raise SystemExit(3)"], 60.0, SilentProgress(), "")
    with pytest.raises(InputError, match="cannot be started"):
        run_program([str(tmp_path / "none")], 60.0, SilentProgress(), "")
    capture_program.run_program([sys.executable, "-c", ""], tmp_path, "x", SilentProgress())
    script = f"import time; time.sleep(0.5); open({str(tmp_path / 'done')!r}, 'w')"
    run_program([sys.executable, "-c", script], 60.0, _Killer(), "")
    assert (tmp_path / "done").exists()
    assert psutil.Process().children() == before  # zombies would count
