"""What a request costs does not grow with the number of candidates: function calls are counted, and objects alive."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import FunctionTransport, Listing, Market, Provider, ProviderFilter, Supervisor, smart_request
from actors.discovery.offers import CachedOffers, Offers
from actors.providers import ScoreAnswer
from actors.supervisor.targets.candidates import NO_CANDIDATES, Candidates
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from actors import ProviderCall
    from runtime import ActorRef

REQUESTS = 20


class CallCounter:
    """The function calls that were made, of Python and of C."""

    def __init__(self) -> None:
        self.calls = 0

    def profile(self, _frame: Any, event: str, _arg: Any) -> None:
        self.calls += event in {"call", "c_call"}


@contextmanager
def counted() -> Iterator[CallCounter]:
    counter, before = CallCounter(), sys.getprofile()
    sys.setprofile(counter.profile)
    try:
        yield counter
    finally:
        sys.setprofile(before)


async def answer(call: ProviderCall) -> Any:
    return call.input


def offered(count: int, *, services: int = 1, **facts: Any) -> list[Listing]:
    return [
        Listing(
            provider=Provider(name=f"p{number}", services={f"s{number % services}"}, reputation=number % 100),
            transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
            **facts,
        )
        for number in range(count)
    ]


@asynccontextmanager
async def supervised(listings: list[Listing]) -> AsyncIterator[ActorRef[Any]]:
    async with ActorSystem("growth", log=False) as system:
        yield system.spawn(lambda: Supervisor(Market(providers=listings)))


async def calls_of_a_request(count: int, strategy: str, *, is_scored: bool) -> float:
    async with supervised(offered(count)) as supervisor:

        async def ask() -> None:
            result = await smart_request(supervisor, service="s0", input=1, strategy=strategy)  # type: ignore[arg-type]
            if is_scored:
                await supervisor.ask(ScoreAnswer(service="s0", score=0.5, request_id=result.request_id), timeout=1)

        for _ in range(REQUESTS):
            await ask()
        with counted() as counter:
            for _ in range(REQUESTS):
                await ask()
    return counter.calls / REQUESTS


@pytest.mark.parametrize("strategy", ["best", "cheapest", "fastest", "balanced", "least_loaded", "weighted", "bandit"])
@pytest.mark.parametrize("is_scored", [False, True])
async def test_a_request_costs_the_same_among_four_hundred_candidates_and_among_sixteen_hundred(strategy, is_scored):
    few = await calls_of_a_request(400, strategy, is_scored=is_scored)
    many = await calls_of_a_request(1_600, strategy, is_scored=is_scored)
    assert many < 1.3 * few


@pytest.mark.parametrize("services", [1, 1_000])
async def test_the_first_calls_to_providers_cost_as_many_times_as_there_are(services):
    async def calls(count: int) -> int:
        async with supervised(offered(count, services=services, max_concurrency=1)) as supervisor:
            with counted() as counter:
                async with asyncio.TaskGroup() as group:
                    for number in range(count):
                        service = f"s{number % services}"
                        group.create_task(smart_request(supervisor, service=service, input=number))
        return counter.calls

    assert await calls(400) < 8 * 1.1 * await calls(50)


async def test_of_what_was_found_only_what_is_in_use_is_kept():
    def alive(*kinds: type) -> int:
        gc.collect()
        # Not by isinstance, which asks an object for its class: what other tests left may answer anything.
        return sum(type(one) in kinds and one is not NO_CANDIDATES for one in gc.get_objects())

    before = alive(Candidates, Offers, CachedOffers)
    good = ProviderFilter(min_reputation=50, min_success_rate=0.5)
    async with supervised(offered(100, max_concurrency=1)) as supervisor:
        for _ in range(20):
            asks = [smart_request(supervisor, service="s0", input=1, where=where) for where in (None, good) * 5]
            await asyncio.gather(*asks, smart_request(supervisor, service="s0", input=1, where=lambda _: True))
            await asyncio.sleep(2.0)  # Then what was observed is shown by other offers.
        # Of the service and of its view by the filter: an answer, offers and candidates.
        assert alive(Candidates, Offers, CachedOffers) - before <= 6
