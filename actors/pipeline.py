"""The way of one request, from discovery to its end: found, chosen, admitted, called, classified, settled, decided.

It is fixed, so that nobody can compose it wrongly. What it decides by is elsewhere and pure; here it is waited.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from actors.admission import Admission, Admitted, Later, admit, line_for_money, line_of, settle
from actors.bandit import Answers, Bandit, samples
from actors.breaker import Closed
from actors.discovery import Discover
from actors.errors import Attempt, CallFailed, DeadlineTooShort, RegistryDown
from actors.events import BreakerHalfOpened, CallEnded, Rerouted, Retried
from actors.gateway import Sending
from actors.gateways import is_fresh
from actors.observed import NOTHING as NOTHING_OBSERVED
from actors.observed import load
from actors.quota import NO_WEIGHTS
from actors.routing import after_failure, ends_request, in_order
from actors.selection import ADAPTIVE_STRATEGIES, Signals
from actors.waiting import Line, Wait, WaitingLines
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.gateways import Gateways
    from actors.job import Job
    from actors.market import Market
    from actors.observed import Observed
    from actors.providers import Providers
    from actors.requests import SmartResult
    from actors.target import Target
    from actors.transport import ProviderReply
    from runtime import ActorRef, Context

ADAPTIVE = frozenset(ADAPTIVE_STRATEGIES)
NEW_BANDIT = Bandit()


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

    async def serve(self, job: Job) -> SmartResult:
        """Return the answer to a request; raises a member of `CallFailed`."""
        await self._find_candidates(job)
        while True:
            names = self._names(job)
            if job.message.health_check and self._has_unknown_health(job, names):
                await self._find_unhealthy(job, names)
                names = self._names(job)
            choice = self._choose(job, names)
            if isinstance(choice, Wait):
                await self._lines.wait(job.place, choice)
                continue
            target, admitted = choice
            reply = await self._attempt(job, target, admitted)
            if reply is not None:
                if "bandit" in job.message.strategies:
                    self.answers.note(job.message.service, job.request_id, target.name)
                return job.result(reply, target.name)

    # Found.

    async def _find_candidates(self, job: Job) -> None:
        message = job.message
        question = Discover(service=message.service, where=message.where)
        try:
            found = await self._discovery.ask(question, timeout=message.timeout)
        except RuntimeFault as error:
            raise RegistryDown(message.service, str(error)) from error
        job.candidates = candidates = self._providers.candidates(found, message.needs, message.service)
        job.standing_back = (*candidates.checked_ill, *self._providers.eased_in(candidates))
        if not ADAPTIVE.isdisjoint(message.strategies):
            job.signals = self._signals(job, found.observed)

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
        if not (tried or held_at or job.unhealthy or job.standing_back):
            ranked = job.candidates.ranked(strategies[0])
            if ranked is not None:
                return ranked
        listings = job.candidates.listings
        return in_order(
            [listings[name].provider for name in (listings if held_at is None else (held_at,))],
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

    def _choose(self, job: Job, names: Sequence[str]) -> tuple[Target, Admitted] | Wait:
        """Admit the first who may be called now, or tell what to wait for; raise if there is no hope."""
        now = self._now()
        until, lines, is_hopeful = job.deadline, dict[Line, None](), False
        for name in names:
            target, tried = job.candidates.targets[name], job.tried.get(name)
            if tried is not None and tried.ready_at > now:
                until, is_hopeful = min(until, tried.ready_at), True
                continue
            admission = self._admit(job, target, now)
            if isinstance(admission, Admitted):
                if not self._lines or self._lines.is_first(job.place, line_of(name)):
                    self._consume(job, target, admission, waited=0.0 if tried is None else now - tried.failed_at)
                    return target, admission
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
        raise job.failure()

    # Admitted.

    def _admit(self, job: Job, target: Target, now: float) -> Admission:
        listing = job.candidates.listings[target.name]
        repeats = job.repeats(target)
        return admit(
            listing,
            target.state,
            [purse.account for purse in job.purses],
            amount=0 if repeats else listing.provider.price,
            weights=job.message.weights,
            # A repetition under its key is owed: nobody else may be asked meanwhile.
            is_retry=target.name in job.tried and not repeats,
            now=now,
            deadline=job.deadline,
            breaker=self.market.breaker,
        )

    def _consume(self, job: Job, target: Target, admitted: Admitted, *, waited: float) -> None:
        """Take what the admission decided on, all of it at once, and leave the lines."""
        name, events = target.name, self._events
        target.state = admitted.state
        job.reserve(admitted)
        self._lines.leave(job.place, served=line_of(name))
        job.refused.pop(name, None)
        if admitted.permit.probe:
            events.publish(BreakerHalfOpened(provider=name))
        if name in job.tried:
            events.publish(Retried(request_id=job.request_id, provider=name, waited=waited, attempt=job.calls + 1))
        elif job.last is not None:
            events.publish(
                Rerouted(request_id=job.request_id, provider=name, away_from=job.last, attempt=job.calls + 1)
            )
        job.last = name
        job.calls += 1
        target.calls += 1

    # Called.

    async def _attempt(self, job: Job, target: Target, admitted: Admitted) -> ProviderReply | None:
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
            cost = job.settle(target, admitted, reply, error, sending)
            self._settle(job, target, admitted, reply, error, cost=cost, timeout=call.timeout, own_timeout=own_timeout)
        if error is None:
            return reply
        self._record_failure(job, target, error, started=started, cost=cost)
        if ends_request(error):
            raise error
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
        """Give back what the call took, and let those who wait for it look again."""
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
        target.spent += cost
        target.failures += error is not None and error.blames_provider
        if type(after.breaker) is type(before.breaker):
            target.state = after
        else:
            target.state = msgspec.structs.replace(after, breaker=before.breaker)
            self._providers.become(target, after.breaker)
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
        if not self._lines:
            return
        if after.learned.gated_until > now >= before.learned.gated_until:
            self._lines.wake_all(line_of(target.name))
        self._lines.wake(line_of(target.name))
        if job.message.account is not None:
            self._lines.wake(line_for_money(job.message.account))

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
