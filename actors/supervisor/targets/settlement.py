"""What a provider's state becomes when an admitted call has ended. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import CallFailed, NotAdmitted, Throttled
from actors.limits.learned import (
    LearnedLimit,
    ThrottledCall,
    after_headers,
    after_no_run,
    after_success,
    after_throttled,
)
from actors.limits.quota import NO_WEIGHTS
from actors.policies.breaker.states import Closed
from actors.policies.breaker.transitions import (
    after_cancellation,
    after_failed_check,
    after_failure,
    after_hasty_failure,
    after_inconclusive,
)
from actors.policies.breaker.transitions import after_success as breaker_after_success
from actors.supervisor.targets import refusals
from actors.supervisor.targets.dear_answers import DearAnswers, after_charge, after_no_charge
from actors.supervisor.targets.hanging import NONE_HANG, HangingCalls
from actors.supervisor.targets.quote import FREE, Quote, told_cost
from actors.supervisor.targets.refusals import NO_SUBJECT, Refusals, Subject
from actors.supervisor.targets.state import TargetState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.limits.attempt_timeout import AttemptTimeout
    from actors.limits.concurrency import ConcurrencyLimit
    from actors.money import Micros
    from actors.policies.breaker.config import BreakerConfig
    from actors.policies.breaker.states import BreakerState, Permit
    from actors.supervisor.targets.admission import Admitted, CallNeeds
    from actors.transports.transport import ProviderReply

CLOCK_ERROR = 1e-3
"""Seconds by which a timer may be early, and sums of times be off."""
STILL_AT_WORK = 409
"""The status of an answer to a call whose idempotency key is still at work."""
NO_LIMIT = float("inf")
HASTE = 1.5
"""A call was given too little to prove a failure if so many times as much is configured."""
LONGEST_HOLD = 1.0
"""Seconds for which no call begins after a 429, unless another one is served."""


class EndedCall(msgspec.Struct, frozen=True):
    """How a call ended, at loop time `now`: with a `reply`, with an `error`, or with neither if it was cancelled.

    `timeout` is what the call was given, in seconds, and `own_timeout` what it would have been given without the
    deadline of its request. A probe counts against its provider if it has waited in vain for `proof` seconds, though it
    was cut off. `subject` is what of the request a refusal may concern, and `quote` what is listed for the call.
    `is_blameless` says that the item is to blame for the error, or the deadline of a stream that was still coming, and
    `has_hung_alone` that it timed out while others were answered as usual. `first_at` is when the first piece of a
    stream came, and `interval` the mean seconds between two. `configured` is what is configured for such a call, if it
    has failed, and `free_until` that too, if it costs nothing to cut it off before; else 0. `is_failed_check` says that
    the call was a probe that was not made, because the health check before it failed. `presumed_to_hang` is the share
    of calls that is presumed to hang at its provider, if that is hardly known, and hangs at others.
    """

    now: float
    reply: ProviderReply | None = None
    error: CallFailed | None = None
    timeout: float = NO_LIMIT
    own_timeout: float = NO_LIMIT
    subject: Subject = NO_SUBJECT
    quote: Quote = FREE
    proof: float = NO_LIMIT
    is_blameless: bool = False
    first_at: float | None = None
    interval: float | None = None
    has_hung_alone: bool = False
    configured: float = 0.0
    free_until: float = 0.0
    is_failed_check: bool = False
    presumed_to_hang: float = 0.0

    @property
    def cost(self) -> Micros | None:
        """What its answer cost, as far as that is told."""
        reply, tokens = self.reply, self.quote.tokens
        if reply is None or (tokens is None and reply.usage is None):
            return None if reply is None else reply.cost  # As with most providers, and for every call.
        return told_cost(reply, tokens).cost

    @property
    def is_dear(self) -> bool:
        """Whether its answer cost more than is listed for it."""
        reply = self.reply
        if reply is None or (reply.cost is None and reply.usage is None and self.quote.tokens is None):
            return False  # As with most providers: they state no cost.
        cost = self.cost
        return cost is not None and cost > self.quote.price

    @property
    def used(self) -> Mapping[str, int]:
        """What its call used of limits, as far as its answer tells, and that can be."""
        reply = self.reply
        if reply is None:
            return NO_WEIGHTS
        if reply.weights or reply.usage is None or reply.usage.is_empty:
            return reply.weights
        tokens = self.quote.tokens
        return reply.usage.weights() if tokens is None or tokens.is_credible(reply.usage) else NO_WEIGHTS

    @property
    def heard_at(self) -> float:
        """When the answer came; of a stream, its first piece: how long the rest takes is for its length to say."""
        return self.now if self.first_at is None else self.first_at

    @property
    def told(self) -> ProviderReply | CallFailed | None:
        """What the provider said: its reply, or else its error."""
        return self.error if self.reply is None else self.reply


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """What the time that a call took says of its provider."""

    timed_out: bool
    """It used all the time it was given, and the provider is to blame."""
    had_its_time: bool
    """And that was all the time such a call is ever given."""
    is_late: bool
    """And it took unusually long, whatever it was given."""
    was_cut_off: bool
    """The deadline of its request cut it off too early for it to prove anything."""
    was_hasty: bool = False
    """It was given much less than is configured, because answers used to come sooner; the next ones are given more."""
    hung_alone: bool = False
    """Calls that began later were answered meanwhile, as fast as usual."""
    is_common: bool = False
    """Calls hang alone so often that it was to be expected."""

    @property
    def proves_nothing(self) -> bool:
        """Whether it says nothing of the provider's health."""
        return self.was_cut_off or self.hung_alone or self.is_common


