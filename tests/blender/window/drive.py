"""The test in the window: what an artist does, from the inputs to the imported avatar."""

import json
import os
import sys
import time
from pathlib import Path

import bpy

sys.path.insert(0, os.environ["GUI_OUT"])
from driver import MODULE, OUT, ask, click, drive, open_tab, report, show_textures, wait_until

FACE = ((314, 412), (457, 409), (386, 489), (340, 534), (428, 532))
"""Eyes, nose and mouth in the picture, in the order of clicking."""
SPOTS = ((20, 20), (700, 40), (386, 560), (60, 740), *FACE)
"""Where the picture's colours are looked at."""


def mark_face(window):
    """Click a face with the real pointer, press Enter on the real keyboard."""
    editors = sys.modules[f"{MODULE}.face_editor"]
    yield from click("toonify3d.mark_face")

    def opened():
        return editors.current is not None

    yield from wait_until(opened, 20)
    editor = editors.current
    yield 0.5

    def on_screen(point):
        x, y = editor.marking.view.to_region(point)
        return editor._region.x + x, editor._region.y + y

    report["spots"] = [(spot, on_screen(spot)) for spot in SPOTS]
    yield from ask("0-marking")
    for number, point in enumerate(FACE):
        window.cursor_warp(*(round(value) for value in on_screen(point)))
        yield 0.2
        yield from ask(f"face-{number}", ".click", ".clicked")
        yield 0.2
    report["clicks"] = [editor.marking.points.get(name) for name in editor.marking.points]
    report["far"] = 1.0 / editor.marking.view.scale  # a pixel of the screen in the picture
    yield from ask("Return", ".key", ".pressed")

    def closed():
        return editors.current is None

    yield from wait_until(closed, 20)


def steps():
    """What the artist does, with the seconds to wait in between."""
    yield 1.0
    window, view, session = yield from open_tab()
    settings = bpy.context.scene.toonify3d
    settings.capture, settings.exemplar = str(OUT / "capture.mp4"), str(OUT / "exemplar.png")
    settings.output = str(OUT / "jobs")
    view.tag_redraw()
    yield 0.5
    yield from mark_face(window)
    yield 0.5
    yield from ask("1-ready")

    yield from click("toonify3d.stylize")
    yield from wait_until(lambda: session.queue.current is not None, 20)
    job, fractions = session.queue.current, set()
    report["handed"] = json.loads(Path(job.request["exemplar_landmarks"]).read_text())

    def quarter_done():
        fractions.add(job.status.fraction if job.status else None)
        return job.status is not None and job.status.fraction > 0.25

    yield from wait_until(quarter_done, 60)
    report["fractions"] = len(fractions)
    yield from ask("2-running")
    yield 1.0
    yield from ask("3-running-later")

    yield from click("toonify3d.cancel", upwards=True, across=0.75)
    start = time.monotonic()
    yield from wait_until(lambda: job.state.finished, 20)
    report["cancelled"] = [job.state.name, time.monotonic() - start]
    yield 0.3
    yield from ask("4-cancelled")

    (OUT / "pace").write_text("0.03")
    yield from click("toonify3d.resume", upwards=True)
    yield from wait_until(lambda: session.queue.current is not job, 20)
    job = session.queue.current
    yield from wait_until(lambda: job.state.finished and not job.active, 60)
    report["end"] = job.state.name
    yield 0.5
    show_textures(window, view)
    yield 2.0
    yield from ask("5-imported")
    report["objects"] = [item.name for item in bpy.data.objects]


drive(steps())
