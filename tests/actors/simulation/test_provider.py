"""A simulated provider's own side: its books, its limits, and what comes back when a client goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors import CallFailed, ProviderCall, ProviderReply, Throttled, Transient
from actors.discovery.discovery import Discovery
from actors.discovery.messages import Discover
from actors.errors import RegistryDown
from actors.money import Micros
from actors.simulation import (
    Hanging,
    LostReplies,
    PriceChange,
    RegistryOutage,
    SimulatedProvider,
    WrongAnswers,
    paid_more_than_once,
    simulated_registry,
)
from runtime import ActorSystem
from runtime.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.simulation.provider import SimulatedTransport
    from runtime.simulation import Fault


def call_of(key: str, *, timeout: float = 10.0) -> ProviderCall:
    return ProviderCall(
        service="s", input=key, request_id=key, idempotency_key=key, max_cost=Micros(7), timeout=timeout
    )


def rehearse(
    scenario: Callable[[SimulatedProvider, SimulatedTransport], Awaitable[Any]],
    *faults: Fault,
    seed: int = 1,
    **terms: Any,
) -> Any:
    """Run a scenario with one provider that takes a second for a call, and return its result."""

    async def with_provider(simulation: Simulation) -> Any:
        terms_of_all = {"price": Micros(7), "latency": (1.0, 1.0)}
        provider = SimulatedProvider(simulation, "alder", services={"s"}, **terms_of_all | terms)
        transport = provider.transport()
        try:
            return await scenario(provider, transport)
        finally:
            await transport.aclose()
            assert (provider.under_way, provider.open_transports) == (0, 0)

    return Simulation(seed, faults=faults).run(with_provider).result


async def call(transport: SimulatedTransport, key: str, *, within: float = 10.0) -> Any:
    try:
        return await transport.call(call_of(key, timeout=within))
    except CallFailed as error:
        return error


async def calls(transport: SimulatedTransport, *keys: str, within: float = 10.0) -> list[Any]:
    return await asyncio.gather(*(call(transport, key, within=within) for key in keys))


def test_the_books_say_who_called_when_and_paid_what():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> SimulatedProvider:
        await calls(transport, "a", "b")
        await call(transport, "a")
        return provider

    provider = rehearse(scenario)
    assert provider.called_at == [0.0, 0.0, 1.0]
    assert (provider.calls, provider.max_under_way, provider.income) == (3, 2, 21)
    assert provider.charged == {"a": [7, 7], "b": [7]}
    assert provider.paid_twice == {"a": [7, 7]}


def test_who_costs_nothing_charges_nothing():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        reply = await call(transport, "a")
        return reply, provider.charged, transport.paid

    assert rehearse(scenario, price=0) == (ProviderReply(output="a", cost=0), {}, False)


def test_the_answer_is_what_its_function_makes_of_the_call():
    async def scenario(_: SimulatedProvider, transport: SimulatedTransport) -> Any:
        return (await call(transport, "a")).output

    assert rehearse(scenario, answer=lambda call: call.input.upper()) == "A"


def test_an_idempotency_key_gets_the_same_answer_again_and_is_charged_once():
    answers = iter(["first", "second"])

    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        return await call(transport, "a"), await call(transport, "a"), provider.charged

    first, again, charged = rehearse(scenario, idempotent="key", answer=lambda _: next(answers))
    assert first == again == ProviderReply(output="first", cost=Micros(7))
    assert charged == {"a": [7]}


def test_a_key_whose_reply_was_lost_is_answered_by_its_repetition():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        lost = await call(transport, "a")
        return lost, await call(transport, "a"), provider.paid_twice

    lost, found, paid_twice = rehearse(scenario, LostReplies(provider="*", lasts=0.5), idempotent="key")
    assert (type(lost), lost.charged) == (Transient, "held")
    assert found == ProviderReply(output="a", cost=Micros(7))
    assert paid_twice == {}


def test_a_key_that_is_still_at_work_gets_409():
    async def scenario(_: SimulatedProvider, transport: SimulatedTransport) -> Any:
        gone = await call(transport, "a", within=0.5)
        too_soon = await call(transport, "a", within=0.5)
        await asyncio.sleep(1.0)
        return gone, too_soon, await call(transport, "a")

    gone, too_soon, found = rehearse(scenario, idempotent="key", latency=(0.1, 2.0), seed=3)
    assert (gone.status, too_soon.status, too_soon.charged) == (None, 409, "held")
    assert found.cost == 7


def test_its_own_rate_limit_answers_429_with_the_time_to_wait():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        return await calls(transport, "a", "b", "c"), provider

    outcomes, provider = rehearse(scenario, rate_limit=2.0, burst=2)
    refused = [one for one in outcomes if isinstance(one, Throttled)]
    assert [one.retry_after for one in refused] == [0.5]
    assert len(provider.charged) == 2


def test_beyond_its_capacity_calls_queue_with_it():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        await calls(transport, "a", "b", "c", "d", "e")
        return provider.simulation.now()

    assert rehearse(scenario, capacity=2) == 3.0
    assert rehearse(scenario, capacity=None) == 1.0


def test_work_that_was_abandoned_is_still_done_before_that_of_those_who_wait():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        impatient = await calls(transport, "a", "b", "c", within=0.5)
        late = await call(transport, "d", within=2.0)
        in_time = await call(transport, "e", within=9.0)
        return impatient, late, in_time, provider

    impatient, late, in_time, provider = rehearse(scenario, capacity=1)
    assert all(isinstance(one, CallFailed) for one in impatient)
    # Three seconds of work that nobody wants any more are before it: so overload outlasts its cause.
    assert isinstance(late, CallFailed)
    assert isinstance(in_time, ProviderReply)
    assert provider.simulation.now() == 5.0
    assert (provider.abandoned, provider.income) == (4, 35)


@pytest.mark.parametrize("faults", [(), (Hanging(provider="*"),)])
def test_a_client_that_is_cancelled_leaves_nothing_under_way(faults: tuple[Fault, ...]):
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        request = asyncio.create_task(transport.call(call_of("a")))
        await asyncio.sleep(0.5)
        under_way = provider.under_way
        request.cancel()
        await asyncio.wait([request])
        return request.cancelled(), under_way, provider.under_way, provider.abandoned

    assert rehearse(scenario, *faults) == (True, 1, 0, 0 if faults else 1)


def test_a_closed_transport_takes_no_call():
    async def scenario(_: SimulatedProvider, transport: SimulatedTransport) -> None:
        await transport.aclose()
        with pytest.raises(RuntimeError, match="the transport to 'alder' is closed"):
            await transport.call(call_of("a"))
        with pytest.raises(RuntimeError, match="is closed"):
            await transport.check(timeout=1.0)

    rehearse(scenario)


def test_one_seed_has_one_history_and_another_another():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> float:
        await calls(transport, "a", "b")
        return provider.simulation.now()

    fault = WrongAnswers(provider="*", rate=0.5)
    times = [rehearse(scenario, fault, seed=seed, latency=(0.0, 1.0)) for seed in (1, 1, 2)]
    assert times[0] == times[1] != times[2]


def test_a_changed_price_is_charged_and_listed_from_then_on():
    async def scenario(provider: SimulatedProvider, transport: SimulatedTransport) -> Any:
        before = provider.listing(max_concurrency=3)
        first = await call(transport, "a")
        await asyncio.sleep(5.0)
        return before, first.cost, (await call(transport, "b")).cost, provider.listing()

    before, first, second, after = rehearse(
        scenario,
        PriceChange(at=2.0, provider="al*", price=Micros(9)),
        PriceChange(at=3.0, provider="al*", price=Micros(4)),
    )
    assert (before.provider.price, first, second, after.provider.price) == (7, 7, 4, 4)
    assert after.max_concurrency == 3


def test_terms_are_listed():
    async def scenario(provider: SimulatedProvider, _: SimulatedTransport) -> Any:
        return provider.listing(timeout=3.0, rate_limit=5.0, burst=2)

    listing = rehearse(scenario, reputation=90.0, capabilities={"de"})
    assert (listing.provider.reputation, listing.provider.capabilities) == (90.0, {"de"})
    assert (listing.timeout, listing.rate_limit, listing.burst) == (3.0, 5.0, 2)


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        ({"latency": (2.0, 1.0)}, r"latency must be \(shortest, longest\)"),
        ({"latency": (0.0, float("inf"))}, r"latency must be \(shortest, longest\)"),
        ({"capacity": 0}, "capacity must be >= 1"),
        ({"rate_limit": 0.0}, "rate must be > 0"),
        ({"price": -1}, "price: amount -1 is negative"),
    ],
)
def test_a_provider_that_cannot_be_is_refused(terms: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        SimulatedProvider(Simulation(1), "alder", services={"s"}, **terms)


def test_what_was_paid_more_than_once_is_found_over_all_providers():
    async def scenario(simulation: Simulation) -> Any:
        alder, birch = (
            SimulatedProvider(simulation, name, services={"s"}, price=Micros(2)) for name in ("alder", "birch")
        )
        for provider, keys in ((alder, "abb"), (birch, "ac")):
            transport = provider.transport()
            for key in keys:
                await transport.call(call_of(key))
            await transport.aclose()
        return paid_more_than_once([alder, birch])

    assert Simulation(1).run(scenario).result == {"a": {"alder": [2], "birch": [2]}, "b": {"alder": [2, 2]}}


# The registry.


def find(*faults: Fault, at: float = 0.0, within: float = 60.0) -> Any:
    """Ask the discovery over a simulated registry who offers a service."""

    async def scenario(simulation: Simulation) -> Any:
        providers = [
            SimulatedProvider(simulation, name, services={service}, price=Micros(2))
            for name, service in (("alder", "s"), ("birch", "t"), ("cedar", "s"))
        ]
        async with ActorSystem("market") as system:
            discovery = system.spawn(lambda: Discovery(simulated_registry(simulation, providers)))
            await asyncio.sleep(at)
            try:
                found = await discovery.ask(Discover(service="s"), timeout=within)
            except RegistryDown as error:
                return error, simulation.now()
            return [(one.provider.name, one.provider.price) for one in found.listings], simulation.now()

    return Simulation(1, faults=faults).run(scenario).result


def test_the_registry_lists_who_offers_a_service_at_the_price_of_now():
    found, took = find(PriceChange(at=1.0, provider="cedar", price=Micros(5)), at=2.0)
    assert found == [("alder", 2), ("cedar", 5)]
    assert took == 2.05


def test_the_registry_is_down_during_its_outage_only():
    assert isinstance(find(RegistryOutage(lasts=1.0))[0], RegistryDown)
    assert isinstance(find(RegistryOutage(lasts=1.0), at=1.0)[0], list)


def test_a_registry_that_hangs_is_given_up():
    error, took = find(RegistryOutage(lasts=1.0, hangs=True))
    assert isinstance(error, RegistryDown)
    assert took == 30.0


def test_a_registry_cannot_answer_before_it_is_asked():
    with pytest.raises(ValueError, match="latency must be >= 0 seconds"):
        simulated_registry(Simulation(1), [], latency=-1.0)
