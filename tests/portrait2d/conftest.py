"""Makes the made-up person importable (pytest's importlib mode leaves ``sys.path`` alone)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from portrait2d_person import make_subject


@pytest.fixture(scope="session")
def subject(tmp_path_factory):
    """Scene of 18 cameras round an egg with a face, and its mesh."""
    return make_subject(tmp_path_factory.mktemp("scene"))
