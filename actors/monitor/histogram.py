"""Quantiles of durations in bounded memory: counts in buckets whose bounds grow by a constant factor.

This is the DDSketch of Masson, Rim and Lee ("DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", PVLDB 12(12), 2019). With g = (1 + e) / (1 - e), bucket i counts the values in
(g^(i-1), g^i], and stands for 2 g^i / (g + 1), which is off by e times the value at most.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RELATIVE_ERROR = 0.01
"""The e above: a quantile is within 1 % of a value that was recorded at that rank."""
SHORTEST = 1e-6
"""Seconds; a shorter duration counts as 0."""
LONGEST = 1e7
"""Seconds, about four months; a longer duration counts as this."""

GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
SCALE = 1 / math.log(GROWTH)
ZERO = math.floor(math.log(SHORTEST) * SCALE)
"""The bucket of durations that count as 0; it is below all others."""
MAX_BUCKETS = math.ceil(math.log(LONGEST) * SCALE) - ZERO + 1


def bucket_of(duration: float) -> int:
    """Return the number of the bucket that counts a duration in seconds; NaN counts as 0."""
    if not duration >= SHORTEST:
        return ZERO
    return max(ZERO + 1, math.ceil(math.log(min(duration, LONGEST)) * SCALE))


def value_of(bucket: int) -> float:
    """Return the duration in seconds that a bucket stands for.

    >>> abs(value_of(bucket_of(0.25)) - 0.25) <= 0.01 * 0.25
    True
    """
    return 0.0 if bucket <= ZERO else 2 * GROWTH**bucket / (GROWTH + 1)


class Histogram:
    """The count of durations in each bucket; at most `MAX_BUCKETS` counts, whatever is recorded."""

    __slots__ = ("count", "counts")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0

    def add(self, bucket: int) -> None:
        """Count one duration, given as its bucket, so that its logarithm is computed once for several histograms."""
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1

    def add_all(self, buckets: Iterable[int]) -> None:
        """Count several durations, given as their buckets."""
        counts = self.counts
        for bucket in buckets:
            counts[bucket] = counts.get(bucket, 0) + 1
            self.count += 1

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram; the result is as if this one had counted all durations."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.count += other.count

    def below(self, bounds: Sequence[float]) -> tuple[int, ...]:
        """Return how many durations did not exceed each of these, in ascending order; each bound is within 1 %.

        >>> histogram = Histogram()
        >>> for duration in (0.1, 0.2, 3.0):
        ...     histogram.add(bucket_of(duration))
        >>> histogram.below((0.05, 0.5, 5.0))
        (0, 2, 3)
        """
        counts, ends = [0] * len(bounds), [bucket_of(bound) for bound in bounds]
        for bucket, count in self.counts.items():
            place = bisect_left(ends, bucket)
            if place < len(counts):
                counts[place] += count
        return tuple(accumulate(counts))

    @property
    def total(self) -> float:
        """The sum of all durations, within 1 %."""
        return sum(value_of(bucket) * count for bucket, count in self.counts.items())

    def quantiles(self, *parts: float) -> tuple[float, ...]:
        """Return the quantiles for these parts (0 to 1), in seconds. Raises ValueError if nothing was counted.

        The value of part q among n is that of rank floor(q (n - 1)), counted from 0 in ascending order.
        """
        if not self.count:
            raise ValueError("an empty histogram has no quantiles; check `count` first")
        ascending = sorted(self.counts.items())
        return tuple(self._at(math.floor(part * (self.count - 1)), ascending) for part in parts)

    def _at(self, rank: int, ascending: Iterable[tuple[int, int]]) -> float:
        below = 0
        for bucket, count in ascending:
            below += count
            if below > rank:
                return value_of(bucket)
        raise ValueError(f"rank {rank} is not among {self.count} durations; a part is from 0 to 1")

    def __repr__(self) -> str:
        return f"<Histogram {self.count} durations in {len(self.counts)} buckets>"
