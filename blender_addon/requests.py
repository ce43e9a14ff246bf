# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist chose, as requests for the backend."""

from typing import Any

import bpy

from . import estimates, faces, portraits, preferences, properties

SETUP_MISSING = "First set up 3DToonify in the add-on's preferences"


def missing_input(context: bpy.types.Context, *, capture: bool = True) -> str:
    """What keeps a job from starting, in one sentence; empty when nothing does. Touches no disk."""
    settings = context.scene.toonify3d
    if not preferences.python_path():
        return SETUP_MISSING
    if capture and not settings.capture.strip():
        return "Choose a capture: a video or a folder of images"
    if not settings.exemplar.strip():
        return "Choose an exemplar: one stylized portrait"
    return ""


def build_request(
    context: bpy.types.Context, command: str, exemplar: str | None = None
) -> dict[str, Any]:
    """The request for the worker.

    Args:
        context: Its scene holds the settings.
        command: One of the backend's commands.
        exemplar: Another exemplar than the first.

    Raises:
        FileNotFoundError: An input does not exist, or no portrait is in the painted ones' folder;
            the message is one sentence.
        ChangedPictureError: An exemplar is another picture than the one whose face was marked.
    """
    settings = context.scene.toonify3d
    request: dict[str, Any] = {"command": command, "device": "auto"}
    if command == "stylize":
        request["capture"] = existing(settings.capture, "capture")
        request["preset"] = settings.preset
    if command in {"stylize", "restyle"}:
        request["exemplar"] = existing(exemplar or settings.exemplar, "exemplar")
        request["strength"] = round(settings.strength, 4)
        changed = changed_features(settings)
        if changed:
            request["overrides"] = changed
        _apply_style(request, settings, exemplar or settings.exemplar)
    if command == "refine":
        request["longer"] = round(settings.longer, 2)
    return request


def refresh(request: dict[str, Any], settings: bpy.types.PropertyGroup) -> None:
    """Put into an earlier request what has been said since about its exemplar and portraits.

    Raises:
        FileNotFoundError, ChangedPictureError: See :func:`build_request`.
    """
    exemplar = str(request.get("exemplar", ""))
    if faces.settled(settings, exemplar) or portraits.concerns(request):
        _apply_style(request, settings, exemplar)


def _apply_style(request: dict[str, Any], settings: bpy.types.PropertyGroup, exemplar: str) -> None:
    portraits.apply(request, settings)
    faces.apply(request, settings, exemplar)


def changed_features(settings: bpy.types.PropertyGroup) -> list[str]:
    """What was changed of the features, as NAME=VALUE of the backend's settings."""
    return [
        f"{setting}={getattr(settings, name):.4g}"
        for name, setting in properties.FEATURES.items()
        if abs(getattr(settings, name) - estimates.default(setting)) > 1e-4
    ]


def exemplars(settings: bpy.types.PropertyGroup) -> list[str]:
    """All chosen exemplars, each once, the main one first."""
    found = [settings.exemplar, *(item.path for item in settings.more_exemplars)]
    return list(dict.fromkeys(path.strip() for path in found if path.strip()))


def existing(raw: str, what: str) -> str:
    """An input's absolute path.

    Raises:
        FileNotFoundError: It does not exist; the message is one sentence.
    """
    path = properties.absolute(raw)
    if path is None or not path.exists():
        raise FileNotFoundError(f"The {what} does not exist: {path or raw}")
    return str(path)


def add_exemplars(settings: bpy.types.PropertyGroup, paths: list[str]) -> None:
    """Append exemplars that are not chosen yet."""
    for path in paths:
        if path in exemplars(settings):
            continue
        if settings.exemplar.strip():
            settings.more_exemplars.add().path = path
        else:
            settings.exemplar = path
