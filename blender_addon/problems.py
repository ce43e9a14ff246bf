# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about a problem: a hint and a button, by the problem's code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """A hint below a problem's sentence.

    Attributes:
        text: One sentence, empty for none.
        operator: Identifier of an operator that mends it, empty for none.
    """

    text: str = ""
    operator: str = ""


_PORTRAITS = "toonify3d.choose_portraits"

_ADVICE = {
    "no_python": Advice("Choose the backend's Python again", "toonify3d.open_preferences"),
    "died": Advice("Check the backend in the preferences", "toonify3d.open_preferences"),
    "job_folder": Advice("Choose another output folder, or free some space"),
    "unwritable": Advice("Choose another output folder, or free some space"),
    "lost": Advice("The finished steps are kept: Resume goes on after them"),
    "killed": Advice("If memory ran out, close other programs or choose a smaller preset"),
    "out_of_memory": Advice("Choose a smaller preset, or set the viewport to Solid"),
    "no_face": Advice("Film again, starting in front of the face"),
    "exemplar_landmarks": Advice("Mark the face again, nearer to where it is drawn"),
    "no_portraits": Advice("Choose the painted portraits again, then Resume", _PORTRAITS),
    "portraits_missing": Advice("Choose the painted portraits again, then Resume", _PORTRAITS),
    "portraits_names": Advice(
        "Give them the names they were exported with, then Resume", _PORTRAITS
    ),
    "portraits_twice": Advice("Then Resume", _PORTRAITS),
    "portraits_blank": Advice("Mend them, or choose other ones, then Resume", _PORTRAITS),
    "portraits_size": Advice("Give it the size it was exported with, then Resume"),
    "portraits_unreadable": Advice("Save it again, then Resume"),
    "job_gone": Advice("Start it again; keep the job's folder while it runs"),
    "defect": Advice("This is a defect: please send the report", "toonify3d.copy_report"),
}


def advice(code: str) -> Advice:
    """The hint for a problem's code; an empty one when there is nothing to add."""
    return _ADVICE.get(code, Advice())
