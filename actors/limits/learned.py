"""What is learned of a limit that nobody stated: from 429s, and from what headers say remains. Pure.

After a 429 all callers wait at one gate until `Retry-After` has passed. Behind it they are paced, one by one, at a rate
that grows as CUBIC's window does: from a share of the rate observed before, steeply at first, flat around
that rate, where the limit must be, and steeply again beyond it, because it may have been raised. A pace that was not
used for a moment is made up for, as by a bucket of tokens: callers do not come at equal intervals. Who asks to be paid
shuts the same gate, but says nothing of a pace: with the first success behind it all is as it was before.

Source: S. Ha, I. Rhee, L. Xu, "CUBIC: A New TCP-Friendly High-Speed TCP Variant", 2008, and RFC 9438; here scaled so
that the return to the earlier rate takes `ramp` seconds, whatever that rate is. The decrease is
multiplicative, as D.-M. Chiu and R. Jain show it must be for clients that share a limit to converge on equal parts
("Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import msgspec

from actors.limits.quota import NO_WEIGHTS, REQUESTS, weight_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.limits.reported import HeardLimit

MAX_PACED_WINDOW = 120.0
"""Seconds; a limit for a longer time, such as a day's, is no pace to keep."""
MAX_STATED = 3600.0
"""Seconds that a provider is left alone at most because it says so: then one call asks whether it still does."""


class LearningConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a limit is learned; durations are seconds.

    Without a `Retry-After` a gate stays shut for `first_gate`, and twice as long each time when no call has succeeded
    since the last, up to `max_gate`, or for the `Retry-After` if that is longer; after `window` without a 429 it is a
    first one again. Behind it calls begin at `share` of the rate before (`first_rate` where none had succeeded), but at
    no less than `min_rate` a second, and are back at that rate after `ramp`. Another `ramp` later what was not used of
    it in the last `catch_up` may be used at once. `headroom` is the part of a stated limit that is used. What remains,
    but is not enough, is waited for `window` after it was heard of at most: many providers refill all the time, and say
    only when all will be there again.
    """

    first_gate: float = 1.0
    max_gate: float = 20.0
    window: float = 60.0
    share: float = 0.5
    ramp: float = 10.0
    min_rate: float = 0.1
    first_rate: float = 1.0
    headroom: float = 0.8
    observed_for: float = 10.0
    catch_up: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.first_gate <= self.max_gate < math.inf:
            raise ValueError(
                f"first_gate must be > 0 and <= max_gate ({self.max_gate}) seconds and both finite, "
                f"got {self.first_gate}"
            )
        for name in ("share", "headroom"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        for name, unit in (
            ("ramp", "seconds"),
            ("min_rate", "calls a second"),
            ("first_rate", "calls a second"),
            ("observed_for", "seconds"),
            ("window", "seconds"),
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 {unit} and finite, got {getattr(self, name)}")
        if not 0 <= self.catch_up < math.inf:
            raise ValueError(f"catch_up must be >= 0 seconds (0: none) and finite, got {self.catch_up}")


DEFAULT_LEARNING = LearningConfig()


class Remaining(msgspec.Struct, frozen=True, gc=False):
    """What is left of one dimension until `resets_at`, less what was begun since the provider said so."""

    dimension: str
    amount: float
    resets_at: float
    heard_at: float


class Begun(msgspec.Struct, frozen=True, gc=False):
    """What one call took of what is known of a limit, to be handed back with `after_no_run` if it never ran."""

    next_at: float
    took: tuple[Remaining, ...]


class LearnedLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a provider's limit; a new one knows nothing, and holds nobody back.

    `before` is the rate, in calls a second, at which the last 429 came (at `throttled_at`): infinity if none did.
    `repeated` counts the gates since a call last succeeded, `next_at` is when the pace lets the next call begin,
    `ceiling` the rate that headers allow. `count` calls have succeeded since `counted_since`, and `earlier` is the rate
    at which they did before that. `is_unpaid` says that the gate is shut for want of money.
    """

    gated_until: float = -math.inf
    throttled_at: float = -math.inf
    before: float = math.inf
    repeated: int = 0
    next_at: float = -math.inf
    ceiling: float = math.inf
    remaining: tuple[Remaining, ...] = ()
    count: int = 0
    counted_since: float = -math.inf
    earlier: float = 0.0
    is_unpaid: bool = False

    def rate(self, now: float, *, config: LearningConfig = DEFAULT_LEARNING) -> float:
        """Return the calls a second that are let through at `now`; infinity where nothing is known.

        With b the rate before, s the share and u the time since the gate opened, in ramps:
        b * (1 + (1 - s) * (u - 1) ** 3).

        >>> limit = LearnedLimit(before=10.0, gated_until=0.0)
        >>> [limit.rate(now) for now in (0.0, 5.0, 10.0, 20.0)]
        [5.0, 9.375, 10.0, 15.0]
        """
        if self.before == math.inf:
            return self.ceiling
        ramps = max(0.0, now - self.gated_until) / config.ramp
        grown = self.before * (1 + (1 - config.share) * (ramps - 1) ** 3)
        return min(self.ceiling, max(config.min_rate, grown))

    def wait(
        self, now: float, weights: Mapping[str, int] = NO_WEIGHTS, *, config: LearningConfig = DEFAULT_LEARNING
    ) -> float:
        """Return the seconds until a call of these weights may begin, as far as is known now; 0.0 where it may."""
        at = max(self.gated_until, self.next_at)
        if at <= now and not self.remaining:
            return 0.0
        for left in self.remaining:
            if weight_in(weights, left.dimension) > left.amount:
                at = max(at, left.resets_at if left.amount < 1 else min(left.resets_at, left.heard_at + config.window))
        return max(0.0, at - now)

    def take(
        self, now: float, weights: Mapping[str, int] = NO_WEIGHTS, *, config: LearningConfig = DEFAULT_LEARNING
    ) -> tuple[LearnedLimit, Begun | None]:
        """Return what is known after a call of these weights has begun at `now`, at which `wait` is 0.0."""
        if self.before == self.ceiling == math.inf and not self.remaining:
            return self, None
        left: list[Remaining] = []
        took: list[Remaining] = []
        for one in self.remaining:
            weight = weight_in(weights, one.dimension)
            if one.resets_at > now:
                left.append(msgspec.structs.replace(one, amount=one.amount - weight))
                took.append(msgspec.structs.replace(one, amount=weight))
        # At the end of a gate nothing has been left unused, however long it was shut.
        ramps = min(2.0, max(1.0, (now - self.gated_until) / config.ramp))
        since = max(self.next_at, self.gated_until, now - config.catch_up * (ramps - 1.0))
        next_at = min(now, since) + 1 / self.rate(now, config=config)
        return msgspec.structs.replace(self, next_at=next_at, remaining=tuple(left)), Begun(next_at, tuple(took))

    def observed(self, now: float) -> float:
        """Return the calls a second that have succeeded lately."""
        # Of a short time a rate says little: three calls in one millisecond are not 3,000 a second.
        return max(self.count / max(1.0, now - self.counted_since), self.earlier)


