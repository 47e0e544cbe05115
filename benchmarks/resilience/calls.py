"""What one call costs: the policies alone, and the whole request through the actors. All figures are µs a call."""

from __future__ import annotations

import asyncio
import importlib
import math
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from actors import (
    CircuitBreaker,
    FunctionTransport,
    Listing,
    Market,
    Provider,
    ProviderCall,
    ProviderFilter,
    Retry,
    Supervisor,
    TokenBucket,
    smart_request,
    with_retry,
)
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

CALLERS = 1_000
UNLIMITED = 10**9
"""Tokens per second of a limiter that is on and never makes a call wait."""
RETRIES = 3
TIMEOUT = 10.0


class Guard(Protocol):
    """Runs a call under some policies."""

    def __call__(self, call: Callable[[], Awaitable[Any]], /) -> Awaitable[Any]: ...


async def nothing() -> None:
    """Return at once: what is measured is what is around it."""


async def one_turn() -> None:
    """Return after one turn of the loop, so that all callers are under way at the same time."""
    await asyncio.sleep(0)


async def one_caller(guard: Guard, calls: int) -> float:
    """Return the µs of each of `calls` calls, one after the other."""
    await guard(nothing)
    begin = perf_counter()
    for _ in range(calls):
        await guard(nothing)
    return (perf_counter() - begin) / calls * 1e6


async def many_callers(guard: Guard, calls: int) -> float:
    """Return the µs per call where 1,000 callers, or as many as there are calls, call at the same time."""
    await guard(nothing)
    callers = min(CALLERS, calls)
    waves = max(1, calls // callers)
    begin = perf_counter()
    for _ in range(waves):
        await asyncio.gather(*(guard(one_turn) for _ in range(callers)))
    return (perf_counter() - begin) / (waves * callers) * 1e6


def ours() -> Guard:
    """Return our policies: as one `Policy` where there is one, else put together by hand."""
    try:
        policies: Any = importlib.import_module("actors.policies.policy")
        limiters: Any = importlib.import_module("actors.policies.limiter")
    except ImportError:
        return our_parts()
    policy = policies.Policy(
        retry=Retry(max_retries=RETRIES),
        breaker=CircuitBreaker("benchmark"),
        limiter=limiters.Limiter("benchmark", rate=float(UNLIMITED), burst=UNLIMITED),
        timeout=TIMEOUT,
    )
    execute: Guard = policy.execute
    return execute


def our_parts() -> Guard:
    breaker = CircuitBreaker("benchmark")
    bucket = TokenBucket(rate=UNLIMITED, burst=UNLIMITED)
    clock = asyncio.get_running_loop().time
    policy = Retry(max_retries=RETRIES)

    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        async def limited() -> Any:
            nonlocal bucket
            bucket, grant = bucket.reserve(clock())
            if (wait := grant.at - clock()) > 0:
                await asyncio.sleep(wait)
            async with asyncio.timeout(TIMEOUT):
                return await call()

        return await with_retry(lambda: breaker.execute(limited), policy=policy)

    return guard


def no_op_market() -> Market:
    """Return three paid providers that answer at once, with every limit on and none in the way."""

    async def answer(call: ProviderCall) -> Any:
        return await call.input()

    def listing(name: str, reputation: float) -> Listing:
        return Listing(
            provider=Provider(
                name=name,
                services={"benchmark"},
                price="0.000001",
                reputation=reputation,
                capabilities={"en", "de"},
            ),
            transport=lambda: FunctionTransport(
                answer, paid=True, idempotent="key", provider=name, ends_when_cancelled=True
            ),
            max_concurrency=10_000,
            rate_limit=float(UNLIMITED),
            burst=UNLIMITED,
        )

    return Market(providers=[listing("alder", 90.0), listing("birch", 80.0), listing("cedar", 70.0)])


@asynccontextmanager
async def through_the_actors() -> AsyncGenerator[Guard]:
    """Enter a system that makes whole smart requests, with everything on."""
    where = ProviderFilter(max_price="1.00", min_reputation=60, required_capabilities={"en", "de"})
    async with ActorSystem("benchmark", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(no_op_market()), name="supervisor")

        async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
            return await smart_request(
                supervisor,
                service="benchmark",
                input=call,
                budget="0.20",
                where=where,
                strategy="best",
                fallback_strategies=("balanced", "cheapest"),
                health_check=True,
                timeout=TIMEOUT,
            )

        yield guard


async def smart_requests(measure: Callable[[Guard, int], Awaitable[float]], calls: int) -> float:
    """Return the µs per whole smart request."""
    async with through_the_actors() as guard:
        found = await measure(guard, calls)
    assert math.isfinite(found)
    return found
