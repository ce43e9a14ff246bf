"""The extension in real bpy: built, validated, installed, used, removed; own processes."""

import json
import subprocess
import sys
import zipfile

import build_addon
import harness
import numpy as np
import pytest
from harness import ROOT, run_in_bpy
from wheels import write_list, write_wheel

import toonify3d

needs_bpy = pytest.mark.skipif(not harness.HAS_BPY, reason="bpy is not installed")


def test_zip_holds_sources_only(extension_zip):
    with zipfile.ZipFile(extension_zip) as archive:
        names = archive.namelist()
        requirements = archive.read("backend/packages/linux-cpu.txt").decode()
        assert archive.read("protocol.py") == archive.read("backend/toonify3d/service/protocol.py")
    assert "__init__.py" in names and "blender_manifest.toml" in names and "LICENSE" in names
    assert "backend/toonify3d/service/link.py" in names
    assert not [n for n in names if "__pycache__" in n or n.endswith((".pyc", ".so", ".whl"))]
    assert extension_zip.name == f"toonify3d-{toonify3d.__version__}.zip"
    assert "mediapipe==0.10.21 \\\n    --hash=sha256:" in requirements
    assert sum(name.startswith("backend/packages/") for name in names) == 5


def test_zip_is_reproducible(extension_zip, tmp_path):
    assert build_addon.build(tmp_path).read_bytes() == extension_zip.read_bytes()


def test_disagreeing_versions_are_refused(tmp_path, monkeypatch):
    addon = tmp_path / "blender_addon"
    addon.mkdir()
    for name in ("blender_manifest.toml", "protocol.py"):
        (addon / name).write_bytes((build_addon.ADDON / name).read_bytes())
    monkeypatch.setattr(build_addon, "ADDON", addon)
    assert build_addon.check_versions() == toonify3d.__version__
    text = (addon / "protocol.py").read_text("utf-8")
    (addon / "protocol.py").write_text(text + "\n", "utf-8")
    with pytest.raises(build_addon.BuildError, match="protocol"):
        build_addon.build(tmp_path)
    build_addon.sync_protocol()
    manifest = (addon / "blender_manifest.toml").read_text("utf-8")
    changed = manifest.replace(f'version = "{toonify3d.__version__}"', 'version = "9.9.9"')
    (addon / "blender_manifest.toml").write_text(changed, "utf-8")
    with pytest.raises(build_addon.BuildError, match=r"9\.9\.9"):
        build_addon.build(tmp_path)


def test_executables_are_refused(tmp_path, monkeypatch):
    addon = tmp_path / "blender_addon"
    addon.mkdir()
    for name in ("blender_manifest.toml", "protocol.py"):
        (addon / name).write_bytes((build_addon.ADDON / name).read_bytes())
    (addon / "fast.so").write_bytes(b"\x7fELF")
    monkeypatch.setattr(build_addon, "ADDON", addon)
    with pytest.raises(build_addon.BuildError, match="compiled"):
        build_addon.build(tmp_path)


def test_addon_has_no_threads_and_no_foreign_imports():
    """Blender's Python does not support threads; anything but stdlib and numpy may be missing."""
    import ast

    own = {"blf", "bpy", "gpu", "gpu_extras", "mathutils"}
    allowed = set(sys.stdlib_module_names) | own | {"numpy"}
    for path in sorted((ROOT / "blender_addon").rglob("*.py")):
        if path.name in {"probe.py", "bootstrap.py"}:  # never in Blender's Python
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                assert top in allowed, f"{path.name} imports {name}"
                assert top not in {"threading", "multiprocessing", "asyncio", "concurrent"}


@needs_bpy
def test_blender_validates_the_zip(extension_zip):
    tool = build_addon.blender_ext()
    assert tool is not None
    build_addon.validate(extension_zip, tool)


