"""Files that a capture depends on beside the capture itself: masks, and pictures of a scene file.

The capture's own files are hashed when the job is made. These here lie elsewhere and may change
while the job stands (an artist repairs a mask), so every request looks at them anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .capture.posed import is_posed, load_posed
from .errors import InputError
from .service.job import JobFolder, file_hash
from .settings import JobSettings


def companion_files(capture: Path, mask_folder: str) -> list[Path]:
    """The user's mask folder, and what a ``transforms.json`` given as a file names.

    A capture that is a folder holds its pictures itself; a scene that cannot be read has none.
    """
    found = [Path(mask_folder)] if mask_folder else []
    if capture.is_file() and is_posed(capture):
        try:
            images = load_posed(capture).images
        except InputError:
            images = []
        found += [image.path for image in images]
        found += [image.mask for image in images if image.mask is not None]
    return found


def companions_hash(capture: Path, mask_folder: str) -> str | None:
    """SHA-256 of all companions; empty without any, None when one is not there any more."""
    files = companion_files(capture, mask_folder)
    if not all(path.exists() for path in files):
        return None
    if not files:
        return ""
    return hashlib.sha256("".join(file_hash(path) for path in files).encode()).hexdigest()


def record_companions(job: JobFolder, settings: JobSettings) -> None:
    """Note the companions' hash in ``job.json``; where some are gone the old one stays.

    So a finished job can still be restyled after its masks were thrown away, and a mask that was
    changed makes the capture run again.
    """
    capture = Path(job.description["capture"]["path"])
    found = companions_hash(capture, settings.capture.masks.folder)
    if found is not None:
        job.note_companions(found)
