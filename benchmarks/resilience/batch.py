"""100,000 items that need no work, from an async generator, at most 100 at the same time: speed, memory, manners."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from actors.batch.fan_out import fan_out
from benchmarks.resilience.peers import is_installed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    Batch = Callable[["Items", int], AbstractAsyncContextManager[AsyncIterator[int]]]

ITEMS = 100_000
LIMIT = 100
ROOT = Path(__file__).resolve().parents[2]


class Items:
    """The source: an async generator that knows how many were pulled from it, and whether it was closed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pulled = 0
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for number in range(self.count):
                self.pulled += 1
                yield number
        finally:
            self.is_closed = True


async def no_work(item: int) -> int:
    return item


@asynccontextmanager
async def ours(items: Items, limit: int) -> AsyncGenerator[AsyncIterator[int]]:
    async def work(_index: int, item: int) -> int:
        return await no_work(item)

    async with fan_out(aiter(items), work, max_concurrency=limit) as outcomes:
        yield outcomes


@asynccontextmanager
async def gather(items: Items, _limit: int) -> AsyncGenerator[AsyncIterator[int]]:
    """Start everything at once, which is what people write who do not limit."""

    async def outcomes() -> AsyncGenerator[int]:
        for outcome in await asyncio.gather(*[no_work(item) async for item in items]):
            yield outcome

    yield outcomes()


@asynccontextmanager
async def worker_pool(items: Items, limit: int) -> AsyncGenerator[AsyncIterator[int]]:
    """Write the pool by hand: one producer, `limit` workers, and a bounded queue on either side of them."""
    todo: asyncio.Queue[Any] = asyncio.Queue(maxsize=limit)
    done: asyncio.Queue[Any] = asyncio.Queue(maxsize=limit)
    end = object()

    async def produce() -> None:
        async for item in items:
            await todo.put(item)
        for _ in range(limit):
            await todo.put(end)

    async def work() -> None:
        while (item := await todo.get()) is not end:
            await done.put(await no_work(item))
        await done.put(end)

    async def outcomes() -> AsyncGenerator[int]:
        left = limit
        while left:
            outcome = await done.get()
            if outcome is end:
                left -= 1
            else:
                yield outcome

    tasks = [asyncio.create_task(produce()), *(asyncio.create_task(work()) for _ in range(limit))]
    try:
        async with aclosing(outcomes()) as found:
            yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def aiometer(items: Items, limit: int) -> AsyncGenerator[AsyncIterator[int]]:
    from aiometer import amap  # noqa: PLC0415 - an extra.

    # It takes sequences only.
    async with amap(no_work, [item async for item in items], max_at_once=limit) as outcomes:
        yield aiter(outcomes)


@asynccontextmanager
async def aiostream(items: Items, limit: int) -> AsyncGenerator[AsyncIterator[int]]:
    from aiostream import stream  # noqa: PLC0415 - so are its peers.

    async def work(item: int, *_: int) -> int:
        return await no_work(item)

    async with stream.map(items, work, ordered=False, task_limit=limit).stream() as outcomes:
        yield outcomes


BATCHES: dict[str, Batch] = {"ours": ours, "worker pool": worker_pool, "gather": gather}
EXTRA: dict[str, Batch] = {"aiometer": aiometer, "aiostream": aiostream}


def installed() -> dict[str, Batch]:
    """Return ours, the two that need nothing but asyncio, and those peers that can be imported here."""
    return BATCHES | {name: batch for name, batch in EXTRA.items() if is_installed(name)}


async def rate(batch: Batch, count: int = ITEMS) -> float:
    """Return the items per second, from the first pulled to the last outcome."""
    found = 0
    begin = perf_counter()
    async with batch(Items(count), LIMIT) as outcomes:
        async for _ in outcomes:
            found += 1
    taken = perf_counter() - begin
    assert found == count
    return count / taken


async def first_result(batch: Batch, count: int = ITEMS) -> float:
    """Return the ms until the first outcome."""
    begin = perf_counter()
    async with batch(Items(count), LIMIT) as outcomes:
        async for _ in outcomes:
            return (perf_counter() - begin) * 1e3
    raise AssertionError("there was no outcome")


async def pulled_ahead(batch: Batch, count: int = ITEMS) -> float:
    """Return how many items, at most, were pulled beyond those consumed, under a consumer that is slow at times."""
    items, consumed, most = Items(count), 0, 0
    async with batch(items, LIMIT) as outcomes:
        async for _ in outcomes:
            most = max(most, items.pulled - consumed)
            consumed += 1
            if consumed % 1_000 == 0:
                await asyncio.sleep(0.001)
    return most


async def closed_on_early_stop(batch: Batch, count: int = ITEMS) -> bool:
    """Tell whether the source is closed when the block is left after ten outcomes."""
    items = Items(count)
    async with batch(items, LIMIT) as outcomes:
        consumed = 0
        async for _ in outcomes:
            consumed += 1
            if consumed == 10:
                break
    return items.is_closed and items.pulled < count


MEMORY = """
import asyncio, sys
from benchmarks.resilience import batch as batches

async def main():
    batch = batches.installed()[sys.argv[1]]
    await batches.rate(batch, 1_000)
    before = batches.peak_bytes()
    await batches.rate(batch, int(sys.argv[2]))
    print((batches.peak_bytes() - before) / 1e6)

asyncio.run(main())
"""


def peak_bytes() -> int:
    """Return the most memory that this process ever had resident."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def growth(name: str, count: int = ITEMS) -> float:
    """Return by how many MB the peak grew over a batch, in a process of its own that had run a small one."""
    command = [sys.executable, "-c", MEMORY, name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S603
    return float(done.stdout)
