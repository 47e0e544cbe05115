"""How many calls one provider may have under way, learned from how long its answers take. Pure.

Source: the Gradient2 limit of Netflix's concurrency-limits: the latency of the last calls is compared with the usual
one, and the limit shrinks by their ratio, or grows by its square root a round while they agree. Three things differ.
Latencies are averaged as logarithms, so that one answer in a hundred that takes ten times as long is no slowness. What
is usual rises only with time, because a provider that stays slow must not come to seem usual within a minute. And
nothing is added while the limit shrinks, so that it can reach 1.
"""

from __future__ import annotations

import math

import msgspec

INITIAL_LIMIT = 10.0
"""The calls under way at once while nothing is known yet."""
SLOW = 2.0
"""A provider is slow when it takes this many times as long as usual."""
TOLERANCE = math.log(SLOW)
MIN_SAMPLES, MAX_SAMPLES = 4.0, 20.0
"""The present latency is averaged over one round of calls, of which MAX_SAMPLES count, and MIN_SAMPLES more."""
STEEPEST = 0.5
"""What is left at least of the limit after one round of calls, however slow they were."""
AFTER_DROP = 0.9
"""What is left of the limit after a call that was throttled or ran into its timeout."""
WARM_UP = 20
"""The calls after which it is known what is usual; the first answers to come are the fastest ones."""
KNOWN_AFTER = 5
"""The answers after which it is known about how long one takes."""
USUAL_FALLS_WITHIN, USUAL_RISES_WITHIN = 60.0, 600.0
"""The seconds in which what is fast now, or slow now, comes to be usual."""
MAX_SILENCE = 10.0
"""The seconds that count at most between two calls: a long silence is no long slowness."""
SHORTEST = 0.01
"""Seconds; below that, what a call takes says more of this program than of its provider."""


class ConcurrencyLimit(msgspec.Struct, frozen=True, gc=False):
    """The calls that may be under way at once, `allowed`, from 1 to `max_concurrency`; an immutable value.

    It starts with 10 calls, or with all where those are fewer. `present` and `usual` are the logarithms of the
    latencies, in seconds, that it compares, as of `updated`; `samples` counts the first ones.

    >>> ConcurrencyLimit(100).allowed, ConcurrencyLimit(3).allowed
    (10, 3)
    """

    max_concurrency: int
    limit: float = INITIAL_LIMIT
    present: float = 0.0
    usual: float = 0.0
    updated: float = -math.inf
    samples: int = 0
    declared: float = 0.0
    """The seconds that the provider says an answer takes; 0.0 where it says nothing."""

    def __post_init__(self) -> None:
        if not self.max_concurrency >= 1 <= self.limit:
            raise ValueError(
                f"max_concurrency must be >= 1 call and limit too, got {self.max_concurrency} and {self.limit}"
            )

    @property
    def allowed(self) -> int:
        """The calls that may be under way at once."""
        return min(int(self.limit), self.max_concurrency)

    @property
    def usual_latency(self) -> float:
        """The seconds that an answer usually takes; 0.0 as long as that is not known."""
        return math.exp(self.usual) if self.samples >= KNOWN_AFTER else 0.0

    @property
    def present_latency(self) -> float:
        """The seconds that answers took lately; 0.0 as long as that is not known."""
        return math.exp(self.present) if self.samples >= KNOWN_AFTER else 0.0

    @property
    def expected_latency(self) -> float:
        """The seconds that an answer usually takes, or is said to take as long as that is not known."""
        return math.exp(self.usual) if self.samples >= KNOWN_AFTER else self.declared

    def is_slow(self, latency: float) -> bool:
        """Tell whether so many seconds are much longer than expected, as far as anything is."""
        expected = self.expected_latency
        return expected > 0 and latency > max(SHORTEST, SLOW * expected)

    def after(self, latency: float, under_way: int, now: float, *, dropped: bool = False) -> ConcurrencyLimit:
        """Return the limit after a call that took `latency` seconds, `under_way` of them at once, itself included.

        `dropped` tells of one that was throttled or ran into its timeout: it would have taken longer, nobody knows how
        much. Do not tell of calls that failed otherwise or were cancelled; they say nothing. `now` is in seconds of any
        one clock.
        """
        limit = self.limit
        present, usual, updated, samples = self.present, self.usual, self.updated, self.samples
        seen = math.log(latency) if latency > SHORTEST else LOG_OF_SHORTEST
        if samples < WARM_UP:
            if not dropped:  # What was dropped does not tell how long an answer takes.
                samples += 1
                present += (seen - present) / samples
                usual, updated = present, max(updated, now)
        else:
            # What was refused at once was not served fast.
            if seen > present or not dropped:
                present += (seen - present) / (MIN_SAMPLES + min(MAX_SAMPLES, limit))
            if now > updated:
                passed = min(MAX_SILENCE, now - updated)
                within = USUAL_RISES_WITHIN if present > usual else USUAL_FALLS_WITHIN
                usual, updated = usual + (present - usual) * passed / within, now
        if dropped:
            limit *= AFTER_DROP
        elif present - usual > TOLERANCE:
            gradient = math.exp(TOLERANCE - (present - usual))
            # Each call of a round takes its part: ten of them at a limit of ten leave what the gradient says.
            limit -= 1.0 - max(STEEPEST, gradient)
        elif 2 * under_way >= limit:
            # A limit that is not used tells nothing of a higher one.
            limit += 1.0 / math.sqrt(limit)
        return ConcurrencyLimit(
            self.max_concurrency,
            1.0 if limit < 1.0 else min(limit, 1.0 * self.max_concurrency),
            present,
            usual,
            updated,
            samples,
            self.declared,
        )


LOG_OF_SHORTEST = math.log(SHORTEST)
