"""What a run cost in memory."""

from __future__ import annotations

import sys

import torch


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far in MB; None where the system cannot say."""
    try:
        import resource
    except ImportError:  # Windows has no resource module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)


def peak_vram_mb() -> float:
    """Largest CUDA memory that torch allocated so far in MB; 0 without CUDA."""
    if not torch.cuda.is_available():
        return 0.0
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)
