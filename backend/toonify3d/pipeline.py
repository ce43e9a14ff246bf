"""The main job: capture, prior, 2D portraits, geometry, texture, asset, in a job folder.

Every step is cached by a key made of its inputs and settings (:mod:`.service.job`), so a resumed
job goes on where it stopped and a second style starts at the portraits.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .asset.pipeline import build_asset, extract_mesh
from .calm_colors import save_calm_colors
from .capture.pipeline import check_source, run_capture
from .devices import resolve_device
from .errors import CancelledError, InputError, ToonifyError, job_sentence
from .meshes import load_mesh, save_mesh
from .plan import Style, prepare, step_folders, step_keys, unfinished
from .portrait2d.adapters.base import licence_notice, open_stylizer, stylize_with
from .portrait2d.exemplar import read_working_image
from .portrait2d.folder import check_portraits, load_folder_views
from .portrait2d.person_regions import person_regions
from .portrait2d.pipeline import study_person, stylize_views
from .portrait2d.store import load_stylized
from .progress import Progress, SubProgress
from .room import Room
from .scene import ByteImage, Scene, StylizedView
from .service.job import JobFolder
from .service.reporter import Listener, Reporter, cancel_on_signals
from .service.request import Request
from .settings import JobSettings
from .snr.light_grid import LightGrid
from .steps import RunContext, run_step, run_whole, write_report
from .training.joint_colors import JointTexture
from .training.refined_cameras import with_refined_cameras
from .training.stage1 import load_prior, train_prior
from .training.stage2 import adapt_geometry, load_geometry
from .training.stage3 import adapt_texture, load_avatar

# Seconds of the preview preset on two CPU cores (docs/results.md), for the time left at the start.
EXPECTED_SECONDS = {
    "capture": 102.0,
    "prior": 74.0,
    "portraits": 22.0,  # toons; brush and chalk about 45: the look is not known beforehand
    "geometry": 24.0,
    "texture": 47.0,
    "asset": 77.0,
}


def run_request(
    request: Request, root: Path, listener: Listener | None = None, signals: bool = False
) -> Path:
    """Run one request in the job folder ``root``.

    Args:
        request: What to do.
        root: The job folder; made when missing.
        listener: The link to Blender.
        signals: Let Ctrl-C and SIGTERM stop the job cleanly (main thread only).

    Returns:
        The folder of the result (``styles/NAME/result``, or ``prior`` for ``reconstruct``).

    Raises:
        InputError: Bad input; nothing that was there is changed.
        CancelledError: The user stopped it.
        TrainingError: A stage could not go on.
    """
    device = resolve_device(request.device)
    job = JobFolder(root)
    job.check_free()
    settings, style = prepare(request, job)
    with job.locked():
        plan = unfinished(job, settings, style)
        reporter = Reporter(root, [(name, EXPECTED_SECONDS[name]) for name in plan], listener)
        if signals:
            cancel_on_signals(reporter)
        notice = licence_notice(style.stylizer) if style and "portraits" in plan else None
        if notice is not None:
            reporter.warn(notice)
        context = RunContext(job, device, reporter, settings.preset)
        return _run(context, settings, style)


# -- the steps --------------------------------------------------------------------------------


def _run(context: RunContext, settings: JobSettings, style: Style | None) -> Path:
    reporter = context.reporter
    try:
        result = _steps(context, settings, style)
    except CancelledError:
        reporter.cancelled()
        raise
    except ToonifyError as error:
        reporter.failed(getattr(error, "code", "failed"), str(error))
        raise
    except Exception as error:
        sentence = job_sentence(error, context.job.root)
        if sentence is not None:
            reporter.failed("unwritable", sentence)
        else:
            reporter.failed("defect", f"{type(error).__name__}: {error}")
        raise
    reporter.done(result)
    return result


def _steps(context: RunContext, settings: JobSettings, style: Style | None) -> Path:
    job, reporter, device = context.job, context.reporter, context.device
    keys, folders = step_keys(job, settings, style), step_folders(job, style)

    def capture() -> dict[str, Any]:
        source = Path(job.description["capture"]["path"])
        check_source(source)
        scene = run_capture(source, job.capture, settings.capture, device, reporter)
        return {"frames_used": len(scene.frames), "notes": scene.notes}

    run_step(context, "capture", folders["capture"], keys["capture"], capture)
    scene = Scene.load(job.capture)
    if style is not None and "portraits" in unfinished(job, settings, style):
        _check_film(style, scene)  # now, not after stage I

    def prior() -> dict[str, Any]:
        training, cutting = SubProgress(reporter, 0.0, 0.93), SubProgress(reporter, 0.93, 1.0)
        field = train_prior(scene, job.prior, settings.prior, device, training)
        seen = with_refined_cameras(scene, job.prior)
        save_mesh(job.prior / "mesh.npz", extract_mesh(field, seen, settings.prior_mesh, cutting))
        return _metrics(job.prior)

    run_step(context, "prior", folders["prior"], keys["prior"], prior)
    if style is None:
        write_report(context, job.prior, settings, style)
        return job.prior
    _style_steps(context, with_refined_cameras(scene, job.prior), settings, style)
    if "asset" in context.cached:  # else it was written with the rest of the result
        write_report(context, folders["asset"], settings, style)
    return folders["asset"]


def _check_film(style: Style, scene: Scene) -> None:
    """See whether a style suits the film, which was not known when the job was started.

    Raises:
        InputError: It does not: no face for the built-in stylizer (``no_face``), other frames than
            the painted ones (:func:`.portrait2d.folder.check_portraits`).
    """
    if style.portraits is not None:
        check_portraits(style.portraits, scene)
    elif style.stylizer == "builtin" and scene.landmarks is None:
        raise InputError(
            "No face was found in the capture, so its shape cannot follow the exemplar's: film the"
            " face from the front in good light, or give stylized frames with --stylizer folder.",
            "no_face",
        )


def _style_steps(context: RunContext, scene: Scene, settings: JobSettings, style: Style) -> None:
    job, reporter, device = context.job, context.reporter, context.device
    keys, folders = step_keys(job, settings, style), step_folders(job, style)
    chosen = style.settings
    prior = load_prior(job.prior, device)
    prior_mesh = load_mesh(job.prior / "mesh.npz")
    room = Room(scene, prior_mesh, job.prior / "light.npz", reporter)

    def portraits() -> dict[str, Any]:
        return _make_portraits(style, room, folders["portraits"], device, reporter)

    run_step(context, "portraits", folders["portraits"], keys["portraits"], portraits)
    stylized = load_stylized(folders["portraits"], scene)

    def light() -> LightGrid | None:
        """The room's light as far as it was taken out of the portraits."""
        taken = (context.records["portraits"].figures.get("room_light") or {}).get("strength", 0.0)
        return room.grid(taken, device, stylized.calm)

    def geometry() -> dict[str, Any]:
        adapt_geometry(
            scene,
            prior,
            stylized.views,
            stylized.displacement,
            folders["geometry"],
            chosen.geometry,
            device,
            reporter,
            settings.prior,
            JointTexture(chosen.texture, stylized.palette, light())
            if chosen.geometry.joins
            else None,
        )
        return _metrics(folders["geometry"])

    run_step(context, "geometry", folders["geometry"], keys["geometry"], geometry)
    shape = load_geometry(prior, folders["geometry"], device)

    def texture() -> dict[str, Any]:
        adapt_texture(
            scene,
            shape,
            stylized.views,
            stylized.palette,
            folders["texture"],
            chosen.texture,
            device,
            reporter,
            light=light(),
        )
        return _metrics(folders["texture"])

    run_step(context, "texture", folders["texture"], keys["texture"], texture)
    avatar = load_avatar(shape, folders["texture"], device)

    def asset(folder: Path) -> dict[str, Any]:
        exemplar = style_picture(style, stylized.views)
        looking, building = SubProgress(reporter, 0.0, 0.1), SubProgress(reporter, 0.1, 1.0)
        regions = person_regions(scene, prior_mesh, job.prior / "regions.npz", looking)
        avatar.person_light = room.grid(chosen.asset.photo_delight, device)
        report = build_asset(
            avatar, prior_mesh, scene, exemplar, folder, chosen.asset, building, regions
        )
        return dataclasses.asdict(report) | {
            "photo_light": room.figures(chosen.asset.photo_delight)
        }

    run_whole(
        context,
        "asset",
        folders["asset"],
        keys["asset"],
        asset,
        lambda folder: write_report(context, folder, settings, style),
    )


