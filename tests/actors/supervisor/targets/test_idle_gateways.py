"""Gateways that have nothing to do close their connections, and open them again when they are needed."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    FunctionTransport,
    GetStatus,
    Isolate,
    Listing,
    Market,
    NoProvider,
    Provider,
    Supervisor,
    smart_request,
)
from actors.supervisor.targets.idle_gateways import CLOSE_IDLE_AFTER, MAX_IDLE
from actors.transports.http import HttpTransport
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, staged, steps
from tests.actors.transports.http_upstream import Upstream, answer
from tests.real_time import skip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors import ProviderCall
    from tests.actors.supervisor.stage import Stage


class Doors:
    """Makes listings, and counts the transports that are open, by provider."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.most = 0

    def listing(self, name: str, script: Any, **options: Any) -> Listing:
        doors = self

        class Door(FunctionTransport):
            is_open = True

            async def aclose(self) -> None:
                if self.is_open:
                    self.is_open = False
                    doors.open[name] -= 1

        def make() -> Door:
            self.made[name] += 1
            self.open[name] += 1
            self.most = max(self.most, self.open.total())
            return Door(script, paid=False, idempotent="repeatable", provider=name)

        provider = Provider(name=name, services={name, "any"}, price=0)
        return Listing(provider=provider, transport=make, **options)


async def test_a_gateway_closes_after_five_minutes_without_a_call_and_opens_again_for_the_next():
    doors = Doors()
    async with staged(doors.listing("a", Script())) as stage:
        for _ in range(3):
            await stage.request(service="a")
            await asyncio.sleep(CLOSE_IDLE_AFTER - 1.0)
        assert (doors.made["a"], doors.open["a"]) == (1, 1)
        await asyncio.sleep(2.0)
        assert doors.open["a"] == 0
        await stage.request(service="a")
        assert (doors.made["a"], doors.open["a"]) == (2, 1)
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert doors.open["a"] == 0
        await stage.assert_at_rest()


async def test_a_gateway_with_a_call_under_way_is_not_idle_however_long_it_takes():
    doors = Doors()
    long = 3 * CLOSE_IDLE_AFTER
    async with staged(doors.listing("a", Script(lasts=long), timeout=2 * long)) as stage:
        first = asyncio.create_task(stage.request(service="a", timeout=2 * long))
        await asyncio.sleep(long / 2)
        second = asyncio.create_task(stage.request(service="a", timeout=2 * long))
        await first
        await asyncio.sleep(long / 4)
        assert (doors.made["a"], doors.open["a"]) == (1, 1)
        await second
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert doors.open["a"] == 0


@pytest.mark.parametrize("why", ["idle", "isolated"])
async def test_a_transport_that_listings_share_is_closed_by_the_last_of_them(why: str):
    ended: list[str] = []

    class Shared(FunctionTransport):
        async def aclose(self) -> None:
            ended.append(f"closed at {asyncio.get_running_loop().time() - began:.0f}")

    async def answer(call: ProviderCall) -> str:
        await asyncio.sleep(1_000.0 if call.provider == "a" else 0.0)
        return "done"

    shared = Shared(answer, paid=True, idempotent="no")
    listings = [
        Listing(provider=Provider(name=name, services={name}), transport=lambda: shared, timeout=2_000.0)
        for name in ("a", "b")
    ]
    async with staged(*listings) as stage:
        began = asyncio.get_running_loop().time()
        asking = asyncio.create_task(stage.request(service="a", timeout=2_000.0))
        await stage.request(service="b")
        if why == "isolated":
            await stage.ref.ask(Isolate(provider="b"), timeout=1.0)
        assert (await asking).output == "done"
        assert ended == []
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert ended == ["closed at 1300"]


async def test_a_request_that_is_given_up_leaves_its_gateway_to_close():
    doors = Doors()
    async with staged(doors.listing("a", Script(lasts=60.0), timeout=60.0)) as stage:
        request = asyncio.create_task(stage.request(service="a"))
        await steps(20)
        assert doors.open["a"] == 1
        request.cancel()
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert doors.open["a"] == 0
        await stage.assert_at_rest()


