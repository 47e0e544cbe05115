"""One attempt at a request: paid for, admitted, called, settled and decided on, wherever it is cancelled."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import (
    Attempt,
    BadAnswer,
    BudgetExceeded,
    CallFailed,
    ConnectionFailed,
    ConsumerLeft,
    OutcomeUnknown,
    Permanent,
    StreamBroken,
)
from actors.events import BreakerHalfOpened, CallEnded, CostUnreadable, Hedged, Rerouted, Retried
from actors.ledger.errors import RiskExceeded, StillUnsettled
from actors.ledger.messages import Costing, Reservation
from actors.money import micros_of
from actors.policies.breaker.states import Closed
from actors.provider_gateway.messages import SentMarker
from actors.supervisor.messages import MAX_TIMEOUT
from actors.supervisor.payments.charge import NOTHING, Charge, charge_of
from actors.supervisor.payments.held_call import HeldCall
from actors.supervisor.payments.kept_answers import answer_of, cut_of
from actors.supervisor.pipeline.again import has_had_all_attempts, is_at_work, next_look
from actors.supervisor.pipeline.item_trial import judged, own_timeout, time_after_hanging
from actors.supervisor.pipeline.money_state import ENOUGH
from actors.supervisor.pipeline.recovery import reconcile, take_on, unknown_outcome
from actors.supervisor.pipeline.routing import Tried, after_failure, ends_request
from actors.supervisor.pipeline.shared_quota import acquire
from actors.supervisor.pipeline.tracing import begin_call, begin_wait
from actors.supervisor.targets.admission import Admitted
from actors.supervisor.targets.probe_time import ProbeTime, asked_by_probe, spare_for, time_of_call, time_of_probe
from actors.supervisor.targets.reasons import by_refusal
from actors.supervisor.targets.settlement import CLOCK_ERROR, EndedCall
from actors.supervisor.targets.windows import no_larger
from actors.transports.streaming import Restarted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.ledger.receipt import PaidAnswer, Purchase
    from actors.limits.concurrency import ConcurrencyLimit
    from actors.supervisor.pipeline.choosing import Choice
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.pipeline.shared_quota import QuotaShare
    from actors.supervisor.targets.state import TargetState
    from actors.tracing.spans import CallSpan, Span
    from actors.transports.streaming import CallStream
    from actors.transports.transport import ProviderCall, ProviderReply

ADMISSION_MAX_AGE = 0.001
"""Seconds after which an admission is looked at again, because reserving the money took its time."""


class AttemptRun:
    """One call, from its reservation to its settlement. `begin` takes what it needs, and then `call` makes it."""

    _reservation: Reservation
    _admitted: Admitted
    _before: TargetState | None = None
    """The provider's state before the call took what it consumes; None until then."""
    _turn: int | None = None
    """The number of its request in the queue that it has left for that, 0 if it is that of its arrival."""
    _cost: int = 0
    _share: QuotaShare | None = None
    _was_amplified: bool = False
    _span: CallSpan | None = None
    """What tells of it in the trace of its request."""
    _time_given: float = 0.0
    """The seconds that a call has which others may join."""

    def __init__(self, deps: Deps, job: Job, choice: Choice) -> None:
        self.target = choice.target
        self.job = job
        self.deps = deps
        self._choice = choice
        listing = job.candidates.listings[choice.target.name]
        self._quote = job.quote(choice.target)
        self._marker = SentMarker()
        self.quota = listing.quota
        """The quota that its provider shares with others, if it does."""

    async def begin_in_quota(self, quota: str) -> Admitted | ProviderReply | None:
        """Take from a shared quota, and then as `begin` does; if anything else refuses, that is given back.

        A request that waits for money does that first: what it took of the quota would be idle as long.
        """
        begun: Admitted | ProviderReply | None = None
        self._share = self._choice.share
        try:
            if self._choice.admitted is None or self._share is not None or await self._has_acquired(quota):
                begun = await self.begin()
        finally:
            if self._share is not None and not isinstance(begun, Admitted):
                self._share.give_back()
        return begun

    async def _has_acquired(self, quota: str) -> bool:
        self._share = await acquire(self.deps, self.job, self.target.name, quota)
        return self._share is not None

    async def begin(self) -> Admitted | ProviderReply | None:
        """Reserve the money for the call, and take what else it consumes.

        Returns None for another choice, or the answer to a call of an earlier run that was found instead.
        """
        deps, job, choice = self.deps, self.job, self._choice
        waits = choice.admitted is None
        now = choice.at if self._share is None else deps.context.now()
        waiting: Span | None = None
        if waits:
            job.wait_for(choice, now)
            waiting = None if job.trace is None else begin_wait(deps, job)
        elif not self._take(now):
            return None
        is_granted = False
        try:
            reservation = await self._reserve(wait=waits, now=now)
            is_granted = isinstance(reservation, Reservation)
        finally:
            job.waits_for = None
            if waiting is not None:
                waiting.end(deps.context.now())
            if not (waits or is_granted):
                self._give_back(now)  # Also if the caller was cancelled.
        if isinstance(reservation, CallFailed):
            return await self._refused(reservation, waited=waits)
        self._reservation = reservation
        if waits and self.quota is not None and not await self._has_acquired_besides(self.quota):
            return None
        now = deps.context.now()
        if not self._is_still_admitted(now):
            deps.payments.book(reservation, NOTHING)
            return None
        job.refused.pop(self.target.name, None)
        if job.last:
            self._announce(now)
        job.last, job.called_at, job.waits_since = self.target.name, now, None
        job.calls += 1
        if self._admitted.permit.probe and not await self._passes_check():
            return None
        return self._admitted

    async def _reserve(self, *, wait: bool, now: float) -> Reservation | CallFailed:
        """Reserve what the call is quoted at, or what a shorter answer costs, or return why that cannot be."""
        deps, job, target = self.deps, self.job, self.target
        while True:
            reservation = await deps.payments.reserve(
                job.wish(target, self._quote, holder=deps.context.ref, wait=wait),
                job.candidates.listings[target.name],
                now=now,
                until=job.deadline,
                refused=job.money.short_of.get(target.name),
            )
            if not isinstance(reservation, BudgetExceeded):
                return reservation
            shorter = job.shorter_quote(target, self._quote, reservation)
            if shorter is None:
                return reservation
            self._quote, now = shorter, deps.context.now()

    async def _has_acquired_besides(self, quota: str) -> bool:
        """Take from a shared quota, now that there is money; if it is short, the money is given back."""
        has_acquired = False
        try:
            has_acquired = await self._has_acquired(quota)
        finally:
            if not has_acquired:
                self.job.money = ENOUGH  # It is asked for anew once there is something of the quota.
                self.deps.payments.book(self._reservation, NOTHING)
        return has_acquired

    async def _refused(self, refusal: CallFailed, *, waited: bool) -> ProviderReply | None:
        """Go on from a refusal of the ledger.

        There are four cases: 1. Too much would be at risk of being paid twice. 2. A call is held under this key.
        3. There is no money for this provider. 4. No provider may be paid.
        """
        job, name = self.job, self.target.name
        if isinstance(refusal, RiskExceeded):
            job.hold_again(refusal.reservation)
            raise job.failure(refusal) from refusal
        if isinstance(refusal, StillUnsettled):
            return await take_on(self.deps, job, refusal)
        if isinstance(refusal, BudgetExceeded):
            now = self.deps.context.now()
            renews = refusal.retry_after is not None and now + refusal.retry_after < job.deadline
            refusal.may_free_up = (refusal.may_free_up or renews) and not waited
            refusal.waiting = by_refusal(refusal, now)
            job.money = job.money.after_refusal(name, refusal, now=now)
            job.refused[name] = refusal
            return None
        # What was paid before must be told all the same.
        raise job.failure(refusal) from refusal

    def _take(self, now: float) -> bool:
        """Take what the call consumes at its provider; False if it is not admitted any more."""
        job, target, choice = self.job, self.target, self._choice
        admitted, before = choice.admitted, choice.before
        if admitted is None or target.state is not before or now > choice.at + ADMISSION_MAX_AGE:
            # Meanwhile the provider's state has changed, or may have.
            job.money = ENOUGH
            before = target.state
            admission = target.admit(job.candidates.listings[target.name], job.needs(target), now=now)
            if not isinstance(admission, Admitted):
                return False
            admitted = admission
        target.take(admitted)
        self._admitted, self._before = admitted, before
        if job.entry.has_come_by:
            self._turn = job.entry.turns.get(target.queue, 0)
            self.deps.queues.leave(job.entry, served=target.queue)
        return True

    def _is_still_admitted(self, now: float) -> bool:
        """Tell whether the call may be made, now that there is money for it; if not, nothing is taken any more."""
        target = self.target
        if self._before is None:
            if not self._take(now):
                return False
        elif target.state is not self._admitted.state or now > self._admitted.permit.admitted + ADMISSION_MAX_AGE:
            # The money took its time, as with a slow disk.
            renewed = target.renew(self._admitted, self.job.needs(target), now=now)
            if renewed is None:
                self._give_back(now)
                return False
            self._admitted = renewed
        reserved = self._reservation.amount + self._reservation.overdrawn
        if target.state.dear is not None and reserved < target.to_reserve(self._quote):
            self._give_back(now)  # Meanwhile an answer has cost more than was reserved.
            return False
        return True

    def _give_back(self, now: float) -> None:
        """Give back what was taken for a call that is not made."""
        assert self._before is not None  # noqa: S101 - it was taken.
        self.target.give_back(self._admitted, self._before, self.job.needs(self.target), now=now)
        self._come_back()

    def _come_back(self) -> None:
        """Let the request have its old place in the queue of its provider, and the next one there look."""
        queues, name = self.deps.queues, self.target.queue
        if self._turn is not None:
            self.job.entry.turns.pop(name, None)
            if self._turn:
                self.job.entry.turns[name] = self._turn
        if queues:
            queues.wake(name)

    def _announce(self, now: float) -> None:
        """Publish why this call is made, if it is not the first of its request."""
        job, name, events = self.job, self.target.name, self.deps.events
        request_id, attempt = job.request_id, job.calls + 1
        if job.under_way:
            job.beside = job.last
            events.publish(Hedged(request_id=request_id, provider=name, beside=job.last, attempt=attempt))
        elif name in job.looks:
            pass  # It is at work on this request, which is no retry.
        elif (tried := job.tried.get(name)) is not None:
            waited = now - tried.failed_at
            events.publish(Retried(request_id=request_id, provider=name, waited=waited, attempt=attempt))
        elif job.last:
            events.publish(Rerouted(request_id=request_id, provider=name, away_from=job.last, attempt=attempt))

    async def _passes_check(self) -> bool:
        """Check a provider that is due for its probe; False if none is made.

        There are three cases: 1. The check fails, and the breaker is open again. 2. The probe would cost its request
        all of its time, and the check stands in for it: the breaker is closed. 3. The probe is made.
        """
        job, target, now, permit = self.job, self.target, self.deps.context.now, self._admitted.permit
        is_costly, passes, is_vouched = self._may_cost_when_cut(), False, False
        error: CallFailed | None = None
        try:
            is_well = await target.is_worth_a_probe(within=(job.deadline - now()) / 2, is_costly=is_costly)
            is_vouched = is_well and is_costly and target.vouches(permit)
            passes = is_well and not is_vouched and now() < job.deadline
            if not is_well:
                error = ConnectionFailed(target.name, "its health check failed")
        finally:
            if not passes:  # Also if the caller was cancelled, or the check took all of its time.
                job.calls -= 1
                target.calls -= 1
                self.deps.payments.book(self._reservation, NOTHING)
                ended = EndedCall(now(), error=error, subject=job.subject, is_failed_check=error is not None)
                target.settle(self._admitted, ended)
                if is_vouched:
                    target.close_by_check(permit)
        if passes:
            # The probe begins only now.
            self.deps.events.publish(BreakerHalfOpened(provider=target.name))
            permit = msgspec.structs.replace(self._admitted.permit, admitted=now())
            self._admitted = msgspec.structs.replace(self._admitted, permit=permit)
        return passes

    async def call(self) -> ProviderReply | None:
        """Make the call and settle it, whatever becomes of it; None if the request may go on elsewhere."""
        job, target, permit = self.job, self.target, self._admitted.permit
        started, is_probe = permit.admitted, permit.probe  # The time of the admission, which found some left.
        own_time, left = own_timeout(job, target, is_probe=is_probe), job.deadline - started
        given, may_cost = ProbeTime(left), False
        if is_probe:
            given, may_cost = self._time_of_probe(left), self._may_cost_when_cut()
        elif own_time > left / 2 and not self._may_cost_when_cut():
            given = ProbeTime(time_of_call(target.state.limit, left=left, spare=spare_for(self._others())))
        unhurried, hurried = min(own_time, given.seconds), math.inf
        if job.item_failures or job.beside is not None:
            hurried = time_after_hanging(job, target, now=started)
        first = math.inf if (stream := job.message.stream) is None or stream.first is None else stream.first
        time_given = min(unhurried, hurried, first)
        call = job.call_to(target, self._quote, timeout=time_given, left=left)
        reply: ProviderReply | None = None
        error: CallFailed | None = None
        self._was_amplified = target.is_amplified
        call.notes.on_handle = partial(self.deps.payments.note_handle, self._reservation)
        if job.is_shared:
            self._let_grow(call, time_given, longest=min(own_time, hurried, first))
        job.under_way += 1
        try:
            reply = await (target.call(call, self._marker) if job.trace is None else self._call_traced(call, started))
        except CallFailed as failure:
            error = failure
        finally:
            job.under_way -= 1
            call.notes.on_handle = None
            time_given = self._time_given if job.give_time.pop(self, None) else time_given
            # Also if the caller was cancelled: then there is neither a reply nor an error.
            now = self.deps.context.now()
            proof = min(given.proof, own_time, first)
            ended = EndedCall(now, reply, error, time_given, own_time, job.subject, self._quote, proof)
            if call.stream is not None:
                ended = msgspec.structs.replace(ended, first_at=call.stream.first_at, interval=call.stream.interval)
            if error is not None:
                # What may have been paid for nothing always counts, so that no more of it is risked.
                configured = job.candidates.listings[target.name].timeout
                free_until = 0.0 if self._may_cost_when_cut() else configured
                ended = msgspec.structs.replace(ended, configured=configured, free_until=free_until)
                ended = judged(job, target, ended, started=started, was_hurried=hurried < unhurried)
            self._settle(call, ended)
        if error is None:
            return reply
        if may_cost and now >= job.deadline - CLOCK_ERROR:
            error = that_of_a_probe(error, target.name)
        was_cut = given.is_cut and time_given < own_time and ended.heard_at >= started + time_given - CLOCK_ERROR
        return await self._failed(error, call.stream, started=started, is_counted=not was_cut)

    async def _call_traced(self, call: ProviderCall, started: float) -> ProviderReply:
        """Make the call within a span of its own, if its request is recorded, and tell its provider of the trace."""
        trace, reserved = self.job.trace, self._reservation.amount
        assert trace is not None  # noqa: S101 - the caller has looked.
        self._span, call = begin_call(trace, self.job, self.target, call, started=started, reserved=reserved)
        work = self.target.call(call, self._marker)
        return await (work if self._span is None else self._span.around(work))

    def _let_grow(self, call: ProviderCall, time_given: float, *, longest: float) -> None:
        """Let a call under way be given more time, because another request has joined that has more.

        A call without a stream, and the first piece of a stream, have at most the `longest` that the provider is given.
        """
        self._time_given = time_given
        call.notes.longest = max(longest, time_given) if call.stream is None else MAX_TIMEOUT

        def give_time(seconds: float) -> None:
            to_first = max(0.0, min(seconds, longest - self._time_given))
            self._time_given += to_first
            if call.stream is not None:
                call.stream.first += to_first
            call.notes.give_time(to_first if call.stream is None else seconds, to_first)

        self.job.give_time[self] = give_time

    def _time_of_probe(self, left: float) -> ProbeTime:
        """Return the time of this call, which is a probe; it is cut if that helps its request, or others that wait."""
        job, target = self.job, self.target
        state = target.state
        asked = asked_by_probe(state.limit.usual_latency, state.probe_cut)
        spare: float | None = None
        if not self._may_cost_when_cut():
            spare = spare_for(self._others())
            if spare is None and self.deps.queues.has_waiters(target.queue):
                spare = 0.0
        return time_of_probe(asked, left=left, patience=job.deadline - job.started, spare=spare)

    def _may_cost_when_cut(self) -> bool:
        """Tell whether it would be unknown what this call costs if it were cut off."""
        return self.target.is_charged_when_cut and bool(self.target.paid or self._reservation.amount)

    def _others(self) -> Iterator[ConcurrencyLimit]:
        """Yield the limits of the providers that could serve the request if this call fails."""
        job = self.job
        for name, other in job.candidates.targets.items():
            tried = job.tried.get(name)
            may_serve = tried is None or tried.ready_at < job.deadline
            if other is not self.target and may_serve and isinstance(other.state.breaker, Closed):
                yield other.state.limit

    def _settle(self, call: ProviderCall, ended: EndedCall) -> None:
        """Pay for the call, give back what it took, and publish how it ended."""
        job, target, admitted = self.job, self.target, self._admitted
        latency, error = ended.heard_at - admitted.permit.admitted, ended.error
        try:
            self._cost = self._pay(call, ended)
        finally:
            target.spent += self._cost
            target.failures += error is not None and error.blames_provider and not ended.is_blameless
            if ended.reply is not None:
                if self.deps.hedge_budget.config is not None:
                    self.deps.hedge_budget.learn(target, latency)
                target.history.add_answer(ended.now)
                target.probe_check = target.probe_check.after_answer()
            target.settle(admitted, ended)
            if self._share is not None:
                self._share.settle(ended)
            told = ended.reply or error
            if told is not None and told.wire_calls > 1:
                target.note_hidden_calls(told.wire_calls - 1)
            first_piece = None if ended.first_at is None else latency
            if first_piece is not None:
                target.stream_figures.learn(first_piece, ended.interval)
            events = self.deps.events
            if events.wants(CallEnded):
                events.publish(
                    CallEnded(
                        request_id=job.request_id,
                        provider=target.name,
                        service=job.message.service,
                        attempt=job.calls,
                        latency=latency,
                        cost=micros_of(self._cost),
                        error="Cancelled" if told is None else None if error is None else error.kind,
                        detail=None if error is None else str(error),
                        account=job.message.account,
                        wire_calls=1 if told is None else told.wire_calls,
                        is_blameless=ended.is_blameless,
                        first_piece=first_piece,
                        piece_interval=ended.interval,
                    )
                )
            if self._span is not None:
                self._end_span(self._span, ended, first_piece)
        if admitted.permit.probe:
            target.probed(is_answered=ended.reply is not None)

    def _end_span(self, span: CallSpan, ended: EndedCall, first_piece: float | None) -> None:
        """Tell in the trace of the request how the call ended, and what it cost."""
        attributes = {"understudy.cost": self._cost, "understudy.held": self.job.kept_for(self._reservation)}
        span.end_call(ended.now, ended.reply, ended.error, first_piece=first_piece, attributes=attributes)

    def _pay(self, call: ProviderCall, ended: EndedCall) -> int:
        """Book what the call was charged with the ledger, and return it in micro-units."""
        job, target, reservation, payments = self.job, self.target, self._reservation, self.deps.payments
        reply, error = told_of(call, ended)
        charge = charge_of(
            reply,
            error,
            sent=self._marker.is_sent,
            reserved=reservation.amount,
            paid=target.paid,
            tokens=self._quote.tokens,
        )
        if charge.charged == "no" and job.held is None and is_at_work(ended.error, target.idempotent):
            if reservation.amount > 0 or target.paid:
                charge = Charge("held")  # The call that is at work under the key may be charged.
        elif charge.charged == "yes" and charge.cost is None and not job.repeats(target):
            # It may be less than what was reserved, which follows the dearest answer.
            charge = msgspec.structs.replace(charge, cost=self._quote.price)
        if charge.cost is not None and charge.cost > self._quote.price:
            target.flag(self._quote, charge.cost, request_id=job.request_id)
        answer: PaidAnswer | None = None
        if job.purchase is not None and charge.charged != "no":
            answer = self._kept(job.purchase, call, ended, is_charged=charge.charged == "yes")
        if charge.charged == "held" and answer is not None:
            payments.keep_failure(answer, provider=target.name)
            answer = None
        payments.book(reservation, charge, answer)
        if ended.error is not None and ended.heard_at >= self._admitted.permit.admitted + ended.timeout - CLOCK_ERROR:
            target.is_charged_when_cut = charge.charged != "no"
        if ended.reply is not None and ended.reply.unread_cost is not None:
            self.deps.events.publish(
                CostUnreadable(
                    request_id=job.request_id,
                    provider=target.name,
                    stated=ended.reply.unread_cost,
                    settled=reservation.amount if charge.cost is None else charge.cost,
                )
            )
        if job.held is not None and job.held.reservation.number != reservation.number:
            # It was paid again, and what became of the first call is still not known.
            payments.reconcile_later(job.held)
        held = self._held(call) if charge.charged == "held" else None
        return job.charge(reservation, charge, held)

    def _kept(self, purchase: Purchase, call: ProviderCall, ended: EndedCall, *, is_charged: bool) -> PaidAnswer | None:
        """Return what is kept of a call that was charged, or may have been.

        There are three cases: 1. It was answered. 2. It was a stream, and ended early: what came of it is kept. 3. It
        failed: its error is kept only if the request ends with it.
        """
        job, reply, error = self.job, ended.reply, ended.error
        if reply is not None and error is None:
            return answer_of(purchase, reply, paid_before=job.cost, pieces=job.pieces)  # 1.
        if is_charged:
            job.charged_error = error
        if call.stream is None or call.stream.first_at is None or isinstance(error, BadAnswer):
            return None  # 3.
        if not is_charged and call.notes.handle is not None:
            return None  # The next request under the key takes it up, and gets all of it.
        told, failure = told_of(call, ended)
        if told is not None and failure is None and call.stream.told is told:
            return answer_of(
                purchase, told, paid_before=job.cost, pieces=job.pieces
            )  # 1., as its request was cancelled.
        so_far = told if failure is None or failure.answer is None else failure.answer
        why = "its consumer had left" if failure is None else str(failure)
        job.has_kept_cut = True
        return cut_of(purchase, so_far, why=why, paid_before=job.cost, pieces=job.pieces)  # 2.

    def _held(self, call: ProviderCall) -> HeldCall:
        """Return a call that may have been paid, with what is kept for it."""
        job = self.job
        held = HeldCall(self.target, call, self._reservation, self._quote.tokens)
        held.purchase, held.paid_before = job.purchase, job.cost
        return held

    async def _failed(
        self, error: CallFailed, stream: CallStream | None, *, started: float, is_counted: bool
    ) -> ProviderReply | None:
        """Decide what follows a failure: an answer found later, None for another choice, or the end of the request."""
        job, target = self.job, self.target
        if stream is not None and stream.first_at is not None and target.asked_after and job.held_at == target.name:
            return await self._cut_and_held(error, stream, started=started, is_counted=is_counted)
        speaks_for_itself = isinstance(error, OutcomeUnknown | BadAnswer | ConsumerLeft)
        if stream is not None and stream.first_at is not None and not speaks_for_itself:
            error = StreamBroken(target.name, error)
        if job.held_at == target.name and target.idempotent == "no" and not isinstance(error, OutcomeUnknown):
            error = unknown_outcome(target.name, error)  # Whatever else it says, it must not be made again.
        if isinstance(error, OutcomeUnknown) and job.held is not None:
            known = job.cost
            found = await reconcile(self.deps, job, error)
            if not isinstance(found, CallFailed):
                if stream is not None and stream.first_at is not None:
                    await self._restart(broken_but_found(target.name, error, found), stream)
                return found
            error = found
            self._cost += job.cost - known
        self._record(error, started=started, is_counted=is_counted)
        if job.held is not None and isinstance(error, Permanent):
            raise unknown_outcome(target.name, error)
        goes_on = isinstance(error, OutcomeUnknown) and job.goes_on_besides
        message = job.message
        ends = ends_request(error, on_refused=message.on_refused, on_bad_answer=message.on_bad_answer)
        if ends and not goes_on:
            raise error
        if stream is not None and stream.first_at is not None:
            await self._restart(error, stream)
        return None

    async def _cut_and_held(self, error: CallFailed, stream: CallStream, *, started: float, is_counted: bool) -> None:
        """Go on from a stream that broke off after its first piece, and of which only the cost can be found out, later.

        Its money is held. If its consumer has another provider begin anew, it is settled whole, as estimated, so that
        the budget counts it, and what is found out corrects that.
        """
        job, held = self.job, self.job.held
        assert held is not None  # noqa: S101 - the caller has looked.
        broken = error if isinstance(error, ConsumerLeft) else StreamBroken(self.target.name, error)
        broken.outcome, broken.charged = "unknown", "held"
        restarts = self._may_restart(stream) and not isinstance(broken, ConsumerLeft)
        if restarts:
            tokens = self._quote.tokens
            costing = Costing(basis="estimated", tariff=None if tokens is None else tokens.tariff)
            charge = Charge("yes", self._quote.price, costing)
            self.deps.payments.book(held.reservation, charge)
            self._cost = job.charge(held.reservation, charge, None)
            held.is_settled = True
            self.deps.payments.reconcile_later(held)
        self._record(broken, started=started, is_counted=is_counted)
        if not restarts:
            raise broken
        await self._restart(broken, stream)

    def _may_restart(self, stream: CallStream) -> bool:
        terms, after_cut = self.job.message.stream, self.job.message.after_cut
        if terms is None or after_cut == "fail":
            return False
        return not (stream.is_committed if after_cut == "restart" else terms.sink.is_committed)

    async def _restart(self, error: CallFailed, stream: CallStream) -> None:
        """Tell the consumer that what came is void; raises `error` if it cannot be, or need not be."""
        message = self.job.message
        if message.stream is None or not self._may_restart(stream):
            raise error
        await message.stream.put(Restarted(provider=self.target.name, error=str(error)), self.target.streams)
        self.job.stream = None  # An answer that is found now is none of which pieces came.

    def _record(self, error: CallFailed, *, started: float, is_counted: bool) -> None:
        """Note the failure of this attempt, and when its provider may be tried again.

        A probe that was cut is not counted, if any retry is allowed: it found out something for all requests, and none
        should pay for that.
        """
        job, name, context = self.job, self.target.name, self.deps.context
        now, tried = context.now(), job.tried.get(name)
        if is_at_work(error, self.target.idempotent):
            looks = job.looks[name] = job.looks.get(name, 0) + 1
            if looks > 1 and job.attempts[-1].provider == name:
                job.attempts.pop()  # The last of these answers in a row stands for them all.
            random = self.deps.backoffs.draw()
            look = next_look(looks, now=now, deadline=job.deadline, random=random, retry_after=error.retry_after)
            job.tried[name] = Tried(0 if tried is None else tried.failures, now, look)
        else:
            self._try_again_later(error, tried, now, is_counted=is_counted)
        job.attempts.append(
            Attempt(
                provider=name,
                error=str(error),
                kind=error.kind,
                started=started,
                latency=now - started,
                cost=micros_of(self._cost),
                may_cost=job.kept_for(self._reservation),
                said=error.said,
                retry_after=error.retry_after,
            )
        )
        if isinstance(error, Permanent) and error.concerns == "window":
            job.leave_out(no_larger(job.candidates.listings, name) or {name: 0})

    def _try_again_later(self, error: CallFailed, tried: Tried | None, now: float, *, is_counted: bool) -> None:
        """Note when the provider may be tried again after a failure, if at all."""
        job, target = self.job, self.target
        policy = self.deps.market.retry
        failures = (0 if tried is None else tried.failures) + (is_counted or not policy.max_retries)
        job.looks.pop(target.name, None)
        again = after_failure(
            error,
            failures=failures,
            now=now,
            deadline=job.deadline,
            policy=policy,
            random=self.deps.backoffs.draw(),
        )
        if has_had_all_attempts(failures, is_amplified=target.is_amplified, was_amplified=self._was_amplified):
            again = Tried(failures, now, math.inf)
        job.tried[target.name] = again


