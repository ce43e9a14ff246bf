"""The built-in 2D stylizer on all exemplars: contact sheets and a table.

    python benchmarks/stylizer.py --data ../shared/data --jobs lps=JOB f2=JOB --out /tmp/stylizer

``JOB`` is a job folder whose stage I is finished. Per subject (the jobs and the two public-domain
portraits, which are turned into one-frame scenes) and exemplar: style distances with the photo as
100 %, region by region ("patches", "palette", see ``stylizer_style``) and of whole heads ("head
patches", "head palette"); the slope of landmark moves (see ``stylizer_shape``; "-" where the
detectors are unreliable, the raw figures beside it); the difference of the two most frontal frames
against the photos', warped by the job's own surface (``stylizer_flicker.py``: of all frames, by
true depth); and seconds.
Outlines and identity need dlib: ``pip install dlib-bin face_recognition_models``. Another job may
be given that only adds a face to tell the others from (``--faces demo=JOB``).
Runs of a few subjects or exemplars are put together with ``--merge OUT1 OUT2``.
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
    texture_distance,
    write_table,
)
from stylizer_photo import photo_scene
from stylizer_regions import exemplar_person, exemplar_portrait, frame_portrait
from stylizer_shape import Jaw, columns, measure
from stylizer_style import NAMES, Closeness, Portrait, closeness

from toonify3d.capture import landmarks as lm
from toonify3d.files import write_image, write_json
from toonify3d.meshes import load_mesh
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.exemplar import Exemplar, load_exemplar
from toonify3d.portrait2d.exemplarkind import choose_look
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.store import StylizedSet
from toonify3d.progress import SilentProgress
from toonify3d.scene import Frame, Scene, StylizedView, SurfaceMesh
from toonify3d.training.refined_cameras import with_refined_cameras
from toonify3d.warp_start import start_warp

TILE = 300
MILD = ("durer_1500", "mona_lisa", "van_gogh_1889", "vermeer_pearl", "leonardo_red_chalk")
"""Exemplars of human proportions: painted and drawn after life."""


@dataclass
class Subject:
    name: str
    scene: Scene
    mesh: SurfaceMesh
    person: pipeline.Person
    frames: list[Frame]


def _scene(job: Path) -> Scene:
    return with_refined_cameras(Scene.load(job / "capture"), job / "prior")


def subjects(options: argparse.Namespace) -> list[Subject]:
    out = []
    progress = SilentProgress()
    for item in options.jobs:
        name, job = item.split("=", 1)
        if options.only and name not in options.only:
            continue
        scene, mesh = _scene(Path(job)), load_mesh(Path(job) / "prior/mesh.npz")
        person = pipeline.study_person(scene, mesh, progress)
        ranked = sorted(scene.frames, key=lambda f: abs(f.yaw))
        side = min(scene.frames, key=lambda f: abs(f.yaw - 0.65))
        out.append(Subject(name, scene, mesh, person, [*ranked[:2], side]))
    for path in sorted((options.data / "portraits").glob("*.[pj]*g")):
        if options.only and path.stem not in options.only:
            continue
        scene, mesh = photo_scene(path, options.out / "scenes" / path.stem)
        person = pipeline.study_person(scene, mesh, progress)
        out.append(Subject(path.stem, scene, mesh, person, scene.frames))
    return out


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
        self.jaw: Jaw | None = None
        try:
            self.embed, self.jaw = Identity(), Jaw()
        except ImportError:
            print(
                "no outlines, no identity: dlib-bin and face_recognition_models are not installed"
            )
        self.rows: list[dict[str, Any]] = []
        self.faces: dict[str, list[float]] = {}

    def gallery(self, name: str, scene: Scene) -> None:
        """Remember the person's face as filmed."""
        photo = scene.image(min(scene.frames, key=lambda f: abs(f.yaw)))
        found = self.finder.detect(photo, thorough=True)
        if found is not None and self.embed is not None:
            self.faces[name] = self.embed(photo, found).tolist()

    def subject(self, subject: Subject, exemplars: list[Path]) -> None:
        self.gallery(subject.name, subject.scene)
        for path in exemplars:
            row, strip = self.pair(subject, path)
            self.rows.append(row)
            write_image(strip_path(self.options.out, row), strip)
            self.save()
            print(json.dumps({k: v for k, v in row.items() if k != "face"}), flush=True)

    def save(self) -> None:
        """What :func:`merge` reads; written after every pair, so that a stopped run is not lost."""
        write_json(self.options.out / "state.json", {"rows": self.rows, "faces": self.faces})

    def pair(self, subject: Subject, path: Path) -> tuple[dict[str, Any], np.ndarray]:
        name = path.parent.name.removeprefix("exemplar_")
        style = load_exemplar(path)
        started, cpu = time.monotonic(), time.process_time()
        done = self._stylize(subject, path, f"{subject.name}_{name}", subject.frames)
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        views = {view.frame.name: view for view in done.views}
        ordered = [views[frame.name] for frame in subject.frames]
        row = {"subject": subject.name, "exemplar": name, "look": choose_look(style.stats)}
        row |= self._distances(subject, style, ordered[0])
        change = pipeline.change_shape(subject.person, style, StylizeSettings())
        strip = strip_path(self.options.out, row)
        row |= self._by_region(subject, style, change, ordered[0], strip)
        if self.options.slope_frames:
            row |= self._slopes(subject, style, path, change, ordered)
        assert done.displacement is not None
        row["consistency"] = consistency(
            subject.scene.image, ordered[:2], subject.mesh, done.displacement
        )
        row |= {"seconds": seconds, "cpu": cpu, "face": self._face(ordered[0])}
        return row, self._sheet(subject, style, ordered)

    def _stylize(
        self, subject: Subject, path: Path, folder: str, frames: list[Frame], strength: float = 0.7
    ) -> StylizedSet:
        return pipeline.stylize_views(
            subject.scene,
            subject.mesh,
            path,
            self.options.out / "views" / folder,
            StylizeSettings(strength=strength),
            SilentProgress(),
            frames=frames,
            person=subject.person,
        )

    def _slopes(
        self,
        subject: Subject,
        style: Exemplar,
        path: Path,
        change: pipeline.ShapeChange,
        ordered: list[StylizedView],
    ) -> dict[str, Any]:
        used = subject.frames[: min(self.options.slope_frames, len(subject.frames))]
        plain = self._stylize(subject, path, "strength_0", used, strength=0.0)
        flat = {view.frame.name: view.image for view in plain.views}
        bent = {view.frame.name: view.image for view in ordered}
        items = [(f, subject.scene.image(f), flat[f.name], bent[f.name]) for f in used]
        drawn = choose_look(style.stats) in ("toon", "cel", "ink")
        return columns(measure(self.finder, self.jaw, items, subject.person, change, drawn))

    def _distances(self, subject: Subject, style: Exemplar, view: StylizedView) -> dict[str, float]:
        scene, frame = subject.scene, view.frame
        own = frame.camera.project(subject.person.world)[0]
        goal = head(style.image, exemplar_person(style).astype(np.uint8) * 255, style.points)
        before = head(scene.image(frame), scene.mask(frame), own)
        after = head(view.image, view.mask, own)
        texture = texture_distance(after, goal) / texture_distance(before, goal)
        colours = palette_distance(after, goal) / palette_distance(before, goal)
        return {"head patches %": 100 * texture, "head palette %": 100 * colours}

    def _by_region(
        self,
        subject: Subject,
        style: Exemplar,
        change: pipeline.ShapeChange,
        view: StylizedView,
        strip: Path,
    ) -> dict[str, Any]:
        person, frame, scene = subject.person, view.frame, subject.scene
        moved = np.concatenate([change.field(person.mesh.vertices), change.field(person.world)])
        goal = exemplar_portrait(style)
        after = frame_portrait(person, frame.camera, view.image, view.mask, moved)
        before = frame_portrait(person, frame.camera, scene.image(frame), scene.mask(frame), None)
        for name, item in (("goal", goal), ("after", after), ("before", before)):
            save_portrait(self.options.out / "regions" / f"{strip.stem}_{name}", item)
        return style_columns(*closeness(goal, [after, before]))

    def _face(self, view: StylizedView) -> list[float] | None:
        found = self.finder.detect(view.image, thorough=True) if self.embed else None
        if found is None or self.embed is None:
            return None
        return list(self.embed(view.image, found).tolist())

    def _sheet(self, subject: Subject, style: Exemplar, views: list[StylizedView]) -> np.ndarray:
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


