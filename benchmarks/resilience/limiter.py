"""A line of waiters before a limiter, in real time: the rate reached, bursts, overtaking, and the processor's share."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from actors import Acquire, RateLimiter
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

WAITERS = 1_000
RATE = 100.0
SETTLED = 0.2
"""Seconds after which the line stands, and the processor's share is taken from there."""
LATECOMER_EVERY = 0.005


class LineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a line of waiters saw."""

    rate_reached: float
    """Per cent of the rate, from the first grant that was waited for."""
    most_in_a_second: float
    overtakes: float
    """Grants to a waiter that came after one that was still waiting and was not cancelled."""
    cpu: float
    """Per cent of the time that went by."""


@asynccontextmanager
async def our_limiter(rate: float, burst: int) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    async with ActorSystem("limiter", log=False) as system:
        limiter = system.spawn(lambda: RateLimiter("quota", rate=rate, burst=burst), name="limiter")
        yield lambda: limiter.ask(Acquire(), timeout=600.0)


@asynccontextmanager
async def aiolimiter(rate: float, burst: int) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 - an extra.

    yield AsyncLimiter(burst, burst / rate).acquire


@asynccontextmanager
async def bare_timers(rate: float, burst: int) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    """Give every waiter its time when it comes, which limits nothing: what waking them costs at the least."""
    began, numbers = asyncio.get_running_loop().time(), itertools.count(1 - burst)

    async def acquire() -> None:
        await asyncio.sleep(began + next(numbers) / rate - asyncio.get_running_loop().time())

    yield acquire


async def line(
    limiter: Callable[[float, int], AbstractAsyncContextManager[Callable[[], Awaitable[object]]]],
    *,
    burst: int,
    lasts: float,
    waiters: int = WAITERS,
    cancelled: float = 0.0,
) -> LineFacts:
    """Let waiters queue for `lasts` seconds; a part of them is cancelled while they wait.

    Where some are cancelled, others join the line meanwhile.
    """
    grants: list[tuple[float, int]] = []
    clock = asyncio.get_running_loop().time

    async with limiter(RATE, burst) as acquire:

        async def waiter(number: int) -> None:
            await acquire()
            grants.append((clock(), number))

        tasks = [asyncio.create_task(waiter(number)) for number in range(waiters)]
        begin = clock()
        await asyncio.sleep(min(SETTLED, lasts / 2))
        cpu, since = time.process_time(), clock()
        given_up: set[int] = set()
        if cancelled:
            given_up = await disturb(tasks, waiter, count=int(waiters * cancelled), until=begin + lasts)
        await asyncio.sleep(begin + lasts - clock())
        cpu_share = (time.process_time() - cpu) / (clock() - since)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    times = [at for at, _ in grants]
    waited = times[burst:]
    return LineFacts(
        rate_reached=100 * len(waited) / RATE / (waited[-1] - times[0]),
        most_in_a_second=max(bisect.bisect_left(times, at + 1.0) - index for index, at in enumerate(times)),
        overtakes=overtakes([number for _, number in grants], given_up),
        cpu=100 * cpu_share,
    )


async def disturb(
    tasks: list[asyncio.Task[None]], waiter: Callable[[int], Awaitable[None]], *, count: int, until: float
) -> set[int]:
    """Cancel `count` waiters one after the other, half of them at the head of the line, while others join it."""
    dice, clock, given_up = random.Random(7), asyncio.get_running_loop().time, set[int]()

    async def join(number: int) -> None:
        await waiter(number)

    step = (until - clock()) / (count + 1)
    for turn in range(count):
        await asyncio.sleep(step)
        waiting = [number for number, task in enumerate(tasks) if not task.done() and number not in given_up]
        number = waiting[0] if turn % 2 else dice.choice(waiting)
        given_up.add(number)
        tasks[number].cancel()
        tasks.append(asyncio.create_task(join(len(tasks))))
    return given_up


def overtakes(order: list[int], given_up: set[int]) -> int:
    """Count the grants that came before that of a waiter that had joined the queue earlier.

    >>> overtakes([0, 2, 3, 1, 4], given_up=set())
    2
    >>> overtakes([0, 2, 3, 4], given_up={1})
    0
    """
    found, earliest_behind = 0, len(order) + max(order, default=0)
    for number in reversed(order):
        if number in given_up:
            continue
        found += number > earliest_behind
        earliest_behind = min(earliest_behind, number)
    return found
