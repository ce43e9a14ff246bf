"""Stands in for the backend's Python: takes the real command line, does not train.

Speaks through the real ``toonify3d.service.link``; ``request.json`` says how to behave.
"""

import json
import os
import sys
import time
from pathlib import Path

assert sys.argv[1:5] == ["-m", "toonify3d", "worker", "--job"], sys.argv
job = Path(sys.argv[5])
manner = json.loads((job / "request.json").read_text("utf-8")).get("manner", "good")
if manner == "broken":
    sys.exit("ImportError: no module named torch")
for name in ("PYTHONHOME", "PYTHONSTARTUP"):
    assert name not in os.environ, name
assert os.environ["PYTHONNOUSERSITE"] == "1"
assert (os.environ["TOONIFY3D_TOKEN"] or "secret") not in " ".join(sys.argv)

import numpy as np  # noqa: E402

from toonify3d.files import write_image, write_json  # noqa: E402
from toonify3d.service.link import Link  # noqa: E402

link = Link.from_environment(job)
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


for step in range(100 if manner not in ("slow", "deaf", "detached") else 3000):
    report(step=min(step, 99))
    if step == 15:
        write_json(job / "job.json", {})
    if step == 20 and manner == "good":
        write_image(job / "preview" / "current.png", np.full((64, 64, 3), 90, np.uint8))
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
    time.sleep(0.005 if manner != "slow" else 0.02)
result = job / "styles" / "toon" / "result"
result.mkdir(parents=True, exist_ok=True)
(result / "report.json").write_text("{}")
vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0, 0.1]], np.float32)
corners = np.array([[[0, 0], [1, 0], [0, 1]]], np.float32)
np.savez(result / "avatar.npz", vertices=vertices, faces=np.array([[0, 1, 2]]), uvs=corners)
write_image(result / "albedo.png", np.full((8, 8, 3), (250, 60, 90), np.uint8))
report("done", 100, result="styles/toon/result")
link.send_result(result)
link.close()
if manner == "hang":
    time.sleep(600)