IN_TIME = Judgement(timed_out=False, had_its_time=False, is_late=False, was_cut_off=False)


def settle(
    state: TargetState,
    admitted: Admitted,
    ended: EndedCall,
    *,
    breaker: BreakerConfig,
    random: float,
    learns: bool = True,
) -> TargetState:
    """Return the state after an admitted call has ended.

    Its place is free again, and so are the tokens of a call that never ran. `random` is a draw from [0, 1). Without
    `learns`, limits that were not stated are not learned.
    """
    error, answered = ended.error, ended.reply is not None
    latency = ended.heard_at - admitted.permit.admitted
    judged = IN_TIME if error is None else judge(state, admitted, ended)
    limit, answers = timed_after(state, ended, judged, latency=latency)
    permit = admitted.permit if ended.first_at is None else as_heard(admitted.permit, ended)
    quota = state.quota
    if quota is not None and admitted.grant is not None:
        used = ended.used
        if isinstance(error, NotAdmitted):
            quota = quota.refund(admitted.grant)
        elif used:
            quota = quota.correct(admitted.grant, used, ended.now)
    # A timeout or a cancelled caller is no sign of life.
    is_sign_of_life = answered or (error is not None and not judged.timed_out)
    return TargetState(
        breaker=breaker_after_success(state.breaker, permit, now=ended.now, config=breaker, random=random)
        if answered
        else breaker_after(state.breaker, admitted, ended, judged, config=breaker, random=random),
        quota=quota,
        learned=learned_after(state, admitted, ended, random=random) if learns else state.learned,
        limit=limit,
        answers=answers,
        retries=state.retries,
        refusals=state.refusals
        if answered and not state.refusals.all
        else refusals_after(state.refusals, admitted, ended, random=random),
        dear=None
        if state.dear is None and not ended.is_dear
        else dear_after(state.dear, admitted, ended, random=random),
        under_way=state.under_way - 1,
        quiet_since=ended.now if is_sign_of_life else state.quiet_since,
        hanging=state.hanging
        if answered and state.hanging is NONE_HANG
        else hanging_after(state, judged, answered=answered),
        probe_cut=0.0 if answered else latency if judged.timed_out and admitted.permit.probe else state.probe_cut,
    )


def given_back(state: TargetState, admitted: Admitted, needs: CallNeeds, *, now: float) -> TargetState:
    """Return the state after an admitted call was not made, because there is no money for it."""
    started = admitted.permit.admitted
    quota = state.quota
    if quota is not None and admitted.grant is not None:
        quota = quota.refund(admitted.grant)
    return msgspec.structs.replace(
        state,
        breaker=after_cancellation(state.breaker, admitted.permit, now=now),
        quota=quota,
        learned=after_no_run(state.learned, admitted.begun),
        retries=state.retries.give_back() if needs.is_retry else state.retries,
        refusals=refusals.after_failure(state.refusals, None, needs.subject, started=started, now=now, random=0.0),
        dear=after_no_charge(state.dear, started=started),
        under_way=state.under_way - 1,
    )


def timed_after(
    state: TargetState, ended: EndedCall, judged: Judgement, *, latency: float
) -> tuple[ConcurrencyLimit, AttemptTimeout]:
    """Return what the time that a call took tells of how many calls a provider bears, and how long to wait for one."""
    limit, answers, answered = state.limit, state.answers, ended.reply is not None
    if ended.is_blameless or ended.has_hung_alone:
        # How long such an item takes says nothing of others.
        return limit, answers.after(latency, timed_out=judged.timed_out) if answered else answers
    if answered or ((judged.had_its_time or judged.is_late) and not judged.is_common):
        # A late call counts although it was cut off: overload lives on calls that no caller waits for any more.
        limit = limit.after(latency, state.under_way, ended.now, dropped=not answered)
    if judged.had_its_time and (judged.hung_alone or judged.is_common):
        answers = answers.after_hanging(latency, had_all=latency >= ended.configured - CLOCK_ERROR)
    elif answered or judged.had_its_time:
        answers = answers.after(latency, timed_out=judged.timed_out)
    return limit, answers


