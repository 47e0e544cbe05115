"""One attempt at a request: paid for, admitted, called, settled, and decided on, whatever comes between."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import Attempt, BudgetExceeded, CallFailed, ConnectionFailed, OutcomeUnknown, Permanent
from actors.events import BreakerHalfOpened, CallEnded, Hedged, Rerouted, Retried
from actors.ledger.errors import StillUnsettled
from actors.ledger.messages import Reservation
from actors.limits.quota import NO_WEIGHTS
from actors.policies.hedge import see_ended
from actors.provider_gateway.messages import SentMarker
from actors.supervisor.payments.held_call import HeldCall
from actors.supervisor.pipeline.choosing import FUNDS_RECHECK_INTERVAL, Choice, Choosing
from actors.supervisor.pipeline.hedging import Hedging
from actors.supervisor.pipeline.routing import after_failure, ends_request
from actors.supervisor.targets.admission import Admitted, queue_of, settle
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.errors.families import Charged
    from actors.market.market import Market
    from actors.supervisor.payments.funds import Funds
    from actors.supervisor.payments.reconciler import Reconciler
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.gateways import Gateways
    from actors.supervisor.targets.target import Target
    from actors.supervisor.targets.target_table import TargetTable
    from actors.supervisor.targets.waiting import WaitQueues
    from actors.transports.transport import ProviderReply
    from runtime import Context

ADMISSION_MAX_AGE = 0.01
"""Seconds after which an admission is made anew, because money took its time."""


class Attempts:
    """Makes the calls of one supervisor's requests."""

    def __init__(
        self,
        market: Market,
        context: Context,
        choosing: Choosing,
        providers: TargetTable,
        gateways: Gateways,
        lines: WaitQueues,
        spending: Funds,
        reconciler: Reconciler,
    ) -> None:
        self._market = market
        self._context = context
        self._events = context.events
        self._now = context.now
        self._choosing = choosing
        self._providers = providers
        self._gateways = gateways
        self._lines = lines
        self._hedging = Hedging(market.hedge)
        self._spending = spending
        self._reconciler = reconciler

    async def make(self, job: Job, choice: Choice) -> ProviderReply | None:
        """Reserve the money for a call, take what else it consumes, and make it; None for another choice."""
        target, waits = choice.target, choice.admitted is None
        try:
            reservation = await self._spending.reserve(job, target, wait=waits)
        except StillUnsettled as unsettled:
            return await self._take_on(job, unsettled)
        except CallFailed as refusal:
            # Nobody else may be paid either; what was paid before must be told all the same.
            raise job.failure(refusal) from refusal
        if isinstance(reservation, BudgetExceeded):
            reservation.may_free_up = reservation.may_free_up and not waits
            if not job.broke:
                job.broke_until = self._now() + FUNDS_RECHECK_INTERVAL
            job.refused[target.name] = job.broke[target.name] = reservation
            return None
        admitted = self._still_admitted(job, choice)
        if admitted is None:
            self._spending.book(reservation, "no")
            return None
        if admitted.permit.probe and (admitted := await self._check_first(job, target, admitted, reservation)) is None:
            return None
        delay = None
        if not (admitted.permit.probe or job.under_way):
            delay = self._hedging.delay(job, target, self._now())
        if delay is not None:
            return await self._attempt_with_second(job, target, admitted, reservation, delay)
        return await self._attempt(job, target, admitted, reservation)

    async def _take_on(self, job: Job, unsettled: StillUnsettled) -> ProviderReply | None:
        """Go on with a call of an earlier run, or of an instance that crashed, which was held under this key.

        It is looked up, or repeated under the key, as one of this request's own; where neither can be, and others may
        not be paid besides, the request ends here.
        """
        target = job.candidates.targets.get(unsettled.at_provider)
        if unsettled.is_held and target is None and job.message.on_unknown == "pay_again" and not job.may_pay_again:
            job.may_pay_again = job.left_unknown = True  # Who may have been paid is not listed any more.
            return None
        if unsettled.is_held and target is not None:
            with suppress(CallFailed, RuntimeFault):
                self._gateways.open(target)  # Then it is known what its transport can do.
            call = job.call_to(target, timeout=max(job.deadline - self._now(), ADMISSION_MAX_AGE))
            number, amount = unsettled.reservation, unsettled.amount
            job.held = HeldCall(target, call, Reservation(number, job.key, target.name, amount))
            if target.can_tell or (job.message.on_unknown == "pay_again" and not job.repeats(target)):
                found = await self._find_out(job, unsettled)
                if not isinstance(found, CallFailed):
                    job.last = target.name
                    return found
            if job.held is None or job.repeats(target):
                return None
            self._reconciler.keep(job.held)
            job.held = None
        raise job.failure(unsettled) from unsettled

    async def last_resort(self, job: Job) -> ProviderReply | None:
        """Find out what became of a call that could not be repeated; raise where nothing more can be done."""
        failure = job.failure()
        if job.held is None:
            raise failure
        found = await self._find_out(job, failure)
        if not isinstance(found, CallFailed):
            return found
        if job.held is not None:
            raise failure
        return None

    def _still_admitted(self, job: Job, choice: Choice) -> Admitted | None:
        """Take what the call consumes, now that there is money for it; None where that is no longer to be had."""
        target, now = choice.target, self._now()
        admitted = choice.admitted
        if admitted is None or target.state is not choice.before or now > choice.at + ADMISSION_MAX_AGE:
            # The ledger took its time, and others have had theirs.
            job.broke.clear()
            admission = self._choosing.admit(job, target, now)
            if not isinstance(admission, Admitted):
                return None
            admitted = admission
        tried = job.tried.get(target.name)
        self._consume(job, target, admitted, waited=0.0 if tried is None else now - tried.failed_at)
        return admitted

    def _consume(self, job: Job, target: Target, admitted: Admitted, *, waited: float) -> None:
        """Take what the admission decided on, all of it at once, and leave the lines."""
        name, events = target.name, self._events
        target.state = admitted.state
        self._lines.leave(job.place, served=queue_of(name))
        job.refused.pop(name, None)
        if admitted.permit.probe:
            events.publish(BreakerHalfOpened(provider=name))
        if job.under_way:
            events.publish(Hedged(request_id=job.request_id, provider=name, beside=job.last, attempt=job.calls + 1))
        elif name in job.tried:
            events.publish(Retried(request_id=job.request_id, provider=name, waited=waited, attempt=job.calls + 1))
        elif job.last:
            events.publish(
                Rerouted(request_id=job.request_id, provider=name, away_from=job.last, attempt=job.calls + 1)
            )
        job.last = name
        job.calls += 1
        target.calls += 1
        target.used_at = admitted.permit.admitted

    async def _check_first(
        self, job: Job, target: Target, admitted: Admitted, reservation: Reservation
    ) -> Admitted | None:
        """Check a provider that is due for its probe; None where none is made, and its breaker is open again."""
        goes_on = False
        error: CallFailed | None = None
        try:
            is_well = await self._gateways.is_worth_a_probe(target, within=(job.deadline - self._now()) / 2)
            goes_on = is_well and self._now() < job.deadline
            if not is_well:
                error = ConnectionFailed(target.name, "its health check failed")
        finally:
            if not goes_on:  # Also where the caller was cancelled, or the check took all of its time.
                job.calls -= 1
                target.calls -= 1
                self._spending.book(reservation, "no")
                self._give_back(target, admitted, error)
        # The probe begins only now.
        permit = msgspec.structs.replace(admitted.permit, admitted=self._now())
        return msgspec.structs.replace(admitted, permit=permit) if goes_on else None

    async def _attempt(
        self, job: Job, target: Target, admitted: Admitted, reservation: Reservation
    ) -> ProviderReply | None:
        """Make one call and settle it, whatever becomes of it; None where the request may go on elsewhere."""
        # The time of the admission, which found some left.
        started = admitted.permit.admitted
        own_timeout = target.timeout(job.candidates.listings[target.name])
        call = job.call_to(target, timeout=min(own_timeout, job.deadline - started))
        sending = SentMarker()
        reply: ProviderReply | None = None
        error: CallFailed | None = None
        job.under_way += 1
        try:
            reply = await self._gateways.call(target, call, sending)
        except CallFailed as failure:
            error = failure
        finally:
            job.under_way -= 1
            # Also where the caller was cancelled: then there is neither a reply nor an error.
            cost = 0
            try:
                cost = self._pay(job, HeldCall(target, call, reservation), reply, error, sending)
            finally:
                self._settle(
                    job, target, admitted, reply, error, cost=cost, timeout=call.timeout, own_timeout=own_timeout
                )
            if admitted.permit.probe:
                target.probed(is_answered=reply is not None)
        if error is None:
            return reply
        if job.held_at == target.name and target.idempotent == "no" and not isinstance(error, OutcomeUnknown):
            error = _unknown(target.name, error)  # Whatever else it says, it must not be made again.
        if isinstance(error, OutcomeUnknown) and job.held is not None:
            known = job.cost
            found = await self._find_out(job, error)
            if not isinstance(found, CallFailed):
                return found
            error, cost = found, cost + job.cost - known
        self._record_failure(job, target, error, started=started, cost=cost)
        if job.held is not None and isinstance(error, Permanent):
            raise _unknown(target.name, error)
        if ends_request(error) and not (isinstance(error, OutcomeUnknown) and job.message.on_unknown == "pay_again"):
            raise error
        return None

    async def _attempt_with_second(
        self, job: Job, target: Target, admitted: Admitted, reservation: Reservation, delay: float
    ) -> ProviderReply | None:
        """Make one call, and another beside it if it takes longer than `delay`; the first answer wins."""
        loop, started = asyncio.get_running_loop(), self._now()
        seconds: list[asyncio.Task[ProviderReply | None]] = []
        reply: ProviderReply | None = None
        scope = asyncio.timeout(None)
        waits = True

        def end_first() -> None:
            if waits:
                scope.reschedule(self._now())

        try:
            with suppress(TimeoutError):
                async with scope:
                    # The second call takes what it needs once its task has begun: if it never does, nothing is left.
                    timer = loop.call_later(
                        delay, lambda: seconds.append(asyncio.create_task(self._second(job, target, end_first)))
                    )
                    try:
                        reply = await self._attempt(job, target, admitted, reservation)
                    finally:
                        waits = False
                        timer.cancel()
            if reply is not None:
                job.last = target.name
            elif seconds:
                if scope.expired():
                    # It was late, and would have been later still.
                    self._hedging.learn(target, self._now() - started)
                (reply,) = await asyncio.gather(*seconds)
        finally:
            await see_ended(seconds)
        return reply

    async def _second(self, job: Job, first: Target, end_first: Callable[[], None]) -> ProviderReply | None:
        """Make a call to somebody else; one that answers ends the first call, and one that fails leaves it the word."""
        if not self._hedging.take(self._now()):
            return None
        others = [
            name
            for name in self._choosing.names(job)
            if name != first.name and name not in job.tried and not job.candidates.listings[name].provider.price
        ]
        choice = self._choosing.choose(job, others)
        if (
            not isinstance(choice, Choice)
            or choice.admitted is None
            or choice.admitted.permit.probe
            or not self._may_run_twice(choice.target)
        ):
            self._lines.leave(job.place)
            self._hedging.give_back()
            return None
        try:
            reply = await self.make(job, choice)
        except CallFailed:
            return None
        if reply is not None:
            self._hedging.won += 1
            job.last = choice.target.name
            end_first()
        return reply

    def _may_run_twice(self, target: Target) -> bool:
        """Tell whether a call may be one of two; what its transport says of that is known once it is open."""
        with suppress(CallFailed, RuntimeFault):
            self._gateways.open(target)
        return target.idempotent != "no" and not target.paid

    def _pay(
        self,
        job: Job,
        held: HeldCall,
        reply: ProviderReply | None,
        error: CallFailed | None,
        sending: SentMarker,
    ) -> int:
        """Book what a call cost with the ledger, and return it in micro-units."""
        reservation, cost = held.reservation, None if reply is None else reply.cost
        charged: Charged = "yes"
        if reply is None:
            # Of a call whose caller was cancelled nobody knows how far it came, once it was sent.
            charged = error.charged if error is not None else "held" if sending.is_sent else "no"
            if charged == "held" and not (reservation.amount or held.target.paid):
                charged = "no"  # There is nothing to hold.
        elif cost is not None and cost > reservation.amount:
            held.target.overpriced = job.candidates.listings[held.target.name].provider.price
        self._spending.book(reservation, charged, cost)
        if job.held is not None and job.held.reservation.number != reservation.number:
            self._reconciler.keep(job.held)  # It was paid again, and what became of the first is still not known.
        return job.settle(held, charged, cost)

    async def _find_out(self, job: Job, error: CallFailed) -> ProviderReply | CallFailed:
        """Find out whether the call that may have been paid was, before anybody else is; return its answer or failure.

        Where that cannot be found out, it is `error` still, unless the request says that others may be paid besides.
        """
        held = job.held
        assert held is not None  # noqa: S101 - the caller has looked.
        pays_again = job.message.on_unknown == "pay_again"
        finding = None
        if self._now() < job.deadline:
            finding = await self._reconciler.find_out(held, until=self._now() if pays_again else job.deadline)
        if finding is not None:
            return job.found(finding)
        may_be_repeated = job.repeats(held.target) and held.target.name not in job.tried
        if pays_again and not may_be_repeated:
            self._reconciler.keep(held)
            job.held, job.may_pay_again, job.left_unknown = None, True, True
        return error

    def _settle(
        self,
        job: Job,
        target: Target,
        admitted: Admitted,
        reply: ProviderReply | None,
        error: CallFailed | None,
        *,
        cost: int,
        timeout: float,
        own_timeout: float,
    ) -> None:
        """Give back what the call took, and tell how it ended."""
        now, told = self._now(), error if reply is None else reply
        target.spent += cost
        target.failures += error is not None and error.blames_provider
        if reply is not None:
            self._hedging.learn(target, now - admitted.permit.admitted)
        self._give_back(target, admitted, error, reply, timeout=timeout, own_timeout=own_timeout)
        self._events.publish(
            CallEnded(
                request_id=job.request_id,
                provider=target.name,
                service=job.message.service,
                attempt=job.calls,
                latency=now - admitted.permit.admitted,
                cost=cost,
                error="Cancelled" if told is None else None if error is None else error.kind,
                detail=None if error is None else str(error),
                account=job.message.account,
                wire_calls=1 if told is None else told.wire_calls,
            )
        )

    def _give_back(
        self,
        target: Target,
        admitted: Admitted,
        error: CallFailed | None,
        reply: ProviderReply | None = None,
        *,
        timeout: float = math.inf,
        own_timeout: float = math.inf,
    ) -> None:
        """Give back what an admission took, and let those who wait for it look again."""
        now, told = self._now(), error if reply is None else reply
        before = target.state
        after = settle(
            before,
            admitted,
            error,
            answered=reply is not None,
            used=NO_WEIGHTS if reply is None else reply.weights,
            heard=() if told is None else told.limits,
            timeout=timeout,
            own_timeout=own_timeout,
            now=now,
            breaker=self._market.breaker,
            random=self._context.random.random(),
        )
        if type(after.breaker) is type(before.breaker):
            target.state = after
        else:
            target.state = msgspec.structs.replace(after, breaker=before.breaker)
            self._providers.become(target, after.breaker)
        if not self._lines:
            return
        if after.learned.gated_until > now >= before.learned.gated_until:
            self._lines.wake_all(queue_of(target.name))
        self._lines.wake(queue_of(target.name))

    def _record_failure(self, job: Job, target: Target, error: CallFailed, *, started: float, cost: int) -> None:
        now = self._now()
        job.attempts.append(
            Attempt(
                provider=target.name,
                error=str(error),
                kind=error.kind,
                started=started,
                latency=now - started,
                cost=cost,
            )
        )
        tried = job.tried.get(target.name)
        job.tried[target.name] = after_failure(
            error,
            failures=1 if tried is None else tried.failures + 1,
            now=now,
            deadline=job.deadline,
            policy=self._market.retry,
            random=self._context.random.random(),
        )


def _unknown(name: str, error: CallFailed) -> OutcomeUnknown:
    """Say first of a failed call what its caller has to know first: that it may have been paid."""
    unknown = OutcomeUnknown(
        f"{name!r} may have been paid for a call that failed: {error}", provider=name, status=error.status
    )
    unknown.limits, unknown.wire_calls, unknown.__cause__ = error.limits, error.wire_calls, error
    return unknown