def after_throttled(
    state: LearnedLimit,
    now: float,
    retry_after: float | None = None,
    *,
    started: float | None = None,
    random: float = 0.0,
    config: LearningConfig = DEFAULT_LEARNING,
) -> LearnedLimit:
    """Return what is known after a 429 at `now`; `retry_after` is in seconds, None where it did not say.

    `started` is when that call began. One that began before the last 429 came, or is answered while the gate is
    shut, tells nothing new: all calls that were under way together lower the rate once. `random`, a draw from
    [0, 1), is where in the first interval behind the gate the first call goes, lest many processes go together.
    """
    stated = None if retry_after is None else min(max(0.0, retry_after), MAX_STATED)
    if now < state.gated_until or (started is not None and started <= state.throttled_at):
        gated_until = state.gated_until if stated is None else max(state.gated_until, now + stated)
        return msgspec.structs.replace(state, gated_until=gated_until)
    # After a long calm a new gate is no repetition, though nobody has told of a success.
    repeated = 1 if now >= state.gated_until + config.window else state.repeated + 1
    length = min(config.max_gate, config.first_gate * 2.0 ** min(repeated - 1, 60))
    if stated is not None:
        # Where that was too soon, it is believed to be the least.
        length = stated if repeated == 1 else max(stated, length)
    allowed = state.rate(now, config=config)
    is_fresh = state.before < math.inf and now < state.gated_until + config.observed_for
    observed = state.observed(now) or config.first_rate
    if repeated > 1 and state.before < math.inf:
        # Nothing has succeeded since the last gate: it was not the pace behind it that was too fast.
        before = state.before
    else:
        before = max(config.min_rate, allowed if is_fresh else min(allowed, observed))
    gated_until = now + length
    throttled = msgspec.structs.replace(
        state,
        gated_until=gated_until,
        throttled_at=now,
        before=before,
        repeated=repeated,
        count=0,
        counted_since=gated_until,
        earlier=0.0,
        is_unpaid=False,
    )
    next_at = gated_until + random / throttled.rate(gated_until, config=config)
    return msgspec.structs.replace(throttled, next_at=next_at)


