"""The built-in 2D stylizer on all exemplars: contact sheets and a table.

    python benchmarks/stylizer.py --data ../shared/data --jobs lps=JOB f2=JOB --out /tmp/stylizer

``JOB`` is a job folder whose stage I is finished. Per subject (the jobs and the two public-domain
portraits, which are turned into one-frame scenes) and exemplar: style distances with the photo as
100 %, the slope of landmark moves, the difference of neighbouring frames against the photos', the
identity by dlib's network if ``dlib`` and ``face_recognition_models`` are installed, and seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from stylizer_measures import (
    Identity,
    at_face_width,
    consistency,
    palette_distance,
    shape_slopes,
    texture_distance,
    write_table,
)
from stylizer_photo import photo_scene

from toonify3d.capture import landmarks as lm
from toonify3d.meshes import load_mesh
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.exemplar import load_exemplar, person_mask
from toonify3d.portrait2d.exemplarkind import choose_look
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.progress import SilentProgress
from toonify3d.raycast import quiet_warp
from toonify3d.scene import Frame, Scene, StylizedView, SurfaceMesh

TILE = 300


@dataclass
class Subject:
    name: str
    scene: Scene
    mesh: SurfaceMesh
    person: pipeline.Person
    frames: list[Frame]


def subjects(options: argparse.Namespace) -> list[Subject]:
    out = []
    progress = SilentProgress()
    for item in options.jobs:
        name, job = item.split("=", 1)
        scene, mesh = Scene.load(Path(job) / "capture"), load_mesh(Path(job) / "prior/mesh.npz")
        person = pipeline.study_person(scene, mesh, progress)
        ranked = sorted(scene.frames, key=lambda f: abs(f.yaw))
        side = min(scene.frames, key=lambda f: abs(f.yaw - 0.65))
        out.append(Subject(name, scene, mesh, person, [*ranked[:2], side]))
    for path in sorted((options.data / "portraits").glob("*.[pj]*g")):
        scene, mesh = photo_scene(path, options.out / "scenes" / path.stem)
        person = pipeline.study_person(scene, mesh, progress)
        out.append(Subject(path.stem, scene, mesh, person, scene.frames))
    return [s for s in out if not options.only or s.name in options.only]


def head(image: np.ndarray, mask: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The person above the chin, which both pictures show, at a common face width."""
    rows = np.arange(mask.shape[0])[:, None]
    chosen = (mask > 200) & (rows < points[lm.CHIN, 1] + 0.05 * mask.shape[0])
    width = float(np.ptp(points[list(lm.FACE_OVAL), 0]))
    return at_face_width(image, chosen, width)


