"""A provider whose answers take minutes is taken back after an outage, like any other; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from actors import CallFailed, FunctionTransport, Listing, Market, Provider, Supervisor, smart_request
from actors.errors.classification import classify_status
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened
from runtime import ActorSystem
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import ProviderCall
    from runtime.simulation import Simulation

SEEDS = repeated(100)
LONGEST_WAIT = 25.0
"""Seconds that an open breaker waits at most, by default."""


def slow(simulation: Simulation, name: str, latency: Callable[[], float], *, until: float = 0.0) -> Listing:
    """List a provider with a timeout and places enough, which is down until a time."""

    async def serve(_: ProviderCall) -> str:
        if simulation.now() < until:
            await asyncio.sleep(0.1)
            raise classify_status(503, provider=name)
        await asyncio.sleep(latency())
        return name

    return Listing(
        provider=Provider(name=name, services={"s"}, price="0.001", reputation=90.0 if until else 50.0),
        transport=lambda: FunctionTransport(serve, paid=True, idempotent="key", ends_when_cancelled=True),
        timeout=2000.0,
        max_concurrency=100,
    )


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("latencies", [(45.0,), (300.0,), (1.0, 60.0)], ids=str)
@pytest.mark.simulate(seeds=SEEDS)
async def test_a_slow_provider_that_is_well_again_is_taken_back_by_its_first_good_answer(
    simulation, latencies, is_alone
):
    dice, longest = simulation.random, max(latencies)
    back = dice.uniform(20.0, 90.0)
    listings = [slow(simulation, "alder", lambda: dice.choice(latencies), until=back)]
    if not is_alone:
        listings.append(slow(simulation, "birch", lambda: dice.choice(latencies)))
    events: list[tuple[float, type]] = []
    failed: list[float] = []
    served: list[str] = []

    async def request(number: int) -> None:
        came = simulation.now()
        try:
            result = await smart_request(supervisor, service="s", input=number, timeout=10 * longest)
            served.append(result.provider)
        except CallFailed:
            failed.append(came)

    async with ActorSystem("slow") as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        for kind in (BreakerOpened, BreakerHalfOpened, BreakerClosed):
            system.events.subscribe(kind, lambda event: events.append((simulation.now(), type(event))))
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(request(number))
                # Ten trip its breaker; after that there are always some for whom it could be the first choice.
                await asyncio.sleep(dice.uniform(0.1, 1.0) if number < 10 else dice.expovariate(10 / longest))
    closed = [at for at, kind in events if kind is BreakerClosed]
    assert len(closed) == 1, events
    # It closes by the first probe after the outage, of which one is under way at a time.
    assert closed[0] <= back + LONGEST_WAIT + 2 * longest, (back, events)
    assert [kind for _, kind in events[-2:]] == [BreakerHalfOpened, BreakerClosed]
    assert not [at for at, kind in events if kind is BreakerOpened and at > back + 0.1]
    # What fails is what had used up its tries before the provider was back.
    assert all(came < back for came in failed)
    assert len(failed) <= 5
    assert len(served) == 50 - len(failed)
