"""Who offers a service, while the registry is quick, slow, down or hangs; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import Discover, Discovery, FunctionTransport, Listing, NoProvider, Provider, ProviderFilter, RegistryDown
from actors.discovery import MAX_LOOK_UP, PAUSE, registry_of
from actors.market import DiscoveryConfig, Market
from runtime import Actor, ActorSystem, AskTimeout, Request, handles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors import Found
    from runtime import ActorRef

TTL = 600.0
FOREVER = 1e9


async def answer(_: Any) -> str:
    return "done"


def listed(name: str, **facts: Any) -> Listing:
    return Listing(
        provider=Provider(name=name, services={"s"}, **facts),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="nature"),
    )


class Registry:
    """Answers with `listings` after `lasts` seconds, or raises `error`; keeps the times at which it was asked."""

    def __init__(self, *listings: Listing, lasts: float = 0.0) -> None:
        self.listings = list(listings)
        self.lasts = lasts
        self.error: Exception | None = None
        self.asked: list[float] = []

    async def __call__(self, service: str) -> list[Listing]:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.lasts)
        if self.error is not None:
            raise self.error
        return self.listings


@asynccontextmanager
async def discovering(registry: Any) -> AsyncIterator[ActorRef[Discover]]:
    async with ActorSystem("market") as system:
        yield system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL)))
    assert len(asyncio.all_tasks()) == 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def find(ref: ActorRef[Discover], *, timeout: float = 10.0, **question: Any) -> Found:  # noqa: ASYNC109 - a deadline.
    return await ref.ask(Discover(**{"service": "s"} | question), timeout=timeout)


def names(found: Found) -> list[str]:
    return [listing.provider.name for listing in found.listings]


async def test_what_was_found_is_remembered_until_its_time_is_up_and_then_refreshed_behind_one_more_answer():
    registry = Registry(listed("a"))
    async with discovering(registry) as ref:
        for _ in range(100):
            assert names(await find(ref)) == ["a"]
        assert len(registry.asked) == 1
        registry.listings = [listed("b")]
        await asyncio.sleep(TTL)
        stale = await find(ref)
        assert (names(stale), stale.stale) == (["a"], True)
        await settle()
        fresh = await find(ref)
        assert (names(fresh), fresh.stale) == (["b"], False)
        assert registry.asked == [0.0, TTL]


async def test_a_thousand_who_ask_at_once_share_one_look_up():
    registry = Registry(listed("a"), lasts=2.0)
    async with discovering(registry) as ref:
        found = await asyncio.gather(*(find(ref) for _ in range(1000)))
        assert {tuple(names(one)) for one in found} == {("a",)}
        assert registry.asked == [0.0]


async def test_a_registry_that_is_down_at_the_first_look_up_is_told_and_asked_again_by_the_next():
    registry = Registry(listed("a"))
    registry.error = OSError("no route")
    async with discovering(registry) as ref:
        with pytest.raises(RegistryDown, match="OSError: no route") as down:
            await find(ref)
        assert down.value.service == "s"
        registry.error = None
        assert names(await find(ref)) == ["a"]


async def test_a_registry_that_is_down_later_is_served_for_stale_and_left_alone_for_a_while():
    registry = Registry(listed("a"))
    async with discovering(registry) as ref:
        await find(ref)
        registry.error = OSError("no route")
        await asyncio.sleep(TTL)
        for _ in range(100):
            found = await find(ref)
            assert (names(found), found.stale) == (["a"], True)
            await asyncio.sleep(0)
        assert len(registry.asked) == 2
        await asyncio.sleep(PAUSE)
        await find(ref)
        await asyncio.sleep(PAUSE)
        assert len(registry.asked) == 3
        registry.error = None
        await find(ref)
        await settle()
        assert (await find(ref)).stale is False


async def test_a_registry_that_hangs_keeps_nobody_who_has_an_answer_and_is_given_up():
    registry = Registry(listed("a"))
    async with discovering(registry) as ref:
        await find(ref)
        registry.lasts = FOREVER
        await asyncio.sleep(TTL)
        began = asyncio.get_running_loop().time()
        for _ in range(10):
            assert (await find(ref)).stale
            await settle()
        assert asyncio.get_running_loop().time() == began
        assert len(registry.asked) == 2
        registry.lasts = 0.0
        await asyncio.sleep(MAX_LOOK_UP + PAUSE)
        await find(ref)
        await settle()
        assert (await find(ref)).stale is False


async def test_a_registry_that_hangs_at_the_first_look_up_lets_each_asker_go_at_its_time():
    registry = Registry(lasts=FOREVER)
    async with discovering(registry) as ref:
        with pytest.raises(AskTimeout):
            await find(ref, timeout=3.0)
        with pytest.raises(RegistryDown, match="TimeoutError"):
            await find(ref, timeout=100.0)
        assert asyncio.get_running_loop().time() == MAX_LOOK_UP
        registry.listings, registry.lasts = [listed("a")], 0.0
        assert names(await find(ref)) == ["a"]


async def test_a_look_up_goes_on_for_the_others_when_the_one_who_began_it_is_cancelled():
    registry = Registry(listed("a"), lasts=2.0)
    for k in range(6):
        registry.asked.clear()
        async with discovering(registry) as ref:
            first = asyncio.create_task(find(ref))
            for _ in range(k):
                await asyncio.sleep(0)
            others = [asyncio.create_task(find(ref)) for _ in range(5)]
            await asyncio.sleep(0)
            first.cancel()
            assert [names(one) for one in await asyncio.gather(*others)] == [["a"]] * 5
            assert len(registry.asked) == 1


class Lookup(Request[str]):
    pass


class Directory(Actor[Lookup]):
    """A registry that is an actor itself, and takes two seconds."""

    latency = 2.0

    @handles(Lookup)
    async def look_up(self, message: Lookup) -> str:
        await asyncio.sleep(self.latency)
        return "a"


class Hasty(Actor[Lookup]):
    """Asks discovery with little time."""

    def __init__(self, discovery: ActorRef[Discover]) -> None:
        self.discovery = discovery

    @handles(Lookup)
    async def look_up(self, message: Lookup) -> str:
        return names(await find(self.discovery))[0]


async def test_the_deadline_of_the_one_who_began_a_look_up_does_not_bind_the_others():
    async with ActorSystem("market") as system:
        directory = system.spawn(Directory)

        async def registry(_: str) -> list[Listing]:
            return [listed(await directory.ask(Lookup(), timeout=9.0))]

        ref = system.spawn(lambda: Discovery(registry))
        hasty = system.spawn(lambda: Hasty(ref))
        first = asyncio.create_task(hasty.ask(Lookup(), timeout=1.0))
        await asyncio.sleep(0)
        second = asyncio.create_task(find(ref))
        with pytest.raises(AskTimeout):
            await first
        assert names(await second) == ["a"]


async def test_nobody_who_passes_the_filter_is_no_provider_with_the_reasons():
    registry = Registry(listed("a", price=500), listed("b", available=False))
    async with discovering(registry) as ref:
        with pytest.raises(NoProvider) as none:
            await find(ref, where=ProviderFilter(max_price="0.0001"))
        assert none.value.offered == 2
        assert none.value.dropped == {"over max_price 0.0001": 1, "unavailable": 1}
        kept = await find(ref, where=ProviderFilter(max_price="0.001"))
        assert (names(kept), kept.dropped) == (["a"], {"unavailable": 1})
        assert len(registry.asked) == 1


async def test_the_first_who_offers_a_service_is_found_at_once_and_the_last_who_leaves_is_forgotten():
    registry = Registry()
    async with discovering(registry) as ref:
        with pytest.raises(NoProvider) as none:
            await find(ref)
        assert none.value.offered == 0
        registry.listings = [listed("a")]
        assert names(await find(ref)) == ["a"]
        registry.listings = []
        await asyncio.sleep(TTL)
        assert (await find(ref)).stale
        await settle()
        with pytest.raises(NoProvider):
            await find(ref)


async def test_discovery_that_is_stopped_during_a_look_up_leaves_no_task():
    registry = Registry(lasts=FOREVER)
    async with discovering(registry) as ref:
        tasks = [asyncio.create_task(find(ref)) for _ in range(3)]
        await asyncio.sleep(0)
        ref.stop()
        await ref.terminated()
        await asyncio.wait(tasks)
        assert all(task.exception() is not None for task in tasks)
        assert asyncio.get_running_loop().time() == 0.0


async def test_the_registry_of_a_market_lists_who_offers_the_service():
    other = Listing(
        provider=Provider(name="x", services={"t"}),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="nature"),
    )
    look_up = registry_of(Market(providers=[listed("a"), other, listed("b")]))
    assert [listing.provider.name for listing in await look_up("s")] == ["a", "b"]
    assert list(await look_up("nothing")) == []
