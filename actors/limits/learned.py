"""A provider's limit, learned from its 429s and from the rate-limit headers of its answers. Pure.

A lone 429 holds back its own call alone, which waits for its `Retry-After`: it may have nothing to do with our rate.
`suspicion` tells whether 429s come because of it. There are two cases:

1. So many come together that a limit is far exceeded. All callers wait at one gate until `Retry-After` has passed.
   Behind the gate they are paced, one by one, from a share of the rate at which calls were served.
2. There are enough to tell, but few. The pace is lowered to a little below the rate at which calls were served. If the
   429s stay as frequent, the rate was not their cause, and it is taken back.

The pace grows as CUBIC's window does: steeply at first, it is flat around the rate before, where the limit must be, and
grows steeply again beyond it, because the limit may have been raised. A pace that was not used for a moment is made up
for, as by a token bucket: callers do not come at equal intervals.

Source: S. Ha, I. Rhee, L. Xu, "CUBIC: A New TCP-Friendly High-Speed TCP Variant", 2008, and RFC 9438; here scaled so
that the return to the earlier rate takes `ramp` seconds, whatever that rate is. The decrease is multiplicative, as
D.-M. Chiu and R. Jain show it must be for clients that share a limit to converge on equal parts ("Analysis of the
Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from actors.limits.quota import NO_WEIGHTS, REQUESTS, weight_in
from actors.limits.suspicion import CONFIRMED_TELLING, NO_SUSPICION, STRAY_SHARE, TELLING, Suspicion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.limits.reported import ReportedLimit

MAX_PACED_WINDOW = 120.0
"""Seconds; a limit for a longer time, such as a day, is not used as a pace."""
MAX_STATED = 3600.0
"""Seconds for which a provider is left alone at most because it says so; then one call asks again."""
MIN_TOLD, MIN_TOLD_AT_FIRST = 1.0, 2.0
"""Seconds that 429s have to be counted before the rate is lowered again, or lowered at all. A rate needs
time to be known, and what a provider let through before its first 429 may have been a burst."""
FAR = 2.0
"""How many times the rate that is believed to be the limit a provider has served before, if its gate was a mistake."""
NEAR = 0.95
"""The part of a limit from which on a 429 may tell that it is exceeded."""
SETTLED = 2.0
"""Seconds after which the rate of the last second is that of the lowered pace."""
ENOUGH = 20
"""The calls that tell a rate, if they take a second at least."""


class LearningConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a limit is learned; durations are seconds.

    Gates: without a `Retry-After` a gate stays shut for `first_gate`. If no call has succeeded since the last gate, it
    stays shut for twice as long as that one, up to `max_gate`, or for the `Retry-After` if that is longer. After
    `window` without a 429 the next gate is a first one again.

    Pace: behind a gate calls begin at `share` of the rate before it (of `first_rate` if no call had succeeded), but at
    no less than `min_rate` a second, and are back at the rate before after `ramp`. Without a gate the rate is lowered
    to `lower_to` of the rate at which calls were served. Another `ramp` later, calls that the pace allowed in the last
    `catch_up` and that were not made may be made at once.

    Headers: `headroom` is the part of a stated limit that is used. If what remains is too little for a call, the call
    waits until the reset, but no longer than `window` after the report: many providers refill all the time, and state
    only when everything will be there again.
    """

    first_gate: float = 1.0
    max_gate: float = 20.0
    window: float = 60.0
    share: float = 0.5
    lower_to: float = 0.9
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
        for name in ("share", "lower_to", "headroom"):
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
    """What is left of one dimension until `resets_at`, less the calls begun since the provider reported it."""

    dimension: str
    amount: float
    resets_at: float
    reported_at: float


class LearnedGrant(msgspec.Struct, frozen=True, gc=False):
    """What one call has taken of a learned limit; give it back with `after_no_run` if the call never ran."""

    next_at: float
    taken: tuple[Remaining, ...]
    since: float = -math.inf
    """When the pace let it begin, of which `next_at` is one interval later."""


class LearnedLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known about a provider's limit; a new one knows nothing, and lets every call through.

    `throttled_rate` is the rate, in calls a second, that is believed to be the limit since `throttled_at`, because of
    so many `throttled` answers: infinity if none is. The pace began at the part `begins_at` of it when the gate opened,
    and is never below `stated`, the rate that the provider is known to allow. `gates_in_a_row` counts the gates since a
    call last succeeded. `next_at` is when the pace lets the next call begin, and `held_until` when calls may go on
    after a 429 of which nothing else is known. `ceiling` is the rate that headers allow. `count` calls have succeeded
    since `counted_since`, and `earlier_rate` is the rate at which calls succeeded before that.
    """

    gated_until: float = -math.inf
    throttled_at: float = -math.inf
    throttled_rate: float = math.inf
    throttled: int = 0
    begins_at: float = 0.5
    stated: float = 0.0
    gates_in_a_row: int = 0
    held_until: float = -math.inf
    suspicion: Suspicion = NO_SUSPICION
    next_at: float = -math.inf
    ceiling: float = math.inf
    remaining: tuple[Remaining, ...] = ()
    count: int = 0
    counted_since: float = -math.inf
    earlier_rate: float = 0.0
    best_rate: float = 0.0
    """The highest rate at which calls were served before a gate was shut; what has proved too high is forgotten."""

    def rate(self, now: float, *, config: LearningConfig = DEFAULT_LEARNING) -> float:
        """Return the calls a second that are let through at `now`; infinity if no limit is known.

        With b = `throttled_rate`, s = `begins_at` and u = the time since the gate opened, in ramps:
        b * (1 + (1 - s) * (u - 1) ** 3).

        >>> limit = LearnedLimit(throttled_rate=10.0, gated_until=0.0)
        >>> [limit.rate(now) for now in (0.0, 5.0, 10.0, 20.0)]
        [5.0, 9.375, 10.0, 15.0]
        """
        if self.throttled_rate == math.inf:
            return self.ceiling
        ramps = max(0.0, now - self.gated_until) / config.ramp
        grown = self.throttled_rate * (1 + (1 - self.begins_at) * (ramps - 1) ** 3)
        if self.best_rate > FAR * self.throttled_rate:
            # It served far more before: without a 429 the pace doubles each second, as TCP's slow start does.
            calm = max(0.0, now - max(self.gated_until, self.suspicion.last))
            doubled = self.throttled_rate * 2.0 ** (min(calm, 60.0) - 1.0)
            grown = max(grown, min(0.9 * self.best_rate, doubled))
        return min(self.ceiling, max(config.min_rate, self.stated, grown))

    def wait(
        self, now: float, weights: Mapping[str, int] = NO_WEIGHTS, *, config: LearningConfig = DEFAULT_LEARNING
    ) -> float:
        """Return the seconds until a call of these weights may begin, as far as is known now; 0.0 if it may now."""
        at = max(self.gated_until, self.next_at, self.held_until)
        if at <= now and not self.remaining:
            return 0.0
        for left in self.remaining:
            if weight_in(weights, left.dimension) > left.amount:
                recheck_at = left.resets_at if left.amount < 1 else left.reported_at + config.window
                at = max(at, min(left.resets_at, recheck_at))
        return max(0.0, at - now)

    def take(
        self, now: float, weights: Mapping[str, int] = NO_WEIGHTS, *, config: LearningConfig = DEFAULT_LEARNING
    ) -> tuple[LearnedLimit, LearnedGrant | None]:
        """Return the limit after a call of these weights has begun at `now`, for which `wait` must return 0.0."""
        if self.throttled_rate == self.ceiling == math.inf and not self.remaining:
            return self, None
        left: list[Remaining] = []
        taken: list[Remaining] = []
        for one in self.remaining:
            weight = weight_in(weights, one.dimension)
            if one.resets_at > now:
                left.append(msgspec.structs.replace(one, amount=one.amount - weight))
                taken.append(msgspec.structs.replace(one, amount=weight))
        # When a gate opens, none of the pace is left unused, however long the gate was shut.
        ramps = min(2.0, max(1.0, (now - self.gated_until) / config.ramp))
        since = max(self.next_at, self.gated_until, now - config.catch_up * (ramps - 1.0))
        begun_at = min(now, since)
        next_at = begun_at + 1 / self.rate(now, config=config)
        grant = LearnedGrant(next_at, tuple(taken), begun_at)
        return msgspec.structs.replace(self, next_at=next_at, remaining=tuple(left)), grant

    def observed_rate(self, now: float) -> float:
        """Return the calls a second that have succeeded lately."""
        # A rate over a short time says little: three calls in one millisecond are not 3,000 a second.
        return max(self.count / max(1.0, now - self.counted_since), self.earlier_rate)


class ThrottledCall(NamedTuple):
    """A call that was answered by a 429: which wait it was told, in seconds (None: not told), and when it `started`.

    Other calls that are under way tell more: none begins before one was served, but for `hold` seconds at most. If it
    is known that there is a limit, the gate is shut `at_once`.
    """

    retry_after: float | None = None
    started: float | None = None
    hold: float = 0.0
    at_once: bool = False


TOLD_NOTHING = ThrottledCall()


def after_throttled(
    state: LearnedLimit,
    now: float,
    refused: ThrottledCall = TOLD_NOTHING,
    *,
    random: float = 0.0,
    config: LearningConfig = DEFAULT_LEARNING,
) -> LearnedLimit:
    """Return the limit after a 429 at `now`.

    If the call began before the rate was last lowered, or is answered while the gate is shut, it tells nothing new: all
    calls that were under way together lower the rate once. `random`, a draw from [0, 1), says when in the first
    interval behind the gate the first call goes, so that many processes do not go together.
    """
    retry_after, started = refused.retry_after, refused.started
    stated = None if retry_after is None else min(max(0.0, retry_after), MAX_STATED)
    if now < state.gated_until or (started is not None and started <= state.throttled_at):
        if stated is None or now >= state.gated_until:
            return state
        return msgspec.structs.replace(state, gated_until=max(state.gated_until, now + stated))
    best_rate = state.best_rate
    if best_rate > FAR * state.throttled_rate and (allowed := state.rate(now, config=config)) > state.throttled_rate:
        best_rate = 0.9 * allowed
    suspicion = state.suspicion.after_throttled(now, memory=config.window)
    state = msgspec.structs.replace(state, suspicion=suspicion, best_rate=best_rate)
    if refused.at_once or state.gates_in_a_row or suspicion.is_alarmed(state.observed_rate(now)):
        return _gated(state, now, stated, random=random, config=config)
    if (lowered := _after_telling(state, now, config=config)) is not None:
        return lowered
    return msgspec.structs.replace(state, held_until=now + refused.hold) if refused.hold else state


def _gated(
    state: LearnedLimit, now: float, stated: float | None, *, random: float, config: LearningConfig
) -> LearnedLimit:
    """Shut the gate, because a limit is far exceeded."""
    # After a long calm a new gate is no repetition, even if no success was reported.
    gates_in_a_row = 1 if now >= state.gated_until + config.window else state.gates_in_a_row + 1
    length = min(config.max_gate, config.first_gate * 2.0 ** min(gates_in_a_row - 1, 60))
    if stated is not None:
        # If the time stated before was too short, what is stated now is only a lower bound.
        length = stated if gates_in_a_row == 1 else max(stated, length)
    allowed = state.rate(now, config=config)
    is_fresh = state.throttled_rate < math.inf and now < state.gated_until + config.observed_for
    if gates_in_a_row > 1 and state.throttled_rate < math.inf:
        # Nothing has succeeded since the last gate: the pace behind it was not too fast.
        throttled_rate = state.throttled_rate
    else:
        served = _served_rate(state, now) or config.first_rate
        throttled_rate = max(
            config.min_rate, allowed if is_fresh and not state.suspicion.served else min(allowed, served)
        )
    gated_until = now + length
    gated = msgspec.structs.replace(
        state,
        gated_until=gated_until,
        throttled_at=now,
        throttled_rate=throttled_rate,
        throttled=state.suspicion.throttled,
        begins_at=config.share,
        gates_in_a_row=gates_in_a_row,
        suspicion=state.suspicion.after_lowering(gated_until),
        held_until=-math.inf,
        best_rate=max(state.best_rate, state.observed_rate(now)),
        count=0,
        counted_since=gated_until,
        earlier_rate=0.0,
    )
    next_at = gated_until + random / gated.rate(gated_until, config=config)
    return msgspec.structs.replace(gated, next_at=next_at)


def _served_rate(state: LearnedLimit, now: float) -> float:
    """Return the calls a second that a provider serves while it refuses others, as far as is known."""
    suspicion, observed = state.suspicion, state.observed_rate(now)
    told_for = now - suspicion.since
    if told_for < MIN_TOLD or not suspicion.served:
        return observed
    if state.throttled_rate == math.inf:
        # In the last second calls may have waited for their own 429s.
        return max(observed, suspicion.served / told_for)
    # What it served in the last second may have been a burst; over all the time it was not.
    return min(observed, suspicion.served / told_for) if told_for < SETTLED or suspicion.alarm else observed


def _after_telling(state: LearnedLimit, now: float, *, config: LearningConfig) -> LearnedLimit | None:
    """Return the limit with a lower pace, or without one, if the 429s tell that; None if they do not yet."""
    suspicion, is_lowered = state.suspicion, state.throttled_rate < math.inf
    told_for = now - suspicion.since
    if is_lowered and suspicion.is_unmoved:
        return msgspec.structs.replace(
            state,
            throttled_rate=math.inf,
            next_at=-math.inf,
            held_until=-math.inf,
            throttled=0,
            suspicion=suspicion.after_no_change(now),
        )
    if told_for < (MIN_TOLD if is_lowered else MIN_TOLD_AT_FIRST):
        return None
    allowed = state.rate(now, config=config)
    throttled_rate = max(config.min_rate, min(allowed, _served_rate(state, now)))
    if suspicion.is_confirmed and suspicion.share < STRAY_SHARE:
        if allowed < NEAR * state.throttled_rate:
            # So far below the limit, 429s stray.
            return msgspec.structs.replace(state, suspicion=suspicion.after_stray(now))
        if suspicion.throttled < CONFIRMED_TELLING + 2 * suspicion.strays_expected(now):
            return None
        if allowed >= state.throttled_rate:
            # A few 429s beyond the limit tell that it is one, but not that it is lower.
            throttled_rate = max(throttled_rate, state.throttled_rate)
    elif suspicion.throttled < (CONFIRMED_TELLING if suspicion.is_confirmed else TELLING):
        return None  # A larger share needs no more of them than a smaller one.
    elif suspicion.is_explained(now):
        return None
    return msgspec.structs.replace(
        state,
        gated_until=now,
        throttled_at=now,
        throttled_rate=throttled_rate,
        throttled=suspicion.throttled,
        begins_at=config.lower_to,
        suspicion=suspicion.after_lowering(now),
        held_until=-math.inf,
        next_at=now,
    )


def after_success(
    state: LearnedLimit, now: float, *, started: float | None = None, config: LearningConfig = DEFAULT_LEARNING
) -> LearnedLimit:
    """Return the limit after a call that began at `started` was served at `now`.

    The next 429 is then the first in a row.
    """
    counted = after_grant(state, now, config=config)
    is_behind_gate = now >= state.gated_until and (started is None or started > state.throttled_at)
    if not (counted.gates_in_a_row and is_behind_gate):
        return counted
    return msgspec.structs.replace(counted, gates_in_a_row=0)


def after_grant(state: LearnedLimit, now: float, *, config: LearningConfig = DEFAULT_LEARNING) -> LearnedLimit:
    """Return the limit after one more call at `now`, for its observed rate. For callers that report no outcomes."""
    count, since, earlier = state.count + 1, state.counted_since, state.earlier_rate
    elapsed = now - since
    if elapsed >= config.observed_for or (elapsed >= 1.0 and count > ENOUGH):
        count, since, earlier = 1, now, state.count / elapsed
    if not state.suspicion.throttled and not state.suspicion.share_before:
        return msgspec.structs.replace(state, count=count, counted_since=since, earlier_rate=earlier)
    return msgspec.structs.replace(
        state,
        count=count,
        counted_since=since,
        earlier_rate=earlier,
        held_until=-math.inf,
        suspicion=state.suspicion.after_served(now),
    )


def after_headers(
    state: LearnedLimit, reported: Iterable[ReportedLimit], now: float, *, config: LearningConfig = DEFAULT_LEARNING
) -> LearnedLimit:
    """Return the limit after an answer at `now` that reported these limits; dimensions it does not report stay.

    A reported limit of requests in a window of up to two minutes becomes a ceiling, with headroom. Calls under way that
    the provider had not counted when it reported are not counted here either.
    """
    remaining = {one.dimension: one for one in state.remaining if one.resets_at > now}
    ceiling = state.ceiling
    for limit in reported:
        if limit.remaining is not None and limit.reset is not None:
            resets_at = now + min(limit.reset, MAX_STATED)
            remaining[limit.dimension] = Remaining(limit.dimension, limit.remaining, resets_at, now)
        is_pace = limit.dimension == REQUESTS and limit.window is not None and 0 < limit.window <= MAX_PACED_WINDOW
        if is_pace and limit.limit:
            ceiling = config.headroom * limit.limit / cast("float", limit.window)
    return msgspec.structs.replace(state, remaining=tuple(remaining.values()), ceiling=ceiling)


def after_no_run(state: LearnedLimit, grant: LearnedGrant | None) -> LearnedLimit:
    """Return the limit after the call that took `grant` never ran.

    Its place in the pace comes back unless a later one was given out. What it took of what remains comes back unless
    the provider has reported since.
    """
    if grant is None:
        return state
    next_at = grant.since if state.next_at == grant.next_at else state.next_at
    taken = {(one.dimension, one.reported_at): one.amount for one in grant.taken}
    remaining = tuple(
        msgspec.structs.replace(one, amount=one.amount + taken.get((one.dimension, one.reported_at), 0))
        for one in state.remaining
    )
    return msgspec.structs.replace(state, next_at=next_at, remaining=remaining)
