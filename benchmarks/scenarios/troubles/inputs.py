"""Troubles that come with the input or with the registry: poison that fails wherever it is sent, and a stale list."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.money import Micros
from actors.simulation import RegistryOutage
from benchmarks.scenarios.troubles.drill import Customers, drill
from benchmarks.scenarios.troubles.market import rate_of, three
from benchmarks.scenarios.troubles.outcome import Outcome, Span, outcome_of, part
from benchmarks.scenarios.troubles.provider import Poison, TroubledProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios.troubles.contenders import Contender
    from runtime.simulation import Simulation

CUSTOMERS = 120
AT_WORK = 400
FIVE_NAMES = ("alder", "birch", "cedar", "dogwood", "elder")
TTL = 600.0
"""Seconds for which discovery believes what it found, by default."""


async def poison_refused(simulation: Simulation, contender: Contender) -> Outcome:
    """To 5 to 20 % of the inputs every provider answers 400, which no retry mends."""
    providers = with_keys(simulation)
    poison = draw_poison(simulation, CUSTOMERS, simulation.random.uniform(0.05, 0.2), "refused")
    return await poisoned(simulation, contender, providers, poison, CUSTOMERS, rate_of(simulation, 2.0, 10.0))


async def poison_crashes(simulation: Simulation, contender: Contender) -> Outcome:
    """At 2 to 5 % of the inputs the transport of every provider crashes, whatever other calls it makes."""
    providers = with_keys(simulation)
    poison = draw_poison(simulation, CUSTOMERS, simulation.random.uniform(0.02, 0.05), "crashes")
    return await poisoned(simulation, contender, providers, poison, CUSTOMERS, rate_of(simulation, 2.0, 10.0))


async def poison_fails(simulation: Simulation, contender: Contender) -> Outcome:
    """To 1 to 5 % of the inputs each of one to five providers answers 500, and to all others as it should."""
    return await poison_at_work(simulation, contender, "fails")


async def poison_hangs(simulation: Simulation, contender: Contender) -> Outcome:
    """To 1 to 5 % of the inputs none of one to five providers ever answers."""
    return await poison_at_work(simulation, contender, "hangs")


def with_keys(simulation: Simulation) -> list[TroubledProvider]:
    """Return three providers that honour idempotency keys."""
    providers = three(simulation, idempotent="key")
    for provider in providers:
        provider.idempotent = "key"
    return providers


async def poison_at_work(simulation: Simulation, contender: Contender, does: Literal["fails", "hangs"]) -> Outcome:
    """Let 400 customers come to providers that take 50 ms to 2 s, are free or honour keys, and rank in an order."""
    dice = simulation.random
    price, shortest = dice.choice([0, 1_000]), dice.choice([0.05, 0.2, 1.0])
    providers = [
        TroubledProvider(
            simulation,
            name,
            price=Micros(price),
            latency=(shortest, shortest * dice.uniform(1.0, 2.0)),
            reputation=90.0 - 10.0 * number * dice.randint(0, 1),
            response_time=shortest,
            idempotent="key" if price else "repeatable",
        )
        for number, name in enumerate(FIVE_NAMES[: dice.choice([1, 2, 3, 5])])
    ]
    poison = draw_poison(simulation, AT_WORK, dice.choice([0.01, 0.05]), does)
    return await poisoned(simulation, contender, providers, poison, AT_WORK, dice.uniform(1.0, 4.0) / shortest)


def draw_poison(
    simulation: Simulation, customers: int, share: float, does: Literal["refused", "crashes", "fails", "hangs"]
) -> Poison:
    """Return which of the inputs are poison."""
    return Poison(frozenset(simulation.random.sample(range(customers), round(customers * share))), does=does)


async def poisoned(
    simulation: Simulation,
    contender: Contender,
    providers: Sequence[TroubledProvider],
    poison: Poison,
    count: int,
    rate: float,
) -> Outcome:
    """Let `count` customers come, some with poison; `success` and `reported` are those of the others."""
    for provider in providers:
        provider.poison = poison
    async with contender(simulation, providers) as client, asyncio.TaskGroup() as group:
        customers = Customers(simulation, client, [provider.name for provider in providers])
        for number in range(count):
            group.create_task(customers.request(number))
            await asyncio.sleep(customers.wait(rate))
    well = [one for one in customers.served if one.question not in poison.inputs]
    outcome = outcome_of(customers.served, providers)
    calls = sum(one.input in poison.inputs for provider in providers for one in provider.attempts)
    return msgspec.structs.replace(
        outcome,
        success=part(sum(one.by is not None for one in well), len(well)),
        reported=part(sum(one.is_reported for one in well), len(well)),
        begun=tuple((one.begun, one.by is not None) for one in well),
        more={
            "calls_per_poison": part(calls, len(poison.inputs)),
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
    simulation.inject(RegistryOutage(at=span.at, lasts=span.lasts, hangs=hangs, may_miss=True))
    return await drill(
        simulation, contender, providers, rate=150 / span.until, span=span, min_requests=150, returns=False
    )
