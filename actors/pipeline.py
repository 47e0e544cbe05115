"""The way of one request, from discovery to its end: found, chosen, admitted, called, classified, settled, decided.

It is fixed, so that nobody can compose it wrongly. What it decides by is elsewhere and pure; here it is waited.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.admission import Admission, Admitted, Later, Never, admit, line_of, settle
from actors.bandit import Answers, Bandit, fallen, rated, samples
from actors.breaker import Closed
from actors.discovery import Discover
from actors.errors import (
    Attempt,
    BudgetExceeded,
    CallFailed,
    ConnectionFailed,
    DeadlineTooShort,
    OutcomeUnknown,
    Overpriced,
    RegistryDown,
)
from actors.events import BreakerHalfOpened, CallEnded, Rerouted, Retried
from actors.gateway import Sending
from actors.gateways import is_fresh
from actors.observed import NOTHING as NOTHING_OBSERVED
from actors.observed import load
from actors.quota import NO_WEIGHTS
from actors.reconciler import HeldCall
from actors.routing import after_failure, ends_request, in_order
from actors.selection import ADAPTIVE_STRATEGIES, Signals
from actors.waiting import Line, Wait, WaitingLines
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.errors import Charged
    from actors.gateways import Gateways
    from actors.job import Job
    from actors.ledger_requests import Reservation
    from actors.market import Market
    from actors.observed import Observed
    from actors.providers import Providers
    from actors.reconciler import Reconciler
    from actors.requests import SmartResult
    from actors.spending import Spending
    from actors.target import Target
    from actors.transport import ProviderReply
    from runtime import ActorRef, Context

ADAPTIVE = frozenset(ADAPTIVE_STRATEGIES)
NEW_BANDIT = Bandit()
STILL = 0.01
"""Seconds after which an admission is made anew, because money took its time."""
MONEY_LOOK = 1.0
"""Seconds after which a request that waits for something else looks again whether money has come back."""


class Choice(NamedTuple):
    """Whom to call, and what it would become; without an admission, who could be called if there were money."""

    target: Target
    at: float
    admitted: Admitted | None = None
    before: object = None
    """What the admission was made of."""


class Pipeline:
    """Serves the requests of one supervisor."""

    def __init__(
        self,
        market: Market,
        context: Context,
        discovery: ActorRef[Discover],
        providers: Providers,
        gateways: Gateways,
        lines: WaitingLines,
        spending: Spending,
        reconciler: Reconciler,
    ) -> None:
        self.market = market
        self.bandits: dict[str, Bandit] = {}
        """What scores have told of the providers of each service."""
        self.answers = Answers()
        self._context = context
        self._events = context.events
        self._now = context.now
        self._discovery = discovery
        self._providers = providers
        self._gateways = gateways
        self._lines = lines
        self._spending = spending
        self._reconciler = reconciler

    async def serve(self, job: Job) -> SmartResult:
        """Return the answer to a request; raises a member of `CallFailed`."""
        if job.message.account is not None:
            await self._spending.ensure(job.message.account)
        await self._find_candidates(job)
        while True:
            names = self._names(job)
            if job.message.health_check and self._has_unknown_health(job, names):
                await self._find_unhealthy(job, names)
                names = self._names(job)
            choice = self._choose(job, names)
            if job.broke:
                choice = self._or_for_money(job, names, choice)
            if choice is None:
                reply = await self._last_resort(job)
            elif isinstance(choice, Wait):
                await self._lines.wait(job.place, choice)
                job.broke.clear()
                continue
            else:
                reply = await self._pay_and_attempt(job, choice)
            if reply is not None:
                self.answers.note(job.message.service, job.request_id, job.last)
                return job.result(reply)

    # Found.

    async def _find_candidates(self, job: Job) -> None:
        message = job.message
        question = Discover(service=message.service, where=message.where)
        try:
            found = await self._discovery.ask(question, timeout=message.timeout)
        except RuntimeFault as error:
            raise RegistryDown(message.service, str(error)) from error
        job.candidates = candidates = self._providers.candidates(found, message.needs, message.service)
        job.standing_back = (*candidates.standing_back(), *self._providers.eased_in(candidates))
        bandit = self.bandits.get(message.service)
        if bandit is not None:
            self._rate(job, bandit)
        if not ADAPTIVE.isdisjoint(message.strategies):
            job.signals = self._signals(job, found.observed)

    def _rate(self, job: Job, bandit: Bandit) -> None:
        """Let scores correct what is declared, and let whoever fell far below the others stand back."""
        providers = [listing.provider for listing in job.candidates.listings.values()]
        job.rated = rated(bandit, providers, self._now())
        if "bandit" not in job.message.strategies:  # It tries those again that fell, now and then.
            job.standing_back += tuple(fallen(job.rated, providers))

    def _signals(self, job: Job, observed: Mapping[str, Observed]) -> Signals:
        """Return what the adaptive strategies go by, drawn once for each request."""
        now, dice, listings = self._now(), self._context.random, job.candidates.listings
        loads = {
            name: load(
                listing.provider,
                observed.get(name, NOTHING_OBSERVED),
                under_way=job.candidates.targets[name].state.under_way,
                now=now,
            )
            for name, listing in listings.items()
        }
        bandit = self.bandits.get(job.message.service, NEW_BANDIT)
        return Signals(
            loads=loads,
            draws=(dice.random(), dice.random()),
            samples=samples(bandit, [listing.provider for listing in listings.values()], dice)
            if "bandit" in job.message.strategies
            else {},
        )

    # Chosen.

    def _names(self, job: Job) -> Sequence[str]:
        """Return those who may be called, the one to call first in front."""
        strategies, tried, held_at = job.message.strategies, job.tried, job.held_at
        if not (tried or held_at or job.unhealthy or job.standing_back or job.rated):
            ranked = job.candidates.ranked(strategies[0])
            if ranked is not None:
                return ranked
        listings = job.candidates.listings
        return in_order(
            [job.rated.get(name) or listings[name].provider for name in (listings if held_at is None else (held_at,))],
            tried=tried,
            strategies=strategies,
            unhealthy=(*job.unhealthy, *job.standing_back),
            signals=job.signals,
        )

    def _has_unknown_health(self, job: Job, names: Sequence[str]) -> bool:
        """Tell whether anybody has to be asked: not where the first choice is known to be well."""
        first = job.candidates.targets[names[0]] if names else None
        if first is None or first.health is None or job.unhealthy or job.tried:
            return True
        is_known = is_fresh(first, max_age=self.market.health.max_age, now=self._now())
        return not (is_known and first.health.is_healthy and isinstance(first.state.breaker, Closed))

    async def _find_unhealthy(self, job: Job, names: Sequence[str]) -> None:
        """Check the first choice, and if it is unhealthy the next, and so on, and note the unhealthy ones.

        That takes at most half of the time left: who is not known by then counts as healthy, as without a check.
        """
        if job.unhealthy:
            job.unhealthy = ()
            names = self._names(job)
        now, max_age = self._now(), self.market.health.max_age
        with suppress(TimeoutError):
            async with asyncio.timeout_at(now + (job.deadline - now) / 2):
                for name in names:
                    target = job.candidates.targets[name]
                    if name in job.tried or not isinstance(target.state.breaker, Closed):
                        continue
                    if not is_fresh(target, max_age=max_age, now=self._now()):
                        # Those behind must not wait for the answer too.
                        self._lines.leave(job.place)
                    if (await self._gateways.check(target, max_age=max_age)).is_healthy:
                        break
                    job.unhealthy = (*job.unhealthy, name)

    def _choose(self, job: Job, names: Sequence[str]) -> Choice | Wait | None:
        """Choose the first who may be called now, or tell what to wait for; None if there is no hope."""
        now = self._now()
        until, lines, is_hopeful = job.deadline, dict[Line, None](), False
        for name in names:
            if name in job.broke:
                continue
            target, tried = job.candidates.targets[name], job.tried.get(name)
            if tried is not None and tried.ready_at > now:
                until, is_hopeful = min(until, tried.ready_at), True
                continue
            before = target.state
            admission = self._admit(job, target, now)
            if isinstance(admission, Admitted):
                if not self._lines or self._lines.is_first(job.place, line_of(name)):
                    return Choice(target, now, admission, before)
                # Somebody who came before has been woken, and will be next.
                lines[line_of(name)] = None
                continue
            if not isinstance(admission.refusal, DeadlineTooShort) or not job.refused:
                job.refused[name] = admission.refusal
            if isinstance(admission, Later) and admission.is_in_time(job.deadline):
                lines[admission.line] = None
                if self._lines.is_first(job.place, admission.line):
                    until = min(until, admission.at)
        if (is_hopeful or lines) and now < job.deadline:
            return Wait(tuple(lines), until)
        return None

    def _or_for_money(self, job: Job, names: Sequence[str], choice: Choice | Wait | None) -> Choice | Wait | None:
        """Reckon with money that may come back: wait for it where there is nothing else, or look for it meanwhile."""
        now = self._now()
        first = next((name for name in names if name in job.broke and job.broke[name].may_come), None)
        if first is None or now >= job.deadline:
            return choice
        if isinstance(choice, Wait):
            return Wait(choice.lines, min(choice.until, now + MONEY_LOOK))
        return choice or Choice(job.candidates.targets[first], now)

    # Admitted.

    async def _pay_and_attempt(self, job: Job, choice: Choice) -> ProviderReply | None:
        """Reserve the money for a call, take what else it consumes, and make it; None for another choice."""
        target, waits = choice.target, choice.admitted is None
        try:
            reservation = await self._spending.reserve(job, target, wait=waits)
        except CallFailed as refusal:
            # Nobody else may be paid either; what was paid before must be told all the same.
            raise job.failure(refusal) from refusal
        if isinstance(reservation, BudgetExceeded):
            reservation.may_come = reservation.may_come and not waits
            job.refused[target.name] = job.broke[target.name] = reservation
            return None
        admitted = self._still_admitted(job, choice)
        if admitted is None:
            self._spending.book(reservation, "no")
            return None
        if admitted.permit.probe and (admitted := await self._check_first(job, target, admitted, reservation)) is None:
            return None
        return await self._attempt(job, target, admitted, reservation)

    def _admit(self, job: Job, target: Target, now: float) -> Admission:
        listing = job.candidates.listings[target.name]
        if target.overpriced == listing.provider.price:
            return Never(Overpriced(target.name, quoted=listing.provider.price))
        return admit(
            listing,
            target.state,
            weights=job.message.weights,
            # A repetition under its key is owed: nobody else may be asked meanwhile.
            is_retry=target.name in job.tried and not job.repeats(target),
            now=now,
            deadline=job.deadline,
            patience=job.deadline - job.started,
            breaker=self.market.breaker,
        )

    def _still_admitted(self, job: Job, choice: Choice) -> Admitted | None:
        """Take what the call consumes, now that there is money for it; None where that is no longer to be had."""
        target, now = choice.target, self._now()
        admitted = choice.admitted
        if admitted is None or target.state is not choice.before or now > choice.at + STILL:
            # The ledger took its time, and others have had theirs.
            job.broke.clear()
            admission = self._admit(job, target, now)
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
        self._lines.leave(job.place, served=line_of(name))
        job.refused.pop(name, None)
        if admitted.permit.probe:
            events.publish(BreakerHalfOpened(provider=name))
        if name in job.tried:
            events.publish(Retried(request_id=job.request_id, provider=name, waited=waited, attempt=job.calls + 1))
        elif job.last:
            events.publish(
                Rerouted(request_id=job.request_id, provider=name, away_from=job.last, attempt=job.calls + 1)
            )
        job.last = name
        job.calls += 1
        target.calls += 1

    # Called.

    async def _check_first(
        self, job: Job, target: Target, admitted: Admitted, reservation: Reservation
    ) -> Admitted | None:
        """Check a provider that is due for its probe; None where none is made, and its breaker is open again."""
        is_well = False
        error: CallFailed | None = None
        try:
            is_well = await self._gateways.is_worth_a_probe(target, within=(job.deadline - self._now()) / 2)
            if not is_well:
                error = ConnectionFailed(target.name, "its health check failed")
        finally:
            if not is_well:  # Also where the caller was cancelled.
                job.calls -= 1
                target.calls -= 1
                self._spending.book(reservation, "no")
                self._give_back(target, admitted, error)
        # The probe begins only now.
        permit = msgspec.structs.replace(admitted.permit, admitted=self._now())
        return msgspec.structs.replace(admitted, permit=permit) if is_well else None

    async def _attempt(
        self, job: Job, target: Target, admitted: Admitted, reservation: Reservation
    ) -> ProviderReply | None:
        """Make one call and settle it, whatever becomes of it; None where the request may go on elsewhere."""
        # The time of the admission, which found some left.
        started = admitted.permit.admitted
        own_timeout = target.timeout(job.candidates.listings[target.name])
        call = job.call_to(target, timeout=min(own_timeout, job.deadline - started))
        sending = Sending()
        reply: ProviderReply | None = None
        error: CallFailed | None = None
        try:
            reply = await self._gateways.call(target, call, sending)
        except CallFailed as failure:
            error = failure
        finally:
            # Also where the caller was cancelled: then there is neither a reply nor an error.
            cost = self._pay(job, HeldCall(target, call, reservation), reply, error, sending)
            self._settle(job, target, admitted, reply, error, cost=cost, timeout=call.timeout, own_timeout=own_timeout)
            if admitted.permit.probe:
                target.probed(is_answered=reply is not None)
        if error is None:
            return reply
        if isinstance(error, OutcomeUnknown) and job.held is not None:
            known = job.cost
            found = await self._find_out(job, error)
            if not isinstance(found, CallFailed):
                return found
            error, cost = found, cost + job.cost - known
        self._record_failure(job, target, error, started=started, cost=cost)
        if ends_request(error) and not (isinstance(error, OutcomeUnknown) and job.message.on_unknown == "pay_again"):
            raise error
        return None

    def _pay(
        self,
        job: Job,
        held: HeldCall,
        reply: ProviderReply | None,
        error: CallFailed | None,
        sending: Sending,
    ) -> int:
        """Book what a call cost with the ledger, and return it in micro-units."""
        reservation, cost = held.reservation, None if reply is None else reply.cost
        charged: Charged = "yes"
        if reply is None:
            # Of a call whose caller was cancelled nobody knows how far it came, once it was sent.
            charged = error.charged if error is not None else "held" if sending.is_sent else "no"
            if charged == "held" and not reservation.amount:
                charged = "no"  # There is nothing to hold.
        elif cost is not None and cost > reservation.amount:
            held.target.overpriced = job.candidates.listings[held.target.name].provider.price
        self._spending.book(reservation, charged, cost)
        if job.held is not None and job.held.reservation.number != reservation.number:
            self._reconciler.keep(job.held)  # It was paid again, and what became of the first is still not known.
        return job.settle(held, charged, cost)

    # Found out.

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
        if pays_again:
            self._reconciler.keep(held)
            job.held, job.may_pay_again, job.left_unknown = None, True, True
        return error

    async def _last_resort(self, job: Job) -> ProviderReply | None:
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

    # Settled.

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
            breaker=self.market.breaker,
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
            self._lines.wake_all(line_of(target.name))
        self._lines.wake(line_of(target.name))

    # Decided.

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
            policy=self.market.retry,
            random=self._context.random.random(),
        )
