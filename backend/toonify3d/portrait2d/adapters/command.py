"""Any program that turns pictures into pictures: one call a frame, or one for a folder."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from ...errors import InputError
from ...files import read_image, write_image
from ...progress import Progress
from ...scene import ByteImage
from .base import Photo
from .settings import AdapterSettings

_FRAME, _FOLDER = ("{input}", "{output}"), ("{input_dir}", "{output_dir}")


class Command:
    """Runs the user's program (never through a shell)."""

    def __init__(self, settings: AdapterSettings) -> None:
        try:
            self.words = shlex.split(settings.command)
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

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """See :class:`.base.FrameStylizer`."""
        with tempfile.TemporaryDirectory(prefix="toonify3d_") as folder:
            source, target = Path(folder, "input"), Path(folder, "output")
            target.mkdir(parents=True)
            for photo in photos:
                write_image(source / f"{photo.frame.name}.png", photo.image)
            if self.whole:
                progress.update(0.0, "the program stylizes the frames")
                run_program(self._fill(_FOLDER, source, target), self.timeout)
            else:
                self._frame_by_frame(photos, source, target, progress)
            return collect(photos, target)

    def _frame_by_frame(
        self, photos: Sequence[Photo], source: Path, target: Path, progress: Progress
    ) -> None:
        for index, photo in enumerate(photos):
            progress.update(index / len(photos), f"program: frame {index + 1} of {len(photos)}")
            name = f"{photo.frame.name}.png"
            run_program(self._fill(_FRAME, source / name, target / name), self.timeout)

    def _fill(self, marks: tuple[str, str], source: Path, target: Path) -> list[str]:
        return [
            word.replace(marks[0], str(source)).replace(marks[1], str(target))
            for word in self.words
        ]


def run_program(words: Sequence[str], timeout: float, folder: Path | None = None) -> None:
    """Run a program to its end.

    Raises:
        InputError: Not found (``no_program``), too slow (``program_slow``), or it failed
            (``program_failed``; its last line is quoted).
    """
    try:
        done = subprocess.run(
            list(words),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise InputError(
            f"The program '{words[0]}' cannot be started: {error.strerror}.", "no_program"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"The program '{words[0]}' did not end within {timeout:.0f} s"
            " (--set adapter.timeout=SECONDS).",
            "program_slow",
        ) from error
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
        said = f": {lines[-1][:300]}" if lines else ", without a word"
        raise InputError(
            f"The program '{words[0]}' failed with {done.returncode}{said}", "program_failed"
        )


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
