"""Troubles that customers make by their number: a herd at recovery, overload that feeds itself, mass cancellation."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import msgspec

from actors.simulation import Hanging, Outage, SlowLoris
from benchmarks.scenarios.troubles.drill import Customers, drill
from benchmarks.scenarios.troubles.market import draw_span, three
from benchmarks.scenarios.troubles.outcome import WINDOW, Outcome, Span, most_within, outcome_of, part, with_more
from benchmarks.scenarios.troubles.provider import TroubledProvider

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from benchmarks.scenarios.troubles.contenders import Contender
    from benchmarks.scenarios.troubles.outcome import Served
    from runtime.simulation import Simulation

IN_FLIGHT = 1_000
CANCELLED = 0.9
WATCHED = 70.0
"""Seconds after an overload for which customers keep on coming."""


async def herd(simulation: Simulation, contender: Contender) -> Outcome:
    """Everybody is down for 20 to 60 seconds, while customers with patience gather; then all are back at once."""
    dice = simulation.random
    providers = three(simulation, capacity=dice.randint(4, 10))
    span = draw_span(simulation, at=5.0, least=20.0, most=60.0)
    simulation.inject(Outage(provider="*", at=span.at, lasts=span.lasts))
    waiting = dice.randint(80, 150)
    rate = waiting / (span.until - span.at)
    outcome = await drill(
        simulation, contender, providers, rate=rate, span=span, failing=providers[0], timeout=240.0, min_requests=300
    )
    return with_more(outcome, most_in_a_second=max(busiest_second(one, since=span.until) for one in providers))


def busiest_second(provider: TroubledProvider, *, since: float) -> int:
    """Return the most calls that came within a second."""
    return most_within([one.at for one in provider.attempts if one.at >= since], 1.0)


async def metastable(simulation: Simulation, contender: Contender) -> Outcome:
    """The only provider works on calls that no caller waits for any more, after a slow spell has let them pile up.

    It bears the customers with a third to spare. What succeeds, and the time to return, are counted after the spell.
    """
    dice = simulation.random
    capacity = dice.randint(2, 4)
    latency = dice.uniform(0.8, 1.2)
    provider = TroubledProvider(
        simulation, "alder", capacity=capacity, latency=(latency * 0.8, latency * 1.2), idempotent="repeatable"
    )
    span = draw_span(simulation, at=5.0, least=20.0, most=40.0)
    slow = dice.uniform(8.0, 20.0)
    simulation.inject(SlowLoris(provider="alder", at=span.at, lasts=span.lasts, latency=slow))
    rate = 0.7 * capacity / latency
    served, outcome = await until_well(simulation, contender, provider, rate=rate, span=span)
    after = [one for one in served if one.begun >= span.until + 40.0]
    return msgspec.structs.replace(
        outcome,
        time_to_return=time_to_succeed(served, span),
        more={"success_after": part(sum(one.by is not None for one in after), len(after))},
    )


async def until_well(
    simulation: Simulation, contender: Contender, provider: TroubledProvider, *, rate: float, span: Span
) -> tuple[Sequence[Served], Outcome]:
    """Let customers come until 70 seconds after the trouble."""
    async with contender(simulation, [provider]) as client, asyncio.TaskGroup() as group:
        customers = Customers(simulation, client, [provider.name])
        number = 0
        while simulation.now() < span.until + WATCHED:
            group.create_task(customers.request(number, timeout=12.0))
            number += 1
            await asyncio.sleep(customers.wait(rate))
    return customers.served, outcome_of(customers.served, [provider], span=span, failing=provider, returns=False)


def time_to_succeed(served: Sequence[Served], span: Span) -> float:
    """Return the seconds from recovery to the first of ten requests in a row that all succeed."""
    after = sorted((one for one in served if one.begun >= span.until), key=lambda one: one.begun)
    for first in range(len(after) - WINDOW + 1):
        if all(one.by is not None for one in after[first : first + WINDOW]):
            return after[first].begun - span.until
    return math.inf


async def mass_cancellation(simulation: Simulation, contender: Contender) -> Outcome:
    """Of all requests in flight 90 % are cancelled at once, among them the one that is a breaker's probe.

    The preferred provider, which is free, hangs until the breaker has opened, and is well when the crowd comes; what
    counts is what becomes of the other 10 %, and that the provider is used again. In one of eight seeds the crowd is of
    1,000, else of 150, which costs less.
    """
    dice = simulation.random
    crowd_size = IN_FLIGHT if dice.random() < 1 / 8 else 150
    max_concurrency = dice.choice([10, 400])
    providers = three(simulation, price=0)
    for provider in providers:
        provider.latency = (1.0, 3.0)
        provider.listing(max_concurrency=max_concurrency)
    hangs = Span(0.0, 35.0)
    simulation.inject(Hanging(provider="alder", lasts=hangs.until))
    async with contender(simulation, providers) as client, asyncio.TaskGroup() as group:
        customers = Customers(simulation, client, [provider.name for provider in providers])
        for number in range(10):
            group.create_task(customers.request(number))
        # Their attempts time out after 10 seconds, and the wait of the breaker is over when the crowd comes.
        await asyncio.sleep(44.0)
        begun = simulation.now()
        crowd = {
            number: asyncio.create_task(customers.request(number, timeout=120.0))
            for number in range(10, 10 + crowd_size)
        }
        await asyncio.sleep(dice.uniform(0.5, 1.5))
        cancelled = await cancel_most(crowd, providers[0], dice)
        # The others are served meanwhile; now it must be found that the preferred provider is back.
        for number in range(10 + crowd_size, 70 + crowd_size):
            group.create_task(customers.request(number))
            await asyncio.sleep(customers.wait(1.0))
        await asyncio.wait(crowd.values())
    outcome = outcome_of(customers.served, providers, span=hangs, failing=providers[0], returns=False)
    back = [one.ended for one in customers.served if one.by == "alder"]
    return msgspec.structs.replace(
        outcome,
        amplification=sum(len(provider.attempts) for provider in providers) / (10 + crowd_size + 60),
        time_to_return=max(0.0, min(back) - begun) if back else math.inf,
        more={"cancelled": cancelled / crowd_size, "left": sum(provider.under_way for provider in providers)},
    )


async def cancel_most(crowd: dict[int, asyncio.Task[None]], probed: TroubledProvider, dice: random.Random) -> int:
    """Cancel 90 %, first those whose calls are under way to a provider; return how many had not ended before."""
    probing = [one.input for one in probed.attempts if one.kind == "Cancelled" and one.input in crowd]
    chosen = probing[: round(CANCELLED * len(crowd))]
    others = [number for number in crowd if number not in set(chosen)]
    chosen += dice.sample(others, round(CANCELLED * len(crowd)) - len(chosen))
    for number in chosen:
        crowd[number].cancel()
    await asyncio.wait([crowd[number] for number in chosen])
    return sum(crowd[number].cancelled() for number in chosen)
