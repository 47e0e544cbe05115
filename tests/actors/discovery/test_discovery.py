"""The providers of a service, while the registry is quick, slow, down or hangs; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    Discovery,
    FunctionTransport,
    Listing,
    NoProvider,
    Permanent,
    Provider,
    ProviderFilter,
    ProviderGateway,
    Supervisor,
)
from actors.discovery import Discover
from actors.discovery.discovery import (
    FORGET_AFTER,
    LOOKUP_TIMEOUT,
    MAX_PAUSE,
    MAX_SERVICES,
    MIN_PAUSE,
    registry_of,
)
from actors.discovery.subscribers import ProvidersChanged, SubscribeProviders, UnsubscribeProviders
from actors.errors import RegistryDown
from actors.events import BreakerClosed, BreakerOpened, CallEnded, HealthChecked
from actors.market.market import DiscoveryConfig, Market
from actors.money import Micros
from actors.providers.ejection import EjectionConfig
from actors.providers.health import WatchConfig
from actors.simulation import RegistryOutage, SimulatedProvider, simulated_registry
from actors.supervisor.client import check_health, discover
from runtime import Actor, ActorSystem, AskTimeout, Mailbox, Request, handles
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from actors.discovery import Offers
    from runtime import ActorRef

TTL = 600.0
FOREVER = 1e9


async def answer(_: Any) -> str:
    return "done"


def listed(name: str, **facts: Any) -> Listing:
    return Listing(
        provider=Provider(name=name, services={"s"}, **facts),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
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
        yield system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL), jitter=0.0))
    assert len(asyncio.all_tasks()) == 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def find(ref: ActorRef[Discover], *, timeout: float = 10.0, **question: Any) -> Offers:  # noqa: ASYNC109 - a deadline.
    return await ref.ask(Discover(**{"service": "s"} | question), timeout=timeout)


def names(found: Offers) -> list[str]:
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


async def test_a_thousand_askers_at_once_share_one_look_up():
    registry = Registry(listed("a"), lasts=2.0)
    async with discovering(registry) as ref:
        found = await asyncio.gather(*(find(ref) for _ in range(1000)))
        assert {tuple(names(one)) for one in found} == {("a",)}
        assert registry.asked == [0.0]


async def test_a_registry_that_is_down_at_the_first_look_up_is_reported_and_asked_again_by_the_next():
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
        await asyncio.sleep(MIN_PAUSE)
        await find(ref)
        await asyncio.sleep(2 * MIN_PAUSE)
        assert len(registry.asked) == 3
        registry.error = None
        await find(ref)
        await settle()
        assert (await find(ref)).stale is False


async def test_a_registry_that_hangs_delays_no_asker_that_has_an_answer_and_is_given_up():
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
        await asyncio.sleep(LOOKUP_TIMEOUT + MIN_PAUSE)
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
        assert asyncio.get_running_loop().time() == LOOKUP_TIMEOUT
        registry.listings, registry.lasts = [listed("a")], 0.0
        assert names(await find(ref)) == ["a"]


async def test_a_look_up_goes_on_for_the_others_when_the_asker_that_began_it_is_cancelled():
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


async def test_the_deadline_of_the_asker_that_began_a_look_up_does_not_bind_the_others():
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


async def test_if_none_passes_the_filter_that_is_no_provider_with_the_reasons():
    registry = Registry(listed("a", price=Micros(500)), listed("b", available=False))
    async with discovering(registry) as ref:
        with pytest.raises(NoProvider) as none:
            await find(ref, where=ProviderFilter(max_price="0.0001"))
        assert none.value.offered == 2
        assert none.value.dropped == {"over max_price $0.0001": 1, "unavailable": 1}
        kept = await find(ref, where=ProviderFilter(max_price="0.001"))
        assert (names(kept), kept.dropped) == (["a"], {"unavailable": 1})
        assert len(registry.asked) == 1


async def test_the_first_provider_of_a_service_is_found_at_once_and_the_last_to_leave_is_forgotten():
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


async def test_a_service_that_was_not_asked_for_in_an_hour_is_forgotten_unless_it_has_subscribers():
    registry = Registry(listed("a"))
    async with remembering(registry) as (system, ref, actor):
        follower, _ = listener(system)
        ref.tell(SubscribeProviders(service="followed", subscriber=follower))
        for service in ("once", "often"):
            await ref.ask(Discover(service=service), timeout=FOREVER)
        registry.error = ConnectionError("down")
        for _ in range(int(2 * FORGET_AFTER / TTL)):
            await asyncio.sleep(TTL)
            await ref.ask(Discover(service="often"), timeout=FOREVER)
        await settle()
        assert {*actor()._cache} == {"followed", "often"}
        assert {*actor()._failures} == {*actor()._paused_until} == {"followed", "often"}
        # What is asked for now is not forgotten now: an old answer is all that there is while the registry is down.
        await asyncio.sleep(2 * FORGET_AFTER)
        assert (await ref.ask(Discover(service="often"), timeout=FOREVER)).stale


async def test_of_too_many_services_the_one_asked_for_longest_ago_is_forgotten():
    async with remembering(Registry(listed("a"))) as (_, ref, actor):
        for number in range(MAX_SERVICES):
            await ref.ask(Discover(service=f"service-{number}"), timeout=FOREVER)
            await asyncio.sleep(0.001)
        await ref.ask(Discover(service="service-0"), timeout=FOREVER)
        for number in range(3):
            await ref.ask(Discover(service=f"new-{number}"), timeout=FOREVER)
        assert len(actor()._cache) == MAX_SERVICES
        assert "service-0" in actor()._cache
        assert {f"service-{number}" for number in (1, 2, 3)}.isdisjoint(actor()._cache)


@asynccontextmanager
async def remembering(registry: Any) -> AsyncIterator[tuple[ActorSystem, ActorRef[Discover], Callable[[], Discovery]]]:
    made: list[Discovery] = []

    def make() -> Discovery:
        made.append(Discovery(registry, DiscoveryConfig(ttl=TTL), jitter=0.0))
        return made[-1]

    async with ActorSystem("market") as system:
        yield system, system.spawn(make), lambda: made[-1]


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


async def test_the_registry_of_a_market_lists_the_providers_of_the_service():
    other = Listing(
        provider=Provider(name="x", services={"t"}),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
    )
    look_up = registry_of(Market(providers=[listed("a"), other, listed("b")]))
    assert [listing.provider.name for listing in await look_up("s")] == ["a", "b"]
    assert list(await look_up("nothing")) == []


# Time to live, pauses, and one look-up at a time.


async def test_the_time_to_live_of_each_answer_is_spread_so_that_not_all_are_looked_up_at_once():
    registry = Registry(listed("a"))
    async with ActorSystem("market", seed=1) as system:
        ref = system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL)))
        for number in range(40):
            service = f"s{number}"
            await find(ref, service=service)
        began = asyncio.get_running_loop().time()
        stale: dict[str, float] = {}
        while len(stale) < 40:
            await asyncio.sleep(1.0)
            for number in range(40):
                service = f"s{number}"
                if service not in stale and (await find(ref, service=service)).stale:
                    stale[service] = asyncio.get_running_loop().time() - began
                    await settle()
        lives = {round(life) for life in stale.values()}
    assert 0.9 * TTL <= min(lives) < 0.95 * TTL
    assert 1.05 * TTL < max(lives) <= 1.1 * TTL + 1
    assert len(lives) > 20


async def test_while_the_registry_is_down_it_is_asked_after_pauses_that_grow_and_the_old_answer_is_served():
    registry = Registry(listed("a"))
    async with discovering(registry) as ref:
        await find(ref)
        registry.error = OSError("no route")
        await asyncio.sleep(TTL)
        for _ in range(round(2 * TTL)):
            found = await find(ref)
            assert (names(found), found.stale) == (["a"], True)
            await asyncio.sleep(1.0)
        pauses = [later - earlier for earlier, later in itertools.pairwise(registry.asked[1:])]
        assert pauses[0] <= 2.0
        assert max(pauses) <= MAX_PAUSE + 1.0
        assert len(pauses) < 40
        assert pauses[-1] > 10 * pauses[0]
        registry.error = None
        await asyncio.sleep(MAX_PAUSE)
        await find(ref)
        await settle()
        assert (await find(ref)).stale is False


async def one_look_up_at_a_time(simulation: Simulation) -> None:
    dice = simulation.random
    simulation.inject(
        RegistryOutage(at=dice.uniform(0, 3000), lasts=dice.uniform(1, 2000), hangs=dice.random() < 0.3, may_miss=True),
        RegistryOutage(at=dice.uniform(0, 3000), lasts=dice.uniform(1, 2000), may_miss=True),
    )
    provider = SimulatedProvider(simulation, "alder", services={"s", "t"}, price=Micros(1))
    inner = simulated_registry(simulation, [provider], latency=dice.uniform(0.0, 5.0))
    under_way: Counter[str] = Counter()
    has_answered: set[str] = set()

    async def registry(service: str) -> Any:
        under_way[service] += 1
        assert under_way[service] == 1, f"{under_way[service]} look-ups of {service!r} at the same time"
        try:
            answer = await inner(service)
            has_answered.add(service)
            return answer
        finally:
            under_way[service] -= 1

    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=300.0)))
        ref.tell(SubscribeProviders(service="s", subscriber=system.spawn(Listener)))

        async def ask(service: str, waits: list[float]) -> None:
            for wait in waits:
                await asyncio.sleep(wait)
                was_known = service in has_answered
                began = simulation.now()
                try:
                    found = await ref.ask(Discover(service=service), timeout=60.0)
                except RegistryDown:
                    assert not was_known
                else:
                    assert names(found) == ["alder"]
                    assert not was_known or simulation.now() == began

        askers = [("st"[number % 2], [dice.expovariate(1 / 100) for _ in range(20)]) for number in range(6)]
        await asyncio.gather(*(ask(service, waits) for service, waits in askers))
    assert not under_way.total()


def test_under_any_seed_there_is_one_look_up_of_a_service_at_a_time_and_what_was_found_stays_found():
    explore(one_look_up_at_a_time, seeds=range(repeated(200)))


# Subscribers.


class Listener(Actor[ProvidersChanged]):
    """Keeps the names that it is sent, each time."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.gate: asyncio.Event | None = None

    @handles(ProvidersChanged)
    async def observe(self, message: ProvidersChanged) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.told.append([provider.name for provider in message.providers])


