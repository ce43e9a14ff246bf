"""Any program that turns pictures into pictures: one call a frame, or one for a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from ...errors import InputError
from ...files import read_image, write_image
from ...progress import Progress, SubProgress
from ...scene import ByteImage
from .base import Photo
from .program import check_program, run_program, split_command
from .settings import AdapterSettings

_FRAME, _FOLDER = ("{input}", "{output}"), ("{input_dir}", "{output_dir}")


class Command:
    """Runs the user's program (never through a shell)."""

    def __init__(self, settings: AdapterSettings) -> None:
        try:
            self.words = split_command(settings.command)
        except ValueError as error:
            raise InputError(f"The command cannot be read: {error}.", "bad_command") from error
        self.timeout = settings.timeout
        self.whole = all(any(mark in word for word in self.words) for mark in _FOLDER)
        single = all(any(mark in word for word in self.words) for mark in _FRAME)
        if not self.whole and not single:
            raise InputError(
                "The command stylizer needs a program with {input} and {output} (one picture) or"
                " {input_dir} and {output_dir} (all of them): --set adapter.command='PROGRAM"
                " {input} {output}'.",
                "bad_command",
            )
        if not any(mark in self.words[0] for mark in (*_FRAME, *_FOLDER)):
            check_program(self.words[0], "adapter.command")

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """See :class:`.base.FrameStylizer`."""
        with tempfile.TemporaryDirectory(prefix="toonify3d_") as folder:
            source, target = Path(folder, "input"), Path(folder, "output")
            target.mkdir(parents=True)
            for photo in photos:
                write_image(source / f"{photo.frame.name}.png", photo.image)
            if self.whole:
                words = self._fill(_FOLDER, source, target)
                run_program(words, self.timeout, progress, "the program stylizes the frames")
            else:
                self._frame_by_frame(photos, source, target, progress)
            return collect(photos, target)

    def _frame_by_frame(
        self, photos: Sequence[Photo], source: Path, target: Path, progress: Progress
    ) -> None:
        count = len(photos)
        for index, photo in enumerate(photos):
            part = SubProgress(progress, index / count, (index + 1) / count)
            name = f"{photo.frame.name}.png"
            words = self._fill(_FRAME, source / name, target / name)
            run_program(words, self.timeout, part, f"program: frame {index + 1} of {count}")

    def _fill(self, marks: tuple[str, str], source: Path, target: Path) -> list[str]:
        return [
            word.replace(marks[0], str(source)).replace(marks[1], str(target))
            for word in self.words
        ]


def collect(photos: Sequence[Photo], folder: Path) -> dict[str, ByteImage]:
    """The pictures ``NNNN.png`` (or ``.jpg``) that a program left, RGB by frame name."""
    made = {}
    for photo in photos:
        for suffix in (".png", ".jpg"):
            path = folder / f"{photo.frame.name}{suffix}"
            if path.is_file():
                bgr = read_image(path, cv2.IMREAD_COLOR)
                made[photo.frame.name] = bgr[..., ::-1].copy()
                break
    return made
