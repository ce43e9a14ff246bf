"""Set Up Backend: the bootstrap as a command, with wheels made here and no network."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import build_addon
import pytest
from blender_addon import bootstrap, doctor, setup_backend
from harness import ROOT
from wheels import write_list, write_wheel

COMMAND = [sys.executable, str(ROOT / "blender_addon" / "bootstrap.py")]


def run(*arguments, env=None):
    """The bootstrap as the artist would run it; exit code and output."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        env=env,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Wheels of three packages, their list, and a folder for the environment."""
    root = tmp_path_factory.mktemp("Ünï çødé 空間")
    wheels = root / "wheels"
    names = ("toona", "toonb", "toonc")
    hashes = {f"{name}==1.0": write_wheel(wheels, name) for name in names}
    packages = write_list(root / "packages", hashes)
    return SimpleNamespace(
        root=root, wheels=wheels, packages=packages, hashes=hashes, folder=root / "environment"
    )


def arguments(place, *more):
    common = ["--folder", place.folder, "--packages", place.packages, "--device", "cpu"]
    return [*common, "--wheels", place.wheels, *more]


def versions(place):
    """What the environment can import, by module."""
    code = (
        "import importlib, json, importlib.util as u\n"
        "names = [n for n in ('toona', 'toonb', 'toonc') if u.find_spec(n)]\n"
        "print(json.dumps({n: importlib.import_module(n).VERSION for n in names}))"
    )
    command = [str(bootstrap.environment_python(place.folder)), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_a_wrong_hash_is_refused_and_the_setup_goes_on_afterwards(place):
    write_list(place.packages, {**place.hashes, "toonb==1.0": "0" * 64})
    code, output = run(*arguments(place))
    assert code == 1
    assert "toonb 1.0 cannot be installed: its hash is not the expected one" in output
    assert versions(place) == {"toona": "1.0"}

    write_list(place.packages, place.hashes)
    code, output = run(*arguments(place))
    assert code == 0, output
    assert "toona" not in output  # is there already
    assert "toonb 1.0 (1 MB), 2 of 3" in output
    assert versions(place) == {"toona": "1.0", "toonb": "1.0", "toonc": "1.0"}
    ready = f"100%  Ready: {bootstrap.environment_python(place.folder)}"
    assert output.splitlines()[-1] == ready

    code, output = run(*arguments(place))
    assert code == 0 and output.splitlines() == [ready]


def test_half_written_and_outdated_packages_are_replaced(place):
    """After test_a_wrong_hash...: a package without its RECORD, as a kill leaves it; a new one."""
    record = next(place.folder.glob("**/toonb-1.0.dist-info/RECORD"))
    record.unlink()
    state = place.folder / bootstrap.MARKER
    document = json.loads(state.read_text("utf-8"))
    del document["installed"]["toonb"]
    state.write_text(json.dumps({**document, "complete": ""}), "utf-8")
    newer = {**place.hashes, "toonc==2.0": write_wheel(place.wheels, "toonc", "2.0")}
    del newer["toonc==1.0"]
    write_list(place.packages, newer)
    code, output = run(*arguments(place))
    assert code == 0, output
    assert versions(place) == {"toona": "1.0", "toonb": "1.0", "toonc": "2.0"}
    assert not list(place.folder.glob("**/toonc-1.0.dist-info"))
    write_list(place.packages, place.hashes)


def test_without_network_it_says_so(place):
    closed = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    write_list(place.packages, {"toona==9.0": "0" * 64})
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {**closed, "PIP_CONFIG_FILE": os.devnull}
    code, output = run(*arguments(place)[:-2], env=environment)
    write_list(place.packages, place.hashes)
    assert code == 1
    assert "toona 9.0 cannot be installed: the network cannot be reached" in output


@pytest.mark.skipif(sys.platform == "win32", reason="ends a process group")
@pytest.mark.parametrize("manner", ["cancel", "blender dies"])
def test_a_stopped_setup_ends_at_once_and_can_go_on(place, tmp_path, manner):
    setup = setup_backend.BackendSetup()
    slow = tmp_path / "slow"
    hashes = {
        f"toon{letter}==1.0": write_wheel(slow, f"toon{letter}", size=1 << 22) for letter in "abc"
    }
    packages = write_list(tmp_path / "packages", hashes)
    # The same environment as above, with nothing noted as installed.
    (place.folder / bootstrap.MARKER).unlink(missing_ok=True)
    setup.start(place.folder, packages, "cpu", str(slow))
    deadline = time.monotonic() + 60
    while "2 of 3" not in setup.message and time.monotonic() < deadline:
        setup.poll()
        time.sleep(0.005)
    assert "2 of 3" in setup.message, (setup.message, setup.error)
    child = setup._child
    if manner == "cancel":
        setup.cancel()
        assert not setup.running and "it can go on later" in setup.error
    else:
        child.stdin.close()
    assert child.wait(timeout=10) != 0
    assert "toona" in json.loads((place.folder / bootstrap.MARKER).read_text("utf-8"))["installed"]

    again = setup_backend.BackendSetup()
    again.start(place.folder, packages, "cpu", str(slow))
    said = set()
    while again.running and time.monotonic() < deadline + 60:
        again.poll()
        said.add(again.message)
        time.sleep(0.02)
    assert again.error == "" and again.python, (again.error, again.tail)
    assert again.fraction == 1.0 and again.tail
    assert not any("toona" in message for message in said)
    assert set(versions(place)) == {"toona", "toonb", "toonc"}


def test_downloading_for_another_machine(place, tmp_path):
    target = tmp_path / "taken along"
    common = ["--packages", place.packages, "--device", "cpu", "--wheels", place.wheels]
    code, output = run("--download", target, *common)
    assert code == 0, output
    assert len(list(target.glob("*-1.0-*.whl"))) == 3


def test_bad_folders_are_refused(place, tmp_path):
    inside = ROOT / "blender_addon" / "environment"
    code, output = run("--folder", inside, "--packages", place.packages)
    assert code == 1 and "outside the add-on" in output and not inside.exists()
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    code, output = run("--folder", tmp_path, "--packages", place.packages, "--device", "cpu")
    assert code == 1 and "is not empty" in output
    (tmp_path / "file").write_text("x")
    code, output = run("--folder", tmp_path / "file" / "env", "--packages", place.packages)
    assert code == 1 and "cannot be made" in output


def test_too_little_disk_is_said_before_anything_is_made(place, tmp_path):
    packages = write_list(tmp_path / "packages", place.hashes, disk_gb=1e6)
    code, output = run("--folder", tmp_path / "env", "--packages", packages, "--device", "cpu")
    assert code == 1 and "1000000.0 GB are needed" in output
    assert not list((tmp_path / "env").iterdir())


def test_damaged_lists_are_refused(tmp_path):
    for text in ("", "# python: 3.11\n", "# python: 3.11\ntoona==1.0\n", "toona==1.0 --hash=x\n"):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(bootstrap.SetupError):
            bootstrap.PackageList(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("system", "device", "driver", "expected"),
    [
        ("linux", "auto", 0, "linux-cpu"),
        ("linux", "auto", 535, "linux-cpu"),
        ("linux", "auto", 580, "linux-cuda"),
        ("linux", "cpu", 580, "linux-cpu"),
        ("win32", "auto", 551, "windows-cuda"),
        ("win32", "auto", 0, "windows-cpu"),
        ("darwin", "auto", 0, "macos-metal"),
        ("darwin", "cpu", 0, "macos-metal"),
    ],
)
def test_the_build_of_torch_follows_the_machine(system, device, driver, expected):
    name, remark = bootstrap.list_name(device, system, lambda: driver)
    assert name == expected
    assert (ROOT / "backend" / "packages" / f"{name}.txt").is_file()
    assert ("older than" in remark) == (0 < driver < 580 and system == "linux")


@pytest.mark.parametrize(
    ("system", "driver"), [("linux", 0), ("linux", 535), ("darwin", 0), ("aix", 0)]
)
def test_cuda_where_there_is_none_is_refused(system, driver):
    with pytest.raises(bootstrap.SetupError):
        bootstrap.list_name("cuda", system, lambda: driver)


def test_the_committed_lists_fit_the_project(tmp_path, monkeypatch):
    lists = build_addon.check_lists()
    assert len(lists) == 5
    for path in lists:
        found = bootstrap.PackageList(path)
        assert found.pythons[0] == (3, 11) and found.requirements[0].name == "pip"
        torch = next(item for item in found.requirements if item.name == "torch")
        assert ("+" in torch.version) == bool(found.index)
        assert all(item.text.count("--hash=sha256:") >= 1 for item in found.requirements)
        nvidia = any(item.name.startswith("nvidia") for item in found.requirements)
        assert nvidia == (path.stem == "linux-cuda")
    stale = tmp_path / "linux-cpu.txt"
    text = lists[0].read_text("utf-8")
    stale.write_text(text.replace("mediapipe==", "other=="), "utf-8")
    monkeypatch.setattr(build_addon, "PACKAGES", tmp_path)
    with pytest.raises(build_addon.BuildError, match="lacks mediapipe"):
        build_addon.check_lists()
    stale.write_text(text.replace("trimesh==", "trimesh==0"), "utf-8")
    with pytest.raises(build_addon.BuildError, match="has trimesh 0"):
        build_addon.check_lists()


def test_the_help_explains_it():
    code, output = run("--help")
    assert code == 0 and "--wheels" in output and "setup-log.txt" in output


def line(lines, title):
    return next(item for item in lines if item.title == title)


GOOD = {
    "prefix": "/env",
    "python": "3.11.7",
    "version_info": [3, 11],
    "versions": {"torch": "2.13.0", "pycolmap": "4.2.1"},
    "missing": [],
    "free_disk_gb": 100.0,
    "device": {"kind": "cuda", "name": "GPU", "torch": "2.13", "free_gb": 20.0, "total_gb": 24.0},
}


def test_the_checklist_of_a_good_environment():
    lines = doctor.checklist(GOOD)
    titles = [item.title for item in lines]
    assert titles == [
        "Environment", "Python", "PyTorch", "Device", "GPU memory", "pycolmap", "Other packages",
        "Disk",
    ]  # fmt: skip
    assert all(item.ok and not item.fix for item in lines)
    assert line(lines, "GPU memory").detail == "20.0 of 24.0 GB free"
    assert line(lines, "pycolmap").detail == "4.2.1"


@pytest.mark.parametrize(
    ("changes", "title", "fix"),
    [
        ({"version_info": [3, 13]}, "Python", doctor.CHOOSE),
        ({"device": None, "missing": ["torch"]}, "PyTorch", doctor.SET_UP),
        ({"device": {"error": "OSError: libcudart"}}, "PyTorch", doctor.SET_UP),
        ({"device": {**GOOD["device"], "free_gb": 1.0}}, "GPU memory", doctor.SOLID),
        ({"missing": ["pycolmap"], "versions": {}}, "pycolmap", doctor.SET_UP),
        ({"missing": ["xatlas"]}, "Other packages", doctor.SET_UP),
        ({"free_disk_gb": 1.0}, "Disk", doctor.OUTPUT),
        (
            {"device": {"kind": "cpu", "name": "CPU", "torch": "2"}, "nvidia_driver": "580.1"},
            "Device",
            doctor.SET_UP,
        ),
    ],
)
def test_each_failing_line_has_its_fix(changes, title, fix):
    lines = doctor.checklist({**GOOD, **changes})
    found = line(lines, title)
    assert not found.ok and found.fix == fix and found.fix_text
    if "device" not in changes:
        assert [item.title for item in lines if not item.ok] == [title]


@pytest.mark.skipif(sys.platform == "win32", reason="the fake uv is a script")
def test_where_no_python_fits_uv_is_asked_for_one(place, tmp_path, monkeypatch):
    uv, log = tmp_path / "uv", tmp_path / "log.txt"
    made = f'exec "{sys.executable}" -m venv --without-pip "${{@: -1}}"'
    uv.write_text(f'#!/bin/bash\necho "$@" > "{tmp_path}/asked"\n{made}\n', encoding="utf-8")
    uv.chmod(0o755)
    packages = bootstrap.PackageList(place.packages / "linux-cpu.txt")
    options = bootstrap.parse(["--folder", str(tmp_path / "env")])
    options.folder.mkdir()
    monkeypatch.setattr(bootstrap, "find_python", lambda *_: [])
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "")
    with pytest.raises(bootstrap.SetupError, match=r"No Python 3\.11 or .* was found"):
        bootstrap.create(options, packages, log)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: str(uv))
    bootstrap.create(options, packages, log)
    assert bootstrap.environment_python(options.folder).exists()
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:2] == ["venv", "--seed"] and asked[-3:-1] == ["--python", "3.11"]


def test_an_interpreter_that_does_not_fit_is_refused(place, tmp_path):
    code, output = run("--folder", tmp_path / "env", *arguments(place)[2:], "--python", "/bin/sh")
    assert code == 1 and "/bin/sh is not a Python" in output