def listener(system: ActorSystem, **options: Any) -> tuple[ActorRef[ProvidersChanged], Listener]:
    actor = Listener()
    return system.spawn(lambda: actor, **options), actor


async def test_a_subscriber_is_told_at_once_and_then_of_each_change_though_no_actor_asks():
    registry = Registry(listed("a"), lasts=1.0)
    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL), jitter=0.0))
        early, heard_early = listener(system)
        ref.tell(SubscribeProviders(service="s", subscriber=early))
        ref.tell(SubscribeProviders(service="s", subscriber=early))
        await asyncio.sleep(2.0)
        late, heard_late = listener(system)
        ref.tell(SubscribeProviders(service="s", subscriber=late))
        await settle()
        assert (heard_early.told, heard_late.told) == ([["a"]], [["a"]])
        await asyncio.sleep(2 * TTL)
        assert heard_early.told == [["a"]]
        registry.listings = [listed("a"), listed("b")]
        await asyncio.sleep(TTL + 10)
        registry.listings = []
        await asyncio.sleep(TTL + 10)
        registry.listings = [listed("b")]
        await asyncio.sleep(TTL + 10)
        assert heard_early.told == heard_late.told == [["a"], ["a", "b"], [], ["b"]]
        assert registry.asked == [0.0, 601.0, 1202.0, 1803.0, 2404.0, 3005.0]


