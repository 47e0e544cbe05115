"""Whether a call to a provider may be made now. Pure.

All or nothing: what an admission would change is returned as new values, and nothing is consumed unless all agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.errors.families import BreakerOpen, BulkheadFull, DeadlineTooShort, NotAdmitted, RateLimited
from actors.limits.learned import LearnedGrant  # noqa: TC001 - msgspec resolves the annotations below.
from actors.limits.quota import NO_WEIGHTS, QuotaGrant, QuotaRefusal
from actors.limits.waiting import Waiting, WaitReason
from actors.money import ZERO, Micros
from actors.policies.breaker.states import BreakerState, Closed, HalfOpen, Permit, Refused
from actors.policies.breaker.transitions import admit as admit_by_breaker
from actors.policies.breaker.transitions import failures_left, is_on_probation, share
from actors.provider_gateway.messages import TRANSPORT_GRACE
from actors.supervisor.targets.dear_answers import DearAnswers  # noqa: TC001 - msgspec resolves this annotation.
from actors.supervisor.targets.probe_time import PROOF_MARGIN, asked_by_probe
from actors.supervisor.targets.refusals import NO_SUBJECT, StandingRefusal, Subject
from actors.supervisor.targets.state import TargetState
from actors.supervisor.targets.waiting import QueueName  # noqa: TC001 - msgspec resolves this annotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.market.listing import Listing
    from actors.policies.breaker.config import BreakerConfig


CHECK_TIME = 2.0
"""Seconds for the health check before a probe."""
FINDING_OUT = 2.0
"""Seconds that a call must have to find out whether a provider still refuses."""
SUSPICIOUS_FAILURES = 2
"""The failures in a row from which on no more calls are made than open the breaker; a single failure is common."""


class Admitted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Leave to make one call: what the target becomes, and what has to be handed back."""

    state: TargetState
    permit: Permit
    grant: QuotaGrant | None
    begun: LearnedGrant | None


