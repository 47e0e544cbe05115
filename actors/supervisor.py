"""Answers requests by whichever provider can: the fixed pipeline, with breaker and fallback as supervision."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from actors.accounts import Accounts
from actors.bandit import ScoreAnswer, after_score
from actors.breaker import isolate, release
from actors.discovery import Discovery, registry_of
from actors.errors import CallFailed, Permanent
from actors.events import RequestEnded
from actors.gateways import Gateways
from actors.job import Job
from actors.pipeline import NEW_BANDIT, Pipeline
from actors.providers import Providers
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
from actors.target import Target
from actors.waiting import WaitingLines
from runtime import Actor, ActorRef, Request, handles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.account import Account
    from actors.discovery import Registry
    from actors.market import Market

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

    def started(self) -> None:
        context, market = self.context, self.market
        self.gateways = Gateways(context, market.health)
        self.providers = Providers(self.targets, market.breaker, context, self.gateways, self.lines)
        discovery = context.spawn(lambda: Discovery(self.registry, market.discovery), name="discovery")
        self.pipeline = Pipeline(market, context, discovery, self.providers, self.gateways, self.lines)

    @handles(SmartRequest, concurrent=MAX_REQUESTS, borrows=True)
    async def serve(self, message: SmartRequest) -> SmartResult:
        """Serve one request from discovery to answer."""
        job = self._begin(message)
        error: str | None = "Cancelled"
        detail: str | None = None
        provider: str | None = None
        try:
            if message.account is not None:
                job.purses = (*job.purses, self.accounts.draw_on(message.account))
            result = await self.pipeline.serve(job)
            error, provider = None, result.provider
        except CallFailed as failure:
            error, detail = failure.kind, str(failure)
            raise
        else:
            return result
        finally:
            self._end(job, is_done=error is None)
            events = self.context.events
            if events.wants(RequestEnded):
                events.publish(
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
        provider = self.pipeline.answers.scored(message)
        if provider is None:
            raise Permanent(f"no answer to request {message.request_id!r} is remembered; name its provider")
        bandits = self.pipeline.bandits
        bandits[message.service] = after_score(bandits.get(message.service, NEW_BANDIT), provider, message.score)

    @handles(Isolate)
    def isolate(self, message: Isolate) -> None:
        """Isolate a provider by hand."""
        target = self.providers.named(message.provider)
        self.providers.become(target, isolate(target.state.breaker))

    @handles(Release)
    def release(self, message: Release) -> None:
        """Release a provider by hand."""
        target = self.providers.named(message.provider)
        self.providers.become(target, release(target.state.breaker))

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

    def broken_invariants(self) -> Iterator[str]:
        yield from self.providers.broken_invariants()
        yield from self.lines.broken_invariants()
        yield from self.accounts.broken_invariants()
        if self.begun != self.ended.total():
            yield f"{self.begun} requests were begun, and {self.ended.total()} ended: {dict(self.ended)}"

    def __repr__(self) -> str:
        return f"<Supervisor {len(self.targets)} providers, {len(self.lines)} requests waiting>"
