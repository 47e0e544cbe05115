"""Troubles of a provider's limits: it is well, but asks for less, or for money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.simulation import OutOfQuota, ThrottleStorm
from actors.simulation.faults import DIALECTS
from benchmarks.scenarios.troubles.drill import drill
from benchmarks.scenarios.troubles.market import draw_span, rate_of, three

if TYPE_CHECKING:
    from benchmarks.scenarios.troubles.contenders import Contender
    from benchmarks.scenarios.troubles.outcome import Outcome
    from runtime.simulation import Simulation


async def known_limit(simulation: Simulation, contender: Contender) -> Outcome:
    """More customers come than the preferred provider's limit allows, which it states in its listing."""
    return await too_many(simulation, contender, is_known=True)


async def unknown_limit(simulation: Simulation, contender: Contender) -> Outcome:
    """As before, but it says nothing of its limit until it answers 429 with `Retry-After`."""
    return await too_many(simulation, contender, is_known=False)


async def too_many(simulation: Simulation, contender: Contender, *, is_known: bool) -> Outcome:
    dice = simulation.random
    limit, burst = dice.uniform(1.0, 2.0), dice.randint(2, 5)
    listed: dict[str, Any] = {"rate_limit": limit, "burst": burst} if is_known else {}
    # A bucket that both sides keep runs dry at the same time; the provider's is a hair larger, for the way there.
    providers = three(simulation, rate_limit=limit * 1.02, burst=burst + 1, listed=listed)
    span = draw_span(simulation, at=5.0, least=30.0, most=50.0)
    rate = limit * dice.uniform(1.5, 2.5)
    return await drill(simulation, contender, providers, rate=rate, span=span, failing=providers[0], returns=False)


async def throttle_storm(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider answers 429 to everything for 20 to 60 seconds, with or without a `Retry-After`."""
    dice = simulation.random
    providers, span = three(simulation), draw_span(simulation, least=20.0, most=60.0)
    retry_after = dice.choice([None, 5.0, 20.0])
    simulation.inject(ThrottleStorm(provider="alder", at=span.at, lasts=span.lasts, retry_after=retry_after))
    return await drill(
        simulation, contender, providers, rate=rate_of(simulation, 1.5, 3.0), span=span, failing=providers[0]
    )


async def quota_exhausted(simulation: Simulation, contender: Contender) -> Outcome:
    """The preferred provider's bill is not paid for 60 to 90 seconds; it says so in one of four dialects."""
    providers, span = three(simulation), draw_span(simulation, least=60.0, most=90.0)
    dialect = simulation.random.choice(DIALECTS)
    simulation.inject(OutOfQuota(provider="alder", at=span.at, lasts=span.lasts, dialect=dialect))
    return await drill(
        simulation, contender, providers, rate=rate_of(simulation, 1.5, 2.5), span=span, failing=providers[0]
    )
