"""The text, notes and traceback of an error, also of one that raises as soon as it is looked at."""

from __future__ import annotations

import traceback
from contextlib import suppress


def described(error: BaseException) -> str:
    """Return the class and the text of an error; an error without a readable text is not another failure.

    >>> described(ValueError("no such city"))
    'ValueError: no such city'
    """
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as broken:  # noqa: BLE001 - whatever its `__str__` raises, the rest has to go on.
        return f"{type(error).__name__}, of which the text cannot be read: its __str__ raises {type(broken).__name__}"


def annotate(error: BaseException, note: str) -> None:
    """Add a note to an error, if it takes one: a frozen dataclass does not."""
    with suppress(Exception):
        error.add_note(note)


def printable(error: Exception) -> Exception:
    """Return the error, or if its traceback cannot be printed, one that describes it and has its traceback."""
    try:
        traceback.format_exception(error)
    except Exception:  # noqa: BLE001 - whatever it raises if it is looked at.
        return RuntimeError(described(error)).with_traceback(error.__traceback__)
    return error
