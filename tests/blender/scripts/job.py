"""Stylize Avatar through the operator, the real process and the real socket, then the result."""

import time
from pathlib import Path

from prelude import ARGS, bpy, draw, finish, install, part

install()
session, panels = part("session"), part("panels")
addon = bpy.context.preferences.addons["bl_ext.user_default.toonify3d"].preferences
addon.python = ARGS["python"]
scene = bpy.context.scene
for item in list(bpy.data.objects):
    bpy.data.objects.remove(item)
settings = scene.toonify3d
settings.capture, settings.exemplar = ARGS["capture"], ARGS["exemplar"]
settings.preset, settings.output = "preview", ARGS["output"]
settings.check_capture = False
if ARGS.get("keep"):
    addon.keep_running = True

if ARGS.get("overrides"):
    operators = part("operators.job")
    plain_request = operators.build_request
    operators.build_request = lambda context, command, *exemplar: {
        **plain_request(context, command, *exemplar),
        "overrides": ARGS["overrides"],
    }


def follow(seconds, until=None):
    """Tick like the timer; times in seconds, fractions, states, and what the panel showed."""
    times, fractions, states, shown = [], [], [], {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = time.thread_time()
        if not (until and until()):
            done_before = session.queue.current.state.finished
            session.tick()
            importing = session.queue.current.state.finished and not done_before
            if not importing:
                times.append(time.thread_time() - before)
        job = session.queue.current
        if job.status is not None:
            fractions.append(job.status.fraction)
        if not states or states[-1] != job.state.name:
            states.append(job.state.name)
            shown[job.state.name] = [entry[0] for entry in draw(panels.TOONIFY3D_PT_job)]
        if (until and until()) or (job.state.finished and not job.active):
            break
        time.sleep(ARGS.get("pause", 0.02))
    return sorted(times), fractions, states, shown


out = {}
bpy.ops.toonify3d.stylize()
job = session.queue.current
out["busy_poll"] = bpy.ops.toonify3d.resume.poll()
if ARGS.get("cancel_at") is not None:
    wanted = ARGS["cancel_at"]
    follow(ARGS["seconds"], lambda: job.status is not None and job.status.fraction >= wanted)
    start = time.monotonic()
    bpy.ops.toonify3d.cancel()
    follow(10, lambda: job.acknowledged or job.state.finished)
    out["acknowledged_s"] = time.monotonic() - start
    follow(120)
    out["cancelled"] = job.state.name
    out["cancel_s"] = time.monotonic() - start
    bpy.ops.toonify3d.resume()
    job = session.queue.current
times, fractions, states, shown = follow(ARGS["seconds"])
out.update(
    poll_ms=[1000 * times[len(times) // 2], 1000 * times[int(0.99 * len(times))]],
    polls=len(times),
    rising=fractions == sorted(fractions),
    steps=len(set(fractions)),
    states=states,
    shown=shown,
    problem=job.problem and [job.problem.code, job.problem.message],
    tail=part("jobfolder").log_tail(job.folder, 12),
    folder=str(job.folder),
    preview=job.preview is not None,
    warnings=list(job.status.warnings) if job.status else [],
    objects=[item.name for item in bpy.data.objects],
)
if job.state.name == "DONE":
    avatar = bpy.context.view_layer.objects.active
    out["mesh"] = [len(avatar.data.vertices), len(avatar.data.polygons)]
    out["box"] = [list(avatar.bound_box[0]), list(avatar.bound_box[6])]
    group = scene.toonify3d_turntable
    group.seconds, group.fps, group.size = 1.0, 2, ARGS.get("size", 48)
    group.engine, group.video, group.samples = "CYCLES", False, ARGS.get("samples", 4)
    bpy.ops.toonify3d.turntable(filepath=str(Path(ARGS["output"]) / "turn" / "frame-"))
    frames = sorted(str(path) for path in (Path(ARGS["output"]) / "turn").glob("*.png"))
    out["frames"] = frames
    image = bpy.data.images.load(frames[0])
    pixels = image.pixels[:]
    middle = 4 * (len(pixels) // 8 + image.size[0] // 2)
    out["middle"] = [round(255 * value) for value in pixels[middle : middle + 3]]
    out["corner"] = [round(255 * value) for value in pixels[:3]]
finish(**out)
