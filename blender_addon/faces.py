# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist has said about the faces in the exemplars, kept in the scene's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy

from . import estimates, jobfolder, portraits, properties
from .exemplar_picture import Picture, PictureError, load_picture
from .places import NEEDED, PLACES, Point

LANDMARKS = "exemplar_landmarks"
"""Field of a request: places by name, until :func:`hand_over` makes a file of them."""

COLORS_ONLY = "colour"
"""The look that needs no face and leaves the shape alone."""


class ChangedPictureError(Exception):
    """The marked picture is another one now: one sentence."""


def find(settings: bpy.types.PropertyGroup, exemplar: str) -> Any | None:
    """The entry of an exemplar, None without one."""
    wanted = properties.absolute(exemplar)
    if wanted is None:
        return None
    return next((item for item in settings.faces if properties.absolute(item.path) == wanted), None)


def points(settings: bpy.types.PropertyGroup, exemplar: str) -> dict[str, Point]:
    """The marked places of an exemplar by name; empty when none are marked."""
    entry = find(settings, exemplar)
    if entry is None:
        return {}
    found = {place.name: tuple(getattr(entry, place.name)) for place in PLACES}
    marked = {name: (x, y) for name, (x, y) in found.items() if x >= 0 and y >= 0}
    return marked if all(name in marked for name in NEEDED) else {}


def colors_only(settings: bpy.types.PropertyGroup, exemplar: str) -> bool:
    """True when only colors and strokes are taken from this exemplar."""
    return look(settings, exemplar) == COLORS_ONLY


def look(settings: bpy.types.PropertyGroup, exemplar: str) -> str:
    """How an exemplar is read: what was said of it alone, else what is chosen for all."""
    entry = find(settings, exemplar)
    return COLORS_ONLY if entry is not None and entry.colors_only else str(settings.look)


def settled(settings: bpy.types.PropertyGroup, exemplar: str) -> bool:
    """True when it does not matter whether the detector finds a face in this exemplar."""
    if portraits.chosen(settings) is not None:  # which show the faces themselves
        return True
    return colors_only(settings, exemplar) or bool(points(settings, exemplar))


def store(
    settings: bpy.types.PropertyGroup,
    exemplar: str,
    marked: Mapping[str, Point],
    picture: Picture,
) -> None:
    """Keep the marked places of an exemplar; its shape is wanted then."""
    entry = _entry(settings, exemplar)
    for place in PLACES:
        setattr(entry, place.name, marked.get(place.name, (-1.0, -1.0)))
    entry.size, entry.file_bytes = picture.size, str(picture.file_bytes)
    entry.colors_only = False


def set_colors_only(settings: bpy.types.PropertyGroup, exemplar: str, wanted: bool) -> None:
    """Take only colors and strokes from an exemplar, or the shape too; marks are kept."""
    _entry(settings, exemplar).colors_only = wanted


def clear(settings: bpy.types.PropertyGroup, exemplar: str) -> bool:
    """Forget what was said about an exemplar; False when nothing was."""
    wanted = properties.absolute(exemplar)
    found = [
        index
        for index, item in enumerate(settings.faces)
        if properties.absolute(item.path) == wanted
    ]
    for index in reversed(found):
        settings.faces.remove(index)
    return bool(found)


def apply(request: dict[str, Any], settings: bpy.types.PropertyGroup, exemplar: str) -> None:
    """Put into a request how its exemplar is read, and what was said about the face in it.

    Raises:
        ChangedPictureError: The file has another size than the one that was marked.
    """
    request.pop(LANDMARKS, None)
    setting, chosen = f"{properties.LOOK}=", look(settings, exemplar)
    others = [item for item in request.get("overrides", ()) if not item.startswith(setting)]
    if chosen != estimates.default(properties.LOOK):
        others.append(f"{setting}{chosen}")
    marked = points(settings, exemplar)
    if marked and chosen != COLORS_ONLY and not portraits.concerns(request):
        _check_same(find(settings, exemplar), exemplar)
        request[LANDMARKS] = {
            name: [round(value, 2) for value in point] for name, point in marked.items()
        }
    request.pop("overrides", None)
    if others:
        request["overrides"] = others


def hand_over(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with its places in a file of the job folder.

    Raises:
        OSError: The folder cannot be written.
    """
    handed = dict(request)
    places = handed.get(LANDMARKS)
    if isinstance(places, Mapping):
        handed[LANDMARKS] = str(jobfolder.write_face(folder, str(handed["exemplar"]), places))
    return handed


def _entry(settings: bpy.types.PropertyGroup, exemplar: str) -> Any:
    entry = find(settings, exemplar)
    if entry is None:
        entry = settings.faces.add()
        entry.path = exemplar
    return entry


def _check_same(entry: Any, exemplar: str) -> None:
    """Only a file of another length is opened: this stands before every start."""
    path = properties.absolute(exemplar)
    if path is None or not path.is_file() or str(path.stat().st_size) == entry.file_bytes:
        return
    try:
        size = load_picture(path).size
    except PictureError as error:
        raise ChangedPictureError(str(error)) from error
    if size != tuple(entry.size):
        raise ChangedPictureError(
            f"{path.name} is another picture than the one whose face was marked: mark it again"
        )
