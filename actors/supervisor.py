"""Answers requests by whichever provider can: the fixed pipeline, with breaker and fallback as supervision.

A provider whose breaker opens is isolated: its gateway is stopped and requests are rerouted. When its wait is over, a
fresh gateway is started for exactly one probe.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors.accounts import Accounts
from actors.admission import Admission, Admitted, Later, admit, line_for_money, line_of, settle
from actors.bandit import Answers, Bandit, ScoreAnswer, after_score, fallen, rated, samples
from actors.breaker import BreakerState, Closed, HalfOpen, Open, isolate, release, share
from actors.discovery import Discover, Discovery, registry_of
from actors.errors import Attempt, CallFailed, ConnectionFailed, DeadlineTooShort, NoProvider, Permanent, RegistryDown
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded, RequestEnded, Rerouted, Retried
from actors.gateway import Sending
from actors.gateways import Gateways, is_fresh
from actors.job import Job
from actors.observed import NOTHING as NOTHING_OBSERVED
from actors.observed import load
from actors.preflight import NO_REQUIREMENT, fits
from actors.provider_watch import CHECK_FAILED
from actors.quota import NO_WEIGHTS
from actors.rate_limiter import Acquire, RateLimiter
from actors.requests import (
    CloseAccount,
    GetStatus,
    Isolate,
    OpenAccount,
    OpenQuota,
    Release,
    SmartRequest,
    SmartResult,
    TargetStatus,
)
from actors.routing import after_failure, ends_request, in_order
from actors.selection import ADAPTIVE_STRATEGIES, Signals
from actors.target import Target
from actors.waiting import Line, Wait, WaitingLines
from runtime import Actor, ActorRef, Request, RuntimeFault, handles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from actors.account import Account
    from actors.discovery import Registry
    from actors.market import Listing, Market
    from actors.observed import Observed
    from actors.transport import ProviderReply

ADAPTIVE = frozenset(ADAPTIVE_STRATEGIES)
NEW_BANDIT = Bandit()
MAX_REQUESTS = 100_000
"""The requests that can be under way at the same time."""


class Supervisor(
    Actor[SmartRequest | OpenAccount | CloseAccount | OpenQuota | ScoreAnswer | Isolate | Release | GetStatus]
):
    """Serves `SmartRequest`s over the providers of a market; see the module's text for how."""

    def __init__(self, market: Market, *, registry: Registry | None = None) -> None:
        self.market = market
        self.registry = registry or registry_of(market)
        self.targets: dict[str, Target] = {one.provider.name: Target(one) for one in market.providers}
        self.accounts = Accounts()
        self.quotas = self.begun = 0
        self.ended: Counter[str] = Counter()
        """The requests that were begun, and those that have ended: done, failed or unknown."""
        self.lines = WaitingLines()
        self.bandits: dict[str, Bandit] = {}
        """What scores have told of the providers of each service."""
        self.answers = Answers()

    def started(self) -> None:
        self.gateways = Gateways(self.context, self.market.health)
        self.discovery = self.context.spawn(lambda: Discovery(self.registry, self.market.discovery), name="discovery")

    @handles(SmartRequest, concurrent=MAX_REQUESTS)
    async def serve(self, message: SmartRequest) -> SmartResult:
        """Serve one request from discovery to answer."""
        job = self._begin(message)
        error: str | None = "Cancelled"
        detail: str | None = None
        provider: str | None = None
        try:
            if message.account is not None:
                job.purses = (*job.purses, self.accounts.draw_on(message.account))
            await self._find_candidates(job)
            result = await self._try_until_done(job)
            error, provider = None, result.provider
        except CallFailed as failure:
            error, detail = failure.kind, str(failure)
            raise
        else:
            return result
        finally:
            self._end(job, is_done=error is None)
            self.context.events.publish(
                RequestEnded(
                    request_id=job.request_id,
                    service=message.service,
                    provider=provider,
                    attempts=job.calls,
                    latency=self.context.now() - job.started,
                    cost=job.cost,
                    error=error,
                    detail=detail,
                )
            )

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str:
        """Open an account, and return its name."""
        return self.accounts.open(message.name, cap=message.cap)

    @handles(CloseAccount)
    def close_account(self, message: CloseAccount) -> Account | asyncio.Future[Account]:
        """Close an account at once, and answer when the last request that draws on it has ended."""
        return self.accounts.close(message.name)

    @handles(OpenQuota)
    def open_quota(self, message: OpenQuota) -> ActorRef[Acquire]:
        """Start a limiter."""
        self.quotas += 1
        return self.context.spawn(
            lambda: RateLimiter(message.name, rate=message.rate, burst=message.burst), name=f"quota-{self.quotas}"
        )

    @handles(ScoreAnswer)
    def score(self, message: ScoreAnswer) -> None:
        """Learn how good an answer was."""
        provider = self.answers.scored(message)
        if provider is None:
            raise Permanent(f"no answer to request {message.request_id!r} is remembered; name its provider")
        bandit = self.bandits.get(message.service, NEW_BANDIT)
        self.bandits[message.service] = after_score(bandit, provider, message.score, now=self.context.now())

    @handles(Isolate)
    def isolate(self, message: Isolate) -> None:
        """Isolate a provider by hand."""
        target = self._target(message.provider)
        self._become(target, isolate(target.state.breaker))

    @handles(Release)
    def release(self, message: Release) -> None:
        """Release a provider by hand."""
        target = self._target(message.provider)
        self._become(target, release(target.state.breaker))

    @handles(GetStatus, concurrent=100)
    async def status(self, message: GetStatus) -> tuple[TargetStatus, ...]:
        """Tell the state of every provider."""
        targets = list(self.targets.values())
        if message.check_health:
            await asyncio.gather(*(self.gateways.check(target, max_age=0.0) for target in targets))
        return tuple(target.status() for target in targets)

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        """Undo what was opened for somebody who had gone before the answer came."""
        if isinstance(request, OpenAccount):
            self.accounts.close(answer)
        elif isinstance(request, OpenQuota):
            answer.stop()

    # The pipeline.

    def _begin(self, message: SmartRequest) -> Job:
        now, asked_until = self.context.now(), self.context.deadline
        self.begun += 1
        return Job(
            message,
            message.request_id or f"{self.context.random.getrandbits(128):032x}",
            started=now,
            # Whoever asks may have less time than the request allows.
            deadline=min(now + message.timeout, math.inf if asked_until is None else asked_until),
        )

    def _end(self, job: Job, *, is_done: bool) -> None:
        """Leave nothing behind, whatever became of the request."""
        self.lines.leave(job.place)
        for purse in job.purses[1:]:
            self.accounts.leave(purse)
        self.ended["done" if is_done else "failed" if job.held_at is None else "unknown"] += 1

    async def _find_candidates(self, job: Job) -> None:
        message = job.message
        question = Discover(service=message.service, where=message.where)
        try:
            found = await self.discovery.ask(question, timeout=message.timeout)
        except RuntimeFault as error:
            raise RegistryDown(message.service, str(error)) from error
        dropped: Counter[str] = Counter()
        for listing in found.listings:
            name = listing.provider.name
            why_not = None if message.needs is NO_REQUIREMENT else fits(listing.provider, message.needs)
            if why_not is not None:
                dropped[why_not] += 1
                continue
            job.candidates[name] = self._listed(listing)
            job.listings[name] = listing
        if not job.listings:
            raise NoProvider(message.service, offered=len(found.listings), dropped=dropped)
        # What breakers and limits say is seen here first hand, and no mark must outlast it. Of who is not in use now a
        # check says nothing that its breaker does not decide.
        job.standing_back = (
            *(
                name
                for name, why in found.standing_back.items()
                if why == CHECK_FAILED and isinstance(self.targets[name].state.breaker, Closed)
            ),
            *self._eased_in(job),
        )
        bandit = self.bandits.get(message.service)
        if bandit is not None:
            providers = [listing.provider for listing in job.listings.values()]
            job.rated = rated(bandit, providers, self.context.now())
            if "bandit" not in message.strategies:  # It tries those again that fell, now and then.
                job.standing_back += tuple(fallen(job.rated, providers))
        if not ADAPTIVE.isdisjoint(message.strategies):
            job.signals = self._signals(job, found.observed)

    def _eased_in(self, job: Job) -> Iterator[str]:
        """Name the providers that have just come back, and whose part of the requests this one is not of."""
        now, config = self.context.now(), self.market.breaker
        for name, target in job.candidates.items():
            part = share(target.state.breaker, now, config)
            if part < 1 and self.context.random.random() >= part:
                yield name

    def _signals(self, job: Job, observed: Mapping[str, Observed]) -> Signals:
        """Return what the adaptive strategies go by, drawn once for each request."""
        now, dice = self.context.now(), self.context.random
        loads = {
            name: load(
                listing.provider,
                observed.get(name, NOTHING_OBSERVED),
                under_way=job.candidates[name].state.under_way,
                now=now,
            )
            for name, listing in job.listings.items()
        }
        bandit = self.bandits.get(job.message.service, NEW_BANDIT)
        return Signals(
            loads=loads,
            draws=(dice.random(), dice.random()),
            samples=samples(bandit, [listing.provider for listing in job.listings.values()], dice)
            if "bandit" in job.message.strategies
            else {},
        )

    def _listed(self, listing: Listing) -> Target:
        """Return the target of a listing, which may be new or say something new."""
        name = listing.provider.name
        target = self.targets.get(name)
        if target is None:
            target = self.targets[name] = Target(listing)
        elif listing is not target.listing:
            if listing.max_concurrency != target.listing.max_concurrency:
                self.gateways.close(target)  # It would go on to count by the old one.
            target.relist(listing)
            self.lines.wake(line_of(name))
        return target

    async def _try_until_done(self, job: Job) -> SmartResult:
        while True:
            if job.message.health_check:
                await self._find_unhealthy(job)
            choice = self._choose(job)
            if isinstance(choice, Wait):
                await self.lines.wait(job.place, choice)
                continue
            target, admitted = choice
            if admitted.permit.probe and (admitted := await self._check_first(job, target, admitted)) is None:
                continue
            reply = await self._attempt(job, target, admitted)
            if reply is not None:
                self.answers.note(job.message.service, job.request_id, target.name)
                return job.result(reply, target.name)

    def _choose(self, job: Job) -> tuple[Target, Admitted] | Wait:
        """Admit the first who may be called now, or tell what to wait for; raise if there is no hope."""
        now = self.context.now()
        until, lines, is_hopeful = job.deadline, dict[Line, None](), False
        for name in self._names(job):
            target, tried = job.candidates[name], job.tried.get(name)
            if tried is not None and tried.ready_at > now:
                until, is_hopeful = min(until, tried.ready_at), True
                continue
            admission = self._admit(job, target, now)
            if isinstance(admission, Admitted):
                if self.lines.is_first(job.place, line_of(name)):
                    self._consume(job, target, admission, waited=0.0 if tried is None else now - tried.failed_at)
                    return target, admission
                # Somebody who came before has been woken, and will be next.
                lines[line_of(name)] = None
                continue
            if not isinstance(admission.refusal, DeadlineTooShort) or not job.refused:
                job.refused[name] = admission.refusal
            if isinstance(admission, Later) and admission.is_in_time(job.deadline):
                lines[admission.line] = None
                if self.lines.is_first(job.place, admission.line):
                    until = min(until, admission.at)
        if (is_hopeful or lines) and now < job.deadline:
            return Wait(tuple(lines), until)
        raise job.failure()

    def _names(self, job: Job) -> list[str]:
        names = job.listings if job.held_at is None else (job.held_at,)
        # As declared: a provider that was ranked by what was observed last would never be asked again.
        candidates = [job.rated.get(name) or job.listings[name].provider for name in names]
        unhealthy = (*job.unhealthy, *job.standing_back) if job.standing_back else job.unhealthy
        return in_order(
            candidates, tried=job.tried, strategies=job.message.strategies, unhealthy=unhealthy, signals=job.signals
        )

    def _admit(self, job: Job, target: Target, now: float) -> Admission:
        listing = job.listings[target.name]
        return admit(
            listing,
            target.state,
            [purse.account for purse in job.purses],
            amount=0 if job.repeats(target) else listing.provider.price,
            weights=job.message.weights,
            # A repetition under its key is owed: nobody else may be asked meanwhile.
            is_retry=target.name in job.tried and not job.repeats(target),
            now=now,
            deadline=job.deadline,
            patience=job.deadline - job.started,
            breaker=self.market.breaker,
        )

    def _consume(self, job: Job, target: Target, admitted: Admitted, *, waited: float) -> None:
        """Take what the admission decided on, all of it at once, and leave the lines."""
        events = self.context.events
        target.state = admitted.state
        job.reserve(admitted)
        self.lines.leave(job.place, served=line_of(target.name))
        job.refused.pop(target.name, None)
        if admitted.permit.probe:
            events.publish(BreakerHalfOpened(provider=target.name))
        if target.name in job.tried:
            events.publish(
                Retried(request_id=job.request_id, provider=target.name, waited=waited, attempt=job.calls + 1)
            )
        elif job.last is not None:
            events.publish(
                Rerouted(request_id=job.request_id, provider=target.name, away_from=job.last, attempt=job.calls + 1)
            )
        job.last = target.name
        job.calls += 1
        target.calls += 1

    async def _check_first(self, job: Job, target: Target, admitted: Admitted) -> Admitted | None:
        """Check a provider that is due for its probe; None where none is made, and its breaker is open again."""
        is_well = False
        error: CallFailed | None = None
        try:
            is_well = await self.gateways.is_worth_a_probe(target, within=(job.deadline - self.context.now()) / 2)
            if not is_well:
                error = ConnectionFailed(target.name, "its health check failed")
        finally:
            if not is_well:  # Also where the caller was cancelled.
                job.calls -= 1
                target.calls -= 1
                job.settle(target, admitted, None, error, Sending())
                self._give_back(job, target, admitted, error)
        # The probe begins only now.
        permit = msgspec.structs.replace(admitted.permit, admitted=self.context.now())
        return msgspec.structs.replace(admitted, permit=permit) if is_well else None

    async def _attempt(self, job: Job, target: Target, admitted: Admitted) -> ProviderReply | None:
        """Make one call and settle it, whatever becomes of it; None where the request may go on elsewhere."""
        # The time of the admission, which found some left.
        started = admitted.permit.admitted
        own_timeout = target.timeout(job.listings[target.name])
        call = job.call_to(target, timeout=min(own_timeout, job.deadline - started))
        sending = Sending()
        reply: ProviderReply | None = None
        error: CallFailed | None = None
        try:
            reply = await self.gateways.call(target, call, sending)
        except CallFailed as failure:
            error = failure
        finally:
            # Also where the caller was cancelled: then there is neither a reply nor an error.
            cost = job.settle(target, admitted, reply, error, sending)
            self._settle(job, target, admitted, reply, error, cost=cost, timeout=call.timeout, own_timeout=own_timeout)
            if admitted.permit.probe:
                target.probed(is_answered=reply is not None)
        if error is None:
            return reply
        self._record_failure(job, target, error, started=started, cost=cost)
        if ends_request(error):
            raise error
        return None

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
        now, told = self.context.now(), error if reply is None else reply
        target.spent += cost
        target.failures += error is not None and error.blames_provider
        self._give_back(job, target, admitted, error, reply, timeout=timeout, own_timeout=own_timeout)
        self.context.events.publish(
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
        job: Job,
        target: Target,
        admitted: Admitted,
        error: CallFailed | None,
        reply: ProviderReply | None = None,
        *,
        timeout: float = math.inf,
        own_timeout: float = math.inf,
    ) -> None:
        """Give back what an admission took, and let those who wait for it look again."""
        now, told = self.context.now(), error if reply is None else reply
        after = settle(
            target.state,
            admitted,
            error,
            answered=reply is not None,
            used=NO_WEIGHTS if reply is None else reply.weights,
            heard=() if told is None else told.limits,
            timeout=timeout,
            own_timeout=own_timeout,
            now=now,
            breaker=self.market.breaker,
            random=self.context.random.random(),
        )
        was_gated = target.state.learned.gated_until > now
        target.state = msgspec.structs.replace(after, breaker=target.state.breaker)
        self._become(target, after.breaker)
        if after.learned.gated_until > now and not was_gated:
            self.lines.wake_all(line_of(target.name))
        self.lines.wake(line_of(target.name))
        if job.message.account is not None:
            self.lines.wake(line_for_money(job.message.account))

    def _record_failure(self, job: Job, target: Target, error: CallFailed, *, started: float, cost: int) -> None:
        now = self.context.now()
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
            random=self.context.random.random(),
        )

    async def _find_unhealthy(self, job: Job) -> None:
        """Check the first choice, and if it is unhealthy the next, and so on, and note the unhealthy ones.

        That takes at most half of the time left: who is not known by then counts as healthy, as without a check.
        """
        job.unhealthy = ()
        now, max_age = self.context.now(), self.market.health.max_age
        with suppress(TimeoutError):
            async with asyncio.timeout_at(now + (job.deadline - now) / 2):
                for name in self._names(job):
                    target = job.candidates[name]
                    if name in job.tried or not isinstance(target.state.breaker, Closed):
                        continue
                    if not is_fresh(target, max_age=max_age, now=self.context.now()):
                        # Those behind must not wait for the answer too.
                        self.lines.leave(job.place)
                    if (await self.gateways.check(target, max_age=max_age)).is_healthy:
                        break
                    job.unhealthy = (*job.unhealthy, name)

    # Providers, as the breaker has them.

    def _become(self, target: Target, breaker: BreakerState) -> None:
        """Take on the next state of a breaker, and start or stop what goes with it."""
        before = target.state.breaker
        target.state = msgspec.structs.replace(target.state, breaker=breaker)
        if type(breaker) is type(before):
            return
        events, now = self.context.events, self.context.now()
        if isinstance(breaker, Closed):
            events.publish(BreakerClosed(provider=target.name))
            self.lines.wake(line_of(target.name))
        elif not isinstance(breaker, HalfOpen):
            # It finishes the calls under way; their results no longer move the breaker.
            self.gateways.close(target)
            wait = breaker.until - now if isinstance(breaker, Open) else math.inf
            if wait > 0:  # A probe that was cancelled proved nothing, and is no trip.
                target.trips += isinstance(breaker, Open)
                events.publish(BreakerOpened(provider=target.name, wait=wait))
                self.lines.wake_all(line_of(target.name))

    def _target(self, name: str) -> Target:
        target = self.targets.get(name)
        if target is None:
            raise Permanent(f"there is no provider {name!r}; there are {', '.join(sorted(self.targets))}")
        return target

    def broken_invariants(self) -> Iterator[str]:
        for target in self.targets.values():
            yield from target.broken_invariants()
        yield from self.lines.broken_invariants()
        yield from self.accounts.broken_invariants()
        if self.begun != self.ended.total():
            yield f"{self.begun} requests were begun, and {self.ended.total()} ended: {dict(self.ended)}"

    def __repr__(self) -> str:
        return f"<Supervisor {len(self.targets)} providers, {len(self.lines)} requests waiting>"
