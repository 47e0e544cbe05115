"""How many calls of the last seconds failed or were slow, in constant memory: counts in ten sub-buckets of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

SUB_BUCKETS = 10


class Counts(msgspec.Struct, frozen=True, gc=False):
    """The calls that ended within one sub-bucket of time, numbered `number` from the clock's zero."""

    number: int
    calls: int
    failures: int
    slow: int


class FailureWindow(msgspec.Struct, frozen=True, gc=False):
    """The counts of the last `SUB_BUCKETS` sub-buckets; an immutable value.

    The oldest sub-bucket leaves as a whole, so the window is between 9/10 and all of its length.
    """

    buckets: tuple[Counts, ...] = ()

    def record(self, now: float, *, length: float, failed: bool = False, slow: bool = False) -> FailureWindow:
        """Return the window after one more call that ended at `now`, for a window of `length` seconds."""
        number = int(now * SUB_BUCKETS / length)
        buckets = self.buckets
        # A clock that steps back counts into the newest sub-bucket.
        if buckets and buckets[-1].number >= number:
            last = buckets[-1]
            newest = Counts(last.number, last.calls + 1, last.failures + failed, last.slow + slow)
            return FailureWindow((*buckets[:-1], newest))
        kept = (bucket for bucket in buckets if bucket.number > number - SUB_BUCKETS)
        return FailureWindow((*kept, Counts(number, 1, int(failed), int(slow))))

    def latest(self) -> Iterator[tuple[int, int, int]]:
        """Yield the calls, failures and slow calls of the last sub-bucket, of the last two, and so on up to all.

        >>> list(FailureWindow().record(0.0, length=30.0).record(3.0, length=30.0, failed=True).latest())
        [(1, 1, 0), (2, 1, 0)]
        """
        calls = failures = slow = 0
        for bucket in reversed(self.buckets):
            calls += bucket.calls
            failures += bucket.failures
            slow += bucket.slow
            yield calls, failures, slow
