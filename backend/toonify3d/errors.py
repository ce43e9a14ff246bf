"""Errors that the user can act on. Everything else that escapes is a defect."""

from __future__ import annotations

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
