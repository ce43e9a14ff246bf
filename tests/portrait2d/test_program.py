"""Programs of the user's: cancelled, too slow, or started on Windows."""

from __future__ import annotations

import os
import sys
import time

import psutil
import pytest

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
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
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
