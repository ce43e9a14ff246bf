"""Stands in for the backend's Python: takes the real command line, does not train.

Speaks through the real ``toonify3d.service.link``; ``request.json`` says how to behave.
"""

import json
import os
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path


def check(capture, sheet):
    """Findings as the capture's name wants them: "bad" stops, "soft" warns, "hint" hints."""
    kinds = {"bad": "stop", "soft": "warning", "hint": "hint"}
    findings = [{"code": "face", "severity": "ok", "what": "The face is seen."}]
    for word, severity in kinds.items():
        if word in capture.stem:
            what = f"The film is {word}."
            findings.append(
                {"code": word, "severity": severity, "what": what, "why": "It matters.",
                 "what_to_do": "Film again."}
            )  # fmt: skip
    sys.stderr.write("a warning of some library\n")
    sys.stderr.flush()
    if "broken" in capture.stem:
        sys.exit("ImportError: no module named cv2")
    write_image(sheet, 64, lambda y, x: (4 * y, 4 * x, 90))
    stops = any(item["severity"] == "stop" for item in findings)
    report = {"capture": capture.name, "stops": stops, "findings": findings}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    sys.exit(2 if stops else 0)


def face(pictures):
    """Whether the face of each picture is found: not in those called "faceless"."""
    if any("unchecked" in name for name in pictures):
        sys.exit("ImportError: no module named mediapipe")
    answers = [
        {"exemplar": name, "found": "faceless" not in Path(name).stem, "code": "exemplar_no_face",
         "message": "No face was found (--exemplar-landmarks FILE.json)."}
        for name in pictures
    ]  # fmt: skip
    sys.stdout.write("a line of some library\n" + json.dumps({"exemplars": answers}, indent=1))
    sys.exit(0 if all(item["found"] for item in answers) else 2)


def bake(arguments):
    """Textures for the mesh, as ``toonify3d bake`` writes them; a mesh without faces is refused."""
    mesh, output = (Path(arguments[arguments.index(n) + 1]) for n in ("--mesh", "--output"))
    rows = mesh.read_text("utf-8").split("\n")
    if not any(row.startswith("f ") for row in rows):
        sys.exit("toonify3d: The mesh has no faces.")
    sys.stdout.write("baking 50 %\n")
    sys.stdout.flush()
    for name in ("albedo", "normal", "photo_albedo", "heatmap"):
        write_image(output / f"{name}.png", 8, lambda y, x: (250, 60, 90))
    (output / "bake_report.json").write_text(json.dumps(arguments))
    sys.exit(0)


def portraits(arguments):
    """Three frames, as ``toonify3d portraits`` writes them; a film called "dark" has none."""
    job, target = Path(arguments[0]), Path(arguments[arguments.index("--export") + 1])
    if target.exists() and any(target.iterdir()):
        sys.exit("toonify3d: It is not an empty folder.")
    if "dark" in job.name:
        sys.exit("toonify3d: No frame looks at the front of the head.")
    for number in (3, 8, 21):
        write_image(target / f"{number:04d}.png", 8, lambda y, x: (200, 160, 140))
    (target / "arguments.json").write_text(json.dumps(arguments))
    sys.stdout.write("a warning of some library\n")
    sys.exit(0)


def write_image(path, size, color_at):
    """An RGB PNG without any library; colour by (row, column)."""
    rows = b"".join(
        b"\0" + b"".join(bytes(color_at(y, x)) for x in range(size)) for y in range(size)
    )

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


if sys.argv[3:4] == ["check"]:
    assert sys.argv[5:7] == ["--json", "--sheet"], sys.argv
    check(Path(sys.argv[4]), Path(sys.argv[7]))
if sys.argv[3:4] == ["face"]:
    assert sys.argv[4] == "--json", sys.argv
    face(sys.argv[5:])
if sys.argv[3:4] == ["bake"]:
    bake(sys.argv[4:])
if sys.argv[3:4] == ["portraits"]:
    portraits(sys.argv[4:])
