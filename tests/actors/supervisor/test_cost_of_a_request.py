"""What one request costs, in operations and not in seconds: the calls of Python functions, and messages."""

from __future__ import annotations

import asyncio
import statistics
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from actors import FunctionTransport, Listing, Market, Provider, ProviderCall, Supervisor, smart_request
from actors.discovery.messages import Discover
from actors.events import BreakerOpened
from benchmarks.resilience.calls import no_op_market, nothing, through_the_actors
from runtime import ActorRef, ActorSystem, Interceptor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

WARM = 30
COUNTED = 20


async def calls_of_each(work: Callable[[], Awaitable[Any]]) -> float:
    """Return how many Python functions are called by `work`, in the median.

    Now and then a timer or a finalizer of something else adds some, and a busy machine has a request admitted anew.
    """
    for _ in range(WARM):
        await work()
    calls = 0
    each: list[int] = []

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for _ in range(COUNTED):
            begun = calls
            await work()
            each.append(calls - begun)
    finally:
        sys.setprofile(before)
    return statistics.median(each)


async def test_a_request_with_everything_on_calls_few_functions():
    async with through_the_actors() as guard:
        assert await calls_of_each(lambda: guard(nothing)) <= 243


async def test_a_free_request_that_may_be_hedged_calls_few_functions():
    async with free_requests() as request:
        assert await calls_of_each(request) <= 243


@asynccontextmanager
async def free_requests() -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Enter a system with two providers that cost nothing, and whose calls may run twice; yields a request."""

    async def answer(call: ProviderCall) -> Any:
        return call.input

    def listing(name: str) -> Listing:
        return Listing(
            provider=Provider(name=name, services={"s"}),
            transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable", ends_when_cancelled=True),
        )

    async with ActorSystem("test", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing("alder"), listing("birch")])))
        yield lambda: smart_request(supervisor, service="s", input=1)


class Questions(Interceptor):
    """Counts what discovery is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def received(self, ref: ActorRef[Any], message: Any) -> Any:
        self.asked += isinstance(message, Discover)
        return message


async def test_discovery_is_not_asked_while_the_same_offers_hold():
    questions = Questions()
    async with ActorSystem("test", log=False, interceptors=[questions]) as system:
        supervisor = system.spawn(lambda: Supervisor(no_op_market()), name="supervisor")

        async def request() -> None:
            await smart_request(supervisor, service="benchmark", input=nothing)

        await request()
        await request()
        before = questions.asked
        await asyncio.gather(*(request() for _ in range(100)))
        assert questions.asked == before
        system.events.publish(BreakerOpened(provider="alder", wait=30.0))
        await request()
        assert questions.asked == before + 1
        await asyncio.sleep(1000.0)  # The registry is asked again after the time to live.
        await request()
        assert questions.asked > before + 1


async def test_a_filter_of_the_callers_own_is_asked_each_time():
    questions, prices = Questions(), []
    async with ActorSystem("test", log=False, interceptors=[questions]) as system:
        supervisor = system.spawn(lambda: Supervisor(no_op_market()), name="supervisor")
        for _ in range(3):
            await smart_request(
                supervisor, service="benchmark", input=nothing, where=lambda one: not prices.append(one)
            )
    assert questions.asked == 3
