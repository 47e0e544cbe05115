"""What one of several programs that share a rate may use of it by itself, for a while. Pure: `now` is its own clock's.

A lease is a rate for an interval, never permits to hoard. Its calls are evenly spaced, a little further apart than the
rate says: then no second holds more than `calls` of them, even at the boundaries, and though the clocks of two machines
differ by `DRIFT`. The lease runs from when it was asked for, so that it ends here before it ends at its owner.

Sources: C. Gray and D. Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for Distributed File Cache
Consistency", SOSP 1989 (a term that ends at its holder first, and clocks of bounded drift); Doorman
(github.com/youtube/doorman), whose clients ask for capacity by what they want, and ask again before their lease ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from actors.limits.token_bucket import TokenBucket

DRIFT = 1e-3
"""The most by which the rates of two monotonic clocks differ: each is slewed by at most 500 in a million (adjtimex)."""
PACE = 1.0 - 2 * DRIFT
"""The part of its rate at which a lease is used, so that a clock that runs fast stays below it."""
STANDSTILL = 1e-6
"""The rate, in calls a second, of a bucket that has no lease: it keeps what it holds, and gets nothing."""
TICK = 0.25
"""Seconds between two looks at how much is asked for."""


class RateLease(msgspec.Struct, frozen=True, gc=False):
    """`calls` in any second, and `extra` more at once, for `length` seconds from when it was asked for.

    Without `calls`, its owner grants each call. Ask anew after `ask_again` seconds, or if the demand changes.
    """

    number: int
    calls: int = 0
    extra: int = 0
    length: float = 0.0
    ask_again: float = 0.0

    def until(self, asked: float) -> float:
        """Return when it ends for its holder, who asked at the time `asked`."""
        return asked + self.length * PACE


NO_LEASE = RateLease(0)


def under_lease(bucket: TokenBucket, lease: RateLease, *, after: RateLease, now: float) -> TokenBucket:
    """Return the bucket of a holder whose lease `after` is followed by `lease` at `now`.

    A bucket is kept over all leases, and those that have ended. Each rise of the rate costs one call: otherwise a
    second in which the rate rises could hold one call more than the leases that were in force in it.
    """
    rate = lease.calls * PACE if lease.calls else STANDSTILL
    bucket = bucket.changed(now, rate=rate, burst=1 + lease.extra)
    return bucket.charge(now, 1) if lease.calls > after.calls else bucket


class DemandMeter:
    """How many calls a second are asked for: the larger number of the last two ticks, and what waits.

    A single call counts as none: a node that makes one now and then would lease much more than it uses.
    """

    __slots__ = ("_before", "_began", "_count", "_last")

    def __init__(self, now: float) -> None:
        self._began = now
        self._count = self._last = self._before = 0.0

    def count(self, calls: float = 1.0) -> None:
        """Take note of calls that are asked for."""
        self._count += calls

    @property
    def is_counting(self) -> bool:
        """Whether calls have come in this tick."""
        return self._count > 0

    def demand(self, now: float, waiting: int) -> float:
        """Return the calls a second that are wanted."""
        elapsed = now - self._began
        if elapsed >= TICK:
            self._before = self._last if elapsed < 2 * TICK else 0.0
            self._last = max(0.0, self._count - 1) / elapsed
            self._began, self._count = now, 0.0
        return max(self._last, self._before, (self._count - 1) / TICK) + max(0, waiting - 1)


def has_changed(demand: float, told: float) -> bool:
    """Tell whether the owner should know of a demand at once: it has halved, or risen by half, since it was told."""
    return not told / 2 <= demand <= told * 1.5 + 1


def is_over(lease: RateLease, asked: float, now: float) -> bool:
    """Tell whether a lease that was asked for at the time `asked` has ended for its holder."""
    return bool(lease.calls) and now >= lease.until(asked)


def next_look(lease: RateLease, asked: float, now: float) -> float:
    """Return when to look at the demand again, and at whether the lease is to be asked for anew."""
    return min(now + TICK, asked + lease.ask_again) if lease.ask_again else math.inf