def after_success(
    state: LearnedLimit, now: float, *, started: float | None = None, config: LearningConfig = DEFAULT_LEARNING
) -> LearnedLimit:
    """Return what is known after a call that began at `started` was served at `now`: the next 429 is no repetition."""
    counted = after_grant(state, now, config=config)
    is_behind_gate = now >= state.gated_until and (started is None or started > state.throttled_at)
    if not (counted.repeated and is_behind_gate):
        return counted
    before = math.inf if counted.is_unpaid else counted.before
    return msgspec.structs.replace(counted, repeated=0, before=before, is_unpaid=False)


def after_unpaid(
    state: LearnedLimit,
    now: float,
    wait: float,
    *,
    started: float | None = None,
    random: float = 0.0,
    config: LearningConfig = DEFAULT_LEARNING,
) -> LearnedLimit:
    """Return what is known after a provider asked to be paid at `now`: a gate for `wait` seconds, and no pace.

    Behind it calls go one by one until one has succeeded, as after a 429; what was known of a pace before, stays.
    """
    knew_nothing = state.before == math.inf or state.is_unpaid
    after = after_throttled(state, now, wait, started=started, random=random, config=config)
    return msgspec.structs.replace(after, before=after.before if knew_nothing else state.before, is_unpaid=knew_nothing)


def after_grant(state: LearnedLimit, now: float, *, config: LearningConfig = DEFAULT_LEARNING) -> LearnedLimit:
    """Return what is known after one more call at `now`: the rate observed. For who is not told how calls end."""
    elapsed = now - state.counted_since
    if elapsed < config.observed_for:
        return msgspec.structs.replace(state, count=state.count + 1)
    return msgspec.structs.replace(state, count=1, counted_since=now, earlier=state.count / elapsed)


def after_headers(
    state: LearnedLimit, heard: Iterable[HeardLimit], now: float, *, config: LearningConfig = DEFAULT_LEARNING
) -> LearnedLimit:
    """Return what is known after an answer at `now` said this; what it does not mention stays as it was.

    A stated limit of requests in a window of up to two minutes becomes a ceiling, with headroom. Calls under way that
    the provider had not counted when it spoke are not counted here either.
    """
    remaining = {one.dimension: one for one in state.remaining if one.resets_at > now}
    ceiling = state.ceiling
    for said in heard:
        if said.remaining is not None and said.reset is not None:
            resets_at = now + min(said.reset, MAX_STATED)
            remaining[said.dimension] = Remaining(said.dimension, said.remaining, resets_at, now)
        is_pace = said.dimension == REQUESTS and said.window is not None and 0 < said.window <= MAX_PACED_WINDOW
        if is_pace and said.limit:
            ceiling = config.headroom * said.limit / cast("float", said.window)
    return msgspec.structs.replace(state, remaining=tuple(remaining.values()), ceiling=ceiling)


def after_no_run(state: LearnedLimit, begun: Begun | None) -> LearnedLimit:
    """Return what is known after a call that took `begun` never ran.

    Its place in the pace comes back if no other was given out since, and what it took of what remains unless the
    provider has spoken since.
    """
    if begun is None:
        return state
    next_at = state.throttled_at if state.next_at == begun.next_at else state.next_at
    took = {(one.dimension, one.heard_at): one.amount for one in begun.took}
    remaining = tuple(
        msgspec.structs.replace(one, amount=one.amount + took.get((one.dimension, one.heard_at), 0))
        for one in state.remaining
    )
    return msgspec.structs.replace(state, next_at=next_at, remaining=remaining)
