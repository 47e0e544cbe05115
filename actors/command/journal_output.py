"""What the commands that show a journal have in common: their errors, their times, and lines for other programs."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console

from actors.command.bad_input import BadInput, one_line
from actors.masking import escaped
from runtime.persistence import JournalError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable


@contextmanager
def refusing_journals() -> Generator[None]:
    """Make a journal that cannot be used within the block an error of input."""
    try:
        yield
    except JournalError as error:
        raise BadInput(escaped(one_line(str(error)))) from error


def output_console() -> Console:
    """Return the console of standard output; if that is not a terminal, lines may be long."""
    return Console(width=None if sys.stdout.isatty() else 160)


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard output, until its reader has gone; raises `BadInput` if it cannot be written."""
    write = sys.stdout.write
    try:
        for line in lines:
            write(line)
            write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_the_rest()
    except OSError as error:
        _discard_the_rest()
        raise BadInput(f"standard output cannot be written: {error.strerror}; what it has is not whole") from error


def _discard_the_rest() -> None:
    """Let what is left in the buffer go nowhere: it would fail once more when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def time_text(at: float) -> str:
    """Return a time, in seconds since 1970, as text in UTC, to the millisecond.

    >>> time_text(1_800_000_000.25)
    '2027-01-15T08:00:00.250Z'
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def short_time(at: float) -> str:
    """Return a time for people, to the second.

    >>> short_time(1_800_000_000.25)
    '2027-01-15 08:00:00Z'
    """
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"
