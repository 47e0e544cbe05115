"""Troubles of a provider's health: it fails, hangs, or comes and goes, while others are well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.money import Micros
from actors.simulation import BrownOut, Flapping, Hanging, Outage, SlowLoris
from benchmarks.scenarios.troubles.drill import drill
from benchmarks.scenarios.troubles.market import draw_span, rate_of, three
from benchmarks.scenarios.troubles.outcome import Span
from benchmarks.scenarios.troubles.provider import TroubledProvider

if TYPE_CHECKING:
    from benchmarks.scenarios.troubles.contenders import Contender
    from benchmarks.scenarios.troubles.outcome import Outcome
    from runtime.simulation import Simulation


async def outage(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider refuses connections for 20 to 90 seconds."""
    providers, span = three(simulation), draw_span(simulation, least=20.0, most=90.0)
    simulation.inject(Outage(provider="alder", at=span.at, lasts=span.lasts))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 1.5, 3.0),
        span=span,
        failing=providers[0],
        min_requests=240,
    )


async def brown_out(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider answers 503 to 50 to 90 % of the calls, for 30 to 90 seconds."""
    providers, span = three(simulation), draw_span(simulation, least=30.0, most=90.0)
    rate = simulation.random.uniform(0.5, 0.9)
    simulation.inject(BrownOut(provider="alder", at=span.at, lasts=span.lasts, rate=rate))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 2.0, 4.0),
        span=span,
        failing=providers[0],
        min_requests=300,
    )


async def correlated_outage(simulation: Simulation, contender: Contender) -> Outcome:
    """Two of three are down for 30 to 90 seconds, and the third bears little more than what comes."""
    dice = simulation.random
    rate = rate_of(simulation, 1.5, 3.0)
    providers = three(simulation)[:2]
    limit = rate * dice.uniform(1.2, 1.5)
    providers.append(
        TroubledProvider(
            simulation,
            "dwarf",
            price=Micros(3_000),
            latency=(0.1, 0.3),
            reputation=40.0,
            rate_limit=limit,
            burst=3,
            capacity=2,
            listed={"rate_limit": limit, "burst": 2, "max_concurrency": 2},
        )
    )
    span = draw_span(simulation, least=30.0, most=90.0)
    simulation.inject(*(Outage(provider=one.name, at=span.at, lasts=span.lasts) for one in providers[:2]))
    return await drill(simulation, contender, providers, rate=rate, span=span, failing=providers[0], min_requests=300)


async def flapping(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider comes and goes for 90 to 150 seconds, up and down for 5 to 40 seconds each."""
    dice = simulation.random
    providers, span = three(simulation), draw_span(simulation, least=90.0, most=150.0)
    up, down = dice.uniform(5.0, 40.0), dice.uniform(5.0, 40.0)
    simulation.inject(Flapping(provider="alder", at=span.at, lasts=span.lasts, up=up, down=down))
    return await drill(
        simulation, contender, providers, rate=rate_of(simulation, 1.0, 1.5), span=span, failing=providers[0]
    )


async def slow_loris(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider, which is free, gives right answers half a minute too late, for 40 to 90 seconds."""
    providers = three(simulation, price=0)
    span = draw_span(simulation, least=40.0, most=90.0, settling=25.0)
    latency = simulation.random.uniform(30.0, 60.0)
    simulation.inject(SlowLoris(provider="alder", at=span.at, lasts=span.lasts, latency=latency))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 1.5, 3.0),
        span=span,
        failing=providers[0],
        min_requests=240,
    )


async def impatient_slow_loris(simulation: Simulation, contender: Contender) -> Outcome:
    """As before, for longer, and customers have 5 to 12 seconds, of which a probe must leave enough."""
    providers, dice = three(simulation, price=0), simulation.random
    span = draw_span(simulation, least=60.0, most=180.0, settling=25.0)
    simulation.inject(SlowLoris(provider="alder", at=span.at, lasts=span.lasts, latency=dice.uniform(15.0, 60.0)))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 2.0, 5.0),
        span=span,
        failing=providers[0],
        timeout=dice.uniform(5.0, 12.0),
        min_requests=300,
    )


async def paid_slow_loris(simulation: Simulation, contender: Contender) -> Outcome:
    """As before, but it charges for what comes too late: a request that goes on elsewhere pays twice."""
    idempotent = simulation.random.choice(["key", "no"])
    providers = three(simulation, idempotent=idempotent)
    span = draw_span(simulation, least=40.0, most=90.0, settling=25.0)
    latency = simulation.random.uniform(30.0, 60.0)
    simulation.inject(SlowLoris(provider="alder", at=span.at, lasts=span.lasts, latency=latency))
    return await drill(
        simulation, contender, providers, rate=rate_of(simulation, 1.5, 3.0), span=span, failing=providers[0]
    )


async def half_open_stampede(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider, which is free, takes every call and never answers, while many customers come."""
    providers = three(simulation, price=0)
    for provider in providers[1:]:
        provider.listing(max_concurrency=100)
    span = draw_span(simulation, at=3.0, least=45.0, most=55.0, settling=25.0)
    simulation.inject(Hanging(provider="alder", at=span.at, lasts=span.lasts))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 4.0, 5.0),
        span=span,
        failing=providers[0],
        returns=False,
    )


async def fails_fast(simulation: Simulation, contender: Contender) -> Outcome:
    """The cheapest provider fails 70 to 100 % of its calls within 5 ms: no wait must make it look good."""
    providers = three(simulation, price=200, latency=(0.005, 0.01))
    providers[0].simulation.inject(BrownOut(provider="alder", rate=simulation.random.uniform(0.7, 1.0)))
    return await drill(
        simulation,
        contender,
        providers,
        rate=rate_of(simulation, 2.0, 4.0),
        span=Span(0.0, 80.0),
        failing=providers[0],
        min_requests=300,
        returns=False,
    )
