"""Whether a call to a provider may be made now, and what it gives back when it has ended. Pure.

All or nothing: what an admission would change is returned as new values, and nothing is consumed unless all agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.errors.families import (
    BreakerOpen,
    BulkheadFull,
    CallFailed,
    DeadlineTooShort,
    NotAdmitted,
    QuotaExhausted,
    RateLimited,
    Throttled,
)
from actors.limits.attempt_timeout import AttemptTimeout
from actors.limits.concurrency import ConcurrencyLimit
from actors.limits.learned import (
    Begun,
    LearnedLimit,
    after_headers,
    after_no_run,
    after_success,
    after_throttled,
    after_unpaid,
)
from actors.limits.quota import NO_WEIGHTS, Quota, QuotaGrant, QuotaRefusal
from actors.policies.breaker.circuit_breaker import (
    BreakerConfig,
    BreakerState,
    Closed,
    HalfOpen,
    Permit,
    Refused,
    after_cancellation,
    after_failure,
    after_inconclusive,
    failures_left,
    is_on_probation,
    share,
)
from actors.policies.breaker.circuit_breaker import admit as admit_by_breaker
from actors.policies.breaker.circuit_breaker import after_success as breaker_after_success
from actors.policies.retry import RetryBudget
from actors.supervisor.targets.waiting import QueueName  # noqa: TC001 - msgspec resolves this annotation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.limits.reported import HeardLimit
    from actors.market.listing import Listing


PROOF_MARGIN = 2.5
"""How many times the usual latency a call must have that is to prove something, lest it fails for want of time."""
CHECK_TIME = 2.0
"""Seconds for the health check before a probe."""
DOUBTED = 2
"""The failures in a row that are one too: a single one is nothing to wonder at."""
CLOCK_ERROR = 1e-3
"""Seconds by which a timer may be early, and sums of times be off."""
STILL_AT_WORK = 409
"""The status of an answer to a call whose idempotency key is still at work."""
UNPAID_FOR = 10.0
"""Seconds to leave a provider alone whose quota is exhausted."""


class TargetState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything about one provider that an admission looks at and may change."""

    breaker: BreakerState = Closed()
    quota: Quota | None = None
    """The limits that are known: of requests, tokens, cost; None where there are none."""
    learned: LearnedLimit = LearnedLimit()
    """What its 429s and headers say of limits that nobody stated."""
    limit: ConcurrencyLimit = ConcurrencyLimit(max_concurrency=10)
    """How many calls it bears at the same time, learned from how long they take."""
    answers: AttemptTimeout = AttemptTimeout()
    """How long its answers take, and so how long to wait for one."""
    retries: RetryBudget = RetryBudget()
    under_way: int = 0
    quiet_since: float = math.inf
    """Since when nothing has been answered of what is under way, in loop time."""

    def is_stalled(self, now: float) -> bool:
        """Tell whether of what is under way nothing has come back for as long as an answer should take.

        Of few calls that is often so, and means little; but then few more are all that can be wanted.
        """
        expected = self.limit.expected_latency
        return self.under_way > 0 < expected and now - self.quiet_since > expected


class Admitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Leave to make one call: what the target becomes, and what has to be handed back."""

    state: TargetState
    permit: Permit
    grant: QuotaGrant | None
    begun: Begun | None


class Later(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Not now, but maybe at loop time `at`, or whenever somebody before in `line` gives back what is short.

    Everybody who looks at a provider that is not in use is told this, and hardly anybody has to tell it.
    """

    provider: str
    line: QueueName
    at: float
    wait: float
    """The seconds until then."""
    short: str | None = None
    """The limit that leaves nothing for now; None where it is the breaker."""
    is_sooner_possible: bool = False
    """Whether a call under way may decide it before `at`."""

    def is_in_time(self, deadline: float) -> bool:
        """Tell whether it may become possible before `deadline`."""
        return self.is_sooner_possible or self.at < deadline

    @property
    def refusal(self) -> NotAdmitted:
        """What a request is told that cannot wait for it."""
        if self.short is None:
            return BreakerOpen(self.provider, retry_after=self.wait)
        return RateLimited(self.short, retry_after=self.wait, provider=self.provider)


class Full(msgspec.Struct, frozen=True, gc=False):
    """Not now, for all of the provider's places are taken: whenever one of the calls there ends.

    Of those who wait for a place everybody is told this at each look, and hardly anybody has to tell it.
    """

    provider: str
    places: int

    @property
    def refusal(self) -> BulkheadFull:
        """What a request is told that has waited in vain."""
        return BulkheadFull(self.provider, max_concurrency=self.places)