async def test_a_subscriber_is_told_when_a_registry_that_was_down_comes_back():
    registry = Registry(listed("a"))
    registry.error = OSError("no route")
    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(registry))
        subscriber, heard = listener(system)
        ref.tell(SubscribeProviders(service="s", subscriber=subscriber))
        await asyncio.sleep(200.0)
        assert heard.told == []
        assert 5 <= len(registry.asked) <= 12
        registry.error = None
        await asyncio.sleep(MAX_PAUSE)
        assert heard.told == [["a"]]


async def test_a_subscription_ends_with_the_subscriber_or_on_request_and_then_no_registry_is_asked():
    registry = Registry(listed("a"))
    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL), jitter=0.0))
        gone, _ = listener(system)
        left, heard = listener(system)
        for subscriber in (gone, left):
            ref.tell(SubscribeProviders(service="s", subscriber=subscriber))
        await settle()
        gone.stop()
        await gone.terminated()
        ref.tell(UnsubscribeProviders(service="s", subscriber=left))
        registry.listings = [listed("b")]
        await asyncio.sleep(5 * TTL)
        assert registry.asked == [0.0]
        assert heard.told == [["a"]]
        ref.tell(SubscribeProviders(service="s", subscriber=gone))
        await asyncio.sleep(5 * TTL)
        assert len(registry.asked) <= 2