def told_of(call: ProviderCall, ended: EndedCall) -> tuple[ProviderReply | None, CallFailed | None]:
    """Return the reply and the error by which a call is paid.

    A stream that ended in the moment in which its request was cancelled tells what it cost all the same. A call without
    one that was cancelled costs what its transport has noted, if that is known.
    """
    reply, error, stream = ended.reply, ended.error, call.stream
    if stream is None:
        return (call.notes.owed if reply is None and error is None else reply), error
    if reply is None and error is None:
        if isinstance(stream.told, CallFailed):
            error = stream.told
        else:
            reply = stream.told
    return reply or stream.partial, error


def broken_but_found(name: str, error: CallFailed, found: ProviderReply) -> StreamBroken:
    """Return the error of a stream that broke off, and whose whole answer was found afterwards."""
    broken = StreamBroken(name, error)
    broken.outcome, broken.charged, broken.answer = "done", "yes", found
    return broken


def that_of_a_probe(error: CallFailed, name: str) -> CallFailed:
    """Say of a failure that its call was a probe, which was given all of its request's time, and why.

    It is a copy: a transport may raise one error for many calls.
    """
    told = copy.copy(error)
    what = error.args[0] if error.args else error.kind
    why = f"it was the probe of {name!r}, and kept its whole deadline because it may be paid though it is cut off"
    told.args, told.__cause__ = (f"{what}; {why}",), error.__cause__
    return told
