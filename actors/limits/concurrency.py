"""How many calls one provider may have under way, learned from how long its answers take. Pure.

Source: the Gradient2 limit of Netflix's concurrency-limits. The latency of the last calls is compared with the usual
latency: while they agree the limit grows by its square root in each round of calls, otherwise it shrinks by their
ratio. There are three differences. Latencies are averaged as logarithms, so that one answer in a hundred that takes ten
times as long does not count as slowness. The usual latency rises only with time, because a provider that stays slow
must not come to seem usual within a minute. And nothing is added while the limit shrinks, so that it can reach 1.
"""

from __future__ import annotations

import math

import msgspec

INITIAL_LIMIT = 10.0
"""The calls under way at once while nothing is known yet."""
SLOW_FACTOR = 2.0
"""A provider is slow when it takes this many times as long as usual."""
LOG_SLOW_FACTOR = math.log(SLOW_FACTOR)
MIN_SAMPLES, MAX_SAMPLES = 4.0, 20.0
"""The present latency is averaged over one round of calls, at most MAX_SAMPLES of them, and MIN_SAMPLES more."""
MIN_GRADIENT = 0.5
"""The least part of the limit that is left after one round of calls, however slow they were."""
DROP_FACTOR = 0.9
"""The part of the limit that is left after a call that was throttled or timed out."""
WARM_UP = 20
"""The calls after which the usual latency is known; the first answers to arrive are the fastest ones."""
MIN_ANSWERS = 5
"""The answers after which it is roughly known how long one takes."""
USUAL_FALL_TIME, USUAL_RISE_TIME = 60.0, 600.0
"""The seconds in which a latency that is lower, or higher, than usual becomes the usual one."""
MAX_SILENCE = 10.0
"""The most seconds between two calls that count: a long silence is not a long slowness."""
MIN_LATENCY = 0.01
"""Seconds; a latency below it says more about this program than about its provider."""


class ConcurrencyLimit(msgspec.Struct, frozen=True, gc=False):
    """The calls that may be under way at once, `allowed`, from 1 to `max_concurrency`; an immutable value.

    It starts with 10 calls, or with `max_concurrency` if that is less. `present` and `usual` are the logarithms of the
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
    """The seconds that the provider says an answer takes; 0.0 if it does not say."""

    def __post_init__(self) -> None:
        if not self.max_concurrency >= 1 <= self.limit:
            raise ValueError(
                f"max_concurrency and limit must be >= 1 call, got {self.max_concurrency} and {self.limit}"
            )

    @property
    def allowed(self) -> int:
        """The calls that may be under way at once."""
        return min(int(self.limit), self.max_concurrency)

    @property
    def usual_latency(self) -> float:
        """The seconds that an answer usually takes; 0.0 while that is not known."""
        return math.exp(self.usual) if self.samples >= MIN_ANSWERS else 0.0

    @property
    def present_latency(self) -> float:
        """The seconds that answers took lately; 0.0 while that is not known."""
        return math.exp(self.present) if self.samples >= MIN_ANSWERS else 0.0

    @property
    def expected_latency(self) -> float:
        """The seconds that an answer usually takes, or is declared to take while that is not known."""
        return math.exp(self.usual) if self.samples >= MIN_ANSWERS else self.declared

    def is_slow(self, latency: float) -> bool:
        """Tell whether `latency` seconds are much longer than expected; False if nothing is expected."""
        expected = self.expected_latency
        return expected > 0 and latency > max(MIN_LATENCY, SLOW_FACTOR * expected)

    def after(self, latency: float, under_way: int, now: float, *, dropped: bool = False) -> ConcurrencyLimit:
        """Return the limit after a call that took `latency` seconds, one of `under_way` calls at that time.

        `dropped` means that it was throttled or timed out: it would have taken longer, by an unknown time. Leave out
        calls that failed otherwise or were cancelled; they say nothing. `now` is in seconds of any one clock.
        """
        limit = self.limit
        present, usual, updated, samples = self.present, self.usual, self.updated, self.samples
        seen = math.log(latency) if latency > MIN_LATENCY else LOG_MIN_LATENCY
        if samples < WARM_UP:
            if not dropped:  # A dropped call does not tell how long an answer takes.
                samples += 1
                present += (seen - present) / samples
                usual, updated = present, max(updated, now)
        else:
            # A call that was refused at once was not served fast.
            if seen > present or not dropped:
                present += (seen - present) / (MIN_SAMPLES + min(MAX_SAMPLES, limit))
            if now > updated:
                passed = min(MAX_SILENCE, now - updated)
                within = USUAL_RISE_TIME if present > usual else USUAL_FALL_TIME
                usual, updated = usual + (present - usual) * passed / within, now
        if dropped:
            limit *= DROP_FACTOR
        elif present - usual > LOG_SLOW_FACTOR:
            gradient = math.exp(LOG_SLOW_FACTOR - (present - usual))
            # Each call of a round takes its part: ten calls at a limit of ten shrink it by the gradient.
            limit -= 1.0 - max(MIN_GRADIENT, gradient)
        elif 2 * under_way >= limit:
            # A limit that is not used up tells nothing about a higher one.
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


LOG_MIN_LATENCY = math.log(MIN_LATENCY)
