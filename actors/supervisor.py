"""Answers requests by whichever provider can: the fixed pipeline, with breaker and fallback as supervision.

A provider whose breaker opens is isolated: its gateway is stopped and requests are rerouted. When its wait is over, a
fresh gateway is started for exactly one probe.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import msgspec

from actors.account import Account
from actors.admission import Admission, Admitted, Later, admit
from actors.breaker import (
    BreakerState,
    Closed,
    HalfOpen,
    after_cancellation,
    after_success,
    isolate,
    release,
)
from actors.breaker import after_failure as breaker_after_failure
from actors.classification import classify
from actors.discovery import Discover, Discovery, registry_of
from actors.errors import (
    Attempt,
    CallFailed,
    DeadlineTooShort,
    NotAdmitted,
    Permanent,
    RegistryDown,
    Throttled,
    Transient,
)
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded, RequestEnded, Rerouted, Retried
from actors.gateway import Call, CheckHealth, Health, ProviderGateway
from actors.job import Job
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
from actors.target import Target
from actors.transport import ProviderCall, ProviderReply
from runtime import Actor, ActorCrashed, ActorRef, ActorStopped, AskTimeout, Restart, RuntimeFault, handles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from actors.discovery import Registry
    from actors.market import Market

MAX_REQUESTS = 100_000
"""The requests that can be under way at the same time."""
GRACE = 0.25
"""Seconds beyond its own timeout that a transport has to say how a call ended."""
THROTTLED_FOR = 1.0
"""Seconds to leave a provider alone that answered 429 without a `Retry-After`."""


class Supervisor(Actor[SmartRequest | OpenAccount | CloseAccount | OpenQuota | Isolate | Release | GetStatus]):
    """Serves `SmartRequest`s over the providers of a market; see the module's text for how."""

    def __init__(self, market: Market, *, registry: Registry | None = None) -> None:
        self.market = market
        self.registry = registry or registry_of(market)
        self.targets: dict[str, Target] = {one.provider.name: Target(one) for one in market.providers}
        self.accounts: dict[str, Account] = {}
        self.opened = 0
        self._waiting: dict[asyncio.Future[None], None] = {}

    def started(self) -> None:
        self.discovery = self.context.spawn(lambda: Discovery(self.registry, self.market.discovery), name="discovery")

    @handles(SmartRequest, concurrent=MAX_REQUESTS)
    async def serve(self, message: SmartRequest) -> SmartResult:
        """Serve one request from discovery to answer."""
        now = self.context.now()
        request_id = message.request_id or f"{self.context.random.getrandbits(128):032x}"
        job = Job(message, request_id, started=now, deadline=now + message.timeout)
        error: str | None = "Cancelled"
        provider: str | None = None
        try:
            await self._find_candidates(job)
            result = await self._try_until_done(job)
            error, provider = None, result.provider
        except CallFailed as failure:
            error = failure.kind
            raise
        else:
            return result
        finally:
            self.context.events.publish(
                RequestEnded(
                    request_id=request_id,
                    service=message.service,
                    provider=provider,
                    attempts=job.calls,
                    latency=self.context.now() - now,
                    cost=job.account.settled,
                    error=error,
                )
            )

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str:
        """Open an account, and return its name."""
        self.opened += 1
        name = message.name or f"account-{self.opened}"
        if name in self.accounts:
            raise Permanent(f"account {name!r} is open already; close it first, or take another name")
        self.accounts[name] = Account(name=name, cap=message.cap)
        return name

    @handles(CloseAccount)
    def close_account(self, message: CloseAccount) -> Account:
        """Close an account; calls under way that draw on it are no longer counted."""
        account = self.accounts.pop(message.name, None)
        if account is None:
            raise Permanent(f"there is no open account {message.name!r}")
        return account

    @handles(OpenQuota)
    def open_quota(self, message: OpenQuota) -> ActorRef[Acquire]:
        """Start a limiter."""
        self.opened += 1
        return self.context.spawn(
            lambda: RateLimiter(message.name, rate=message.rate, burst=message.burst), name=f"quota-{self.opened}"
        )

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
            await asyncio.gather(*(self._check(target, max_age=0.0) for target in targets))
        return tuple(target.status() for target in targets)

    # The pipeline.

    async def _find_candidates(self, job: Job) -> None:
        message = job.message
        question = Discover(service=message.service, where=message.where)
        try:
            found = await self.discovery.ask(question, timeout=message.timeout)
        except RuntimeFault as error:
            raise RegistryDown(message.service, str(error)) from error
        for listing in found.listings:
            target = self.targets.get(listing.provider.name)
            if target is None:
                target = self.targets[listing.provider.name] = Target(listing)
            job.candidates[target.name] = target
        if message.account is not None and message.account not in self.accounts:
            raise Permanent(f"there is no open account {message.account!r}; ask OpenAccount first")

    async def _try_until_done(self, job: Job) -> SmartResult:
        while True:
            unhealthy = await self._unhealthy(job) if job.message.health_check else ()
            choice = self._choose(job, unhealthy)
            if not isinstance(choice, tuple):
                await self._wait(choice)
                continue
            target, admitted = choice
            reply = await self._attempt(job, target, admitted)
            if reply is not None:
                return SmartResult(
                    output=reply.output,
                    provider=target.name,
                    cost=job.account.settled,
                    attempts=job.calls,
                    request_id=job.request_id,
                    failures=tuple(job.attempts),
                )

    def _choose(self, job: Job, unhealthy: Collection[str]) -> tuple[Target, Admitted] | float:
        """Admit the first who may be called now, or return the time until which to wait; raise if there is no hope."""
        now = self.context.now()
        hopes: list[float] = []
        for name in self._names(job, unhealthy):
            tried = job.tried.get(name)
            if tried is not None and tried.ready_at > now:
                hopes.append(tried.ready_at)
                continue
            target = job.candidates[name]
            admission = self._admit(job, target, now)
            if isinstance(admission, Admitted):
                job.refused.pop(name, None)
                self._admitted(job, target, admission, waited=0.0 if tried is None else now - tried.failed_at)
                return target, admission
            if not isinstance(admission.refusal, DeadlineTooShort):
                job.refused[name] = admission.refusal
            if isinstance(admission, Later):
                hopes.append(admission.at)
        # What depends on a call under way, not on the clock, may change at any time.
        if any(at < job.deadline or at == math.inf for at in hopes) and now < job.deadline:
            return min(*hopes, job.deadline)
        raise job.failure()

    def _names(self, job: Job, unhealthy: Collection[str]) -> list[str]:
        candidates = [target.listing.provider for target in job.candidates.values()]
        if job.held_at is not None:
            candidates = [provider for provider in candidates if provider.name == job.held_at]
        return in_order(candidates, tried=job.tried, strategies=job.message.strategies, unhealthy=unhealthy)

    def _admit(self, job: Job, target: Target, now: float) -> Admission:
        shared = self.accounts.get(job.message.account) if job.message.account is not None else None
        return admit(
            target.listing,
            target.state,
            (job.account,) if shared is None else (job.account, shared),
            amount=0 if job.held_at == target.name else target.listing.provider.price,
            is_retry=target.name in job.tried,
            now=now,
            deadline=job.deadline,
            breaker=self.market.breaker,
        )

    def _admitted(self, job: Job, target: Target, admitted: Admitted, *, waited: float) -> None:
        """Consume what the admission decided on, all of it at once."""
        events = self.context.events
        before, target.state = target.state, admitted.state
        job.account = admitted.accounts[0]
        if job.message.account is not None and len(admitted.accounts) > 1:
            self.accounts[job.message.account] = admitted.accounts[1]
        if admitted.permit.probe and not isinstance(before.breaker, Closed):
            events.publish(BreakerHalfOpened(provider=target.name))
        if target.name in job.tried:
            events.publish(Retried(request_id=job.request_id, provider=target.name, waited=waited))
        elif job.last is not None:
            events.publish(Rerouted(request_id=job.request_id, provider=target.name, away_from=job.last))
        job.last = target.name
        job.calls += 1
        target.calls += 1

    async def _attempt(self, job: Job, target: Target, admitted: Admitted) -> ProviderReply | None:
        """Make one call and settle it, whatever becomes of it; None where the request may go on elsewhere."""
        started = self.context.now()
        reply: ProviderReply | None = None
        error: CallFailed | None = None
        try:
            reply = await self._call(job, target, started)
        except CallFailed as failure:
            error = failure
        finally:
            # Also where the caller was cancelled: then there is neither a reply nor an error.
            self._settle(job, target, admitted, reply, error, started)
        if error is None:
            return reply
        self._record_failure(job, target, error, started)
        if ends_request(error):
            raise error
        return None

    async def _call(self, job: Job, target: Target, now: float) -> ProviderReply:
        message = job.message
        timeout = min(target.listing.timeout, job.deadline - now)
        call = ProviderCall(
            service=message.service,
            input=message.input,
            request_id=job.request_id,
            idempotency_key=message.idempotency_key or job.request_id,
            max_cost=target.listing.provider.price,
            timeout=timeout,
        )
        gateway = self._gateway(target)
        try:
            return await gateway.ask(Call(call), timeout=timeout + GRACE)
        except (AskTimeout, ActorCrashed) as error:
            listing = target.listing
            paid = listing.provider.price > 0
            if isinstance(error, ActorCrashed) and target.gateway is gateway:
                target.gateway = None  # The next call starts another.
            cause = error if isinstance(error, AskTimeout) else ConnectionResetError(str(error))
            idempotent = target.idempotent != "no"
            raise classify(cause, provider=target.name, sent=True, paid=paid, idempotent=idempotent) from error
        except RuntimeFault as error:
            if target.gateway is gateway:
                target.gateway = None
            raise Transient(f"{target.name!r}: {error}", provider=target.name, outcome="not_started") from error

    def _settle(
        self,
        job: Job,
        target: Target,
        admitted: Admitted,
        reply: ProviderReply | None,
        error: CallFailed | None,
        started: float,
    ) -> None:
        """Give back what the call held: its place, its permit, its money; and let those who wait look again."""
        now = self.context.now()
        cost = self._settle_money(job, target, admitted.amount, reply, error)
        target.spent += cost
        state = msgspec.structs.replace(target.state, under_way=target.state.under_way - 1)
        if isinstance(error, NotAdmitted) and admitted.grant is not None and state.bucket is not None:
            state = msgspec.structs.replace(state, bucket=state.bucket.refund(admitted.grant))
        if isinstance(error, Throttled):
            pause = error.retry_after if error.retry_after is not None else THROTTLED_FOR
            state = msgspec.structs.replace(state, gated_until=max(state.gated_until, now + pause))
        target.state = state
        target.failures += error is not None and error.blames_provider
        draw, config, permit = self.context.random.random(), self.market.breaker, admitted.permit
        if reply is not None:
            breaker = after_success(state.breaker, permit, now=now, config=config, random=draw)
        elif error is not None and error.blames_provider:
            breaker = breaker_after_failure(state.breaker, permit, now=now, config=config, random=draw)
        else:
            breaker = after_cancellation(state.breaker, permit, now=now)
        self._become(target, breaker)
        self.context.events.publish(
            CallEnded(
                request_id=job.request_id,
                provider=target.name,
                service=job.message.service,
                attempt=job.calls,
                latency=now - started,
                cost=cost,
                error=None if reply is not None else error.kind if error is not None else "Cancelled",
            )
        )
        self._wake()

    def _settle_money(
        self, job: Job, target: Target, amount: int, reply: ProviderReply | None, error: CallFailed | None
    ) -> int:
        """Book what the call cost, and return it in micro-units."""
        price = target.listing.provider.price
        if job.held_at == target.name:
            # A repetition of a call that may have been paid: only an answer tells.
            if reply is None:
                return 0
            held, cost = job.held, price if reply.cost is None else reply.cost
            job.held_at, job.held = None, 0
            self._book(job, lambda account: account.settle_held(held, cost=cost))
            return cost
        if reply is not None:
            cost = price if reply.cost is None else reply.cost
            self._book(job, lambda account: account.settle(amount, cost=cost))
            return cost
        # Of a call whose caller was cancelled nobody knows how far it came.
        charged = "held" if error is None else error.charged
        if charged == "no" or amount == 0:
            self._book(job, lambda account: account.release(amount))
            return 0
        if charged == "yes":
            self._book(job, lambda account: account.settle(amount, cost=amount))
            return amount
        self._book(job, lambda account: account.hold(amount))
        job.held_at, job.held = target.name, amount
        return 0

    def _book(self, job: Job, entry: Callable[[Account], Account]) -> None:
        job.account = entry(job.account)
        name = job.message.account
        if name is not None and name in self.accounts:
            self.accounts[name] = entry(self.accounts[name])

    def _record_failure(self, job: Job, target: Target, error: CallFailed, started: float) -> None:
        now = self.context.now()
        job.attempts.append(
            Attempt(provider=target.name, error=str(error), kind=error.kind, started=started, latency=now - started)
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
            self._wake()
        elif not isinstance(breaker, HalfOpen):
            wait = math.inf if (until := getattr(breaker, "until", None)) is None else until - now
            if target.gateway is not None:
                # It finishes the calls under way; their results no longer move the breaker.
                target.gateway.stop()
                target.gateway = None
            if wait > 0:  # A probe that was cancelled proved nothing, and is no trip.
                target.trips += 1
                events.publish(BreakerOpened(provider=target.name, wait=wait))

    def _gateway(self, target: Target) -> ActorRef[Call | CheckHealth]:
        """Return the running gateway of a provider, and start one where there is none."""
        if target.gateway is None:
            target.started += 1
            listing = target.listing

            def make() -> ProviderGateway:
                gateway = ProviderGateway(listing)
                target.idempotent = gateway.transport.idempotent
                return gateway

            # Never restarted by the engine: when it may run again is for the breaker to decide.
            target.gateway = self.context.spawn(
                make,
                name=f"{target.name.replace('/', '-')}-{target.started}",
                restart=Restart.TEMPORARY,
                stop_timeout=listing.timeout + GRACE,
            )
        return target.gateway

    def _target(self, name: str) -> Target:
        target = self.targets.get(name)
        if target is None:
            raise Permanent(f"there is no provider {name!r}; there are {', '.join(sorted(self.targets))}")
        return target

    async def _unhealthy(self, job: Job) -> tuple[str, ...]:
        """Check the first choice, and if it is unhealthy the next, and so on; return the unhealthy ones."""
        unhealthy: list[str] = []
        for name in self._names(job, ()):
            target = job.candidates[name]
            if name in job.tried or not isinstance(target.state.breaker, Closed):
                continue
            if (await self._check(target, max_age=self.market.health.max_age)).is_healthy:
                break
            unhealthy.append(name)
        return tuple(unhealthy)

    async def _check(self, target: Target, *, max_age: float) -> Health:
        now = self.context.now()
        if target.health is None or now - target.health.checked_at >= max_age:
            limit = self.market.health.timeout
            question = CheckHealth(max_age=max_age, timeout=limit)
            try:
                target.health = await self._gateway(target).ask(question, timeout=limit + GRACE)
            except (AskTimeout, ActorCrashed, ActorStopped) as error:
                target.health = Health(now, problem=str(error))
        return target.health

    # Those who wait for a place, for money, or for a probe to end.

    async def _wait(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting[waiter] = None
        timer = loop.call_at(until, _release, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiting.pop(waiter, None)

    def _wake(self) -> None:
        for waiter in tuple(self._waiting):
            _release(waiter)

    def __repr__(self) -> str:
        return f"<Supervisor {len(self.targets)} providers, {len(self._waiting)} requests waiting>"


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
