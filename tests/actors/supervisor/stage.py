"""A supervisor on a stage: providers that fail on plan, and what the supervisor published."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    AllProvidersFailed,
    BreakerConfig,
    BreakerOpen,
    FunctionTransport,
    Listing,
    Market,
    OutcomeUnknown,
    Provider,
    Retry,
    Supervisor,
    Transient,
    smart_request,
)
from actors.ledger.messages import GetStatement
from actors.money import Micros
from actors.policies.breaker.states import HalfOpen, Open
from runtime import ActorSystem, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors import Ledger, ProviderCall, ProviderReply
    from actors.ledger.statement import Statement


STEADY = Retry(base=0.0, cap=0.0)
"""Retries at once, so that a test counts calls and not seconds."""


FRAGILE = BreakerConfig(open_for=30.0, max_open_for=300.0, jitter=0.1, slow_start=0.0, relapse_within=0.0)


class Script:
    """A provider that plays its outcomes in turn, the last one for good, and keeps the time of each call."""

    def __init__(self, *outcomes: Any, lasts: float = 0.0) -> None:
        self.outcomes = list(outcomes) or ["done"]
        self.lasts = lasts
        self.at: list[float] = []
        self.calls: list[ProviderCall] = []
        self.under_way = self.most_under_way = 0

    async def __call__(self, call: ProviderCall) -> Any:
        self.at.append(asyncio.get_running_loop().time())
        self.calls.append(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        try:
            await asyncio.sleep(self.lasts)
            if isinstance(outcome, BaseException):
                raise copy.copy(outcome)
            return outcome
        finally:
            self.under_way -= 1


class Stage:
    """A running supervisor, and what it published."""

    def __init__(self, system: ActorSystem, market: Market, registry: Any = None) -> None:
        made: list[Supervisor] = []

        def make() -> Supervisor:
            made.append(Supervisor(market, registry=registry))
            return made[-1]

        self.system = system
        self.ref = system.spawn(make, name="supervisor")
        self.instances = made
        self.events: list[Event] = []
        system.events.subscribe(Event, self.events.append)

    @property
    def actor(self) -> Supervisor:
        assert len(self.instances) == 1, "the supervisor was restarted"
        return self.instances[0]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def request(self, **options: Any) -> Any:
        return await smart_request(self.ref, **{"service": "s", "input": "x", "strategy": "cheapest"} | options)

    async def account(self, name: str) -> Statement:
        return await self.ref.ask(GetStatement(name), timeout=1)

    @property
    def ledger(self) -> Ledger:
        ledger: Any = self.actor.payments._client.ledger.ref.recipient
        return ledger.actor

    async def assert_at_rest(self) -> None:
        await steps(2)  # The ledger is told, and has its turn.
        for target in self.actor.targets.by_name.values():
            assert target.state.under_way == 0, target
            assert not isinstance(target.state.breaker, HalfOpen), target
        assert len(self.actor.queues) == 0
        assert list(self.ledger.book.broken_invariants()) == []
        assert self.ledger.book.unsettled(is_held=False) == ()


def offer(
    name: str,
    script: Any,
    *,
    price: int = 0,
    paid: bool | None = None,
    idempotent: Any = "no",
    check: Any = None,
    **limits: Any,
) -> Listing:
    def make() -> FunctionTransport:
        is_paid = price > 0 if paid is None else paid
        return FunctionTransport(script, paid=is_paid, idempotent=idempotent, provider=name, check=check)

    return Listing(provider=Provider(name=name, services={"s"}, price=Micros(price)), transport=make, **limits)


@asynccontextmanager
async def staged(*listings: Listing, registry: Any = None, **policies: Any) -> AsyncIterator[Stage]:
    market = Market(providers=listings, **{"retry": STEADY} | policies)
    async with ActorSystem("stage", seed=1) as system:
        yield Stage(system, market, registry)
    assert len(asyncio.all_tasks()) == 1


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def flaky(name: str) -> Transient:
    return Transient(f"{name} is down", provider=name, outcome="not_started")


def now() -> float:
    return asyncio.get_running_loop().time()


async def trip(stage: Stage, script: Script) -> None:
    """Have the only provider's breaker open by five failures."""
    for _ in range(5):
        with pytest.raises((AllProvidersFailed, OutcomeUnknown, BreakerOpen)):
            await stage.request()
    assert isinstance(stage.actor.targets.named("a").state.breaker, Open)
    script.at.clear()
    script.calls.clear()


async def wait_is_over(stage: Stage) -> float:
    """Wait until the next probe is due, or the check before it; return the seconds that were left."""
    now = asyncio.get_running_loop().time()
    breakers = (target.state.breaker for target in stage.actor.targets.by_name.values())
    wait = max((breaker.until - now for breaker in breakers if isinstance(breaker, Open)), default=0.0)
    await asyncio.sleep(wait)
    return wait


def unhealthy_for(name: str, checks: list[str], *, lasts: float = 0.0) -> Any:
    async def check(_: float) -> None:
        checks.append(name)
        await asyncio.sleep(lasts)
        raise flaky(name)

    return check


def healthy_for(name: str, checks: list[str], *, lasts: float = 0.0) -> Any:
    async def check(_: float) -> None:
        checks.append(name)
        await asyncio.sleep(lasts)

    return check


class Buggy(FunctionTransport):
    """A transport that breaks its contract: what it raises is no `CallFailed`."""

    closed = 0

    async def call(self, call: ProviderCall) -> ProviderReply:
        raise KeyError(call.input)

    async def aclose(self) -> None:
        type(self).closed += 1
