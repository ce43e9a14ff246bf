"""All speed measurements in one go: a table and JSON, every ratio from one run.

    python benchmarks/speed.py --data ../shared/data --out /tmp/speed [--share 0.2] [--threads 1]

* ``fields``: microseconds per point of our grid (Warp kernel with Jacobian), the same grid in plain
  torch with double backward, and the paper's network (``field_speed.py``).
* ``I``, ``II``, ``III``: the stages, whole: seconds, points and samples per ray as counted while
  they ran, microseconds per point, peak memory (``stage_speed.py``).
* ``steps``: whole steps of stage I: ``preview``, ``standard`` and the ``paper`` recipe by ray.
* ``roofline``: FLOPs and bytes of a step of stage I against measured rates (``roofline.py``).

Each part runs in a process of its own, so that peak memory is that part's; what was made for it
(frames, depth maps, the prior) stays in ``--out``. ``--share`` runs the stages with that share of
their steps. On a CPU times are CPU seconds of the process (wall ones are in the JSON), which
others on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import field_speed
import roofline
import stage_speed
import torch

from toonify3d.files import write_json
from toonify3d.scene import Scene
from toonify3d.settings import preset_settings
from toonify3d.training.stage1 import load_prior

PARTS = ("scene", "fields", "I", "II", "III", "steps", "roofline")
STAGES = ("I", "II", "III")


def measure(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """One part; needs what the parts before it left."""
    meter = field_speed.Meter(torch.device(options.device))
    if part == "fields":
        ratios = field_speed.per_point(meter)
        return {"ratios": ratios, "rows": meter.rows}
    stages = stage_speed.Stages(
        options.data, options.out, options.preset, options.share, options.device
    )
    if part == "scene":
        return {"frames": len(stages.scene().frames)}
    if part in STAGES:
        return stages.run(part)
    scene = Scene.load(options.out / "scene")
    if part == "steps":
        return field_speed.steps(meter, scene, options.out / "steps")
    return measure_roofline(meter, scene, options)


def measure_roofline(
    meter: field_speed.Meter, scene: Scene, options: argparse.Namespace
) -> dict[str, Any]:
    """The roofline and the rates it is held against."""
    trained = load_prior(options.out / "prior", options.device)
    settings = preset_settings(options.preset)[0].prior
    machine = field_speed.machine(meter)
    folder = options.out / "roofline"
    trainer = roofline.make_trainer(scene, folder, settings, trained, meter.device)
    return {"machine": machine, **roofline.roofline(meter, machine, trainer)}


def run_apart(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """``measure`` in a process of its own."""
    path = options.out / f"{part}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", part]
    for name in ("data", "out", "preset", "share", "device", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    print(f"-- {part}", flush=True)
    subprocess.run(command, check=True)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def clock(document: dict[str, Any]) -> str:
    """Which time counts: of the CPU, or on a GPU the one on the wall."""
    return "cpu" if document["device"] == "cpu" else "wall"


def ratios(document: dict[str, Any]) -> dict[str, float]:
    """How many times the others cost what ours costs."""
    kind = clock(document)
    rate = {name: row["rays"] / row[f"{kind}_ms"] for name, row in document["steps"].items()}
    return {
        **document["fields"]["ratios"],
        "step_preview_over_paper_per_ray": rate["preview"] / rate["paper"],
        "step_standard_over_paper_per_ray": rate["standard"] / rate["paper"],
    }


def tables(document: dict[str, Any]) -> str:
    """Everything as Markdown."""
    kind = clock(document)
    lines = ["| field | us a point |", "|---|--:|"]
    for row in document["fields"]["rows"]:
        lines.append(f"| {row['name']} | {row[f'{kind}_us']:.2f} |")
    lines += ["", stage_speed.table({name: document[name] for name in STAGES}, kind), ""]
    lines += ["| stage I step | rays | ms | rays a s | samples a ray | coloured |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for name, row in document["steps"].items():
        lines.append(
            f"| {name} | {row['rays']} | {row[f'{kind}_ms']:.1f} |"
            f" {1e3 * row['rays'] / row[f'{kind}_ms']:.0f} |"
            f" {row['samples']:.0f} | {row['coloured']:.2f} |"
        )
    lines += ["", roofline.table(document["roofline"], document["roofline"]["machine"]), ""]
    lines += ["| ratio | times |", "|---|--:|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in document["ratios"].items()]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="preview", choices=("preview", "standard", "high"))
    parser.add_argument("--share", type=float, default=1.0, help="share of the stages' steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=PARTS, help="only this one (the others must be there)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    if options.part:
        write_json(options.out / f"{options.part}.json", measure(options.part, options))
        return
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        **{name: getattr(options, name) for name in ("preset", "share", "device", "threads")},
        "load": os.getloadavg()[0],
    }
    for part in PARTS:
        document[part] = run_apart(part, options)
    document["ratios"] = ratios(document)
    write_json(options.out / "speed.json", document)
    print(tables(document))


if __name__ == "__main__":
    main()
