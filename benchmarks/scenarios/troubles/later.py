"""Troubles for limits of several dimensions, for tenants, and those that only a customer sees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from actors.limits.quota import RateLimit
from actors.limits.token_bucket import TokenBucket
from actors.simulation import SlowLoris, WrongAnswers
from benchmarks.scenarios.troubles.drill import Customers, drill
from benchmarks.scenarios.troubles.market import draw_span, rate_of, three
from benchmarks.scenarios.troubles.outcome import Outcome, Span, outcome_of, quantile

if TYPE_CHECKING:
    from benchmarks.scenarios.troubles.contenders import Contender
    from runtime.simulation import Simulation

BULK = 150


async def tokens_and_requests(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider limits requests and tokens, both of which it states; inputs differ in size."""
    dice = simulation.random
    requests, tokens, burst = dice.uniform(2.0, 4.0), dice.uniform(500.0, 2_000.0), 3_000
    listed: dict[str, Any] = {
        "rate_limit": requests,
        "burst": 3,
        "limits": (RateLimit(dimension="tokens", rate=tokens, burst=burst),),
    }
    providers = three(
        simulation, rate_limit=requests, burst=4, tokens=TokenBucket(rate=tokens, burst=burst), listed=listed
    )
    return await drill(
        simulation,
        contender,
        providers,
        rate=requests * 1.5,
        span=draw_span(simulation, least=20.0, most=40.0),
        failing=providers[0],
        returns=False,
    )


async def bulk_against_interactive(simulation: Simulation, contender: Contender) -> Outcome:
    """While one tenant has 150 requests in line, another makes single ones, which must not stand behind."""
    providers = three(simulation)
    for provider in providers:
        provider.latency = (0.5, 1.0)
    async with contender(simulation, providers) as client, asyncio.TaskGroup() as group:
        bulk = Customers(simulation, client, [provider.name for provider in providers], tenant="bulk")
        interactive = Customers(simulation, client, [provider.name for provider in providers], tenant="interactive")
        for number in range(BULK):
            group.create_task(bulk.request(number, timeout=120.0))
        for number in range(BULK, BULK + 20):
            await asyncio.sleep(0.1)
            await interactive.request(number)
    latencies = sorted(one.ended - one.begun for one in interactive.served)
    outcome = outcome_of([*bulk.served, *interactive.served], providers)
    return msgspec.structs.replace(outcome, more={"interactive_p99": quantile(latencies, 0.99)})


async def global_slowness(simulation: Simulation, contender: Contender) -> Outcome:
    """All providers become slow at once: a second call to another would only add to it.

    Calls cost nothing and may be repeated, so that they would be hedged.
    """
    providers = three(simulation, price=0, idempotent="repeatable")
    span = draw_span(simulation, least=30.0, most=60.0)
    slow = simulation.random.uniform(1.0, 4.0)
    simulation.inject(SlowLoris(provider="*", at=span.at, lasts=span.lasts, latency=slow))
    return await drill(simulation, contender, providers, rate=rate_of(simulation, 1.5, 3.0), span=span, returns=False)


async def silent_quality_drop(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider's answers are wrong from some time on, and look like any others; customers say so."""
    providers = three(simulation)
    at = simulation.random.uniform(10.0, 20.0)
    span = Span(at, at + 70.0)
    rate = simulation.random.uniform(0.5, 1.0)
    simulation.inject(WrongAnswers(provider="alder", at=span.at, lasts=span.lasts, rate=rate))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 1.5, 3.0),
        span=span,
        failing=providers[0],
        returns=False,
        judge=True,
    )
