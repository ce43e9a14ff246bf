"""Flicker of the built-in stylizer over all frames of a job, warped by true depth.

    python benchmarks/stylizer_flicker.py --data ../shared/data --jobs lps=JOB f2=JOB \
        --exemplars fluent_man vermeer_pearl --out /tmp/flicker

Every frame that a job would stylize is stylized, once as filmed and once without the room's light
(what jobs do). For every two neighbours on the ring of frames: the root mean square difference
(CIELAB) over the surface that both see, over that of the two photos. Photos are compared
through the true surface ``CAPTURE/gt/mesh.npz`` brought to the job's cameras, stylized frames
through the same surface bent by the stylizer's field; without ground truth through the job's own.
Nothing is written into the jobs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from stylizer_measures import point_difference, write_table

from toonify3d.errors import InputError
from toonify3d.evaluation.fitting import fit_to_points
from toonify3d.evaluation.surface import (
    align_cameras,
    load_true_mesh,
    sample_surface,
    true_camera_centers,
    visible_points,
)
from toonify3d.files import write_json
from toonify3d.meshes import load_mesh
from toonify3d.portrait2d import pipeline
from toonify3d.portrait2d.delight import room_light
from toonify3d.portrait2d.exemplar import load_exemplar
from toonify3d.portrait2d.settings import StylizeSettings
from toonify3d.portrait2d.surface import densify
from toonify3d.progress import SilentProgress
from toonify3d.room_light import RoomLight
from toonify3d.scene import ByteImage, FloatArray, Frame, Scene, SurfaceMesh, angle_apart
from toonify3d.training.refined_cameras import with_refined_cameras
from toonify3d.warp_start import start_warp

END = 0.6
"""Radians from front or back within which a frame belongs to that end (``select_frames``)."""
MOST_APART = 1.3
"""Radians between two neighbours beyond which they show too little in common."""
LEAST_POINTS = 500
_FIT_POINTS = 30_000
_EDGE = 0.003


@dataclass(frozen=True)
class Neighbours:
    """Two frames side by side on the ring.

    Attributes:
        group: ``front``, ``back`` or ``sides``.
        one, two: The frames, by yaw.
        degrees: Between them.
    """

    group: str
    one: Frame
    two: Frame
    degrees: float


@dataclass(frozen=True)
class Flicker:
    """What one pair of neighbours gave.

    Attributes:
        group: See :class:`Neighbours`.
        frames: Their names.
        degrees: Between them.
        photo: Root mean square CIELAB difference of the photos.
        style: The same of the stylized frames.
    """

    group: str
    frames: str
    degrees: float
    photo: float
    style: float

    @property
    def ratio(self) -> float:
        """Stylized over photographed."""
        return self.style / max(self.photo, 1e-6)


@dataclass(frozen=True)
class Job:
    """A job folder read for this benchmark; ``surface`` is ``truth`` or ``own``."""

    name: str
    scene: Scene
    prior_mesh: SurfaceMesh
    warp_mesh: SurfaceMesh
    surface: str
    person: pipeline.Person
    light: RoomLight | None


def ring(frames: Sequence[Frame]) -> list[Neighbours]:
    """Neighbours all round the head, by yaw; too far apart ones are left out."""
    ordered = sorted(frames, key=lambda f: f.yaw % (2 * np.pi))
    out = []
    for one, two in zip(ordered, [*ordered[1:], *ordered[:1]], strict=True):
        apart = float((two.yaw - one.yaw) % (2 * np.pi))
        if one is two or apart > MOST_APART:
            continue
        ends = {_end(one), _end(two)}
        group = ends.pop() if len(ends) == 1 else "sides"
        out.append(Neighbours(group, one, two, float(np.degrees(apart))))
    return out


def _end(frame: Frame) -> str:
    from_front = angle_apart(frame.yaw)
    if from_front < END:
        return "front"
    return "back" if np.pi - from_front < END else "sides"


def truth_in_scene(scene: Scene, own: SurfaceMesh, gt_dir: Path) -> SurfaceMesh:
    """The true mesh in the world of ``scene``, where its pictures show it.

    Camera centres give the similarity (:func:`.align_cameras`); cameras that all look a little too
    high would still show the mesh beside its picture (1.5 mm on lps), so it is then laid on the
    job's own surface, which the pictures made (:func:`.fit_to_points`).

    Raises:
        InputError: There is no ground truth, or too few cameras match it.
    """
    truth = load_true_mesh(gt_dir)
    similarity, _ = align_cameras(scene, true_camera_centers(gt_dir))
    ours = _moved(similarity, own.vertices)
    diagonal = float(np.linalg.norm(np.ptp(truth.vertices, axis=0)))
    points = sample_surface(truth.vertices, truth.faces, _FIT_POINTS)
    cameras = [frame.camera.transformed(similarity) for frame in scene.frames]
    seen = visible_points(points, truth.vertices, truth.faces, cameras, 1e-3 * diagonal)
    rigid = fit_to_points(ours, own.faces, points[seen], diagonal)
    back = np.linalg.inv(rigid @ similarity)
    return SurfaceMesh(_moved(back, truth.vertices), truth.faces)


def _moved(matrix: FloatArray, points: FloatArray) -> FloatArray:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def vertex_areas(mesh: SurfaceMesh) -> FloatArray:
    """``(V,)`` a third of the area of each vertex' triangles."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(mesh.faces.ravel(), np.repeat(area, 3), len(mesh.vertices))