assert sys.argv[1:5] == ["-m", "toonify3d", "worker", "--job"], sys.argv
job = Path(sys.argv[5])
request = json.loads((job / "request.json").read_text("utf-8"))
manner = request.get("manner", "good")
if manner == "broken":
    sys.exit("ImportError: no module named torch")
for name in ("PYTHONHOME", "PYTHONSTARTUP"):
    assert name not in os.environ, name
assert os.environ["PYTHONNOUSERSITE"] == "1"
assert (os.environ["TOONIFY3D_TOKEN"] or "secret") not in " ".join(sys.argv)

from toonify3d.service.link import Link  # noqa: E402


def write_json(path, document):
    """Whole or not at all, like the backend does."""
    path.with_suffix(".part").write_text(json.dumps(document), encoding="utf-8")
    path.with_suffix(".part").replace(path)


def write_result(folder):
    """One triangle as an OBJ, or a copy of a real result."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.environ.get("FAKE_RESULT"):
        shutil.copytree(os.environ["FAKE_RESULT"], folder, dirs_exist_ok=True)
        return
    obj = "v 0 0 0\nv 0.1 0 0\nv 0 0 0.1\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (folder / "avatar.obj").write_text(obj)
    write_image(folder / "albedo.png", 8, lambda y, x: (250, 60, 90))
    report = {
        "preset": "preview", "device": "cpu", "peak_rss_mb": 2048.0, "steps_from_cache": [],
        "seconds": dict.fromkeys(
            ("capture", "prior", "portraits", "geometry", "texture", "asset"), 20.0
        ),
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))


link = Link.from_environment(job)
pace = float(os.environ.get("FAKE_PACE", "0.03"))
sys.stdout.write("Ünï çødé 空間: started\n")


def report(state="running", step=0, **fields):
    document = {
        "state": state, "stage": "prior", "stage_index": 2, "stage_count": 6,
        "fraction": step / 100, "step_fraction": step / 100, "eta_s": 100 - step,
        "message": f"step {step}", "problem": None, "pid": os.getpid(),
        "updated": time.time(), "preview": None, "result": None, "warnings": [], **fields,
    }  # fmt: skip
    write_json(job / "status.json", document)
    link.send_status(document)


settled = "exemplar_landmarks" in request or "portraits" in request
settled |= "stylize.look=colour" in request.get("overrides", ())
if "faceless" in Path(request.get("exemplar", "")).stem and not settled:
    report("failed", 0, problem={"code": "exemplar_no_face", "message": "Use --set, says the CLI."})
    link.close()
    sys.exit(2)
brought = Path(request.get("portraits", "none"))
if brought.is_dir() and not (brought / "0008.png").exists():  # found out after minutes
    write_json(job / "job.json", {})
    report("failed", 9, problem={"code": "portraits_names", "message": "No picture is named so."})
    link.close()
    sys.exit(2)
for step in range(100 if manner not in ("slow", "deaf", "detached") else 3000):
    report(step=min(step, 99))
    if step == 25:  # long after the early cancel of the tests, before the late one
        write_json(job / "job.json", {})
    if step == 20 and manner == "good":
        write_image(job / "preview" / "current.png", 128, lambda y, x: (2 * y, 2 * x, 128))
        link.send_preview(job / "preview" / "current.png")
    if step == 3 and manner == "cut":
        link._socket.close()  # as if a firewall had cut it
    if step == 5 and manner == "die":
        os._exit(7)
    if step == 5 and manner == "fail":
        report("failed", 5, problem={"code": "no_face", "message": "The exemplar shows no face."})
        link.close()
        sys.exit(2)
    if step == 10 and manner == "escape":
        link.send_preview("../../secret.png")
        link.send_result({"folder": "/etc"})
    if link.cancel_requested and manner != "deaf":
        report("cancelled", step)
        link.close()
        sys.exit(3)
    time.sleep(pace if manner != "slow" else 0.02)
style = Path(request.get("exemplar", "toon.png")).stem
result = job / "styles" / style / "result"
write_result(result)
report("done", 100, result=f"styles/{style}/result")
link.send_result(result)
link.close()
if manner == "hang":
    time.sleep(600)
