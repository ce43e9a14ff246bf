"""The test in the window: what an artist does, from the inputs to the imported avatar."""

import os
import sys
import time

import bpy

sys.path.insert(0, os.environ["GUI_OUT"])
from driver import OUT, ask, click, drive, open_tab, report, show_textures, wait_until


def steps():
    """What the artist does, with the seconds to wait in between."""
    yield 1.0
    window, view, session = yield from open_tab()
    settings = bpy.context.scene.toonify3d
    settings.capture, settings.exemplar = str(OUT / "capture.mp4"), str(OUT / "exemplar.png")
    settings.output = str(OUT / "jobs")
    view.tag_redraw()
    yield 0.5
    yield from ask("1-ready")

    yield from click("toonify3d.stylize")
    yield from wait_until(lambda: session.queue.current is not None, 20)
    job, fractions = session.queue.current, set()

    def quarter_done():
        fractions.add(job.status.fraction if job.status else None)
        return job.status is not None and job.status.fraction > 0.25

    yield from wait_until(quarter_done, 60)
    report["fractions"] = len(fractions)
    yield from ask("2-running")
    yield 1.0
    yield from ask("3-running-later")

    yield from click("toonify3d.cancel", upwards=True)
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
