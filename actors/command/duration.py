"""Durations as people read them."""

from __future__ import annotations

import math

UNITS = ((60.0, 1.0, "min", "s"), (3_600.0, 60.0, "h", "min"), (86_400.0, 3_600.0, "d", "h"))
"""The seconds of a unit, and of the smaller one that is told beside it, with their names."""


def duration_text(seconds: float) -> str:
    """Return a duration in the two largest units that it has.

    >>> [duration_text(one) for one in (0.4, 59.9, 90, 7_300, 200_000)]
    ['0.4 s', '59.9 s', '1 min 30 s', '2 h 1 min', '2 d 7 h']
    """
    if not seconds < math.inf:
        return "for ever"
    for size, small, unit, small_unit in reversed(UNITS):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // small)} {small_unit}"
    return f"{seconds:.3g} s"
