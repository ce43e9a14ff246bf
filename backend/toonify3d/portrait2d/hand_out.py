"""The frames to be stylized as plain pictures, for an artist or another program."""

from __future__ import annotations

from pathlib import Path

import cv2

from ..errors import InputError
from ..files import read_image, write_image
from ..progress import Progress
from ..scene import Scene
from .pipeline import select_frames
from .settings import StylizeSettings


def hand_out(
    scene: Scene,
    portraits: Path | None,
    target: Path,
    settings: StylizeSettings,
    progress: Progress,
) -> list[str]:
    """Write ``NNNN.png`` (NNNN the source frame) that :func:`.folder.load_folder_views` reads back.

    Args:
        scene: The finished capture.
        portraits: Folder of a style's portraits to write instead of the photos: all of them, those
            from the sides too, or reading back would lose what is missing. None for the photos.
        target: A folder that is new or empty: painted pictures must never be written over.
        settings: Which photos.
        progress: Told when an end of the head is seen by few frames.

    Returns:
        The names written, in source order.

    Raises:
        InputError: ``target`` holds something (``not_empty``).
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"'{target}' is not an empty folder; choose a new one, so that nothing painted is"
            " written over.",
            "not_empty",
        )
    chosen = scene.frames if portraits else select_frames(scene, settings, progress)
    names = []
    for frame in sorted(chosen, key=lambda frame: frame.source_index):
        picture = scene.image(frame)
        if portraits is not None:
            path = portraits / f"{frame.name}.png"
            if not path.is_file():
                continue
            picture = read_image(path, cv2.IMREAD_COLOR)[..., ::-1]
        names.append(f"{frame.source_index:04d}.png")
        write_image(target / names[-1], picture)
    return names
