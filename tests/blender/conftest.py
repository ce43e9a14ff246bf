"""The add-on's modules without bpy (`blender_addon.job` ...), and the built zip."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "backend", Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def extension_zip(tmp_path_factory):
    import build_addon

    return build_addon.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(params=["5.0", "4.5", "4.2"])
def version(request):
    """Each Blender version that the add-on supports and that is installed here."""
    import harness

    reason = harness.missing_bpy(request.param)
    if reason:
        pytest.skip(reason)
    return request.param