class Never(msgspec.Struct, frozen=True):
    """Not for this request."""

    refusal: NotAdmitted


Admission: TypeAlias = Admitted | Later | Full | Never


def admit(
    listing: Listing,
    state: TargetState,
    *,
    weights: Mapping[str, int] = NO_WEIGHTS,
    is_retry: bool,
    now: float,
    deadline: float,
    patience: float = math.inf,
    breaker: BreakerConfig,
) -> Admission:
    """Decide on one call at `now`: time left, breaker, concurrency, throttling, rate, retry budget.

    `patience` is all the time that the request had, of which it has some left until `deadline`. `weights` is what the
    call will use of each limit but "requests", as far as can be told before. Money is not decided on here: it is the
    ledger's, and reserved before what this returns is taken.
    """
    name = listing.provider.name
    if deadline <= now:
        return Never(DeadlineTooShort(needed=listing.provider.response_time, left=0.0, provider=name))
    permission = admit_by_breaker(state.breaker, now=now, config=breaker)
    if isinstance(permission, Refused):
        return _refused_by_breaker(state.breaker, permission, name, now)
    next_breaker, permit = permission
    needed = time_needed(state, permit, now=now, patience=patience, breaker=breaker)
    if deadline - now < needed:
        # It would be abandoned, worked on all the same, and say nothing of the provider.
        return Never(DeadlineTooShort(needed=needed, left=deadline - now, provider=name))
    places = places_of(state, permit, now=now, breaker=breaker)
    if state.under_way >= places:
        return Full(name, places)
    wait = state.learned.wait(now, weights)
    if wait > 0:
        return _refused_until(now, wait, name, short=name, line=queue_of(name))
    taken = state.quota.take(now, weights) if state.quota is not None else (None, None)
    if isinstance(taken, QuotaRefusal):
        return _refused_until(now, taken.wait, name, short=f"{taken.dimension} of {name}", line=queue_of(name))
    retries = state.retries.withdraw(now) if is_retry else state.retries.deposit(now)
    if retries is None:
        return _refused_until(now, state.retries.wait(now), name, short=f"retries of {name}", line=("retries", name))
    quota, grant = taken
    learned, begun = state.learned.take(now, weights)
    after = TargetState(
        breaker=next_breaker,
        quota=quota,
        learned=learned,
        limit=state.limit,
        answers=state.answers,
        retries=retries,
        under_way=state.under_way + 1,
        quiet_since=state.quiet_since if state.under_way else now,
    )
    return Admitted(state=after, permit=permit, grant=grant, begun=begun)


def time_needed(state: TargetState, permit: Permit, *, now: float, patience: float, breaker: BreakerConfig) -> float:
    """Return the seconds that must be left of a request's `patience` for a call to be made; 0.0 while nothing is known.

    That is what an answer takes usually, or at present while there may be a queue; and more from who has just come back
    or is to be probed, because a call that is cut off proves nothing, and loads it all the same. But half of its time
    is enough for any request, unless an answer usually takes longer: where nobody has more, nobody would find out.
    """
    usual = needed = state.limit.usual_latency
    if state.under_way:
        needed = max(needed, state.limit.present_latency)
    if permit.probe:
        needed = PROOF_MARGIN * needed + CHECK_TIME
    elif is_on_probation(state.breaker, now, breaker):
        needed *= PROOF_MARGIN
    return min(needed, max(usual, patience / 2))


def places_of(state: TargetState, permit: Permit, *, now: float, breaker: BreakerConfig) -> int:
    """Return how many calls a provider may have under way: few while it is slow, or has just come back.

    While it fails or does not answer, no more are sent than it takes to open the breaker: they would only be lost, or
    be worked on when nobody waits for them any more. A probe has a place in any case; calls from before the breaker
    opened may take up the others.
    """
    if permit.probe or not isinstance(state.breaker, Closed):
        return state.limit.max_concurrency
    places = state.limit.allowed
    if state.breaker.since is not None:
        places = max(1, int(places * share(state.breaker, now, breaker)))
    if state.breaker.failures >= DOUBTED or state.is_stalled(now):
        return min(places, failures_left(state.breaker, now, breaker))
    return places


