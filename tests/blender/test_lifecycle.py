"""The extension's life: installed, used in two scenes, saved, upgraded, disabled, removed."""

import sys
import zipfile

import numpy as np
import pytest
from harness import ROOT, run_in_bpy

import toonify3d

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake interpreter is a script")


def newer_zip(extension_zip, folder):
    """The same extension with a higher version."""
    path = folder / "toonify3d-99.0.0.zip"
    with zipfile.ZipFile(extension_zip) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "blender_manifest.toml":
                old = f'version = "{toonify3d.__version__}"'.encode()
                assert old in data
                data = data.replace(old, b'version = "99.0.0"')
            target.writestr(name, data)
    return path


def result_folder(folder):
    """The smallest result: one quad."""
    folder.mkdir(parents=True)
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    np.savez(folder / "avatar.npz", vertices=points, faces=faces, uvs=points[faces][..., [0, 2]])
    return folder


def test_the_extensions_life(extension_zip, tmp_path, version):
    folder = tmp_path / "Ünï çødé 空間"
    folder.mkdir()
    python = folder / "python"
    worker = ROOT / "tests" / "blender" / "fake_worker.py"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{worker}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    result = run_in_bpy(
        "lifecycle",
        tmp_path,
        version=version,
        zip=str(extension_zip),
        newer=str(newer_zip(extension_zip, tmp_path)),
        result=str(result_folder(folder / "styles" / "toon" / "result")),
        folder=str(folder),
        python=str(python),
    )
    assert result["version"] == toonify3d.__version__ and result["upgraded"] == "99.0.0"
    assert result["in_scenes"] == [[], ["toon"]]
    assert result["transforms"] == ["AgX", "Standard"]
    assert result["reopened"] == {"Scene": ["/one.mp4", 0.25], "second": ["/two.mp4", 0.75]}
    assert result["kept"] == [True, True] and result["kept_scene"] == "/two.mp4"
    assert result["ran"] == "RUNNING" and result["worker_exit"] == 3
    assert not result["timer_left"]
    assert result["left"] == [] and result["left_after_removal"] == []
    assert result["again"] == "/two.mp4"
    assert result["removed"] == [False, True]
