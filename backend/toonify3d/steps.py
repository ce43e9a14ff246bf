"""Running one cached step of a job, and the report of all of them."""

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

from .files import kept_folder, replaced_folder, take_kept, write_json
from .plan import Style
from .report_page.page import add_page
from .resources import peak_rss_mb, peak_vram_mb
from .service.job import JobFolder, StepRecord, finish_step, finished_step, versions
from .service.reporter import Reporter
from .settings import JobSettings


@dataclass
class RunContext:
    """What the steps of one run share."""

    job: JobFolder
    device: str
    reporter: Reporter
    preset: str
    records: dict[str, StepRecord] = dataclasses.field(default_factory=dict)
    cached: list[str] = dataclasses.field(default_factory=list)


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


def run_step(
    context: RunContext, name: str, folder: Path, key: str, work: Callable[[], dict[str, Any]]
) -> None:
    """Run one step, or take its record when it is finished."""
    if _known(context, name, folder, key):
        return
    _begin_folder(folder, key)
    _run(context, name, folder, key, work)


def run_whole(
    context: RunContext,
    name: str,
    folder: Path,
    key: str,
    work: Callable[[Path], dict[str, Any]],
    finish: Callable[[Path], None],
) -> None:
    """Run a step whose folder is what the user keeps: the earlier one stays until it is done.

    Args:
        context: See there.
        name: Of the step.
        folder: Its folder.
        key: Of its inputs and settings.
        work: Writes into the folder it is given, which then takes the place of ``folder``.
        finish: Told that folder when the step's record is in it; may write more.

    Raises:
        OSError: Disk full or not writable; ``folder`` is as it was.
        InputError: ``folder`` is open in another program; the finished one is kept and taken the
            next time.
    """
    if finished_step(kept_folder(folder), key) is not None:
        take_kept(folder)
    if _known(context, name, folder, key):
        return
    with replaced_folder(folder) as fresh:
        _run(context, name, fresh, key, lambda: work(fresh))
        finish(fresh)


def _known(context: RunContext, name: str, folder: Path, key: str) -> bool:
    record = finished_step(folder, key)
    if record is None:
        return False
    context.records[name] = record
    context.cached.append(name)
    return True


def _run(
    context: RunContext, name: str, folder: Path, key: str, work: Callable[[], dict[str, Any]]
) -> None:
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


def write_report(
    context: RunContext, folder: Path, settings: JobSettings, style: Style | None
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
        "room_light": records["portraits"].figures.get("room_light") if style else None,
        "stage1": records["prior"].figures,
        "stage2": records["geometry"].figures if style else None,
        "stage3": records["texture"].figures if style else None,
        "photo_light": asset.get("photo_light"),
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
    if style is not None:
        report = add_page(report, folder, context.job, style.name)
    write_json(folder / "report.json", report)