def crop(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A square of the head, TILE pixels a side."""
    oval = points[list(lm.FACE_OVAL), :2]
    side = 2.1 * np.ptp(oval[:, 1])
    x, y = oval.mean(0) - [side / 2, side * 0.52]
    matrix = np.array([[TILE / side, 0, -x * TILE / side], [0, TILE / side, -y * TILE / side]])
    flags = cv2.INTER_AREA if side > TILE else cv2.INTER_CUBIC
    return cv2.warpAffine(image, matrix, (TILE, TILE), flags=flags, borderValue=(255, 255, 255))


class Bench:
    """One run: its finder, its identity network, its rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.finder = lm.FaceLandmarker()
        self.embed: Callable[..., np.ndarray] | None = None
        try:
            self.embed = Identity()
        except ImportError:
            print("identity is not measured: dlib and face_recognition_models are not installed")
        self.rows: list[dict[str, Any]] = []
        self.faces: dict[str, np.ndarray] = {}

    def subject(self, subject: Subject, exemplars: list[Path]) -> None:
        photo = subject.scene.image(subject.frames[0])
        found = self.finder.detect(photo, thorough=True)
        if found is not None and self.embed is not None:
            self.faces[subject.name] = self.embed(photo, found)
        tiles = []
        for path in exemplars:
            row, sheet = self.pair(subject, path)
            self.rows.append(row)
            tiles.append(sheet)
            self._write_sheet(subject.name, tiles)
            print(json.dumps({k: v for k, v in row.items() if k != "face"}), flush=True)

    def _write_sheet(self, name: str, tiles: list[np.ndarray]) -> None:
        columns = 2 if tiles[0].shape[1] > 3 * TILE else 3
        blank = [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
        full = tiles + blank
        lines = [np.hstack(full[i : i + columns]) for i in range(0, len(full), columns)]
        path = self.options.out / f"sheet_{name}.jpg"
        cv2.imwrite(str(path), np.vstack(lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])

    def pair(self, subject: Subject, path: Path) -> tuple[dict[str, Any], np.ndarray]:
        name = path.parent.name.removeprefix("exemplar_")
        style = load_exemplar(path)
        started, cpu = time.monotonic(), time.process_time()
        done = pipeline.stylize_views(
            subject.scene,
            subject.mesh,
            path,
            self.options.out / "views" / f"{subject.name}_{name}",
            StylizeSettings(),
            SilentProgress(),
            frames=subject.frames,
            person=subject.person,
        )
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        views = {view.frame.name: view for view in done.views}
        ordered = [views[frame.name] for frame in subject.frames]
        row = {"subject": subject.name, "exemplar": name, "look": choose_look(style.stats)}
        row |= self._distances(subject, style, ordered[0])
        photos = [subject.scene.image(v.frame) for v in ordered[:2]]
        assert done.displacement is not None
        slopes = shape_slopes(
            self.finder, photos, ordered[:2], subject.person.world, done.displacement
        )
        row |= {f"slope {part}": value for part, value in slopes.items()}
        row["consistency"] = consistency(
            subject.scene.image, ordered[:2], subject.mesh, done.displacement
        )
        row |= {"seconds": seconds, "cpu": cpu, "face": self._face(ordered[0])}
        return row, self._sheet(subject, style, ordered)

    def _distances(self, subject: Subject, style: Any, view: StylizedView) -> dict[str, float]:
        scene, frame = subject.scene, view.frame
        own = frame.camera.project(subject.person.world)[0]
        # A white face on white paper is no background: the face's outline is always the person's.
        seen = person_mask(style.image, None, style.points).astype(np.uint8) * 255
        cv2.fillPoly(
            seen, [np.round(style.points[list(lm.FACE_OVAL), :2]).astype(np.int32)], (255,)
        )
        goal = head(style.image, seen, style.points)
        before = head(scene.image(frame), scene.mask(frame), own)
        after = head(view.image, view.mask, own)
        return {
            "patches %": 100 * texture_distance(after, goal) / texture_distance(before, goal),
            "palette %": 100 * palette_distance(after, goal) / palette_distance(before, goal),
        }

    def _face(self, view: StylizedView) -> np.ndarray | None:
        found = self.finder.detect(view.image, thorough=True) if self.embed else None
        return None if found is None or self.embed is None else self.embed(view.image, found)

    def _sheet(self, subject: Subject, style: Any, views: list[StylizedView]) -> np.ndarray:
        tiles = [
            crop(
                subject.scene.image(views[0].frame),
                views[0].frame.camera.project(subject.person.world)[0],
            ),
            crop(style.image, style.points),
        ]
        for view in (views[0], views[-1]) if len(views) > 1 else views:
            tiles.append(crop(view.image, view.frame.camera.project(subject.person.world)[0]))
        return np.hstack(tiles)

    def identity(self) -> str:
        """Share of pairings in which the stylized face is nearest to its own subject."""
        scored = [row for row in self.rows if row["face"] is not None]
        if not scored or len(self.faces) < 2:
            return "identity: not measured"
        right: dict[str, list[bool]] = {}
        for row in scored:
            far = {n: float(np.linalg.norm(row["face"] - f)) for n, f in self.faces.items()}
            right.setdefault(row["exemplar"], []).append(min(far, key=far.get) == row["subject"])
        parts = [f"{name} {sum(v)}/{len(v)}" for name, v in right.items()]
        total = [hit for hits in right.values() for hit in hits]
        return (
            f"identity: nearest to the own subject of {len(self.faces)} in "
            f"{sum(total)} of {len(total)} ({', '.join(parts)}); "
            f"no face found in {len(self.rows) - len(scored)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", nargs="*", default=[], help="NAME=JOB with a finished stage I")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="subjects")
    parser.add_argument("--exemplars", nargs="*", default=[], help="names without exemplar_")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    quiet_warp()
    paths = sorted(options.data.glob("exemplar_*/exemplar.*"))
    chosen = options.exemplars
    paths = [p for p in paths if not chosen or p.parent.name.removeprefix("exemplar_") in chosen]
    bench = Bench(options)
    for subject in subjects(options):
        bench.subject(subject, paths)
    rows = [{k: v for k, v in row.items() if k != "face"} for row in bench.rows]
    write_table(rows, options.out / "table.md")
    (options.out / "rows.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    for column in ("patches %", "palette %", "consistency", "slope eyes", "slope oval"):
        values = [row[column] for row in rows if not np.isnan(row[column])]
        if values:
            print(f"{column}: mean {np.mean(values):.2f}, worst {np.max(values):.2f}")
    print(bench.identity())


if __name__ == "__main__":
    main()
