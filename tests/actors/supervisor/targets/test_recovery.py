"""How soon requests that have nowhere else to go are served once their provider is well again; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from actors import FunctionTransport, Listing, Provider, Retry
from actors.errors.classification import classify_status
from actors.policies.breaker.config import BreakerConfig
from actors.policies.breaker.states import Open
from actors.policies.breaker.transitions import sooner
from tests.actors.supervisor.stage import staged
from tests.proofs import repeated

REQUESTS = 500


@pytest.mark.parametrize("limits", [{"rate_limit": 40.0}, {"max_concurrency": 8}], ids=str)
@pytest.mark.simulate(seeds=repeated(100))
async def test_five_hundred_requests_are_done_soon_after_their_only_provider_is_back(simulation, limits):
    back = simulation.random.uniform(55.0, 65.0)
    ended: list[float] = []
    tried_together = under_way = 0

    async def serve(_: object) -> str:
        nonlocal tried_together, under_way
        under_way += 1
        if 30 < simulation.now() < back:
            tried_together = max(tried_together, under_way)
        try:
            await asyncio.sleep(0.05 if simulation.now() < back else 0.2)
            if simulation.now() < back:
                raise classify_status(503, provider="a")
        finally:
            under_way -= 1
        return "a"

    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: FunctionTransport(serve, paid=False, idempotent="repeatable", ends_when_cancelled=True),
        **limits,
    )
    async with staged(listing, retry=Retry()) as stage:

        async def request(number: int) -> None:
            await stage.request(input=number, timeout=300)
            ended.append(simulation.now())

        async with asyncio.TaskGroup() as group:
            for number in range(REQUESTS):
                group.create_task(request(number))
                await asyncio.sleep(0.05)
        await stage.assert_at_rest()
    # 12.5 seconds of work, an open breaker's wait of 11 at most, and the slow start.
    assert len(ended) == REQUESTS
    assert max(ended) - back <= 30.0
    assert tried_together == 1


def test_a_wait_is_not_cut_below_the_first_nor_if_its_limit_is_configured():
    config = BreakerConfig(jitter=0.0)
    assert sooner(Open(3, until=15.0, reopened=4, earlier=1), now=0.0, config=config) == Open(3, 10.0, 4, 1)
    assert sooner(Open(3, until=6.0), now=0.0, config=config).until == 5.0
    assert sooner(Open(3, until=5.0), now=0.0, config=config).until == 5.0
    configured = BreakerConfig(open_for=5.0, max_open_for=60.0)
    assert sooner(Open(3, until=60.0), now=0.0, config=configured).until == 60.0
