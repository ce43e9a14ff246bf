"""The cameras as stage I corrected them: what every later step looks through.

Stage I learns camera corrections along with the surface, so the surface fits the corrected cameras.
Portraits, stages II and III and the asset must not go back to the uncorrected ones.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_json
from ..scene import Camera, Frame, Scene

FILE = "cameras.json"


def save_refined_cameras(folder: Path, frames: list[Frame]) -> None:
    """Write ``cameras.json``: K and c2w of every frame by name.

    Args:
        folder: Stage I's folder.
        frames: All frames of the scene, with corrected cameras.
    """
    document = {
        frame.name: {"K": frame.camera.K.tolist(), "c2w": frame.camera.c2w.tolist()}
        for frame in frames
    }
    write_json(folder / FILE, {"frames": document})


def with_refined_cameras(scene: Scene, folder: Path) -> Scene:
    """The scene with the cameras that stage I left in ``folder``; itself when it left none.

    Images, masks and depth are the capture's. Angles round the head, landmarks and the crop stay:
    corrections are a tenth of a degree.

    Raises:
        InputError: The file belongs to another capture or is damaged (``code="bad_prior"``).
    """
    path = folder / FILE
    if not path.exists():
        return scene
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["frames"]
        frames = [
            dataclasses.replace(
                frame,
                camera=Camera(
                    np.array(stored[frame.name]["K"], dtype=np.float64).reshape(3, 3),
                    np.array(stored[frame.name]["c2w"], dtype=np.float64).reshape(4, 4),
                    frame.camera.width,
                    frame.camera.height,
                ),
            )
            for frame in scene.frames
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{path}' does not belong to this capture; run stage I again.", "bad_prior"
        ) from error
    return dataclasses.replace(scene, frames=frames)
