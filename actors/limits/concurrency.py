"""How many calls one provider may have under way, learned from how long its answers take. Pure.

Source: the Gradient2 limit of Netflix's concurrency-limits. The latency of the last calls is compared with the usual
latency: while they agree the limit grows by its square root in each round of calls, otherwise it shrinks by their
ratio. There are three differences. Latencies are averaged as logarithms, so that one answer in a hundred that takes ten
times as long does not count as slowness. The usual latency rises only with time, because a provider that stays slow
must not come to seem usual within a minute. And nothing is added while the limit shrinks, so that it can reach 1.

What is overloaded answers sooner once it has fewer calls. So when half of the places are taken from a slow provider,
the answers from before and after that are compared; if they take as long as before, its load is not the cause: what
they take is usual now, and it gets its places back. Likewise a call that hangs while later ones are answered as usual
takes no places. TCP Veno (C. Fu and S. Liew, IEEE JSAC 21(2), 2003) tells a loss on the way from congestion by delay,
too.

Answers that differ much by nature, such as 0.2 and 60 seconds by turns, have an average that differs much by chance. So
slowness must stand out from how much they differ, and so must what half of the places have changed.
"""

from __future__ import annotations

import math

import msgspec

INITIAL_LIMIT = 10.0
"""The calls under way at once while nothing is known yet."""
SLOW_FACTOR = 2.0
"""A provider is slow when it takes this many times as long as usual."""
LOG_SLOW_FACTOR = math.log(SLOW_FACTOR)
LOG_MOST_FOR_DROPPED = math.log(SLOW_FACTOR**4)
"""The most times as long as usual that a call which was not answered counts as having taken."""
LOG_FASTER = math.log(1.25)
"""Answers must come so much faster with half of the places for the load to be the cause of the slowness.

With a queue they come twice as fast.
"""
DEVIATIONS = 3.0
"""How many standard deviations of the average it must be off to count as slow: one in 740, by a normal distribution."""
STANDARD_ERRORS = 2.0
"""How many standard errors two means of answers must differ by, as in Welch's test: by chance one in 44 does."""
LONG = 30.0
"""Seconds that an answer takes at least for the places to double in each round of calls from the start."""
MIN_SAMPLES, MAX_SAMPLES = 4.0, 20.0
"""The present latency is averaged over one round of calls, at most MAX_SAMPLES of them, and MIN_SAMPLES more."""
MIN_GRADIENT = 0.5
"""The least part of the limit that is left after one round of calls, however slow they were."""
DROP_FACTOR = 0.9
"""The part of the limit that is left after a call that was throttled, or timed out while no others were answered."""
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