class Later(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Not now, but maybe at loop time `at`, or when a call before in `queue` gives back what is short.

    Every request that looks at a provider which is not in use is answered this, and hardly any has to report it:
    so the refusal is made only when it is asked for.
    """

    provider: str
    queue: QueueName
    at: float
    wait: float
    """The seconds until then."""
    short: str | None = None
    """The limit that leaves nothing for now; None if it is the breaker."""
    is_sooner_possible: bool = False
    """Whether a call under way may decide it before `at`."""
    left_for: StandingRefusal | DearAnswers | None = None
    """What the provider is left alone for, if it is."""

    def is_in_time(self, deadline: float) -> bool:
        """Tell whether it may become possible before `deadline`."""
        return self.is_sooner_possible or self.at < deadline

    @property
    def refusal(self) -> NotAdmitted:
        """The error of a request that cannot wait for it."""
        refusal = self._error()
        until = None if self.at == math.inf else self.at
        refusal.waiting = Waiting(
            reason=self.reason, until=until, evidence=str(refusal.args[0]), provider=self.provider
        )
        return refusal

    @property
    def reason(self) -> WaitReason:
        """What it waits for."""
        if self.left_for is not None:
            return "left alone"
        if self.short is None:
            return "probe" if self.is_sooner_possible else "breaker"
        if self.queue[0] == "retries":
            return "retries"
        return "learned limit" if self.short == self.provider else "stated limit"

    def _error(self) -> NotAdmitted:
        if self.left_for is not None:
            return self.left_for.error(self.provider, self.wait)
        if self.short is None:
            return BreakerOpen(self.provider, retry_after=self.wait)
        return RateLimited(self.short, retry_after=self.wait, provider=self.provider)


class Full(msgspec.Struct, frozen=True, gc=False):
    """Not now, because all of the provider's places are taken: whenever one of the calls there ends.

    `given_up` of the places are taken by threads of calls for which no caller waits any more.
    """

    provider: str
    places: int
    given_up: int = 0

    @property
    def refusal(self) -> BulkheadFull:
        """The error of a request that has waited in vain."""
        return BulkheadFull(self.provider, max_concurrency=self.places, given_up=self.given_up)


class Never(msgspec.Struct, frozen=True):
    """Not for this request."""

    refusal: NotAdmitted


Admission: TypeAlias = Admitted | Later | Full | Never


class CallNeeds(msgspec.Struct, frozen=True):
    """What a call would take of its provider, and the time that its request has.

    `weights` is what it will use of each limit but "requests", as far as is known before. `patience` is all the seconds
    that the request had, some of which are left until its `deadline`, in loop time. `subject` is what refusals go by,
    and `price` what is listed for it, in micro-units.
    """

    deadline: float
    weights: Mapping[str, int] = NO_WEIGHTS
    is_retry: bool = False
    patience: float = math.inf
    subject: Subject = NO_SUBJECT
    price: Micros = ZERO


def admit(listing: Listing, state: TargetState, needs: CallNeeds, *, now: float, breaker: BreakerConfig) -> Admission:
    """Decide on one call at `now`.

    The order is: time left, breaker, refusals, dear answers, concurrency, throttling, rate, retry budget. Money is not
    decided on here: it is the ledger's, and reserved before what this returns is taken.
    """
    name, time_left = listing.provider.name, needs.deadline - now
    if time_left <= 0:
        return Never(DeadlineTooShort(needed=listing.provider.response_time, left=0.0, provider=name))
    within = math.inf if type(state.breaker) is Closed else most_time(listing, time_left)  # It is for a probe.
    permission = admit_by_breaker(state.breaker, now=now, config=breaker, within=within)
    if isinstance(permission, Refused):
        return _refused_by_breaker(state.breaker, permission, name, now)
    next_breaker, permit = permission
    if (state.refusals.all or state.dear is not None) and (left := _left_for(state, needs, now)) is not None:
        return _left_alone(name, *left, now=now)
    # With as much time as `time_needed` can ask for at most, there is no need to ask.
    has_plenty = time_left >= max(state.limit.usual_latency, needs.patience / 2)
    needed = 0.0 if has_plenty else time_needed(state, permit, now=now, patience=needs.patience, breaker=breaker)
    if time_left < needed:
        # It would be abandoned, worked on all the same, and say nothing of the provider.
        return Never(DeadlineTooShort(needed=needed, left=time_left, provider=name))
    # There is always one place, at least.
    if state.under_way and state.under_way >= (places := places_of(state, permit, now=now, breaker=breaker)):
        return Full(name, places)
    wait = state.learned.wait(now, needs.weights)
    if wait > 0:
        return _refused_until(now, wait, name, short=name, queue=queue_of(name))
    taken = state.quota.take(now, needs.weights) if state.quota is not None else (None, None)
    if isinstance(taken, QuotaRefusal):
        return _refused_until(now, taken.wait, name, short=f"{taken.dimension} of {name}", queue=queue_of(name))
    retries = state.retries.withdraw(now) if needs.is_retry else state.retries.deposit(now)
    if retries is None:
        return _refused_until(now, state.retries.wait(now), name, short=f"retries of {name}", queue=("retries", name))
    (quota, grant), (learned, begun) = taken, state.learned.take(now, needs.weights)
    after = TargetState(
        breaker=next_breaker,
        quota=quota,
        learned=learned,
        limit=state.limit,
        answers=state.answers,
        retries=retries,
        refusals=state.refusals.tried(needs.subject) if state.refusals.all else state.refusals,
        dear=state.dear.tried() if state.dear is not None and state.dear.price == needs.price else state.dear,
        under_way=state.under_way + 1,
        quiet_since=state.quiet_since if state.under_way else now,
        hanging=state.hanging,
        probe_cut=state.probe_cut,
    )
    return Admitted(state=after, permit=permit, grant=grant, begun=begun)


def renewed(state: TargetState, admitted: Admitted, needs: CallNeeds, *, now: float) -> Admitted | None:
    """Return an admission with `now` as the time at which its call begins; None if it may not begin any more.

    What it took stays taken. Meanwhile the time may have passed, the breaker opened, or the provider refused a call.
    """
    permit, taken = admitted.permit, admitted.state
    if now >= needs.deadline or permit.epoch != state.breaker.epoch or state.learned.gated_until > now:
        return None
    is_refused = state.refusals != taken.refusals or state.dear != taken.dear
    if is_refused and _left_for(state, needs, now) is not None:
        return None
    return msgspec.structs.replace(admitted, permit=msgspec.structs.replace(permit, admitted=now))


def most_time(listing: Listing, left: float) -> float:
    """Return the seconds that a call may take at most, of which `left` are left to its request, with its check."""
    return min(listing.timeout + CHECK_TIME, left) + TRANSPORT_GRACE


def time_needed(state: TargetState, permit: Permit, *, now: float, patience: float, breaker: BreakerConfig) -> float:
    """Return the seconds that must be left of a request's `patience` for a call to be made; 0.0 while nothing is known.

    That is what an answer takes usually, or at present while there may be a queue. It is more for a provider that has
    just come back or is to be probed, because a call that is cut off proves nothing and loads it all the same. But half
    of its time is enough for any request, unless an answer usually takes longer: if all requests have little time, one
    of them must find out.
    """
    usual = needed = state.limit.usual_latency
    if state.under_way:
        needed = max(needed, state.limit.present_latency)
    if permit.probe:
        needed = asked_by_probe(needed, state.probe_cut) + CHECK_TIME
    elif is_on_probation(state.breaker, now, breaker):
        needed *= PROOF_MARGIN
    if state.refusals.all:
        # How long a refusal takes may not be known, and a call that is cut off does not find out if it still refuses.
        needed = max(needed, FINDING_OUT)
    return min(needed, max(usual, patience / 2))


def places_of(state: TargetState, permit: Permit, *, now: float, breaker: BreakerConfig) -> int:
    """Return how many calls a provider may have under way: few while it is slow, or has just come back.

    While it fails or does not answer, no more are made than it takes to open the breaker: more would only be lost, or
    be worked on when no caller waits for them any more. Calls that others have overtaken hang by themselves, and are no
    sign of that. A probe always has a place; calls from before the breaker
    opened may take up the others.
    """
    if permit.probe or not isinstance(state.breaker, Closed):
        return state.limit.max_concurrency
    places = state.limit.allowed
    if state.breaker.since is not None:
        places = max(1, int(places * share(state.breaker, now, breaker)))
    if state.breaker.failures >= SUSPICIOUS_FAILURES or state.is_stalled(now):
        return min(places, failures_left(state.breaker, now, breaker) + state.stragglers)
    return places


def queue_of(provider: str) -> QueueName:
    """Return the wait queue of a provider: for a place, for tokens, or for its breaker."""
    return ("provider", provider)


def _refused_by_breaker(state: BreakerState, refused: Refused, name: str, now: float) -> Later | Never:
    wait = refused.retry_after
    if wait is None:
        return Never(BreakerOpen(name, retry_after=None))
    # A half-open breaker is decided by its probe, which may end at any time.
    is_sooner_possible = isinstance(state, HalfOpen)
    return Later(provider=name, queue=queue_of(name), at=now + wait, wait=wait, is_sooner_possible=is_sooner_possible)


def _left_for(state: TargetState, needs: CallNeeds, now: float) -> tuple[StandingRefusal | DearAnswers, float] | None:
    """Return what a provider is left alone for, as far as it concerns a call, and for how many seconds."""
    if (left := state.refusals.wait(needs.subject, now)) is not None:
        refusal, wait = left
        return refusal.told_to(needs.subject.tenant), wait
    dear = state.dear
    if dear is None or dear.price != needs.price or (wait := dear.wait(now)) <= 0:
        return None
    return dear, wait


def _left_alone(name: str, reason: StandingRefusal | DearAnswers, wait: float, *, now: float) -> Later | Never:
    """Refuse because the provider is left alone: for this request, if it is for a name in its input, else for now."""
    if isinstance(reason, StandingRefusal) and reason.service is not None:
        return Never(reason.error(name, wait))
    return Later(
        provider=name,
        queue=queue_of(name),
        at=now + wait,
        wait=wait,
        is_sooner_possible=wait == math.inf,  # The call that finds out may end at any time.
        left_for=reason,
    )


def _refused_until(now: float, wait: float, name: str, *, short: str, queue: QueueName) -> Later | Never:
    """Refuse because `short` leaves nothing, for `wait` seconds; for good if that is infinity."""
    if wait == math.inf:
        return Never(RateLimited(short, retry_after=wait, provider=name))
    return Later(provider=name, short=short, queue=queue, at=now + wait, wait=wait)
