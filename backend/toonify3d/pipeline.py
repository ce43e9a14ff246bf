"""The main job: capture, prior, 2D portraits, geometry, texture, asset, in a job folder.

Every step is cached by a key made of its inputs and settings (:mod:`.service.job`), so a resumed
job goes on where it stopped and a second style starts at the portraits.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .asset.pipeline import build_asset, extract_mesh
from .capture.pipeline import check_source, run_capture
from .devices import resolve_device
from .errors import CancelledError, InputError, ToonifyError
from .files import write_json
from .meshes import load_mesh, save_mesh
from .portrait2d.exemplar import load_exemplar, read_working_image
from .portrait2d.folder import load_folder_views
from .portrait2d.pipeline import stylize_views
from .portrait2d.store import load_stylized
from .progress import SubProgress
from .resources import peak_rss_mb, peak_vram_mb
from .scene import Scene
from .service.job import (
    JobFolder,
    StepRecord,
    file_hash,
    finish_step,
    finished_step,
    step_key,
    versions,
)
from .service.reporter import Listener, Reporter, cancel_on_signals
from .service.request import Request
from .settings import JobSettings, StyleSettings, apply_overrides, preset_settings
from .settings_doc import from_dict
from .training.stage1 import load_prior, train_prior
from .training.stage2 import adapt_geometry, load_geometry
from .training.stage3 import adapt_texture, load_avatar

# Seconds of the preview preset on two CPU cores (docs/results.md), for the time left at the start.
EXPECTED_SECONDS = {
    "capture": 75.0,
    "prior": 104.0,
    "portraits": 14.0,
    "geometry": 37.0,
    "texture": 37.0,
    "asset": 46.0,
}
STYLIZERS = ("builtin", "folder")


@dataclass
class _Context:
    """What the steps of one run share."""

    job: JobFolder
    device: str
    reporter: Reporter
    preset: str
    records: dict[str, StepRecord] = dataclasses.field(default_factory=dict)
    cached: list[str] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class _Style:
    """One style as recorded in ``job.json``."""

    name: str
    exemplar: Path
    exemplar_sha256: str
    stylizer: str
    portraits: Path | None
    portraits_sha256: str | None
    settings: StyleSettings


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
    prepare = {
        "stylize": _prepare_stylize,
        "reconstruct": _prepare_reconstruct,
        "restyle": _prepare_restyle,
        "resume": _prepare_resume,
    }[request.command]
    settings, style = prepare(request, job)
    with job.locked():
        plan = _plan(job, settings, style)
        reporter = Reporter(root, [(name, EXPECTED_SECONDS[name]) for name in plan], listener)
        if signals:
            cancel_on_signals(reporter)
        context = _Context(job, device, reporter, settings.preset)
        return _run(context, settings, style)


# -- what was asked ---------------------------------------------------------------------------


def _prepare_stylize(request: Request, job: JobFolder) -> tuple[JobSettings, _Style | None]:
    capture, settings, style_settings = _inputs(request)
    style = _style_from_request(request, style_settings)
    job.create(capture, dataclasses.asdict(settings))
    return settings, _record_style(job, style, request.style)


def _prepare_reconstruct(request: Request, job: JobFolder) -> tuple[JobSettings, _Style | None]:
    capture, settings, _ = _inputs(request)
    job.create(capture, dataclasses.asdict(settings))
    return settings, None


def _prepare_restyle(request: Request, job: JobFolder) -> tuple[JobSettings, _Style | None]:
    settings = _stored_settings(job)
    _, style_settings = _with_overrides(settings, request)
    style = _style_from_request(request, style_settings)
    return settings, _record_style(job, style, request.style)


def _prepare_resume(request: Request, job: JobFolder) -> tuple[JobSettings, _Style | None]:
    """The style that is not finished, else the last one; none for a bare reconstruction."""
    settings = _stored_settings(job)
    styles = [_stored_style(job, name) for name in job.description["styles"]]
    if request.style is not None:
        styles = [style for style in styles if style.name == request.style]
        if not styles:
            raise InputError(f"The job has no style '{request.style}'.", "no_style")
    for style in styles:
        if "asset" in _plan(job, settings, style):
            return settings, style
    return settings, styles[-1] if styles else None


def _inputs(request: Request) -> tuple[Path, JobSettings, StyleSettings]:
    if request.capture is None:
        raise InputError("Give a capture: a video file or a folder of images.", "no_capture")
    capture = Path(request.capture)
    check_source(capture)
    settings, _ = preset_settings(request.preset)
    return capture, *_with_overrides(settings, request)


def _with_overrides(settings: JobSettings, request: Request) -> tuple[JobSettings, StyleSettings]:
    _, style_settings = preset_settings(settings.preset)
    if request.strength is not None:
        if not 0.0 <= request.strength <= 1.5:
            raise InputError("--strength must lie between 0 and 1.5.", "bad_strength")
        stylize = dataclasses.replace(style_settings.stylize, strength=request.strength)
        style_settings = dataclasses.replace(style_settings, stylize=stylize)
    return apply_overrides(settings, style_settings, request.overrides)


def _style_from_request(request: Request, settings: StyleSettings) -> _Style:
    """Check exemplar and portraits now: a bad picture must not be noticed after the capture."""
    if request.exemplar is None:
        raise InputError("Give an exemplar: one stylized portrait image.", "no_exemplar")
    if request.stylizer not in STYLIZERS:
        raise InputError(
            f"There is no stylizer '{request.stylizer}'; use one of {', '.join(STYLIZERS)}.",
            "bad_stylizer",
        )
    exemplar = Path(request.exemplar)
    if request.stylizer == "builtin":
        load_exemplar(exemplar)
    else:  # takes only the palette from the exemplar, so it needs no face
        read_working_image(exemplar)
    portraits = None
    if request.stylizer == "folder":
        portraits = Path(request.portraits or "")
        if request.portraits is None or not portraits.is_dir():
            raise InputError(
                "The folder stylizer needs --portraits with an existing folder of NNNN.png.",
                "no_portraits",
            )
    return _Style(
        name=request.style or _default_style_name(exemplar),
        exemplar=exemplar,
        exemplar_sha256=file_hash(exemplar),
        stylizer=request.stylizer,
        portraits=portraits,
        portraits_sha256=None if portraits is None else file_hash(portraits),
        settings=settings,
    )


def _default_style_name(exemplar: Path) -> str:
    """The file's name, or its folder's when the file is just called "exemplar"."""
    plain = exemplar.stem.lower() in ("exemplar", "style", "image", "portrait")
    return exemplar.resolve().parent.name if plain else exemplar.stem


def _record_style(job: JobFolder, style: _Style, wanted: str | None) -> _Style:
    """Write the style into ``job.json`` and keep a copy of its exemplar for later resumes."""
    description = {
        "exemplar_sha256": style.exemplar_sha256,
        "stylizer": style.stylizer,
        "portraits": None if style.portraits is None else str(style.portraits.resolve()),
        "portraits_sha256": style.portraits_sha256,
        "settings": dataclasses.asdict(style.settings),
    }
    name = job.free_style_name(style.name, description) if wanted is None else style.name
    job.add_style(name, description)
    kept = job.style(name) / f"exemplar{style.exemplar.suffix.lower()}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(style.exemplar, kept)
    return dataclasses.replace(style, name=name, exemplar=kept)


def _stored_settings(job: JobFolder) -> JobSettings:
    return from_dict(JobSettings, job.description["settings"])


def _stored_style(job: JobFolder, name: str) -> _Style:
    stored = job.description["styles"][name]
    kept = sorted(job.style(name).glob("exemplar.*"))
    if not kept:
        raise InputError(f"The exemplar of style '{name}' is gone from the job folder.", "no_file")
    portraits = stored["portraits"]
    return _Style(
        name=name,
        exemplar=kept[0],
        exemplar_sha256=stored["exemplar_sha256"],
        stylizer=stored["stylizer"],
        portraits=None if portraits is None else Path(portraits),
        portraits_sha256=stored["portraits_sha256"],
        settings=from_dict(StyleSettings, stored["settings"]),
    )


# -- which steps ------------------------------------------------------------------------------


def _keys(job: JobFolder, settings: JobSettings, style: _Style | None) -> dict[str, str]:
    keys = {"capture": step_key("capture", job.description["capture"]["sha256"], settings.capture)}
    keys["prior"] = step_key("prior", keys["capture"], settings.prior)
    if style is None:
        return keys
    chosen = style.settings
    keys["portraits"] = step_key(
        "portraits",
        keys["prior"],
        style.exemplar_sha256,
        style.stylizer,
        style.portraits_sha256,
        chosen.stylize,
    )
    keys["geometry"] = step_key("geometry", keys["portraits"], chosen.geometry)
    keys["texture"] = step_key("texture", keys["geometry"], chosen.texture)
    keys["asset"] = step_key("asset", keys["texture"], chosen.asset)
    return keys


def _folders(job: JobFolder, style: _Style | None) -> dict[str, Path]:
    folders = {"capture": job.capture, "prior": job.prior}
    if style is not None:
        base = job.style(style.name)
        folders |= {
            "portraits": base / "portraits2d",
            "geometry": base / "geometry",
            "texture": base / "texture",
            "asset": base / "result",
        }
    return folders


def _plan(job: JobFolder, settings: JobSettings, style: _Style | None) -> list[str]:
    """Names of the steps that are not finished yet."""
    folders = _folders(job, style)
    keys = _keys(job, settings, style)
    return [name for name, key in keys.items() if finished_step(folders[name], key) is None]


def _begin_folder(folder: Path, key: str) -> None:
    """Empty a step's folder unless it was started for the same key (then its checkpoint holds)."""
    marker = folder / "started.json"
    try:
        same = json.loads(marker.read_text(encoding="utf-8"))["key"] == key
    except (OSError, ValueError, KeyError):
        same = False
    if not same and folder.exists():
        shutil.rmtree(folder)
    write_json(marker, {"key": key})


