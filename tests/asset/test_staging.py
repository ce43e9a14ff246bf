"""A result is replaced as a whole: a full disk, a kill or a defect leaves the earlier one."""

import errno
import os
import resource
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toonify3d import files, steps
from toonify3d.errors import CancelledError, InputError, disk_sentence
from toonify3d.files import kept_folder, replaced_folder, write_image, write_json, write_text
from toonify3d.steps import run_whole

FILES = ("albedo.png", "avatar.obj", "report.json")


def write_result(folder: Path, word: str) -> None:
    """Three files as the asset step writes them."""
    noise = np.random.default_rng(len(word)).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    write_image(folder / FILES[0], noise)
    write_text(folder / FILES[1], word * 1000)
    write_json(folder / FILES[2], {"word": word})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def result(tmp_path):
    folder = tmp_path / "job" / "result"
    with replaced_folder(folder) as fresh:
        write_result(fresh, "first")
    return folder


def test_a_new_result_takes_the_place_of_the_earlier_one(result):
    assert sorted(contents(result)) == sorted(FILES)
    with replaced_folder(result) as fresh:
        write_result(fresh, "second")
        assert b"first" in contents(result)["report.json"]
    assert b"second" in contents(result)["report.json"]
    assert [path.name for path in result.parent.iterdir()] == ["result"]


@pytest.mark.parametrize("writes", range(3))
@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_at_any_time_leaves_the_earlier_result(result, monkeypatch, where, writes):
    before, count = contents(result), []
    name = "write_bytes" if where == "write" else "fsync"
    owner = Path if where == "write" else os
    real = getattr(owner, name)

    def full(*arguments):
        count.append(1)
        if len(count) > writes:
            file = str(arguments[0]) if where == "write" else None
            raise OSError(errno.ENOSPC, "No space left on device", file)
        return real(*arguments)

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match="No space left") as caught, replaced_folder(result) as fresh:
        write_result(fresh, "second")
    monkeypatch.undo()
    assert contents(result) == before
    assert [path.name for path in result.parent.iterdir()] == ["result"]
    # The sentence names the result, not a file that is gone again.
    assert caught.value.filename == str(result) and caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("problem", [CancelledError("stop"), RuntimeError("defect")])
def test_a_stop_or_defect_leaves_the_earlier_result(result, problem):
    before = contents(result)
    with pytest.raises(type(problem)), replaced_folder(result) as fresh:
        write_text(fresh / "albedo.png", "half")
        raise problem
    assert contents(result) == before
    assert [path.name for path in result.parent.iterdir()] == ["result"]


def test_what_a_killed_process_left_is_cleared_or_brought_back(result):
    before = contents(result)
    (result.parent / ".result.new").mkdir()
    (result.parent / ".result.new" / "albedo.png").write_text("half")
    with pytest.raises(CancelledError), replaced_folder(result) as fresh:
        assert not list(fresh.iterdir())
        raise CancelledError("stop")
    assert contents(result) == before
    result.rename(result.parent / ".result.old")  # killed between both renames
    with pytest.raises(CancelledError), replaced_folder(result):
        assert contents(result) == before
        raise CancelledError("stop")
    assert contents(result) == before


def test_a_swap_that_fails_brings_the_earlier_result_back(result, monkeypatch):
    before, rename = contents(result), Path.rename

    def refused(self, target):
        if self.name == ".result.new":
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="Input/output"), replaced_folder(result) as fresh:
        write_result(fresh, "second")
    assert contents(result) == before


def held_open(monkeypatch, times):
    """The first ``times`` renames of the result fail as on Windows while it is open elsewhere."""
    rename, count = Path.rename, []
    words = "The process cannot access the file because it is being used by another process"

    def refused(self, target):
        if self.name == "result" and len(count) < times:
            count.append(1)
            raise PermissionError(errno.EACCES, words, str(self), 32, str(target))
        return rename(self, target)

    monkeypatch.setattr(files, "SWAP_WAIT", 0.0)
    monkeypatch.setattr(Path, "rename", refused)
    return count


