"""Starting Warp without its greeting and without a warning that is no news on a processor."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

import warp as wp

_NO_NEWS = b"Could not find or load the NVIDIA CUDA driver"
_started = False


def start_warp() -> None:
    """Start Warp once; anything it says except :data:`_NO_NEWS` still reaches stderr.

    Its native library writes that line to file descriptor 2 on every machine without a GPU,
    whatever ``wp.config.log_level`` says (warp-lang 1.19); ``doctor`` tells of the device.
    """
    global _started
    if _started:
        return
    wp.config.log_level = wp.LOG_ERROR
    with _without_line(_NO_NEWS):
        wp.init()
    _started = True


@contextlib.contextmanager
def _without_line(part: bytes) -> Iterator[None]:
    """Hold back what native code writes to stderr, and then pass on lines without ``part``."""
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(tempfile.TemporaryFile())
        try:
            kept = os.dup(2)
        except OSError:  # no stderr at all (a service, pythonw): nothing to hold back
            kept = -1
        if kept < 0:
            yield
            return
        stack.callback(os.close, kept)
        with contextlib.suppress(AttributeError, ValueError):
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            held.seek(0)
            os.write(2, b"".join(line for line in held if part not in line))