async def test_a_gateway_that_was_opened_for_a_health_check_closes_too():
    doors = Doors()
    async with staged(doors.listing("a", Script())) as stage:
        await stage.ref.ask(GetStatus(check_health=True), timeout=10)
        assert doors.open["a"] == 1
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert doors.open["a"] == 0


async def test_the_gateway_of_a_provider_that_left_closes_within_minutes_though_no_request_comes():
    doors, offered = Doors(), [True]
    listing = doors.listing("a", Script())

    async def registry(_: str) -> list[Listing]:
        return [listing] if offered[0] else []

    async with staged(doors.listing("fixed", Script()), registry=registry) as stage:
        await stage.request(service="a")
        offered[0] = False
        assert doors.open["a"] == 1
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert doors.open.total() == 0


async def test_a_market_of_many_providers_called_once_each_keeps_a_hundred_gateways():
    doors = Doors()
    many = [doors.listing(f"p{number}", Script()) for number in range(3 * MAX_IDLE)]
    async with staged(*many) as stage:
        for listing in many:
            await stage.request(service=listing.provider.name)
            await steps(5)
            assert len(stage.actor.idle_gateways) <= MAX_IDLE
        assert doors.open.total() == MAX_IDLE
        assert doors.most <= MAX_IDLE + 2
        assert doors.open["p0"] == 0
        assert doors.open[many[-1].provider.name] == 1
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert doors.open.total() == 0


async def test_of_many_gateways_at_work_at_once_a_hundred_stay_open_afterwards():
    doors = Doors()
    many = [doors.listing(f"p{number}", Script(lasts=1.0)) for number in range(2 * MAX_IDLE)]
    async with staged(*many) as stage:
        served = await asyncio.gather(*(stage.request(service=one.provider.name) for one in many))
        assert len(served) == doors.most == 2 * MAX_IDLE
        await steps(20)
        assert doors.open.total() == MAX_IDLE
        await stage.assert_at_rest()


async def test_a_supervisor_at_rest_has_no_timer():
    doors = Doors()
    async with staged(doors.listing("a", Script())) as stage:
        await stage.request(service="a")
        await asyncio.sleep(CLOSE_IDLE_AFTER + 1.0)
        assert timers(stage) == 0


def timers(stage: Stage) -> int:
    return len(stage.actor.context.timers._active)


@pytest.mark.real_time
async def test_the_sockets_to_providers_that_left_or_are_idle_are_closed_and_opened_again():
    async with upstreams(count=3) as servers:
        offered = [listed(f"p{number}", server) for number, server in enumerate(servers)]

        async def registry(service: str) -> list[Listing]:
            return [one for one in offered if service in one.provider.services]

        async with ActorSystem("test") as system:
            ref = system.spawn(lambda: Supervisor(Market(providers=[listed("fixed", servers[0])]), registry=registry))

            async def ask(name: str) -> Any:
                return (await smart_request(ref, service=name, input="x")).output

            assert [await ask("p0"), await ask("p1"), await ask("p2")] == ["done"] * 3
            assert [len(server._tasks) for server in servers] == [1, 1, 1]
            del offered[0]
            await skip(CLOSE_IDLE_AFTER)
            for server in servers:
                await server.closed_by_client.wait()
            assert [len(server._tasks) for server in servers] == [0, 0, 0]
            assert await ask("p1") == "done"
            with pytest.raises(NoProvider):
                await ask("p3")


def listed(name: str, server: Upstream) -> Listing:
    server.script = [answer(200, {"output": "done"})] * 9
    return Listing(
        provider=Provider(name=name, services={name}, price=0),
        transport=lambda: HttpTransport(name, server.url, paid=False, idempotent="repeatable"),
    )


@asynccontextmanager
async def upstreams(count: int) -> AsyncIterator[list[Upstream]]:
    found = [Upstream() for _ in range(count)]
    servers = [await asyncio.start_server(one.serve, "127.0.0.1", 0) for one in found]
    for one, server in zip(found, servers, strict=True):
        one.port = server.sockets[0].getsockname()[1]
    yield found
    for one, server in zip(found, servers, strict=True):
        server.close()
        await one.stop()
