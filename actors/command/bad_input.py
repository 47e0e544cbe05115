"""The one error for everything that a person can put right before anything is called: it ends with exit code 2."""

from __future__ import annotations

import math


class BadInput(Exception):
    """An option or a file cannot be used; the message says which, where, and what was expected."""


def check_positive(option: str, value: float | None, unit: str) -> None:
    """Raise `BadInput` unless `value` is above 0 and finite, or None."""
    if value is not None and not 0 < value < math.inf:
        raise BadInput(f"{option}: expected a finite number of {unit} above 0, got {value:g}")


def one_line(text: str) -> str:
    r"""Return `text` without line breaks, for a place where one line is one record.

    >>> one_line("two calls:\n  1. alder\n  2. birch")
    'two calls: 1. alder; 2. birch'
    """
    first, *rest = [part.strip() for part in text.splitlines() if part.strip()] or [""]
    if not rest:
        return first
    return f"{first}{' ' if first.endswith(':') else '; '}{'; '.join(rest)}"