async def test_a_subscriber_that_is_too_busy_is_told_with_the_next_look_up():
    registry = Registry(listed("a"))
    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL), jitter=0.0))
        await find(ref)
        busy, heard = listener(system, mailbox=Mailbox(capacity=1))
        gate = asyncio.Event()
        heard.gate = gate
        for _ in range(2):
            busy.tell(ProvidersChanged(service="other", providers=()))
            await settle()
        ref.tell(SubscribeProviders(service="s", subscriber=busy))
        await settle()
        gate.set()
        await settle()
        assert heard.told == [[], []]
        await asyncio.sleep(TTL + 1.0)
        assert heard.told == [[], [], ["a"]]


# Observations.


def ended(provider: str, *, latency: float = 1.0, error: str | None = None) -> CallEnded:
    return CallEnded(
        request_id="r", provider=provider, service="s", attempt=1, latency=latency, cost=Micros(0), error=error
    )


class Market3:
    """A system with a discovery of three providers, a, b and c, that has been asked once."""

    def __init__(self, system: ActorSystem, ref: ActorRef[Discover]) -> None:
        self.system = system
        self.ref = ref

    def publish(self, *events: Any) -> None:
        for event in events:
            self.system.events.publish(event)

    async def find(self, **question: Any) -> Offers:
        return await find(self.ref, **question)

    async def unhealthy(self) -> dict[str, str]:
        return dict((await self.find()).unhealthy)


@asynccontextmanager
async def market(*, offered: str = "abc", watch: WatchConfig | None = None, **facts: Any) -> AsyncIterator[Market3]:
    registry = Registry(*(listed(name, **facts) for name in offered))
    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL), watch=watch, jitter=0.0))
        await find(ref)
        yield Market3(system, ref)


async def test_while_nothing_changes_every_asker_gets_the_same_answer():
    async with market() as stage:
        first = await stage.find()
        await asyncio.sleep(TTL / 2)
        assert await stage.find() is first
        assert await stage.find(where=ProviderFilter()) is first
        assert await stage.find(where=ProviderFilter(min_reputation=10)) is first
        assert first.providers == tuple(listing.provider for listing in first.listings)
        cheap = ProviderFilter(max_price="0.5", min_success_rate=0.5)
        assert await stage.find(where=cheap) is first
        stage.publish(ended("stranger"), BreakerClosed(provider="stranger"))
        await asyncio.sleep(TTL / 4)
        assert (await stage.find()).providers == first.providers


