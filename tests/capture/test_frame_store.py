"""Frames on disk that look like arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toonify3d.capture.frame_store import stored

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from toonify3d.capture.frame_store import stored

def anonymous_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

before = anonymous_mb()
shape = (768, 1024, 3)
frames = stored((np.full(shape, i % 251, np.uint8) for i in range(120)), 120, Path(sys.argv[1]))
assert len(frames) == 120 and all(frame[5, 5, 1] == i % 251 for i, frame in enumerate(frames))
print(anonymous_mb() - before)
"""


def test_frames_come_back_and_can_be_written_over(tmp_path):
    rng = np.random.default_rng(0)
    true = [rng.integers(0, 255, (12, 16, 3), np.uint8) for _ in range(5)]
    frames = stored(iter(true), 7, tmp_path / "work" / "frames.raw")
    assert len(frames) == 5
    for frame, expected in zip(frames, true, strict=True):
        assert type(frame) is np.ndarray and frame.flags.c_contiguous
        np.testing.assert_array_equal(frame, expected)
    frames[2][...] = 7
    assert (frames[2] == 7).all()
    np.testing.assert_array_equal(frames[3], true[3])


def test_no_frames_make_no_file(tmp_path):
    assert stored(iter(()), 4, tmp_path / "frames.raw") == []
    assert not (tmp_path / "frames.raw").exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' memory figures")
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    """120 frames of 1024 x 768 are 283 MB; hardly any of it may be memory of the process."""
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "frames.raw")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert float(done.stdout) < 60