def flicker(
    pairs: Sequence[Neighbours],
    photo: Callable[[Frame], ByteImage],
    stylized: dict[str, ByteImage],
    mesh: SurfaceMesh,
    bent: FloatArray,
) -> list[Flicker]:
    """Differences of all pairs.

    Args:
        pairs: From :func:`ring`.
        photo: A frame's photo.
        stylized: Stylized pictures by frame name.
        mesh: The surface through which photos are compared.
        bent: ``(V, 3)`` its vertices in the stylized pictures.
    """
    out = []
    area = vertex_areas(mesh)  # a scan has many more vertices in an ear than on a shoulder
    for pair in pairs:
        one, two = pair.one, pair.two
        before, count = point_difference(one, two, photo, mesh, mesh.vertices, area)
        after, other = point_difference(one, two, lambda f: stylized[f.name], mesh, bent, area)
        if min(count, other) >= LEAST_POINTS:
            names = f"{one.name}-{two.name}"
            out.append(Flicker(pair.group, names, pair.degrees, before, after))
    return out


def open_job(name: str, folder: Path, out: Path) -> Job:
    """Read a job, study its person, find the room's light (kept in ``out``, not in the job)."""
    progress = SilentProgress()
    scene = with_refined_cameras(Scene.load(folder / "capture"), folder / "prior")
    mesh = load_mesh(folder / "prior" / "mesh.npz")
    source = json.loads((folder / "job.json").read_text(encoding="utf-8"))["capture"]["path"]
    try:
        warp_mesh, surface = truth_in_scene(scene, mesh, Path(source).parent / "gt"), "truth"
    except InputError as error:
        print(f"{name}: warped by the job's own surface ({error})")
        warp_mesh, surface = mesh, "own"
    person = pipeline.study_person(scene, mesh, progress)
    light = room_light(scene, mesh, out / f"{name}_light.npz", progress, person)
    return Job(name, scene, mesh, densify(warp_mesh, _EDGE), surface, person, light)


def measure(job: Job, exemplar: Path, folder: Path, light: RoomLight | None) -> list[Flicker]:
    """Stylize all frames that a job would, and compare neighbours."""
    settings, progress = StylizeSettings(), SilentProgress()
    done = pipeline.stylize_views(
        job.scene, job.prior_mesh, exemplar, folder, settings, progress,
        person=job.person, light=light,
    )  # fmt: skip
    change = pipeline.change_shape(job.person, load_exemplar(exemplar), settings)
    bent = job.warp_mesh.vertices + change.field(job.warp_mesh.vertices)
    pictures = {view.frame.name: view.image for view in done.views}
    pairs = ring([view.frame for view in done.views])
    return flicker(pairs, job.scene.image, pictures, job.warp_mesh, bent)


def row(found: Sequence[Flicker]) -> dict[str, object]:
    """Mean and worst ratio of each group and of all."""
    out: dict[str, object] = {"pairs": len(found)}
    for group in ("front", "sides", "back", "all"):
        ratios = [item.ratio for item in found if group in (item.group, "all")]
        if ratios:
            out[group] = f"{np.mean(ratios):.2f}, worst {np.max(ratios):.2f}"
        else:
            out[group] = "-"
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", nargs="+", required=True, help="NAME=JOB, stage I finished")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--exemplars", nargs="+", required=True, help="names without exemplar_")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    start_warp()
    rows = []
    for item in options.jobs:
        name, folder = item.split("=", 1)
        job = open_job(name, Path(folder), options.out)
        for exemplar in options.exemplars:
            path = next((options.data / f"exemplar_{exemplar}").glob("exemplar.*"))
            for kind, light in (("as filmed", None), ("room's light out", job.light)):
                stem = f"{name}_{exemplar}_{kind.split(maxsplit=1)[0]}"
                found = measure(job, path, options.out / "views" / stem, light)
                pairs = [asdict(pair) | {"ratio": pair.ratio} for pair in found]
                write_json(options.out / f"{stem}.json", {"pairs": pairs})
                head = {"subject": name, "exemplar": exemplar, "light": kind}
                rows.append(head | {"warped by": job.surface} | row(found))
                print(json.dumps(rows[-1]), flush=True)
                write_table(rows, options.out / "table.md")


if __name__ == "__main__":
    main()
