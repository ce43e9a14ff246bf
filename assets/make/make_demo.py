"""Make everything in ``assets/demo``: ``python assets/make/make_demo.py [--only NAME ...]``.

Needs ``bpy`` (5.0) besides the packages of the product. Rendered frames are kept in the work
folder, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo"


def make_capture(work: Path, threads: int) -> None:
    """``capture.mp4``."""
    import capture

    files = capture.render_frames(work / "capture", list(range(capture.FRAMES)), threads)
    capture.write_video(files, DEMO / "capture.mp4")


def make_glossy(work: Path, threads: int) -> None:
    """``exemplar_glossy.png``."""
    import exemplar_glossy

    exemplar_glossy.make(DEMO / "exemplar_glossy.png", threads=threads)


def make_cel(work: Path, threads: int) -> None:
    """``exemplar_cel.png``."""
    import exemplar_cel

    exemplar_cel.make(DEMO / "exemplar_cel.png")


def make_painterly(work: Path, threads: int) -> None:
    """``exemplar_painterly.png``."""
    import exemplar_painterly

    exemplar_painterly.make(DEMO / "exemplar_painterly.png", work / "painterly", threads)


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "cel": make_cel,
    "glossy": make_glossy,
    "painterly": make_painterly,
    "capture": make_capture,
}


def main() -> None:
    """Parse the command line and make what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=sorted(MAKERS), help="make just these")
    parser.add_argument(
        "--work", type=Path, default=Path("scratch/demo"), help="frames are kept here"
    )
    parser.add_argument("--threads", type=int, default=0, help="render threads, 0: all cores")
    options = parser.parse_args()
    DEMO.mkdir(parents=True, exist_ok=True)
    for name in options.only or MAKERS:
        start = time.process_time()
        MAKERS[name](options.work.resolve(), options.threads)
        print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
