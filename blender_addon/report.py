# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of "Copy Report": all that is needed to understand a problem. No secrets in it."""

from __future__ import annotations

import json
import platform
import sys
from typing import Any

import bpy

from . import jobfolder, protocol
from .job import Job


def addon_version() -> str:
    """The version in the manifest beside this file."""
    from pathlib import Path

    for line in (Path(__file__).parent / "blender_manifest.toml").read_text("utf-8").splitlines():
        if line.startswith("version ="):
            return line.split('"')[1]
    return "?"


def report_text(job: Job | None, check: dict[str, Any] | None) -> str:
    """Versions, the state of the job, and the end of its log."""
    lines = [
        f"3DToonify {addon_version()}, protocol {protocol.PROTOCOL_VERSION}",
        f"Blender {bpy.app.version_string}, Python {sys.version.split()[0]}",
        f"System {platform.platform()}",
        f"Backend {json.dumps(check) if check else 'not checked'}",
    ]
    if job is not None:
        lines += [f"Job {job.folder}", f"State {job.state.name}", f"Request {job.request}"]
        if job.problem is not None:
            lines.append(f"Problem {job.problem.code}: {job.problem.message}")
        if job.status is not None:
            lines.append(f"Status {protocol.status_to_document(job.status)}")
        lines += ["Log:", *(f"  {row}" for row in jobfolder.log_tail(job.folder, 40))]
    return "\n".join(lines) + "\n"
