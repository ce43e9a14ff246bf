"""The main job on the ground-truth captures: time, memory and distances, as a table and JSON.

    python benchmarks/main_job.py --data ../shared/data --out /tmp/main_job [--only lps f2 ...]

Runs, each through the command line as a user would:

* ``lps``: the video and an exemplar, nothing else; the prior against the true mesh.
* ``known``: ``--stylizer folder`` on portraits whose deformation is known, on the same prior.
* ``restyle``: a second exemplar on the same prior.
* ``f2``: the other capture (long hair), same settings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(*arguments: object) -> float:
    """One command line; wall seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "toonify3d", *map(str, arguments)]
    print("$", " ".join(command[2:]), flush=True)
    subprocess.run(command, check=True)
    return time.monotonic() - started


def evaluate(*arguments: object) -> dict[str, Any]:
    """``toonify3d evaluate`` as a dictionary."""
    command = [sys.executable, "-m", "toonify3d", "evaluate", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def report_of(job: Path, style: str) -> dict[str, Any]:
    """The figures of ``report.json`` that the table shows."""
    report = json.loads((job / "styles" / style / "result" / "report.json").read_text())
    wanted = ("seconds", "peak_rss_mb", "frames_used", "views_stylized", "mesh", "texture")
    return {name: report[name] for name in (*wanted, "warnings")}


def bench_lps(data: Path, out: Path, preset: str) -> dict[str, Any]:
    job, truth = out / f"lps_{preset}", data / "captures" / "lps"
    exemplar = data / "exemplar_fluent_man" / "exemplar.png"
    seconds = run(
        "stylize", truth / "capture.mp4", exemplar, "--job", job, "--preset", preset,
        "--style", "fluent_man",
    )  # fmt: skip
    figures = {"wall_s": seconds, **report_of(job, "fluent_man")}
    return figures | {"surface": evaluate(job, "--ground-truth", truth)}


def bench_known(data: Path, out: Path, preset: str) -> dict[str, Any]:
    job, truth = out / f"lps_{preset}", data / "captures" / "lps"
    known = truth / "known_style"
    seconds = run(
        "restyle", job, data / "exemplar_fluent_man" / "exemplar.png", "--stylizer", "folder",
        "--portraits", known / "portraits2d", "--style", "known",
    )  # fmt: skip
    surface = evaluate(
        job, "--ground-truth", truth, "--style", "known",
        "--styled-truth", known / "gt" / "mesh.npz",
    )  # fmt: skip
    return {"wall_s": seconds, **report_of(job, "known"), "surface": surface}


def bench_restyle(data: Path, out: Path, preset: str) -> dict[str, Any]:
    job = out / f"lps_{preset}"
    exemplar = data / "exemplar_durer_1500" / "exemplar.jpg"
    seconds = run("restyle", job, exemplar, "--style", "durer")
    return {"wall_s": seconds, **report_of(job, "durer")}


def bench_f2(data: Path, out: Path, preset: str) -> dict[str, Any]:
    job, truth = out / f"f2_{preset}", data / "captures" / "f2"
    exemplar = data / "exemplar_fluent_woman" / "exemplar.png"
    seconds = run(
        "stylize", truth / "capture.mp4", exemplar, "--job", job, "--preset", preset,
        "--style", "fluent_woman",
    )  # fmt: skip
    figures = {"wall_s": seconds, **report_of(job, "fluent_woman")}
    return figures | {"surface": evaluate(job, "--ground-truth", truth)}


BENCHES: dict[str, Callable[[Path, Path, str], dict[str, Any]]] = {
    "lps": bench_lps,
    "known": bench_known,
    "restyle": bench_restyle,
    "f2": bench_f2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="preview")
    parser.add_argument("--only", nargs="*", choices=sorted(BENCHES), default=list(BENCHES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "main_job.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.only:
        results[name] = BENCHES[name](options.data, options.out, options.preset)
        path.write_text(json.dumps(results, indent=1))
        print(name, json.dumps(results[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