def hanging_after(state: TargetState, judged: Judgement, *, answered: bool) -> HangingCalls:
    """Return what the end of a call tells of single calls that hang."""
    before = state.hanging
    if type(state.breaker) is not Closed:
        return before.after_trip()
    if not (answered or judged.timed_out):
        return before
    return before.after(answered=answered, hung_alone=judged.hung_alone)


def judge(state: TargetState, admitted: Admitted, ended: EndedCall) -> Judgement:
    """Tell what the time that a call took says of its provider."""
    error, permit = ended.error, admitted.permit
    assert error is not None  # noqa: S101 - an answer is judged `IN_TIME`.
    latency = ended.heard_at - permit.admitted
    timed_out = error.blames_provider and latency >= ended.timeout - CLOCK_ERROR
    is_late = timed_out and state.limit.is_slow(latency)
    had_its_time = timed_out and ended.timeout >= ended.own_timeout - CLOCK_ERROR
    # If other calls are answered all the time, this one had too little time to stand in the provider's queue.
    is_at_work = state.quiet_since > permit.admitted and not state.is_stalled(ended.now)
    had_too_little = is_at_work or (ended.timeout < ended.own_timeout / 2 and not is_late)
    if permit.probe and ended.timeout >= ended.proof - CLOCK_ERROR:
        had_too_little = False
    return Judgement(
        timed_out,
        had_its_time,
        is_late,
        was_cut_off=timed_out and not had_its_time and had_too_little,
        was_hasty=timed_out and not permit.probe and ended.own_timeout * HASTE <= ended.free_until,
        hung_alone=timed_out and not permit.probe and state.limit.hangs_alone(latency, ended.now),
        is_common=timed_out
        and not permit.probe
        and state.hanging.is_common(ended.presumed_to_hang)
        and not state.limit.answers_slowly,
    )


def as_heard(permit: Permit, ended: EndedCall) -> Permit:
    """Return the permit of a stream to a breaker, to which a call takes the time until it is heard."""
    admitted = permit.admitted + ended.now - ended.heard_at
    return msgspec.structs.replace(permit, admitted=admitted, interval=ended.interval)


def breaker_after(
    before: BreakerState,
    admitted: Admitted,
    ended: EndedCall,
    judged: Judgement,
    *,
    config: BreakerConfig,
    random: float,
) -> BreakerState:
    """Return what a breaker becomes after a call that was not answered.

    There are four cases: 1. A probe was told that its key is still at work, which says nothing of new calls. 2. A check
    spared the probe. 3. The provider is to blame, or was given little time. 4. The call was cancelled, cut off early,
    hung alone, or failed by the fault of its caller or its item.
    """
    error, permit, now = ended.error, admitted.permit, ended.now
    if ended.first_at is not None:
        permit = as_heard(permit, ended)
    if error is not None and error.status == STILL_AT_WORK and permit.probe:
        return after_inconclusive(before, permit, now=now, config=config)
    if ended.is_failed_check:
        return after_failed_check(before, permit, now=now, config=config, random=random)
    if error is not None and error.blames_provider and not (judged.proves_nothing or ended.is_blameless):
        if judged.was_hasty:
            return after_hasty_failure(before, permit, now=now, config=config)
        return after_failure(before, permit, now=now, config=config, random=random)
    return after_cancellation(before, permit, now=now)


def learned_after(state: TargetState, admitted: Admitted, ended: EndedCall, *, random: float) -> LearnedLimit:
    """Return what the end of a call tells of limits that were not stated."""
    learned = state.learned
    started, error, now = admitted.permit.admitted, ended.error, ended.now
    if isinstance(error, NotAdmitted):
        learned = after_no_run(learned, admitted.begun)
    elif isinstance(error, Throttled):
        # Those under way tell soon whether it was a stray one; if they take long, that is not waited for.
        hold = min(LONGEST_HOLD, 2 * state.limit.usual_latency or LONGEST_HOLD) if state.under_way > 1 else 0.0
        learned = after_throttled(learned, now, ThrottledCall(error.retry_after, started, hold), random=random)
    elif ended.reply is not None:
        learned = after_success(learned, now, started=started)
    told = error if ended.reply is None else ended.reply
    return after_headers(learned, told.limits, now) if told is not None and told.limits else learned


def refusals_after(before: Refusals, admitted: Admitted, ended: EndedCall, *, random: float) -> Refusals:
    """Return what the end of a call tells of what the provider refuses."""
    started = admitted.permit.admitted
    if ended.reply is not None:
        return refusals.after_answer(before, ended.subject, started=started)
    return refusals.after_failure(before, ended.error, ended.subject, started=started, now=ended.now, random=random)


def dear_after(
    before: DearAnswers | None, admitted: Admitted, ended: EndedCall, *, random: float
) -> DearAnswers | None:
    """Return what the end of a call tells of a provider that charges more than it lists."""
    started = admitted.permit.admitted
    if ended.reply is None:
        return after_no_charge(before, started=started)
    return after_charge(before, ended.quote, ended.cost, started=started, now=ended.now, random=random)