def settle(
    state: TargetState,
    admitted: Admitted,
    error: CallFailed | None,
    *,
    answered: bool,
    used: Mapping[str, int] = NO_WEIGHTS,
    heard: Sequence[HeardLimit] = (),
    timeout: float,
    own_timeout: float,
    now: float,
    breaker: BreakerConfig,
    random: float,
) -> TargetState:
    """Return the state after an admitted call has ended: answered, failed with `error`, or neither: cancelled.

    Its place is free again, and so are the tokens of a call that never ran. `used` is what an answer says that the call
    used of each limit, and `heard` what it says of the limits themselves. `timeout` is what the call was given, and
    `own_timeout` what it would have been given without its request's deadline. `random` is a draw from [0, 1).
    """
    permit = admitted.permit
    latency = now - permit.admitted
    timed_out = error is not None and error.blames_provider and latency >= timeout - CLOCK_ERROR
    is_late = timed_out and state.limit.is_slow(latency)
    had_its_time = timed_out and timeout >= own_timeout - CLOCK_ERROR
    # Where others are answered all the time, such a call had too little time to stand in the queue.
    is_at_work = state.quiet_since > permit.admitted and not state.is_stalled(now)
    was_cut_off = timed_out and not had_its_time and (is_at_work or (timeout < own_timeout / 2 and not is_late))
    if answered:
        after = breaker_after_success(state.breaker, permit, now=now, config=breaker, random=random)
    elif error is not None and error.status == STILL_AT_WORK and permit.probe:
        # It works on what it was sent under this key before it was isolated; that tells nothing of what is sent now.
        after = after_inconclusive(state.breaker, permit, now=now, config=breaker)
    elif error is not None and error.blames_provider and not was_cut_off:
        after = after_failure(state.breaker, permit, now=now, config=breaker, random=random)
    else:
        # Also a call that its request's deadline cut off before it had its time.
        after = after_cancellation(state.breaker, permit, now=now)
    limit, answers = state.limit, state.answers
    throttled = isinstance(error, Throttled)
    if answered or throttled or had_its_time or is_late:
        # Also one that was cut off, but late: calls that nobody waits for any more are what an overload lives on.
        limit = limit.after(latency, state.under_way, now, dropped=not answered)
    if answered or had_its_time:
        answers = answers.after(latency, timed_out=timed_out)
    quota = state.quota
    if quota is not None and admitted.grant is not None:
        if isinstance(error, NotAdmitted):
            quota = quota.refund(admitted.grant)
        elif used:
            quota = quota.correct(admitted.grant, used, now)
    learned = what_was_learned(state.learned, admitted, error, answered=answered, heard=heard, now=now, random=random)
    # A timeout or a caller who gives up is no sign of life.
    is_heard = answered or (error is not None and not timed_out)
    return TargetState(
        breaker=after,
        quota=quota,
        learned=learned,
        limit=limit,
        answers=answers,
        retries=state.retries,
        under_way=state.under_way - 1,
        quiet_since=now if is_heard else state.quiet_since,
    )


def what_was_learned(
    learned: LearnedLimit,
    admitted: Admitted,
    error: CallFailed | None,
    *,
    answered: bool,
    heard: Sequence[HeardLimit],
    now: float,
    random: float,
) -> LearnedLimit:
    """Return what the end of a call tells of limits that nobody stated."""
    started = admitted.permit.admitted
    if isinstance(error, NotAdmitted):
        learned = after_no_run(learned, admitted.begun)
    elif isinstance(error, Throttled):
        learned = after_throttled(learned, now, error.retry_after, started=started, random=random)
    elif isinstance(error, QuotaExhausted):
        # Somebody has to pay first; until then it need not be asked by every request.
        learned = after_unpaid(learned, now, error.retry_after or UNPAID_FOR, started=started, random=random)
    elif answered:
        learned = after_success(learned, now, started=started)
    return after_headers(learned, heard, now) if heard else learned


def queue_of(provider: str) -> QueueName:
    """Return the line of those who wait for a provider: for a place, for tokens, or for its breaker."""
    return ("provider", provider)


def _refused_by_breaker(state: BreakerState, refused: Refused, name: str, now: float) -> Later | Never:
    wait = refused.retry_after
    if wait is None:
        return Never(BreakerOpen(name, retry_after=None))
    # A half-open breaker is decided by its probe, which may end at any time.
    is_sooner_possible = isinstance(state, HalfOpen)
    return Later(provider=name, line=queue_of(name), at=now + wait, wait=wait, is_sooner_possible=is_sooner_possible)


def _refused_until(now: float, wait: float, name: str, *, short: str, line: QueueName) -> Later | Never:
    """Refuse for want of what is `short`, for `wait` seconds; for good where that is infinity."""
    if wait == math.inf:
        return Never(RateLimited(short, retry_after=wait, provider=name))
    return Later(provider=name, short=short, line=line, at=now + wait, wait=wait)