@needs_bpy
def test_blender_refuses_a_broken_zip(extension_zip, tmp_path):
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(extension_zip) as source, zipfile.ZipFile(broken, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "blender_manifest.toml":
                data = data.replace(b'tagline = "', b'tagline = "x' + b"x" * 80)
            target.writestr(name, data)
    with pytest.raises(build_addon.BuildError, match="tagline"):
        build_addon.validate(broken, build_addon.blender_ext())


def test_install_use_upgrade_disable(extension_zip, tmp_path, version):
    wheels, environment = tmp_path / "wheels", tmp_path / "Ünï çødé 空間"
    write_list(tmp_path / "packages", {"tinytoon==1.0": write_wheel(wheels, "tinytoon")})
    result = run_in_bpy(
        "extension",
        tmp_path,
        version=version,
        zip=str(extension_zip),
        python=sys.executable,
        wheels=str(wheels),
        lists=str(tmp_path),
        environment=str(environment),
    )
    # Offline: downloads are refused, a folder of wheels is not.
    assert result["bootstrap_poll"] == [False, False, True]
    error, python, messages, _ = result["setup"]
    assert error == "" and python.startswith(str(environment)), result["setup"]
    assert f"Ready: {python}" in messages and not any("Fatal" in said for said in messages)
    command = [python, "-c", "import tinytoon; print(tinytoon.__name__)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "tinytoon"
    lines = {title: (ok, detail) for title, ok, detail in result["after_setup"]}
    assert lines["Environment"][0] and lines["Python"][0]
    assert not (lines["PyTorch"][0] or lines["pycolmap"][0] or lines["Other packages"][0])
    assert ["'toonify3d.set_up_backend'"] in result["prefs_after"]
    assert "outside Blender's" in result["inside_blender"]
    assert result["left"] == [] and result["classes"] == []
    assert result["upgraded"]
    assert not result["poll_without"] and result["poll_with"]
    assert "does not exist" in result["complaint"]
    assert result["dropped"] == ["/somewhere/film.MOV", "/somewhere/toon.png"]
    lines = {title: (ok, detail) for title, ok, detail in result["lines"]}
    assert lines["Python"][0] and lines["PyTorch"][0] and lines["Device"][0]
    assert result["bad"] == [["Environment", False, "toonify3d.choose_python"]]
    assert not result["torch_loaded"] and result["threads"] == 1
    assert result["idle_ms"] < 0.1
    assert toonify3d.__version__ in result["report"]
    assert result["drawn"]["TOONIFY3D_PT_main"] > 8 and result["preferences_drawn"] > 8


def test_result_in_the_scene(extension_zip, tmp_path, version):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    result = run_in_bpy(
        "scene", tmp_path, version=version, zip=str(extension_zip), folder=str(folder)
    )
    assert result["counts"] == result["expected"]
    assert result["moved"] == 0.0 and result["identity"] and result["smooth"]
    assert result["name"] == "Ünï çødé 空間" == result["collection"][0]
    assert result["view"] == "Standard" and result["image_space"] == "sRGB"
    upper, lower = result["cycles"]
    assert np.abs(np.subtract(upper, (250, 60, 90))).max() < 15
    assert np.abs(np.subtract(lower, (40, 90, 220))).max() < 15
    assert all(size > 1000 for size in result["exports"].values()), result["exports"]
    assert result["glb"] == {
        "textured": True,
        "emissive": False,
        "meshes": 1,
        "nodes": ["Ünï çødé 空間"],
        "back": [1, result["expected"][1]],
    }
    assert result["frames"] == [f"frame-{n:04d}.png" for n in range(1, 5)]
    front, back = result["turn"]
    assert front[0] > 2 * front[1] and back[1] > 2 * back[0]  # red in front, green behind
    assert result["video"] > 500
    assert result["untouched"], result["changed"]
    assert result["outline"] == ["SOLIDIFY"] and result["outline_off"] == 0
    assert result["style"] == pytest.approx([0.12, 0.06], abs=1e-4)
    _one_slider_for_shape_and_colors(result)
    assert len(result["rigs"]) == 3 and len({str(rig) for rig in result["rigs"].values()}) == 3
    assert [len(rig) for rig in result["rigs"].values()] == [2, 3, 2]
    assert result["turning"] == {"OBJECT": [True], "CAMERA": [False]} and result["rigs_gone"]
    assert result["reopened"][0].startswith("//") and result["reopened"][1]
    assert result["settings_kept"] == 32
    assert "damaged" in result["broken"] and result["broken_left"]
    assert result["undo"] == [1, 0]
    assert result["big"][0] > 200_000 and result["big"][1] < 1.0
    assert result["big_normals_s"] < 1.0


def _one_slider_for_shape_and_colors(result):
    assert result["beside"] > 0.1  # the job's second style stands beside the first
    assert result["style_mix"] == [[0.0, 1.0], [1.0, 0.0]]
    person, stylized = result["style_colors"]
    assert person[1] > 150 > 100 > person[0] and stylized[0] > 150 > 100 > stylized[1]
    assert result["plain"] == {"obj": True, "fbx": True, "usd": True, "glb": "albedo"}


def _inputs(folder):
    capture, exemplar = folder / "my film.mp4", folder / "toon.png"
    capture.write_bytes(b"film")
    exemplar.write_bytes(b"picture")
    return {"capture": str(capture), "exemplar": str(exemplar), "output": str(folder / "jobs")}


def _fake_python(folder):
    path = folder / "python"
    script = ROOT / "tests" / "blender" / "fake_worker.py"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@needs_bpy
@pytest.mark.skipif(sys.platform == "win32", reason="the fake interpreter is a script")
@pytest.mark.parametrize(("cancel_at", "command"), [(0.02, "stylize"), (0.3, "resume")])
def test_stylize_by_the_operator(extension_zip, tmp_path, cancel_at, command):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    result = run_in_bpy(
        "job",
        tmp_path,
        zip=str(extension_zip),
        python=_fake_python(folder),
        seconds=60,
        cancel_at=cancel_at,
        **_inputs(folder),
    )
    assert result["cancelled"] == "CANCELLED" and result["acknowledged_s"] < 1.0
    assert not result["busy_poll"]
    assert result["states"][-1] == "DONE" and "RUNNING" in result["states"]
    assert result["rising"] and result["steps"] > 5
    assert "progress" in result["shown"]["RUNNING"] and "progress" in result["shown"]["DONE"]
    assert result["poll_ms"][0] < 2.0
    assert result["mesh"] == [3, 1]
    assert result["preview"]
    assert len(result["frames"]) == 2
    request = json.loads((folder / "jobs" / "my-film-001" / "request.json").read_text("utf-8"))
    assert request["command"] == command
    assert ("capture" in request) == (command == "stylize")


@needs_bpy
def test_wrong_interpreter_fails_in_one_sentence(extension_zip, tmp_path):
    result = run_in_bpy(
        "job",
        tmp_path,
        zip=str(extension_zip),
        python=str(tmp_path / "none"),
        seconds=20,
        **_inputs(tmp_path),
    )
    assert result["states"] == ["FAILED"]
    assert result["problem"][0] == "no_python"
    assert "operator" in result["shown"]["FAILED"]


@needs_bpy
def test_the_real_worker_answers(extension_zip, tmp_path):
    """The real backend over the real socket: a film that is none must come back as a sentence."""
    result = run_in_bpy(
        "job",
        tmp_path,
        zip=str(extension_zip),
        python=sys.executable,
        seconds=120,
        **_inputs(tmp_path),
    )
    assert result["states"][-1] == "FAILED", result["states"]
    code, message = result["problem"]
    assert code not in {"defect", "died", "killed"}, (message, result["tail"])
    assert "my film.mp4" in message


def test_build_addon_command(tmp_path):
    command = [sys.executable, str(ROOT / "build_addon.py"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "toonify3d-" in done.stdout
    assert list(tmp_path.glob("*.zip"))


# The preview preset made small enough for a test: every step is still the real one.
TINY = (
    "capture.max_frames=48",
    "prior.steps=150",
    "prior.guide_resolution=64",
    "prior_mesh.resolution=96",
    "prior_mesh.faces=8000",
    "stylize.max_frames=8",
    "geometry.steps=40",
    "texture.steps=40",
    "texture.max_points=100000",
    "asset.resolution=96",
    "asset.faces=6000",
    "asset.texture_size=512",
)


@needs_bpy
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_main_job_from_blender(extension_zip, tmp_path):
    """Film and portrait to a rendered avatar: real worker, real socket, real import."""
    result = run_in_bpy(
        "job",
        tmp_path,
        timeout=3500,
        zip=str(extension_zip),
        python=sys.executable,
        seconds=3300,
        pause=0.2,
        size=256,
        samples=16,
        overrides=list(TINY),
        capture=str(ROOT / "assets" / "demo" / "capture.mp4"),
        exemplar=str(ROOT / "assets" / "demo" / "exemplar_glossy.png"),
        output=str(tmp_path / "jobs"),
    )
    assert result["states"][-1] == "DONE", (result["problem"], result["tail"])
    assert result["rising"] and result["steps"] > 20 and result["preview"]
    assert result["poll_ms"][0] < 2.0
    assert result["mesh"][1] > 1000
    low, high = result["box"]
    assert 0.15 < high[2] - low[2] < 1.0  # metres, Z up
    assert np.abs(np.subtract(result["middle"], result["corner"])).max() > 20
