"""The error for bad options and files, found before any provider is called; it ends the command with exit code 2."""

from __future__ import annotations

import math


class BadInput(Exception):
    """An option or a file cannot be used; the message says which, at which place, and what was expected."""


def check_positive(option: str, value: float | None, unit: str) -> None:
    """Raise `BadInput` unless `value` is above 0 and finite, or None."""
    if value is not None and not 0 < value < math.inf:
        raise BadInput(f"{option}: expected a finite number of {unit} above 0, got {value:g}")


def one_line(text: str) -> str:
    r"""Return `text` without line breaks, for outputs in which each line is a record.

    >>> one_line("two calls:\n  1. alder\n  2. birch")
    'two calls: 1. alder; 2. birch'
    """
    first, *rest = [part.strip() for part in text.splitlines() if part.strip()] or [""]
    if not rest:
        return first
    return f"{first}{' ' if first.endswith(':') else '; '}{'; '.join(rest)}"
