"""Why requests wait, or were refused, each reason as what decides on it knows it. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import (
    AllProvidersFailed,
    BreakerOpen,
    BudgetExceeded,
    BulkheadFull,
    CallFailed,
    LedgerDown,
    LeftAlone,
    NotAdmitted,
    Overpriced,
    RateLimited,
    RegistryDown,
    TooManyWaiting,
)
from actors.limits.quota import QuotaRefusal
from actors.limits.waiting import LearnedPace, Waiting, WaitReason
from actors.policies.breaker.states import Closed, HalfOpen, Isolated, Open
from actors.supervisor.targets.admission import places_of
from actors.supervisor.targets.forecast import NO_PROBE, end_of_probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.limits.learned import LearnedLimit
    from actors.policies.breaker.config import BreakerConfig
    from actors.supervisor.targets.state import TargetState

REASONS: dict[type[NotAdmitted], WaitReason] = {
    BreakerOpen: "breaker",
    RateLimited: "stated limit",
    BulkheadFull: "place",
    TooManyWaiting: "queue",
    BudgetExceeded: "money",
    LedgerDown: "ledger",
    Overpriced: "left alone",
    LeftAlone: "left alone",
    RegistryDown: "discovery",
}
"""What a request would have had to wait for that was refused so; what is not here, no wait would help."""


def waits_of(
    name: str,
    state: TargetState,
    *,
    now: float,
    breaker: BreakerConfig,
    tripped_at: float | None = None,
    probe_at: float = 0.0,
) -> Iterator[Waiting]:
    """Yield why requests wait for a provider at `now`, or go at a lower rate, in the order in which it is decided.

    `tripped_at` is the loop time at which its breaker last opened, and `probe_at` that at which its last probe began.
    """
    yield from _by_breaker(state, now, tripped_at, probe_at)
    for one in state.left_for():
        wait = one.wait(now)
        if one.leave is not None:
            # A wait that is over ends only with a call that finds out.
            until = None if wait == math.inf or not wait else one.leave.until
            evidence = str(one.error(name, wait or math.inf))
            yield Waiting(reason="left alone", since=one.leave.left_at, until=until, evidence=evidence)
    if isinstance(state.breaker, Closed):
        places = places_of(state, NO_PROBE, now=now, breaker=breaker)
        if state.under_way >= places:
            some = "the place is" if places == 1 else f"all {places} places are"
            yield Waiting(reason="place", evidence=f"{some} taken, of {state.limit.max_concurrency} at most")
    learned = by_learned_limit(state.learned, now)
    if learned is not None:
        yield learned
    refused = None if state.quota is None else state.quota.take(now)
    if isinstance(refused, QuotaRefusal):
        until = now + refused.wait if refused.wait < math.inf else None
        yield Waiting(reason="stated limit", until=until, evidence=f"its limit of {refused.dimension} is used")
    wait = state.retries.wait(now)
    if wait > 0:
        until = now + wait if wait < math.inf else None
        yield Waiting(reason="retries", until=until, evidence="its retry budget is used; first attempts go on")


def _by_breaker(state: TargetState, now: float, tripped_at: float | None, probe_at: float) -> Iterator[Waiting]:
    breaker = state.breaker
    match breaker:
        case Open():
            probes = "1 probe" if breaker.reopened == 1 else f"{breaker.reopened} probes"
            failed = f", and {probes} since" if breaker.reopened else ""
            if breaker.until > now:
                yield Waiting(
                    reason="breaker", since=tripped_at, until=breaker.until, evidence=f"its calls failed{failed}"
                )
            else:
                yield Waiting(
                    reason="breaker", since=tripped_at, evidence=f"its calls failed{failed}; the next call is the probe"
                )
        case HalfOpen():
            until = end_of_probe(breaker, now=now, probe_at=probe_at, latency=state.limit.mean_latency)
            yield Waiting(reason="probe", since=tripped_at, until=until, evidence="one call finds out if it is well")
        case Isolated():
            yield Waiting(reason="isolated", since=tripped_at, evidence="by hand, until it is released")
        case Closed():
            pass


def by_learned_limit(learned: LearnedLimit, now: float) -> Waiting | None:
    """Return the wait by what a provider's 429s and headers tell; None while they limit nothing."""
    rate, wait = learned.rate(now), learned.wait(now)
    if rate == math.inf and wait <= 0:
        return None
    is_throttled = learned.throttled_at > -math.inf and learned.throttled_rate < math.inf
    pace = LearnedPace(
        rate=None if rate == math.inf else rate,
        refusals=learned.throttled if is_throttled else learned.suspicion.streak,
        last_at=learned.suspicion.last if is_throttled else now,
    )
    gate = max(learned.gated_until, learned.held_until)
    return Waiting(
        reason="learned limit",
        since=learned.throttled_at if is_throttled else None,
        until=gate if gate > now else None,
        evidence=pace,
    )


def by_money(since: float, waiting: int) -> Waiting:
    """Return the wait of so many requests for money that calls under way may free, the first since `since`."""
    many = "1 request waits" if waiting == 1 else f"{waiting} requests wait"
    return Waiting(reason="money", since=since, evidence=f"{many} for what calls under way may leave of a budget")


def told_with_waits(failure: CallFailed, *, since: float | None, now: float) -> None:
    """Set what the request waited for, or would have had to, on each refusal of its error that has not said so.

    `since` is the loop time since when it waited last; None if it did not.
    """
    refusals = (failure, *(failure.refused if isinstance(failure, AllProvidersFailed) else ()))
    for one in refusals:
        if isinstance(one, NotAdmitted):
            told = one.waiting or by_refusal(one, now)
            one.waiting = told if told is None or since is None else msgspec.structs.replace(told, since=since)


def by_refusal(refusal: NotAdmitted, now: float) -> Waiting | None:
    """Return what a request would have to wait for that was refused at `now`; None if no wait would help it."""
    reason = REASONS.get(type(refusal))
    if reason is None:
        return None
    after = refusal.retry_after
    if isinstance(refusal, BreakerOpen) and after is None:
        reason = "isolated"
    until = None if after is None else now + after
    return Waiting(reason=reason, until=until, evidence=str(refusal.args[0]), provider=refusal.provider)