def _make_portraits(
    style: Style, room: Room, folder: Path, device: str, progress: Progress
) -> dict[str, Any]:
    """The stylized portraits in ``folder``, made or brought; figures for the report."""
    scene, chosen = room.scene, style.settings
    save_calm_colors(folder, None)  # an earlier stylizer's
    if style.portraits is not None:
        made = load_folder_views(
            scene, style.portraits, style.exemplar, chosen.stylize, progress, folder
        )
    elif style.stylizer != "builtin":
        stylizer = open_stylizer(style.stylizer, chosen.adapter, device)
        made = stylize_with(stylizer, scene, folder, chosen.stylize, progress)
    else:
        person = study_person(scene, room.prior_mesh, SubProgress(progress, 0.0, 0.2))
        made = stylize_views(
            scene,
            room.prior_mesh,
            style.exemplar,
            folder,
            chosen.stylize,
            SubProgress(progress, 0.2, 1.0),
            landmarks_file=style.landmarks,
            person=person,
            light=room.light(person) if chosen.stylize.delight > 0 else None,
            device=device,
        )
    return {"views_stylized": len(made.views), "room_light": room.figures(made.delight)}


def style_picture(style: Style, views: Sequence[StylizedView]) -> ByteImage:
    """RGB ``(H, W, 3)`` whose lines and palette the texture takes.

    The exemplar; but a model or program of the user's has a look of its own, whatever the exemplar
    shows, so then it is the portrait nearest to the front, on white.
    """
    if style.stylizer in ("builtin", "folder"):
        return read_working_image(style.exemplar)
    front = min(views, key=lambda view: abs(view.frame.yaw))
    return np.where(front.mask[..., None] > 127, front.image, np.uint8(255))


def _metrics(folder: Path) -> dict[str, Any]:
    """The figures a stage left in ``metrics.json``."""
    return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