def style_columns(after: Closeness, before: Closeness) -> dict[str, Any]:
    """Percent of the photo's distances, and the same region by region (patches/palette)."""
    parts = []
    for region, (patches, palette) in after.by_region.items():
        was = before.by_region[region]
        parts.append(f"{NAMES[region]} {100 * patches / was[0]:.0f}/{100 * palette / was[1]:.0f}")
    return {
        "patches %": 100 * after.patches / before.patches,
        "palette %": 100 * after.palette / before.palette,
        "regions": ", ".join(parts),
    }


def save_portrait(path: Path, item: Portrait) -> None:
    """Both pictures, to look at and to measure again."""
    write_image(path.with_name(path.name + ".png"), item.image)
    write_image(path.with_name(path.name + "_map.png"), item.regions)


def strip_path(out: Path, row: dict[str, Any]) -> Path:
    return out / "strips" / f"{row['subject']}_{row['exemplar']}.png"


def write_sheet(path: Path, strips: list[np.ndarray]) -> None:
    """Photo, exemplar, front, three-quarter of every exemplar in two or three columns."""
    columns = 2 if strips[0].shape[1] > 3 * TILE else 3
    full = strips + [np.full_like(strips[0], 255)] * (-len(strips) % columns)
    lines = [np.hstack(full[i : i + columns]) for i in range(0, len(full), columns)]
    cv2.imwrite(str(path), np.vstack(lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def write_overview(path: Path, strips: list[np.ndarray], tile: int = 264) -> None:
    """For the docs: the photo once, then exemplar, front and three-quarter, under 250 kB."""
    size = (3 * tile, tile)
    cells = [cv2.resize(s[:, TILE:], size, interpolation=cv2.INTER_AREA) for s in strips]
    first = np.full_like(cells[0], 255)
    photo = cv2.resize(strips[0][:, :TILE], (tile, tile), interpolation=cv2.INTER_AREA)
    first[:, tile : 2 * tile] = photo
    cells = [first, *cells]
    cells += [np.full_like(first, 255)] * (len(cells) % 2)
    gap = np.full((tile, 12, 3), 255, np.uint8)
    lines = [np.hstack([a, gap, b]) for a, b in zip(cells[::2], cells[1::2], strict=True)]
    for quality in range(88, 30, -6):
        cv2.imwrite(str(path), np.vstack(lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if path.stat().st_size < 250_000:
            return


def identity(rows: list[dict[str, Any]], faces: dict[str, list[float]]) -> str:
    """Share of pairings in which the stylized face is nearest to its own subject."""
    scored = [row for row in rows if row["face"] is not None]
    if not scored or len(faces) < 2:
        return "identity: not measured"
    right: dict[str, list[bool]] = {}
    for row in scored:
        far = {n: float(np.linalg.norm(np.subtract(row["face"], f))) for n, f in faces.items()}
        nearest = min(far, key=lambda n, far=far: far[n])
        right.setdefault(row["exemplar"], []).append(nearest == row["subject"])
    parts = [f"{name} {sum(v)}/{len(v)}" for name, v in right.items()]
    total = [hit for hits in right.values() for hit in hits]
    mild = [hit for name, hits in right.items() if name in MILD for hit in hits]
    return (
        f"identity: nearest to the own subject of {len(faces)} in {sum(total)} of {len(total)}, "
        f"mildly exaggerated exemplars {sum(mild)} of {len(mild)} ({', '.join(parts)}); "
        f"no face found in {len(rows) - len(scored)}"
    )


def merge(runs: list[Path], out: Path) -> None:
    """Table, sheets and summary of several runs' pairs; later runs replace earlier pairs."""
    rows: dict[tuple[str, str], tuple[dict[str, Any], Path]] = {}
    faces: dict[str, list[float]] = {}
    for run in runs:
        state = json.loads((run / "state.json").read_text(encoding="utf-8"))
        faces |= state["faces"]
        rows |= {(row["subject"], row["exemplar"]): (row, run) for row in state["rows"]}
    done = [item for _, item in sorted(rows.items())]
    table = [{k: v for k, v in row.items() if k != "face"} for row, _ in done]
    write_table(table, out / "table.md")
    for name in sorted({row["subject"] for row, _ in done}):
        strips = [
            cv2.imread(str(strip_path(run, row)))[..., ::-1]
            for row, run in done
            if row["subject"] == name
        ]
        write_sheet(out / f"sheet_{name}.jpg", strips)
        if strips[0].shape[1] > 3 * TILE:
            write_overview(out / f"overview_{name}.jpg", strips)
    names = [n for n in table[0] if n.endswith("%") or n == "consistency" or n.startswith("slope")]
    for column in names:
        values = [row[column] for row in table if not np.isnan(row[column])]
        if values:
            low, high = np.min(values), np.max(values)
            print(
                f"{column}: mean {np.mean(values):.2f}, median {np.median(values):.2f}, "
                f"{low:.2f} to {high:.2f}, {len(values)} pairs"
            )
        if values and column.startswith("slope"):
            met = sum(0.8 <= v <= 1.1 for v in values)
            print(f"  within 0.8 to 1.1: {met} of {len(values)} reliable ones, {len(table)} pairs")
    print(identity([row for row, _ in done], faces))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", nargs="*", default=[], help="NAME=JOB with a finished stage I")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="subjects")
    parser.add_argument("--exemplars", nargs="*", default=[], help="names without exemplar_")
    parser.add_argument("--faces", nargs="*", default=[], help="NAME=JOB, more faces to tell from")
    parser.add_argument("--slope-frames", type=int, default=2, help="frames for the shape, 0: none")
    parser.add_argument("--merge", nargs="*", type=Path, default=[], help="finished runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.merge:
        merge(options.merge, options.out)
        return
    start_warp()
    paths = sorted(options.data.glob("exemplar_*/exemplar.*"))
    chosen = options.exemplars
    paths = [p for p in paths if not chosen or p.parent.name.removeprefix("exemplar_") in chosen]
    bench = Bench(options)
    for item in options.faces:
        name, job = item.split("=", 1)
        bench.gallery(name, _scene(Path(job)))
    for subject in subjects(options):
        bench.subject(subject, paths)
    bench.save()
    merge([options.out], options.out)


if __name__ == "__main__":
    main()