async def test_calls_correct_what_is_declared_and_the_filters_go_by_that():
    async with market(response_time=1.0) as stage:
        quick = ProviderFilter(max_response_time=2.0)
        assert names(await stage.find(where=quick)) == ["a", "b", "c"]
        stage.publish(*[ended("a", latency=9.0)] * 10, *[ended("b", error="Transient")] * 4)
        found = await stage.find(where=quick)
        assert (names(found), found.dropped) == (["b", "c"], {"over max_response_time 2": 1})
        everyone = await stage.find()
        assert [provider.response_time for provider in everyone.providers] == pytest.approx([5.0, 1.0, 1.0])
        assert everyone.providers[1].success_rate == pytest.approx(10 / 14)
        assert [listing.provider.response_time for listing in everyone.listings] == [1.0, 1.0, 1.0]
        assert {name: seen.calls for name, seen in everyone.observed.items()} == {"a": 10, "b": 4}
        sound = await stage.find(where=ProviderFilter(min_success_rate=0.9))
        assert names(sound) == ["a", "c"]
        await asyncio.sleep(0.9 * TTL)
        assert names(await stage.find(where=ProviderFilter(max_response_time=3.5))) == ["a", "b", "c"]


async def test_new_observations_show_within_a_second_and_not_in_every_answer():
    async with market() as stage:
        stage.publish(ended("a", latency=5.0))
        first = await stage.find()
        assert first.observed["a"].calls == 1
        stage.publish(ended("a", latency=5.0))
        assert await stage.find() is first
        await asyncio.sleep(1.0)
        assert (await stage.find()).observed["a"].calls == 2


async def test_observations_outlive_a_refresh_and_are_forgotten_with_the_provider():
    registry = Registry(listed("a"), listed("b"))
    async with discovering_in(registry) as (system, ref):
        await find(ref)
        for name in ("a", "b"):
            system.events.publish(ended(name))
        registry.listings = [listed("b"), listed("c")]
        await asyncio.sleep(TTL)
        await find(ref)
        await settle()
        assert set((await find(ref)).observed) == {"b"}
        registry.listings = [listed("a"), listed("b")]
        await asyncio.sleep(TTL)
        await find(ref)
        await settle()
        assert set((await find(ref)).observed) == {"b"}


@asynccontextmanager
async def discovering_in(registry: Any) -> AsyncIterator[tuple[ActorSystem, ActorRef[Discover]]]:
    async with ActorSystem("market") as system:
        yield system, system.spawn(lambda: Discovery(registry, DiscoveryConfig(ttl=TTL), jitter=0.0))


async def test_a_discovery_that_has_ended_listens_no_more():
    async with ActorSystem("market") as system:
        ref = system.spawn(lambda: Discovery(Registry(listed("a"))))
        await find(ref)
        assert system.events.wants(CallEnded)
        ref.stop()
        await ref.terminated()
        assert not system.events.wants(CallEnded)


# Health, panic and ejection.


async def test_an_open_breaker_has_its_provider_stand_back_until_it_closes_or_is_due_for_a_probe():
    async with market() as stage:
        stage.publish(BreakerOpened(provider="a", wait=30.0))
        found = await stage.find()
        assert (names(found), found.unhealthy, found.panic) == (["a", "b", "c"], {"a": "breaker open"}, False)
        assert set(found.deprioritized) == {"a"}
        healthy = await stage.find(healthy_only=True)
        assert (names(healthy), healthy.dropped) == (["b", "c"], {"breaker open": 1})
        await asyncio.sleep(29.9)
        assert await stage.unhealthy()
        await asyncio.sleep(0.1)
        assert not await stage.unhealthy()
        stage.publish(BreakerOpened(provider="a", wait=60.0))
        assert await stage.unhealthy()
        stage.publish(BreakerClosed(provider="a"))
        assert not await stage.unhealthy()


async def test_a_breaker_that_opened_before_the_first_question_is_known():
    async with discovering_in(Registry(listed("a"), listed("b"))) as (system, ref):
        await ref.ask(Discover(service="other"), timeout=1.0)
        system.events.publish(BreakerOpened(provider="a", wait=math.inf))
        assert (await find(ref)).unhealthy == {"a": "breaker open"}


