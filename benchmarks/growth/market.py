"""What the cast does for many: candidates of a request, providers that are called first, items of a batch."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from actors import (
    FunctionTransport,
    Listing,
    Market,
    Provider,
    ProviderCall,
    Supervisor,
    robust_batch,
    smart_request,
)
from actors.errors import TooManyWaiting
from actors.supervisor import GetStatus
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.providers.selection import SelectionStrategy

REQUESTS = 200


async def answer(call: ProviderCall) -> object:
    """Answer at once, or when the input has come to its end if it is a function to await."""
    return await call.input() if callable(call.input) else call.input


def free(name: str, service: str = "work", *, max_concurrency: int = 1_000) -> Listing:
    """Return a provider that costs nothing."""
    return Listing(
        provider=Provider(name=name, services={service}),
        transport=lambda: FunctionTransport(answer, paid=False, idempotent="repeatable"),
        max_concurrency=max_concurrency,
    )


async def requests_among(size: int, strategy: SelectionStrategy) -> float:
    """Return the seconds of one request among `size` candidates, the first ones apart."""
    market = Market(providers=[free(f"p{number}") for number in range(size)])
    async with ActorSystem("growth", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        ask = partial(smart_request, supervisor, service="work", strategy=strategy)
        for number in range(20):
            await ask(input=number)
        begin = perf_counter()
        for number in range(REQUESTS):
            await ask(input=number)
        return (perf_counter() - begin) / REQUESTS


async def first_calls(size: int) -> float:
    """Return the seconds of the first call to each of `size` providers."""
    market = Market(providers=[free(f"p{number}", f"service {number}") for number in range(size)])
    async with ActorSystem("growth", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        begin = perf_counter()
        for number in range(size):
            await smart_request(supervisor, service=f"service {number}", input=number)
        return perf_counter() - begin


async def line(size: int) -> float:
    """Return the seconds a request in which `size` requests, that wait for the one place of a provider, are served."""
    market = Market(providers=[free("p", max_concurrency=1)])
    async with ActorSystem("growth", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        begin = perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(size):
                group.create_task(smart_request(supervisor, service="work", input=number, timeout=600))
        return (perf_counter() - begin) / size


async def refused_beside_line(size: int) -> float:
    """Return the seconds of a request that is refused because `size` requests wait, which is all that may."""
    market = Market(providers=[free("p", max_concurrency=1)], max_waiting=size)
    async with ActorSystem("growth", log=False) as system:
        is_over = asyncio.Event()
        supervisor = system.spawn(lambda: Supervisor(market))
        ask = partial(smart_request, supervisor, service="work", timeout=600)
        under_way = asyncio.create_task(ask(input=is_over.wait))
        for _ in range(100):  # Turns of the loop, in which its call begins.
            await asyncio.sleep(0)
        waiting = [asyncio.create_task(ask(input=number)) for number in range(size)]
        for _ in range(size + 100):  # Turns of the loop, more than all need to come to wait.
            await asyncio.sleep(0)
        assert (await supervisor.ask(GetStatus(), timeout=5))[0].queued == size
        begin = perf_counter()
        for number in range(REQUESTS):
            with suppress(TooManyWaiting):
                await ask(input=number)
        taken = perf_counter() - begin
        is_over.set()
        await asyncio.gather(under_way, *waiting)
        return taken / REQUESTS


async def items_of_batch(size: int) -> float:
    """Return the seconds an item of a batch of `size` items with a budget, 100 at a time."""
    async with ActorSystem("growth", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[free("p")], budget=1)))
        begin = perf_counter()
        async with robust_batch(supervisor, range(size), service="work", max_concurrency=100) as outcomes:
            async for _ in outcomes:
                pass
        return (perf_counter() - begin) / size


async def blocks_of_batch(size: int) -> float:
    """Return the most blocks of memory that were in use over a batch of `size` items, beside those before it."""
    async with ActorSystem("growth", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[free("p")], budget=1)))
        before = most = blocks()
        async with robust_batch(supervisor, range(size), service="work", max_concurrency=100) as outcomes:
            async for outcome in outcomes:
                if outcome.index % 5_000 == 0:
                    most = max(most, blocks())
        return max(most, blocks()) - before


def blocks() -> int:
    """Return the blocks of memory that objects in use take."""
    gc.collect()
    return sys.getallocatedblocks()


async def first_calls_of_one_service(size: int, *, gauge: Callable[[], float] = perf_counter) -> float:
    """Return by how much a gauge goes up while `size` providers of one service are each called for the first time.

    By default these are seconds.
    """
    market = Market(providers=[free(f"p{number}", max_concurrency=1) for number in range(size)])
    async with ActorSystem("growth", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        before = gauge()
        async with asyncio.TaskGroup() as group:
            for number in range(size):
                group.create_task(smart_request(supervisor, service="work", input=number))
        return gauge() - before
