"""Strategies and filters of one's own, which are functions, and markets whose providers a registry knows."""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    Discovery,
    Done,
    Market,
    NoProvider,
    Permanent,
    Provider,
    ProviderCall,
    ProviderFilter,
    RequestOptions,
    SmartRequest,
    Supervisor,
    Transient,
    discover,
    robust_batch,
    select_best,
    smart_request,
)
from actors.discovery.discovery import registry_of
from actors.providers import rank
from runtime import ActorSystem
from tests.actors.seed_stage import listed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from actors import Listing
    from runtime import ActorRef


async def named(call: ProviderCall) -> str:
    return call.provider


def alder_birch_cedar() -> list[Listing]:
    return [
        listed("alder", named, price="0.03", reputation=90),
        listed("birch", named, price="0.02", reputation=80),
        listed("cedar", named, price="0.01", reputation=70),
    ]


@asynccontextmanager
async def supervising(*listings: Listing) -> AsyncIterator[ActorRef[Any]]:
    async with ActorSystem("own", seed=1, log=False) as system:
        yield system.spawn(lambda: Supervisor(Market(providers=listings or alder_birch_cedar())))


def dearest_first(providers: Sequence[Provider]) -> list[Provider]:
    return sorted(providers, key=lambda one: one.price, reverse=True)


def test_a_function_orders_the_providers_and_what_it_leaves_out_comes_after():
    providers = [listing.provider for listing in alder_birch_cedar()]
    assert [one.name for one in rank(providers, dearest_first)] == ["alder", "birch", "cedar"]
    assert [one.name for one in rank(providers, lambda given: [given[-1]])] == ["cedar", "alder", "birch"]
    assert [one.name for one in rank(providers, lambda given: given[1])] == ["birch", "alder", "cedar"]  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]
    assert rank([], lambda given: [min(given, key=lambda one: one.price)]) == []
    assert select_best(providers, reversed).name == "cedar"
    with pytest.raises(Permanent, match="chose \\['dogwood'\\]"):
        rank(providers, lambda _: [Provider(name="dogwood", services={"s"})])


async def test_a_request_goes_by_a_function_of_its_own_and_a_fallback_of_another():
    asked: list[str] = []

    async def fails(call: ProviderCall) -> str:
        asked.append(call.provider)
        raise Transient("503", outcome="not_started")

    listings = [listed(name, fails, reputation=50) for name in ("alder", "birch", "cedar")]
    async with supervising(*listings) as supervisor:
        with pytest.raises(Exception, match="all providers"):
            await smart_request(
                supervisor,
                service="s",
                input="x",
                timeout=0.5,
                strategy=lambda given: [one for one in given if one.name == "birch"],
                fallback_strategies=[lambda given: [one for one in given if one.name == "cedar"]],
            )
    assert asked[:3] == ["birch", "cedar", "alder"]


async def test_a_function_is_called_for_each_request():
    turn = 0

    def round_robin(providers: Sequence[Provider]) -> Iterable[Provider]:
        nonlocal turn
        turn += 1
        by_name = sorted(providers, key=lambda one: one.name)
        return [by_name[turn % len(by_name)]]

    async with (
        supervising() as supervisor,
        robust_batch(supervisor, range(6), service="s", strategy=round_robin, max_concurrency=1) as outcomes,
    ):
        answers = [outcome.result.output async for outcome in outcomes if isinstance(outcome, Done)]
    assert answers == ["birch", "cedar", "alder"] * 2


async def test_a_request_goes_to_the_providers_that_a_function_lets_pass():
    banned = {"alder"}

    def is_allowed(provider: Provider) -> bool:
        return provider.name not in banned

    async with supervising() as supervisor:
        assert (await smart_request(supervisor, service="s", input="x", where=is_allowed)).output == "birch"
        banned.add("birch")  # It is asked anew each time.
        assert (await smart_request(supervisor, service="s", input="x", where=is_allowed)).output == "cedar"
        banned.add("cedar")
        with pytest.raises(NoProvider, match="refused by filter is_allowed"):
            await smart_request(supervisor, service="s", input="x", where=is_allowed)
        both = ProviderFilter(max_price="0.02", predicate=lambda one: one.reputation > 75)
        assert (await smart_request(supervisor, service="s", input="x", where=both)).output == "birch"
        options = RequestOptions(where=lambda one: one.name == "cedar")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        async with robust_batch(supervisor, ["x"], service="s", options=options) as outcomes:
            assert [outcome.result.output async for outcome in outcomes if isinstance(outcome, Done)] == ["cedar"]


async def test_discovery_takes_a_function_too():
    registry = registry_of(Market(providers=alder_birch_cedar()))
    async with ActorSystem("own", log=False) as system:
        discovery = system.spawn(lambda: Discovery(registry))
        for who in (discovery, registry):
            found = await discover(who, service="s", min_reputation=75, predicate=lambda one: one.name != "alder")
            assert [one.name for one in found] == ["birch"]


def raises(_: Any) -> Any:
    raise KeyError("a bug of the caller's")


WRONG: list[dict[str, Any]] = [
    {"where": raises},
    {"where": lambda _: None},
    {"where": lambda _: "yes"},
    {"strategy": raises},
    {"strategy": lambda _: None},
    {"strategy": lambda _: ["alder"]},
    {"strategy": lambda _: [Provider(name="dogwood", services={"s"})]},
    {"strategy": functools.partial(sorted, key=raises)},
]


@pytest.mark.parametrize("options", WRONG)
async def test_a_function_that_fails_ends_its_own_request_alone(options: dict[str, Any]):
    async with supervising() as supervisor:
        with pytest.raises(Permanent, match=r"filter|strategy") as failed:
            await smart_request(supervisor, service="s", input="x", **options)
        assert failed.value.charged == "no"
        assert (await smart_request(supervisor, service="s", input="x")).output == "alder"


async def is_async(_: Any) -> Any:
    return True


@pytest.mark.parametrize(
    "options",
    [{"where": is_async}, {"where": "cheap"}, {"where": Provider}, {"strategy": is_async}, {"strategy": "cheapst"}],
    ids=["async filter", "text", "class", "async strategy", "name"],
)
async def test_what_is_no_function_is_refused_at_once(options: dict[str, Any]):
    async with supervising() as supervisor:
        with pytest.raises((TypeError, ValueError), match=r"where must be|strategy must"):
            await smart_request(supervisor, service="s", input="x", **options)
        with pytest.raises((TypeError, ValueError), match=r"where must be|strategy must"):
            RequestOptions(**options)


def test_a_request_takes_functions_as_well():
    request = SmartRequest(service="s", input="x", timeout=1.0, strategies=(dearest_first, "best"))
    assert request.strategies == (dearest_first, "best")


async def test_a_market_without_providers_serves_those_of_a_registry():
    async def registry(service: str) -> list[Listing]:
        assert service == "s"
        return alder_birch_cedar()

    for market in (Market(providers=[]), Market()):
        async with ActorSystem("own", log=False) as system:
            supervisor = system.spawn(functools.partial(Supervisor, market, registry=registry))
            assert (await smart_request(supervisor, service="s", input="x")).output == "alder"


def test_a_market_without_providers_or_a_registry_is_refused_by_the_supervisor():
    with pytest.raises(ValueError, match="give its market a Listing, or give it a registry="):
        Supervisor(Market(providers=[]))
