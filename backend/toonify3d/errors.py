"""Errors that the user can act on. Everything else that escapes is a defect."""

from __future__ import annotations

import errno

EXIT_OK, EXIT_DEFECT, EXIT_INPUT, EXIT_CANCELLED = 0, 1, 2, 3
"""Exit codes of every command (design contract)."""


class ToonifyError(Exception):
    """Base of the errors that carry one clear sentence for the user."""


class InputError(ToonifyError):
    """Bad usage or bad input: the CLI prints the sentence and exits with 2.

    Args:
        message: One sentence saying what is wrong and what to do about it.
        code: Short stable identifier (``"no_face"``) for tests and for Blender's fix buttons.
    """

    def __init__(self, message: str, code: str = "bad_input") -> None:
        super().__init__(message)
        self.code = code


class CancelledError(ToonifyError):
    """The user asked to stop; the job folder is resumable (CLI exit code 3)."""


class TrainingError(ToonifyError):
    """Training could not go on (diverged repeatedly, out of memory): one clear sentence."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNUSABLE = {
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def disk_sentence(error: OSError, place: object) -> str | None:
    """What to tell the user of a disk or a path that cannot be used; None for a defect of ours.

    Args:
        error: What the system said.
        place: Named when the error names no file.
    """
    name, why = error.filename or place, error.strerror or error
    if error.errno in _FULL:
        return f"Cannot write '{name}': {why}; free some space or choose another folder."
    if error.errno in _UNUSABLE:
        return f"Cannot use '{name}': {why}; choose another file or folder."
    return None


def job_sentence(error: Exception, root: object) -> str | None:
    """:func:`disk_sentence` where the user has a job, and a Resume button; None for a defect."""
    sentence = disk_sentence(error, root) if isinstance(error, OSError) else None
    return sentence and f"{sentence} What is done so far is kept: then resume the job."
