"""Sums over the last seconds in constant memory: a ring of ten sub-buckets of time."""

from __future__ import annotations

import math
from typing import NamedTuple

SUB_BUCKETS = 10


class Totals(NamedTuple):
    """The sums over a window that covers `seconds`; `latency` is in seconds, `cost` in micro-units."""

    successes: int = 0
    failures: int = 0
    latency: float = 0.0
    cost: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """How many requests succeeded or failed; those that their caller cancelled do not count."""
        return self.successes + self.failures

    @property
    def success_rate(self) -> float | None:
        """The share of the requests that succeeded; None if there were none."""
        return self.successes / self.requests if self.requests else None

    @property
    def average_latency(self) -> float | None:
        """The average latency of the requests in seconds; None if there were none."""
        return self.latency / self.requests if self.requests else None


class SubBucket:
    """The sums of one tenth of the window; `number` counts these tenths from the clock's zero."""

    __slots__ = ("cost", "failures", "latency", "number", "successes")

    def __init__(self) -> None:
        self.number = -1
        self.successes = self.failures = self.cost = 0
        self.latency = 0.0


class RollingWindow:
    """Sums over the last `length` seconds, counted from `start`.

    The oldest sub-bucket is dropped as a whole, so the window covers between 9/10 and all of its length.
    """

    __slots__ = ("_newest", "_ring", "length", "start")

    def __init__(self, length: float, *, start: float) -> None:
        if not 0 < length < math.inf:
            raise ValueError(f"length must be > 0 seconds and finite, got {length}")
        self.length = length
        self.start = start
        self._newest = 0
        self._ring = tuple(SubBucket() for _ in range(SUB_BUCKETS))

    def add(self, now: float, *, successes: int = 0, failures: int = 0, latency: float = 0.0, cost: int = 0) -> None:
        """Add these amounts at `now`."""
        number = self._number(now)
        bucket = self._ring[number % SUB_BUCKETS]
        if bucket.number != number:
            self._newest = bucket.number = number
            bucket.successes = bucket.failures = bucket.cost = 0
            bucket.latency = 0.0
        bucket.successes += successes
        bucket.failures += failures
        bucket.latency += latency
        bucket.cost += cost

    def totals(self, now: float) -> Totals:
        """Return the sums as of `now`, and the seconds that they cover.

        >>> window = RollingWindow(60.0, start=0.0)
        >>> window.add(1.0, successes=3)
        >>> window.totals(59.0).successes, window.totals(60.0).successes
        (3, 0)
        """
        newest = self._number(now)
        oldest = newest - SUB_BUCKETS + 1
        inside = [bucket for bucket in self._ring if bucket.number >= oldest]
        return Totals(
            sum(bucket.successes for bucket in inside),
            sum(bucket.failures for bucket in inside),
            sum(bucket.latency for bucket in inside),
            sum(bucket.cost for bucket in inside),
            max(0.0, now - max(self.start, oldest * self.length / SUB_BUCKETS)),
        )

    def _number(self, now: float) -> int:
        number = int(now * SUB_BUCKETS / self.length)
        # A clock that steps back counts into the newest sub-bucket.
        return max(self._newest, number)

    def __repr__(self) -> str:
        return f"<RollingWindow of {self.length:g} s>"
