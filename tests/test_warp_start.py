"""Warp starts without the line that every machine without a GPU would see."""

import os
import subprocess
import sys

import pytest

from toonify3d.warp_start import _without_line


def test_start_says_nothing_on_a_processor():
    code = "from toonify3d.warp_start import start_warp; start_warp(); start_warp()"
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=hidden)
    assert done.returncode == 0 and done.stdout == ""
    assert "NVIDIA CUDA driver" not in done.stderr


def test_other_lines_pass(capfd):
    with _without_line(b"no news"):
        os.write(2, b"a real error\nthis is no news\nanother\n")
    assert capfd.readouterr().err == "a real error\nanother\n"


def test_lines_pass_when_the_start_fails(capfd):
    with pytest.raises(RuntimeError), _without_line(b"no news"):
        os.write(2, b"why it failed\n")
        raise RuntimeError
    assert capfd.readouterr().err == "why it failed\n"
