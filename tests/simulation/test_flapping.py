"""A provider that comes and goes, beside two that are well: it costs no request, and opens its breaker few times."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors import GetStatus, Market, Supervisor, smart_request
from actors.simulation import Flapping, SimulatedProvider
from runtime import ActorSystem
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime.simulation import Simulation

SEEDS = range(repeated(100, part=50))


async def a_flapping_provider(simulation: Simulation) -> None:
    # Reached: 4 to 7. A check that fails makes no probe, and so no trip. How many requests come hardly matters, so that
    # few come in most seeds.
    dice = simulation.random
    rate = 20.0 if simulation.seed % 4 == 0 else 5.0
    up, down = dice.choice([(10.0, 10.0), (5.0, 5.0), (20.0, 20.0), (7.0, 13.0), (13.0, 7.0)])
    providers = [
        SimulatedProvider(simulation, name, services={"s"}, reputation=reputation, latency=(0.1, 0.3))
        for name, reputation in (("alder", 90.0), ("birch", 70.0), ("cedar", 50.0))
    ]
    simulation.inject(Flapping(provider="alder", at=dice.uniform(0.0, up + down), lasts=300.0, up=up, down=down))
    market = Market(providers=[one.listing() for one in providers])
    async with ActorSystem("flapping", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        async with asyncio.TaskGroup() as group:
            while simulation.now() < 200.0:
                group.create_task(smart_request(supervisor, service="s", input="x", timeout=10.0))
                await asyncio.sleep(dice.expovariate(rate))
        alder, *_ = await supervisor.ask(GetStatus(), timeout=1.0)
    assert alder.provider.name == "alder"
    assert 3 <= alder.trips <= 8


def test_a_provider_whose_check_tells_how_it_is_opens_its_breaker_at_most_eight_times() -> None:
    assert explore(a_flapping_provider, seeds=SEEDS).runs == len(SEEDS)