async def test_if_fewer_than_half_are_healthy_health_is_ignored():
    async with market(offered="abcd") as stage:
        stage.publish(BreakerOpened(provider="a", wait=60.0), HealthChecked(provider="b", problem="503"))
        found = await stage.find(healthy_only=True)
        assert (names(found), found.panic) == (["c", "d"], False)
        stage.publish(BreakerOpened(provider="c", wait=60.0))
        found = await stage.find(healthy_only=True)
        assert (names(found), found.panic, found.deprioritized) == (["a", "b", "c", "d"], True, {})
        assert set(found.unhealthy) == {"a", "b", "c"}
        stage.publish(BreakerClosed(provider="c"))
        assert (await stage.find()).panic is False


async def test_a_threshold_of_nothing_never_panics():
    async with market(offered="a", watch=WatchConfig(panic_threshold=0.0)) as stage:
        stage.publish(BreakerOpened(provider="a", wait=60.0))
        assert (await stage.find()).panic is False
        with pytest.raises(NoProvider) as none:
            await stage.find(healthy_only=True)
        assert none.value.dropped == {"breaker open": 1}


async def test_a_failed_health_check_is_believed_for_a_while_or_until_it_is_disproved():
    async with market() as stage:
        problem = HealthChecked(provider="a", problem="503")
        for disproof in (HealthChecked(provider="a"), ended("a")):
            stage.publish(problem)
            assert await stage.unhealthy() == {"a": "health check failed"}
            stage.publish(disproof)
            assert not await stage.unhealthy()
        stage.publish(problem)
        await asyncio.sleep(30.0)
        assert not await stage.unhealthy()


async def test_a_provider_that_no_call_reaches_is_deprioritized_but_not_lost():
    watch = WatchConfig(ejection=EjectionConfig(failure_threshold=1000, min_calls=1000))
    async with market(watch=watch) as stage:
        stage.publish(*[ended("a", error="ConnectionFailed")] * 20)
        found = await stage.find()
        assert (names(found), found.unhealthy) == (["a", "b", "c"], {"a": "unreachable"})
        assert found.providers[0].available


async def test_a_provider_that_fails_in_a_row_is_ejected_for_a_time_that_grows():
    async with market() as stage:
        for seconds in (30.0, 60.0, 90.0):
            stage.publish(*[ended("a", error="Transient")] * 5)
            assert await stage.unhealthy() == {"a": "ejected"}
            await asyncio.sleep(seconds - 0.1)
            assert await stage.unhealthy() == {"a": "ejected"}
            await asyncio.sleep(0.1)
            assert not await stage.unhealthy()


async def test_a_provider_that_fails_far_more_than_the_others_is_ejected_though_never_in_a_row():
    async with market() as stage:
        for _ in range(10):
            stage.publish(ended("a"), ended("a", error="Transient"), *[ended("b"), ended("c")] * 2)
        assert await stage.unhealthy() == {"a": "ejected"}
        # It is judged by what it does from then on.
        await asyncio.sleep(30.0)
        assert not await stage.unhealthy()
        stage.publish(*[ended("a")] * 30)
        await asyncio.sleep(1.0)
        assert not await stage.unhealthy()


async def test_at_most_half_are_ejected_and_the_worst_first():
    async with market(offered="abcde") as stage:
        for name, failures in (("b", 6), ("c", 9), ("d", 7), ("e", 5)):
            stage.publish(*[ended(name, error="Transient")] * failures)
        assert await stage.unhealthy() == {"c": "ejected", "d": "ejected"}
        assert (await stage.find()).panic is False


async def test_the_only_provider_is_never_ejected_and_none_is_for_what_is_not_its_fault():
    watch = WatchConfig(ejection=EjectionConfig(max_ejected=1.0))
    async with market(offered="a", watch=watch) as alone, market() as stage:
        alone.publish(*[ended("a", error="Transient")] * 50)
        assert not await alone.unhealthy()
        stage.publish(*[ended("b", error="Throttled"), ended("c", error="Permanent")] * 50)
        stage.publish(*[ended("c", error="Cancelled")] * 50)
        assert not await stage.unhealthy()


