"""Which clock did what between two looks: the wall clock was set, the machine slept, the process was stopped. Pure."""

from __future__ import annotations

import time
from typing import NamedTuple

from runtime.observability.events import ClockJumped, Suspended

LEAST = 1.0
"""Seconds; less is the drift of clocks, or a correction of the time by small steps."""


class Clocks(NamedTuple):
    """The clocks at one moment, in seconds: the wall clock, one that stops while the machine sleeps, one that does not.

    On Linux these are CLOCK_MONOTONIC and CLOCK_BOOTTIME (clock_gettime(2)). Other systems have no such pair: there a
    sleep of the machine shows as a jump of the wall clock, or as nothing.
    """

    wall: float
    awake: float
    elapsed: float

    @classmethod
    def now(cls) -> Clocks:
        """Return the clocks of this machine."""
        awake = time.monotonic()
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        return cls(time.time(), awake, awake if boot is None else time.clock_gettime(boot))


def changes(before: Clocks, after: Clocks) -> list[ClockJumped | Suspended]:
    """Return what happened to the clocks between two looks.

    >>> changes(Clocks(1000.0, 10.0, 10.0), Clocks(1001.0, 11.0, 11.0))
    []
    >>> changes(Clocks(1000.0, 10.0, 10.0), Clocks(4601.0, 11.0, 3611.0))
    [Suspended(seconds=3600.0)]
    >>> changes(Clocks(1000.0, 10.0, 10.0), Clocks(401.0, 11.0, 11.0))
    [ClockJumped(seconds=-600.0)]
    """
    slept = (after.elapsed - before.elapsed) - (after.awake - before.awake)
    jumped = (after.wall - before.wall) - (after.elapsed - before.elapsed)
    found: list[ClockJumped | Suspended] = []
    if slept >= LEAST:
        found.append(Suspended(seconds=slept))
    if abs(jumped) >= LEAST:
        found.append(ClockJumped(seconds=jumped))
    return found
