"""Providers whose terms change, and providers that are no longer listed; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors import FunctionTransport, Listing, Provider, Retry
from actors.events import BreakerClosed, BreakerOpened
from actors.money import Micros
from tests.actors.supervisor.stage import Script, flaky, now, offer, staged, steps

if TYPE_CHECKING:
    from actors import ProviderCall


async def test_prices_that_change_between_requests_are_paid_as_they_were_admitted():
    script = Script("done", lasts=1.0)
    cheap, dear = offer("a", script, price=10), offer("a", script, price=30)
    offered = [cheap]

    async def registry(_: str) -> list[Listing]:
        return offered

    ttl = 700.0
    async with staged(cheap, registry=registry) as stage:
        assert (await stage.request()).cost == 10
        await asyncio.sleep(ttl)
        offered[:] = [dear]
        first = asyncio.create_task(stage.request())  # Served by what is remembered, which is refreshed behind it.
        await steps(20)
        second = asyncio.create_task(stage.request())
        await steps(20)
        assert [(await first).cost, (await second).cost] == [10, 30]
        await stage.assert_at_rest()


async def test_a_provider_whose_limits_change_goes_by_the_new_ones():
    script = Script("done", lasts=1.0)
    offered = [offer("a", script, max_concurrency=1, rate_limit=1.0)]

    async def registry(_: str) -> list[Listing]:
        return offered

    ttl = 700.0
    async with staged(offered[0], registry=registry) as stage:
        await stage.request()
        await asyncio.sleep(ttl)
        offered[:] = [offer("a", script, max_concurrency=50)]
        await stage.request()
        script.most_under_way = 0
        await asyncio.gather(*(stage.request() for _ in range(50)))
        assert script.most_under_way > 1
        await stage.assert_at_rest()


async def test_a_provider_that_nobody_lists_any_more_is_forgotten_and_its_gateway_stopped():
    closed: list[str] = []

    class Door(FunctionTransport):
        async def aclose(self) -> None:
            closed.append(str(self.provider))

    async def answer(call: ProviderCall) -> str:
        if call.provider == "0-bad":
            raise flaky("0-bad")
        return "done"

    async def registry(_service: str) -> list[Listing]:
        hour = int(now() // 3600)
        return [
            Listing(
                provider=Provider(name=name, services={"s"}, price=Micros(price)),
                transport=lambda name=name: Door(answer, paid=False, idempotent="repeatable", provider=name),
            )
            for price, name in enumerate([f"{hour}-bad", f"{hour}-good"])
        ]

    async with staged(offer("fixed", Script()), registry=registry, retry=Retry(max_retries=0)) as stage:
        for _ in range(6 * 60):  # For six hours, once a minute.
            assert (await stage.request(strategy="cheapest")).output == "done"
            await asyncio.sleep(60.0)
        names = {*stage.actor.targets.by_name}
        assert {"fixed", "5-bad", "5-good"} <= names
        # Looked for once an hour: who was found until ten minutes past four may still be known at six.
        assert names.isdisjoint({"0-bad", "0-good", "1-bad", "2-bad", "2-good"})
        assert {"0-bad", "0-good", "3-bad"} <= {*closed}
        assert stage.of(BreakerOpened)[0].provider == "0-bad"
        assert "0-bad" in [event.provider for event in stage.of(BreakerClosed)]
        await stage.assert_at_rest()
