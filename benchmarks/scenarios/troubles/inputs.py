"""Troubles that come with the input or with the registry: poison that fails wherever it is sent, and a stale list."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from actors.simulation import RegistryOutage
from benchmarks.scenarios.troubles.drill import Customers, drill
from benchmarks.scenarios.troubles.market import rate_of, three
from benchmarks.scenarios.troubles.outcome import Outcome, Span, outcome_of, part
from benchmarks.scenarios.troubles.provider import Poison

if TYPE_CHECKING:
    from benchmarks.scenarios.troubles.contenders import Contender
    from runtime.simulation import Simulation

CUSTOMERS = 120
TTL = 600.0
"""Seconds for which discovery believes what it found, by default."""


async def poison_refused(simulation: Simulation, contender: Contender) -> Outcome:
    """To 5 to 20 % of the inputs every provider answers 400, which no retry mends."""
    return await poisoned(simulation, contender, crashes=False)


async def poison_crashes(simulation: Simulation, contender: Contender) -> Outcome:
    """At 2 to 5 % of the inputs the transport of every provider crashes, whatever other calls it makes."""
    return await poisoned(simulation, contender, crashes=True)


async def poisoned(simulation: Simulation, contender: Contender, *, crashes: bool) -> Outcome:
    """Let 120 customers come, some with poison; `success` and `reported` are those of the others."""
    dice = simulation.random
    count = round(CUSTOMERS * (dice.uniform(0.02, 0.05) if crashes else dice.uniform(0.05, 0.2)))
    poison = Poison(frozenset(dice.sample(range(CUSTOMERS), count)), crashes=crashes)
    providers = three(simulation, idempotent="key")
    for provider in providers:
        provider.poison, provider.idempotent = poison, "key"
    rate = rate_of(simulation, 2.0, 10.0)
    async with contender(simulation, providers) as client, asyncio.TaskGroup() as group:
        customers = Customers(simulation, client, [provider.name for provider in providers])
        for number in range(CUSTOMERS):
            group.create_task(customers.request(number))
            await asyncio.sleep(customers.wait(rate))
    well = [one for one in customers.served if one.question not in poison.inputs]
    outcome = outcome_of(customers.served, providers)
    calls = sum(one.input in poison.inputs for provider in providers for one in provider.attempts)
    return msgspec.structs.replace(
        outcome,
        success=part(sum(one.by is not None for one in well), len(well)),
        reported=part(sum(one.is_reported for one in well), len(well)),
        more={
            "calls_per_poison": part(calls, count),
            "poison_reported": sum(one.is_reported for one in customers.served if one.question in poison.inputs),
        },
    )


async def registry_down(simulation: Simulation, contender: Contender) -> Outcome:
    """The registry is down, or hangs, for longer than what it said is believed; only ours asks one at all."""
    dice = simulation.random
    providers = three(simulation)
    at = dice.uniform(100.0, 500.0)
    span = Span(at, at + TTL + dice.uniform(300.0, 900.0))
    hangs = dice.random() < 0.5
    simulation.inject(RegistryOutage(at=span.at, lasts=span.lasts, hangs=hangs))
    return await drill(
        simulation, contender, providers, rate=150 / span.until, span=span, min_requests=150, returns=False
    )
