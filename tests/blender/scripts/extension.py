"""Install, look, draw, disable, upgrade."""

import sys
import threading
import time
from pathlib import Path

from prelude import ARGS, MODULE, FakeLayout, bpy, draw, finish, install, part

before = {name for name in dir(bpy.types.Scene)}
install()
preferences = bpy.context.preferences.addons[MODULE].preferences
assert preferences.standard_view and preferences.auto_import and not preferences.keep_running
assert "toonify3d" in dir(bpy.types.Scene)
assert {"stylize", "cancel", "resume", "restyle", "import_result"} <= set(dir(bpy.ops.toonify3d))

panels = part("panels")
drawn = {cls.__name__: draw(cls) for cls in panels.CLASSES[:2]}


class Drawn:
    """The preferences with a layout that records."""

    def __init__(self, log):
        self.layout = FakeLayout(log)

    def __getattr__(self, name):
        return getattr(preferences, name)


def draw_preferences():
    log = []
    type(preferences).draw(Drawn(log), bpy.context)
    return log


prefs_log = draw_preferences()

scene = bpy.context.scene
poll_without = bpy.ops.toonify3d.stylize.poll()
preferences.python = ARGS["python"]
scene.toonify3d.check_capture = False
scene.toonify3d.capture = "/does/not/exist.mp4"
scene.toonify3d.exemplar = "/does/not/exist.png"
poll_with = bpy.ops.toonify3d.stylize.poll()
try:
    bpy.ops.toonify3d.stylize()
    complaint = ""
except RuntimeError as error:
    complaint = str(error)
bpy.ops.toonify3d.drop(filepath="/somewhere/film.MOV")
bpy.ops.toonify3d.drop(filepath="/somewhere/toon.png")
dropped = (scene.toonify3d.capture, scene.toonify3d.exemplar)

# The backend check in its own process.
bpy.ops.toonify3d.check_backend()
session = part("session")
deadline = time.monotonic() + 100
while session.check.running and time.monotonic() < deadline:
    session.tick()
    time.sleep(0.05)
lines = [(line.title, line.ok, line.detail) for line in session.check.lines]
preferences.python = "/does/not/exist/python"
bpy.ops.toonify3d.check_backend()
bad = [(line.title, line.ok, line.fix) for line in session.check.lines]
report = part("report").report_text(None, session.check.report)


# Set Up Backend without network, from a folder of wheels, into a folder with any characters.
def complaint_of(operator):
    try:
        operator()
    except RuntimeError as error:
        return str(error)
    return ""


bootstrap_poll = [bool(bpy.app.online_access), bpy.ops.toonify3d.set_up_backend.poll()]
part("process").BUNDLED = Path(ARGS["lists"])
preferences.wheels, preferences.device = ARGS["wheels"], "CPU"
bootstrap_poll.append(bpy.ops.toonify3d.set_up_backend.poll())
preferences.environment = str(Path(bpy.utils.resource_path("USER")) / "env")
inside_blender = complaint_of(bpy.ops.toonify3d.set_up_backend)
preferences.environment = ARGS["environment"]
assert "--folder" in part("setup_backend").arguments(Path("a"), Path("b"), "cpu", "")
bpy.ops.toonify3d.set_up_backend()
setting_up, messages = len(draw_preferences()), []
while (session.setup.running or session.check.running) and time.monotonic() < deadline + 100:
    session.tick()
    messages.append(session.setup.message)
    time.sleep(0.05)
setup = [session.setup.error, preferences.python, sorted(set(messages)), setting_up]
after_setup = [(line.title, line.ok, line.detail) for line in session.check.lines]
prefs_after = [entry[1] for entry in draw_preferences() if entry[0] == "operator"]

idle = []
for _ in range(200):
    start = time.perf_counter()
    session.tick()
    idle.append(time.perf_counter() - start)

install()  # the same again: an upgrade in place
upgraded = "toonify3d" in dir(bpy.types.Scene)

bpy.ops.preferences.addon_disable(module=MODULE)
left = sorted({name for name in dir(bpy.types.Scene)} - before)
classes = [name for name in dir(bpy.types) if "toonify" in name.lower()]
finish(
    drawn={name: len(log) for name, log in drawn.items()},
    preferences_drawn=len(prefs_log),
    bootstrap_poll=bootstrap_poll,
    setup=setup,
    after_setup=after_setup,
    inside_blender=inside_blender,
    prefs_after=prefs_after,
    poll_without=poll_without,
    poll_with=poll_with,
    complaint=complaint,
    dropped=dropped,
    lines=lines,
    bad=bad,
    report=report,
    idle_ms=1000 * sorted(idle)[len(idle) // 2],
    upgraded=upgraded,
    left=left,
    classes=classes,
    torch_loaded="torch" in sys.modules,
    threads=threading.active_count(),
)