def _step(
    context: _Context, name: str, folder: Path, key: str, work: Callable[[], dict[str, Any]]
) -> None:
    """Run one step, or take its record when it is finished."""
    record = finished_step(folder, key)
    if record is not None:
        context.records[name] = record
        context.cached.append(name)
        return
    _begin_folder(folder, key)
    reporter = context.reporter
    reporter.begin(name)
    started = time.monotonic()
    figures = work()
    record = StepRecord(
        key, time.monotonic() - started, tuple(reporter.stage_warnings), _plain(figures)
    )
    finish_step(folder, record)
    reporter.end()
    context.records[name] = record


def _plain(value: Any) -> Any:
    """Figures as JSON types."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


# -- the steps --------------------------------------------------------------------------------


def _run(context: _Context, settings: JobSettings, style: _Style | None) -> Path:
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
        reporter.failed("defect", f"{type(error).__name__}: {error}")
        raise
    reporter.done(result)
    return result


def _steps(context: _Context, settings: JobSettings, style: _Style | None) -> Path:
    job, reporter, device = context.job, context.reporter, context.device
    keys, folders = _keys(job, settings, style), _folders(job, style)

    def capture() -> dict[str, Any]:
        source = Path(job.description["capture"]["path"])
        check_source(source)
        scene = run_capture(source, job.capture, settings.capture, device, reporter)
        return {"frames_used": len(scene.frames), "notes": scene.notes}

    _step(context, "capture", folders["capture"], keys["capture"], capture)
    scene = Scene.load(job.capture)
    if style is not None and style.stylizer == "builtin" and scene.landmarks is None:
        raise InputError(  # now, not after stage I
            "No face was found in the capture, so its shape cannot follow the exemplar's: film the"
            " face from the front in good light, or give stylized frames with --stylizer folder.",
            "no_face",
        )

    def prior() -> dict[str, Any]:
        training, cutting = SubProgress(reporter, 0.0, 0.93), SubProgress(reporter, 0.93, 1.0)
        field = train_prior(scene, job.prior, settings.prior, device, training)
        save_mesh(job.prior / "mesh.npz", extract_mesh(field, scene, settings.prior_mesh, cutting))
        return _metrics(job.prior)

    _step(context, "prior", folders["prior"], keys["prior"], prior)
    if style is None:
        _write_report(context, job.prior, settings, style)
        return job.prior
    _style_steps(context, scene, settings, style)
    _write_report(context, folders["asset"], settings, style)
    return folders["asset"]


def _style_steps(context: _Context, scene: Scene, settings: JobSettings, style: _Style) -> None:
    job, reporter, device = context.job, context.reporter, context.device
    keys, folders = _keys(job, settings, style), _folders(job, style)
    chosen = style.settings
    prior = load_prior(job.prior, device)
    prior_mesh = load_mesh(job.prior / "mesh.npz")

    def portraits() -> dict[str, Any]:
        folder = folders["portraits"]
        if style.portraits is not None:
            made = load_folder_views(
                scene, style.portraits, style.exemplar, chosen.stylize, reporter, folder
            )
        else:
            made = stylize_views(
                scene, prior_mesh, style.exemplar, folder, chosen.stylize, reporter
            )
        return {"views_stylized": len(made.views)}

    _step(context, "portraits", folders["portraits"], keys["portraits"], portraits)
    stylized = load_stylized(folders["portraits"], scene)

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
        )
        return _metrics(folders["geometry"])

    _step(context, "geometry", folders["geometry"], keys["geometry"], geometry)
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
        )
        return _metrics(folders["texture"])

    _step(context, "texture", folders["texture"], keys["texture"], texture)
    avatar = load_avatar(shape, folders["texture"], device)

    def asset() -> dict[str, Any]:
        exemplar = read_working_image(style.exemplar)
        report = build_asset(
            avatar, prior_mesh, scene, exemplar, folders["asset"], chosen.asset, reporter
        )
        return dataclasses.asdict(report)

    _step(context, "asset", folders["asset"], keys["asset"], asset)


def _metrics(folder: Path) -> dict[str, Any]:
    """The figures a stage left in ``metrics.json``."""
    return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def _write_report(
    context: _Context, folder: Path, settings: JobSettings, style: _Style | None
) -> None:
    """``report.json``: what was done, how long it took, what it cost and what degraded."""
    records = context.records
    seconds = {name: round(record.seconds, 2) for name, record in records.items()}
    asset = records["asset"].figures if "asset" in records else {}
    report = {
        "preset": context.preset,
        "device": context.device,
        "style": None if style is None else style.name,
        "stylizer": None if style is None else style.stylizer,
        "seconds": seconds | {"total": round(sum(seconds.values()), 2)},
        "steps_from_cache": context.cached,
        "peak_rss_mb": peak_rss_mb(),
        "peak_vram_mb": peak_vram_mb(),
        "frames_used": records["capture"].figures["frames_used"],
        "views_stylized": records["portraits"].figures["views_stylized"] if style else 0,
        "stage1": records["prior"].figures,
        "stage2": records["geometry"].figures if style else None,
        "stage3": records["texture"].figures if style else None,
        "mesh": asset.get("mesh"),
        "texture": asset.get("texture"),
        "files": asset.get("files"),
        "warnings": [warning for record in records.values() for warning in record.warnings],
        "settings": {
            "job": dataclasses.asdict(settings),
            "style": None if style is None else dataclasses.asdict(style.settings),
        },
        "versions": versions(),
    }
    write_json(folder / "report.json", report)
