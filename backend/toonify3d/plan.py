"""What a request asks of a job folder: settings, style, and which steps are still to do."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from .capture.pipeline import check_programs, check_source
from .companions import record_companions
from .errors import InputError
from .portrait2d.adapters.base import open_stylizer
from .portrait2d.adapters.settings import AdapterSettings, absolute_paths
from .portrait2d.exemplar import load_exemplar, read_working_image
from .portrait2d.folder import check_portraits
from .scene import Scene
from .service.job import JobFolder, check_style_name, file_hash, finished_step, step_key
from .service.request import Request
from .settings import JobSettings, StyleSettings, apply_overrides, preset_settings
from .settings_doc import from_dict

_LANDMARKS = "landmarks.json"
"""Copy of the exemplar's landmark file in a style's folder."""
STYLIZERS = ("builtin", "folder", "dct-net", "vtoonify", "onnx", "command")


@dataclass(frozen=True)
class Style:
    """One style as recorded in ``job.json``."""

    name: str
    exemplar: Path
    exemplar_sha256: str
    stylizer: str
    portraits: Path | None
    portraits_sha256: str | None
    settings: StyleSettings
    landmarks: Path | None = None
    landmarks_sha256: str | None = None


def prepare(request: Request, job: JobFolder) -> tuple[JobSettings, Style | None]:
    """Check what was asked and write it into ``job.json``.

    Args:
        request: What to do.
        job: Where.

    Returns:
        The job's settings and the style to work on; None for a bare reconstruction.

    Raises:
        InputError: Bad input; nothing that was there is changed.
    """
    _check_name(job.root)
    settings, style = {
        "stylize": _prepare_stylize,
        "reconstruct": _prepare_reconstruct,
        "restyle": _prepare_restyle,
        "refine": _prepare_refine,
        "resume": _prepare_resume,
    }[request.command](request, job)
    record_companions(job, settings)
    return settings, style


# -- what was asked ---------------------------------------------------------------------------


def _prepare_stylize(request: Request, job: JobFolder) -> tuple[JobSettings, Style | None]:
    capture, settings, style_settings = _inputs(request)
    style = _style_from_request(request, style_settings, _read_film(job, settings))
    job.create(capture, dataclasses.asdict(settings))
    return settings, _record_style(job, style, request.style)


def _prepare_reconstruct(request: Request, job: JobFolder) -> tuple[JobSettings, Style | None]:
    capture, settings, _ = _inputs(request)
    job.create(capture, dataclasses.asdict(settings))
    return settings, None


def _prepare_restyle(request: Request, job: JobFolder) -> tuple[JobSettings, Style | None]:
    settings = _stored_settings(job)
    wanted, style_settings = _with_overrides(settings, request)
    _keep_reconstruction(settings, wanted)
    style = _style_from_request(request, style_settings, _read_film(job, settings))
    return settings, _record_style(job, style, request.style)


def _prepare_refine(request: Request, job: JobFolder) -> tuple[JobSettings, Style | None]:
    """A new style: an earlier one with longer stages II and III, from the same portraits."""
    if not 1.0 < request.longer <= 100.0:
        raise InputError("--longer must be above 1, at most 100.", "bad_setting")
    settings = _stored_settings(job)
    names = [request.style] if request.style is not None else list(job.description["styles"])[-1:]
    if not names or names[0] not in job.description["styles"]:
        missing = f"'{names[0]}'" if names else "to refine"
        raise InputError(f"The job has no style {missing}.", "no_style")
    style = _stored_style(job, names[0])
    changed = [
        f"{name}.steps={round(request.longer * getattr(style.settings, name).steps)}"
        for name in ("geometry", "texture")
    ]
    wanted, longer = apply_overrides(settings, style.settings, [*changed, *request.overrides])
    _keep_reconstruction(settings, wanted)
    _check_again(job, settings, style)
    refined = _record_style(
        job, dataclasses.replace(style, name=f"{style.name}-refined", settings=longer), None
    )
    source, target = (job.style(name) / "portraits2d" for name in (style.name, refined.name))
    if source.is_dir() and not target.exists():  # the same pictures: its step is then finished
        shutil.copytree(source, target)
    return settings, refined


def _keep_reconstruction(settings: JobSettings, wanted: JobSettings) -> None:
    """A style cannot change what it stands on.

    Raises:
        InputError: A setting of capture or prior was changed.
    """
    if wanted != settings:
        raise InputError(
            "A style keeps the job's capture and prior: change their settings (capture.*, prior.*,"
            " prior_mesh.*) with 'stylize' or 'reconstruct' in a new job folder.",
            "bad_setting",
        )


def _prepare_resume(request: Request, job: JobFolder) -> tuple[JobSettings, Style | None]:
    """The style that is not finished, else the last one; none for a bare reconstruction."""
    settings = _stored_settings(job)
    styles = [_stored_style(job, name) for name in job.description["styles"]]
    if request.style is not None:
        styles = [style for style in styles if style.name == request.style]
        if not styles:
            raise InputError(f"The job has no style '{request.style}'.", "no_style")
    wanted = next((s for s in styles if "asset" in unfinished(job, settings, s)), None)
    if wanted is None:
        return settings, styles[-1] if styles else None
    _check_again(job, settings, wanted)
    return settings, wanted


def _inputs(request: Request) -> tuple[Path, JobSettings, StyleSettings]:
    if request.capture is None:
        raise InputError("Give a capture: a video file or a folder of images.", "no_capture")
    capture = Path(request.capture)
    _check_name(capture)
    check_source(capture)
    settings, _ = preset_settings(request.preset)
    settings, style_settings = _with_overrides(settings, request)
    check_programs(settings.capture)
    return capture, settings, style_settings


def _check_name(path: Path) -> None:
    """See whether a path can stand in ``job.json``: Linux takes any bytes as a name.

    Raises:
        InputError: It is no text (``bad_name``).
    """
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The name {str(path)!a} is no readable text; rename the file or folder.",
            "bad_name",
        ) from error


def _with_overrides(settings: JobSettings, request: Request) -> tuple[JobSettings, StyleSettings]:
    _, style_settings = preset_settings(settings.preset)
    if request.strength is not None:
        if not 0.0 <= request.strength <= 1.5:
            raise InputError("--strength must lie between 0 and 1.5.", "bad_strength")
        stylize = dataclasses.replace(style_settings.stylize, strength=request.strength)
        style_settings = dataclasses.replace(style_settings, stylize=stylize)
    return apply_overrides(settings, style_settings, request.overrides)


def _style_from_request(
    request: Request, settings: StyleSettings, scene: Scene | None = None
) -> Style:
    """The style that is asked for, checked; see :func:`_check_style` for ``scene``."""
    if request.exemplar is None:
        raise InputError("Give an exemplar: one stylized portrait image.", "no_exemplar")
    if request.stylizer not in STYLIZERS:
        raise InputError(
            f"There is no stylizer '{request.stylizer}'; use one of {', '.join(STYLIZERS)}.",
            "bad_stylizer",
        )
    if request.portraits is not None and request.stylizer != "folder":
        raise InputError("--portraits needs --stylizer folder.", "bad_stylizer")
    if request.portraits is None and request.stylizer == "folder":
        raise InputError(
            "The folder stylizer needs --portraits with an existing folder of NNNN.png.",
            "no_portraits",
        )
    exemplar, marked = Path(request.exemplar), request.exemplar_landmarks
    adapted = request.stylizer not in ("builtin", "folder")
    adapter = absolute_paths(settings.adapter) if adapted else settings.adapter
    style = Style(
        name=check_style_name(request.style) if request.style else _default_style_name(exemplar),
        exemplar=exemplar,
        exemplar_sha256="",
        stylizer=request.stylizer,
        portraits=None if request.portraits is None else Path(request.portraits),
        portraits_sha256=None,
        settings=dataclasses.replace(settings, adapter=adapter),
        landmarks=None if marked is None else Path(marked),
    )
    _check_style(style, scene)
    return dataclasses.replace(
        style,
        exemplar_sha256=file_hash(exemplar),
        portraits_sha256=None if style.portraits is None else file_hash(style.portraits),
        landmarks_sha256=None if style.landmarks is None else file_hash(style.landmarks),
    )


def _check_style(style: Style, scene: Scene | None) -> None:
    """See what a style is made of: what is missing must not be noticed after the capture.

    Args:
        style: Its hashes do not matter.
        scene: The finished capture, whose frames painted portraits belong to; None before.

    Raises:
        InputError: Exemplar, portraits or what the stylizer runs cannot be used as they are.
    """
    if style.stylizer == "builtin":
        load_exemplar(style.exemplar, style.landmarks, style.settings.stylize.look)
        return
    read_working_image(style.exemplar)  # only for the palette, so it needs no face
    if style.portraits is not None:
        check_portraits(style.portraits, scene)
    else:
        open_stylizer(style.stylizer, style.settings.adapter, "cpu")


def _check_again(job: JobFolder, settings: JobSettings, style: Style) -> None:
    """See what the steps still to do need: it may have gone since the job was started.

    Raises:
        InputError: As at the start.
    """
    todo = unfinished(job, settings, style)
    if "capture" in todo:
        check_programs(settings.capture)
    if "portraits" in todo:
        _check_style(style, _read_film(job, settings))


def _read_film(job: JobFolder, settings: JobSettings) -> Scene | None:
    """What the capture has found; None while it is not finished, or there is no job yet."""
    begun = (job.root / "job.json").is_file()
    if not begun or "capture" in unfinished(job, settings, None):
        return None
    return Scene.load(job.capture)


def _default_style_name(exemplar: Path) -> str:
    """The file's name, or its folder's when the file is just called "exemplar"."""
    plain = exemplar.stem.lower() in ("exemplar", "style", "image", "portrait")
    return exemplar.resolve().parent.name if plain else exemplar.stem


def _record_style(job: JobFolder, style: Style, wanted: str | None) -> Style:
    """Write the style into ``job.json`` and keep a copy of its exemplar for later resumes."""
    description = {
        "exemplar_sha256": style.exemplar_sha256,
        "stylizer": style.stylizer,
        "portraits": None if style.portraits is None else str(style.portraits.resolve()),
        "portraits_sha256": style.portraits_sha256,
        "settings": dataclasses.asdict(style.settings),
    }
    if style.landmarks is not None:
        description["landmarks_sha256"] = style.landmarks_sha256
    name = job.free_style_name(style.name, description) if wanted is None else style.name
    job.add_style(name, description)
    kept = job.style(name) / f"exemplar{style.exemplar.suffix.lower()}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(style.exemplar, kept)
    places = style.landmarks
    if places is not None:
        places = job.style(name) / _LANDMARKS
        if not places.exists():
            shutil.copyfile(style.landmarks or places, places)
    return dataclasses.replace(style, name=name, exemplar=kept, landmarks=places)


def _stored_settings(job: JobFolder) -> JobSettings:
    try:
        return from_dict(JobSettings, job.description["settings"])
    except TypeError as error:
        raise job.damaged() from error


def _stored_style(job: JobFolder, name: str) -> Style:
    stored = job.description["styles"][name]
    kept = sorted(job.style(name).glob("exemplar.*"))
    if not kept:
        raise InputError(f"The exemplar of style '{name}' is gone from the job folder.", "no_file")
    try:
        portraits = stored["portraits"]
        return Style(
            name=name,
            exemplar=kept[0],
            exemplar_sha256=stored["exemplar_sha256"],
            stylizer=stored["stylizer"],
            portraits=None if portraits is None else Path(portraits),
            portraits_sha256=stored["portraits_sha256"],
            settings=from_dict(StyleSettings, stored["settings"]),
            landmarks=job.style(name) / _LANDMARKS if "landmarks_sha256" in stored else None,
            landmarks_sha256=stored.get("landmarks_sha256"),
        )
    except (KeyError, TypeError) as error:
        raise job.damaged() from error


# -- which steps ------------------------------------------------------------------------------


def step_keys(job: JobFolder, settings: JobSettings, style: Style | None) -> dict[str, str]:
    """The key of every step: what it depends on, hashed, in the order of the steps."""
    source = job.description["capture"]
    beside = source.get("companions_sha256", "")
    keys = {"capture": step_key("capture", source["sha256"], beside, settings.capture)}
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
        *(() if style.landmarks_sha256 is None else (style.landmarks_sha256,)),
        *(() if style.stylizer in ("builtin", "folder") else (_adapter_key(chosen.adapter),)),
    )
    joint = (chosen.texture,) if chosen.geometry.joins else ()  # it learns both at once
    keys["geometry"] = step_key("geometry", keys["portraits"], chosen.geometry, *joint)
    keys["texture"] = step_key("texture", keys["geometry"], chosen.texture)
    keys["asset"] = step_key("asset", keys["texture"], chosen.asset)
    return keys


def _adapter_key(adapter: AdapterSettings) -> tuple[object, str | None]:
    """The adapter's settings and the contents of its weights."""
    model = Path(adapter.checkout, adapter.model)
    return adapter, file_hash(model) if adapter.model and model.exists() else None


def step_folders(job: JobFolder, style: Style | None) -> dict[str, Path]:
    """Where every step keeps what it made."""
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


def unfinished(job: JobFolder, settings: JobSettings, style: Style | None) -> list[str]:
    """Names of the steps that are not finished yet."""
    folders = step_folders(job, style)
    keys = step_keys(job, settings, style)
    return [name for name, key in keys.items() if finished_step(folders[name], key) is None]
