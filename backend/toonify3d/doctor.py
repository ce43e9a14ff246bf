"""``toonify3d doctor``: what is installed, which devices, what is missing and how to get it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_PACKAGES = {
    "torch": "torch",
    "warp": "warp-lang",
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-contrib-python",
    "mediapipe": "mediapipe",
    "pycolmap": "pycolmap",
    "mcubes": "PyMCubes",
    "xatlas": "xatlas",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "trimesh": "trimesh",
    "fast_simplification": "fast-simplification",
}
NEEDED_DISK_GB = 3.0
NEEDED_MEMORY_GB = 6.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    optional: bool = False


def examine() -> list[Finding]:
    """Look at this machine; imports every dependency for real."""
    findings = [_python()]
    findings += [_package(module, name) for module, name in _PACKAGES.items()]
    findings += [_opencv_is_single(), *_guarded("CUDA device", _cuda, optional=True)]
    findings += [*_guarded("field kernels", _kernels), _disk(), _memory()]
    findings += [_viewer(), _usd()]
    return findings


def format_findings(findings: list[Finding]) -> str:
    """Lines for a terminal."""
    lines = []
    for item in findings:
        mark = "ok  " if item.ok else ("--  " if item.optional else "FAIL")
        lines.append(f"{mark} {item.name}: {item.detail}")
        if not item.ok and item.fix:
            lines.append(f"       fix: {item.fix}")
    return "\n".join(lines)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Finding("Python", ok, f"{version} at {sys.executable}", "use Python 3.10, 3.11 or 3.12")


def _package(module: str, name: str) -> Finding:
    fix = f'"{sys.executable}" -m pip install {name}'
    try:
        importlib.import_module(module)
    except ImportError as error:
        if "libGL" in str(error):
            fix = "install the system's OpenGL library (Debian, Ubuntu: apt install libgl1)"
        return Finding(name, False, str(error), fix)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = "unknown version"
    return Finding(name, True, version, fix)


def _opencv_is_single() -> Finding:
    found = [
        dist.metadata["Name"]
        for dist in metadata.distributions()
        if (dist.metadata["Name"] or "").lower().startswith("opencv")
    ]
    fix = "uninstall all of them, then pip install opencv-contrib-python"
    return Finding("one OpenCV", len(set(found)) == 1, ", ".join(sorted(set(found))) or "none", fix)


def _guarded(name: str, look: Callable[[], Finding], optional: bool = False) -> list[Finding]:
    try:
        return [look()]
    except (ImportError, RuntimeError, OSError) as error:
        return [Finding(name, False, f"{type(error).__name__}: {error}", optional=optional)]


def _cuda() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "CUDA device",
            False,
            "none; training runs on the processor (preview preset: about six minutes on 2 cores)",
            "an NVIDIA GPU with its driver, and the CUDA build of torch",
            optional=True,
        )
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return Finding(
        "CUDA device", True, f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free"
    )


def _kernels() -> Finding:
    """Compile and run the hash grid kernel, as training will."""
    import torch

    from .devices import resolve_device
    from .snr.encoding import HashEncoding

    device = resolve_device("auto")
    encoding = HashEncoding(levels=2, features=2, base=4, finest=8, log2_table=8).to(device)
    features, _ = encoding(torch.zeros(8, 3, device=device))
    ok = bool(torch.isfinite(features).all())
    return Finding("field kernels", ok, f"Warp kernel compiled and run on {device}")


def _viewer() -> Finding:
    """The library of the 3D viewer in report.html (``report_page/library.py``)."""
    from .report_page.library import VERSION, find_library

    there = find_library() is not None
    detail = f"three.js {VERSION}" if there else "none; report.html shows no 3D viewer"
    return Finding("report viewer", there, detail, "toonify3d get-viewer", optional=True)


def _usd() -> Finding:
    found = _package("pxr", "usd-core")
    return dataclasses.replace(found, name="usd-core (export as USD)", optional=True)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    detail = f"{free:.1f} GB free in {Path.cwd()}"
    return Finding("disk", free >= NEEDED_DISK_GB, detail, f"a job needs {NEEDED_DISK_GB:.0f} GB")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("memory", True, "unknown", optional=True)
    fix = f"the preview preset needs {NEEDED_MEMORY_GB:.0f} GB"
    return Finding("memory", total >= NEEDED_MEMORY_GB, f"{total:.1f} GB", fix)