@pytest.mark.parametrize("times", [1, files.SWAP_TRIES - 1])
def test_a_result_held_for_a_moment_is_replaced(result, monkeypatch, times):
    count = held_open(monkeypatch, times)
    with replaced_folder(result) as fresh:
        write_result(fresh, "second")
    assert len(count) == times and b"second" in contents(result)["report.json"]
    assert [path.name for path in result.parent.iterdir()] == ["result"]


def test_a_result_that_is_open_elsewhere_costs_nothing(tmp_path, monkeypatch):
    reporter = SimpleNamespace(begin=lambda name: None, end=lambda: None, stage_warnings=[])
    context = SimpleNamespace(reporter=reporter, records={}, cached=[])
    folder, worked = tmp_path / "result", []

    def run(key):
        def work(where):
            worked.append(key)
            write_text(where / "avatar.obj", key)
            return {}

        run_whole(context, "asset", folder, key, work, lambda where: None)

    run("one")
    before = contents(folder)
    held_open(monkeypatch, files.SWAP_TRIES)
    with pytest.raises(InputError, match="open in another program; close it") as caught:
        run("two")
    assert caught.value.code == "in_use" and "\n" not in str(caught.value)
    assert contents(folder) == before
    run("two")  # closed by now: what was made is taken, not made again
    assert worked == ["one", "two"] and context.cached == ["asset"]
    assert contents(folder)["avatar.obj"] == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_kept_result_of_other_settings_is_not_taken(tmp_path, monkeypatch):
    folder = tmp_path / "result"
    with replaced_folder(folder) as fresh:
        write_result(fresh, "first")
    held_open(monkeypatch, files.SWAP_TRIES)
    with pytest.raises(InputError), replaced_folder(folder) as fresh:
        write_result(fresh, "second")
    assert b"second" in contents(kept_folder(folder))["report.json"]
    with replaced_folder(folder) as fresh:
        write_result(fresh, "third")
    assert b"third" in contents(folder)["report.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_disk_that_fills_while_8k_is_written(result):
    """The system refuses in the middle of a real file of 8192 x 8192 texels."""
    before = contents(result)
    texture = np.zeros((8192, 8192, 3), np.uint8)
    texture[::2, ::3] = 255  # 500 kB as PNG
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError, match="too large") as caught, replaced_folder(result) as fresh:
            write_text(fresh / "avatar.obj", "second")
            write_image(fresh / "albedo.png", texture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    sentence = disk_sentence(caught.value, "job")
    assert sentence.startswith(f"Cannot write '{result}'") and "free some space" in sentence
    assert contents(result) == before
    assert [path.name for path in result.parent.iterdir()] == ["result"]


def test_a_real_full_disk(tmp_path):
    """A file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a small file system")
    try:
        folder = disk / "result"
        with replaced_folder(folder) as fresh:
            write_result(fresh, "first")  # 40 kB: a second result does not fit beside it
        before = contents(folder)
        no_space = pytest.raises(OSError, match="No space left")
        with no_space as caught, replaced_folder(folder) as fresh:
            write_result(fresh, "second")
        assert caught.value.filename == str(folder)
        assert contents(folder) == before
        assert [path.name for path in disk.iterdir()] == ["result"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_step_replaces_its_folder_with_record_and_report(tmp_path):
    reporter = SimpleNamespace(begin=lambda name: None, end=lambda: None, stage_warnings=[])
    context = SimpleNamespace(reporter=reporter, records={}, cached=[])
    folder = tmp_path / "result"

    def run(key, word, problem=None):
        def finish(where):
            write_json(where / "report.json", {"word": word, "done": key})
            if problem is not None:
                raise problem

        def work(where):
            write_text(where / "avatar.obj", word)
            return {"word": word}

        run_whole(context, "asset", folder, key, work, finish)

    run("one", "first")
    assert steps.finished_step(folder, "one").figures == {"word": "first"}
    before = contents(folder)
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        run("two", "second", full)  # other settings, and the disk fills at the very last file
    assert contents(folder) == before
    assert steps.finished_step(folder, "one") and not steps.finished_step(folder, "two")
    run("two", "second")
    assert b"second" in contents(folder)["report.json"] and context.cached == []
    run("two", "third")
    assert context.cached == ["asset"] and b"second" in contents(folder)["avatar.obj"]