async def test_a_provider_whose_breaker_saw_to_its_failures_is_not_ejected_when_its_probe_is_due():
    async with market() as stage:
        stage.publish(*[ended("a", error="Transient")] * 4)
        stage.publish(BreakerOpened(provider="a", wait=30.0), *[ended("a", error="Transient")] * 9)
        assert await stage.unhealthy() == {"a": "breaker open"}
        await asyncio.sleep(30.0)
        assert not await stage.unhealthy()


# The seed's functions.


async def test_discover_filters_by_what_a_discovery_knows_or_a_registry_declares():
    registry = Registry(
        listed("a", price="0.10", reputation=90, capabilities={"en", "de"}),
        listed("b", price="0.30", reputation=95, capabilities={"en", "de"}),
        listed("c", price="0.10", reputation=70, capabilities={"en", "de"}),
        listed("d", price="0.10", reputation=99, capabilities={"en"}),
        listed("e", price="0.15", reputation=80, capabilities={"en", "de", "fr"}),
    )
    wanted: dict[str, Any] = {"max_price": "0.20", "min_reputation": 80, "required_capabilities": ["en", "de"]}
    async with discovering_in(registry) as (system, ref):
        for who in (ref, registry):
            providers = await discover(who, service="s", **wanted)
            assert [provider.name for provider in providers] == ["a", "e"]
            with pytest.raises(NoProvider):
                await discover(who, service="s", min_reputation=100)
        system.events.publish(BreakerOpened(provider="a", wait=60.0))
        assert [one.name for one in await discover(ref, service="s", **wanted)] == ["e"]
        assert [one.name for one in await discover(ref, service="s", **wanted, healthy_only=False)] == ["a", "e"]


async def test_discover_gives_a_registry_that_hangs_up_in_time():
    with pytest.raises(TimeoutError):
        await discover(Registry(lasts=FOREVER), service="s", timeout=3.0)
    assert asyncio.get_running_loop().time() == 3.0


async def test_check_health_asks_a_gateway_or_a_supervisor():
    async def ill(*_: Any) -> None:
        raise ConnectionError("no route")

    sick = Listing(
        provider=Provider(name="b", services={"s"}),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable", check=ill),
    )
    async with ActorSystem("market") as system:
        gateway = system.spawn(lambda: ProviderGateway(sick))
        assert "no route" in str((await check_health(gateway)).problem)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("a"), sick])))
        assert (await check_health(supervisor, "a")).is_healthy
        assert not (await check_health(supervisor, "b")).is_healthy
        with pytest.raises(Permanent, match="no provider 'z'"):
            await check_health(supervisor, "z")


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (WatchConfig, {"panic_threshold": 1.5}),
        (WatchConfig, {"believe_check": 0}),
        (WatchConfig, {"renew_after": math.inf}),
        (EjectionConfig, {"failure_threshold": 0}),
        (EjectionConfig, {"min_calls": 0}),
        (EjectionConfig, {"margin": -0.1}),
        (EjectionConfig, {"max_ejected": 1.1}),
        (EjectionConfig, {"eject_for": 400.0}),
    ],
    ids=str,
)
def test_an_impossible_configuration_is_refused_by_name(config: Any, setting: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(setting))):
        config(**setting)


def test_a_jitter_of_all_or_more_is_refused():
    with pytest.raises(ValueError, match="jitter must be from 0 to below 1"):
        Discovery(Registry(), jitter=1.0)


@pytest.mark.parametrize(
    ("found", "problem"), [([5], "a registry must return Listings, got 5"), (["twice"], "lists 'a' twice")]
)
async def test_a_registry_that_answers_nonsense_is_down_and_says_why(found: Any, problem: str):
    async def registry(_service: str) -> Any:
        return [listed("a"), listed("a")] if found == ["twice"] else found

    async with ActorSystem() as system:
        discovery = system.spawn(lambda: Discovery(registry))
        with pytest.raises(RegistryDown, match=problem):
            await discovery.ask(Discover(service="s"), timeout=1.0)
