"""Threads, processes, and the way in from a foreign thread: G11."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import CancelledError

import pytest

from runtime import (
    Actor,
    ActorSystem,
    AskTimeout,
    Message,
    Request,
    SystemClosed,
    handles,
    run_in_process,
    run_in_thread,
)
from tests.real_time import FAR, GUARD

pytestmark = pytest.mark.real_time


class Double(Request[int]):
    number: int


class Wait(Request[int]):
    pass


class Put(Message):
    number: int


class Worker(Actor):
    def __init__(self) -> None:
        self.got: list[int] = []
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    @handles(Double)
    async def double(self, message: Double) -> int:
        return await run_in_thread(lambda number: number * 2, number=message.number)

    @handles(Wait)
    async def wait(self, message: Wait) -> int:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return 0

    @handles(Put)
    def put(self, message: Put) -> None:
        self.got.append(message.number)


async def test_blocking_work_runs_in_a_thread_beside_the_loop():
    """G11."""
    loop, entered, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def block() -> str:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(GUARD)
        return threading.current_thread().name

    work = asyncio.create_task(run_in_thread(block))
    await entered.wait()
    go_on.set()
    assert await work != threading.current_thread().name
    async with ActorSystem() as system:
        assert await system.spawn(Worker).ask(Double(21), timeout=FAR) == 42


async def test_what_blocking_work_raises_is_raised_and_a_cancelled_caller_waits_for_its_end():
    """G11."""
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(divmod, 1, 0)
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    go_on, left = threading.Event(), threading.Event()

    def block() -> None:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(GUARD)
        left.set()

    work = asyncio.create_task(run_in_thread(block))
    await entered.wait()
    work.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not work.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert left.is_set()


async def test_work_that_waits_for_a_thread_is_given_up_at_once():
    """G11."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Semaphore(0)
    go_on, ran = threading.Event(), threading.Event()

    def block() -> bool:
        loop.call_soon_threadsafe(arrived.release)
        return go_on.wait(GUARD)

    busy = [asyncio.create_task(run_in_thread(block)) for _ in range(40)]
    for _ in busy:
        await arrived.acquire()
    late = asyncio.create_task(run_in_thread(ran.set))
    for _ in range(10):
        await asyncio.sleep(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    go_on.set()
    assert all(await asyncio.gather(*busy))
    assert not ran.is_set()


@pytest.mark.slow
async def test_work_for_a_process_runs_in_another_one_and_is_killed_with_its_caller():
    """G11."""
    assert await run_in_process(math.factorial, 20) == math.factorial(20)
    with pytest.raises(ZeroDivisionError):
        await run_in_process(divmod, 1, 0)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run_in_process(time.sleep, FAR)
    assert time.monotonic() - began < FAR


async def test_a_foreign_thread_tells_asks_and_gets_answers_and_errors():
    """G11."""
    worker = Worker()
    async with ActorSystem() as system:
        ref = system.spawn(lambda: worker)

        def outside() -> int:
            for number in range(100):
                told = system.from_thread(ref.tell, Put(number))
            assert told.result() is None
            with pytest.raises(AskTimeout):
                system.from_thread(ref.ask, Wait(), timeout=0.01).result()
            with pytest.raises(ValueError, match="timeout"):
                system.from_thread(ref.ask, Wait(), timeout=-1.0).result()
            return system.from_thread(ref.ask, Double(21), timeout=FAR).result()

        assert await run_in_thread(outside) == 42
        assert worker.got == list(range(100))
    with pytest.raises(SystemClosed):
        system.from_thread(ref.tell, Put(1))


async def test_cancelling_from_a_thread_cancels_the_handler():
    """G11."""
    worker = Worker()
    async with ActorSystem() as system:
        ref = system.spawn(lambda: worker)
        asking = system.from_thread(ref.ask, Wait(), timeout=FAR)
        await worker.begun.wait()
        await run_in_thread(asking.cancel)
        await worker.ended.wait()
        with pytest.raises(CancelledError):
            asking.result()


async def test_the_deadline_of_a_request_holds_in_the_thread_that_works_on_it():
    """G11, G5."""
    remaining: list[float] = []

    class Inner(Actor):
        @handles(Wait)
        def wait(self, message: Wait) -> int:
            deadline = self.context.deadline
            assert deadline is not None
            remaining.append(deadline - self.context.now())
            return 0

    class Outer(Actor):
        @handles(Double)
        async def double(self, message: Double) -> int:
            return await run_in_thread(lambda: system.from_thread(inner.ask, Wait(), timeout=2 * FAR).result())

    async with ActorSystem() as system:
        inner = system.spawn(Inner)
        assert await system.spawn(Outer).ask(Double(1), timeout=FAR) == 0
    assert 0 < remaining[0] <= FAR
