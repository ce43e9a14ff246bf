# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside the *backend's* Python: prints what it finds there as one JSON object.

Standard library only, any Python from 3.6 on, so that it can tell that a Python is too old.
"""

import importlib.metadata
import importlib.util
import json
import platform
import shutil
import subprocess
import sys

MODULES = (
    "torch",
    "warp",
    "numpy",
    "scipy",
    "cv2",
    "mediapipe",
    "pycolmap",
    "mcubes",
    "xatlas",
    "imageio",
    "imageio_ffmpeg",
    "tqdm",
    "trimesh",
    "fast_simplification",
    "PIL",
    "toonify3d",
)


def device() -> dict:
    """The accelerator that torch sees; importing torch is the slow part."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken torch can raise anything
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    found = {"torch": torch.__version__, "name": "CPU", "kind": "cpu"}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found.update(
            kind="cuda",
            name=torch.cuda.get_device_name(0),
            free_gb=free / 2**30,
            total_gb=total / 2**30,
        )
    elif getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
        found.update(kind="mps", name="Apple GPU")
    return found


def version(name: str) -> str:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def nvidia_driver() -> str:
    """Version of the NVIDIA driver, empty without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("ascii", "replace").strip().split("\n")[0]


def main(folder: str) -> None:
    """Collect everything about this interpreter."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    report = {
        "prefix": sys.prefix,
        "versions": {name: version(name) for name in ("torch", "pycolmap", "numpy")},
        "nvidia_driver": nvidia_driver(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "version_info": list(sys.version_info[:2]),
        "missing": missing,
        "free_disk_gb": shutil.disk_usage(folder).free / 2**30,
        "device": None if "torch" in missing else device(),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