class LoadTrial(msgspec.Struct, frozen=True, gc=False):
    """The trial of whether a provider is slow because of its load: logarithms of latencies before and after half of it.

    It had `limit` places; half of them were taken at `halved`, in seconds, infinity until then. `before` and `after`
    are means of as many answers as `counted_before` and `counted_after` say.
    """

    limit: float
    before: float = 0.0
    counted_before: int = 0
    halved: float = math.inf
    after: float = 0.0
    counted_after: int = 0
    spread_before: float = 0.0
    spread_after: float = 0.0
    """How much the answers differ from these means: the sums of the squares."""

    @property
    def least(self) -> float:
        """The places that it leaves."""
        return max(1.0, self.limit / 2)

    @property
    def is_over(self) -> bool:
        """Whether enough answers came with half of the places, or with one, if there is no half."""
        return self.counted_after >= max(MIN_ANSWERS, self.limit / 4)

    @property
    def blames_load(self) -> bool:
        """Whether answers came faster with half of the places, and by more than two such means differ by chance."""
        if self.limit < SLOW_FACTOR:
            return False
        by_chance = math.sqrt(
            self.spread_before / (self.counted_before * (self.counted_before - 1))
            + self.spread_after / (self.counted_after * (self.counted_after - 1))
        )
        return self.after < self.before - max(LOG_FASTER, STANDARD_ERRORS * by_chance)

    def seen(self, latency: float, began: float) -> LoadTrial:
        """Return the trial after one more answer to a call that `began` then; `latency` is a logarithm."""
        if self.halved == math.inf:
            count = self.counted_before + 1
            before = self.before + (latency - self.before) / count
            spread = self.spread_before + (latency - self.before) * (latency - before)
            return msgspec.structs.replace(self, before=before, counted_before=count, spread_before=spread)
        if began < self.halved:
            return self
        count = self.counted_after + 1
        after = self.after + (latency - self.after) / count
        spread = self.spread_after + (latency - self.after) * (latency - after)
        return msgspec.structs.replace(self, after=after, counted_after=count, spread_after=spread)

    def shrunk(self, limit: float, now: float) -> LoadTrial:
        """Return the trial now that there are `limit` places."""
        is_halved = self.halved == math.inf and limit <= self.least and self.counted_before >= MIN_ANSWERS
        return msgspec.structs.replace(self, halved=now) if is_halved else self


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
    last_begun: float = -math.inf
    """When the latest call began that was answered."""
    trial: LoadTrial | None = None
    """Whether its load makes it slow, while that is tried."""
    doubles: bool = False
    """Whether the places double in each round of calls: its load was found not to make it slow, or it takes long."""
    variance: float = 0.0
    """How much single answers differ from the present latency: the mean square, as logarithms."""

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

    @property
    def mean_latency(self) -> float:
        """The seconds that answers took lately in the mean, however few came; what is declared if none did.

        It is more than `present_latency`, which goes by logarithms: such a mean of values whose logarithms are normally
        distributed is too low by half of their variance.
        """
        return math.exp(self.present + self.variance / 2) if self.samples else self.declared

    def is_slow(self, latency: float) -> bool:
        """Tell whether `latency` seconds are much longer than expected; False if nothing is expected."""
        expected = self.expected_latency
        return expected > 0 and latency > max(MIN_LATENCY, SLOW_FACTOR * expected)

    @property
    def answers_slowly(self) -> bool:
        """Whether answers took much longer than usual lately."""
        excess = self.present - self.usual
        return excess > LOG_SLOW_FACTOR and excess > self._slow_excess

    @property
    def _slow_excess(self) -> float:
        """By how much answers must take longer than usual to be slow, as logarithms."""
        # The variance of an average with gain 1 / n is that of single values by 2 n - 1.
        spread = self.variance / (2 * (MIN_SAMPLES + min(MAX_SAMPLES, self.limit)) - 1)
        return max(LOG_SLOW_FACTOR, DEVIATIONS * math.sqrt(spread)) if spread else LOG_SLOW_FACTOR

    def hangs_alone(self, latency: float, now: float) -> bool:
        """Tell whether a call that was not answered in `latency` seconds is no sign of overload.

        Calls that began later were answered meanwhile, and answers come as usual.
        """
        is_late = latency > SLOW_FACTOR * self.usual_latency
        return is_late and now - latency < self.last_begun and not self.answers_slowly

    def after(self, latency: float, under_way: int, now: float, *, dropped: bool = False) -> ConcurrencyLimit:
        """Return the limit after a call that took `latency` seconds, one of `under_way` calls at that time.

        `dropped` means that it was throttled or timed out: it would have taken longer, by an unknown time. If it hangs
        alone it changes nothing. Leave out calls that failed otherwise or were cancelled; they say nothing. `now` is in
        seconds of any one clock.
        """
        if dropped and self.hangs_alone(latency, now):
            return self
        seen = math.log(latency) if latency > MIN_LATENCY else LOG_MIN_LATENCY
        present, usual, updated, samples, variance = self._timed(seen, now, dropped=dropped)
        limit, trial = self.limit, None
        # A provider that takes minutes would take hours to get its places one by one.
        doubles = (self.doubles or (not self.samples and latency >= LONG)) and not dropped
        doubles = doubles and present - usual <= LOG_FASTER
        last_begun = self.last_begun if dropped else max(self.last_begun, now - latency)
        if dropped:
            # Work on what was given up goes on unseen, so that a trial of the load would prove nothing.
            limit *= DROP_FACTOR
        elif present - usual > LOG_SLOW_FACTOR and present - usual > self._slow_excess:
            limit, trial = self._slowed(seen, now - latency, now, excess=present - usual)
            if trial is not None and trial.is_over:
                present, usual, limit, trial = trial.after, trial.after, SLOW_FACTOR * trial.limit, None
                doubles = True
        elif 2 * under_way >= limit:
            # A limit that is not used up tells nothing about a higher one.
            limit += 1.0 if doubles else 1.0 / math.sqrt(limit)
        return ConcurrencyLimit(
            self.max_concurrency,
            1.0 if limit < 1.0 else min(limit, 1.0 * self.max_concurrency),
            present,
            usual,
            updated,
            samples,
            self.declared,
            last_begun,
            trial,
            doubles,
            variance,
        )

    def _timed(self, seen: float, now: float, *, dropped: bool) -> tuple[float, float, float, int, float]:
        """Return what follows from one more latency, whose logarithm was `seen`.

        That is `present`, `usual`, `updated`, `samples` and `variance`.
        """
        present, usual, updated, samples = self.present, self.usual, self.updated, self.samples
        variance, round_of_calls = self.variance, MIN_SAMPLES + min(MAX_SAMPLES, self.limit)
        if samples and not dropped:
            variance += ((seen - present) ** 2 - variance) / min(samples + 1, round_of_calls)
        if samples < WARM_UP:
            if not dropped:  # A dropped call does not tell how long an answer takes.
                samples += 1
                present += (seen - present) / samples
                usual, updated = present, max(updated, now)
            return present, usual, updated, samples, variance
        if dropped:  # How much longer it would have taken is not known, and answers tell more.
            seen = min(seen, usual + LOG_MOST_FOR_DROPPED)
        # A call that was refused at once was not served fast.
        if seen > present or not dropped:
            present += (seen - present) / round_of_calls
        if now > updated:
            passed = min(MAX_SILENCE, now - updated)
            within = USUAL_RISE_TIME if present > usual else USUAL_FALL_TIME
            usual, updated = usual + (present - usual) * passed / within, now
        return present, usual, updated, samples, variance

    def _slowed(self, seen: float, began: float, now: float, *, excess: float) -> tuple[float, LoadTrial | None]:
        """Return the places left after an answer while answers are slow, and the trial of the load.

        A trial that is over has shown that the load is not the cause. `excess` is by how much they are slow.
        """
        trial = (self.trial or LoadTrial(self.limit)).seen(seen, began)
        if trial.is_over:
            return self.limit, None if trial.blames_load else trial
        # Each call of a round takes its part: ten calls at a limit of ten shrink it by the gradient.
        limit = max(trial.least, self.limit - (1.0 - max(MIN_GRADIENT, math.exp(self._slow_excess - excess))))
        return limit, trial.shrunk(limit, now)


LOG_MIN_LATENCY = math.log(MIN_LATENCY)
